//! What kind of program a file is, as far as its header tells.

use std::io::{Read, Seek, SeekFrom};

/// How a program is loaded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// By a loader, which may load more.
    Dynamic,
    Static,
    /// 32 bits where we have 64, or the other way round.
    OtherWidth,
}

const MAGIC: [u8; 4] = *b"\x7fELF";
/// The program header of the loader's name.
const PT_INTERP: u32 = 3;
/// Program headers that are looked at.
const HEADERS_MAX: u16 = 256;

/// `None`: no program of this machine's form, a script for example, or not to be read.
pub(super) fn kind(file: &mut (impl Read + Seek)) -> Option<Kind> {
    let mut ident = [0; 16];
    file.read_exact(&mut ident).ok()?;
    if ident[..4] != MAGIC {
        return None;
    }
    let own_class = if cfg!(target_pointer_width = "64") {
        2
    } else {
        1
    };
    if ident[4] != own_class {
        return Some(Kind::OtherWidth);
    }
    // Where they begin, how long each is, how many there are.
    let (start, len, count) = if own_class == 2 {
        (u64::from_ne_bytes(read_at(file, 32)?), 54, 56)
    } else {
        (u32::from_ne_bytes(read_at(file, 28)?).into(), 42, 44)
    };
    let len = u16::from_ne_bytes(read_at(file, len)?);
    let count = u16::from_ne_bytes(read_at(file, count)?).min(HEADERS_MAX);
    for at in 0..count {
        let at = start.checked_add(u64::from(at) * u64::from(len))?;
        if u32::from_ne_bytes(read_at(file, at)?) == PT_INTERP {
            return Some(Kind::Dynamic);
        }
    }
    Some(Kind::Static)
}

fn read_at<const N: usize>(file: &mut (impl Read + Seek), at: u64) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    file.seek(SeekFrom::Start(at)).ok()?;
    file.read_exact(&mut bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    /// This test has a loader; without its mention it would be static. Other files are nothing.
    #[test]
    fn kinds() {
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert_eq!(kind(&mut Cursor::new(&own)), Some(Kind::Dynamic));
        if cfg!(target_pointer_width = "64") {
            let mut none = own.clone();
            none[56..58].copy_from_slice(&0_u16.to_ne_bytes());
            assert_eq!(kind(&mut Cursor::new(&none)), Some(Kind::Static));
        }
        let mut other = own.clone();
        other[4] = 3 - other[4];
        assert_eq!(kind(&mut Cursor::new(&other)), Some(Kind::OtherWidth));
        for len in [0, 3, 16, 40, 60] {
            assert_ne!(
                kind(&mut Cursor::new(&own[..len])),
                Some(Kind::Dynamic),
                "{len}"
            );
        }
        assert_eq!(kind(&mut Cursor::new(b"#!/bin/sh\necho 12345678\n")), None);
    }
}
