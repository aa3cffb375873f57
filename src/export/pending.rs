//! What was handed to a sink and is not acknowledged: a place is passed only when everything before it is done or set aside. Pure.

use std::collections::VecDeque;

/// Documents in the order of their source; `P` is the place in it, `D` what is kept of one that was set aside.
#[derive(Debug)]
pub(super) struct Pending<P, D> {
    /// The number of the first entry.
    first: u64,
    entries: VecDeque<Entry<P, D>>,
}

#[derive(Debug)]
struct Entry<P, D> {
    place: P,
    state: State<D>,
}

#[derive(Debug)]
enum State<D> {
    Open,
    Done,
    SetAside(D),
}

impl<P, D> Default for Pending<P, D> {
    fn default() -> Self {
        Self { first: 0, entries: VecDeque::new() }
    }
}

impl<P, D> Pending<P, D> {
    /// The number of the new document, behind which its source is at this place.
    pub(super) fn push(&mut self, place: P) -> u64 {
        self.entries.push_back(Entry { place, state: State::Open });
        self.first + self.entries.len() as u64 - 1
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn done(&mut self, number: u64) {
        self.set(number, State::Done);
    }

    pub(super) fn set_aside(&mut self, number: u64, letter: D) {
        self.set(number, State::SetAside(letter));
    }

    fn set(&mut self, number: u64, state: State<D>) {
        let place = number.checked_sub(self.first).and_then(|place| usize::try_from(place).ok());
        let entry = place.and_then(|place| self.entries.get_mut(place));
        entry.expect("a document is answered once and stays until then").state = state;
    }

    /// The place behind all that is finished in one piece from the beginning, and what of it was set aside. `None` if that is nothing.
    pub(super) fn take_finished(&mut self) -> Option<(P, Vec<D>)> {
        let (mut last, mut aside) = (None, Vec::new());
        while self.entries.front().is_some_and(|entry| !matches!(entry.state, State::Open)) {
            let Some(entry) = self.entries.pop_front() else { break };
            self.first += 1;
            last = Some(entry.place);
            if let State::SetAside(letter) = entry.state {
                aside.push(letter);
            }
        }
        last.map(|place| (place, aside))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_passed_only_when_everything_before_it_is_finished() {
        let mut pending = Pending::<char, &str>::default();
        let numbers = ['a', 'b', 'c', 'd'].map(|place| pending.push(place));
        pending.done(numbers[1]);
        pending.set_aside(numbers[2], "c is poison");
        assert_eq!(pending.take_finished(), None);
        pending.done(numbers[0]);
        assert_eq!(pending.take_finished(), Some(('c', vec!["c is poison"])));
        assert_eq!(pending.take_finished(), None);
        let later = pending.push('e');
        pending.done(later);
        assert_eq!((pending.take_finished(), pending.len()), (None, 2));
        pending.done(numbers[3]);
        assert_eq!((pending.take_finished(), pending.len()), (Some(('e', vec![])), 0));
    }
}
