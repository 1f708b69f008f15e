//! `SDP_CAPTURE`: every message of the process into a file for Wireshark.

use std::env;
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use sdp_verbs::hook::capture::is_secure_execution;
use sdp_verbs::hook::{CaptureFile, CaptureOptions};
use sdp_wire::{Mid, ServiceId};

use crate::size::{parse_size, variable};

/// Names the file; `%p` in it stands for the process id.
const VARIABLE: &str = "SDP_CAPTURE";
/// Payload bytes written of each message and transfer, or `all`.
const PAYLOAD_VARIABLE: &str = "SDP_CAPTURE_PAYLOAD";
/// Bytes the file may have; K, M and G are powers of 1024.
const SIZE_VARIABLE: &str = "SDP_CAPTURE_SIZE";

/// The capture that the environment asks for. A program with more rights than its user is not
/// told by the environment to write files.
///
/// # Errors
/// A value that cannot be understood; a file that cannot be created or exists.
pub(crate) fn from_environment() -> io::Result<Option<Arc<CaptureFile>>> {
    let Some(name) = env::var_os(VARIABLE).filter(|name| !name.is_empty()) else {
        return Ok(None);
    };
    if is_secure_execution() {
        return Ok(None);
    }
    let mut options = sdp_options();
    if let Some(text) = variable(PAYLOAD_VARIABLE)? {
        options.payload_max = parse_payload(&text)?;
    }
    if let Some(text) = variable(SIZE_VARIABLE)? {
        options.file_len_max = parse_size(SIZE_VARIABLE, &text)?;
    }
    let path = path_of(name);
    CaptureFile::create(&path, options)
        .map(|file| Some(Arc::new(file)))
        .map_err(|e| {
            let hint = match e.kind() {
                io::ErrorKind::AlreadyExists => {
                    ": remove it, or put %p into the name for one file per process"
                }
                _ => "",
            };
            let what = format!("{VARIABLE}: cannot create {}: {e}{hint}", path.display());
            io::Error::new(e.kind(), what)
        })
}

/// What a capture of this protocol needs to know.
fn sdp_options() -> CaptureOptions {
    CaptureOptions {
        head_len,
        service_id: |port| ServiceId::from_port(port).raw(),
        ..CaptureOptions::default()
    }
}

/// Bytes of a message before its payload. What cannot be a message has none.
fn head_len(bytes: &[u8]) -> usize {
    let mid = bytes.first().and_then(|mid| Mid::try_from(*mid).ok());
    mid.map_or(0, Mid::head_len)
}

fn parse_payload(text: &str) -> io::Result<usize> {
    if text == "all" {
        return Ok(usize::MAX);
    }
    let len = parse_size(PAYLOAD_VARIABLE, text)?;
    Ok(usize::try_from(len).unwrap_or(usize::MAX))
}

/// The name with the process id in it. A name that is not UTF-8 is taken as it is.
fn path_of(name: OsString) -> PathBuf {
    match name.into_string() {
        Ok(name) => name.replace("%p", &std::process::id().to_string()).into(),
        Err(name) => name.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads() {
        assert_eq!(parse_payload("2k").unwrap(), 2048);
        assert_eq!(parse_payload("all").unwrap(), usize::MAX);
        let error = parse_payload("all of it").unwrap_err().to_string();
        assert!(error.contains(PAYLOAD_VARIABLE), "{error}");
    }

    /// Each kind of message keeps its own header, whatever is cut.
    #[test]
    fn heads() {
        for mid in Mid::ALL {
            assert_eq!(head_len(&[mid.byte()]), mid.head_len(), "{mid:?}");
        }
        assert_eq!(head_len(&[]) + head_len(&[0x0f]), 0);
    }

    #[test]
    fn a_process_id_in_the_name() {
        let id = std::process::id();
        let path = path_of("a-%p-b-%p".into());
        assert_eq!(path, PathBuf::from(format!("a-{id}-b-{id}")));
    }
}
