//! Exit is a close: what was written is delivered although the process ends.

use std::sync::Once;
use std::thread;

/// Has `run` called when this process, or a forked child of it, ends by `exit` or by returning
/// from main. Later calls do nothing.
pub(crate) fn at_exit(run: extern "C" fn()) {
    static REGISTERED: Once = Once::new();
    REGISTERED.call_once(|| {
        // SAFETY: `run` is a function, so it is there until the process ends.
        let failed = unsafe { libc::atexit(run) } != 0;
        if failed {
            tracing::warn!("no memory to register an exit handler: close streams before exit");
        }
    });
}

/// Has an exit handler's words logged by a thread of their own: the thread-locals of the thread that
/// exits are gone by then, and a log may need them. Without memory for a thread nothing is said.
pub(crate) fn say_at_exit(say: impl FnOnce() + Send + 'static) {
    let thread = thread::Builder::new().name("sdp-exit".to_owned());
    if let Ok(thread) = thread.spawn(say) {
        // It ends by itself; a panic in a log is the log's.
        let _ = thread.join();
    }
}
