//! What was looked at, what came of it, and what to do about it.

use serde::{Deserialize, Serialize};

/// How it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Verdict {
    /// As it should be.
    Ok,
    /// It works, but not as well as it could, or not everywhere.
    Warning,
    /// It cannot be known from here.
    Unchecked,
    /// It does not work.
    Fail,
}

impl Verdict {
    /// As lines begin.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok       ",
            Self::Warning => "warning  ",
            Self::Unchecked => "unchecked",
            Self::Fail => "FAIL     ",
        }
    }
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Finding {
    /// Stable name.
    pub(super) name: String,
    pub(super) verdict: Verdict,
    /// What was found.
    pub(super) detail: String,
    /// What to do, unless it is fine.
    pub(super) remedy: Option<String>,
}

impl Finding {
    pub(super) fn ok(name: &str, detail: impl Into<String>) -> Self {
        Self::new(name, Verdict::Ok, detail, None)
    }

    pub(super) fn warning(
        name: &str,
        detail: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self::new(name, Verdict::Warning, detail, Some(remedy.into()))
    }

    pub(super) fn unchecked(
        name: &str,
        detail: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self::new(name, Verdict::Unchecked, detail, Some(remedy.into()))
    }

    pub(super) fn fail(name: &str, detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(name, Verdict::Fail, detail, Some(remedy.into()))
    }

    fn new(
        name: &str,
        verdict: Verdict,
        detail: impl Into<String>,
        remedy: Option<String>,
    ) -> Self {
        Self {
            name: name.to_owned(),
            verdict,
            detail: detail.into(),
            remedy,
        }
    }
}
