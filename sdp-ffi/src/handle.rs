//! The numbers that C programs know sockets by.
//!
//! ```text
//!   bit 31    30 ........ 20   19 ............. 0
//!   0         generation ≥ 1   place in the table
//! ```
//!
//! The least is 2^20, above every descriptor of a process under Linux's default limits. A place
//! is left alone for a while after a close, and its next number has another generation: a stale
//! number is found out until its place has been reused [`GENERATION_MAX`] times.

use std::collections::VecDeque;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use libc::c_int;

use crate::errno::Failure;

const PLACE_BITS: u32 = 20;
/// The least number of a socket.
pub(crate) const NUMBER_MIN: c_int = 1 << PLACE_BITS;
/// Sockets that may be open at once.
const PLACES_MAX: usize = 1 << PLACE_BITS;
/// Generations are 1 to this.
const GENERATION_MAX: u32 = (1 << (31 - PLACE_BITS)) - 1;
/// Places that wait before the first of them is used again.
const RESTING_MIN: usize = 1024;

/// Values by number.
#[derive(Debug)]
pub(crate) struct Table<T> {
    places: RwLock<Places<T>>,
}

#[derive(Debug)]
struct Places<T> {
    all: Vec<Place<T>>,
    /// Empty ones, the longest empty first.
    resting: VecDeque<usize>,
    first_generation: u32,
}

#[derive(Debug)]
struct Place<T> {
    generation: u32,
    value: Option<Arc<T>>,
}

impl<T> Table<T> {
    /// An empty table. Tables of different `epoch` give different numbers, mostly.
    pub(crate) fn new(epoch: u32) -> Self {
        Self {
            places: RwLock::new(Places {
                all: Vec::new(),
                resting: VecDeque::new(),
                first_generation: epoch % GENERATION_MAX + 1,
            }),
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, Places<T>> {
        self.places.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Places<T>> {
        self.places.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number for a new value.
    ///
    /// # Errors
    /// `EMFILE` with 2^20 open.
    pub(crate) fn insert(&self, value: Arc<T>) -> Result<c_int, Failure> {
        let mut places = self.write();
        let full = places.all.len() >= PLACES_MAX;
        let rested = if full || places.resting.len() > RESTING_MIN {
            places.resting.pop_front()
        } else {
            None
        };
        let at = match rested {
            Some(at) => at,
            None if full => {
                return Err(Failure::new(
                    libc::EMFILE,
                    format!("{PLACES_MAX} sockets are open: the limit of this library"),
                ));
            }
            None => {
                let generation = places.first_generation;
                places.all.push(Place {
                    generation,
                    value: None,
                });
                places.all.len() - 1
            }
        };
        let place = &mut places.all[at];
        place.value = Some(value);
        Ok(number(at, place.generation))
    }

    /// The value of a number.
    ///
    /// # Errors
    /// `EBADF` if there is none.
    pub(crate) fn get(&self, handle: c_int) -> Result<Arc<T>, Failure> {
        let bad = || Failure::bad_handle(handle);
        let (at, generation) = parts(handle).ok_or_else(bad)?;
        let places = self.read();
        let place = places.all.get(at).filter(|p| p.generation == generation);
        place.and_then(|p| p.value.clone()).ok_or_else(bad)
    }

    /// Takes the value of a number, which is invalid from here on.
    ///
    /// # Errors
    /// `EBADF` if there is none.
    pub(crate) fn remove(&self, handle: c_int) -> Result<Arc<T>, Failure> {
        let bad = || Failure::bad_handle(handle);
        let (at, generation) = parts(handle).ok_or_else(bad)?;
        let mut places = self.write();
        let found = places.all.get_mut(at);
        let place = found
            .filter(|p| p.generation == generation)
            .ok_or_else(bad)?;
        let value = place.value.take().ok_or_else(bad)?;
        place.generation = generation % GENERATION_MAX + 1;
        places.resting.push_back(at);
        Ok(value)
    }
}

fn number(at: usize, generation: u32) -> c_int {
    let at = u32::try_from(at).expect("places are numbered below 2^20");
    c_int::try_from(generation << PLACE_BITS | at).expect("generations end below bit 31")
}

fn parts(handle: c_int) -> Option<(usize, u32)> {
    let bits = u32::try_from(handle).ok()?;
    let at = usize::try_from(bits).ok()? & (PLACES_MAX - 1);
    Some((at, bits >> PLACE_BITS))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(handle: Result<Arc<u32>, Failure>) -> u32 {
        *handle.unwrap()
    }

    /// Numbers start where descriptors end, lead to their values, and are dead after removal.
    #[test]
    fn numbers_lead_to_their_values_until_removed() {
        let table = Table::new(0);
        let a = table.insert(Arc::new(1)).unwrap();
        let b = table.insert(Arc::new(2)).unwrap();
        assert!(a >= 1 << 20 && b >= 1 << 20 && a != b);
        assert_eq!(value(table.get(b)), 2);
        assert_eq!(value(table.remove(a)), 1);
        for dead in [table.get(a), table.remove(a)] {
            assert_eq!(dead.unwrap_err().errno, libc::EBADF);
        }
        assert_eq!(value(table.get(b)), 2);
    }

    /// Whatever is no number of a socket is EBADF, whoever made it.
    #[test]
    fn strangers_are_refused() {
        let table = Table::<u32>::new(0);
        let only = table.insert(Arc::new(1)).unwrap();
        let strangers = [-1, c_int::MIN, 0, 1, 1023, only + 1, only - 1, c_int::MAX];
        for stranger in strangers {
            assert_eq!(table.get(stranger).unwrap_err().errno, libc::EBADF);
        }
    }

    /// A closed number stays dead while its place is used again and again; no number comes back
    /// within thousands of sockets, though never more than one is open.
    #[test]
    fn places_rest_and_generations_move_on() {
        let table = Table::new(0);
        let first = table.insert(Arc::new(0)).unwrap();
        table.remove(first).unwrap();
        for n in 1..20_000 {
            let handle = table.insert(Arc::new(n)).unwrap();
            assert_ne!(handle, first, "after {n}");
            assert!(table.get(first).is_err());
            assert_eq!(value(table.remove(handle)), n);
        }
        assert!(
            table.read().all.len() <= RESTING_MIN + 2,
            "places are reused"
        );
    }

    /// Generations wrap within the bits of a positive int and never become 0.
    #[test]
    fn generations_wrap() {
        let table = Table::new(GENERATION_MAX - 1);
        let mut seen = Vec::new();
        for n in 0..3 * RESTING_MIN {
            let handle = table.insert(Arc::new(n)).unwrap();
            seen.push(parts(handle).unwrap().1);
            table.remove(handle).unwrap();
        }
        assert!(seen.contains(&GENERATION_MAX) && seen.contains(&1) && !seen.contains(&0));
    }
}
