//! A key taken back lets nobody in: between two processes, after everything that can become of
//! its owner. `cargo xtask keys` runs this once more with the cell check switched off, and then
//! every case must fail.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod host_support;

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Instant;

use host_support::child::{Peer, ROLE, say, told};
use host_support::{BOUND, End, Side, event_is, next_event};
use rustix::process::{Pid, Signal, WaitOptions};
use sdp_verbs::{
    Access, Binding, CmEventKind, MemoryRegion, MemoryWindow, Provider, QpNum, RemoteAddr, Rkey,
    SendData, SendFlags, SendOp, SendWr, Sge, WcOpcode, WcStatus, WorkCompletion, WrId,
};

/// Bytes shown.
const LEN: usize = 4096;
/// What is shown while the key lives.
const SHOWN: u8 = 0x11;
/// What nobody may see through it.
const SECRET: u8 = 0xee;
/// Where owners keep heap memory: a place that no loader takes, so that another process image can
/// have something there as well.
const HEAP_AT: usize = 0x1000_0000_0000;
/// A successor is told by its name in the role.
const SUCCESSOR: &str = "successor";

/// Not a test: the role a child process plays.
#[test]
fn child() {
    match std::env::var(ROLE).as_deref() {
        Err(_) => {}
        Ok("heap owner") => own(true),
        Ok("registered owner") => own(false),
        Ok(SUCCESSOR) => {
            // SAFETY: the mapping is new, and nobody else knows of it.
            unsafe { map_at(HEAP_AT).write_bytes(SECRET, LEN) };
            say(SUCCESSOR);
            while told().is_some() {}
        }
        Ok(other) => panic!("unknown role {other}"),
    }
}

/// Fresh memory of [`LEN`] bytes at a fixed place. Only makes system calls: also for a process
/// just cloned.
fn map_at(addr: usize) -> NonNull<u8> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let at = std::ptr::without_provenance_mut(addr);
    // SAFETY: the kernel refuses a place that is taken.
    let got = unsafe { libc::mmap(at, LEN, protection, flags, -1, 0) };
    assert!(got.addr() == addr, "the place for heap memory is taken");
    NonNull::new(got.cast()).unwrap()
}

/// Memory and the window it is shown in.
struct Shown {
    region: Arc<dyn MemoryRegion>,
    window: Box<dyn MemoryWindow>,
    rkey: Rkey,
}

impl Shown {
    fn new(side: &Side, end: &End, region: Arc<dyn MemoryRegion>) -> Self {
        let window = side.provider.alloc_window().unwrap();
        let binding = Binding {
            lkey: region.lkey(),
            addr: region.addr(),
            len: LEN,
            access: Access::REMOTE_READ,
        };
        let rkey = end
            .qp
            .bind(WrId(1), SendFlags::SIGNALED, &*window, binding)
            .unwrap();
        assert_eq!(completion(side, true).status, WcStatus::Success);
        Self {
            region,
            window,
            rkey,
        }
    }

    fn fill(&self, byte: u8) {
        // SAFETY: the region keeps its memory mapped, and nobody has references to it.
        unsafe { self.region.addr().write_bytes(byte, LEN) };
    }
}

/// The owner: shows memory, takes it back as it is told, and puts a secret there.
fn own(heap: bool) {
    let side = Side::new();
    let listener = side.listen("127.0.0.1:0", 1);
    say(&listener.local_addr().unwrap().to_string());
    let channels = [&side.channel];
    let (_, event) = next_event(&channels);
    let id = event_is!(event, listener.token(), CmEventKind::ConnectRequest { id, .. } => id);
    let qp = id.create_qp(&side.attr()).unwrap();
    let recv = qp.alloc_recv(64).unwrap();
    qp.post_recv(WrId(2), &recv).unwrap();
    id.accept(&[]).unwrap();
    let (_, event) = next_event(&channels);
    event_is!(event, id.token(), CmEventKind::Established => ());
    let end = End { id, qp };

    let region = if heap {
        let access = Access::LOCAL_WRITE | Access::MW_BIND;
        // SAFETY: the mapping stays for the life of the process.
        unsafe { side.provider.register(map_at(HEAP_AT), LEN, access) }.unwrap()
    } else {
        side.provider.alloc_registered(LEN).unwrap()
    };
    let shown = Shown::new(&side, &end, region);
    shown.fill(SHOWN);
    say(&format!("{} {}", shown.rkey.0, shown.region.addr().addr()));
    take_back(&side, &end, shown);
}

/// What the reader's key comes to; the memory, or its place in the tables, serves again.
fn take_back(side: &Side, end: &End, shown: Shown) {
    let kept = match told().unwrap().as_str() {
        "invalidate" => {
            let op = SendOp::LocalInv { rkey: shown.rkey };
            let flags = SendFlags::SIGNALED;
            let wr_id = WrId(3);
            end.qp.post_send(SendWr { wr_id, op, flags }).unwrap();
            assert_eq!(completion(side, true).status, WcStatus::Success);
            shown
        }
        "be told" => {
            let wc = completion(side, true);
            assert_eq!(wc.invalidated, Some(shown.rkey), "{wc:?}");
            shown
        }
        "give up" => {
            drop(shown.window);
            Shown::new(side, end, shown.region)
        }
        "free" => {
            drop(shown);
            Shown::new(side, end, side.provider.alloc_registered(LEN).unwrap())
        }
        "exec" => {
            let mut image = Command::new(std::env::current_exe().unwrap());
            image.args(["child", "--exact", "--nocapture", "--test-threads=1"]);
            panic!("exec: {}", image.env(ROLE, SUCCESSOR).exec());
        }
        other => panic!("unknown order {other}"),
    };
    kept.fill(SECRET);
    say("taken back");
    while told().is_some() {}
}

/// The next completion. Whoever polls events learns of the peer's regions, and of its end.
fn completion(side: &Side, events: bool) -> WorkCompletion {
    let end = Instant::now() + BOUND;
    let mut wcs = [WorkCompletion {
        wr_id: WrId(0),
        status: WcStatus::Success,
        opcode: WcOpcode::Recv,
        byte_len: 0,
        invalidated: None,
        qp: QpNum(0),
    }];
    while side.cq.poll(&mut wcs) == 0 {
        assert!(Instant::now() < end, "no completion");
        if events && let Some(event) = side.channel.poll() {
            panic!("unexpected {event:?}");
        }
        std::thread::yield_now();
    }
    wcs[0]
}

/// The reader's side of one case.
struct Reader {
    side: Side,
    end: End,
    owner: Peer,
    target: Arc<dyn MemoryRegion>,
    rkey: Rkey,
    addr: RemoteAddr,
}

impl Reader {
    /// Connects to an owner; its key is good to begin with.
    fn of(role: &str) -> Self {
        let mut owner = Peer::start(role, |_| {});
        let dst: SocketAddr = owner.hear().parse().unwrap();
        let side = Side::new();
        let channels = [&side.channel];
        let id = side.resolve(dst);
        let (_, event) = next_event(&channels);
        event_is!(event, id.token(), CmEventKind::Resolved => ());
        let qp = id.create_qp(&side.attr()).unwrap();
        id.connect(&[]).unwrap();
        let (_, event) = next_event(&channels);
        event_is!(event, id.token(), CmEventKind::ConnectResponse { .. } => ());
        id.establish().unwrap();
        let said = owner.hear();
        let (rkey, addr) = said.split_once(' ').unwrap();
        let reader = Self {
            target: side.provider.alloc_registered(LEN).unwrap(),
            side,
            end: End { id, qp },
            owner,
            rkey: Rkey(rkey.parse().unwrap()),
            addr: RemoteAddr(addr.parse().unwrap()),
        };
        let (status, bytes) = reader.read(true);
        assert_eq!(status, WcStatus::Success);
        assert_eq!(bytes, [SHOWN; LEN]);
        reader
    }

    /// Reads through the key.
    fn read(&self, events: bool) -> (WcStatus, [u8; LEN]) {
        let to = self.target.addr();
        // SAFETY: the region is ours and nothing is in flight.
        unsafe { to.write_bytes(0, LEN) };
        let local = [Sge {
            addr: to.as_ptr(),
            len: LEN,
            lkey: self.target.lkey(),
        }];
        let op = SendOp::Read {
            local: &local,
            remote: self.addr,
            rkey: self.rkey,
        };
        let (wr_id, flags) = (WrId(9), SendFlags::SIGNALED);
        self.end.qp.post_send(SendWr { wr_id, op, flags }).unwrap();
        let status = completion(&self.side, events).status;
        // SAFETY: as above.
        (status, unsafe { to.cast::<[u8; LEN]>().read() })
    }

    /// The key is dead.
    fn is_locked_out(&self, events: bool) {
        let (status, bytes) = self.read(events);
        assert_eq!(status, WcStatus::RemoteAccess, "first byte {:#x}", bytes[0]);
    }

    fn after(role: &str, order: &str) {
        let mut reader = Self::of(role);
        reader.owner.tell(order);
        assert_eq!(reader.owner.hear(), "taken back");
        reader.is_locked_out(true);
        reader.owner.finish();
    }
}

/// As when `send` has returned.
#[test]
fn after_the_owner_invalidated_it() {
    Reader::after("heap owner", "invalidate");
    Reader::after("registered owner", "invalidate");
}

/// As when the reader's `recv` has returned.
#[test]
fn after_the_reader_gave_it_back() {
    for role in ["heap owner", "registered owner"] {
        let mut reader = Reader::of(role);
        let op = SendOp::Send {
            data: SendData::Inline(b"done"),
            invalidate: Some(reader.rkey),
        };
        let (wr_id, flags) = (WrId(4), SendFlags::SIGNALED);
        reader
            .end
            .qp
            .post_send(SendWr { wr_id, op, flags })
            .unwrap();
        let wc = completion(&reader.side, true);
        assert_eq!(wc.status, WcStatus::Success);
        reader.owner.tell("be told");
        assert_eq!(reader.owner.hear(), "taken back");
        reader.is_locked_out(true);
        reader.owner.finish();
    }
}

/// As after a time-out, when the peer has not answered. The cell serves another key by now.
#[test]
fn after_the_owner_gave_up() {
    Reader::after("heap owner", "give up");
    Reader::after("registered owner", "give up");
}

/// The memory has gone back to the system and serves again.
#[test]
fn after_the_memory_was_freed_and_used_again() {
    Reader::after("registered owner", "free");
}

/// Another program in the same process, with something else at the same address.
#[test]
fn after_the_owner_became_another_program() {
    became_another_program("heap owner", WcStatus::RemoteAccess);
}

/// As above; what was registered stays mapped at the reader, with a key that nobody has killed.
#[test]
fn after_the_owner_of_registered_memory_became_another_program() {
    became_another_program("registered owner", WcStatus::RetryExceeded);
}

fn became_another_program(role: &str, expected: WcStatus) {
    let mut reader = Reader::of(role);
    reader.owner.tell("exec");
    assert_eq!(reader.owner.hear(), SUCCESSOR);
    assert_eq!(reader.read(false).0, expected);
    reader.owner.finish();
}

/// Another process that was given the dead owner's number, with something at the same address.
#[test]
fn after_the_owner_died_and_its_number_went_to_another() {
    let mut reader = Reader::of("heap owner");
    let pid = reader.owner.pid();
    reader.owner.kill();
    match Successor::with_number(pid) {
        Ok(_alive) => reader.is_locked_out(false),
        Err(why) => {
            let name = "after_the_owner_died_and_its_number_went_to_another";
            let line = format!("\nskipped {name}: choosing the number of a process: {why}\n");
            io::stdout().lock().write_all(line.as_bytes()).unwrap();
        }
    }
}

/// The dead owner's registered memory stays mapped at the reader, with a key that nobody has killed.
#[test]
fn after_the_owner_of_registered_memory_died() {
    let mut reader = Reader::of("registered owner");
    let pid = reader.owner.pid();
    reader.owner.kill();
    // Where no number can be chosen, nobody has it.
    let _successor = Successor::with_number(pid);
    assert_eq!(reader.read(false).0, WcStatus::RetryExceeded);
}

/// A process that has the secret where owners have their memory, and waits to be killed.
struct Successor(Pid);

impl Successor {
    /// # Errors
    /// Choosing a number takes a right of its own (`CAP_CHECKPOINT_RESTORE`).
    fn with_number(pid: Pid) -> io::Result<Self> {
        let (ready, told) = io::pipe()?;
        let numbers = [pid.as_raw_nonzero().get()];
        // SAFETY: all zeros is how the structure begins.
        let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
        args.exit_signal = libc::SIGCHLD.cast_unsigned().into();
        args.set_tid = numbers.as_ptr().addr() as u64;
        args.set_tid_size = 1;
        // SAFETY: without a stack of its own this is fork; the child only makes system calls.
        match unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of_val(&args)) } {
            -1 => return Err(io::Error::last_os_error()),
            0 => {
                // SAFETY: it goes when the test does.
                unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
                // SAFETY: the mapping is new, and nobody else knows of it.
                unsafe { map_at(HEAP_AT).write_bytes(SECRET, LEN) };
                let _heard = rustix::io::write(&told, &[1]);
                loop {
                    // SAFETY: it has no preconditions.
                    unsafe { libc::pause() };
                }
            }
            _ => {}
        }
        let successor = Self(pid);
        let mut byte = [0];
        (&ready).read_exact(&mut byte)?;
        Ok(successor)
    }
}

impl Drop for Successor {
    fn drop(&mut self) {
        rustix::process::kill_process(self.0, Signal::KILL).unwrap();
        rustix::process::waitpid(Some(self.0), WaitOptions::empty()).unwrap();
    }
}
