//! Exit is a close: what was written is delivered although the process ends.

use std::sync::Once;

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
