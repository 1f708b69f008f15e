//! Rare turns of the protocol, named, so that random tests can prove that they were reached.

use crate::connection::Shared;

/// A turn worth proving that tests take it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Mark {
    /// Source: a second advert was opened beside the first.
    SeveralAdverts,
    /// Source: several open adverts were taken back by one cancel.
    CancelOfSeveral,
    /// Source: adverts the peer had not heard of were taken back.
    Withdrawn,
    /// Source: the last report crossed the cancel.
    ReportCrossedCancel,
    /// Source: a refusal crossed the cancel.
    RefusalCrossedCancel,
    /// Source: the oldest of several adverts was refused.
    RefusedBeforeOthers,
    /// Source: back from Pipelined to Combined.
    LeftPipelined,
    /// Sink: reads of several adverts under way at once.
    ReadsAcrossAdverts,
    /// Sink: several adverts were cancelled.
    SeveralCancelled,
    /// Sink: a cancel came while a read was under way.
    CancelDuringRead,
    /// Sink: memory of a receive was offered.
    SinkOffered,
    /// Sink: an offer was taken back.
    SinkCancelled,
    /// Sink: a Data used up an offer.
    SinkUsedByData,
    /// Sink: a write crossed the cancel of the offer.
    WriteCrossedSinkCancel,
    /// Sink: a write filled a part of the offer.
    PartialWrite,
    /// Sink: a source advert crossed the offer, and was discarded.
    AdvertDiscarded,
    /// Source: an offer was written into.
    Written,
    /// Source: a Data retired an offer in hand.
    DataRetiredSink,
    /// Source: an offer was stale.
    SinkStale,
    /// Source: an offer overrode open adverts.
    Overridden,
    /// Source: the cancel of an offer came when nothing was left of it.
    SinkCancelLate,
    /// Source: an urgent byte found adverts open.
    UrgentInterrupts,
    /// Source: an urgent byte made the one before, not announced yet, an ordinary one.
    UrgentReplaced,
    /// Sink: an urgent byte came while the stream was at the one before.
    UrgentDropped,
    /// Sink: an urgent byte was announced while an advert was open.
    UrgentBehindAdvert,
    /// A move of this side's to another queue pair is complete.
    Moved,
    /// A move of this side's made way for one of the peer's, which it crossed.
    MovesCrossed,
    /// Source: a message that found no credit was emptied for a move.
    Unstaged,
}

impl Mark {
    /// All of them.
    #[cfg(test)]
    pub(crate) const ALL: [Self; 28] = [
        Self::SeveralAdverts,
        Self::CancelOfSeveral,
        Self::Withdrawn,
        Self::ReportCrossedCancel,
        Self::RefusalCrossedCancel,
        Self::RefusedBeforeOthers,
        Self::LeftPipelined,
        Self::ReadsAcrossAdverts,
        Self::SeveralCancelled,
        Self::CancelDuringRead,
        Self::SinkOffered,
        Self::SinkCancelled,
        Self::SinkUsedByData,
        Self::WriteCrossedSinkCancel,
        Self::PartialWrite,
        Self::AdvertDiscarded,
        Self::Written,
        Self::DataRetiredSink,
        Self::SinkStale,
        Self::Overridden,
        Self::SinkCancelLate,
        Self::UrgentInterrupts,
        Self::UrgentReplaced,
        Self::UrgentDropped,
        Self::UrgentBehindAdvert,
        Self::Moved,
        Self::MovesCrossed,
        Self::Unstaged,
    ];
}

impl Shared {
    /// Notes that `mark` was reached. Costs nothing outside of tests.
    #[cfg(test)]
    pub(crate) fn reached(&mut self, mark: Mark) {
        self.marks.insert(mark);
    }

    /// Notes that `mark` was reached. Costs nothing outside of tests.
    #[cfg(not(test))]
    #[expect(clippy::unused_self, reason = "tests keep a list here")]
    pub(crate) const fn reached(&mut self, _mark: Mark) {}
}
