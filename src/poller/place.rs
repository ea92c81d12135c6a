//! A place inside a window: what was read of it, and which page comes next.

use std::collections::HashSet;

use super::density::Sample;
use crate::clock::Time;
use crate::cursor::WindowId;
use crate::ledger::Ids;
use crate::record::Id;
use crate::window::Window;

/// A place inside a window: which page comes next.
pub(super) struct Place {
    pub(super) id: WindowId,
    pub(super) window: Window,
    pub(super) next: Option<String>,
    pub(super) followed: Trail,
    pub(super) pages: u32,
    /// What the page that is being fetched has shown, and how much of that was new.
    pub(super) shown: usize,
    pub(super) news: usize,
    /// What the pages before it have shown.
    pub(super) records: usize,
    /// What was news in the first page.
    pub(super) sample: Sample,
    /// What a pass knows of the window's records; it does not read before it has been told.
    pub(super) known: Option<Ids>,
    /// When its reading began.
    pub(super) begun: Time,
}

/// Pointers that were followed; one that comes again would lead in a circle. They are kept as their
/// hashes, since a vendor can make each as long as an address may be.
#[derive(Default)]
pub(super) struct Trail(HashSet<Id>);

impl Trail {
    /// Whether a pointer is seen for the first time.
    pub(super) fn is_new(&mut self, pointer: &str) -> bool {
        self.0.insert(Id::of(pointer.as_bytes()))
    }
}

impl Place {
    pub(super) fn start(id: WindowId, window: Window, known: Option<Ids>, begun: Time) -> Self {
        Self {
            id,
            window,
            next: None,
            followed: Trail::default(),
            pages: 0,
            shown: 0,
            news: 0,
            records: 0,
            sample: Sample::default(),
            known,
            begun,
        }
    }

    /// The same window from its first page.
    pub(super) fn anew(self) -> Self {
        Self::start(self.id, self.window, self.known, self.begun)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::poller::task::PAGES_MAX;

    #[test]
    fn a_pointer_is_remembered_in_16_bytes_however_long_it_is() {
        let mut trail = Trail::default();
        let pointer = |n: u32| format!("{n}{}", "t".repeat(1_000));
        assert!((0..PAGES_MAX).all(|n| trail.is_new(&pointer(n))));
        assert!(!(0..PAGES_MAX).any(|n| trail.is_new(&pointer(n))));
        let bytes: usize = trail.0.iter().map(size_of_val).sum();
        assert_eq!(bytes, 16 * PAGES_MAX as usize);
    }
}
