//! Options, of a socket in any phase.

use std::sync::atomic::Ordering;

use libc::c_int;
use sdp_socket::{SdpStream, Stats};

use super::{Phase, Socket, lock, not_connected};
use crate::address::Family;
use crate::errno::Failure;
use crate::settings::{MESSAGE_MAX, Name, OptionBytes, int_bytes};
use crate::stats::{SdpStats, tcp_info_bytes};

impl Socket {
    /// # Errors
    /// `ENOPROTOOPT` for an option that only sockets of IPv6 have.
    fn has_option(&self, name: Name) -> Result<(), Failure> {
        if name.is_v6() && self.family != Family::V6 {
            return Err(Failure::new(libc::ENOPROTOOPT, "no IPv6 socket"));
        }
        Ok(())
    }

    /// Sets an option.
    pub(crate) fn set_option(&self, name: Name, bytes: &[u8]) -> Result<(), Failure> {
        let phase = self.phase()?;
        self.has_option(name)?;
        if name == Name::OnlyV6 {
            let (Phase::Fresh | Phase::Spent) = *phase else {
                return Err(Failure::new(libc::EINVAL, "the socket has an address"));
            };
        }
        let mut settings = lock(&self.settings);
        settings.set(name, bytes)?;
        match self.stream.get() {
            Some(stream) => Ok(settings.apply(stream)?),
            None => Ok(()),
        }
    }

    /// Reads an option.
    pub(crate) fn option(&self, name: Name) -> Result<OptionBytes, Failure> {
        let mut phase = self.phase()?;
        // By Linux's habit another errno than where it is set.
        self.has_option(name).map_err(|failure| Failure {
            errno: libc::EOPNOTSUPP,
            ..failure
        })?;
        let settings = self.settings();
        let stream = self.stream.get();
        if name == Name::MaxSegment && stream.is_some() {
            return Ok(int_bytes(MESSAGE_MAX));
        }
        let buffers = match stream {
            Some(stream) => (stream.send_buffer_size()?, stream.recv_buffer_size()?),
            None => settings.builder().buffer_sizes(),
        };
        if let Some(bytes) = settings.get(name, buffers) {
            return Ok(bytes);
        }
        if name == Name::Stats {
            let stats = stream.ok_or_else(not_connected)?.stats();
            return Ok(SdpStats::from(&stats).bytes());
        }
        if name == Name::Info {
            let stats = stream.map_or_else(Stats::default, SdpStream::stats);
            return Ok(tcp_info_bytes(
                phase.tcp_state(),
                MESSAGE_MAX.unsigned_abs(),
                &stats,
            ));
        }
        Ok(int_bytes(match name {
            Name::Type => libc::SOCK_STREAM,
            Name::Domain => self.domain,
            Name::Protocol => libc::IPPROTO_TCP,
            Name::AcceptConn => c_int::from(matches!(*phase, Phase::Listening)),
            _ => self.take_failure(&mut phase)?.map_or(0, |it| it.errno),
        }))
    }

    /// Fails if the connection, or the connect, has failed and nobody was told.
    ///
    /// # Errors
    /// That failure, once.
    pub(crate) fn fail(&self) -> Result<(), Failure> {
        let mut phase = self.phase()?;
        self.take_failure(&mut phase)?.map_or(Ok(()), Err)
    }

    /// What SO_ERROR tells, once.
    fn take_failure(&self, phase: &mut Phase) -> Result<Option<Failure>, Failure> {
        if self.pending.load(Ordering::Relaxed) != 0 {
            return Ok(self.take_pending());
        }
        let Some(stream) = self.stream.get() else {
            return Ok(self.take_connect_failure(phase));
        };
        let failure = stream.take_error()?.map(Failure::from);
        if let Some(failure) = &failure {
            self.told(failure);
        }
        Ok(failure)
    }
}
