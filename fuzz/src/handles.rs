//! A C program that uses the sockets of libsdp in any order: open ones, closed ones, and numbers
//! that it made up. Pointers are good; nothing ever blocks.
//!
//! What must hold: no crash; every call but the ones that only look returns or fails with an
//! errno; a closed or made-up number is EBADF, whatever the call.

use std::ffi::{c_int, c_long, c_ulong, c_void};
use std::fs::File;
use std::mem::{size_of, zeroed};
use std::os::fd::AsRawFd;
use std::ptr::null_mut;

use libc::{iovec, mmsghdr, pollfd, sockaddr, sockaddr_in, socklen_t};
use sdp::{
    sdp_accept, sdp_accept4, sdp_alloc, sdp_bind, sdp_close, sdp_connect, sdp_fcntl, sdp_fileno,
    sdp_free, sdp_getpeername, sdp_getsockname, sdp_getsockopt, sdp_ioctl, sdp_listen, sdp_poll,
    sdp_read, sdp_recv, sdp_recvfrom, sdp_recvmmsg, sdp_recvmsg, sdp_send, sdp_sendfile,
    sdp_sendmmsg, sdp_sendmsg, sdp_sendto, sdp_set_nonblocking, sdp_setsockopt, sdp_shutdown,
    sdp_sockatmark, sdp_socket, sdp_write,
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
/// Pieces of a message, messages of a call, places of a poll.
const FEW: usize = 4;
/// Room for the value of an option, or an address.
const VALUE_MAX: usize = 256;

/// From here on a call is one of the second kind: the inputs kept before there was one mean what they
/// meant.
const OTHERS_MIN: u8 = 224;

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
    /// What files are sent from: zeros without end.
    file: File,
}

/// One execution.
pub(crate) fn run(bytes: &[u8]) {
    // SAFETY: to ignore a signal has no preconditions.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    let mut program = Program {
        open: Vec::new(),
        closed: Vec::new(),
        listening: None,
        memory: Vec::new(),
        buffer: Box::new([0x5a; CALL_MAX]),
        file: File::open("/dev/zero").expect("every system has it"),
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
        let call = input.u8();
        if call >= OTHERS_MIN {
            return self.other_call(socket, input);
        }
        match call % 14 {
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

    fn other_call(&mut self, socket: c_int, input: &mut Bytes<'_>) -> isize {
        let small = |result: c_int| isize::try_from(result).expect("an isize holds an int");
        let len = usize::from(input.u16()) % (CALL_MAX + 1);
        let flags = input.number();
        let buffer: *mut c_void = self.buffer.as_mut_ptr().cast();
        match input.u8() % 14 {
            // SAFETY: the buffer is at least that long.
            0 => unsafe { sdp_read(socket, buffer, len) },
            // SAFETY: as above.
            1 => unsafe { sdp_write(socket, buffer, len) },
            2 => {
                let to = loopback(input.u16());
                let (to, quiet) = ((&raw const to).cast(), flags | libc::MSG_NOSIGNAL);
                let to_len = input.number().cast_unsigned();
                // SAFETY: as above; the address is looked at for its length only.
                unsafe { sdp_sendto(socket, buffer, len, quiet, to, to_len) }
            }
            3 => {
                let mut from = loopback(0);
                let mut from_len = input.number().cast_unsigned();
                let from = (&raw mut from).cast();
                // SAFETY: as above; no address is written.
                unsafe { sdp_recvfrom(socket, buffer, len, flags, from, &raw mut from_len) }
            }
            4..=7 => self.messages(socket, flags, input),
            8 => small(self.accept_with(socket, flags)),
            9 => {
                let file = self.file.as_raw_fd();
                let mut offset = libc::off_t::from(input.number());
                let place = if input.u8() & 1 == 0 {
                    null_mut()
                } else {
                    offset = offset.max(0);
                    &raw mut offset
                };
                // SAFETY: the offset is ours.
                unsafe { sdp_sendfile(socket, file, place, len) }
            }
            10 => {
                let result = sdp_fcntl(socket, flags, c_long::from(input.number()));
                sdp_set_nonblocking(socket, 1);
                small(result)
            }
            11 => {
                let requests = [libc::FIONREAD, libc::TIOCOUTQ, libc::FIONBIO, 0x8905];
                let request = requests[usize::from(input.u8()) % requests.len()];
                let mut value = flags;
                // SAFETY: the value is an int.
                let result =
                    unsafe { sdp_ioctl(socket, request as c_ulong, (&raw mut value).cast()) };
                sdp_set_nonblocking(socket, 1);
                small(result)
            }
            12 => small(sdp_sockatmark(socket)),
            _ => {
                self.poll(input);
                small(sdp_set_nonblocking(socket, 1))
            }
        }
    }

    /// Up to four messages of up to four pieces, sent or received.
    fn messages(&mut self, socket: c_int, flags: c_int, input: &mut Bytes<'_>) -> isize {
        // SAFETY: all zeros is such a structure.
        let mut pieces: [iovec; FEW] = unsafe { zeroed() };
        for (piece, part) in pieces
            .iter_mut()
            .zip(self.buffer.chunks_mut(CALL_MAX / FEW))
        {
            piece.iov_base = part.as_mut_ptr().cast();
            piece.iov_len = usize::from(input.u16()) % (part.len() + 1);
        }
        // SAFETY: as above.
        let mut messages: [mmsghdr; FEW] = unsafe { zeroed() };
        for message in &mut messages {
            message.msg_hdr.msg_iov = pieces.as_mut_ptr();
            message.msg_hdr.msg_iovlen = (usize::from(input.u8()) % (FEW + 1)) as _;
            message.msg_hdr.msg_namelen = input.number().cast_unsigned();
        }
        let count = u32::from(input.u8() & 3);
        let one = &raw mut messages[0].msg_hdr;
        let all = messages.as_mut_ptr();
        let quiet = flags | libc::MSG_NOSIGNAL;
        let small = |result: c_int| isize::try_from(result).expect("an isize holds an int");
        match input.u8() & 3 {
            // SAFETY: every message has pieces of memory that is there, no two the same.
            0 => unsafe { sdp_sendmsg(socket, one, quiet) },
            // SAFETY: as above.
            1 => unsafe { sdp_recvmsg(socket, one, flags) },
            // SAFETY: as above, and so many are there.
            2 => small(unsafe { sdp_sendmmsg(socket, all, count, quiet) }),
            // SAFETY: as above.
            _ => small(unsafe { sdp_recvmmsg(socket, all, count, flags, null_mut()) }),
        }
    }

    fn accept_with(&mut self, socket: c_int, flags: c_int) -> c_int {
        // SAFETY: it is not asked for the address.
        let accepted = unsafe { sdp_accept4(socket, null_mut(), null_mut(), flags) };
        if accepted >= 0 {
            sdp_set_nonblocking(accepted, 1);
            self.adopt(accepted);
        }
        accepted
    }

    /// Sockets of every kind in one array: each is answered at its place, a dead one as such.
    fn poll(&self, input: &mut Bytes<'_>) {
        let mut asked: [pollfd; FEW] = std::array::from_fn(|_| pollfd {
            fd: self.pick(input),
            events: i16::from(input.u8()),
            revents: -1,
        });
        // SAFETY: so many are there.
        let found = unsafe { sdp_poll(asked.as_mut_ptr(), FEW as libc::nfds_t, 0) };
        let told = asked.iter().filter(|place| place.revents != 0).count();
        assert_eq!(usize::try_from(found), Ok(told), "errno {}", errno());
        for place in asked.iter().filter(|place| self.closed.contains(&place.fd)) {
            assert_eq!(place.revents, libc::POLLNVAL, "{} is closed", place.fd);
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
        let accepted = unsafe { sdp_accept(socket, null_mut(), null_mut()) };
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
