//! Reports within one process.

use serde_json::Value;

use super::*;
use crate::{SdpListener, SdpStream};

/// A report, and the most bytes of one step.
fn whole() -> (Value, usize) {
    let mut report = Report::begin();
    let (mut text, mut longest) = (String::new(), 0);
    loop {
        let before = text.len();
        let step = report.step(&mut text, Cost::default());
        longest = longest.max(text.len() - before);
        if step == Step::Done {
            break;
        }
    }
    let len = text.len();
    assert_eq!(report.step(&mut text, Cost::default()), Step::Done);
    assert_eq!(text.len(), len, "nothing follows the end");
    (serde_json::from_str(&text).expect("JSON"), longest)
}

fn entry(report: &Value, local: std::net::SocketAddr) -> Value {
    let local = local.to_string();
    let mut all = report["connections"].as_array().expect("a list").iter();
    all.find(|it| it["local"] == *local)
        .expect("a connection")
        .clone()
}

/// A connection that another thread works on is told of as far as that goes without waiting.
#[test]
fn a_lock_is_not_waited_for() {
    let listener = SdpListener::bind("127.0.0.1:0").unwrap();
    let stream = SdpStream::connect(listener.local_addr().unwrap()).unwrap();
    let local = stream.local_addr().unwrap();
    let conn = stream.conn().unwrap();
    let inner = conn.lock();
    let (report, _) = whole();
    drop(inner);
    let busy = entry(&report, local);
    assert_eq!(busy["state"], "busy", "{busy}");
    assert!(
        busy["peer"].is_string() && busy.get("credits").is_none(),
        "{busy}"
    );
    let (report, _) = whole();
    assert_eq!(entry(&report, local)["state"], "open");
}

/// A step writes a bounded part, whatever there is.
#[test]
fn steps_are_small() {
    let listener = SdpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let streams: Vec<_> = (0..100)
        .map(|_| SdpStream::connect(addr).unwrap())
        .collect();
    let (report, longest) = whole();
    let count = report["connections"].as_array().unwrap().len();
    assert!(count >= 100, "{count}");
    assert!(longest < STEP_MAX * 4096, "{longest}");
    drop(streams);
}
