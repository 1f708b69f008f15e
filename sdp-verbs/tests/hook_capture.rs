//! `hook::Capture` writes the packets of what was done, and no more than it was asked for.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Arc, mpsc};

use pcap_file::pcapng::{Block, PcapNgReader};
use sdp_verbs::Provider;
use sdp_verbs::conformance::role;
use sdp_verbs::hook::{Capture, CaptureFile, CaptureOptions};
use sdp_verbs::host::HostProvider;

/// Bytes that the cases move in one READ or WRITE.
const SHOWN: usize = 150_000;
/// Bytes before the transport header: Ethernet, IPv4, UDP.
const NETWORK_LEN: usize = 42;
/// Opcode of a message of the connection manager, and where it has its attribute.
const UD_SEND_ONLY: u8 = 0x64;
const ATTRIBUTE_AT: usize = 20 + 16 + 1;

/// One packet: what is kept behind the network's headers, and the length it had.
#[derive(Debug)]
struct Packet {
    bytes: Vec<u8>,
    original_len: usize,
}

impl Packet {
    fn opcode(&self) -> u8 {
        self.bytes[0]
    }

    fn psn(&self) -> u32 {
        u32::from_be_bytes([0, self.bytes[9], self.bytes[10], self.bytes[11]])
    }
}

fn temp(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("sdp-hook-{}-{name}.pcapng", std::process::id()));
    // A run that was killed may have left it, whose process had the same number.
    let _ = fs::remove_file(&path);
    path
}

/// Runs a case, the connecting side captured, and gives its packets and, if the file says that it
/// is full, its length.
fn captured(case: &str, options: CaptureOptions) -> (Vec<Packet>, Option<u64>) {
    let path = temp(case);
    let file = Arc::new(CaptureFile::create(&path, options).expect("a new file"));
    let host = || -> Arc<dyn Provider> { Arc::new(HostProvider::open().expect("the provider")) };
    let (active, passive): (Arc<dyn Provider>, _) = (Arc::new(Capture::new(host(), &file)), host());
    let (tell, told) = mpsc::channel();
    std::thread::scope(|scope| {
        let listening = scope.spawn(|| {
            let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
            role::passive(&passive, address, case, |addr| {
                tell.send(addr).expect("somebody to tell");
            })
        });
        let addr = told.recv().expect("an address");
        role::active(&active, addr, case).expect("the connecting side");
        let listened = listening.join().expect("the listening thread");
        listened.expect("the listening side");
    });
    let mut reader = PcapNgReader::new(File::open(&path).expect("open")).expect("a section");
    let (mut packets, mut full) = (Vec::new(), None);
    while let Some(block) = reader.next_block() {
        match block.expect("a whole block") {
            Block::EnhancedPacket(packet) => packets.push(Packet {
                bytes: packet.data[NETWORK_LEN..].to_vec(),
                original_len: packet.original_len as usize - NETWORK_LEN,
            }),
            Block::InterfaceStatistics(_) => full = Some(fs::metadata(&path).expect("stat").len()),
            _ => {}
        }
    }
    fs::remove_file(&path).expect("remove");
    (packets, full)
}

fn count(packets: &[Packet]) -> BTreeMap<u8, usize> {
    packets.iter().fold(BTreeMap::new(), |mut counts, packet| {
        *counts.entry(packet.opcode()).or_default() += 1;
        counts
    })
}

fn everything() -> CaptureOptions {
    CaptureOptions {
        payload_max: usize::MAX,
        ..CaptureOptions::default()
    }
}

/// Only its owner may read it, and an existing file is left alone.
#[test]
fn the_file_is_new_and_private() {
    let path = temp("private");
    let file = CaptureFile::create(&path, CaptureOptions::default()).expect("a new file");
    assert_eq!(
        fs::metadata(file.path()).expect("stat").mode() & 0o777,
        0o600
    );
    let again = CaptureFile::create(&path, CaptureOptions::default());
    assert_eq!(again.unwrap_err().kind(), ErrorKind::AlreadyExists);
    fs::remove_file(&path).expect("remove");
}

/// 500 messages each way, between the exchange that makes the connection and the one that ends
/// it; the bytes are those that were sent, in order.
#[test]
fn messages() {
    let (packets, full) = captured("echo", everything());
    let managed: Vec<u8> = packets
        .iter()
        .filter(|p| p.opcode() == UD_SEND_ONLY)
        .map(|p| p.bytes[ATTRIBUTE_AT])
        .collect();
    assert_eq!(managed[..3], [0x10, 0x13, 0x14], "REQ, REP, RTU");
    assert_eq!(managed[3], 0x15, "DREQ");
    let sends: Vec<&Packet> = packets.iter().filter(|p| p.opcode() == 4).collect();
    assert_eq!(sends.len(), 1000);
    for (at, pair) in sends.chunks(2).enumerate() {
        for packet in pair {
            assert_eq!(packet.psn() as usize, at);
            assert_eq!(packet.bytes.len(), packet.original_len);
        }
        // The answer repeats the question.
        assert_eq!(pair[0].bytes[12..], pair[1].bytes[12..]);
    }
    assert_eq!(full, None);
}

/// A READ shows its request, and the bytes that came; one that fails shows its request only.
#[test]
fn reads() {
    let (packets, _) = captured("read_what_the_message_names", everything());
    let counts = count(&packets);
    assert_eq!(counts.get(&0x0c), Some(&21), "requests: {counts:?}");
    for (opcode, count) in [(0x0d, 20), (0x0e, 35 * 20), (0x0f, 20)] {
        assert_eq!(counts.get(&opcode), Some(&count), "{opcode:#x}: {counts:?}");
    }
    let request = packets.iter().find(|p| p.opcode() == 0x0c).expect("one");
    assert_eq!(request.bytes[24..28], u32::to_be_bytes(150_000));
    let mut responses = packets
        .iter()
        .filter(|p| (0x0d..0x10).contains(&p.opcode()));
    let first = [(); 37].map(|()| responses.next().expect("a packet"));
    let psns = first.map(|packet| packet.psn() - request.psn());
    assert!(psns.into_iter().eq(0..37));
    // Without transport headers, the two AETHs, and ICRCs.
    let len: usize = first.iter().map(|p| p.original_len - 12 - 4).sum();
    assert_eq!(len - 2 * 4, SHOWN);
}

/// A WRITE is split as an adapter would split it.
#[test]
fn writes() {
    let (packets, _) = captured("write_before_the_message", everything());
    let counts = count(&packets);
    for (opcode, count) in [(0x06, 20), (0x07, 35 * 20), (0x08, 20)] {
        assert_eq!(counts.get(&opcode), Some(&count), "{opcode:#x}: {counts:?}");
    }
}

/// Of a long transfer only the first bytes are written, and of a message its head in full.
#[test]
fn payload_is_cut() {
    let options = CaptureOptions {
        payload_max: 8,
        head_len: |head| {
            assert!(head.len() <= 64);
            2
        },
        ..CaptureOptions::default()
    };
    let (packets, _) = captured("write_before_the_message", options);
    let counts = count(&packets);
    assert_eq!((counts.get(&0x06), counts.get(&0x07)), (Some(&20), None));
    let write = packets.iter().find(|p| p.opcode() == 0x06).expect("one");
    assert_eq!(write.bytes.len(), 12 + 16 + 8);
    assert!(write.original_len > 4096);
    let send = packets.iter().find(|p| p.opcode() == 4).expect("a message");
    assert_eq!(send.bytes.len(), 12 + 2 + 8);
    assert!(send.original_len > send.bytes.len());
}

/// A SEND that invalidates shows the key, both ways.
#[test]
fn invalidations() {
    let (packets, _) = captured("invalidated_by_the_answer", everything());
    assert_eq!(count(&packets).get(&0x17), Some(&20));
}

/// The file stops growing, and says that it has.
#[test]
fn the_size_is_bounded() {
    let options = CaptureOptions {
        file_len_max: 10_000,
        ..CaptureOptions::default()
    };
    let (packets, full) = captured("stream_one_way", options);
    assert!(packets.len() > 10);
    let len = full.expect("the block that says it is full");
    assert!((9_000..=10_000).contains(&len), "{len} bytes");
}
