//! The comparison: what was sent, and what tshark says that was sent.

use std::collections::{BTreeMap, BTreeSet};

use super::Captures;
use super::frame::{Frame, Sdp};
use super::log::{Hello, Log, Message, Transfer};

/// Opcodes of the transport header.
const SEND_ONLY: u64 = 0x04;
const READ_REQUEST: u64 = 0x0c;
const WRITE_FIRST: u64 = 0x06;
const WRITE_ONLY: u64 = 0x0a;
const READ_RESPONSES: std::ops::RangeInclusive<u64> = 0x0d..=0x10;
/// Attributes of the connection manager's datagrams that carry a handshake message.
const REQ: &str = "0x0010";
const REP: &str = "0x0013";

/// What tshark 4.0 is known to get wrong, and the whole of it. None of these is a mismatch.
const FLAG_BITS: &str = "single flag bits are read at the wrong place: the flags byte is compared";
const NO_HELLO: &str = "the Hello of a RoCEv2 capture may go unseen: the one in InfiniBand framing \
                        is compared";
const ZERO_PRIVATE: &str = "empty private data of RTU, DREQ and DREP is shown as a Hello";
const MOVED: &str = "bytes moved by RDMA are shown as a message, and as malformed if they are few";
const EMPTY_DATA: &str = "a Data without payload is called malformed";
const PADDING: &str = "padding of the packet is shown as part of the message";

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    /// Identifiers in the log.
    pub(super) kinds_sent: BTreeSet<u8>,
    /// Those of which some frame was not found as it was sent.
    kinds_wrong: BTreeSet<u8>,
    /// Frames that were compared with an entry of the log.
    pub(super) frames_compared: usize,
    /// Each difference, in words.
    pub(super) mismatches: Vec<String>,
    /// Frames that tshark calls malformed without being known to do so.
    pub(super) malformed: Vec<String>,
    /// Known faults, and the frames that show them.
    pub(super) faults: BTreeMap<&'static str, usize>,
}

impl Verdict {
    /// Identifiers of which every message was found as it was sent.
    pub(super) fn kinds_matched(&self) -> BTreeSet<u8> {
        self.kinds_sent
            .difference(&self.kinds_wrong)
            .copied()
            .collect()
    }

    fn wrong(&mut self, mid: u8, what: String) {
        self.kinds_wrong.insert(mid);
        self.mismatches.push(what);
    }

    fn fault(&mut self, fault: &'static str) {
        *self.faults.entry(fault).or_default() += 1;
    }

    /// One message against the SDP layer of its frame.
    fn message(&mut self, name: &str, message: &Message, sdp: Option<&Sdp>) {
        self.kinds_sent.insert(message.mid);
        let Some(sdp) = sdp else {
            self.wrong(message.mid, format!("{name}: not seen as SDP"));
            return;
        };
        self.frames_compared += 1;
        let fields = [
            ("mid", format!("{:02x}", message.mid)),
            ("flags", format!("{:02x}", message.flags)),
            ("bufs", format!("{:04x}", message.bufs)),
            ("len", format!("{:08x}", message.len())),
            ("mseq", format!("{:08x}", message.mseq)),
            ("mseqack", format!("{:08x}", message.mseq_ack)),
        ];
        for (field, sent) in fields {
            let seen = sdp.bytes(&format!("bsdh.{field}"));
            if seen != Some(&sent) {
                self.wrong(
                    message.mid,
                    format!("{name}: {field} {sent} seen as {seen:?}"),
                );
            }
        }
        if message.flags != 0 {
            self.fault(FLAG_BITS);
        }
        let padding = sdp.raw.strip_prefix(&message.hex());
        match padding {
            Some("") => {}
            Some(rest) if rest.len() < 8 && rest.bytes().all(|digit| digit == b'0') => {
                self.fault(PADDING);
            }
            _ => {
                let what = format!("{name}: {} seen as {}", message.hex(), sdp.raw);
                self.wrong(message.mid, what);
            }
        }
        self.extended(name, message, sdp);
    }

    /// The extended header is found by the name of its kind.
    fn extended(&mut self, name: &str, message: &Message, sdp: &Sdp) {
        let field = match message.mid {
            0x00 => "hh",
            0x01 => "hah",
            0x05 => "rwch",
            0x06 => "rrch",
            0x07 => "mch",
            0x0b => "crbh",
            0x0c => "crbah",
            0x0d => "suspch",
            0xfd => "sinkah",
            0xfe => "srcah",
            0xff if !message.payload.is_empty() => "Data",
            _ => return,
        };
        let sent = format!("{}{}", message.ext, message.payload);
        let seen = sdp.bytes(field).unwrap_or_default();
        // The dissector marks up to 48 bytes, and whatever pads the packet.
        let common = sent.len().min(seen.len());
        if common < message.ext.len().min(96) || common == 0 || sent[..common] != seen[..common] {
            self.wrong(
                message.mid,
                format!("{name}: {field} {sent} seen as {seen}"),
            );
        }
    }

    fn hello(&mut self, hello: &Hello, sdp: Option<&Sdp>) {
        self.message("Hello", &hello.message, sdp);
        let Some(sdp) = sdp else { return };
        for (field, sent) in &hello.fields {
            let seen = sdp.number(&format!("hh.{field}"));
            if seen != Some(u64::from(*sent)) {
                self.wrong(0, format!("Hello: {field} {sent} seen as {seen:?}"));
            }
        }
        for (field, sent) in [("src_ip", &hello.src_ip), ("dst_ip", &hello.dst_ip)] {
            let seen = sdp.bytes(&format!("hh.{field}"));
            if seen != Some(sent) {
                self.wrong(0, format!("Hello: {field} {sent} seen as {seen:?}"));
            }
        }
    }

    fn transfers(&mut self, transfers: &[Transfer], frames: &[Frame]) {
        let seen: Vec<&[String; 3]> = frames.iter().filter_map(|f| f.reth.as_ref()).collect();
        if seen.len() != transfers.len() {
            let what = format!("{} transfers seen as {}", transfers.len(), seen.len());
            self.mismatches.push(what);
        }
        for (at, (transfer, seen)) in transfers.iter().zip(seen).enumerate() {
            let sent = [
                format!("{:016x}", transfer.addr),
                format!("{:08x}", transfer.rkey),
                format!("{:08x}", transfer.len),
            ];
            self.frames_compared += 1;
            if *seen != sent {
                self.mismatches
                    .push(format!("transfer {at}: {sent:?} seen as {seen:?}"));
            }
        }
        let is_write = |f: &&Frame| f.opcode == WRITE_FIRST || f.opcode == WRITE_ONLY;
        let requests = frames.iter().filter(|f| f.opcode == READ_REQUEST).count();
        let writes = frames.iter().filter(is_write).count();
        let sent = transfers.iter().filter(|t| t.write).count();
        if (writes, requests) != (sent, transfers.len() - sent) {
            let what = format!("{writes} WRITEs and {requests} READs seen");
            self.mismatches.push(what);
        }
    }

    /// What is said of frames that have no entry in the log, or beyond it.
    fn look(&mut self, capture: &str, frames: &[Frame]) {
        for (number, frame) in (1..).zip(frames) {
            let attribute = frame.attribute.as_deref();
            let empty_data = frame.opcode == SEND_ONLY
                && frame
                    .sdp
                    .as_ref()
                    .is_some_and(|sdp| sdp.raw.len() == 32 && sdp.raw.starts_with("ff"));
            let moves = (WRITE_FIRST..=WRITE_ONLY).contains(&frame.opcode)
                || READ_RESPONSES.contains(&frame.opcode);
            match &frame.sdp {
                Some(_) if moves => self.fault(MOVED),
                Some(_) if attribute.is_some_and(|a| a != REQ && a != REP) => {
                    self.fault(ZERO_PRIVATE);
                }
                None if attribute == Some(REQ) => self.fault(NO_HELLO),
                _ => {}
            }
            if frame.malformed && empty_data {
                self.fault(EMPTY_DATA);
            } else if frame.malformed && !moves {
                self.malformed
                    .push(format!("{capture}: frame {number} is called malformed"));
            }
        }
    }
}

/// Compares everything.
pub(super) fn compare(log: &Log, roce: &[Frame], infiniband: &[Frame]) -> Verdict {
    compare_captures(log, (roce, infiniband))
}

/// The messages and transfers in the capture of networks, the handshake in both.
pub(super) fn compare_captures(log: &Log, (roce, infiniband): Captures<'_>) -> Verdict {
    let mut verdict = Verdict::default();
    let answer = |frames: &[Frame], attribute: &str| {
        let found = frames
            .iter()
            .find(|f| f.attribute.as_deref() == Some(attribute));
        found.and_then(|frame| frame.sdp.clone())
    };
    verdict.hello(&log.hello, answer(infiniband, REQ).as_ref());
    for (name, frames) in [
        ("HelloAck", roce),
        ("HelloAck in InfiniBand framing", infiniband),
    ] {
        verdict.message(name, &log.hello_ack, answer(frames, REP).as_ref());
    }
    let sends: Vec<&Frame> = roce.iter().filter(|f| f.opcode == SEND_ONLY).collect();
    if sends.len() != log.messages.len() {
        let what = format!("{} messages seen as {}", log.messages.len(), sends.len());
        verdict.mismatches.push(what);
    }
    for (at, message) in log.messages.iter().enumerate() {
        let sdp = sends.get(at).and_then(|frame| frame.sdp.as_ref());
        verdict.message(&format!("message {at}"), message, sdp);
    }
    verdict.transfers(&log.transfers, roce);
    verdict.look("RoCEv2", roce);
    verdict
}

#[cfg(test)]
mod tests {
    use super::super::frame::tests::packet;
    use super::*;

    fn message(mid: u8, payload: &str) -> Message {
        Message {
            mid,
            flags: 0,
            bufs: 8,
            mseq: 1,
            mseq_ack: 2,
            ext: String::new(),
            payload: payload.to_owned(),
        }
    }

    fn seen(message: &Message, raw: &str) -> Frame {
        let len = format!("{:08x}", message.len());
        let mid = format!("{:02x}", message.mid);
        let fields = [
            ("mid", &*mid),
            ("flags", "00"),
            ("bufs", "0008"),
            ("len", &len),
            ("mseq", "00000001"),
            ("mseqack", "00000002"),
        ];
        Frame::of(&packet(4, raw, &fields))
    }

    fn judged(message: &Message, frame: &Frame) -> Verdict {
        let mut verdict = Verdict::default();
        verdict.message("it", message, frame.sdp.as_ref());
        verdict
    }

    /// The same bytes, with padding or without, are the same message; any other digit is not.
    #[test]
    fn bytes_are_compared() {
        let message = message(4, "");
        let good = message.hex();
        for padding in ["", "00", "000000"] {
            let verdict = judged(&message, &seen(&message, &format!("{good}{padding}")));
            assert_eq!(verdict.mismatches, Vec::<String>::new());
            assert_eq!(verdict.kinds_matched().len(), 1);
        }
        for bad in [
            format!("{good}01"),
            format!("{good}00000000"),
            good[2..].to_owned(),
        ] {
            let verdict = judged(&message, &seen(&message, &bad));
            assert_eq!(verdict.mismatches.len(), 1, "{bad}");
            assert_eq!(verdict.kinds_matched().len(), 0);
        }
    }

    /// A field that tshark reads elsewhere is a mismatch even if the bytes are right.
    #[test]
    fn fields_are_compared() {
        let mut sent = message(4, "");
        let frame = seen(&sent, &sent.hex());
        sent.bufs = 9;
        let verdict = judged(&sent, &frame);
        assert!(verdict.mismatches[0].contains("bufs 0009"), "{verdict:?}");
    }

    /// A message that tshark does not take for one is a mismatch.
    #[test]
    fn what_is_not_seen_is_missed() {
        let verdict = judged(&message(4, ""), &Frame::default());
        assert_eq!(verdict.frames_compared, 0);
        assert_eq!(verdict.mismatches.len(), 1);
    }
}
