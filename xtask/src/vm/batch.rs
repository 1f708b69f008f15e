//! Which cases share a boot.

use super::Case;

/// How long a boot takes, about, in seconds.
const BOOT: u32 = 8;

/// Cases that share a boot, one after the other.
#[derive(Debug)]
pub(super) struct Batch {
    /// At least one. All want the same kind of guest.
    pub(super) cases: Vec<Case>,
}

impl Batch {
    /// All of `cases` for so many `lanes`, in the order in which they begin: what takes one lane, then
    /// what takes more, the longest first.
    pub(super) fn all(cases: &[Case], lanes: usize) -> Vec<Self> {
        let mut batches: Vec<Self> = Vec::new();
        for case in cases {
            let fits = |batch: &&mut Self| batch.takes(case);
            match batches.iter_mut().find(fits) {
                Some(batch) => batch.cases.push(*case),
                None => batches.push(Self::of(*case)),
            }
        }
        let (wide, narrow): (Vec<_>, Vec<_>) =
            batches.into_iter().partition(Self::is_pair_of_guests);
        let lanes = u32::try_from(lanes).unwrap_or(u32::MAX);
        let share = narrow.iter().map(Self::seconds).sum::<u32>() / lanes;
        let mut batches: Vec<_> = narrow
            .into_iter()
            .flat_map(|batch| batch.parts(share))
            .chain(wide)
            .collect();
        batches.sort_by_key(|batch| (batch.is_pair_of_guests(), u32::MAX - batch.seconds()));
        batches
    }

    fn of(case: Case) -> Self {
        Self { cases: vec![case] }
    }

    fn takes(&self, case: &Case) -> bool {
        self.cases[0].guest_kind() == case.guest_kind()
            && !case.job.is_alone()
            && !self
                .cases
                .iter()
                .any(|case| case.job.is_alone() || case.job.is_last)
    }

    /// Whether it takes two lanes.
    pub(super) fn is_pair_of_guests(&self) -> bool {
        self.cases[0].is_pair_of_guests()
    }

    /// How long it takes, about.
    fn seconds(&self) -> u32 {
        self.cases
            .iter()
            .fold(BOOT, |sum, case| sum + case.job.seconds)
    }

    /// As many batches, about equally long, that none is much longer than `limit`.
    fn parts(self, limit: u32) -> Vec<Self> {
        let count = self.seconds().div_ceil(limit.max(1)) as usize;
        let count = count.clamp(1, self.cases.len());
        let mut longest_first = self.cases;
        longest_first.sort_by_key(|case| u32::MAX - case.job.seconds);
        let rest = longest_first.split_off(count);
        let mut parts: Vec<_> = longest_first.into_iter().map(Self::of).collect();
        for case in rest {
            if let Some(shortest) = parts.iter_mut().min_by_key(|part| part.seconds()) {
                shortest.cases.push(case);
            }
        }
        parts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::VmTestOptions;

    fn batches(options: &VmTestOptions) -> (Vec<Case>, Vec<Batch>) {
        let cases = super::super::chosen(options);
        let batches = Batch::all(&cases, 2);
        (cases, batches)
    }

    /// Every case is in one batch, with its like; who needs a boot of its own has one.
    #[test]
    fn every_case_is_in_one_batch() {
        let (cases, batches) = batches(&VmTestOptions::default());
        let names = |cases: &mut dyn Iterator<Item = &Case>| {
            let mut names: Vec<_> = cases.map(Case::name).collect();
            names.sort();
            names
        };
        let batched = names(&mut batches.iter().flat_map(|batch| &batch.cases));
        assert_eq!(batched, names(&mut cases.iter()));
        for Batch { cases } in &batches {
            let kind = cases[0].guest_kind();
            assert!(cases.iter().all(|case| case.guest_kind() == kind));
            assert!(cases.len() == 1 || !cases.iter().any(|case| case.job.is_alone()));
            let before_last = &cases[..cases.len() - 1];
            assert!(!before_last.iter().any(|case| case.job.is_last));
        }
        assert!(batches.len() < cases.len() / 2, "{} boots", batches.len());
    }

    /// What takes both lanes comes last, and the lanes are free for it at about the same time.
    #[test]
    fn lanes_end_together() {
        for short in [false, true] {
            let (_, batches) = batches(&VmTestOptions {
                short,
                ..VmTestOptions::default()
            });
            let narrow = batches.iter().position(Batch::is_pair_of_guests).unwrap();
            assert!(batches[narrow..].iter().all(Batch::is_pair_of_guests));
            let mut lanes = [0, 0];
            for batch in &batches[..narrow] {
                *lanes.iter_mut().min().unwrap() += batch.seconds();
            }
            assert!(lanes[0].abs_diff(lanes[1]) < 30, "{lanes:?}");
        }
    }
}
