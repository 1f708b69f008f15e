//! Calls in progress, first come first served.

use alloc::collections::VecDeque;

use crate::credits::distance;

/// Calls in the order of their start. Ids count up and wrap.
#[derive(Debug)]
pub(crate) struct Turns<C> {
    calls: VecDeque<(u32, C)>,
    next: u32,
}

impl<C> Turns<C> {
    pub(crate) fn new() -> Self {
        Self {
            calls: VecDeque::with_capacity(4),
            next: 1,
        }
    }

    /// Takes a turn.
    pub(crate) fn push(&mut self, call: C) -> u32 {
        let id = self.next;
        self.next = id.wrapping_add(1);
        self.calls.push_back((id, call));
        id
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    /// The call whose turn it is.
    pub(crate) fn head(&self) -> Option<(u32, &C)> {
        self.calls.front().map(|(id, call)| (*id, call))
    }

    pub(crate) fn head_mut(&mut self) -> Option<&mut C> {
        self.calls.front_mut().map(|(_, call)| call)
    }

    pub(crate) fn is_head(&self, id: u32) -> bool {
        self.calls.front().is_some_and(|(head, _)| *head == id)
    }

    fn position(&self, id: u32) -> Option<usize> {
        let first = self.calls.front()?.0;
        if first == id {
            return Some(0);
        }
        let index = self
            .calls
            .partition_point(|(other, _)| distance(*other, id) < 0);
        let (found, _) = self.calls.get(index)?;
        (*found == id).then_some(index)
    }

    pub(crate) fn get(&self, id: u32) -> Option<&C> {
        let index = self.position(id)?;
        self.calls.get(index).map(|(_, call)| call)
    }

    pub(crate) fn get_mut(&mut self, id: u32) -> Option<&mut C> {
        let index = self.position(id)?;
        self.calls.get_mut(index).map(|(_, call)| call)
    }

    pub(crate) fn remove(&mut self, id: u32) -> Option<C> {
        let removed = match self.position(id)? {
            0 => self.calls.pop_front(),
            index => self.calls.remove(index),
        };
        removed.map(|(_, call)| call)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_first_come_first_served_and_ids_wrap() {
        let mut turns = Turns::new();
        turns.next = u32::MAX;
        let a = turns.push('a');
        let b = turns.push('b');
        let c = turns.push('c');
        assert_eq!((a, b, c), (u32::MAX, 0, 1));
        assert!(turns.is_head(a));
        assert_eq!(turns.get_mut(c), Some(&mut 'c'));
        assert_eq!(turns.remove(b), Some('b'));
        assert_eq!(turns.remove(b), None);
        assert_eq!(turns.get_mut(b), None);
        assert_eq!(turns.remove(a), Some('a'));
        assert!(turns.is_head(c));
        assert_eq!(turns.get_mut(7), None);
    }
}
