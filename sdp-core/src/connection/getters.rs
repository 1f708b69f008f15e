//! What a connection tells of itself.

use alloc::vec::Vec;

use super::state::Fin;
use super::{Connection, PeerParams, Phase};
use crate::adaptive::{Choice, Choices};
use crate::config::Config;
use crate::error::ConnectionError;
use crate::ids::{RecvId, SendId};
use crate::stats::Stats;

impl Connection {
    /// The handshake is complete and the connection has not ended.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.sh.life.is_up()
    }

    /// The connection has ended. Bytes received before can still be taken.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.sh.life.phase() == Phase::Closed
    }

    /// It is between two queue pairs, or about to be: whatever comes is of interest.
    #[must_use]
    #[inline]
    pub fn is_moving(&self) -> bool {
        !self.sh.life.is_over() && self.sh.suspend.is_on()
    }

    /// A move that [`Self::suspend`] asked for has neither ended nor failed.
    #[must_use]
    pub fn is_move_wanted(&self) -> bool {
        !self.sh.life.is_over() && self.sh.suspend.is_wanted()
    }

    /// Moves that [`Self::suspend`] asked for and that are complete.
    #[must_use]
    pub fn moves_done(&self) -> u64 {
        self.sh.suspend.done()
    }

    /// Bytes that a receive would get without waiting.
    #[must_use]
    pub fn readable_len(&self) -> usize {
        self.rx.readable_len(&self.sh)
    }

    /// The next byte of the stream is an urgent one, or was (sockatmark).
    #[must_use]
    pub fn is_at_mark(&self) -> bool {
        self.rx.at_mark()
    }

    /// There is an urgent byte that was not received out of band.
    #[must_use]
    pub fn has_urgent(&self) -> bool {
        self.rx.has_urgent()
    }

    /// A receive would not wait: bytes enough, the end of the stream, or an error.
    #[must_use]
    pub fn is_readable(&self) -> bool {
        let (life, config) = (&self.sh.life, &self.sh.config);
        // More than the memory holds will never come.
        let enough = config
            .recv_low_water
            .min(self.sh.recv_buffer_total())
            .max(1);
        let ended = life.is_over() || life.rx_shut || life.peer_fin;
        ended || self.readable_len() >= enough || self.rx.ends_at_mark()
    }

    /// The next bytes of the stream are just being moved to private memory: a receive waits for that, which
    /// takes no longer than a copy.
    #[must_use]
    pub fn is_moving_unread(&self) -> bool {
        self.rx.is_moving_unread()
    }

    /// Bytes of a send in progress that are accepted: what it returns if it must end.
    #[must_use]
    pub fn send_accepted(&self, id: SendId) -> usize {
        self.tx.accepted(id)
    }

    /// Bytes of a receive in progress that are delivered: what it returns if it must end.
    #[must_use]
    pub fn recv_delivered(&self, id: RecvId) -> usize {
        self.rx.delivered(id)
    }

    /// Bytes that would go into private send memory without waiting.
    #[must_use]
    pub fn send_space(&self) -> usize {
        self.tx.space(&self.sh)
    }

    /// A non-blocking send was cut short or turned away since the peer's program, which reads, will have
    /// made room in a moment: who polls is to wait for that.
    #[must_use]
    pub fn send_waits(&self) -> bool {
        self.tx.is_pacing()
    }

    /// SO_SNDBUF as it is now: less than was set while memory is scarce.
    #[must_use]
    pub fn send_buffer_len(&self) -> usize {
        self.sh.send_buffer_len()
    }

    /// Accepted bytes not yet given to the peer's adapter, and bytes advertised and not yet read.
    #[must_use]
    #[inline]
    pub fn unsent_len(&self) -> usize {
        self.tx.unsent_len()
    }

    /// Messages that the peer has room for.
    #[must_use]
    pub fn credits(&self) -> u32 {
        self.sh.credits.available()
    }

    /// Messages that this side has room for: receives that are posted.
    #[must_use]
    pub fn posted(&self) -> u32 {
        self.sh.credits.posted()
    }

    /// Adverts of this side's memory that are not finished, those among them that the peer has not
    /// heard of yet.
    #[must_use]
    pub fn adverts_open(&self) -> usize {
        self.tx.adverts_open()
    }

    /// Adverts of the peer's memory that are not finished.
    #[must_use]
    pub fn peer_adverts_open(&self) -> usize {
        self.rx.adverts_open()
    }

    /// Answers are owed to the peer that wait for its credits: whatever it sends is of interest.
    #[must_use]
    #[inline]
    pub fn owes_answers(&self) -> bool {
        self.rx.owes_answers() || self.sh.control.sink_cancel_ack || self.sh.resize.ack_due()
    }

    /// The peer has been asked to do something about its buffers that shall not wait until the
    /// stream moves again.
    #[must_use]
    #[inline]
    pub fn awaits_housekeeping(&self) -> bool {
        self.sh.life.is_open() && self.sh.resize.is_shrinking()
    }

    /// Nothing more is received: the peer has ended its half of the stream, or this side does not
    /// read any more.
    #[must_use]
    pub fn is_read_closed(&self) -> bool {
        self.sh.life.peer_fin || self.sh.life.rx_shut
    }

    /// This side sends no more.
    #[must_use]
    pub fn is_write_closed(&self) -> bool {
        self.sh.life.tx_shut()
    }

    /// This side has closed, and everything up to its DisConn has been delivered to the peer's
    /// adapter.
    #[must_use]
    pub fn has_sent_all(&self) -> bool {
        self.sh.life.fin == Fin::Done
    }

    /// The connection ended in an error that nobody has been told yet.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.sh.life.error.is_some()
    }

    /// Why the connection ended, to the first that asks; a failed call is one that asked.
    pub fn take_error(&mut self) -> Option<ConnectionError> {
        self.sh.life.error.take()
    }

    /// Counters.
    #[must_use]
    pub fn stats(&self) -> &Stats {
        &self.sh.stats
    }

    /// Which way sends go by measurement, per kind of memory and class of length, as far as used.
    #[must_use]
    pub fn choices(&self) -> Vec<Choice> {
        let list = self.sh.choices.as_ref().map(Choices::list);
        list.unwrap_or_default()
    }

    /// The settings, as they are now.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.sh.config
    }

    /// Where the connection stands.
    #[must_use]
    #[inline]
    pub fn phase(&self) -> Phase {
        self.sh.life.phase()
    }

    /// What the peer said about itself, once known.
    #[must_use]
    pub fn peer(&self) -> Option<&PeerParams> {
        self.sh.peer.as_ref()
    }
}
