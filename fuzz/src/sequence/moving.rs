//! The other queue pair of a connection that moves.

use sdp_core::CmInput;
use sdp_wire::{HELLO_ACK_LEN, HELLO_LEN, HelloAck, Version};

use super::{BUFS, Bytes, PORT, World, hello};

/// The engine gets a new queue pair, if it has left its old one: the peer calls, or is called. What
/// it says may have a wrong byte.
pub(super) fn resume(world: &mut World, input: &mut Bytes<'_>) {
    let Some(call) = world.left else { return };
    world.flush();
    let now = world.instant();
    // Not the number of receives: what follows is checked against it.
    let (at, by) = (8 + usize::from(input.u8()), input.u8() & 0x11);
    let spoil = |bytes: &mut [u8]| {
        if let Some(byte) = bytes.get_mut(at) {
            *byte ^= by;
        }
    };
    match call {
        Some(service_id) => {
            world.begin_anew(false);
            world.conn.handle_path(now, 1, None, None);
            world.drain();
            let ack = HelloAck {
                bufs: BUFS,
                version: Version::V2_2,
                adverts_max: 4,
                actual_recv_size: 4096,
                invalidate_cap: true,
            };
            let mut bytes = [0; HELLO_ACK_LEN];
            ack.encode(&mut bytes);
            sdp_wire::mark_resuming(&mut bytes, service_id);
            spoil(&mut bytes);
            let response = CmInput::Response(&bytes);
            world.conn.handle_cm(now, response);
        }
        None => {
            let mut bytes = [0; HELLO_LEN];
            hello(4).encode(&mut bytes);
            sdp_wire::mark_resuming(&mut bytes, PORT);
            spoil(&mut bytes);
            if world.conn.handle_call(now, &bytes).is_err() {
                return;
            }
            world.begin_anew(true);
            world.drain();
            world.conn.handle_cm(now, CmInput::Established);
        }
    }
}

impl World {
    /// Everything that is of the old queue pair is gone. On the new one the engine is called, or calls.
    fn begin_anew(&mut self, is_called: bool) {
        self.reopen(is_called);
        self.left = None;
        self.posted.clear();
        (self.mseq, self.seen, self.sent) = (1, 0, 0);
        self.limit = u32::from(BUFS);
    }
}
