//! One side: an engine, its driver's memory, and its adapter.

use alloc::collections::VecDeque;
use std::collections::{HashMap, HashSet};
use std::vec::Vec;

use sdp_wire::{BSDH_LEN, RemoteAddr, Rkey};

use crate::connection::Connection;
use crate::{
    Action, BufferId, CallId, CopySource, CopyTarget, Event, GrantId, KeyId, MemId, Payload,
    PostSend, ReadInto, RecvId, SendId,
};

/// A key given to the peer.
#[derive(Clone, Copy, Debug)]
pub(in crate::tests) struct Key {
    pub(in crate::tests) rkey: Rkey,
    pub(in crate::tests) call: CallId,
    at: usize,
    len: u32,
    pub(in crate::tests) alive: bool,
}

/// One side.
#[derive(Debug)]
pub(in crate::tests) struct Nic {
    pub(in crate::tests) conn: Connection,
    pub(in crate::tests) posted: VecDeque<BufferId>,
    pub(in crate::tests) bufs: HashMap<BufferId, Vec<u8>>,
    /// Lengths of the buffers' memory.
    pub(in crate::tests) buf_lens: HashMap<BufferId, usize>,
    pub(in crate::tests) private: VecDeque<u8>,
    /// Bytes of urgent sends, and the last urgent byte that came.
    pub(in crate::tests) urgent: VecDeque<u8>,
    pub(in crate::tests) kept: Option<u8>,
    pub(in crate::tests) grants: HashMap<GrantId, Vec<u8>>,
    pub(in crate::tests) mems: HashMap<MemId, Vec<u8>>,
    freed: HashSet<MemId>,
    pub(in crate::tests) keys: HashMap<KeyId, Key>,
    pub(in crate::tests) sends: HashMap<SendId, Vec<u8>>,
    pub(in crate::tests) recvs: HashMap<RecvId, Vec<u8>>,
    pub(in crate::tests) in_error: bool,
    pub(in crate::tests) disconnected: bool,
    pub(in crate::tests) events: Vec<Event>,
    /// When the last message arrives, and when the last work completes: both in order.
    pub(in crate::tests) last_arrival: u64,
    pub(in crate::tests) last_completion: u64,
    /// Messages posted, by their first byte.
    pub(in crate::tests) log: Vec<(u64, PostSend)>,
    pub(in crate::tests) reads: Vec<(ReadInto, u32)>,
    /// Lengths of writes that landed here.
    pub(in crate::tests) landed: Vec<u32>,
    /// Memory registered for writes.
    registered: HashSet<(SendId, usize)>,
    /// Copies asked for by the engine.
    pub(in crate::tests) copy_count: usize,
    /// Which of its queue pairs this side is on, by number.
    pub(in crate::tests) pair: u32,
    /// The engine is done with this queue pair.
    pub(in crate::tests) left: bool,
    /// The peer has called on a new queue pair, but this side has not left its old one.
    pub(in crate::tests) call: Option<Vec<u8>>,
}

/// Where a key's memory seems to be for the peer.
const VA: u64 = 0x1_0000_0000;

impl Nic {
    pub(in crate::tests) fn new(conn: Connection) -> Self {
        Self {
            conn,
            posted: VecDeque::new(),
            bufs: HashMap::new(),
            buf_lens: HashMap::new(),
            private: VecDeque::new(),
            urgent: VecDeque::new(),
            kept: None,
            grants: HashMap::new(),
            mems: HashMap::new(),
            freed: HashSet::new(),
            keys: HashMap::new(),
            sends: HashMap::new(),
            recvs: HashMap::new(),
            in_error: false,
            disconnected: false,
            events: Vec::new(),
            last_arrival: 0,
            last_completion: 0,
            log: Vec::new(),
            reads: Vec::new(),
            landed: Vec::new(),
            registered: HashSet::new(),
            copy_count: 0,
            pair: 0,
            left: false,
            call: None,
        }
    }

    /// A new queue pair takes the place of the one that was left.
    pub(in crate::tests) fn begin_anew(&mut self) {
        assert!(self.left, "a queue pair is replaced before it is left");
        self.left = false;
        self.in_error = false;
        self.disconnected = false;
        self.pair += 1;
        self.posted.clear();
        self.bufs.clear();
        self.buf_lens.clear();
    }

    /// Makes a key; its number and address tell which one it is.
    pub(in crate::tests) fn bind(
        &mut self,
        key: KeyId,
        call: CallId,
        at: usize,
        len: u32,
    ) -> (Rkey, RemoteAddr) {
        let memory = match call {
            CallId::Send(id) => self.sends.get(&id),
            CallId::Recv(id) => self.recvs.get(&id),
        };
        let memory = memory.expect("bind of a forgotten call");
        assert!(at + len as usize <= memory.len(), "bind past the memory");
        let rkey = Rkey(0x100 + key.0);
        let made = Key {
            rkey,
            call,
            at,
            len,
            alive: true,
        };
        assert!(self.keys.insert(key, made).is_none(), "key named twice");
        (rkey, RemoteAddr(VA * u64::from(key.0) + 3))
    }

    /// What a peer's RDMA READ finds.
    pub(in crate::tests) fn remote_read(&self, rkey: Rkey, addr: RemoteAddr, len: u32) -> Vec<u8> {
        let (key, at) = self.through(rkey, addr, len);
        let CallId::Send(call) = key.call else {
            panic!("a read of memory that is for writing");
        };
        let memory = self.sends.get(&call).expect("key of a forgotten call");
        memory[at..][..len as usize].to_vec()
    }

    /// A peer's RDMA WRITE lands.
    pub(in crate::tests) fn remote_write(&mut self, rkey: Rkey, addr: RemoteAddr, bytes: &[u8]) {
        let len = u32::try_from(bytes.len()).unwrap();
        let (key, at) = self.through(rkey, addr, len);
        let CallId::Recv(call) = key.call else {
            panic!("a write to memory that is for reading");
        };
        self.landed.push(len);
        let memory = self.recvs.get_mut(&call).expect("key of a forgotten call");
        memory[at..][..bytes.len()].copy_from_slice(bytes);
    }

    /// The key, and where in its call's memory the range begins.
    fn through(&self, rkey: Rkey, addr: RemoteAddr, len: u32) -> (Key, usize) {
        let (id, key) = self
            .keys
            .iter()
            .find(|(_, key)| key.rkey == rkey)
            .expect("access through an unknown key");
        assert!(key.alive, "access through dead {id:?}");
        let from = usize::try_from(addr.0 - 3 - VA * u64::from(id.0)).unwrap();
        assert!(from + len as usize <= key.len as usize, "past the key");
        (*key, key.at + from)
    }

    /// Memory of a send is registered.
    pub(in crate::tests) fn register(&mut self, call: SendId, at: usize, len: usize) {
        let memory = &self.sends[&call];
        assert!(len > 0 && at + len <= memory.len(), "past the memory");
        self.registered.insert((call, at + len));
    }

    /// Bytes of a send's memory, as an RDMA WRITE takes them.
    pub(in crate::tests) fn local(&self, call: SendId, at: usize, len: u32) -> Vec<u8> {
        let end = at + len as usize;
        let known = |(id, upto): &(SendId, usize)| *id == call && end <= *upto;
        assert!(self.registered.iter().any(known), "memory not registered");
        self.sends.get(&call).expect("a write of a forgotten call")[at..end].to_vec()
    }

    /// A SEND with invalidate arrived.
    pub(in crate::tests) fn invalidate(&mut self, rkey: Rkey) {
        let key = self
            .keys
            .values_mut()
            .find(|key| key.rkey == rkey)
            .expect("invalidate of an unknown key");
        assert!(key.alive, "invalidate of a dead key");
        key.alive = false;
    }

    pub(in crate::tests) fn kill_all_keys(&mut self) {
        for key in self.keys.values_mut() {
            key.alive = false;
        }
    }

    /// The bytes of a message, as they leave.
    pub(in crate::tests) fn gather(&mut self, send: &PostSend) -> Vec<u8> {
        let mut bytes = send.head[..send.head_len].to_vec();
        match send.payload {
            Payload::None => {}
            Payload::Grant { grant, len } => {
                let payload = self.grants.remove(&grant).expect("unknown grant posted");
                assert_eq!(payload.len(), len as usize);
                assert_eq!(send.head_len, BSDH_LEN);
                bytes.extend(payload);
            }
            Payload::Call { call, at, len } => {
                bytes.extend(&self.sends[&call][at..][..len as usize]);
            }
            Payload::AtOnce { .. } => panic!("no action: {send:?}"),
        }
        bytes
    }

    pub(in crate::tests) fn copy_to(
        &mut self,
        call: SendId,
        at: usize,
        len: usize,
        to: CopyTarget,
    ) {
        let bytes = self.sends[&call][at..][..len].to_vec();
        match to {
            CopyTarget::Message(grant) => {
                assert!(self.grants.insert(grant, bytes).is_none());
            }
            CopyTarget::Private => self.private.extend(bytes),
        }
    }

    pub(in crate::tests) fn copy_from(
        &mut self,
        call: RecvId,
        at: usize,
        len: usize,
        from: CopySource,
    ) {
        let bytes = match from {
            CopySource::Buffer { buf, offset } => {
                assert!(!self.posted.contains(&buf), "copy out of a posted buffer");
                self.bufs[&buf][offset as usize..][..len].to_vec()
            }
            CopySource::Mem { mem, offset } => self.mems[&mem][offset..][..len].to_vec(),
        };
        self.recvs.get_mut(&call).expect("copy to a forgotten call")[at..][..len]
            .copy_from_slice(&bytes);
    }

    /// Puts bytes where a read was to put them.
    pub(in crate::tests) fn scatter(&mut self, into: ReadInto, bytes: &[u8]) {
        match into {
            ReadInto::Call { call, at } => {
                self.recvs
                    .get_mut(&call)
                    .expect("read into a forgotten call")[at..][..bytes.len()]
                    .copy_from_slice(bytes);
            }
            ReadInto::Mem { mem, at, .. } => {
                self.mems.get_mut(&mem).expect("read into freed memory")[at..][..bytes.len()]
                    .copy_from_slice(bytes);
            }
        }
    }

    pub(in crate::tests) fn mem(&mut self, mem: MemId, capacity: usize) -> &mut Vec<u8> {
        assert!(!self.freed.contains(&mem), "{mem:?} was freed");
        let memory = self
            .mems
            .entry(mem)
            .or_insert_with(|| std::vec![0; capacity]);
        assert_eq!(memory.len(), capacity, "a piece of memory changed its size");
        memory
    }

    /// Bytes of receive buffers allocated.
    pub(in crate::tests) fn buffer_memory(&self) -> usize {
        self.buf_lens.values().sum()
    }

    /// Local effects of an action that needs no time. Gives back what does.
    pub(in crate::tests) fn act(&mut self, action: Action) -> Option<Action> {
        match action {
            Action::PostRecv { buf, len } => {
                self.buf_lens.insert(buf, len as usize);
                assert!(!self.posted.contains(&buf), "{buf:?} posted twice");
                if !self.in_error {
                    self.posted.push_back(buf);
                }
            }
            Action::FreeRecv(buf) => {
                assert!(!self.posted.contains(&buf), "{buf:?} freed while posted");
                assert!(self.buf_lens.remove(&buf).is_some(), "{buf:?} freed twice");
                self.bufs.remove(&buf);
            }
            Action::ForgetKey(key) => {
                assert!(!self.keys[&key].alive, "a living key is forgotten");
            }
            Action::FreeMem(mem) => {
                // It may never have come to the allocation.
                self.mems.remove(&mem);
                assert!(self.freed.insert(mem), "{mem:?} freed twice");
            }
            Action::SendUrgent { len } => self.private.extend(self.urgent.drain(..len)),
            Action::KeepUrgent { buf, offset } => {
                assert!(!self.posted.contains(&buf), "kept from a posted buffer");
                self.kept = Some(self.bufs[&buf][offset as usize]);
            }
            Action::DropGrant(grant) => {
                // A grant whose copy never began is unknown to the driver.
                self.grants.remove(&grant);
            }
            other => return Some(other),
        }
        None
    }
}
