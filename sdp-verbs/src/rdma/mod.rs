//! Real verbs: RDMA adapters, by libibverbs and librdmacm, which are opened at run time.
//!
//! An instance is one device; [`RdmaProvider::open_all`] makes one of each. Queue pairs are
//! reliable connected; connections are made by the RDMA connection manager, in port space IB on
//! InfiniBand and RoCE and in port space TCP on iWARP.
//!
//! * What devices do not count is counted here: places in the send, receive and completion
//!   queues. A request that would overflow one of them is refused.
//! * A key is a memory window of type 2 where the device has them, else a region registered for
//!   the purpose; only windows are ever invalidated.
//! * Each completion queue has a completion channel of its own, on which waiters sleep; a
//!   [`CompChannel`](crate::CompChannel) is an epoll set over those of its queues.
//! * `disconnect` sends an empty RDMA request behind what is outstanding and ends the connection
//!   once that has completed, which proves that the peer has everything.

mod cm;
mod cq;
mod device;
mod examine;
mod fd;
mod group;
mod options;
mod provider;
mod qp;
mod region;
mod returned;
mod slab;
mod sys;
mod window;

pub(crate) use examine::examine;
pub use options::RdmaOptions;
pub use provider::RdmaProvider;

/// The provider's name.
const NAME: &str = "rdma";
