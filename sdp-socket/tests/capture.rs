//! `SDP_CAPTURE`: what the file has is what was said.

#[allow(
    dead_code,
    reason = "each test program uses its own part of what they share"
)]
mod common;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use pcap_file::pcapng::{Block, PcapNgReader};
use sdp_socket::{Builder, SdpBuffer, SdpListener, SdpStream, ZcopyThreshold};
use sdp_wire::{BSDH_LEN, Carrier, HEAD_LEN_MAX, Head, Hello, HelloAck, Mid};

use common::child::{Child, play, say};
use common::net::Stream;
use common::watch::{actor, on_threads, watched};

/// Where packets have what this test looks at: behind Ethernet, IPv4 and UDP, and in a management
/// datagram.
const BTH_AT: usize = 42;
const QPN_AT: usize = BTH_AT + 5;
const MESSAGE_AT: usize = BTH_AT + 12;
const KEY_LEN: usize = 4;
const MAD_AT: usize = BTH_AT + 20;
const REQ_PRIVATE_AT: usize = MAD_AT + 164;
const REP_PRIVATE_AT: usize = MAD_AT + 60;
const SERVICE_ID_AT: usize = MAD_AT + 32;

const SMALL: usize = 1000;
const LARGE: usize = 100_000;

#[test]
fn child() {
    play(|role| match role {
        "talks" => talks(),
        "cannot" => cannot(),
        other => panic!("no role {other:?}"),
    });
}

/// A small write, a large one out of registered memory, and an answer.
fn talks() {
    // However late the reader comes on a busy machine, it is waited for.
    let builder = Builder::new()
        .zcopy_threshold(ZcopyThreshold::Bytes(16 << 10))
        .rendezvous_wait(Duration::MAX);
    let listener = builder.bind("127.0.0.1:0").expect("bind");
    let addr = listener.local_addr().expect("local_addr");
    say(addr.port());
    let client = builder.connect(addr).expect("connect");
    let (server, _) = listener.accept().expect("accept");
    let mut large = SdpBuffer::new(LARGE).expect("memory");
    large.fill(0x5a);
    on_threads(vec![
        actor("client", || {
            client.put(&[0xa5; SMALL]);
            client.put(&large);
            client.get(&mut [0]);
        }),
        actor("server", || {
            server.get(&mut [0; SMALL]);
            server.get(&mut vec![0; LARGE]);
            server.put(b"!");
        }),
    ]);
}

fn cannot() {
    let error = SdpListener::bind("127.0.0.1:0").expect_err("the file exists");
    say(error);
    let error = SdpStream::connect("127.0.0.1:1").expect_err("the file exists");
    say(error);
}

fn temp(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("sdp-{}-{name}.pcapng", std::process::id()))
}

/// The packets of a file, and what each had cut away.
fn packets(path: &PathBuf) -> Vec<(Vec<u8>, usize)> {
    let mut reader = PcapNgReader::new(File::open(path).expect("open")).expect("a section");
    let mut packets = Vec::new();
    while let Some(block) = reader.next_block() {
        if let Block::EnhancedPacket(packet) = block.expect("a whole block") {
            let cut = packet.original_len as usize - packet.data.len();
            packets.push((packet.data.into_owned(), cut));
        }
    }
    packets
}

/// Runs the child and gives its packets, and the port it listened on.
fn captured(name: &str, payload: &str) -> (Vec<(Vec<u8>, usize)>, u16) {
    let path = temp(name);
    let text = path.to_str().expect("UTF-8");
    let environment = [("SDP_CAPTURE", text), ("SDP_CAPTURE_PAYLOAD", payload)];
    let mut child = Child::start_in("talks", &environment);
    let port = child.hear().parse().expect("a port");
    child.finish();
    assert_eq!(fs::metadata(&path).expect("stat").mode() & 0o777, 0o600);
    let packets = packets(&path);
    fs::remove_file(&path).expect("remove");
    (packets, port)
}

/// Both ends are in the file. The messages of each direction decode, are numbered without a gap,
/// and carry every byte that was not read by RDMA; the handshake has its service ID.
#[test]
fn all_messages_with_all_bytes() {
    watched(|| {
        let (packets, port) = captured("all", "all");
        let mut next: BTreeMap<u32, u32> = BTreeMap::new();
        let mut kinds: BTreeMap<Mid, usize> = BTreeMap::new();
        let (mut sent, mut read) = (0, 0);
        for (bytes, cut) in &packets {
            assert_eq!(*cut, 0);
            let message = match bytes[BTH_AT] {
                0x64 => {
                    judge_cm(bytes, port, &mut kinds);
                    continue;
                }
                // An RDMA READ's answer: first, middle, last, only.
                0x0d..=0x10 => {
                    read += bytes[MESSAGE_AT..]
                        .iter()
                        .filter(|byte| **byte == 0x5a)
                        .count();
                    continue;
                }
                0x0c => continue,
                0x04 => &bytes[MESSAGE_AT..],
                0x17 => &bytes[MESSAGE_AT + KEY_LEN..],
                other => panic!("opcode {other:#x}"),
            };
            let len = u32::from_be_bytes(message[4..8].try_into().expect("four")) as usize;
            let head = Head::decode(&message[..len.min(HEAD_LEN_MAX)], len).expect("a message");
            *kinds.entry(head.body.mid()).or_default() += 1;
            let payload = &message[head.body.head_len()..len];
            sent += payload.iter().filter(|byte| **byte != b'!').count();
            let qpn = u32::from_be_bytes(bytes[QPN_AT - 1..QPN_AT + 3].try_into().expect("four"));
            let mseq = next.entry(qpn & 0xff_ffff).or_insert(1);
            assert_eq!(head.mseq, *mseq, "{head} to {qpn:#x}");
            *mseq += 1;
        }
        // Each end shows both directions.
        assert_eq!(next.len(), 4);
        assert_eq!(sent + 2 * read, 2 * (SMALL + LARGE));
        assert!(read >= LARGE * 9 / 10, "{read} bytes read");
        for mid in [Mid::Data, Mid::SrcAvail, Mid::RdmaRdCompl, Mid::DisConn] {
            assert!(kinds.contains_key(&mid), "{kinds:?}");
        }
        assert_eq!((kinds[&Mid::Hello], kinds[&Mid::HelloAck]), (2, 2));
    });
}

fn judge_cm(bytes: &[u8], port: u16, kinds: &mut BTreeMap<Mid, usize>) {
    match bytes[MAD_AT + 17] {
        0x10 => {
            let id = bytes[SERVICE_ID_AT..SERVICE_ID_AT + 8].try_into();
            assert_eq!(
                u64::from_be_bytes(id.expect("eight")),
                0x1_0000 | u64::from(port)
            );
            let private = &bytes[REQ_PRIVATE_AT..REQ_PRIVATE_AT + 92];
            Hello::decode(private, Carrier::Whole).expect("a Hello");
            *kinds.entry(Mid::Hello).or_default() += 1;
        }
        0x13 => {
            HelloAck::decode(&bytes[REP_PRIVATE_AT..REP_PRIVATE_AT + 196]).expect("a HelloAck");
            *kinds.entry(Mid::HelloAck).or_default() += 1;
        }
        0x14..=0x16 => {}
        other => panic!("attribute {other:#x}"),
    }
}

/// Headers are whole however little payload is asked for, and payload is not there.
#[test]
fn no_payload_at_all() {
    watched(|| {
        let (packets, _) = captured("none", "0");
        assert!(packets.iter().any(|(_, cut)| *cut >= SMALL));
        for (bytes, _) in &packets {
            if bytes[BTH_AT] == 0x04 {
                let message = &bytes[MESSAGE_AT..];
                let mid = Mid::try_from(message[0]).expect("a message");
                // A message without payload is there to its last byte, with padding and ICRC.
                let len = if mid.takes_payload() {
                    mid.head_len()
                } else {
                    BSDH_LEN
                };
                assert!(message.len() >= len, "{mid:?}");
            }
            for pattern in [[0xa5; 4], [0x5a; 4]] {
                assert!(!bytes.windows(4).any(|window| window == pattern));
            }
        }
    });
}

/// A file that exists is not touched: the call that would open the provider fails and says what
/// to do.
#[test]
fn an_existing_file_is_an_error() {
    watched(|| {
        let path = temp("exists");
        fs::write(&path, b"precious").expect("write");
        let text = path.to_str().expect("UTF-8");
        let mut child = Child::start_in("cannot", &[("SDP_CAPTURE", text)]);
        for _ in 0..2 {
            let said = child.hear();
            assert!(said.contains(text) && said.contains("%p"), "{said}");
        }
        child.finish();
        assert_eq!(fs::read(&path).expect("read"), b"precious");
        fs::remove_file(&path).expect("remove");
    });
}
