//! Packets: an InfiniBand transport packet in the frame of its network.

use std::net::{IpAddr, Ipv6Addr};
use std::time::{SystemTime, UNIX_EPOCH};

use super::Framing;

/// Largest payload of a packet of an RDMA transfer: the largest path MTU there is.
pub(super) const RDMA_PACKET_MAX: usize = 4096;
/// Largest payload of a packet of a message: dissectors do not put messages together again, so
/// each is in one packet if the 16-bit lengths of IP and UDP allow it.
pub(super) const SEND_PACKET_MAX: usize = 60 << 10;

/// UDP port of RoCEv2.
const ROCE_PORT: u16 = 4791;
/// Bytes of the invariant CRC, written as zero.
const ICRC_LEN: usize = 4;
/// Where an ERF record has its length.
const ERF_LEN_AT: usize = 10;
/// Default partition key.
const PKEY: u16 = 0xffff;
/// Queue pair of the connection manager, its key, and its opcode (UD SEND only).
const CM_QPN: u32 = 1;
const CM_QKEY: u32 = 0x8001_0000;
const UD_SEND_ONLY: u8 = 0x64;

/// A packet as it goes into the file.
#[derive(Debug)]
pub(super) struct Frame {
    /// What is kept of it.
    pub(super) bytes: Vec<u8>,
    /// What the network would have carried.
    pub(super) original_len: u32,
}

/// One end of a connection, as the network names it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Station {
    pub(super) ip: IpAddr,
    /// Last byte of its MAC address, and its LID.
    pub(super) number: u8,
}

/// From whom to whom.
#[derive(Clone, Copy, Debug)]
pub(super) struct Way {
    pub(super) framing: Framing,
    pub(super) from: Station,
    pub(super) to: Station,
    /// UDP source port: the same for all packets of a connection.
    pub(super) udp_port: u16,
}

/// The base transport header's variable fields.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bth {
    pub(super) opcode: u8,
    pub(super) solicited: bool,
    pub(super) qpn: u32,
    pub(super) psn: u32,
}

/// A packet's payload, of which the end may be missing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) len: usize,
}

impl Way {
    /// A packet of the reliable connection: `ext` holds the extended transport headers.
    pub(super) fn reliable(&self, bth: Bth, ext: &[u8], piece: Piece<'_>) -> Frame {
        let pad = piece.len.wrapping_neg() & 3;
        let mut packet = Vec::with_capacity(12 + ext.len() + piece.bytes.len() + 8);
        push_bth(&mut packet, bth, pad);
        packet.extend_from_slice(ext);
        packet.extend_from_slice(piece.bytes);
        let mut len = packet.len();
        if piece.bytes.len() == piece.len {
            packet.resize(len + pad + ICRC_LEN, 0);
            len = packet.len();
        } else {
            len += piece.len - piece.bytes.len() + pad + ICRC_LEN;
        }
        self.frame(&packet, len)
    }

    /// A datagram of the connection manager.
    pub(super) fn datagram(&self, mad: &[u8]) -> Frame {
        let mut packet = Vec::with_capacity(24 + mad.len());
        let bth = Bth {
            opcode: UD_SEND_ONLY,
            solicited: false,
            qpn: CM_QPN,
            psn: 0,
        };
        push_bth(&mut packet, bth, 0);
        packet.extend_from_slice(&CM_QKEY.to_be_bytes());
        packet.extend_from_slice(&CM_QPN.to_be_bytes());
        packet.extend_from_slice(mad);
        packet.extend_from_slice(&[0; ICRC_LEN]);
        self.frame(&packet, packet.len())
    }

    /// Puts a transport packet of `len` bytes, of which `packet` is the beginning, into a frame.
    fn frame(&self, packet: &[u8], len: usize) -> Frame {
        let mut bytes = match self.framing {
            Framing::RoceV2 => self.ethernet_to_udp(length(len)),
            Framing::Infiniband => self.erf_to_lrh(length(len)),
        };
        let mut original_len = bytes.len() + len;
        bytes.extend_from_slice(packet);
        if self.framing == Framing::Infiniband {
            // The variant CRC, and the record's own padding.
            original_len = (original_len + 2).next_multiple_of(8);
            if packet.len() == len {
                bytes.resize(original_len, 0);
            }
            let record_len = length(bytes.len()).to_be_bytes();
            bytes[ERF_LEN_AT..ERF_LEN_AT + 2].copy_from_slice(&record_len);
        }
        Frame {
            bytes,
            original_len: u32::try_from(original_len).unwrap_or(u32::MAX),
        }
    }

    fn ethernet_to_udp(&self, len: u16) -> Vec<u8> {
        let mut out = Vec::with_capacity(128);
        for station in [self.to, self.from] {
            out.extend_from_slice(&[0x02, 0x53, 0x44, 0x50, 0, station.number]);
        }
        let udp_len = len + 8;
        match (self.from.ip, self.to.ip) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                out.extend_from_slice(&0x0800u16.to_be_bytes());
                let start = out.len();
                out.extend_from_slice(&[0x45, 0]);
                out.extend_from_slice(&(udp_len + 20).to_be_bytes());
                // No fragments, 64 hops, UDP; the checksum follows below.
                out.extend_from_slice(&[0, 0, 0x40, 0, 64, 17, 0, 0]);
                out.extend_from_slice(&from.octets());
                out.extend_from_slice(&to.octets());
                let checksum = ip_checksum(&out[start..]);
                out[start + 10..start + 12].copy_from_slice(&checksum.to_be_bytes());
            }
            (from, to) => {
                out.extend_from_slice(&0x86ddu16.to_be_bytes());
                out.extend_from_slice(&[0x60, 0, 0, 0]);
                out.extend_from_slice(&udp_len.to_be_bytes());
                out.extend_from_slice(&[17, 64]);
                for ip in [from, to] {
                    out.extend_from_slice(&gid(ip));
                }
            }
        }
        for field in [self.udp_port, ROCE_PORT, udp_len, 0] {
            out.extend_from_slice(&field.to_be_bytes());
        }
        out
    }

    fn erf_to_lrh(&self, len: u16) -> Vec<u8> {
        let wire_len = len + 10;
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let fraction = (u64::from(now.subsec_nanos()) << 32) / 1_000_000_000;
        let mut out = Vec::with_capacity(32);
        out.extend_from_slice(&(now.as_secs() << 32 | fraction).to_le_bytes());
        // Type InfiniBand, records of varying length.
        out.extend_from_slice(&[21, 4]);
        // The record's length is known when it is whole; nothing was lost.
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&wire_len.to_be_bytes());
        // LRH: no global route header follows; the length counts words up to the ICRC.
        out.extend_from_slice(&[0, 2]);
        out.extend_from_slice(&u16::from(self.to.number).to_be_bytes());
        out.extend_from_slice(&((len + 8) / 4).to_be_bytes());
        out.extend_from_slice(&u16::from(self.from.number).to_be_bytes());
        out
    }
}

/// A packet's length in the 16 bits that networks have for it.
fn length(len: usize) -> u16 {
    assert!(
        len <= SEND_PACKET_MAX + 256,
        "packets are split before they are framed"
    );
    u16::try_from(len).unwrap_or(u16::MAX)
}

fn push_bth(out: &mut Vec<u8>, bth: Bth, pad: usize) {
    let pad = u8::try_from(pad).unwrap_or(0);
    // Migrated: the path is the one the connection was made with.
    out.extend_from_slice(&[bth.opcode, u8::from(bth.solicited) << 7 | 0x40 | pad << 4]);
    out.extend_from_slice(&PKEY.to_be_bytes());
    out.extend_from_slice(&(bth.qpn & 0xff_ffff).to_be_bytes());
    // The top bit asks for an acknowledgement.
    out.extend_from_slice(&(0x8000_0000 | bth.psn & 0xff_ffff).to_be_bytes());
}

/// An address as InfiniBand and IPv6 write it.
pub(super) fn gid(ip: IpAddr) -> [u8; 16] {
    let v6: Ipv6Addr = match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    v6.octets()
}

fn ip_checksum(header: &[u8]) -> u16 {
    let mut sum: u32 = header
        .chunks_exact(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    // At most 16 bits are left.
    !u16::try_from(sum).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(framing: Framing, ip: &str) -> Way {
        let station = |number| Station {
            ip: ip.parse().unwrap(),
            number,
        };
        Way {
            framing,
            from: station(1),
            to: station(2),
            udp_port: 0xc000,
        }
    }

    const BTH: Bth = Bth {
        opcode: 4,
        solicited: true,
        qpn: 0x12,
        psn: 0x34,
    };

    /// Byte for byte, with the checksum of the IP header worked out by hand.
    #[test]
    fn a_send_over_ipv4() {
        let piece = Piece {
            bytes: b"hello",
            len: 5,
        };
        let frame = way(Framing::RoceV2, "10.0.0.1").reliable(BTH, &[], piece);
        let expected: [&[u8]; 6] = [
            &[2, 0x53, 0x44, 0x50, 0, 2, 2, 0x53, 0x44, 0x50, 0, 1, 8, 0],
            &[0x45, 0, 0, 52, 0, 0, 0x40, 0, 64, 17, 0x26, 0xb8],
            &[10, 0, 0, 1, 10, 0, 0, 1],
            &[0xc0, 0, 0x12, 0xb7, 0, 32, 0, 0],
            &[4, 0xf0, 0xff, 0xff, 0, 0, 0, 0x12, 0x80, 0, 0, 0x34],
            b"hello\0\0\0\0\0\0\0",
        ];
        assert_eq!(frame.bytes, expected.concat());
        assert_eq!(frame.original_len as usize, frame.bytes.len());
    }

    /// What is cut away still counts in every length.
    #[test]
    fn a_cut_packet_keeps_its_lengths() {
        for framing in [Framing::RoceV2, Framing::Infiniband] {
            for ip in ["10.0.0.1", "::1"] {
                let whole = Piece {
                    bytes: &[7; 1001],
                    len: 1001,
                };
                let cut = Piece {
                    bytes: &[7; 10],
                    len: 1001,
                };
                let whole = way(framing, ip).reliable(BTH, &[1; 16], whole);
                let cut = way(framing, ip).reliable(BTH, &[1; 16], cut);
                assert_eq!(whole.original_len, cut.original_len);
                assert_eq!(whole.bytes.len(), whole.original_len as usize);
                // Not the time and the record's length at the front of a record.
                assert_eq!(whole.bytes[12..cut.bytes.len()], cut.bytes[12..]);
            }
        }
    }

    /// The largest packet fits its 16-bit lengths.
    #[test]
    fn the_largest_packet() {
        let bytes = vec![0; SEND_PACKET_MAX];
        let piece = Piece {
            bytes: &bytes,
            len: SEND_PACKET_MAX,
        };
        let frame = way(Framing::RoceV2, "::1").reliable(BTH, &[0; 28], piece);
        assert!(frame.original_len < 65_536);
    }
}
