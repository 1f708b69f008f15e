//! The two ends of a connection, in one thread.

use std::error::Error;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sdp_verbs::{
    Access, BindRequest, Binding, CmEventKind, CmId, CompChannel, CompletionQueue, CqToken,
    EventChannel, MemoryRegion, MemoryWindow, Provider, QpAttr, QpNum, QueuePair, RecvBuf,
    RemoteAddr, SendData, SendFlags, SendOp, SendWr, Sge, WcOpcode, WcStatus, WorkCompletion, WrId,
};
use sdp_wire::{
    Body, Flags, HEAD_LEN_MAX, HELLO_ACK_LEN, HELLO_LEN, Hello, HelloAck, HelloForm, Version,
};

use crate::log::Log;
use crate::{Numbers, Target, head};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Receives posted, and the size of each.
const RECVS: u16 = 8;
const RECV_LEN: usize = 4096;
/// Memory that READs and WRITEs go from and to.
const REGION_LEN: usize = 64 << 10;
/// Longer than anything here takes, on any machine.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug)]
struct Side {
    provider: Arc<dyn Provider>,
    events: Arc<dyn EventChannel>,
    comp: Arc<dyn CompChannel>,
}

#[derive(Debug)]
struct End {
    side: Side,
    id: Arc<dyn CmId>,
    qp: Arc<dyn QueuePair>,
    cq: Arc<dyn CompletionQueue>,
    recvs: Vec<RecvBuf>,
    region: Arc<dyn MemoryRegion>,
    mseq: u32,
}

/// Both ends; the first is the connector, and captured.
#[derive(Debug)]
pub(crate) struct Pair {
    ends: [End; 2],
    window: Box<dyn MemoryWindow>,
}

impl Side {
    fn new(provider: Arc<dyn Provider>) -> Outcome<Self> {
        Ok(Self {
            events: provider.create_event_channel()?,
            comp: provider.create_comp_channel()?,
            provider,
        })
    }

    fn end(self, id: Arc<dyn CmId>) -> Outcome<End> {
        let cq = self.provider.create_cq(256, &self.comp, CqToken(1))?;
        let attr = QpAttr {
            cq: Arc::clone(&cq),
            send_wr_max: 64,
            recv_wr_max: 64,
            rnr_retry: 7,
            silence_max: None,
        };
        let qp = id.create_qp(&attr)?;
        let mut recvs = Vec::new();
        for n in 0..RECVS {
            let buf = qp.alloc_recv(RECV_LEN)?;
            qp.post_recv(WrId(u64::from(n)), &buf)?;
            recvs.push(buf);
        }
        let region = self.provider.alloc_registered(REGION_LEN)?;
        Ok(End {
            side: self,
            id,
            qp,
            cq,
            recvs,
            region,
            mseq: 1,
        })
    }
}

/// Looks until `look` finds something; `others` are kept going meanwhile.
fn until<T>(
    what: &str,
    others: &[&Arc<dyn EventChannel>],
    mut look: impl FnMut() -> Option<T>,
) -> Outcome<T> {
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        if let Some(found) = look() {
            return Ok(found);
        }
        for events in others {
            if let Some(event) = events.poll() {
                return Err(format!("{event:?} while waiting for {what}").into());
            }
        }
        std::thread::yield_now();
    }
    Err(format!("no {what}").into())
}

fn hello(from: Option<std::net::IpAddr>, to: std::net::IpAddr, port: u16) -> Hello {
    Hello {
        bufs: RECVS,
        version: Version::V2_2,
        form: HelloForm::Whole,
        invalidate_cap: true,
        adverts_max: 16,
        desired_remote_recv_size: 32 << 10,
        local_recv_size: 4096,
        local_port: port,
        src: from,
        dst: Some(to),
    }
}

impl Pair {
    /// Makes the connection and logs the handshake.
    pub(crate) fn connect(
        connector: Arc<dyn Provider>,
        listener: Arc<dyn Provider>,
        log: &mut Log,
    ) -> Outcome<Self> {
        let (here, there) = (Side::new(connector)?, Side::new(listener)?);
        let listening = there.provider.create_id(&there.events)?;
        listening.bind(BindRequest {
            addr: (Ipv4Addr::LOCALHOST, 0).into(),
            only_v6: false,
            reuse_port: false,
        })?;
        listening.listen(8)?;
        let addr = listening.local_addr().ok_or("a bound id has an address")?;
        let id = here.provider.create_id(&here.events)?;
        id.resolve(addr, PATIENCE)?;
        let (events, passive_events) = (Arc::clone(&here.events), Arc::clone(&there.events));
        let event = |what| until(what, &[&passive_events], || events.poll());
        match event("way to the listener")?.kind {
            CmEventKind::Resolved => {}
            other => return Err(format!("{other:?} in place of Resolved").into()),
        }
        let here = here.end(id)?;
        let local = here.id.local_addr();
        let hello = hello(
            local.map(|a| a.ip()),
            addr.ip(),
            local.map_or(0, |a| a.port()),
        );
        let mut bytes = [0; HELLO_LEN];
        hello.encode(&mut bytes);
        log.hello(&hello, &bytes);
        here.id.connect(&bytes)?;
        let asked = until("connect request", &[&events], || passive_events.poll())?.kind;
        let CmEventKind::ConnectRequest { id: child, .. } = asked else {
            return Err(format!("{asked:?} in place of a request").into());
        };
        let there = there.end(child)?;
        let ack = HelloAck {
            bufs: RECVS,
            version: Version::V2_2,
            adverts_max: 16,
            actual_recv_size: 4096,
            invalidate_cap: true,
        };
        let mut bytes = [0; HELLO_ACK_LEN];
        ack.encode(&mut bytes);
        log.hello_ack(&ack, &bytes);
        there.id.accept(&bytes)?;
        match event("answer")?.kind {
            CmEventKind::ConnectResponse { .. } => here.id.establish()?,
            other => return Err(format!("{other:?} in place of an answer").into()),
        }
        match until("confirmation", &[&events], || passive_events.poll())?.kind {
            CmEventKind::Established => {}
            other => return Err(format!("{other:?} in place of Established").into()),
        }
        let window = there.side.provider.alloc_window()?;
        Ok(Self {
            ends: [here, there],
            window,
        })
    }

    /// One end sends a message, the other receives it before this returns.
    pub(crate) fn say(
        &mut self,
        from: usize,
        flags: Flags,
        body: Body,
        payload_len: u32,
        numbers: &mut Numbers,
        log: &mut Log,
    ) -> Outcome<()> {
        let head = head(flags, body, payload_len, self.ends[from].mseq, numbers);
        head.check()?;
        self.ends[from].mseq += 1;
        let mut bytes = [0; HEAD_LEN_MAX];
        let len = head.encode(&mut bytes);
        let mut message = bytes[..len].to_vec();
        let payload = numbers.next().to_be_bytes().into_iter().cycle();
        message.extend(payload.take(payload_len as usize));
        log.message(&head, &message);
        self.ends[from].post(SendOp::Send {
            data: SendData::Inline(&message),
            invalidate: None,
        })?;
        self.complete(from, WcOpcode::Send)?;
        let to = 1 - from;
        let wc = self.complete(to, WcOpcode::Recv)?;
        let end = &self.ends[to];
        let buf = end
            .recvs
            .get(usize::try_from(wc.wr_id.0)?)
            .ok_or("a receive of ours")?;
        end.qp.post_recv(wc.wr_id, buf)?;
        Ok(())
    }

    /// The connector reads the listener's memory, and writes it.
    pub(crate) fn transfer(&mut self, numbers: &mut Numbers, log: &mut Log) -> Outcome<()> {
        let len = 1 + numbers.below(10_000) as usize;
        let [here, there] = &self.ends;
        let binding = Binding {
            lkey: there.region.lkey(),
            addr: there.region.addr(),
            len,
            access: Access::REMOTE_READ | Access::REMOTE_WRITE,
        };
        let rkey = there
            .qp
            .bind(WrId(0), SendFlags::SIGNALED, &*self.window, binding)?;
        let remote = RemoteAddr(there.region.addr().as_ptr() as u64);
        let target = Target {
            addr: remote,
            rkey,
            len,
        };
        let local = [Sge {
            addr: here.region.addr().as_ptr(),
            len,
            lkey: here.region.lkey(),
        }];
        self.complete(1, WcOpcode::Bind)?;
        log.transfer(false, target);
        self.ends[0].post(SendOp::Read {
            local: &local,
            remote,
            rkey,
        })?;
        self.complete(0, WcOpcode::Read)?;
        log.transfer(true, target);
        self.ends[0].post(SendOp::Write {
            local: &local,
            remote,
            rkey,
        })?;
        self.complete(0, WcOpcode::Write)?;
        self.ends[1].post(SendOp::LocalInv { rkey })?;
        self.complete(1, WcOpcode::LocalInv)?;
        Ok(())
    }

    /// The next completion at one end, which must be of this kind. The other end is polled too:
    /// on some providers that is where a WRITE lands.
    fn complete(&self, at: usize, opcode: WcOpcode) -> Outcome<WorkCompletion> {
        let other = &self.ends[1 - at];
        // The provider's background work is done by whoever polls its channel.
        let channels = [&self.ends[0].side.events, &self.ends[1].side.events];
        let wc = until("completion", &channels, || {
            let found = self.ends[at].poll();
            if found.is_none() && opcode == WcOpcode::Write {
                other.poll();
            }
            found
        })?;
        if wc.status != WcStatus::Success || wc.opcode != opcode {
            return Err(format!("{wc:?} in place of {opcode:?}").into());
        }
        Ok(wc)
    }

    pub(crate) fn disconnect(&self) {
        self.ends[0].id.disconnect();
    }
}

impl End {
    fn post(&self, op: SendOp<'_>) -> Outcome<()> {
        self.qp.post_send(SendWr {
            wr_id: WrId(1 << 32),
            op,
            flags: SendFlags::SIGNALED | SendFlags::SOLICITED,
        })?;
        Ok(())
    }

    fn poll(&self) -> Option<WorkCompletion> {
        let mut wcs = [WorkCompletion {
            wr_id: WrId(0),
            status: WcStatus::Success,
            opcode: WcOpcode::Recv,
            byte_len: 0,
            invalidated: None,
            qp: QpNum(0),
        }];
        (self.cq.poll(&mut wcs) == 1).then(|| wcs[0])
    }
}
