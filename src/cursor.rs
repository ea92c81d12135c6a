//! How far one stream has been delivered: the only code that moves a cursor.
//!
//! Windows open in the order of their times and may be finished out of order. A window is *done*
//! when all its pages were read and every batch made from them is committed. The cursor moves to a
//! window's end only when that window and all before it are done.

use std::collections::VecDeque;

use crate::clock::Time;

/// Who reads a window: the rounds that follow the present, or a pass behind them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// The live rounds, backlog included.
    #[default]
    Live,
    /// The verification pass of that number.
    Pass(usize),
}

/// Names a window for as long as it is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WindowId {
    epoch: u64,
    lane: Lane,
    number: u64,
}

impl WindowId {
    /// Who reads the window.
    #[must_use]
    pub fn lane(self) -> Lane {
        self.lane
    }

    /// The epoch of the lease under which it was opened.
    #[must_use]
    pub fn epoch(self) -> u64 {
        self.epoch
    }
}

struct Open {
    id: WindowId,
    end: Time,
    read: bool,
    batches: usize,
}

/// The open windows of one lane of a stream and the cursor behind them.
#[derive(Default)]
pub struct Progress {
    epoch: u64,
    lane: Lane,
    cursor: Option<Time>,
    /// The cursor that [`Progress::advance`] has told last.
    told: Option<Time>,
    open: VecDeque<Open>,
    next_id: u64,
}

impl Progress {
    /// The live lane, from a cursor that was committed earlier, if there is one.
    #[must_use]
    pub fn new(cursor: Option<Time>) -> Self {
        Self::of(Lane::Live, cursor)
    }

    /// Any lane, from a cursor that was committed earlier, if there is one.
    #[must_use]
    pub fn of(lane: Lane, cursor: Option<Time>) -> Self {
        Self { lane, cursor, told: cursor, ..Self::default() }
    }

    /// The same under a lease: what was opened under another epoch is none of its windows.
    #[must_use]
    pub fn under(self, epoch: u64) -> Self {
        Self { epoch, ..self }
    }

    /// Up to where everything is delivered and committed.
    #[must_use]
    pub fn cursor(&self) -> Option<Time> {
        self.cursor
    }

    /// Up to where windows were opened; the next round starts from here.
    #[must_use]
    pub fn frontier(&self) -> Option<Time> {
        let ends = self.open.iter().map(|window| window.end);
        ends.filter(|&end| end > Time::MIN_UTC).chain(self.cursor).max()
    }

    /// Whether everything that was opened is delivered.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.open.is_empty()
    }

    /// Where the stream begins; only the first call counts. This is the cursor from then on, so that
    /// however long the first window takes, and whatever becomes of it, the beginning does not move.
    pub fn anchor(&mut self, start: Time) {
        self.cursor.get_or_insert(start);
    }

    /// Moves the cursor to `at`, unless it is further already: what lies before needs no reading, or
    /// cannot be read any more.
    pub fn skip_to(&mut self, at: Time) {
        self.cursor = self.cursor.max(Some(at));
    }

    /// A cursor beyond `limit` goes back to `start`, and what is open is given up; returns whether
    /// that was so.
    pub fn retreat(&mut self, limit: Time, start: Time) -> bool {
        let is_beyond = self.cursor > Some(limit);
        if is_beyond {
            self.cursor = Some(start);
            self.open.iter_mut().for_each(|window| window.read = false);
            self.abandon();
        }
        is_beyond
    }

    /// Opens the window that ends at `end`, after those already open.
    pub fn open(&mut self, end: Time) -> WindowId {
        let id = WindowId { epoch: self.epoch, lane: self.lane, number: self.next_id };
        self.next_id += 1;
        self.open.push_back(Open { id, end, read: false, batches: 0 });
        id
    }

    /// Ends an open window earlier, because its rest was split off or may still grow.
    ///
    /// Batches made before the split stay with this, the earlier part, so that nothing behind them
    /// can be passed.
    pub fn shorten(&mut self, id: WindowId, end: Time) {
        if let Some(window) = self.find(id) {
            window.end = window.end.min(end);
        }
    }

    /// Ends an open window later: a sweep that had to be repeated shows a later moment.
    pub fn postpone(&mut self, id: WindowId, end: Time) {
        if let Some(window) = self.find(id) {
            window.end = window.end.max(end);
        }
    }

    /// Opens the later part of a window that was split, right behind it.
    pub fn open_behind(&mut self, id: WindowId, end: Time) -> WindowId {
        let behind = self.open(end);
        let position = self.open.iter().position(|window| window.id == id);
        if let (Some(position), Some(window)) = (position, self.open.pop_back()) {
            self.open.insert(position + 1, window);
        }
        behind
    }

    /// Counts a batch made from a window's pages.
    pub fn offered(&mut self, id: WindowId) {
        if let Some(window) = self.find(id) {
            window.batches += 1;
        }
    }

    /// All pages of a window were read.
    pub fn read(&mut self, id: WindowId) {
        if let Some(window) = self.find(id) {
            window.read = true;
        }
    }

    /// A batch of a window is delivered, or was given up before anybody saw it.
    pub fn settled(&mut self, id: WindowId) {
        if let Some(window) = self.find(id) {
            window.batches = window.batches.saturating_sub(1);
        }
    }

    /// Gives up the first window that was not read, and all behind it: their reader is gone, and a
    /// window behind one that was given up must not carry the cursor over it.
    ///
    /// One that still has batches on their way stays, without an end: it moves the cursor nowhere,
    /// but nothing opened later can move it before those batches are committed.
    pub fn abandon(&mut self) {
        let unread = self.open.iter().position(|window| !window.read);
        for window in self.open.range_mut(unread.unwrap_or(self.open.len())..) {
            window.read = true;
            window.end = Time::MIN_UTC;
        }
        self.open.retain(|window| window.batches > 0 || window.end > Time::MIN_UTC);
    }

    /// Drops done windows from the front; returns the new cursor if it moved.
    pub fn advance(&mut self) -> Option<Time> {
        while let Some(window) = self.open.front()
            && window.read
            && window.batches == 0
        {
            if window.end > Time::MIN_UTC {
                self.cursor = self.cursor.max(Some(window.end));
            }
            self.open.pop_front();
        }
        if self.cursor == self.told {
            return None;
        }
        self.told = self.cursor;
        self.cursor
    }

    fn find(&mut self, id: WindowId) -> Option<&mut Open> {
        self.open.iter_mut().find(|window| window.id == id)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(secs: i64) -> Time {
        Time::from_timestamp(secs, 0).unwrap()
    }

    #[test]
    fn the_cursor_waits_for_every_batch_of_every_earlier_window() {
        let mut progress = Progress::new(Some(at(0)));
        let (one, two) = (progress.open(at(10)), progress.open(at(20)));
        progress.offered(one);
        progress.offered(two);
        progress.read(two);
        progress.settled(two);
        assert_eq!(progress.advance(), None, "the window before is not done");
        progress.read(one);
        assert_eq!(progress.advance(), None, "its batch is not committed");
        progress.settled(one);
        assert_eq!(progress.advance(), Some(at(20)));
        assert_eq!(progress.advance(), None);
    }

    #[test]
    fn batches_from_before_a_split_hold_the_earlier_part() {
        let mut progress = Progress::new(None);
        let (one, last) = (progress.open(at(10)), progress.open(at(20)));
        progress.offered(one);
        progress.shorten(one, at(5));
        let two = progress.open_behind(one, at(10));
        for id in [one, two, last] {
            progress.read(id);
        }
        assert_eq!(progress.advance(), None);
        assert_eq!(progress.frontier(), Some(at(20)));
        progress.settled(one);
        assert_eq!(progress.advance(), Some(at(20)));
    }

    #[test]
    fn what_is_abandoned_is_asked_for_again() {
        let mut progress = Progress::new(Some(at(0)));
        let (one, _unread, three) =
            (progress.open(at(10)), progress.open(at(20)), progress.open(at(30)));
        progress.read(one);
        progress.read(three);
        progress.offered(three);
        progress.abandon();
        assert_eq!(progress.frontier(), Some(at(10)));
        assert_eq!(progress.advance(), Some(at(10)));
        let again = progress.open(at(30));
        progress.read(again);
        assert_eq!(progress.advance(), None, "a batch of the third is still on its way");
        progress.settled(three);
        assert_eq!(progress.advance(), Some(at(30)));
    }

    #[test]
    fn the_beginning_does_not_move() {
        let mut progress = Progress::new(None);
        progress.anchor(at(5));
        progress.anchor(at(9));
        assert_eq!(progress.frontier(), Some(at(5)), "whatever becomes of the first window");
        let one = progress.open(at(10));
        progress.offered(one);
        progress.abandon();
        assert_eq!((progress.frontier(), progress.advance()), (Some(at(5)), Some(at(5))));
    }

    #[test]
    fn the_cursor_never_goes_back() {
        let mut progress = Progress::new(Some(at(50)));
        let id = progress.open(at(40));
        progress.read(id);
        assert_eq!(progress.advance(), None);
        assert_eq!(progress.cursor(), Some(at(50)));
    }

    proptest! {
        /// Whatever the order of reads, splits and commits: the cursor never passes a window that
        /// is unread or holds an uncommitted batch.
        #[test]
        fn the_cursor_never_passes_what_is_unconfirmed(
            steps in prop::collection::vec((0_u8..5, 0_usize..8), 1..200),
        ) {
            let mut progress = Progress::new(None);
            let mut model: Vec<(WindowId, i64, bool, usize)> = Vec::new();
            let mut end = 0;
            for (what, which) in steps {
                let count = model.len().max(1);
                match (what, model.get_mut(which % count)) {
                    (0, _) => {
                        end += 10;
                        model.push((progress.open(at(end)), end, false, 0));
                    }
                    (1, Some(window)) => { progress.read(window.0); window.2 = true; }
                    (2, Some(window)) if !window.2 => { progress.offered(window.0); window.3 += 1; }
                    (3, Some(window)) if window.3 > 0 => { progress.settled(window.0); window.3 -= 1; }
                    (4, Some(window)) if !window.2 && window.1 % 10 == 0 => {
                        let (id, full) = (window.0, window.1);
                        window.1 = full - 5;
                        progress.shorten(id, at(full - 5));
                        let behind = progress.open_behind(id, at(full));
                        let position = model.iter().position(|w| w.0 == id).unwrap();
                        model.insert(position + 1, (behind, full, false, 0));
                    }
                    _ => {}
                }
                progress.advance();
                let done = model.iter().take_while(|w| w.2 && w.3 == 0).map(|w| at(w.1)).last();
                prop_assert_eq!(progress.cursor(), done.max(progress.cursor().filter(|_| done.is_none())));
                prop_assert!(progress.cursor() <= done.or(None).max(done));
            }
        }
    }
}
