//! Looking at the threads of this process from outside.

use std::fs;
use std::sync::{Arc, Mutex, PoisonError};

use super::watch::Watch;

/// Looks in a row that must find a thread asleep before it is taken to wait for something.
const LOOKS: u32 = 20;

/// Whether a thread sleeps. A thread that has ended does.
fn is_asleep(tid: &str) -> bool {
    fs::read_to_string(format!("/proc/self/task/{tid}/stat")).map_or(true, |stat| {
        stat.rsplit(") ").next().is_some_and(|s| s.starts_with('S'))
    })
}

type Roll = Mutex<Vec<(Arc<Watch>, String)>>;

fn roll() -> &'static Roll {
    static ROLL: Roll = Mutex::new(Vec::new());
    &ROLL
}

fn my_tid() -> String {
    rustix::thread::gettid().as_raw_nonzero().to_string()
}

/// Enters the calling thread among the actors of its test, until the value is dropped.
#[derive(Debug)]
pub(crate) struct Enrolled(String);

impl Enrolled {
    pub(crate) fn new(watch: &Arc<Watch>) -> Self {
        let tid = my_tid();
        let mut roll = roll().lock().unwrap_or_else(PoisonError::into_inner);
        roll.push((Arc::clone(watch), tid.clone()));
        Self(tid)
    }
}

impl Drop for Enrolled {
    fn drop(&mut self) {
        let mut roll = roll().lock().unwrap_or_else(PoisonError::into_inner);
        roll.retain(|(_, tid)| *tid != self.0);
    }
}

/// Returns when the other actors of this test have been found asleep several times in a row.
pub(crate) fn until_others_sleep() {
    let watch = Watch::mine();
    let me = my_tid();
    let mut row = 0;
    while row < LOOKS {
        let others: Vec<String> = {
            let roll = roll().lock().unwrap_or_else(PoisonError::into_inner);
            let same = roll.iter().filter(|(w, _)| Arc::ptr_eq(w, &watch));
            same.map(|(_, tid)| tid.clone())
                .filter(|tid| *tid != me)
                .collect()
        };
        let asleep = others.iter().all(|tid| is_asleep(tid));
        row = if asleep { row + 1 } else { 0 };
        std::thread::yield_now();
    }
}
