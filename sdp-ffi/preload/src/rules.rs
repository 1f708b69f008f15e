//! Which sockets speak SDP: the rules of a file, in the grammar of the libsdp of old.
//!
//! ```text
//!   use sdp|tcp|both  server|listen|client|connect  PROGRAM|*  ADDRESS[/PREFIX]|*:PORT[-PORT]|*
//!   log [destination stderr|syslog|file PATH] [min-level 1..9]
//!   # a comment
//! ```
//!
//! The first rule that fits decides, and where none fits both protocols are used. A line that is
//! wrong is reported and left out; the others count.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;

/// What a socket speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Choice {
    Tcp,
    Sdp,
    /// SDP where the other side has it.
    Both,
}

/// Which end a rule is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Role {
    Server,
    Client,
}

/// Where messages go.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) enum Destination {
    #[default]
    Stderr,
    Syslog,
    File(PathBuf),
}

/// Level of errors, the least that is said by default.
pub(crate) const LEVEL_MAX: u8 = 9;

/// What a file says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Rules {
    rules: Vec<Rule>,
    pub(crate) destination: Destination,
    /// The least level that is said.
    pub(crate) level_min: u8,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            rules: Vec::new(),
            destination: Destination::default(),
            level_min: LEVEL_MAX,
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Rule {
    choice: Choice,
    role: Role,
    /// `None`: every program.
    program: Option<String>,
    /// An address and how many of its bits count; `None`: every address.
    network: Option<(IpAddr, u8)>,
    ports: RangeInclusive<u16>,
}

/// What is wrong with a line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Mistake {
    /// Both count from 1; the column counts characters.
    line: usize,
    column: usize,
    found: String,
    expected: &'static str,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            line,
            column,
            found,
            expected,
        } = self;
        write!(f, "{line}:{column}: expected {expected}, found ")?;
        if found.is_empty() {
            f.write_str("the end of the line")
        } else {
            write!(f, "{found:?}")
        }
    }
}

impl Rules {
    /// Reads the text of a file: what is right in it, and what is not.
    pub(crate) fn parse(text: &str) -> (Self, Vec<Mistake>) {
        let mut rules = Self::default();
        let mut mistakes = Vec::new();
        for (at, line) in text.lines().enumerate() {
            let code = line.split('#').next().unwrap_or_default();
            let words = Words::new(code);
            if let Err((column, found, expected)) = rules.take_line(words) {
                mistakes.push(Mistake {
                    line: at + 1,
                    column,
                    found,
                    expected,
                });
            }
        }
        (rules, mistakes)
    }

    /// One rule for every socket.
    pub(crate) fn always(choice: Choice) -> Self {
        let rule = |role| Rule {
            choice,
            role,
            program: None,
            network: None,
            ports: 0..=u16::MAX,
        };
        Self {
            rules: vec![rule(Role::Server), rule(Role::Client)],
            ..Self::default()
        }
    }

    /// What a socket of `program` speaks that listens on `addr`, or connects to it.
    pub(crate) fn choose(&self, role: Role, program: &str, addr: SocketAddr) -> Choice {
        let fits = |rule: &&Rule| rule.fits(role, program, addr);
        let first = self.rules.iter().find(fits);
        first.map_or(Choice::Both, |rule| rule.choice)
    }

    fn take_line(&mut self, mut words: Words<'_>) -> Result<(), Wrong> {
        let Some((column, word)) = words.next_word() else {
            return Ok(());
        };
        match word {
            "use" => self.rules.push(rule(&mut words)?),
            "log" => self.take_log(&mut words)?,
            _ => return Err((column, word.to_owned(), "`use` or `log`")),
        }
        match words.next_word() {
            None => Ok(()),
            Some((column, word)) => Err((column, word.to_owned(), "the end of the line")),
        }
    }

    fn take_log(&mut self, words: &mut Words<'_>) -> Result<(), Wrong> {
        let (mut destination, mut level) = (None, None);
        while let Some((column, word)) = words.next_word() {
            match word {
                "destination" if destination.is_none() => {
                    destination = Some(match words.want("`stderr`, `syslog` or `file`")? {
                        (_, "stderr") => Destination::Stderr,
                        (_, "syslog") => Destination::Syslog,
                        (_, "file") => {
                            Destination::File(words.want("the path of a file")?.1.into())
                        }
                        (column, other) => {
                            return Err((column, other.to_owned(), "`stderr`, `syslog` or `file`"));
                        }
                    });
                }
                "min-level" if level.is_none() => {
                    let (column, word) = words.want("a level from 1 to 9")?;
                    let number = word.parse().ok().filter(|n| (1..=LEVEL_MAX).contains(n));
                    let wrong = || (column, word.to_owned(), "a level from 1 to 9");
                    level = Some(number.ok_or_else(wrong)?);
                }
                _ => {
                    return Err((
                        column,
                        word.to_owned(),
                        "`destination` or `min-level`, once",
                    ));
                }
            }
        }
        if let Some(destination) = destination {
            self.destination = destination;
        }
        self.level_min = level.unwrap_or(self.level_min);
        Ok(())
    }
}

/// Column, word, what was expected.
type Wrong = (usize, String, &'static str);

fn rule(words: &mut Words<'_>) -> Result<Rule, Wrong> {
    const CHOICES: &str = "`sdp`, `tcp` or `both`";
    const ROLES: &str = "`server` (`listen`) or `client` (`connect`)";
    let choice = match words.want(CHOICES)? {
        (_, "tcp") => Choice::Tcp,
        (_, "sdp") => Choice::Sdp,
        (_, "both") => Choice::Both,
        (column, other) => return Err((column, other.to_owned(), CHOICES)),
    };
    let role = match words.want(ROLES)? {
        (_, "server" | "listen") => Role::Server,
        (_, "client" | "connect") => Role::Client,
        (column, other) => return Err((column, other.to_owned(), ROLES)),
    };
    let (_, program) = words.want("the name of a program or `*`")?;
    let (column, place) = words.want(PLACE)?;
    let (network, ports) = parse_place(place).map_err(|(at, expected)| {
        let column = column + place[..at].chars().count();
        (column, place[at..].to_owned(), expected)
    })?;
    Ok(Rule {
        choice,
        role,
        program: (program != "*").then(|| program.to_owned()),
        network,
        ports,
    })
}

const PLACE: &str = "ADDRESS[/PREFIX]:PORT[-PORT], `*` for any";

type Place = (Option<(IpAddr, u8)>, RangeInclusive<u16>);

/// Errors are where, in bytes, and what was expected there.
fn parse_place(text: &str) -> Result<Place, (usize, &'static str)> {
    let Some(colon) = text.rfind(':') else {
        return Err((0, PLACE));
    };
    let network = parse_network(&text[..colon])?;
    let ports = &text[colon + 1..];
    if ports == "*" {
        return Ok((network, 0..=u16::MAX));
    }
    let wrong = (colon + 1, "PORT, PORT-PORT or `*`");
    let port = |text: &str| text.parse::<u16>().map_err(|_| wrong);
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let ports = port(first)?..=port(last)?;
    if ports.is_empty() {
        return Err((colon + 1, "the smaller port first"));
    }
    Ok((network, ports))
}

fn parse_network(text: &str) -> Result<Option<(IpAddr, u8)>, (usize, &'static str)> {
    if text == "*" {
        return Ok(None);
    }
    const ADDRESS: &str = "an IPv4 address, an IPv6 address in brackets, or `*`";
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some((address.len() + 1, prefix))),
        None => (text, None),
    };
    let ip: IpAddr = match address.strip_prefix('[') {
        Some(rest) => {
            let inside = rest.strip_suffix(']').ok_or((0, ADDRESS))?;
            IpAddr::V6(inside.parse().map_err(|_| (0, ADDRESS))?)
        }
        None => IpAddr::V4(address.parse().map_err(|_| (0, ADDRESS))?),
    };
    let bits_max = if ip.is_ipv4() { 32 } else { 128 };
    let Some((at, prefix)) = prefix else {
        return Ok(Some((ip, bits_max)));
    };
    let bits = prefix.parse().ok().filter(|bits| *bits <= bits_max);
    bits.map(|bits| Some((ip, bits)))
        .ok_or((at, "how many bits of the address count"))
}

impl Rule {
    fn fits(&self, role: Role, program: &str, addr: SocketAddr) -> bool {
        self.role == role
            && self.program.as_ref().is_none_or(|name| name == program)
            && self.ports.contains(&addr.port())
            && self
                .network
                .is_none_or(|(network, bits)| within(addr.ip(), network, bits))
    }
}

/// IPv4 addresses on IPv6 sockets are IPv4 here.
fn within(ip: IpAddr, network: IpAddr, bits: u8) -> bool {
    let bits = u32::from(bits);
    match (ip.to_canonical(), network) {
        (IpAddr::V4(ip), IpAddr::V4(network)) => {
            let mask = u32::MAX.checked_shl(32 - bits.min(32)).unwrap_or(0);
            (u32::from(ip) ^ u32::from(network)) & mask == 0
        }
        (_, IpAddr::V6(network)) => {
            let IpAddr::V6(ip) = (match ip {
                IpAddr::V4(ip) => IpAddr::V6(ip.to_ipv6_mapped()),
                v6 @ IpAddr::V6(_) => v6,
            }) else {
                return false;
            };
            let mask = u128::MAX.checked_shl(128 - bits.min(128)).unwrap_or(0);
            (u128::from(ip) ^ u128::from(network)) & mask == 0
        }
        (IpAddr::V6(_), IpAddr::V4(_)) => false,
    }
}

/// The words of a line, with the columns they begin at.
struct Words<'a> {
    line: &'a str,
    at: usize,
}

impl<'a> Words<'a> {
    fn new(line: &'a str) -> Self {
        Self { line, at: 0 }
    }

    fn column(&self) -> usize {
        self.line[..self.at].chars().count() + 1
    }

    fn next_word(&mut self) -> Option<(usize, &'a str)> {
        let rest = &self.line[self.at..];
        let start = rest.find(|c: char| !c.is_whitespace())?;
        self.at += start;
        let column = self.column();
        let rest = &rest[start..];
        let len = rest.find(char::is_whitespace).unwrap_or(rest.len());
        self.at += len;
        Some((column, &rest[..len]))
    }

    fn want(&mut self, expected: &'static str) -> Result<(usize, &'a str), Wrong> {
        let end = self.column();
        self.next_word().ok_or((end, String::new(), expected))
    }
}

#[cfg(test)]
mod tests;
