//! Which records of a stream have been delivered, for as long as the vendor may show them again.
//!
//! An id is *pending* from the moment its record joins a batch until that batch is committed, then
//! *delivered* until no later window can reach it. A record whose id is in either state is a
//! duplicate. Delivered ids lie in buckets by the end of the window that showed them, so that
//! forgetting is dropping a bucket.

use std::collections::{BTreeMap, HashSet};

use crate::clock::Time;
use crate::record::Id;

/// The ids of one stream.
#[derive(Default)]
pub struct Ledger {
    pending: HashSet<Id>,
    delivered: BTreeMap<Time, HashSet<Id>>,
}

impl Ledger {
    /// Takes `id` as pending; false if it is known already.
    pub fn admit(&mut self, id: Id) -> bool {
        !self.delivered.values().any(|bucket| bucket.contains(&id)) && self.pending.insert(id)
    }

    /// Marks ids as delivered; they can be shown again by windows that start up to `until`.
    pub fn deliver(&mut self, ids: &[Id], until: Time) {
        let bucket = self.delivered.entry(until).or_default();
        for id in ids {
            self.pending.remove(id);
            bucket.insert(*id);
        }
    }

    /// Forgets ids that only windows ending before `before` could show.
    pub fn forget(&mut self, before: Time) {
        self.delivered = self.delivered.split_off(&before);
    }

    /// How many records wait for their commit.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// How many delivered ids are remembered.
    #[must_use]
    pub fn delivered(&self) -> usize {
        self.delivered.values().map(HashSet::len).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: i64) -> Time {
        Time::from_timestamp(secs, 0).unwrap()
    }

    #[test]
    fn an_id_is_a_duplicate_while_pending_and_while_reachable() {
        let mut ledger = Ledger::default();
        assert!(ledger.admit(Id(1)) && !ledger.admit(Id(1)));
        ledger.deliver(&[Id(1)], at(100));
        assert!(!ledger.admit(Id(1)));
        assert_eq!((ledger.pending(), ledger.delivered()), (0, 1));
        ledger.forget(at(100));
        assert!(!ledger.admit(Id(1)), "a window from 100 on can still show second 100");
        ledger.forget(at(101));
        assert!(ledger.admit(Id(1)));
    }
}
