//! Who is measured, by which names.

use anyhow::bail;
use serde_json::Value;

use super::matrix::{Cell, Workload};
use super::ucx;

/// Those of bulk, as `sdp perf compare` calls them.
const BULK: [&str; 12] = [
    "tcp",
    "uds",
    "sdp-bcopy",
    "sdp-auto",
    "sdp-zcopy",
    "sdp-registered",
    "tcp-poll",
    "uds-poll",
    "sdp-poll",
    "sdp-registered-poll",
    "floor-ring",
    "floor-single",
];
/// Those of the ping-pong.
const PING_PONG: [&str; 11] = [
    "tcp",
    "tcp-spin",
    "tcp-poll",
    "uds",
    "uds-spin",
    "uds-poll",
    "sdp-auto",
    "sdp-sleep",
    "sdp-spin",
    "sdp-poll",
    "sdp-registered",
];
/// Shorter messages are copied, whatever the mode.
const ZCOPY_MIN: u64 = 4096;

/// Labels in the order of tables and legends: bulk by blocking calls.
pub(super) const BLOCKING: [&str; 6] = [
    "TCP",
    "Unix",
    "SDP",
    "SDP bcopy",
    "SDP zcopy",
    "SDP registered",
];
/// What is no socket.
pub(super) const OTHERS: [&str; 4] = ["UCX stream", "UCX tag", "floor ring", "floor single copy"];
/// Non-blocking calls and poll(2).
pub(super) const POLLED: [&str; 4] = [
    "TCP polled",
    "Unix polled",
    "SDP polled",
    "SDP registered polled",
];
/// Ways to wait in a ping-pong.
pub(super) const WAITING: [&str; 8] = [
    "TCP",
    "Unix",
    "SDP",
    "SDP sleep",
    "SDP registered",
    "TCP polled",
    "Unix polled",
    "SDP polled",
];
/// Those that take a processor each all the time.
pub(super) const SPINNING: [&str; 5] =
    ["TCP spin", "Unix spin", "SDP spin", "UCX stream", "UCX tag"];

/// The peers that were asked for.
#[derive(Debug)]
pub(super) struct Peers {
    only: Option<Vec<String>>,
}

impl Peers {
    /// Those named, or all.
    ///
    /// # Errors
    /// When a name is of none.
    pub(super) fn wanted(only: Option<&[String]>) -> anyhow::Result<Self> {
        let known: Vec<&str> = [&BULK[..], &PING_PONG[..], &ucx::NAMES[..]].concat();
        let mut named = only.into_iter().flatten();
        if let Some(unknown) = named.find(|name| !known.contains(&name.as_str())) {
            let mut all = known;
            all.sort_unstable();
            all.dedup();
            bail!("no peer is called {unknown}; there are {}", all.join(", "));
        }
        Ok(Self {
            only: only.map(<[String]>::to_vec),
        })
    }

    /// Whether it is one of them.
    pub(super) fn has(&self, name: &str) -> bool {
        let only = self.only.as_ref();
        only.is_none_or(|only| only.iter().any(|wanted| wanted == name))
    }

    /// Those that `sdp perf compare` measures in a cell.
    pub(super) fn ours(&self, cell: Cell) -> Vec<&'static str> {
        let all = match cell.workload {
            Workload::Bw => &BULK[..],
            Workload::Lat => &PING_PONG[..],
        };
        let fits =
            |name: &&str| self.has(name) && (**name != *"sdp-zcopy" || cell.size >= ZCOPY_MIN);
        all.iter().copied().filter(fits).collect()
    }
}

/// How tables and charts call the peer of a result: `TCP`, `SDP registered polled`, `floor ring`.
pub(super) fn label(result: &Value) -> String {
    let text = |field: &str| result[field].as_str().unwrap_or("?");
    let (peer, mode, wait) = (text("peer"), text("mode"), text("wait"));
    let name = match peer {
        "tcp" => "TCP".to_owned(),
        "uds" => "Unix".to_owned(),
        "sdp" => match (mode, text("buffers")) {
            // Of connections alone there is no more to say.
            ("auto", "heap") | ("?", _) => "SDP".to_owned(),
            ("auto", buffers) => format!("SDP {buffers}"),
            (mode, _) => format!("SDP {mode}"),
        },
        "ucx" => return format!("UCX {mode}"),
        "floor" => return format!("floor {}", mode.replace('_', " ")),
        other => other.to_owned(),
    };
    match (peer, wait) {
        (_, "poll") => name + " polled",
        (_, "spin") => name + " spin",
        ("sdp", "sleep") => name + " sleep",
        _ => name,
    }
}

/// The TCP that waits as the peer of a result does.
pub(super) fn tcp_like(result: &Value) -> &'static str {
    match (result["workload"].as_str(), result["wait"].as_str()) {
        (_, Some("poll")) => "TCP polled",
        (Some("lat"), Some("spin")) => "TCP spin",
        _ => "TCP",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn cell(workload: Workload, size: u64) -> Cell {
        Cell {
            workload,
            size,
            conns: 1,
        }
    }

    #[test]
    fn results_are_called_by_what_makes_them_differ() {
        let result = |peer: &str, mode: &str, buffers: &str, wait: &str| {
            let all = json!({ "workload": "bw", "peer": peer, "mode": mode, "buffers": buffers,
                "wait": wait });
            (label(&all), tcp_like(&all))
        };
        for ((peer, mode, buffers, wait), name, tcp) in [
            (("tcp", "", "heap", "sleep"), "TCP", "TCP"),
            (("uds", "", "heap", "poll"), "Unix polled", "TCP polled"),
            (("sdp", "auto", "heap", "adaptive"), "SDP", "TCP"),
            (("sdp", "auto", "heap", "sleep"), "SDP sleep", "TCP"),
            (("sdp", "bcopy", "heap", "adaptive"), "SDP bcopy", "TCP"),
            (
                ("sdp", "auto", "registered", "poll"),
                "SDP registered polled",
                "TCP polled",
            ),
            (
                ("floor", "single_copy", "registered", "adaptive"),
                "floor single copy",
                "TCP",
            ),
            (("ucx", "stream", "registered", "spin"), "UCX stream", "TCP"),
        ] {
            assert_eq!(result(peer, mode, buffers, wait), (name.to_owned(), tcp));
        }
        let spin = json!({ "workload": "lat", "peer": "ucx", "mode": "tag", "wait": "spin" });
        assert_eq!(tcp_like(&spin), "TCP spin");
    }

    #[test]
    fn peers_are_those_asked_for_where_they_make_sense() {
        let all = Peers::wanted(None).unwrap();
        assert!(!all.ours(cell(Workload::Bw, 64)).contains(&"sdp-zcopy"));
        assert!(all.ours(cell(Workload::Bw, 4096)).contains(&"sdp-zcopy"));
        assert!(all.ours(cell(Workload::Lat, 64)).contains(&"tcp-spin"));
        let some = Peers::wanted(Some(&["tcp".to_owned(), "floor-ring".to_owned()])).unwrap();
        assert_eq!(some.ours(cell(Workload::Lat, 64)), ["tcp"]);
        assert!(!some.has("ucx-tag"));
        let error = Peers::wanted(Some(&["nobody".to_owned()])).unwrap_err();
        assert!(error.to_string().contains("ucx-stream"), "{error}");
    }
}
