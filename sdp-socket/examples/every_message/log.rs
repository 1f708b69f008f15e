//! What the ends have sent, as they meant it.

use std::error::Error;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use sdp_wire::{BSDH_LEN, Head, Hello, HelloAck};
use serde_json::{Value, json};

use crate::Target;

/// The log, in the order in which things were sent.
#[derive(Debug, Default)]
pub(crate) struct Log {
    hello: Value,
    hello_ack: Value,
    messages: Vec<Value>,
    transfers: Vec<Value>,
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // A String takes everything.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

impl Log {
    pub(crate) fn hello(&mut self, hello: &Hello, bytes: &[u8]) {
        let ip = |ip: Option<std::net::IpAddr>| match ip {
            Some(std::net::IpAddr::V4(ip)) => hex(&[&[0; 12][..], &ip.octets()].concat()),
            Some(std::net::IpAddr::V6(ip)) => hex(&ip.octets()),
            None => hex(&[0; 16]),
        };
        let cap = u8::from(hello.invalidate_cap);
        self.hello = json!({
            "message": { "mid": 0, "flags": 0, "bufs": hello.bufs, "mseq": 0, "mseq_ack": 0,
                "ext": hex(&bytes[BSDH_LEN..]), "payload": "" },
            "fields": { "majv": 2, "minv": 2, "ipv": 4, "cap": cap, "cap_invalidate": cap,
                "cap_extmaxadverts": 0, "maxadverts": hello.adverts_max,
                "desremrcvsz": hello.desired_remote_recv_size,
                "localrcvsz": hello.local_recv_size, "localport": hello.local_port,
                "extmaxadverts": 0 },
            "src_ip": ip(hello.src), "dst_ip": ip(hello.dst),
        });
    }

    pub(crate) fn hello_ack(&mut self, ack: &HelloAck, bytes: &[u8]) {
        self.hello_ack = json!({ "mid": 1, "flags": 0, "bufs": ack.bufs, "mseq": 0, "mseq_ack": 0,
            "ext": hex(&bytes[BSDH_LEN..]), "payload": "" });
    }

    pub(crate) fn message(&mut self, head: &Head, bytes: &[u8]) {
        let (head_bytes, payload) = bytes.split_at(head.body.head_len());
        self.messages.push(json!({
            "mid": head.body.mid().byte(), "flags": head.flags.bits(), "bufs": head.bufs,
            "mseq": head.mseq, "mseq_ack": head.mseq_ack,
            "ext": hex(&head_bytes[BSDH_LEN..]), "payload": hex(payload),
        }));
    }

    pub(crate) fn transfer(&mut self, write: bool, target: Target) {
        self.transfers
            .push(json!({ "write": write, "addr": target.addr.0,
            "rkey": target.rkey.0, "len": target.len }));
    }

    pub(crate) fn write(self, path: &Path) -> Result<(), Box<dyn Error>> {
        let log = json!({ "hello": self.hello, "hello_ack": self.hello_ack,
            "messages": self.messages, "transfers": self.transfers });
        fs::write(path, serde_json::to_vec(&log)?)?;
        Ok(())
    }
}
