//! The raw view shows what is there and judges none of it.

use sdp_wire::raw::{Bsdh, HelloHeader, SinkAvailHeader};
use sdp_wire::{HELLO_LEN, Message};
use zerocopy::FromBytes;

/// Bytes that count up, so that each field shows its own offset.
fn counting() -> [u8; HELLO_LEN] {
    std::array::from_fn(|at| u8::try_from(at).unwrap_or(u8::MAX))
}

#[test]
fn fields_are_big_endian_at_their_offsets() {
    let bytes = counting();
    let (bsdh, ext) = Bsdh::ref_from_prefix(&bytes).expect("92 bytes hold a BSDH");
    assert_eq!(
        (bsdh.mid, bsdh.flags, bsdh.bufs.get()),
        (0x00, 0x01, 0x0203)
    );
    assert_eq!(bsdh.len.get(), 0x0405_0607);
    assert_eq!(bsdh.mseq.get(), 0x0809_0A0B);
    assert_eq!(bsdh.mseq_ack.get(), 0x0C0D_0E0F);

    let (hello, rest) = HelloHeader::ref_from_prefix(ext).expect("76 bytes are a Hello header");
    assert!(rest.is_empty());
    assert_eq!((hello.start.version, hello.start.ipv_cap), (16, 17));
    assert_eq!((hello.start.reserved_18, hello.start.max_adverts), (18, 19));
    assert_eq!(hello.start.des_rem_rcv_sz.get(), 0x1415_1617);
    assert_eq!(hello.start.local_rcv_sz.get(), 0x1819_1A1B);
    assert_eq!(hello.start.local_port.get(), 0x1C1D);
    assert_eq!((hello.src_ip[0], hello.dst_ip[0]), (32, 48));
    assert_eq!(hello.ext_max_adverts.get(), 0x4243);
}

#[test]
fn any_alignment_will_do() {
    let bytes = counting();
    for start in 0..8 {
        let (sink, _) = SinkAvailHeader::ref_from_prefix(&bytes[start..]).expect("long enough");
        assert_eq!(sink.non_discards.to_bytes()[0], bytes[start + 16]);
    }
}

#[test]
fn what_a_decoder_refuses_can_still_be_looked_at() {
    let bytes = [0xEE; 16];
    assert!(Message::decode(&bytes).is_err());
    let (bsdh, _) = Bsdh::ref_from_prefix(&bytes).expect("16 bytes hold a BSDH");
    assert_eq!((bsdh.mid, bsdh.flags), (0xEE, 0xEE));
}
