//! What went over the wire between two guests, as a dissector that is not ours reads it, against what
//! both guests have written down themselves.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::capture_check::{Frame, Sdp, read};
use crate::step::Tally;

/// Addresses of the two guests, as `net.sh` gives them.
const GUESTS: [&str; 2] = ["10.9.0.1", "10.9.0.2"];
/// Bytes of a frame before what the transport header carries: Ethernet, IPv4, UDP, the header.
const HEADERS: usize = 14 + 20 + 8 + 12;
/// More of them in a datagram of the connection manager.
const DATAGRAM: usize = 8;
/// The key of a message that invalidates one.
const INVALIDATED: usize = 4;
/// The check over all of a packet, behind it.
const CHECK: usize = 4;
/// Private data in a request to connect, from the beginning of the datagram; and what rdma_cm keeps
/// for itself of it.
const REQUEST: usize = 164;
const REQUEST_KEPT: usize = 36;
const HELLO: usize = 32;
/// Private data in an answer.
const ANSWER: usize = 60;
const HELLO_ACK: usize = 196;
const REQ: &str = "0x0010";
const REP: &str = "0x0013";
/// Fewer messages prove little.
const MESSAGES_MIN: usize = 100;

/// A message, and what the dissector says of its first packet.
#[derive(Debug, Clone, Default)]
struct Message {
    bytes: Vec<u8>,
    sdp: Option<Sdp>,
}

/// The messages to one queue pair, in their order.
type Stream = Vec<Message>;

/// What one capture holds of what one guest has sent.
#[derive(Debug, Default)]
struct Sent {
    streams: Vec<Stream>,
    hellos: BTreeSet<Vec<u8>>,
    answers: Vec<Message>,
}

/// A packet's place in its message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Part {
    first: bool,
    last: bool,
    invalidates: bool,
}

/// `None`: it is no part of a message.
fn part(opcode: u64) -> Option<Part> {
    let (first, last) = match opcode {
        0x00 => (true, false),
        0x01 => (false, false),
        0x02 | 0x16 => (false, true),
        0x04 | 0x17 => (true, true),
        _ => return None,
    };
    Some(Part {
        first,
        last,
        invalidates: matches!(opcode, 0x16 | 0x17),
    })
}

/// Where, from the beginning of a frame, a request to connect has its Hello.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Wire,
    Log,
}

impl Sent {
    /// Of `guest`. Each capture has numbers of its own for queue pairs.
    fn of(captures: &[Vec<Frame>], guest: &str, kind: Kind) -> Self {
        let mut sent = Self::default();
        let mut streams: BTreeMap<(usize, &str), Stream> = BTreeMap::new();
        let mut seen = BTreeSet::new();
        let each = captures.iter().enumerate();
        let frames = each.flat_map(|(at, frames)| frames.iter().map(move |frame| (at, frame)));
        for (capture, frame) in frames.filter(|(_, frame)| frame.source == guest) {
            let bytes = bytes(&frame.raw);
            let datagram = HEADERS + DATAGRAM;
            match frame.attribute.as_deref() {
                Some(REQ) => {
                    let kept = match kind {
                        Kind::Wire => REQUEST_KEPT,
                        Kind::Log => 0,
                    };
                    let at = datagram + REQUEST + kept;
                    sent.hellos
                        .extend(bytes.get(at..at + HELLO).map(<[u8]>::to_vec));
                }
                Some(REP) => {
                    let at = datagram + ANSWER;
                    let answer = bytes.get(at..at + HELLO_ACK).unwrap_or_default();
                    sent.answers.push(Message {
                        bytes: answer.to_vec(),
                        sdp: frame.sdp.clone(),
                    });
                }
                _ => {}
            }
            let Some(part) = part(frame.opcode) else {
                continue;
            };
            // A packet may be sent again.
            if frame.attribute.is_some()
                || !seen.insert((capture, &frame.queue_pair, &frame.number))
            {
                continue;
            }
            let from = HEADERS + if part.invalidates { INVALIDATED } else { 0 };
            let payload = bytes.get(from..bytes.len().saturating_sub(CHECK));
            let stream = streams.entry((capture, &*frame.queue_pair)).or_default();
            if part.first {
                let sdp = frame.sdp.clone();
                let bytes = Vec::new();
                stream.push(Message { bytes, sdp });
            }
            if let (Some(message), Some(payload)) = (stream.last_mut(), payload) {
                message.bytes.extend(payload);
                if part.last {
                    // What pads the packet is no part of it.
                    message.bytes.truncate(len(&message.bytes));
                }
            }
        }
        sent.streams = streams.into_values().collect();
        // The wire's order of queue pairs is another one.
        let key = |stream: &Stream| -> Vec<Vec<u8>> {
            stream.iter().map(|message| message.bytes.clone()).collect()
        };
        sent.streams.sort_by_cached_key(key);
        sent.answers.sort_by(|a, b| a.bytes.cmp(&b.bytes));
        sent.answers.dedup_by(|a, b| a.bytes == b.bytes);
        sent
    }
}

fn bytes(hex: &str) -> Vec<u8> {
    let digit = |at: usize| {
        hex.get(at..at + 2)
            .and_then(|two| u8::from_str_radix(two, 16).ok())
    };
    (0..hex.len()).step_by(2).map_while(digit).collect()
}

/// Bytes of a message by its own account.
fn len(message: &[u8]) -> usize {
    let field = message.get(4..8).and_then(|four| four.try_into().ok());
    field.map_or(usize::MAX, |four| u32::from_be_bytes(four) as usize)
}

/// Differences, and how much was compared.
#[derive(Debug, Default)]
struct Verdict {
    compared: usize,
    mismatches: Vec<String>,
}

impl Verdict {
    fn wrong(&mut self, what: String) {
        self.mismatches.push(what);
    }

    /// One side's account of what a guest has sent.
    fn account(&mut self, name: &str, wire: &Sent, log: &Sent) {
        if wire.hellos != log.hellos || wire.hellos.is_empty() == wire.answers.is_empty() {
            self.wrong(format!(
                "{name}: Hello {:x?} logged as {:x?}",
                wire.hellos, log.hellos
            ));
        }
        self.compared += wire.hellos.len();
        self.messages(&format!("{name}: HelloAck"), &wire.answers, &log.answers);
        if wire.streams.len() != log.streams.len() {
            let (seen, logged) = (wire.streams.len(), log.streams.len());
            self.wrong(format!(
                "{name}: {seen} streams of messages logged as {logged}"
            ));
        }
        for (number, (seen, logged)) in wire.streams.iter().zip(&log.streams).enumerate() {
            self.messages(&format!("{name}: stream {number}"), seen, logged);
        }
    }

    fn messages(&mut self, name: &str, wire: &[Message], log: &[Message]) {
        if wire.len() != log.len() {
            self.wrong(format!(
                "{name}: {} messages logged as {}",
                wire.len(),
                log.len()
            ));
        }
        for (number, (seen, logged)) in wire.iter().zip(log).enumerate() {
            self.compared += 1;
            if seen.bytes != logged.bytes {
                let head = |bytes: &[u8]| format!("{:02x?}", &bytes[..bytes.len().min(32)]);
                let (seen, logged) = (head(&seen.bytes), head(&logged.bytes));
                self.wrong(format!(
                    "{name}: message {number} is {seen}, logged as {logged}"
                ));
            }
        }
    }

    /// The dissector's fields against the bytes that a guest has logged.
    fn fields(&mut self, name: &str, wire: &[Message], log: &[Message]) {
        for (number, (seen, logged)) in wire.iter().zip(log).enumerate() {
            let Some(sdp) = &seen.sdp else {
                self.wrong(format!("{name}: message {number} is not seen as SDP"));
                continue;
            };
            for (field, place) in FIELDS {
                let sent = logged.bytes.get(place).unwrap_or_default();
                let sent: String = sent.iter().map(|byte| format!("{byte:02x}")).collect();
                if sdp.bytes(field) != Some(&sent) {
                    let seen = sdp.bytes(field);
                    self.wrong(format!(
                        "{name}: message {number}: {field} {sent} seen as {seen:?}"
                    ));
                }
            }
        }
    }
}

/// Fields of the base header, and where they are.
const FIELDS: [(&str, std::ops::Range<usize>); 6] = [
    ("bsdh.mid", 0..1),
    ("bsdh.flags", 1..2),
    ("bsdh.bufs", 2..4),
    ("bsdh.len", 4..8),
    ("bsdh.mseq", 8..12),
    ("bsdh.mseqack", 12..16),
];

/// Compares what the wire and both guests say.
///
/// # Errors
/// When the dissector cannot be run.
pub(super) fn judge(folder: &Path) -> anyhow::Result<Tally> {
    let wire = read(&folder.join("wire.pcap"))?;
    let mut logs = Vec::new();
    for node in ["0", "1"] {
        let paths = captures(&folder.join(node))?;
        let frames = paths.iter().map(|path| read(path));
        logs.push(frames.collect::<Result<Vec<_>, _>>()?);
    }
    let verdict = compare(wire, &logs);
    let mut tally = Tally::default();
    let output = format!("{} messages compared\n", verdict.compared);
    if verdict.mismatches.is_empty() && verdict.compared >= MESSAGES_MIN {
        tally.passed = 1;
        return Ok(tally);
    }
    let shown = verdict.mismatches.iter().take(20);
    let shown: String = shown.map(|what| format!("{what}\n")).collect();
    let count = verdict.mismatches.len();
    Ok(Tally::failed(format!(
        "{shown}{count} mismatches, {output}"
    )))
}

/// What the processes of a guest have left, in the order of their names.
fn captures(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))? {
        let path = entry?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "pcapng")
        {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn compare(wire: Vec<Frame>, logs: &[Vec<Vec<Frame>>]) -> Verdict {
    let wire = [wire];
    let mut verdict = Verdict::default();
    for (node, guest) in GUESTS.into_iter().enumerate() {
        let seen = Sent::of(&wire, guest, Kind::Wire);
        for (other, frames) in logs.iter().enumerate() {
            let word = if node == other { "sent" } else { "received" };
            let log = Sent::of(frames, guest, Kind::Log);
            verdict.account(&format!("by guest {node}, {word}"), &seen, &log);
            if node == other {
                let name = format!("by guest {node}");
                verdict.fields(&format!("{name}: HelloAck"), &seen.answers, &log.answers);
                for (seen, logged) in seen.streams.iter().zip(&log.streams) {
                    verdict.fields(&name, seen, logged);
                }
            }
        }
    }
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// A Data with `payload` in packets, the last of them padded, and what the dissector says of it.
    fn packets(payload: &[u8], queue_pair: &str, number: u32) -> Vec<Frame> {
        let mut message = vec![0xff, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0];
        message.extend(payload);
        let len = u32::try_from(message.len()).unwrap();
        message[4..8].copy_from_slice(&len.to_be_bytes());
        let half = message.len() / 2;
        let frame = |opcode: u64, part: &[u8], number: u32| Frame {
            raw: hex(&[&[0; HEADERS], part, &[0; 3], &[0; CHECK]].concat()),
            source: GUESTS[0].to_owned(),
            queue_pair: queue_pair.to_owned(),
            number: number.to_string(),
            opcode,
            ..Frame::default()
        };
        // Nothing pads a packet but the last one.
        let mut first = frame(0x00, &message[..half], number);
        let end = first.raw.len();
        first.raw.replace_range(end - 14..end - 8, "");
        vec![first, frame(0x02, &message[half..], number + 1)]
    }

    #[test]
    fn messages_are_put_together() {
        let payload = [7; 101];
        let mut wire = packets(&payload, "000011", 5);
        wire.extend(packets(&payload, "000011", 5));
        wire.extend(packets(&[8; 3], "000011", 7));
        let wire = [wire];
        let sent = Sent::of(&wire, GUESTS[0], Kind::Wire);
        let lens: Vec<_> = sent.streams[0].iter().map(|m| m.bytes.len()).collect();
        assert_eq!(lens, [117, 19], "once each, without padding");
        assert_eq!(sent.streams[0][0].bytes[16..], payload);
        assert_eq!(Sent::of(&wire, GUESTS[1], Kind::Wire).streams.len(), 0);
        // Another process's first queue pair is another one.
        let logs = [
            packets(&payload, "800000", 0),
            packets(&payload, "800000", 0),
        ];
        let sent = Sent::of(&logs, GUESTS[0], Kind::Log);
        assert_eq!(sent.streams.len(), 2);
    }

    #[test]
    fn each_difference_counts() {
        let sent = |frames: Vec<Frame>| Sent::of(&[frames], GUESTS[0], Kind::Log);
        let good = sent(packets(&[1; 9], "1", 0));
        let count = |other: &Sent| {
            let mut verdict = Verdict::default();
            verdict.messages("it", &good.streams[0], &other.streams[0]);
            (verdict.compared, verdict.mismatches.len())
        };
        assert_eq!(count(&good), (1, 0));
        assert_eq!(count(&sent(packets(&[2; 9], "1", 0))), (1, 1));
        let mut more = packets(&[1; 9], "1", 0);
        more.extend(packets(&[1; 9], "1", 2));
        assert_eq!(count(&sent(more)), (1, 1));
        let mut verdict = Verdict::default();
        verdict.fields("it", &good.streams[0], &good.streams[0]);
        assert_eq!(verdict.mismatches.len(), 1, "not seen as SDP");
    }
}
