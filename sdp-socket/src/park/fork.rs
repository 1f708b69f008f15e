//! Which process this is, by a page that fork wipes: a child is told from its parent without a
//! system call.
//!
//! Everything a provider shares with peers (links, keys, registered memory) stays with the
//! process that made it; in a forked child it is not even mapped. So what a child inherits is
//! inert: calls fail by name, dropping does nothing. The child may open sockets of its own.

use std::hint::black_box;
use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use memmap2::MmapMut;
use rustix::mm::{Advice, madvise};

/// A process whose forefathers, so many generations back, all used sockets, cannot open any more.
pub(crate) const GENERATIONS_MAX: usize = 64;

/// One page per generation; a page that reads zero belongs to a forefather.
static PAGES: [OnceLock<MmapMut>; GENERATIONS_MAX] = [const { OnceLock::new() }; GENERATIONS_MAX];

/// The newest generation known; behind the truth in a child that has not looked yet.
static NEWEST: AtomicUsize = AtomicUsize::new(0);

fn is_ours(page: &MmapMut) -> bool {
    black_box(page).first() == Some(&1)
}

fn new_page() -> io::Result<MmapMut> {
    let mut page = MmapMut::map_anon(1)?;
    let (at, len) = (page.as_mut_ptr().cast(), page.len());
    // SAFETY: the page is this function's own; wiping it in a child changes no byte here, and in
    // the child it reads as zero, which is what every reader expects.
    unsafe { madvise(at, len, Advice::LinuxWipeOnFork) }?;
    if let Some(mark) = page.first_mut() {
        *mark = 1;
    }
    Ok(page)
}

/// This process's generation: how many of its forefathers, itself not counted, used sockets.
///
/// # Errors
/// No page to be had, or [`GENERATIONS_MAX`] forefathers.
#[inline]
pub(crate) fn generation() -> io::Result<usize> {
    let at = NEWEST.load(Ordering::Relaxed);
    match PAGES.get(at).and_then(OnceLock::get) {
        Some(page) if is_ours(page) => Ok(at),
        _ => generation_from(at),
    }
}

/// The same, from one on that is not it, or not yet.
#[cold]
fn generation_from(mut at: usize) -> io::Result<usize> {
    loop {
        let slot = PAGES.get(at).ok_or_else(|| {
            io::Error::other(format!(
                "{GENERATIONS_MAX} forefathers of this process used sockets: exec instead of fork"
            ))
        })?;
        match slot.get() {
            Some(page) if is_ours(page) => return Ok(at),
            Some(_) => {
                at += 1;
                NEWEST.store(at, Ordering::Relaxed);
            }
            None => {
                let page = new_page()?;
                // If another thread was faster, its page serves as well.
                drop(slot.set(page));
            }
        }
    }
}

/// A value of the process that made it. In a forked child it can neither be used nor dropped.
#[derive(Debug)]
pub(crate) struct Own<T> {
    value: Option<T>,
    generation: usize,
}

impl<T> Own<T> {
    /// # Errors
    /// As [`generation`].
    pub(crate) fn new(value: T) -> io::Result<Self> {
        Ok(Self {
            generation: generation()?,
            value: Some(value),
        })
    }

    fn is_inherited(&self) -> bool {
        generation().map_or(true, |now| now != self.generation)
    }

    /// The value.
    ///
    /// # Errors
    /// `NotConnected` in a forked child.
    pub(crate) fn get(&self) -> io::Result<&T> {
        match &self.value {
            Some(value) if !self.is_inherited() => Ok(value),
            _ => Err(io::Error::new(
                io::ErrorKind::NotConnected,
                "this socket belongs to the parent process; open one after fork",
            )),
        }
    }
}

impl<T> Own<T> {
    /// The value itself.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub(crate) fn into_inner(mut self) -> io::Result<T> {
        self.get()?;
        self.value
            .take()
            .ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl<T> Drop for Own<T> {
    fn drop(&mut self) {
        if self.is_inherited() {
            // Its memory is shared with nobody here, its locks may be held by threads that do not
            // exist: leave it.
            std::mem::forget(self.value.take());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    /// In one process the generation stays, and what is owned is dropped.
    #[test]
    fn same_process() {
        let now = generation().unwrap();
        assert_eq!(generation().unwrap(), now);
        let shared = Arc::new(());
        let own = Own::new(Arc::clone(&shared)).unwrap();
        assert!(own.get().is_ok());
        drop(own);
        assert_eq!(Arc::strong_count(&shared), 1);
    }
}
