//! A user who may lock little memory, and has locked all of it: over an adapter, both ends on its one
//! device. To be run with a limit (`ulimit -l`), by a user whom it binds.
#![cfg(target_pointer_width = "64")]

#[allow(
    dead_code,
    reason = "each test program uses its own part of what they share"
)]
mod common;

use std::io::ErrorKind;
use std::net::IpAddr;
use std::sync::Arc;

use sdp_socket::{Builder, Context, SdpBuffer, SdpListener, SdpStream, ZcopyThreshold};

use common::net::Stream;
use common::pattern::Pattern;
use common::sdp::{rdma, rdma_address, threaded};
use common::watch::{actor, doing, on_threads, watched};

/// More than any limit that such a user has.
const MEMORY_MAX: usize = 64 << 20;
const PAGE: usize = 4096;
const LEN: usize = 1 << 20;
const PATTERN: Pattern = Pattern(91);

struct Ground {
    context: Arc<Context>,
    listener: SdpListener,
}

impl Ground {
    fn new() -> Self {
        let provider = rdma(0);
        let ip: IpAddr = rdma_address(&provider);
        let context = threaded(provider);
        let listener = Self::builder(&context).bind((ip, 0)).expect("bind");
        Self { context, listener }
    }

    fn builder(context: &Arc<Context>) -> Builder {
        Builder::new()
            .context(context)
            .zcopy_threshold(ZcopyThreshold::Bytes(PAGE))
    }

    fn connect(&self) -> std::io::Result<SdpStream> {
        doing("connecting");
        Self::builder(&self.context).connect(self.listener.local_addr()?)
    }

    fn pair(&self) -> (SdpStream, SdpStream) {
        let near = self.connect().expect("connect");
        (near, self.listener.accept().expect("accept").0)
    }

    /// Memory, until not even a page more may be locked.
    fn lock_all(&self) -> Vec<SdpBuffer> {
        doing("locking memory");
        let (mut held, mut len, mut total) = (Vec::new(), MEMORY_MAX, 0);
        while len >= PAGE {
            match SdpBuffer::with_context(&self.context, len) {
                Ok(buffer) => {
                    held.push(buffer);
                    total += len;
                    assert!(total < MEMORY_MAX, "this user may lock as much as it likes");
                }
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::OutOfMemory, "{error}");
                    assert!(error.to_string().contains("locked memory"), "{error}");
                    len /= 2;
                }
            }
        }
        held
    }
}

/// Sends a large heap buffer one way, and says why how many bytes were copied.
fn send(near: &SdpStream, far: &SdpStream) -> Vec<(&'static str, u64, u64)> {
    let bytes = PATTERN.bytes(0, LEN);
    let mut room = vec![0; LEN];
    on_threads(vec![
        actor("writer", || near.put(&bytes)),
        actor("reader", || far.get(&mut room)),
    ]);
    PATTERN.check(0, &room);
    near.stats().copy_reasons
}

/// No connection without memory for its first messages: that is said at once, and what to do.
#[test]
#[ignore = "needs an RDMA device and a limit of locked memory"]
fn a_connect_says_what_it_lacks() {
    watched(|| {
        let ground = Ground::new();
        let held = ground.lock_all();
        let error = ground.connect().expect_err("no memory to receive into");
        assert_eq!(error.kind(), ErrorKind::OutOfMemory, "{error}");
        assert!(error.to_string().contains("locked memory"), "{error}");
        drop(held);
        let (near, far) = ground.pair();
        send(&near, &far);
    });
}

/// What cannot be shown to the peer is copied under that name; no send fails.
#[test]
#[ignore = "needs an RDMA device and a limit of locked memory"]
fn a_send_is_copied_instead() {
    watched(|| {
        let ground = Ground::new();
        let (near, far) = ground.pair();
        let held = ground.lock_all();
        let reasons = send(&near, &far);
        let failed = reasons.iter().any(|(reason, ..)| *reason == "bind_failed");
        assert!(failed, "{reasons:?}");
        drop(held);
        send(&near, &far);
        assert!(near.stats().tx_bytes_zcopy > 0, "{:?}", near.stats());
    });
}
