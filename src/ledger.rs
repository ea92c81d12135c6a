//! Which records of a stream have been delivered, for as long as the vendor may show them again.
//!
//! An id is *pending* from the moment its record joins a batch until that batch is committed, then
//! *delivered* until no later window can reach it. A record whose id is in either state is a
//! duplicate. Delivered ids lie in buckets by the end of the window that showed them, so that
//! forgetting is dropping a bucket.

use std::collections::{BTreeMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};

use crate::clock::Time;
use crate::record::Id;

/// Windows that end within the same minute share a bucket, so that a short interval does not make
/// many small ones to look into.
const BUCKET_SECS: i64 = 60;

/// A set of ids, which are hashes already.
pub type Ids = HashSet<Id, BuildHasherDefault<Identity>>;

/// The ids of one stream.
#[derive(Default)]
pub struct Ledger {
    pending: Ids,
    /// By the end of the minute up to which windows may start that show them again.
    delivered: BTreeMap<i64, Ids>,
}

impl Ledger {
    /// Takes `id` as pending; false if it is known already.
    pub fn admit(&mut self, id: Id) -> bool {
        !self.delivered.values().any(|bucket| bucket.contains(&id)) && self.pending.insert(id)
    }

    /// Gives back ids whose records nobody will deliver.
    pub fn withdraw(&mut self, ids: &[Id]) {
        for id in ids {
            self.pending.remove(id);
        }
    }

    /// Marks ids as delivered; they can be shown again by windows that start up to `until`.
    pub fn deliver(&mut self, ids: &[Id], until: Time) {
        let bucket = self.delivered.entry(bucket_end(until)).or_default();
        for id in ids {
            self.pending.remove(id);
            bucket.insert(*id);
        }
    }

    /// Forgets ids that only windows ending before `before` could show.
    pub fn forget(&mut self, before: Time) {
        self.delivered = self.delivered.split_off(&before.timestamp());
    }

    /// Forgets every delivered id, so that an inventory can be delivered anew.
    pub fn forget_all(&mut self) {
        self.delivered.clear();
    }

    /// The delivered ids, by when a window must start at the latest to show them again.
    pub fn buckets(&self) -> impl Iterator<Item = (Time, Vec<Id>)> + '_ {
        self.delivered.iter().map(|(&until, ids)| {
            (Time::from_timestamp(until, 0).unwrap_or_default(), ids.iter().copied().collect())
        })
    }

    /// How many records wait for their commit.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// How many delivered ids are remembered.
    #[must_use]
    pub fn delivered(&self) -> usize {
        self.delivered.values().map(Ids::len).sum()
    }
}

fn bucket_end(until: Time) -> i64 {
    until.timestamp().div_euclid(BUCKET_SECS) * BUCKET_SECS + BUCKET_SECS
}

/// A hasher that takes the id's own bits: they are a cryptographic hash, so nobody can choose them.
#[derive(Default)]
pub struct Identity(u64);

impl Hasher for Identity {
    fn write(&mut self, bytes: &[u8]) {
        let (_, last) = bytes.split_at(bytes.len().saturating_sub(8));
        self.0 = last.iter().fold(0, |sum, &byte| sum << 8 | u64::from(byte));
    }

    fn write_u128(&mut self, id: u128) {
        // The lower half is as random as the whole.
        self.0 = id as u64;
    }

    fn finish(&self) -> u64 {
        self.0
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
        ledger.forget(at(100 + BUCKET_SECS));
        assert!(ledger.admit(Id(1)), "and it is not kept for ever");
        ledger.withdraw(&[Id(1)]);
        assert!(ledger.admit(Id(1)), "and what was given back can come again");
    }
}
