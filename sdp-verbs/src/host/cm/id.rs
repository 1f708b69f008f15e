//! The handle of a connection or a listener.

use std::net::SocketAddr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use super::Cm;
use super::state::{Bound, Phase};
use crate::cm::{BindRequest, CmId, CmToken};
use crate::error::VerbsError;
use crate::host::{names, ports};
use crate::qp::{QpAttr, QueuePair};

/// The handle. All it stands for is in [`State`](super::state::State), under its token.
#[derive(Debug)]
pub(in crate::host) struct HostCmId {
    cm: Arc<Cm>,
    token: CmToken,
}

impl HostCmId {
    pub(super) fn new(cm: Arc<Cm>, token: CmToken) -> Self {
        Self { cm, token }
    }

    /// Gives the id the address that `port` finds, with what holds it if the program does not.
    fn take_address(
        &self,
        request: BindRequest,
        port: impl FnOnce() -> Result<(Option<OwnedFd>, SocketAddr), VerbsError>,
    ) -> Result<(), VerbsError> {
        const OP: &str = "bind";
        self.cm.enter(OP, |_, state| {
            let id = state.id(OP, self.token.0)?;
            if !matches!(id.phase, Phase::New) || id.bound.is_some() {
                let state = match id.phase {
                    Phase::New => "bound",
                    ref other => other.name(),
                };
                return Err(VerbsError::State { op: OP, state });
            }
            let (port, addr) = port()?;
            id.local = Some(addr);
            id.bound = Some(Bound {
                _port: port,
                addr,
                request,
            });
            Ok(())
        })
    }
}

impl CmId for HostCmId {
    fn token(&self) -> CmToken {
        self.token
    }

    fn bind(&self, request: BindRequest) -> Result<(), VerbsError> {
        self.take_address(request, || {
            let (port, addr) = ports::reserve(request)?;
            Ok((Some(port), addr))
        })
    }

    fn adopt(&self, request: BindRequest, holder: BorrowedFd<'_>) -> Result<(), VerbsError> {
        self.take_address(request, || Ok((None, ports::adopt(holder)?)))
    }

    fn listen(&self, backlog: u32) -> Result<(), VerbsError> {
        self.cm.enter("listen", |env, state| {
            state.listen(env, self.token.0, backlog)
        })
    }

    fn resolve(&self, dst: SocketAddr, timeout: Duration) -> Result<(), VerbsError> {
        const OP: &str = "resolve";
        self.cm.enter(OP, |env, state| {
            let id = state.id(OP, self.token.0)?;
            if !matches!(id.phase, Phase::New) {
                return Err(VerbsError::State {
                    op: OP,
                    state: id.phase.name(),
                });
            }
            state.resolve(env, self.token.0, names::destination(dst), timeout)
        })
    }

    fn create_qp(&self, attr: &QpAttr) -> Result<Arc<dyn QueuePair>, VerbsError> {
        let token = self.token.0;
        let link = self
            .cm
            .enter("create_qp", |_, state| state.link_for_qp(token))?;
        // Outside the lock: this may allocate memory of the link.
        let qp = link.create_qp(attr)?;
        self.cm.enter("create_qp", |_, state| {
            // A second call that was faster keeps its place; this queue pair is then dropped.
            state.link_for_qp(token)?;
            state.id("create_qp", token)?.qp = Some(Arc::downgrade(&qp));
            Ok(())
        })?;
        Ok(qp)
    }

    fn connect(&self, private_data: &[u8]) -> Result<(), VerbsError> {
        self.cm.enter("connect", |_, state| {
            state.connect(self.token.0, private_data)
        })
    }

    fn accept(&self, private_data: &[u8]) -> Result<(), VerbsError> {
        self.cm.enter("accept", |_, state| {
            state.accept(self.token.0, private_data)
        })
    }

    fn establish(&self) -> Result<(), VerbsError> {
        self.cm
            .enter("establish", |_, state| state.establish(self.token.0))
    }

    fn reject(&self, private_data: &[u8]) -> Result<(), VerbsError> {
        self.cm.enter("reject", |_, state| {
            state.reject(self.token.0, private_data)
        })
    }

    fn disconnect(&self) {
        // The only error is that of a forked child, where nothing is ours to end.
        let _ = self.cm.enter("disconnect", |env, state| {
            state.disconnect(env, self.token.0);
            Ok(())
        });
    }

    fn local_addr(&self) -> Option<SocketAddr> {
        let local = self.cm.enter("local_addr", |_, state| {
            Ok(state.id("local_addr", self.token.0)?.local)
        });
        local.ok().flatten()
    }

    fn peer_addr(&self) -> Option<SocketAddr> {
        let peer = self.cm.enter("peer_addr", |_, state| {
            Ok(state.id("peer_addr", self.token.0)?.peer)
        });
        peer.ok().flatten()
    }
}

impl Drop for HostCmId {
    fn drop(&mut self) {
        let inbox = self.cm.enter("drop", |env, state| {
            let inbox = state.id("drop", self.token.0)?.inbox.upgrade();
            state.forget(env, self.token.0);
            Ok(inbox)
        });
        // In a forked child there is nothing to do. Events are dropped here, outside the lock:
        // unseen requests among them are rejected by it.
        if let Ok(Some(inbox)) = inbox {
            drop(inbox.purge(self.token));
        }
    }
}
