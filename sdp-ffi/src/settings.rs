//! Socket options: what a socket has of them before it is a stream.

mod name;
mod value;

use std::io;
use std::time::Duration;

use libc::c_int;
use sdp_socket::{Builder, SdpStream, ZcopyThreshold};

pub(crate) use name::Name;
use value::{
    CONGESTION, buffer_len, congestion, int, kept_value, linger, linger_bytes, saturating,
    threshold, time, time_bytes,
};
pub(crate) use value::{OptionBytes, int_bytes};

use crate::errno::Failure;
use crate::kept::{Values, within};
use crate::options::SDP_ZCOPY_AUTO;

/// SO_KEEPALIVE and what belongs to it, as C has it: whole seconds.
#[derive(Clone, Debug)]
struct Keepalive {
    on: bool,
    idle: c_int,
    interval: c_int,
    count: c_int,
}

impl Default for Keepalive {
    /// Linux's defaults.
    fn default() -> Self {
        Self {
            on: false,
            idle: 7_200,
            interval: 75,
            count: 9,
        }
    }
}

/// Linux's limits of the times in seconds and of the count.
const KEEP_TIME_MAX: c_int = 32_767;
const KEEP_COUNT_MAX: c_int = 127;
/// Linux's limits of TCP_MAXSEG.
const SEGMENT_MIN: c_int = 88;
const SEGMENT_MAX: c_int = 32_767;
/// What TCP_MAXSEG says before a connection.
const SEGMENT_START: c_int = 536;
/// What it says of one: the most that one message carries.
pub(crate) const MESSAGE_MAX: c_int = 32 * 1024 - 16;
/// Options that a program may set at any time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings {
    send_buffer_len: Option<usize>,
    recv_buffer_len: Option<usize>,
    recv_low_water: Option<usize>,
    pub(crate) read_timeout: Option<Duration>,
    pub(crate) write_timeout: Option<Duration>,
    linger: Option<Duration>,
    /// The last time it had; it reads back after it was switched off, too.
    linger_seconds: c_int,
    nodelay: bool,
    oob_inline: bool,
    keepalive: Keepalive,
    /// Milliseconds; zero is none.
    user_timeout: c_int,
    only_v6: bool,
    reuse_addr: bool,
    reuse_port: bool,
    threshold: ZcopyThreshold,
    /// Zero: none was asked for.
    max_segment: c_int,
    kept: Values,
}

impl Settings {
    /// What makes streams and listeners with these options, as far as it takes them.
    pub(crate) fn builder(&self) -> Builder {
        let mut builder = Builder::new()
            .nodelay(self.nodelay)
            .oob_inline(self.oob_inline)
            .only_v6(self.only_v6)
            .reuse_port(self.reuse_port)
            .zcopy_threshold(self.threshold);
        if let Some(len) = self.send_buffer_len {
            builder = builder.send_buffer_size(len);
        }
        if let Some(len) = self.recv_buffer_len {
            builder = builder.recv_buffer_size(len);
        }
        builder
    }

    /// Gives a stream these options.
    pub(crate) fn apply(&self, stream: &SdpStream) -> io::Result<()> {
        stream.set_read_timeout(self.read_timeout)?;
        stream.set_write_timeout(self.write_timeout)?;
        stream.set_linger(self.linger)?;
        stream.set_nodelay(self.nodelay)?;
        stream.set_oob_inline(self.oob_inline)?;
        stream.set_zcopy_threshold(self.threshold)?;
        let seconds = |value: c_int| Duration::from_secs(value.unsigned_abs().into());
        let millis = Duration::from_millis(self.user_timeout.unsigned_abs().into());
        stream.set_user_timeout(Some(millis))?;
        stream.set_keepalive_time(seconds(self.keepalive.idle))?;
        stream.set_keepalive_interval(seconds(self.keepalive.interval))?;
        stream.set_keepalive_retries(self.keepalive.count.unsigned_abs())?;
        stream.set_keepalive(self.keepalive.on)?;
        if let Some(len) = self.send_buffer_len {
            stream.set_send_buffer_size(len)?;
        }
        if let Some(len) = self.recv_buffer_len {
            stream.set_recv_buffer_size(len)?;
        }
        if let Some(len) = self.recv_low_water {
            stream.set_recv_low_water(len)?;
        }
        Ok(())
    }

    /// # Errors
    /// `EINVAL` for too few bytes or a value out of range, `EDOM` for a bad time,
    /// `ENOPROTOOPT` for an option that can only be read.
    pub(crate) fn set(&mut self, name: Name, bytes: &[u8]) -> Result<(), Failure> {
        match name {
            Name::SendBuffer => self.send_buffer_len = Some(buffer_len(bytes)?),
            Name::RecvBuffer => self.recv_buffer_len = Some(buffer_len(bytes)?),
            Name::RecvLowWater => self.recv_low_water = Some(buffer_len(bytes)?),
            Name::ReadTimeout => self.read_timeout = time(bytes)?,
            Name::WriteTimeout => self.write_timeout = time(bytes)?,
            Name::Linger => {
                self.linger = linger(bytes)?;
                if let Some(time) = self.linger {
                    self.linger_seconds = c_int::try_from(time.as_secs()).unwrap_or(c_int::MAX);
                }
            }
            Name::Nodelay => self.nodelay = int(bytes)? != 0,
            Name::OobInline => self.oob_inline = int(bytes)? != 0,
            Name::Keepalive => self.keepalive.on = int(bytes)? != 0,
            Name::KeepIdle => self.keepalive.idle = within(int(bytes)?, 1, KEEP_TIME_MAX)?,
            Name::KeepInterval => self.keepalive.interval = within(int(bytes)?, 1, KEEP_TIME_MAX)?,
            Name::KeepCount => self.keepalive.count = within(int(bytes)?, 1, KEEP_COUNT_MAX)?,
            Name::UserTimeout => self.user_timeout = within(int(bytes)?, 0, c_int::MAX)?,
            Name::OnlyV6 => self.only_v6 = int(bytes)? != 0,
            Name::ReuseAddr => self.reuse_addr = int(bytes)? != 0,
            Name::ReusePort => self.reuse_port = int(bytes)? != 0,
            Name::Threshold => self.threshold = threshold(int(bytes)?)?,
            Name::MaxSegment => {
                let value = int(bytes)?;
                self.max_segment = match value {
                    0 => 0,
                    _ => within(value, SEGMENT_MIN, SEGMENT_MAX)?,
                };
            }
            Name::Congestion => congestion(bytes)?,
            Name::Kept(kept) => self.kept.set(kept, kept_value(kept, bytes)?)?,
            Name::Error
            | Name::Type
            | Name::Domain
            | Name::Protocol
            | Name::AcceptConn
            | Name::SendLowWater
            | Name::Info
            | Name::Stats => {
                let words = format!("{name:?} can only be read");
                return Err(Failure::new(libc::ENOPROTOOPT, words));
            }
        }
        Ok(())
    }

    /// The value of one of these options, `None` for those that are a socket's state. `buffers`
    /// are the sizes in effect.
    pub(crate) fn get(&self, name: Name, buffers: (usize, usize)) -> Option<OptionBytes> {
        Some(match name {
            Name::SendBuffer => int_bytes(saturating(buffers.0)),
            Name::RecvBuffer => int_bytes(saturating(buffers.1)),
            // As the stream takes it, which is as Linux does.
            Name::RecvLowWater => {
                let len = self.recv_low_water.unwrap_or(1);
                int_bytes(saturating(len.clamp(1, (buffers.1 / 2).max(1))))
            }
            Name::SendLowWater => int_bytes(1),
            Name::ReadTimeout => time_bytes(self.read_timeout),
            Name::WriteTimeout => time_bytes(self.write_timeout),
            Name::Linger => linger_bytes(self.linger.is_some(), self.linger_seconds),
            Name::Nodelay => int_bytes(c_int::from(self.nodelay)),
            Name::OobInline => int_bytes(c_int::from(self.oob_inline)),
            Name::Keepalive => int_bytes(c_int::from(self.keepalive.on)),
            Name::KeepIdle => int_bytes(self.keepalive.idle),
            Name::KeepInterval => int_bytes(self.keepalive.interval),
            Name::KeepCount => int_bytes(self.keepalive.count),
            Name::UserTimeout => int_bytes(self.user_timeout),
            Name::OnlyV6 => int_bytes(c_int::from(self.only_v6)),
            Name::ReuseAddr => int_bytes(c_int::from(self.reuse_addr)),
            Name::ReusePort => int_bytes(c_int::from(self.reuse_port)),
            Name::Threshold => int_bytes(match self.threshold {
                ZcopyThreshold::Auto => SDP_ZCOPY_AUTO,
                ZcopyThreshold::Off => 0,
                ZcopyThreshold::Bytes(len) => saturating(len),
            }),
            // Of a connection it is the connection's.
            Name::MaxSegment if self.max_segment != 0 => int_bytes(self.max_segment),
            Name::MaxSegment => int_bytes(SEGMENT_START),
            Name::Congestion => OptionBytes::from_slice(CONGESTION),
            Name::Kept(kept) => int_bytes(self.kept.get(kept)),
            Name::Error
            | Name::Type
            | Name::Domain
            | Name::Protocol
            | Name::AcceptConn
            | Name::Info
            | Name::Stats => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::value::{AT_ONCE, LONG_LEN, MICROS};
    use super::*;
    use libc::c_long;

    const BUFFERS: (usize, usize) = (1, 2);

    fn set_then_get(name: Name, bytes: &[u8]) -> OptionBytes {
        let mut settings = Settings::default();
        settings.set(name, bytes).unwrap();
        settings.get(name, BUFFERS).unwrap()
    }

    /// What is set is read back, for each structure; the structures are those of C.
    #[test]
    fn values_round_trip() {
        for name in [
            Name::Keepalive,
            Name::Nodelay,
            Name::OnlyV6,
            Name::ReuseAddr,
            Name::ReusePort,
        ] {
            assert_eq!(set_then_get(name, &int_bytes(7)), int_bytes(1), "{name:?}");
            assert_eq!(set_then_get(name, &int_bytes(0)), int_bytes(0), "{name:?}");
        }
        for name in [
            Name::KeepIdle,
            Name::KeepInterval,
            Name::KeepCount,
            Name::UserTimeout,
        ] {
            assert_eq!(set_then_get(name, &int_bytes(7)), int_bytes(7), "{name:?}");
        }
        for value in [0, 4096, 1 << 20, SDP_ZCOPY_AUTO] {
            let bytes = int_bytes(value);
            assert_eq!(set_then_get(Name::Threshold, &bytes), bytes);
        }
        let time = time_bytes(Some(Duration::from_micros(3_250_000)));
        assert_eq!(time.len(), size_of::<libc::timeval>());
        assert_eq!(set_then_get(Name::ReadTimeout, &time), time);
        assert_eq!(set_then_get(Name::WriteTimeout, &time), time);
        for (on, seconds) in [(false, 0), (true, 0), (true, 9)] {
            let bytes = linger_bytes(on, seconds);
            assert_eq!(bytes.len(), size_of::<libc::linger>());
            assert_eq!(set_then_get(Name::Linger, &bytes), bytes);
        }
        let mut settings = Settings::default();
        settings.set(Name::Linger, &linger_bytes(true, 9)).unwrap();
        settings.set(Name::Linger, &linger_bytes(false, 5)).unwrap();
        assert_eq!(
            settings.get(Name::Linger, BUFFERS),
            Some(linger_bytes(false, 9))
        );
    }

    /// What is only read back is read back; what names an algorithm of TCP's is refused.
    #[test]
    fn options_of_tcp_s_own() {
        let cork = Name::of(libc::IPPROTO_TCP, libc::TCP_CORK).unwrap();
        assert_eq!(set_then_get(cork, &int_bytes(3)), int_bytes(1));
        let tos = Name::of(libc::IPPROTO_IP, libc::IP_TOS).unwrap();
        assert_eq!(set_then_get(tos, &[0x20]), int_bytes(0x20));
        assert_eq!(
            set_then_get(Name::MaxSegment, &int_bytes(1000)),
            int_bytes(1000)
        );
        assert_eq!(
            set_then_get(Name::MaxSegment, &int_bytes(0)),
            int_bytes(536)
        );
        assert_eq!(set_then_get(Name::Congestion, b"sdp")[..], CONGESTION[..]);
        let mut settings = Settings::default();
        let rows: [(Name, &[u8], c_int); 4] = [
            (Name::Congestion, b"cubic", libc::ENOENT),
            (Name::Congestion, b"", libc::EINVAL),
            (Name::MaxSegment, &int_bytes(87), libc::EINVAL),
            (Name::Info, &int_bytes(1), libc::ENOPROTOOPT),
        ];
        for (name, bytes, errno) in rows {
            assert_eq!(
                settings.set(name, bytes).unwrap_err().errno,
                errno,
                "{name:?}"
            );
        }
    }

    /// Zero seconds mean no limit, as on every socket.
    #[test]
    fn a_time_of_zero_is_no_limit() {
        let mut settings = Settings::default();
        settings.set(Name::ReadTimeout, &time_bytes(None)).unwrap();
        assert_eq!(settings.read_timeout, None);
    }

    /// A negative time is over at once, and one that no clock counts to is none; both read as zero.
    #[test]
    fn times_that_are_none() {
        let mut settings = Settings::default();
        for (seconds, expected) in [(-1, Some(AT_ONCE)), (c_long::MAX, None)] {
            let mut bytes = time_bytes(None);
            bytes[..LONG_LEN].copy_from_slice(&c_long::to_ne_bytes(seconds));
            settings.set(Name::ReadTimeout, &bytes).unwrap();
            assert_eq!(settings.read_timeout, expected);
            assert_eq!(
                settings.get(Name::ReadTimeout, BUFFERS),
                Some(time_bytes(None))
            );
        }
    }

    /// Each bad value has its errno, and changes nothing.
    #[test]
    fn bad_values_are_refused() {
        let mut bad_time = time_bytes(None);
        bad_time[LONG_LEN..].copy_from_slice(&MICROS.to_ne_bytes());
        let one = int_bytes(1);
        let rows: [(Name, &[u8], c_int); 16] = [
            (Name::Nodelay, &one[..3], libc::EINVAL),
            (Name::SendBuffer, &[], libc::EINVAL),
            (Name::Linger, &one, libc::EINVAL),
            (Name::ReadTimeout, &bad_time[..LONG_LEN], libc::EINVAL),
            (Name::ReadTimeout, &bad_time, libc::EDOM),
            (Name::Threshold, &int_bytes(-2), libc::EINVAL),
            (Name::KeepIdle, &int_bytes(0), libc::EINVAL),
            (Name::KeepIdle, &int_bytes(32_768), libc::EINVAL),
            (Name::KeepInterval, &int_bytes(0), libc::EINVAL),
            (Name::KeepCount, &int_bytes(128), libc::EINVAL),
            (Name::UserTimeout, &int_bytes(-1), libc::EINVAL),
            (Name::SendLowWater, &one, libc::ENOPROTOOPT),
            (Name::Error, &one, libc::ENOPROTOOPT),
            (Name::Type, &one, libc::ENOPROTOOPT),
            (Name::Domain, &one, libc::ENOPROTOOPT),
            (Name::AcceptConn, &one, libc::ENOPROTOOPT),
        ];
        let mut settings = Settings::default();
        for (name, bytes, errno) in rows {
            assert_eq!(
                settings.set(name, bytes).unwrap_err().errno,
                errno,
                "{name:?}"
            );
        }
        assert_eq!(
            format!("{settings:?}"),
            format!("{:?}", Settings::default())
        );
    }

    /// Half of the receive buffer at most, and one byte at least; a negative value is a huge one.
    #[test]
    fn low_water_marks_are_linux_s() {
        let mut settings = Settings::default();
        for (value, mark) in [
            (None, 1),
            (Some(0), 1),
            (Some(7), 7),
            (Some(51), 50),
            (Some(-1), 50),
        ] {
            if let Some(value) = value {
                settings.set(Name::RecvLowWater, &int_bytes(value)).unwrap();
            }
            let got = settings.get(Name::RecvLowWater, (1, 100));
            assert_eq!(got, Some(int_bytes(mark)), "{value:?}");
        }
        assert_eq!(
            settings.get(Name::SendLowWater, (1, 100)),
            Some(int_bytes(1))
        );
    }

    /// Unknown options are named.
    #[test]
    fn unknown_options_are_refused() {
        for (level, number) in [(libc::SOL_SOCKET, 9999), (libc::IPPROTO_UDP, 1), (-1, -1)] {
            let failure = Name::of(level, number).unwrap_err();
            assert_eq!(failure.errno, libc::ENOPROTOOPT);
            assert!(failure.message.contains(&number.to_string()));
        }
    }
}
