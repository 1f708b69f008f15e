//! Two runs of the program `differ`, by the kernel's TCP and by a library of ours, line by line.
//!
//! A line is `PHASE, PROBE: S(FUNCTION)(ARGUMENTS) = RESULT`, or, without a call, what the call before
//! it has left. The tests of sdp-ffi and of the preload library include this file and its neighbours
//! `rules.rs` and `table.rs`; they use the standard library only.

use std::collections::{BTreeMap, BTreeSet};

/// What is held against TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Library {
    /// The functions that begin with `sdp_`.
    Libsdp,
    /// Those of the C library, with `libsdp_preload.so` in front of them.
    Preload,
}

/// A difference that is known and meant. Each list that is empty allows everything.
#[derive(Debug)]
pub(crate) struct Rule {
    /// Its number in the pages, for good.
    pub(crate) number: u32,
    pub(crate) of: &'static [Library],
    pub(crate) functions: &'static [&'static str],
    /// Names among the arguments, one of which is there.
    pub(crate) with: &'static [&'static str],
    pub(crate) phases: &'static [&'static str],
    pub(crate) probes: &'static [&'static str],
    /// How our result begins.
    pub(crate) ours: &'static [&'static str],
    /// Why it is so, as a sentence.
    pub(crate) why: &'static str,
}

/// A line, taken apart.
#[derive(Clone, Copy, Debug)]
struct Line<'a> {
    phase: &'a str,
    probe: &'a str,
    /// The function and its arguments, of a line that has a call.
    call: Option<(&'a str, &'a str)>,
    said: &'a str,
}

impl<'a> Line<'a> {
    fn of(text: &'a str) -> Option<Self> {
        let (place, said) = text.split_once(": ")?;
        let (phase, probe) = place.split_once(", ")?;
        let call = said.strip_prefix("S(").and_then(|rest| {
            let (function, rest) = rest.split_once(")(")?;
            let (arguments, result) = rest.rsplit_once(" = ")?;
            // What is done with the result may stand behind them.
            let arguments = arguments.strip_suffix(')').unwrap_or(arguments);
            Some(((function, arguments), result))
        });
        Some(Self {
            phase,
            probe,
            call: call.map(|it| it.0),
            said: call.map_or(said, |it| it.1),
        })
    }
}

/// What was found of one function.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Function {
    /// Calls compared.
    pub(crate) calls: usize,
    /// By what stands among the arguments: a flag, an option, a request; empty where nothing does.
    pub(crate) topics: BTreeMap<String, Topic>,
    /// Differences that no rule lists: TCP's line and ours.
    pub(crate) unlisted: Vec<(String, String)>,
}

/// What was found of a function with one flag, option or request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Topic {
    /// Calls compared.
    pub(crate) calls: usize,
    /// Calls that gave something else, or left something else behind.
    pub(crate) differing: usize,
    /// By these rules.
    pub(crate) rules: BTreeSet<u32>,
}

/// What was found of all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Comparison {
    /// Lines compared.
    pub(crate) lines: usize,
    pub(crate) functions: BTreeMap<String, Function>,
    /// Rules that differences were found for.
    pub(crate) met: BTreeSet<u32>,
    /// Whether the machine has IPv6, without which some of it was not asked.
    pub(crate) has_v6: bool,
}

impl Comparison {
    /// Differences that no rule lists.
    pub(crate) fn unlisted(&self) -> Vec<String> {
        let all = self.functions.values().flat_map(|it| &it.unlisted);
        all.map(|(tcp, ours)| format!("TCP  {tcp}\nours {ours}"))
            .collect()
    }

    /// Rules for `library` that nothing was found for: what they list is not there any more. Without
    /// IPv6 nothing is said of them.
    pub(crate) fn stale(&self, library: Library, rules: &[Rule]) -> Vec<u32> {
        let of_it = rules.iter().filter(|rule| rule.of.contains(&library));
        let unmet = of_it.filter(|rule| !self.met.contains(&rule.number));
        unmet
            .filter(|_| self.has_v6)
            .map(|rule| rule.number)
            .collect()
    }
}

/// Compares what the program printed by TCP and by `library`.
///
/// # Errors
/// When the two do not answer the same questions: the first place where they part.
pub(crate) fn compare(
    library: Library,
    tcp: &str,
    ours: &str,
    rules: &[Rule],
) -> Result<Comparison, String> {
    let mut found = Comparison::default();
    let mut last = None;
    let (mut theirs, mut own) = (tcp.lines(), ours.lines());
    loop {
        let (tcp, ours) = match (theirs.next(), own.next()) {
            (None, None) => return Ok(found),
            (Some(tcp), Some(ours)) => (tcp, ours),
            (tcp, ours) => return Err(parted(tcp.unwrap_or("nothing"), ours.unwrap_or("nothing"))),
        };
        let (Some(line), Some(other)) = (Line::of(tcp), Line::of(ours)) else {
            return Err(parted(tcp, ours));
        };
        if (line.phase, line.probe, line.call) != (other.phase, other.probe, other.call) {
            return Err(parted(tcp, ours));
        }
        found.lines += 1;
        found.has_v6 |= line.phase.ends_with("_v6");
        let before = last.as_ref().map(|last: &Last<'_>| last.call);
        let Some(call) = line.call.or(before) else {
            return Err(parted(tcp, ours));
        };
        let is_call = line.call.is_some();
        if is_call {
            last = Some(Last { call, rule: None });
        }
        let before = last.as_ref().and_then(|last| last.rule);
        let rule = (tcp != ours).then(|| {
            let listed = |rule: &&Rule| {
                let result = is_call.then_some(other.said);
                rule.lists(library, &line, call, result) || before == Some(rule.number)
            };
            rules.iter().find(listed).map(|rule| rule.number)
        });
        if let (Some(last), Some(rule)) = (&mut last, rule) {
            last.rule = rule.or(last.rule);
        }
        found.note(call, is_call, rule, (tcp, ours));
    }
}

/// The last call, and the rule by which it differed.
#[derive(Debug)]
struct Last<'a> {
    call: (&'a str, &'a str),
    rule: Option<u32>,
}

fn parted(tcp: &str, ours: &str) -> String {
    format!("they part here:\nTCP  {tcp}\nours {ours}")
}

impl Comparison {
    /// `rule`: that of a difference, if there is one and it is listed.
    fn note(
        &mut self,
        (function, arguments): (&str, &str),
        is_call: bool,
        rule: Option<Option<u32>>,
        lines: (&str, &str),
    ) {
        let found = self.functions.entry(function.to_owned()).or_default();
        found.calls += usize::from(is_call);
        for topic in topics(arguments) {
            let topic = found.topics.entry(topic.to_owned()).or_default();
            topic.calls += usize::from(is_call);
            topic.differing += usize::from(is_call && rule.is_some());
            topic.rules.extend(rule.flatten());
        }
        self.met.extend(rule.flatten());
        if rule == Some(None) {
            found
                .unlisted
                .push((lines.0.to_owned(), lines.1.to_owned()));
        }
    }
}

impl Rule {
    /// Everything is allowed, and nothing said: what a rule begins with.
    pub(crate) const ANY: Self = Self {
        number: 0,
        of: &[],
        functions: &[],
        with: &[],
        phases: &[],
        probes: &[],
        ours: &[],
        why: "",
    };

    /// `result`: ours; none of a line that only tells what a call has left, which a rule lists that lists
    /// every result.
    fn lists(
        &self,
        library: Library,
        line: &Line<'_>,
        (function, arguments): (&str, &str),
        result: Option<&str>,
    ) -> bool {
        let allows = |list: &[&str], it: &str| list.is_empty() || list.contains(&it);
        let begins = |result: &str| self.ours.iter().any(|start| result.starts_with(start));
        self.of.contains(&library)
            && allows(self.functions, function)
            && allows(self.phases, line.phase)
            && allows(self.probes, line.probe)
            && (self.with.is_empty() || names(arguments).any(|name| self.with.contains(&name)))
            && (self.ours.is_empty() || result.is_some_and(begins))
    }
}

/// How the names of flags, options and requests begin.
const BEGINNINGS: [&str; 17] = [
    "MSG_",
    "SO_",
    "TCP_",
    "IP_",
    "IPV6_",
    "F_",
    "O_",
    "FIO",
    "SIOC",
    "TIOC",
    "TCGETS",
    "SHUT_",
    "POLL",
    "EPOLL",
    "SOCK_",
    "AF_",
    "IPPROTO_UDP",
];
/// Other arguments that are a question of their own.
const WORDS: [&str; 6] = [
    "NULL",
    "SIZE_MAX",
    "SSIZE_MAX",
    "INT_MAX",
    "INT_MIN",
    "PIECES_MAX",
];

/// The words of the arguments.
fn names(arguments: &str) -> impl Iterator<Item = &str> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    arguments
        .split(move |c| !is_name(c))
        .filter(|name| !name.is_empty())
}

/// Memory that a call is not to touch: a question by itself, whatever the other arguments are.
const BAD_MEMORY: [&str; 2] = ["nowhere", "read_only"];

/// What a call is a question about. Flags of a message are one question together.
fn topics(arguments: &str) -> BTreeSet<&str> {
    if arguments.starts_with("MSG_") {
        return [arguments].into();
    }
    let bad = names(arguments).filter(|name| BAD_MEMORY.contains(name));
    let bad: BTreeSet<&str> = bad.collect();
    if !bad.is_empty() {
        return bad;
    }
    let is_topic = |name: &&str| {
        WORDS.contains(name) || BEGINNINGS.iter().any(|start| name.starts_with(start))
    };
    let mut found: BTreeSet<&str> = names(arguments).filter(is_topic).collect();
    if found.is_empty() {
        found.insert("");
    }
    found
}
