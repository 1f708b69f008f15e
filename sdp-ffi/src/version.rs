//! What this library is, and what went wrong.

use std::ffi::{CStr, c_char, c_uint};

use crate::guard;

const VERSION: &CStr =
    match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
        Ok(version) => version,
        Err(_) => panic!("a version has no NUL inside"),
    };

const NUMBER: c_uint = {
    let major = part(env!("CARGO_PKG_VERSION_MAJOR"));
    let minor = part(env!("CARGO_PKG_VERSION_MINOR"));
    let patch = part(env!("CARGO_PKG_VERSION_PATCH"));
    assert!(
        major < 256 && minor < 256 && patch < 256,
        "a byte for each part"
    );
    major << 16 | minor << 8 | patch
};

/// A decimal number, at compile time.
const fn part(text: &str) -> c_uint {
    let digits = text.as_bytes();
    let (mut value, mut at): (c_uint, usize) = (0, 0);
    while at < digits.len() {
        // A byte always fits.
        value = value * 10 + (digits[at] - b'0') as c_uint;
        at += 1;
    }
    value
}

/// The version of the library in use, as text; SDP_VERSION_STRING is that of the header.
#[unsafe(no_mangle)]
pub extern "C" fn sdp_version() -> *const c_char {
    VERSION.as_ptr()
}

/// The version of the library in use, to compare with SDP_VERSION_NUMBER, that of the header:
/// major << 16 | minor << 8 | patch.
#[unsafe(no_mangle)]
pub extern "C" fn sdp_version_number() -> c_uint {
    NUMBER
}

/// What the last failed call of this thread has to say beyond errno: which call, what, and often
/// what to do about it. Never NULL, empty before the first failure. Valid until the thread's next
/// failure or end.
#[unsafe(no_mangle)]
pub extern "C" fn sdp_strerror_ext() -> *const c_char {
    guard::last_words()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The number and the text say the same.
    #[test]
    fn both_forms_agree() {
        let (major, minor, patch) = (NUMBER >> 16, NUMBER >> 8 & 255, NUMBER & 255);
        assert_eq!(VERSION.to_str(), Ok(&*format!("{major}.{minor}.{patch}")));
        assert_eq!(part("120"), 120);
    }
}
