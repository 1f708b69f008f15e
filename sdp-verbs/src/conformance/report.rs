//! What became of the cases.

use std::fmt;
use std::panic::Location;
use std::time::Duration;

use crate::error::{PostError, VerbsError};

/// A broken promise, and where it was found.
#[derive(Clone, Debug)]
pub struct Failure {
    message: String,
    at: &'static Location<'static>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} ({}:{})",
            self.message,
            self.at.file(),
            self.at.line()
        )
    }
}

/// Why a case ended early.
#[derive(Debug)]
pub(super) enum Stop {
    Failed(Failure),
    Skipped(String),
}

/// How a case ends.
pub(super) type Verdict<T = ()> = Result<T, Stop>;

impl Stop {
    #[track_caller]
    pub(super) fn failed(message: impl Into<String>) -> Self {
        Self::Failed(Failure {
            message: message.into(),
            at: Location::caller(),
        })
    }
}

macro_rules! from_error {
    ($($error:ty),*) => {$(
        impl From<$error> for Stop {
            #[track_caller]
            fn from(error: $error) -> Self {
                Self::failed(format!("{error} [{error:?}]"))
            }
        }
    )*};
}
from_error!(VerbsError, PostError, std::io::Error);

/// Fails the case unless a condition holds.
macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            return Err($crate::conformance::report::Stop::failed(format!($($message)+)));
        }
    };
}

/// Fails the case unless two values are equal.
macro_rules! ensure_eq {
    ($left:expr, $right:expr, $($message:tt)+) => {
        match (&$left, &$right) {
            (left, right) => if left != right {
                return Err($crate::conformance::report::Stop::failed(
                    format!("{}: {left:?}, expected {right:?}", format!($($message)+)),
                ));
            }
        }
    };
}

pub(super) use {ensure, ensure_eq};

/// What became of one case.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Every promise was kept.
    Passed,
    /// The case could not run; the reason names what is absent.
    Skipped(String),
    /// A promise was broken.
    Failed(Failure),
}

/// One case of a [`Report`].
#[derive(Clone, Debug)]
pub struct CaseReport {
    /// Group and name.
    pub name: &'static str,
    /// How long it ran.
    pub took: Duration,
    /// What became of it.
    pub outcome: Outcome,
}

impl fmt::Display for CaseReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.name)?;
        match &self.outcome {
            Outcome::Passed => write!(f, "passed in {:?}", self.took),
            Outcome::Skipped(reason) => write!(f, "skipped: {reason}"),
            Outcome::Failed(failure) => write!(f, "FAILED: {failure}"),
        }
    }
}

/// What became of the suite on one fixture.
#[derive(Clone, Debug)]
pub struct Report {
    /// Name of the fixture.
    pub fixture: String,
    /// The cases that were chosen, in order.
    pub cases: Vec<CaseReport>,
}

impl Report {
    /// The cases that failed.
    pub fn failures(&self) -> impl Iterator<Item = &CaseReport> {
        self.cases
            .iter()
            .filter(|case| matches!(case.outcome, Outcome::Failed(_)))
    }

    /// The cases that could not run.
    pub fn skips(&self) -> impl Iterator<Item = &CaseReport> {
        self.cases
            .iter()
            .filter(|case| matches!(case.outcome, Outcome::Skipped(_)))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for case in &self.cases {
            writeln!(f, "{case}")?;
        }
        let (failed, skipped) = (self.failures().count(), self.skips().count());
        let passed = self.cases.len() - failed - skipped;
        write!(
            f,
            "{}: {passed} passed, {failed} failed, {skipped} skipped",
            self.fixture
        )
    }
}
