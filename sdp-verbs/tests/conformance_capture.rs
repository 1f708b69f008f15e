//! The conformance suite behind `hook::Capture`: writing everything down changes nothing.

mod host_mount;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use host_mount::on_host;
use sdp_verbs::conformance::{Fixture, Poller, Sides};
use sdp_verbs::hook::{Capture, CaptureFile, CaptureOptions, Lazy};
use sdp_verbs::host::HostProvider;
use sdp_verbs::{Provider, VerbsError};

#[derive(Debug)]
struct Captured {
    lazy: bool,
    poller: Poller,
}

impl Captured {
    /// A side with a file of its own, whose name is gone again at once.
    fn side(&self) -> Result<Arc<dyn Provider>, VerbsError> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("sdp-capture-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let file = CaptureFile::create(&path, CaptureOptions::default())
            .map_err(|e| VerbsError::os("creating a capture file", e))?;
        std::fs::remove_file(&path).map_err(|e| VerbsError::os("removing its name", e))?;
        let mut inner: Arc<dyn Provider> = Arc::new(HostProvider::open()?);
        if self.lazy {
            inner = Arc::new(Lazy::new(inner).seeded(number));
        }
        Ok(Arc::new(Capture::new(inner, &Arc::new(file))))
    }
}

impl Fixture for Captured {
    fn name(&self) -> String {
        let what = if self.lazy { "lazy host" } else { "host" };
        format!("captured {what}, polled by {:?}", self.poller)
    }

    fn open(&self) -> Result<Sides, VerbsError> {
        Ok(Sides {
            active: self.side()?,
            passive: self.side()?,
        })
    }

    fn poller(&self) -> Poller {
        self.poller
    }

    fn rounds(&self) -> u32 {
        2_000
    }
}

on_host! { of_host_with_threads, Captured { lazy: false, poller: Poller::Threads } }
on_host! { of_lazy_host, Captured { lazy: true, poller: Poller::Caller } }
