//! A C program that uses the sockets of libsdp in any order: open ones, closed ones, and numbers
//! that it made up. Pointers are good; nothing ever blocks.
//!
//! What must hold: no crash; every call but the ones that only look returns or fails with an
//! errno; a closed or made-up number is EBADF, whatever the call.

use std::ffi::{c_int, c_void};
use std::mem::{size_of, zeroed};

use libc::{sockaddr, sockaddr_in, socklen_t};
use sdp::{
    sdp_accept, sdp_alloc, sdp_bind, sdp_close, sdp_connect, sdp_fileno, sdp_free, sdp_getpeername,
    sdp_getsockname, sdp_getsockopt, sdp_listen, sdp_recv, sdp_send, sdp_set_nonblocking,
    sdp_setsockopt, sdp_shutdown, sdp_socket,
};

#[path = "input.rs"]
mod input;

use input::Bytes;

/// Steps of one execution.
const STEPS_MAX: usize = 64;
/// Sockets open at once.
const OPEN_MAX: usize = 8;
/// Bytes of a call at most.
const CALL_MAX: usize = 4096;
/// Room for the value of an option, or an address.
const VALUE_MAX: usize = 256;

impl Bytes<'_> {
    fn u16(&mut self) -> u16 {
        u16::from_le_bytes([self.u8(), self.u8()])
    }

    fn number(&mut self) -> c_int {
        match self.u8() {
            0..=199 => c_int::from(self.u8()),
            _ => c_int::from_le_bytes([self.u8(), self.u8(), self.u8(), self.u8()]),
        }
    }
}

/// The program's variables.
struct Program {
    open: Vec<c_int>,
    closed: Vec<c_int>,
    /// Where its last listener listens.
    listening: Option<sockaddr_in>,
    memory: Vec<*mut c_void>,
    buffer: Box<[u8; CALL_MAX]>,
}

/// One execution.
pub(crate) fn run(bytes: &[u8]) {
    let mut program = Program {
        open: Vec::new(),
        closed: Vec::new(),
        listening: None,
        memory: Vec::new(),
        buffer: Box::new([0x5a; CALL_MAX]),
    };
    Bytes::new(bytes).steps(STEPS_MAX, |input| program.step(input));
    program.end();
}

fn errno() -> c_int {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

fn loopback(port: u16) -> sockaddr_in {
    // SAFETY: all zeros is a sockaddr_in.
    let mut address: sockaddr_in = unsafe { zeroed() };
    address.sin_family = libc::AF_INET.try_into().expect("a small number");
    address.sin_addr.s_addr = u32::from_ne_bytes([127, 0, 0, 1]);
    address.sin_port = port.to_be();
    address
}

const ADDRESS_LEN: socklen_t = 16;
const _: () = assert!(size_of::<sockaddr_in>() == 16);

impl Program {
    /// A socket: mostly an open one.
    fn pick(&self, input: &mut Bytes<'_>) -> c_int {
        let (kind, at) = (input.u8(), usize::from(input.u8()));
        let list = if kind & 7 == 7 {
            &self.closed
        } else {
            &self.open
        };
        match list.get(at % list.len().max(1)) {
            Some(socket) if kind & 0x78 == 0x78 => socket ^ 1 << (at & 15),
            Some(socket) => *socket,
            None => input.number(),
        }
    }

    fn step(&mut self, input: &mut Bytes<'_>) {
        if self.open.len() < OPEN_MAX && input.u8() & 3 == 0 {
            self.open_one(input);
            return;
        }
        let socket = self.pick(input);
        let is_open = self.open.contains(&socket);
        let result = self.call(socket, input);
        if result < 0 {
            let why = errno();
            assert!(why > 0, "a failure without errno");
            assert!(
                is_open || why == libc::EBADF,
                "errno {why} of {socket}, which is not open"
            );
        } else {
            assert!(is_open, "{result} of {socket}, which is not open");
        }
    }

    fn open_one(&mut self, input: &mut Bytes<'_>) {
        let domain = match input.u8() & 7 {
            0 => input.number(),
            1 => libc::AF_INET6,
            _ => libc::AF_INET,
        };
        let socket = sdp_socket(domain, libc::SOCK_STREAM, 0);
        if socket >= 0 {
            assert_eq!(sdp_set_nonblocking(socket, 1), 0);
            self.adopt(socket);
        }
    }

    fn adopt(&mut self, socket: c_int) {
        assert!(!self.open.contains(&socket), "{socket} was given out twice");
        self.closed.retain(|closed| *closed != socket);
        self.open.push(socket);
    }

    fn call(&mut self, socket: c_int, input: &mut Bytes<'_>) -> isize {
        let small = |result: c_int| isize::try_from(result).expect("an isize holds an int");
        match input.u8() % 14 {
            0 => small(self.close(socket)),
            1 => small(bind(socket, &loopback(0))),
            2 => small(self.listen(socket, input.number())),
            3 => {
                let address = self.listening.unwrap_or_else(|| loopback(input.u16()));
                // SAFETY: the address is that long.
                small(unsafe { sdp_connect(socket, (&raw const address).cast(), ADDRESS_LEN) })
            }
            4 => small(self.accept(socket)),
            5 | 6 => self.send(socket, input),
            7 | 8 => self.recv(socket, input),
            9 => small(sdp_shutdown(socket, input.number())),
            10 => small(self.option(socket, input)),
            11 => small(name(socket, input.u8() & 1 == 1)),
            12 => small(sdp_fileno(socket)),
            _ => {
                self.memory(input);
                small(sdp_set_nonblocking(socket, 1))
            }
        }
    }

    fn close(&mut self, socket: c_int) -> c_int {
        let result = sdp_close(socket);
        if result == 0 {
            self.open.retain(|open| *open != socket);
            self.closed.push(socket);
        }
        result
    }

    fn listen(&mut self, socket: c_int, backlog: c_int) -> c_int {
        let result = sdp_listen(socket, backlog);
        if result == 0 {
            let mut address = loopback(0);
            let mut len = ADDRESS_LEN;
            // SAFETY: the address is that long.
            let named = unsafe { sdp_getsockname(socket, (&raw mut address).cast(), &raw mut len) };
            self.listening = (named == 0 && len == ADDRESS_LEN).then_some(address);
        }
        result
    }

    fn accept(&mut self, socket: c_int) -> c_int {
        // SAFETY: it is not asked for the address.
        let accepted = unsafe { sdp_accept(socket, std::ptr::null_mut(), std::ptr::null_mut()) };
        if accepted >= 0 {
            sdp_set_nonblocking(accepted, 1);
            self.adopt(accepted);
        }
        accepted
    }

    fn send(&mut self, socket: c_int, input: &mut Bytes<'_>) -> isize {
        let len = usize::from(input.u16()) % (CALL_MAX + 1);
        let flags = input.number() | libc::MSG_NOSIGNAL;
        // SAFETY: the buffer is at least that long.
        unsafe { sdp_send(socket, self.buffer.as_ptr().cast(), len, flags) }
    }

    fn recv(&mut self, socket: c_int, input: &mut Bytes<'_>) -> isize {
        let len = usize::from(input.u16()) % (CALL_MAX + 1);
        let flags = input.number();
        // SAFETY: the buffer is at least that long.
        unsafe { sdp_recv(socket, self.buffer.as_mut_ptr().cast(), len, flags) }
    }

    fn option(&mut self, socket: c_int, input: &mut Bytes<'_>) -> c_int {
        let level = match input.u8() & 3 {
            0 => input.number(),
            1 => libc::IPPROTO_TCP,
            2 => sdp::SOL_SDP,
            _ => libc::SOL_SOCKET,
        };
        let name = input.number();
        let mut value = [0_u8; VALUE_MAX];
        let mut len = socklen_t::from(input.u8());
        if input.u8() & 1 == 0 {
            // SAFETY: the value is at least that long.
            return unsafe {
                sdp_getsockopt(socket, level, name, value.as_mut_ptr().cast(), &raw mut len)
            };
        }
        if name == libc::SO_LINGER {
            // A close that waits is no fault, and takes its time.
            return sdp_set_nonblocking(socket, 1);
        }
        value[..8].fill_with(|| input.u8());
        // SAFETY: as above.
        unsafe { sdp_setsockopt(socket, level, name, value.as_ptr().cast(), len) }
    }

    fn memory(&mut self, input: &mut Bytes<'_>) {
        if input.u8() & 1 == 0 && self.memory.len() < OPEN_MAX {
            let memory = sdp_alloc(usize::from(input.u16()));
            if !memory.is_null() {
                self.memory.push(memory);
            }
        } else if let Some(memory) = self.memory.pop() {
            // SAFETY: it came from sdp_alloc and is not used again.
            assert_eq!(unsafe { sdp_free(memory) }, 0);
        }
    }

    fn end(self) {
        for socket in &self.open {
            assert_eq!(sdp_close(*socket), 0, "{socket} is open");
            assert_eq!((sdp_close(*socket), errno()), (-1, libc::EBADF));
        }
        for memory in self.memory {
            // SAFETY: as in `memory`.
            assert_eq!(unsafe { sdp_free(memory) }, 0);
        }
    }
}

fn bind(socket: c_int, address: &sockaddr_in) -> c_int {
    // SAFETY: the address is that long.
    unsafe {
        sdp_bind(
            socket,
            std::ptr::from_ref(address).cast::<sockaddr>(),
            ADDRESS_LEN,
        )
    }
}

fn name(socket: c_int, of_peer: bool) -> c_int {
    let mut value = [0_u8; VALUE_MAX];
    let mut len: socklen_t = 128;
    let address: *mut sockaddr = value.as_mut_ptr().cast();
    let call = if of_peer {
        sdp_getpeername
    } else {
        sdp_getsockname
    };
    // SAFETY: the value is longer than that.
    unsafe { call(socket, address, &raw mut len) }
}
