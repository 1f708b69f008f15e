//! Carrying out what a side wants done.

use std::vec::Vec;

use sdp_wire::Head;

use super::{Happening, ReadJob, World, WriteJob};
use crate::{Action, CallId, CopyReason, KeyId, PostSend, ReadInto, WorkId};

impl World {
    pub(super) fn carry_out(&mut self, side: usize, action: Action) {
        let peer = 1 - side;
        self.assert_may_send(side, &action);
        match action {
            Action::Accept(data) => {
                self.begin_opening(side);
                let time = self.jittered(self.laws.latency);
                self.at(time, peer, Happening::Response(data.to_vec()));
            }
            Action::Establish => {
                if !self.laws.lose_rtu {
                    let time = self.jittered(self.laws.latency);
                    self.at(time, peer, Happening::Established);
                }
            }
            Action::Disconnect => {
                self.nics[side].disconnected = true;
                let time = self
                    .jittered(self.laws.latency)
                    .max(self.nics[side].last_arrival);
                self.at(time, peer, Happening::Disconnected);
                self.flush(side);
            }
            Action::Leave { call } => self.leave(side, call),
            Action::Connect(data) => {
                let time = self.jittered(self.laws.latency);
                self.at(time, peer, Happening::Call(data.to_vec()));
            }
            Action::SetError => {
                self.nics[side].kill_all_keys();
                self.flush(side);
            }
            Action::PostSend(send) => self.post_send(side, &send),
            Action::InvalidateKey { key, work } => {
                let time = self.jittered(100);
                self.complete(side, work, time, None, Some(key));
            }
            Action::Copy(job) => {
                self.nics[side].copy_count += 1;
                let delay = self.copy_delay();
                self.at(self.now + delay, side, Happening::Copied(job.id, job.what));
            }
            Action::Probe { work } => {
                let time = self.jittered(2 * self.laws.latency);
                self.complete(side, work, time, None, None);
            }
            Action::Knock { work } => {
                let arrival = self.arrival(side);
                if !self.nics[side].in_error {
                    self.at(arrival, peer, Happening::Knock);
                }
                self.complete(side, work, arrival + self.laws.latency, None, None);
            }
            other => self.carry_out_rdma(side, other),
        }
    }

    /// Actions of RDMA READ and WRITE.
    fn carry_out_rdma(&mut self, side: usize, action: Action) {
        let now = self.instant();
        match action {
            Action::RdmaRead {
                work,
                remote,
                rkey,
                into,
                len,
            } => {
                assert!(len > 0);
                self.nics[side].reads.push((into, len));
                if let ReadInto::Mem { mem, capacity, .. } = into {
                    self.nics[side].mem(mem, capacity);
                }
                let time = self.jittered(2 * self.laws.latency);
                let read = ReadJob {
                    rkey,
                    remote,
                    into,
                    len,
                };
                self.complete(side, work, time, Some(read), None);
            }
            Action::RdmaWrite {
                work,
                call,
                at,
                remote,
                rkey,
                len,
            } => {
                assert!(len > 0);
                let arrival = self.arrival(side);
                if !self.nics[side].in_error {
                    let job = WriteJob {
                        call,
                        at,
                        remote,
                        rkey,
                        len,
                        bytes: None,
                    };
                    self.at(arrival, 1 - side, Happening::Land(job));
                }
                self.complete(side, work, arrival + self.laws.latency, None, None);
            }
            Action::Register { call, at, len } => {
                let registered = if self.trouble() {
                    Err(CopyReason::BindFailed)
                } else {
                    self.nics[side].register(call, at, len);
                    Ok(())
                };
                self.nics[side]
                    .conn
                    .handle_registered(now, call, registered);
            }
            Action::BindKey { key, call, at, len } => match self.copy_delay() {
                0 => self.bind(side, key, call, at, len),
                delay => {
                    let time = self.now + delay;
                    self.at(time, side, Happening::Bind { key, call, at, len });
                }
            },
            other => panic!("unexpected {other:?}"),
        }
    }

    pub(super) fn bind(&mut self, side: usize, key: KeyId, call: CallId, at: usize, len: u32) {
        let bound = if self.nics[side].in_error || self.trouble() {
            Err(CopyReason::BindFailed)
        } else {
            Ok(self.nics[side].bind(key, call, at, len))
        };
        let now = self.instant();
        self.nics[side].conn.handle_bound(now, key, bound);
    }

    /// When what `side` posts now reaches the other side: in order.
    pub(super) fn arrival(&mut self, side: usize) -> u64 {
        let arrival = self.jittered(self.laws.latency);
        let arrival = arrival.max(self.nics[side].last_arrival);
        self.nics[side].last_arrival = arrival;
        arrival
    }

    /// A write lands: its bytes are taken as late as verbs allow.
    pub(super) fn land(&mut self, side: usize, job: &WriteJob) {
        if self.nics[side].in_error {
            return;
        }
        let bytes = match &job.bytes {
            Some(bytes) => bytes.clone(),
            None => self.nics[1 - side].local(job.call, job.at, job.len),
        };
        self.nics[side].remote_write(job.rkey, job.remote, &bytes);
    }

    fn post_send(&mut self, side: usize, send: &PostSend) {
        self.nics[side].log.push((self.now, send.clone()));
        let bytes = self.nics[side].gather(send);
        let head = Head::decode(&send.head, bytes.len()).expect("a message of ours is in order");
        assert!(
            self.nics[side].in_error || usize::from(head.bufs) <= self.nics[side].posted.len(),
            "more receives promised than posted (§3.1): {head:?}"
        );
        let arrival = self.arrival(side);
        if !self.nics[side].in_error {
            let invalidate = send.invalidate;
            let arrive = Happening::Arrive { bytes, invalidate };
            self.at(arrival, 1 - side, arrive);
        }
        if let Some(work) = send.work {
            self.complete(side, work, arrival + self.laws.latency, None, None);
        }
    }

    /// Work completes in order.
    pub(super) fn complete(
        &mut self,
        side: usize,
        work: WorkId,
        time: u64,
        read: Option<ReadJob>,
        kill: Option<KeyId>,
    ) {
        let flushed = self.nics[side].in_error;
        let time = time.max(self.nics[side].last_completion);
        self.nics[side].last_completion = time;
        if !flushed {
            let into = read.as_ref().map(|read| read.into);
            self.outstanding[side].push((work, into));
        }
        self.at(
            time,
            side,
            Happening::Complete {
                work,
                read,
                kill,
                flushed,
            },
        );
    }

    /// The queue pair of `side` is in error: what was posted comes back.
    pub(super) fn flush(&mut self, side: usize) {
        if core::mem::replace(&mut self.nics[side].in_error, true) {
            return;
        }
        // What is on the wire arrives, and in order: messages behind a write prove that it did.
        for happening in self.happenings.iter_mut().flatten() {
            if let (to, _, Happening::Land(job)) = happening
                && *to != side
            {
                job.bytes = Some(self.nics[side].local(job.call, job.at, job.len));
            }
        }
        let work: Vec<_> = self.outstanding[side].drain(..).collect();
        for (work, _) in work {
            let done = Happening::Complete {
                work,
                read: None,
                kill: None,
                flushed: true,
            };
            self.at(self.now, side, done);
        }
    }
}
