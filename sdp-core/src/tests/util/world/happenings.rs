//! What happens to a side when its time has come.

use std::vec::Vec;

use sdp_wire::{HEAD_LEN_MAX, Rkey, ServiceId};

use super::{Happening, ReadJob, World};
use crate::tests::util::app::App;
use crate::{CmInput, Completion, CopyWhat, KeyId, ReadInto, Received, WorkId};

impl World {
    pub(super) fn happen(&mut self, side: usize, what: Happening) {
        let now = self.instant();
        match what {
            Happening::Land(_) | Happening::Arrive { .. } | Happening::Knock => {
                for what in self.seen(side, what) {
                    self.take(side, what);
                    self.drain(side);
                }
            }
            Happening::Complete {
                work,
                read,
                kill,
                flushed,
            } => {
                self.finish_work(side, work, read, kill, flushed);
            }
            Happening::Bind { key, call, at, len } => self.bind(side, key, call, at, len),
            Happening::Copied(job, what) => {
                let ok = !self.trouble();
                if ok {
                    self.do_copy(side, what);
                }
                self.nics[side].conn.handle_copied(now, job, ok);
            }
            Happening::Response(data) => {
                self.nics[side]
                    .conn
                    .handle_cm(now, CmInput::Response(&data));
            }
            Happening::Established => self.nics[side].conn.handle_cm(now, CmInput::Established),
            Happening::Disconnected => {
                self.flush(side);
                self.nics[side].conn.handle_cm(now, CmInput::Disconnected);
            }
            Happening::Path => self.call(side),
            Happening::Call(data) => self.be_called(side, data),
            Happening::Refused => {
                let refused = CmInput::Rejected {
                    private_data: &[],
                    reason: "nobody is there",
                };
                self.nics[side].conn.handle_cm(now, refused);
            }
            Happening::Task(task) => App::go_on(self, side, task),
            // An earlier one was wanted later on, and then the next.
            Happening::Timeout if self.timers[side] != Some(self.now) => {}
            Happening::Timeout => {
                self.timers[side] = None;
                self.nics[side].conn.handle_timeout(now);
            }
        }
    }

    /// The adapter of `side` carries out what has come.
    fn take(&mut self, side: usize, what: Happening) {
        match what {
            Happening::Land(job) => self.land(side, &job),
            Happening::Arrive { bytes, invalidate } => self.arrive(side, &bytes, invalidate),
            _ => {}
        }
    }

    fn arrive(&mut self, side: usize, bytes: &[u8], invalidate: Option<Rkey>) {
        if self.nics[side].in_error {
            return;
        }
        self.has_heard(side);
        let now = self.instant();
        let nic = &mut self.nics[side];
        let buf = nic
            .posted
            .pop_front()
            .expect("a message without a posted receive: credits are wrong");
        assert!(bytes.len() <= nic.buf_lens[&buf], "a message too long");
        if let Some(rkey) = invalidate {
            nic.invalidate(rkey);
        }
        nic.bufs.insert(buf, bytes.to_vec());
        let message = Received {
            head: &bytes[..bytes.len().min(HEAD_LEN_MAX)],
            len: bytes.len(),
            invalidated: invalidate,
        };
        nic.conn.handle_recv(now, buf, message);
    }

    fn finish_work(
        &mut self,
        side: usize,
        work: WorkId,
        read: Option<ReadJob>,
        kill: Option<KeyId>,
        flushed: bool,
    ) {
        let now = self.instant();
        if !flushed {
            let waiting = &mut self.outstanding[side];
            let Some(index) = waiting.iter().position(|(other, _)| *other == work) else {
                // It was flushed before it could complete.
                return;
            };
            waiting.remove(index);
        }
        if flushed {
            let nic = &mut self.nics[side];
            return nic.conn.handle_completion(now, work, Completion::Flushed);
        }
        if let Some(read) = read {
            if self.nics[1 - side].in_error {
                let gone = Completion::TransportFailed("the peer is gone");
                return self.nics[side].conn.handle_completion(now, work, gone);
            }
            if self.trouble() {
                let fault = match read.into {
                    ReadInto::Mem { .. } if self.trouble() => Completion::LocalFault,
                    _ => Completion::RemoteFault,
                };
                return self.nics[side].conn.handle_completion(now, work, fault);
            }
            // The bytes are taken as late as verbs allow.
            let bytes = self.nics[1 - side].remote_read(read.rkey, read.remote, read.len);
            self.nics[side].scatter(read.into, &bytes);
        }
        if let Some(key) = kill {
            let key = self.nics[side].keys.get_mut(&key).expect("unknown key");
            assert!(key.alive, "a dead key is killed");
            key.alive = false;
        }
        self.nics[side]
            .conn
            .handle_completion(now, work, Completion::Success);
    }

    fn do_copy(&mut self, side: usize, what: CopyWhat) {
        let nic = &mut self.nics[side];
        match what {
            CopyWhat::Stage { grant, len } => {
                let rest = nic.private.split_off(len as usize);
                let bytes = core::mem::replace(&mut nic.private, rest).into();
                assert!(nic.grants.insert(grant, bytes).is_none());
            }
            CopyWhat::Unstage { grant, len } => {
                // It is gone if the connection ended meanwhile.
                if let Some(bytes) = nic.grants.remove(&grant) {
                    assert_eq!(bytes.len(), len as usize);
                    bytes
                        .into_iter()
                        .rev()
                        .for_each(|b| nic.private.push_front(b));
                }
            }
            CopyWhat::Compact {
                buf,
                offset,
                len,
                mem,
                at,
                capacity,
            } => {
                assert!(!nic.posted.contains(&buf), "compaction of a posted buffer");
                let bytes = nic.bufs[&buf][offset as usize..][..len as usize].to_vec();
                nic.mem(mem, capacity)[at..][..len as usize].copy_from_slice(&bytes);
            }
        }
    }

    /// The queue pair of `side` is done with.
    pub(super) fn leave(&mut self, side: usize, call: Option<ServiceId>) {
        assert!(self.nics[side].keys.values().all(|key| !key.alive));
        assert!(self.nics[side].grants.is_empty(), "a message left behind");
        self.nics[side].left = true;
        if call.is_some() {
            let gone = self.jittered(self.laws.latency);
            let gone = gone.max(self.nics[side].last_arrival);
            self.at(gone, 1 - side, Happening::Disconnected);
            self.flush(side);
            let time = self.jittered(2 * self.laws.latency);
            self.at(time, side, Happening::Path);
        } else if let Some(data) = self.nics[side].call.take() {
            self.be_called(side, data);
        }
    }

    /// `side` has a way to the other one.
    fn call(&mut self, side: usize) {
        if self.nics[side].conn.is_closed() {
            return;
        }
        self.nics[side].begin_anew();
        let now = self.instant();
        self.nics[side].conn.handle_path(now, 4711, None, None);
    }

    /// The other side calls `side`, which answers when it has left its old queue pair.
    fn be_called(&mut self, side: usize, data: Vec<u8>) {
        let nic = &mut self.nics[side];
        if nic.conn.is_closed() {
            let time = self.jittered(self.laws.latency);
            return self.at(time, 1 - side, Happening::Refused);
        }
        if !nic.left {
            nic.call = Some(data);
            return;
        }
        if !nic.in_error {
            // What comes back of the old one comes first.
            self.flush(side);
            return self.at(self.now, side, Happening::Call(data));
        }
        let now = self.instant();
        let nic = &mut self.nics[side];
        nic.begin_anew();
        nic.conn
            .handle_call(now, &data)
            .expect("the peer is who it is");
    }
}
