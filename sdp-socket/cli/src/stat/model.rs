//! What a process tells, read with distrust: whoever answers may be anybody's program, and root asks
//! everybody's.
//!
//! Lists are bounded, names are made printable, addresses are addresses, the rest are numbers.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::net::SocketAddr;

use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

/// The form that this program understands.
const SCHEMA: &str = "sdp.process/1";
/// Characters of a name at most.
const NAME_MAX: usize = 64;
/// Connections, listeners or contexts at most, as a process tells no more.
const ENTRIES_MAX: usize = 1 << 15;
/// Kinds of anything at most.
const KINDS_MAX: usize = 128;

/// Text that may be shown on any terminal.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) struct Name(String);

impl Name {
    /// The printable form of a text, cut if it is long.
    pub(super) fn of(text: &str) -> Self {
        let shown = |c: char| {
            if c.is_ascii_graphic() || c == ' ' || c.is_alphanumeric() {
                c
            } else {
                '?'
            }
        };
        Self(text.chars().take(NAME_MAX).map(shown).collect())
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Ok(Self::of(&text))
    }
}

/// A report, in the form that `docs/stat.md` describes.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub(super) struct Report {
    schema: Name,
    pub(super) version: Name,
    pub(super) program: Option<Name>,
    /// As the process itself has it.
    pub(super) pid: u32,
    pub(super) memory: Option<Memory>,
    #[serde(deserialize_with = "kinds")]
    pub(super) counters: BTreeMap<Name, Numbers>,
    #[serde(deserialize_with = "list::<_, _, KINDS_MAX>")]
    pub(super) contexts: Vec<Context>,
    pub(super) left_out: u64,
    #[serde(deserialize_with = "list::<_, _, ENTRIES_MAX>")]
    pub(super) listeners: Vec<Listener>,
    #[serde(deserialize_with = "list::<_, _, ENTRIES_MAX>")]
    pub(super) connections: Vec<Connection>,
    complete: bool,
}

/// Numbers by their names.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(transparent)]
pub(super) struct Numbers(#[serde(deserialize_with = "kinds")] pub(super) BTreeMap<Name, u64>);

/// Private memory of a process.
#[derive(Debug, Clone, Copy, Deserialize, Serialize)]
pub(super) struct Memory {
    pub(super) used: u64,
    pub(super) used_max: u64,
    pub(super) max: u64,
    pub(super) refused: u64,
}

/// A provider, or a device of it.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub(super) struct Context {
    pub(super) provider: Name,
    pub(super) device: Option<Name>,
    pub(super) connections_ended: u64,
    pub(super) ended: Counts,
}

/// A listener.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub(super) struct Listener {
    pub(super) local: Option<SocketAddr>,
    pub(super) providers: Name,
    pub(super) backlog: u64,
    pub(super) queued: u64,
    pub(super) waiting: u64,
    pub(super) accepted: u64,
}

/// One end of a connection. Of one that is resolving or was busy only the first members are told.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub(super) struct Connection {
    pub(super) provider: Name,
    pub(super) device: Option<Name>,
    pub(super) local: Option<SocketAddr>,
    pub(super) peer: Option<SocketAddr>,
    pub(super) state: Name,
    #[serde(default)]
    pub(super) in_call: bool,
    #[serde(default)]
    pub(super) credits: u64,
    #[serde(default)]
    pub(super) posted: u64,
    #[serde(default)]
    pub(super) unsent: u64,
    #[serde(default)]
    pub(super) unread: u64,
    #[serde(default)]
    pub(super) adverts_open: u64,
    #[serde(default)]
    pub(super) peer_adverts_open: u64,
    #[serde(flatten)]
    pub(super) counts: Counts,
}

impl Connection {
    /// It has told no more than its addresses.
    pub(super) fn is_busy(&self) -> bool {
        self.state.as_str() == "busy"
    }
}

/// Counters, by the names of the library's `Stats`.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct Counts {
    pub(super) tx_bytes_bcopy: u64,
    pub(super) tx_bytes_inline: u64,
    pub(super) tx_bytes_zcopy: u64,
    pub(super) tx_bytes_written: u64,
    pub(super) tx_bytes_queued: u64,
    pub(super) rx_bytes_bcopy: u64,
    pub(super) rx_bytes_inline: u64,
    pub(super) rx_bytes_zcopy: u64,
    pub(super) rx_bytes_written: u64,
    pub(super) rx_bytes_read_ahead: u64,
    pub(super) tx_adverts_open_max: u64,
    pub(super) probes: u64,
    pub(super) credit_stalls: u64,
    pub(super) memory_scarce: u64,
    pub(super) memory_refused: u64,
    #[serde(deserialize_with = "kinds")]
    pub(super) copy_reasons: BTreeMap<Name, Copies>,
    #[serde(deserialize_with = "kinds")]
    pub(super) messages: BTreeMap<Name, Messages>,
    #[serde(deserialize_with = "list::<_, _, KINDS_MAX>")]
    pub(super) choices: Vec<Choice>,
}

impl Counts {
    /// Bytes of payload that were sent.
    pub(super) fn sent(&self) -> u64 {
        let copied = self.tx_bytes_bcopy.saturating_add(self.tx_bytes_inline);
        copied.saturating_add(self.tx_bytes_zcopy)
    }

    /// Bytes of payload that were received.
    pub(super) fn received(&self) -> u64 {
        let copied = self.rx_bytes_bcopy.saturating_add(self.rx_bytes_inline);
        copied
            .saturating_add(self.rx_bytes_zcopy)
            .saturating_add(self.rx_bytes_read_ahead)
    }
}

/// What was copied for one reason.
#[derive(Debug, Clone, Copy, Default, Deserialize, Serialize)]
pub(super) struct Copies {
    pub(super) transfers: u64,
    pub(super) bytes: u64,
}

/// Messages of one kind.
#[derive(Debug, Clone, Copy, Default, Deserialize, Serialize)]
pub(super) struct Messages {
    pub(super) sent: u64,
    pub(super) received: u64,
}

/// Which way sends of one class go.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub(super) struct Choice {
    pub(super) registered: bool,
    pub(super) from: u64,
    pub(super) zcopy: bool,
    pub(super) why: Name,
    pub(super) copy_cost: Option<u64>,
    pub(super) zcopy_cost: Option<u64>,
    pub(super) sends: u64,
    pub(super) explored: u64,
}

impl Report {
    /// Reads a report.
    ///
    /// # Errors
    /// What is wrong with it, in printable words.
    pub(super) fn read(json: &str) -> Result<Self, String> {
        let report: Self = serde_json::from_str(json)
            .map_err(|error| format!("not a report: {}", Name::of(&error.to_string())))?;
        match report.schema.as_str() {
            SCHEMA if report.complete => Ok(report),
            SCHEMA => Err("the report has no end".to_owned()),
            other => Err(format!(
                "a report of another form, {other}: its library is of another version"
            )),
        }
    }
}

/// A list of at most `MAX` items.
fn list<'de, D: Deserializer<'de>, T: Deserialize<'de>, const MAX: usize>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    struct Items<T, const MAX: usize>(PhantomData<T>);
    impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for Items<T, MAX> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a list of at most {MAX}")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
            let mut items = Vec::new();
            while let Some(item) = seq.next_element()? {
                if items.len() == MAX {
                    return Err(A::Error::custom(format!("more than {MAX} in a list")));
                }
                items.push(item);
            }
            Ok(items)
        }
    }
    deserializer.deserialize_seq(Items::<T, MAX>(PhantomData))
}

/// Values by their names, of which there are few.
fn kinds<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<BTreeMap<Name, T>, D::Error> {
    struct Kinds<T>(PhantomData<T>);
    impl<'de, T: Deserialize<'de>> Visitor<'de> for Kinds<T> {
        type Value = BTreeMap<Name, T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "at most {KINDS_MAX} members")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut kinds = BTreeMap::new();
            while let Some((name, value)) = map.next_entry()? {
                if kinds.len() == KINDS_MAX {
                    return Err(A::Error::custom(format!("more than {KINDS_MAX} kinds")));
                }
                kinds.insert(name, value);
            }
            Ok(kinds)
        }
    }
    deserializer.deserialize_map(Kinds(PhantomData))
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// A report with one of everything.
    pub(in crate::stat) fn sample() -> Value {
        let counts = json!({
            "tx_bytes_bcopy": 100, "tx_bytes_zcopy": 1_048_576, "rx_bytes_bcopy": 7,
            "copy_reasons": {"tail": {"transfers": 2, "bytes": 100}},
            "messages": {"Data": {"sent": 3, "received": 1}},
            "choices": [{"registered": true, "from": 16384, "zcopy": true, "why": "measured",
                "copy_cost": 9, "zcopy_cost": 7, "sends": 4, "explored": 1}],
        });
        let mut connection = counts.clone();
        for (name, value) in [
            ("provider", json!("host")),
            ("device", Value::Null),
            ("local", json!("127.0.0.1:7000")),
            ("peer", json!("127.0.0.1:40000")),
            ("state", json!("open")),
            ("in_call", json!(true)),
            ("credits", json!(30)),
        ] {
            connection[name] = value;
        }
        json!({
            "schema": SCHEMA, "version": "0.1.0", "pid": 42, "program": "demo",
            "memory": {"used": 1, "used_max": 2, "max": 3, "refused": 0},
            "counters": {"preload": {"tcp_refused": 3}},
            "contexts": [{"provider": "host", "device": null, "connections_ended": 5, "ended": counts}],
            "left_out": 0,
            "listeners": [{"local": "127.0.0.1:7000", "providers": "host", "backlog": 128,
                "queued": 1, "waiting": 0, "accepted": 6}],
            "connections": [connection],
            "complete": true,
        })
    }

    fn refused(change: impl FnOnce(&mut Value)) -> String {
        let mut value = sample();
        change(&mut value);
        Report::read(&value.to_string()).unwrap_err()
    }

    #[test]
    fn a_report_is_read() {
        let report = Report::read(&sample().to_string()).unwrap();
        let connection = &report.connections[0];
        assert_eq!(connection.counts.sent(), 1_048_676);
        assert_eq!(connection.counts.received(), 7);
        assert_eq!(report.contexts[0].ended.copy_reasons.len(), 1);
    }

    /// Whatever comes is refused in words, and takes no more memory than a report may.
    #[test]
    fn what_is_no_report_is_refused() {
        for text in [
            "",
            "{}",
            "[]",
            "null",
            "\u{1b}[2J",
            "{\"schema\":\"sdp.process/1\"}",
        ] {
            assert!(Report::read(text).is_err(), "{text}");
        }
        assert!(refused(|it| it["schema"] = json!("sdp.process/2")).contains("another version"));
        assert!(refused(|it| it["complete"] = json!(false)).contains("no end"));
        assert!(
            refused(|it| it["connections"][0]["local"] = json!("nowhere")).contains("not a report")
        );
        assert!(refused(|it| it["pid"] = json!(-1)).contains("not a report"));
        let many = vec![json!({"provider": "", "state": ""}); ENTRIES_MAX + 1];
        assert!(refused(|it| it["connections"] = many.into()).contains("more than"));
        let kinds: serde_json::Map<_, _> = (0..=KINDS_MAX)
            .map(|n| (n.to_string(), json!({})))
            .collect();
        assert!(refused(|it| it["counters"] = kinds.into()).contains("more than"));
        let deep = "[".repeat(100_000);
        assert!(Report::read(&deep).is_err());
    }

    /// Nothing that a terminal would obey gets through a name.
    #[test]
    fn names_are_printable() {
        let mut value = sample();
        value["program"] = json!(format!("\u{1b}[31mevil\u{202e}\n{}", "x".repeat(200)));
        let program = Report::read(&value.to_string()).unwrap().program.unwrap();
        assert!(program.as_str().starts_with("?[31mevil??xx"), "{program}");
        assert_eq!(program.as_str().chars().count(), NAME_MAX);
    }
}
