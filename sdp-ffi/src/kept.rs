//! Options that steer TCP's own machinery, which is not here: they are checked as Linux checks
//! them, kept, read back, and change nothing.

use libc::c_int;

use crate::errno::Failure;

/// What values an option takes.
#[derive(Clone, Copy, Debug)]
enum Rule {
    /// Anything; read back as 1 or 0.
    Switch,
    /// Anything, as it is.
    Any,
    /// From the first to the second.
    Within(c_int, c_int),
    /// The same, where -1 asks for the value it starts with.
    WithinOrStart(c_int, c_int),
    /// As [`Rule::Within`]; more is a privilege.
    Permitted(c_int, c_int),
    /// Negative values are 0.
    NotNegative,
    /// A byte, of which TCP keeps the two lowest bits to itself.
    TypeOfService,
}

/// One option.
#[derive(Debug)]
struct Row {
    level: c_int,
    number: c_int,
    start: c_int,
    rule: Rule,
}

const fn row(level: c_int, number: c_int, start: c_int, rule: Rule) -> Row {
    Row {
        level,
        number,
        start,
        rule,
    }
}

/// Numbers of Linux's that the libc crate does not have for every C library.
const TCP_NOTSENT_LOWAT: c_int = 25;
const TCP_FASTOPEN_CONNECT: c_int = 30;
const IP_BIND_ADDRESS_NO_PORT: c_int = 24;

const COUNT: usize = 16;

const ROWS: [Row; COUNT] = [
    row(libc::SOL_SOCKET, libc::SO_BROADCAST, 0, Rule::Switch),
    row(
        libc::SOL_SOCKET,
        libc::SO_PRIORITY,
        0,
        Rule::Permitted(0, 6),
    ),
    row(libc::SOL_SOCKET, libc::SO_INCOMING_CPU, -1, Rule::Any),
    row(libc::IPPROTO_TCP, libc::TCP_CORK, 0, Rule::Switch),
    row(libc::IPPROTO_TCP, libc::TCP_QUICKACK, 1, Rule::Switch),
    row(
        libc::IPPROTO_TCP,
        libc::TCP_DEFER_ACCEPT,
        0,
        Rule::NotNegative,
    ),
    row(libc::IPPROTO_TCP, libc::TCP_SYNCNT, 6, Rule::Within(1, 127)),
    row(libc::IPPROTO_TCP, libc::TCP_LINGER2, 60, Rule::Any),
    row(libc::IPPROTO_TCP, TCP_NOTSENT_LOWAT, 0, Rule::Any),
    row(
        libc::IPPROTO_TCP,
        libc::TCP_FASTOPEN,
        0,
        Rule::Within(0, c_int::MAX),
    ),
    row(
        libc::IPPROTO_TCP,
        TCP_FASTOPEN_CONNECT,
        0,
        Rule::Within(0, 1),
    ),
    row(libc::IPPROTO_IP, libc::IP_TOS, 0, Rule::TypeOfService),
    row(
        libc::IPPROTO_IP,
        libc::IP_TTL,
        64,
        Rule::WithinOrStart(1, 255),
    ),
    row(libc::IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 0, Rule::Switch),
    row(
        libc::IPPROTO_IPV6,
        libc::IPV6_TCLASS,
        0,
        Rule::WithinOrStart(0, 255),
    ),
    row(
        libc::IPPROTO_IPV6,
        libc::IPV6_UNICAST_HOPS,
        64,
        Rule::WithinOrStart(0, 255),
    ),
];

/// The name of one of these options.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Kept(usize);

impl Kept {
    pub(crate) fn of(level: c_int, number: c_int) -> Option<Self> {
        let is_it = |row: &Row| (row.level, row.number) == (level, number);
        ROWS.iter().position(is_it).map(Self)
    }

    /// One of those that sockets of IPv4 have not.
    pub(crate) fn is_v6(self) -> bool {
        ROWS[self.0].level == libc::IPPROTO_IPV6
    }

    /// A single byte is as good as an int.
    pub(crate) fn takes_a_byte(self) -> bool {
        ROWS[self.0].level == libc::IPPROTO_IP
    }
}

/// The values a socket has of them.
#[derive(Clone, Debug)]
pub(crate) struct Values([c_int; COUNT]);

impl Default for Values {
    fn default() -> Self {
        Self(ROWS.each_ref().map(|row| row.start))
    }
}

impl Values {
    pub(crate) fn get(&self, name: Kept) -> c_int {
        self.0[name.0]
    }

    /// # Errors
    /// `EINVAL` for a value that Linux refuses; `EPERM` for one that it refuses to most.
    pub(crate) fn set(&mut self, name: Kept, value: c_int) -> Result<(), Failure> {
        let Row { start, rule, .. } = &ROWS[name.0];
        self.0[name.0] = match *rule {
            Rule::Switch => c_int::from(value != 0),
            Rule::Any => value,
            Rule::Within(min, max) => within(value, min, max)?,
            Rule::WithinOrStart(_, _) if value == -1 => *start,
            Rule::WithinOrStart(min, max) => within(value, min, max)?,
            Rule::Permitted(min, max) => within(value, min, max).map_err(|failure| Failure {
                errno: libc::EPERM,
                ..failure
            })?,
            Rule::NotNegative => value.max(0),
            Rule::TypeOfService => value & 0xfc,
        };
        Ok(())
    }
}

/// # Errors
/// `EINVAL` for a value out of range.
pub(crate) fn within(value: c_int, min: c_int, max: c_int) -> Result<c_int, Failure> {
    if (min..=max).contains(&value) {
        return Ok(value);
    }
    let words = format!("a value of {value}, which is not from {min} to {max}");
    Err(Failure::new(libc::EINVAL, words))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is set is read back, as Linux reads it back, or refused as it refuses it.
    #[test]
    fn values_are_checked_and_kept() {
        let tcp = libc::IPPROTO_TCP;
        let rows = [
            (tcp, libc::TCP_CORK, 7, Ok(1)),
            (tcp, libc::TCP_DEFER_ACCEPT, -3, Ok(0)),
            (tcp, libc::TCP_SYNCNT, 127, Ok(127)),
            (tcp, libc::TCP_SYNCNT, 0, Err(libc::EINVAL)),
            (tcp, TCP_FASTOPEN_CONNECT, 2, Err(libc::EINVAL)),
            (libc::SOL_SOCKET, libc::SO_PRIORITY, 6, Ok(6)),
            (libc::SOL_SOCKET, libc::SO_PRIORITY, 7, Err(libc::EPERM)),
            (libc::SOL_SOCKET, libc::SO_INCOMING_CPU, 3, Ok(3)),
            (libc::IPPROTO_IP, libc::IP_TOS, 0x13, Ok(0x10)),
            (libc::IPPROTO_IP, libc::IP_TTL, -1, Ok(64)),
            (libc::IPPROTO_IP, libc::IP_TTL, 0, Err(libc::EINVAL)),
            (
                libc::IPPROTO_IPV6,
                libc::IPV6_TCLASS,
                256,
                Err(libc::EINVAL),
            ),
        ];
        for (level, number, value, expected) in rows {
            let name = Kept::of(level, number).unwrap();
            let mut values = Values::default();
            let before = values.get(name);
            let set = values.set(name, value).map_err(|failure| failure.errno);
            assert_eq!(set.map(|()| values.get(name)), expected, "{level} {number}");
            if expected.is_err() {
                assert_eq!(values.get(name), before);
            }
        }
    }

    /// No option stands here twice, and strangers are strangers.
    #[test]
    fn every_row_is_found() {
        for (at, row) in ROWS.iter().enumerate() {
            assert_eq!(Kept::of(row.level, row.number), Some(Kept(at)));
        }
        assert_eq!(Kept::of(libc::IPPROTO_TCP, 9999), None);
    }
}
