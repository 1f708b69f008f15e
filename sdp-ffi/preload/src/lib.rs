//! `libsdp_preload`: unmodified programs speak the *Sockets* Direct Protocol with each other.
//!
//! It is loaded before the C library (`LD_PRELOAD`, `sdp run`) and puts itself in front of the
//! functions for sockets. Programs keep their ordinary sockets; between two of them that have this
//! library bytes go by SDP, and with everybody else by TCP.
//!
//! # A descriptor stays the kernel's
//!
//! What socket(2) returns is a TCP socket of the kernel, and stays one. Beside it a table maps its
//! number to a socket of ours. Whoever does not come by here (raw system calls, io_uring, a program
//! after exec) meets a TCP socket that is not connected: a clean error, never wrong bytes. Numbers,
//! limits, close-on-exec and `dup` are the kernel's own. The TCP socket holds the port: what
//! listens or connects by SDP adopts it.
//!
//! What waits is given another descriptor in its place, which reports what SDP would do
//! ([`sdp_socket::Readiness`]); it exists only when somebody waits.
//!
//! # Layers
//!
//! ```text
//!   sockets io stdio descriptors            the functions of the C library, by kind
//!   options wait select epoll handlers threads exec
//!   boundary real memory                    which calls are ours; the C library's own
//!   table entry listening width hidden      numbers, and what is beside each
//!   fork relay shared passing               connections that other processes go on with
//!   config rules log report io_uring        what was asked for, and what is said
//! ```
//!
//! What a call does on a socket by SDP is what libsdp's function of that name does: it is called.
//!
//! Nothing starts by loading the library: no thread, no allocation. `man 7 libsdp-preload` has the
//! list of functions, the rules and the limits.

mod boundary;
mod config;
mod descriptors;
mod entry;
mod epoll;
mod exec;
mod fork;
mod handlers;
mod hidden;
mod io;
mod io_uring;
mod listening;
mod log;
mod memory;
mod options;
mod passing;
mod real;
mod relay;
mod report;
mod rules;
mod select;
mod shared;
mod sockets;
mod stdio;
mod table;
mod threads;
mod wait;
mod width;
