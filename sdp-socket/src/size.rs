//! Numbers of bytes in the environment.

use std::env;
use std::io;

/// What variable `name` says.
///
/// # Errors
/// `InvalidInput` if it is not text.
pub(crate) fn variable(name: &str) -> io::Result<Option<String>> {
    match env::var(name) {
        Ok(text) => Ok(Some(text)),
        Err(env::VarError::NotPresent) => Ok(None),
        Err(env::VarError::NotUnicode(text)) => Err(invalid(name, &text.to_string_lossy())),
    }
}

/// The bytes that `text`, found in variable `name`, stands for; K, M and G are powers of 1024.
///
/// # Errors
/// `InvalidInput`, with the name and what is expected.
pub(crate) fn parse_size(name: &str, text: &str) -> io::Result<u64> {
    let (digits, shift) = match text.char_indices().last() {
        Some((at, 'K' | 'k')) => (&text[..at], 10),
        Some((at, 'M' | 'm')) => (&text[..at], 20),
        Some((at, 'G' | 'g')) => (&text[..at], 30),
        _ => (text, 0),
    };
    let count: Option<u64> = digits.parse().ok();
    count
        .and_then(|count| count.checked_mul(1 << shift))
        .ok_or_else(|| invalid(name, text))
}

fn invalid(name: &str, text: &str) -> io::Error {
    let what = format!("{name}={text}: a number of bytes is expected, such as 64, 64K or 1G");
    io::Error::new(io::ErrorKind::InvalidInput, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, len) in [("0", 0), ("64", 64), ("2k", 2048), ("3M", 3 << 20)] {
            assert_eq!(parse_size("SDP_SIZE", text).unwrap(), len, "{text}");
        }
        for text in ["", "K", "-1", "1.5M", "99999999999G", "all of it"] {
            let error = parse_size("SDP_SIZE", text).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
            assert!(error.to_string().contains("SDP_SIZE="), "{error}");
        }
    }
}
