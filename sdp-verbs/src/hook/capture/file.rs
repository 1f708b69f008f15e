//! The file: one pcapng block per packet, written at once and whole.

use std::borrow::Cow;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use pcap_file::DataLink;
use pcap_file::pcapng::PcapNgWriter;
use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketBlock;
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::pcapng::blocks::interface_statistics::{
    InterfaceStatisticsBlock, InterfaceStatisticsOption,
};
use pcap_file::pcapng::blocks::section_header::{SectionHeaderBlock, SectionHeaderOption};

use super::packet::Frame;
use super::{CaptureOptions, Framing};

/// Room kept for the block that says that the file is full.
const FULL_LEN: u64 = 128;

/// A capture file. It is complete after every packet, whatever becomes of the process.
#[derive(Debug)]
pub struct CaptureFile {
    path: PathBuf,
    options: CaptureOptions,
    state: Mutex<State>,
}

struct State {
    file: File,
    /// Keeps the section's byte order and interfaces; its bytes go to the file after each block.
    blocks: PcapNgWriter<Vec<u8>>,
    /// Bytes that may still be written.
    left: u64,
    /// Full, or writing failed.
    is_over: bool,
    /// Number of the next connection.
    flow_count: u32,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("file", &self.file)
            .field("left", &self.left)
            .field("is_over", &self.is_over)
            .finish_non_exhaustive()
    }
}

impl CaptureFile {
    /// Creates the file, for its owner's eyes only, and writes its header.
    ///
    /// # Errors
    /// A file of that name exists, or it cannot be created or written.
    pub fn create(path: &Path, options: CaptureOptions) -> io::Result<Self> {
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        let section = SectionHeaderBlock {
            options: vec![SectionHeaderOption::UserApplication(Cow::Borrowed(
                concat!("sdp-verbs ", env!("CARGO_PKG_VERSION")),
            ))],
            ..SectionHeaderBlock::default()
        };
        let blocks =
            PcapNgWriter::with_section_header(Vec::new(), section).map_err(io::Error::other)?;
        let this = Self {
            path: path.to_owned(),
            options,
            state: Mutex::new(State {
                file,
                blocks,
                left: options.file_len_max,
                is_over: false,
                flow_count: 0,
            }),
        };
        this.describe_interface()?;
        Ok(this)
    }

    fn describe_interface(&self) -> io::Result<()> {
        let linktype = match self.options.framing {
            Framing::RoceV2 => DataLink::ETHERNET,
            Framing::Infiniband => DataLink::ERF,
        };
        // Nanoseconds: the only unit the crate writes time stamps in.
        let options = vec![InterfaceDescriptionOption::IfTsResol(9)];
        let block = InterfaceDescriptionBlock {
            linktype,
            snaplen: 0,
            options,
        };
        let mut state = self.lock();
        state
            .blocks
            .write_pcapng_block(block)
            .map_err(io::Error::other)?;
        state.flush()
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn options(&self) -> &CaptureOptions {
        &self.options
    }

    /// A number for a new connection.
    pub(super) fn next_flow(&self) -> u32 {
        let mut state = self.lock();
        let number = state.flow_count;
        state.flow_count = number.wrapping_add(1);
        number
    }

    /// Writes packets. A failure ends the capture, not the program.
    pub(super) fn write(&self, frames: &[Frame]) {
        let mut state = self.lock();
        for frame in frames {
            if state.is_over {
                return;
            }
            if let Err(error) = state.write(frame) {
                state.is_over = true;
                tracing::error!("capture {}: {error}", self.path.display());
            } else if state.is_over {
                tracing::warn!(
                    "capture {}: its {} bytes are full, the rest is left out",
                    self.path.display(),
                    self.options.file_len_max
                );
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // Poisoned by a panic between two blocks; each is written whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn write(&mut self, frame: &Frame) -> io::Result<()> {
        // A clock before 1970 shows as 1970: it says nothing either way.
        let timestamp = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let block = EnhancedPacketBlock {
            interface_id: 0,
            timestamp,
            original_len: frame.original_len,
            data: Cow::Borrowed(&frame.bytes),
            options: Vec::new(),
        };
        self.blocks
            .write_pcapng_block(block)
            .map_err(io::Error::other)?;
        let len = self.blocks.get_ref().len() as u64;
        if len.saturating_add(FULL_LEN) > self.left {
            self.blocks.get_mut().clear();
            self.is_over = true;
            let comment = "the size limit was reached: later packets are missing";
            let full = InterfaceStatisticsBlock {
                interface_id: 0,
                timestamp: 0,
                options: vec![InterfaceStatisticsOption::Comment(Cow::Borrowed(comment))],
            };
            self.blocks
                .write_pcapng_block(full)
                .map_err(io::Error::other)?;
        }
        self.flush()
    }

    fn flush(&mut self) -> io::Result<()> {
        let bytes = self.blocks.get_mut();
        let written = self.file.write_all(bytes);
        self.left = self.left.saturating_sub(bytes.len() as u64);
        bytes.clear();
        written
    }
}

/// Whether the kernel asks this process not to trust its environment (set-user-ID and the like).
#[must_use]
pub fn is_secure_execution() -> bool {
    // SAFETY: getauxval reads a vector that the kernel made; it takes any number.
    let value = unsafe { libc::getauxval(libc::AT_SECURE) };
    value != 0
}
