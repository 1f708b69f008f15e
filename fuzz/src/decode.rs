//! Any bytes at all, to every decoder of sdp-wire: a value or an error, never a panic, and what
//! was decoded encodes to something that decodes to the same.

use sdp_wire::{
    Carrier, HEAD_LEN_MAX, HELLO_ACK_LEN, HELLO_LEN, Head, Hello, HelloAck, Message, ServiceId,
};

/// One execution.
pub(crate) fn run(bytes: &[u8]) {
    message(bytes);
    head(bytes);
    hello(bytes);
    hello_ack(bytes);
    if let Some((first, _)) = bytes.split_first_chunk() {
        let id = ServiceId::from_raw(u64::from_be_bytes(*first));
        assert!(
            id.port()
                .is_none_or(|port| ServiceId::from_port(port) == id)
        );
        assert!(!id.to_string().is_empty());
    }
}

fn message(bytes: &[u8]) {
    match Message::decode(bytes) {
        Ok(message) => {
            again(&message.head);
            assert_eq!(message.payload.len(), message.head.payload_len as usize);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// The head of a message of which the payload is not there.
fn head(bytes: &[u8]) {
    let Some((len, head)) = bytes.split_first_chunk() else {
        return;
    };
    let len = usize::from(u16::from_be_bytes(*len));
    if let Ok(head) = Head::decode(head, len) {
        again(&head);
        assert_eq!(head.len() as usize, len);
    }
}

fn again(head: &Head) {
    head.check()
        .expect("a decoder gives nothing it would not take");
    let mut out = [0; HEAD_LEN_MAX];
    let len = head.encode(&mut out);
    assert_eq!(len, head.body.head_len());
    let back = Head::decode(&out[..len], head.len() as usize);
    assert_eq!(back.as_ref(), Ok(head));
    assert!(!head.to_string().is_empty());
}

fn hello(bytes: &[u8]) {
    for carrier in [Carrier::Whole, Carrier::Compact] {
        match Hello::decode(bytes, carrier) {
            Ok(hello) => {
                hello
                    .check()
                    .expect("a decoder gives nothing it would not take");
                let mut out = [0; HELLO_LEN];
                let len = hello.encode(&mut out);
                assert_eq!(Hello::decode(&out[..len], carrier), Ok(hello));
                assert!(!hello.to_string().is_empty());
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
}

fn hello_ack(bytes: &[u8]) {
    if let Ok(ack) = HelloAck::decode(bytes) {
        ack.check()
            .expect("a decoder gives nothing it would not take");
        let mut out = [0; HELLO_ACK_LEN];
        ack.encode(&mut out);
        assert_eq!(HelloAck::decode(&out), Ok(ack));
        assert!(!ack.to_string().is_empty());
    }
}
