//! What the program says that it has sent.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::Context;
use serde::Deserialize;

/// The whole log.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Log {
    pub(super) hello: Hello,
    pub(super) hello_ack: Message,
    pub(super) messages: Vec<Message>,
    pub(super) transfers: Vec<Transfer>,
}

/// A message, by the values its sender chose.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Message {
    pub(super) mid: u8,
    pub(super) flags: u8,
    pub(super) bufs: u16,
    pub(super) mseq: u32,
    pub(super) mseq_ack: u32,
    /// Extended header, in hex.
    pub(super) ext: String,
    /// Payload, in hex.
    pub(super) payload: String,
}

/// The Hello, and every field of its extended header.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Hello {
    pub(super) message: Message,
    pub(super) fields: BTreeMap<String, u32>,
    pub(super) src_ip: String,
    pub(super) dst_ip: String,
}

/// An RDMA READ or WRITE.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Transfer {
    pub(super) write: bool,
    pub(super) addr: u64,
    pub(super) rkey: u32,
    pub(super) len: u32,
}

impl Log {
    /// # Errors
    /// When it cannot be read or understood.
    pub(super) fn read(path: &Path) -> anyhow::Result<Self> {
        let text = fs::read(path).with_context(|| format!("read {}", path.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("understand {}", path.display()))
    }
}

impl Message {
    /// Bytes of the message: its base header has 16, and hex needs two digits for one.
    pub(super) fn len(&self) -> usize {
        16 + (self.ext.len() + self.payload.len()) / 2
    }

    /// The message as its fields say it should look, in hex.
    pub(super) fn hex(&self) -> String {
        format!(
            "{:02x}{:02x}{:04x}{:08x}{:08x}{:08x}{}{}",
            self.mid,
            self.flags,
            self.bufs,
            self.len(),
            self.mseq,
            self.mseq_ack,
            self.ext,
            self.payload
        )
    }
}
