use super::*;
use proptest::prelude::*;

fn rules(text: &str) -> Rules {
    let (rules, mistakes) = Rules::parse(text);
    assert_eq!(mistakes, [], "{text}");
    rules
}

fn chosen(text: &str, role: Role, program: &str, addr: &str) -> Choice {
    rules(text).choose(role, program, addr.parse().unwrap())
}

/// The first rule that fits decides; without one it is both.
#[test]
fn the_first_fit_decides() {
    let text = "
# what is ours
use tcp  server nginx *:*
use sdp  listen *     10.0.0.0/8:5000-5009
use both client *     10.1.2.3:80   # in front of the next
use tcp  connect *    10.0.0.0/8:*
use sdp  client iperf3 [fe80::]/10:*
";
    let rows = [
        (Role::Server, "nginx", "10.0.0.1:5001", Choice::Tcp),
        (Role::Server, "redis", "10.9.0.1:5009", Choice::Sdp),
        (Role::Server, "redis", "10.9.0.1:5010", Choice::Both),
        (Role::Server, "redis", "11.9.0.1:5009", Choice::Both),
        (Role::Client, "redis", "10.1.2.3:80", Choice::Both),
        (Role::Client, "redis", "10.1.2.4:80", Choice::Tcp),
        (Role::Client, "redis", "[::ffff:10.1.2.4]:80", Choice::Tcp),
        (Role::Client, "iperf3", "[fe80::1]:9", Choice::Sdp),
        (Role::Client, "iperf3", "[fd80::1]:9", Choice::Both),
        (Role::Client, "iperf", "[fe80::1]:9", Choice::Both),
    ];
    for (role, program, addr, choice) in rows {
        let found = chosen(text, role, program, addr);
        assert_eq!(found, choice, "{role:?} {program} {addr}");
    }
}

/// A prefix of 0 is every address of the family, and a full one is one address.
#[test]
fn prefixes_have_their_ends() {
    let sdp = |network: &str, addr: &str| {
        let text = format!("use sdp client * {network}:*");
        chosen(&text, Role::Client, "x", addr) == Choice::Sdp
    };
    assert!(sdp("1.2.3.4/0", "9.9.9.9:1"));
    assert!(!sdp("1.2.3.4/0", "[9::]:1"));
    assert!(sdp("[::]/0", "[9::]:1"));
    assert!(sdp("[::]/0", "9.9.9.9:1"));
    assert!(sdp("1.2.3.4/32", "1.2.3.4:1"));
    assert!(!sdp("1.2.3.4", "1.2.3.5:1"));
    assert!(sdp("[1::2]/128", "[1::2]:1"));
    assert!(!sdp("[1::2]", "[1::3]:1"));
}

/// Where messages go, and which.
#[test]
fn logs() {
    assert_eq!(rules("").level_min, 9);
    assert_eq!(rules("log").destination, Destination::Stderr);
    let all = rules(
        "log destination file /tmp/a b min-level 1"
            .replace(" b", "")
            .as_str(),
    );
    assert_eq!(all.destination, Destination::File("/tmp/a".into()));
    assert_eq!(all.level_min, 1);
    assert_eq!(
        rules("log min-level 3 destination syslog").destination,
        Destination::Syslog
    );
}

/// Every mistake is found where it is, and the rest of the file counts.
#[test]
fn mistakes_are_named() {
    let rows = [
        ("us sdp", "1:1: expected `use` or `log`, found \"us\""),
        (
            "use",
            "1:4: expected `sdp`, `tcp` or `both`, found the end of the line",
        ),
        (
            "use udp",
            "1:5: expected `sdp`, `tcp` or `both`, found \"udp\"",
        ),
        (
            "use sdp peer * *:*",
            "1:9: expected `server` (`listen`) or `client` (`connect`), found \"peer\"",
        ),
        (
            "use sdp client *  ",
            "1:17: expected ADDRESS[/PREFIX]:PORT[-PORT], `*` for any, found the end of the line",
        ),
        (
            "use sdp client * host",
            "1:18: expected ADDRESS[/PREFIX]:PORT[-PORT], `*` for any, found \"host\"",
        ),
        (
            "use sdp client * ::1:80",
            "1:18: expected an IPv4 address, an IPv6 address in brackets, or `*`, found \"::1:80\"",
        ),
        (
            "use sdp client * 1.2.3.4/33:80",
            "1:26: expected how many bits of the address count, found \"33:80\"",
        ),
        (
            "use sdp client * *:70000",
            "1:20: expected PORT, PORT-PORT or `*`, found \"70000\"",
        ),
        (
            "use sdp client * *:9-8",
            "1:20: expected the smaller port first, found \"9-8\"",
        ),
        (
            "use sdp client * *:9 x",
            "1:22: expected the end of the line, found \"x\"",
        ),
        (
            "log min-level 10",
            "1:15: expected a level from 1 to 9, found \"10\"",
        ),
        (
            "log destination x",
            "1:17: expected `stderr`, `syslog` or `file`, found \"x\"",
        ),
        (
            "log destination file",
            "1:21: expected the path of a file, found the end of the line",
        ),
        (
            "log min-level 1 min-level 2",
            "1:17: expected `destination` or `min-level`, once, found \"min-level\"",
        ),
    ];
    for (line, words) in rows {
        let (rules, mistakes) = Rules::parse(&format!("{line}\nuse tcp server * *:*\n"));
        let said: Vec<String> = mistakes.iter().map(Mistake::to_string).collect();
        assert_eq!(said, [words], "{line}");
        let addr = "1.2.3.4:5".parse().unwrap();
        assert_eq!(rules.choose(Role::Server, "x", addr), Choice::Tcp);
    }
    let (_, mistakes) = Rules::parse("\n\n  use");
    assert_eq!((mistakes[0].line, mistakes[0].column), (3, 6));
}

proptest! {
    /// No text makes it panic, and each line is either a rule or one mistake.
    #[test]
    fn any_text_is_read(text in ".*", role in any::<bool>(), port: u16) {
        let (rules, mistakes) = Rules::parse(&text);
        prop_assert!(mistakes.len() <= text.lines().count());
        let role = if role { Role::Server } else { Role::Client };
        rules.choose(role, "x", ([1, 2, 3, 4], port).into());
    }

    /// The same for what is nearly right.
    #[test]
    fn near_rules_are_read(
        words in prop::collection::vec(
            prop_oneof![
                Just("use"), Just("log"), Just("sdp"), Just("both"), Just("server"), Just("*"),
                Just("*:*"), Just("é:1"), Just("[::]/é:1-"), Just("1.2.3.4/8:1-2"), Just("[::1]:9"),
                Just("min-level"), Just("destination"), Just("file"), Just("7"), Just("#"), Just("\n"),
            ],
            0..12,
        ),
        gap in "[ \t\u{3000}]{1,2}",
    ) {
        let (rules, _) = Rules::parse(&words.join(&gap));
        rules.choose(Role::Server, "x", ([1, 2, 3, 4], 1).into());
    }
}
