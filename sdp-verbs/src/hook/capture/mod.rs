//! A wrapper that writes what crosses it into a pcapng file, as RoCEv2 packets.
//!
//! Whatever carries the verbs (shared memory, an adapter, a simulator), the file shows the packets
//! that a RoCEv2 network would have carried: the connection manager's exchange with its private
//! data, SENDs, and RDMA READs and WRITEs with their addresses and keys. Wireshark reads it, and
//! dissects the *Sockets* Direct Protocol inside.
//!
//! What one process does is what the file has: its own requests when they were posted, the peer's
//! messages when they were taken out of the completion queue. The peer's RDMA on our memory, and
//! acknowledgements, are seen by no verb and so are not there. What no verb tells is made up: MAC
//! addresses (the connector's end in 01, the listener's in 02), the peer's queue pair number,
//! packet sequence numbers and communication ids. The ICRC is zero. Queue pairs 0 and 1, which on
//! InfiniBand are the subnet's and the connection manager's, show as 0x400000 and 0x400001.
//!
//! A transfer is split into packets of 4 KiB, as an adapter would split it; a message is one packet
//! of up to 60 KiB, because dissectors do not put messages together again. Where payload is cut
//! away only the first packet is written; packet sequence numbers count the others.

mod cm;
mod cq;
mod file;
mod flow;
mod mad;
mod memory;
mod packet;
mod qp;

use std::ptr::NonNull;
use std::sync::Arc;

use crate::cm::{CmId, EventChannel};
use crate::cq::{CompChannel, CompletionQueue, CqToken};
use crate::error::VerbsError;
use crate::mr::MemoryRegion;
use crate::own::own;
use crate::provider::Provider;
use crate::types::Access;

pub use file::{CaptureFile, is_secure_execution};

use super::forward::forward;
use super::regions::Regions;

/// What is below the transport header.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Framing {
    /// Ethernet, IP and UDP port 4791.
    #[default]
    RoceV2,
    /// The local route header of InfiniBand, in ERF records: what dissectors that find connections
    /// by LIDs need.
    Infiniband,
}

/// What is written, and how much of it.
#[derive(Clone, Copy, Debug)]
pub struct CaptureOptions {
    /// Bytes of the payload of each message, and of each RDMA transfer, that are written.
    pub payload_max: usize,
    /// The file does not grow beyond this; what comes later is left out, and the last block says
    /// so.
    pub file_len_max: u64,
    /// How many of the first bytes of a message are no payload. It is shown up to 64 of them.
    pub head_len: fn(&[u8]) -> usize,
    /// The service ID that connection requests to a port carry.
    pub service_id: fn(u16) -> u64,
    /// What is below the transport header.
    pub framing: Framing,
}

impl Default for CaptureOptions {
    /// Everything is payload, of which 64 bytes are written; at most 256 MiB.
    fn default() -> Self {
        Self {
            payload_max: 64,
            file_len_max: 256 << 20,
            head_len: |_| 0,
            service_id: u64::from,
            framing: Framing::default(),
        }
    }
}

/// A provider that passes everything on to another one and writes it down.
///
/// The objects it makes belong to it: a queue made by one `Capture` works with the queue pairs of
/// the same `Capture` only. Several may write to one file.
#[derive(Debug)]
pub struct Capture {
    inner: Arc<dyn Provider>,
    shared: Arc<Shared>,
}

/// What the objects of one wrapper share.
#[derive(Debug)]
struct Shared {
    file: Arc<CaptureFile>,
    regions: Arc<Regions>,
}

impl Capture {
    /// Wraps a provider.
    #[must_use]
    pub fn new(inner: Arc<dyn Provider>, file: &Arc<CaptureFile>) -> Self {
        let shared = Shared {
            file: Arc::clone(file),
            regions: Arc::default(),
        };
        Self {
            inner,
            shared: Arc::new(shared),
        }
    }
}

impl Provider for Capture {
    forward!(Provider: name, device, caps, limits, has_address, create_comp_channel, alloc_window);

    fn create_event_channel(&self) -> Result<Arc<dyn EventChannel>, VerbsError> {
        let inner = self.inner.create_event_channel()?;
        Ok(Arc::new(cm::CaptureEvents::new(inner, &self.shared)))
    }

    fn create_cq(
        &self,
        depth: u32,
        channel: &Arc<dyn CompChannel>,
        token: CqToken,
    ) -> Result<Arc<dyn CompletionQueue>, VerbsError> {
        let inner = self.inner.create_cq(depth, channel, token)?;
        Ok(Arc::new(cq::CaptureCq::new(inner)))
    }

    fn create_id(&self, channel: &Arc<dyn EventChannel>) -> Result<Arc<dyn CmId>, VerbsError> {
        let channel = Arc::clone(channel) as _;
        let channel = own::<cm::CaptureEvents>(channel, "event channel", |_| true)?;
        let inner = self.inner.create_id(channel.inner())?;
        Ok(channel.wrap(inner, flow::Role::Connector))
    }

    unsafe fn register(
        &self,
        addr: NonNull<u8>,
        len: usize,
        access: Access,
    ) -> Result<Arc<dyn MemoryRegion>, VerbsError> {
        // SAFETY: the caller's contract is the inner provider's.
        let region = unsafe { self.inner.register(addr, len, access) }?;
        Ok(self.shared.regions.note(region))
    }

    fn alloc_registered(&self, len: usize) -> Result<Arc<dyn MemoryRegion>, VerbsError> {
        let region = self.inner.alloc_registered(len)?;
        Ok(self.shared.regions.note(region))
    }
}
