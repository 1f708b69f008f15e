//! Messages in one line of text, for logs and traces. Keys, addresses and service IDs in hex.

use core::fmt;

use crate::hello::{Hello, HelloForm};
use crate::hello_ack::HelloAck;
use crate::message::{Body, Head};

impl fmt::Display for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.mid().name())?;
        match self {
            Self::RdmaWrCompl { len } | Self::RdmaRdCompl { len } => write!(f, " len={len}"),
            Self::ModeChange(change) => write!(f, " {change:?}"),
            Self::ChRcvBuf { size } | Self::ChRcvBufAck { size } => write!(f, " size={size}"),
            Self::SuspComm { service_id } => write!(f, " service_id={service_id}"),
            Self::SrcAvail(a) => {
                write!(f, " len={} rkey={:?} addr={:?}", a.len, a.rkey, a.addr)
            }
            Self::SinkAvail(a) => write!(
                f,
                " len={} rkey={:?} addr={:?} non_discards={}",
                a.len, a.rkey, a.addr, a.non_discards
            ),
            Self::DisConn
            | Self::AbortConn
            | Self::SendSm
            | Self::SrcAvailCancel
            | Self::SinkAvailCancel
            | Self::SinkCancelAck
            | Self::SuspCommAck
            | Self::Data => Ok(()),
        }
    }
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.body)?;
        if self.body.takes_payload() {
            write!(f, " payload={}", self.payload_len)?;
        }
        write!(
            f,
            " mseq={} ack={} bufs={}",
            self.mseq, self.mseq_ack, self.bufs
        )?;
        for (name, _) in self.flags.iter_names() {
            write!(f, " {name}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Hello {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let form = match self.form {
            HelloForm::Whole => "whole",
            HelloForm::Compact => "compact",
        };
        write!(
            f,
            "Hello {form} version={} port={} recv_size={} desired_remote={} adverts={} bufs={}",
            self.version,
            self.local_port,
            self.local_recv_size,
            self.desired_remote_recv_size,
            self.adverts_max,
            self.bufs
        )?;
        for (name, addr) in [("src", self.src), ("dst", self.dst)] {
            if let Some(addr) = addr {
                write!(f, " {name}={addr}")?;
            }
        }
        if self.invalidate_cap {
            f.write_str(" INVALIDATE_CAP")
        } else {
            Ok(())
        }
    }
}

impl fmt::Display for HelloAck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "HelloAck version={} recv_size={} adverts={} bufs={}",
            self.version, self.actual_recv_size, self.adverts_max, self.bufs
        )?;
        if self.invalidate_cap {
            f.write_str(" INVALIDATE_CAP")
        } else {
            Ok(())
        }
    }
}
