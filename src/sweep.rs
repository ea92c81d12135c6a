//! What changed in an inventory, from what the receiver was told to what a sweep shows.
//!
//! A sweep is compared with what was delivered, entity by entity. Only a sweep that was read to its
//! end tells of removals; one that was cut off tells of additions and changes, and those stay told,
//! so that whoever replays what was delivered has the inventory as it is.

use std::collections::{HashMap, HashSet};

use crate::record::Id;

/// What happened to an entity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It was not there before.
    Added,
    /// It is not as it was before.
    Changed,
    /// It is no longer there.
    Removed,
}

impl Change {
    /// Its name in records.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Changed => "changed",
            Self::Removed => "removed",
        }
    }
}

/// What is remembered of an entity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entity {
    /// Tells it from others.
    pub key: Id,
    /// Tells its states apart.
    pub version: Id,
    /// A record, as MessagePack, that holds its name and nothing else.
    pub name: Vec<u8>,
}

/// The version of an entity of which we do not know what the receiver was told.
const UNKNOWN: Id = Id(0);

/// What the receiver has been told of an inventory, and what the current sweep shows.
#[derive(Debug, Default)]
pub struct Inventory {
    /// Delivered and committed.
    told: HashMap<Id, Entity>,
    /// On their way.
    pending: HashMap<Id, (Change, Entity)>,
    /// Keys that the current sweep has shown.
    seen: HashSet<Id>,
    has_told_removals: bool,
}

impl Inventory {
    /// An inventory as it was saved.
    #[must_use]
    pub fn new(told: Vec<Entity>) -> Self {
        let told = told.into_iter().map(|entity| (entity.key, entity)).collect();
        Self { told, ..Self::default() }
    }

    /// What a new store must know: what was told, and what may be told before anything else is
    /// saved.
    #[must_use]
    pub fn snapshot(&self) -> Vec<(Change, Entity)> {
        let told = self.told.values().map(|entity| (Change::Added, entity.clone()));
        let pending: Vec<Id> = self.pending.keys().copied().collect();
        told.chain(self.intents(&pending)).collect()
    }

    /// A sweep begins.
    pub fn begin(&mut self) {
        self.seen.clear();
        self.has_told_removals = false;
    }

    /// The sweep shows an entity; `None` if that is no news.
    pub fn see(&mut self, entity: Entity) -> Option<Change> {
        let key = entity.key;
        if !self.seen.insert(key) || self.pending.contains_key(&key) {
            return None;
        }
        let change = match self.told.get(&key) {
            None => Change::Added,
            Some(told) if told.version == UNKNOWN => Change::Added,
            Some(told) if told.version != entity.version => Change::Changed,
            Some(_) => return None,
        };
        self.pending.insert(key, (change, entity));
        Some(change)
    }

    /// The sweep was read to its end: what it did not show is gone. Told once a sweep.
    pub fn take_removed(&mut self) -> Vec<Entity> {
        if std::mem::replace(&mut self.has_told_removals, true) {
            return Vec::new();
        }
        let gone = |entity: &&Entity| !self.seen.contains(&entity.key);
        let gone: Vec<Entity> = self.told.values().filter(gone).cloned().collect();
        for entity in &gone {
            self.pending.insert(entity.key, (Change::Removed, entity.clone()));
        }
        gone
    }

    /// What has to be saved before these keys may reach the receiver: should we end before we know
    /// that they did, a later sweep must speak of them again, if only to say that they are gone.
    #[must_use]
    pub fn intents(&self, keys: &[Id]) -> Vec<(Change, Entity)> {
        let pending = keys.iter().filter_map(|key| self.pending.get(key));
        let news = pending.filter(|(change, _)| *change != Change::Removed);
        news.map(|(change, entity)| (*change, Entity { version: UNKNOWN, ..entity.clone() }))
            .collect()
    }

    /// These keys were delivered; returns what that changes.
    pub fn deliver(&mut self, keys: &[Id]) -> Vec<(Change, Entity)> {
        let delivered: Vec<_> = keys.iter().filter_map(|key| self.pending.remove(key)).collect();
        for (change, entity) in &delivered {
            match change {
                Change::Removed => drop(self.told.remove(&entity.key)),
                _ => drop(self.told.insert(entity.key, entity.clone())),
            }
        }
        delivered
    }

    /// Nobody will deliver these keys.
    pub fn withdraw(&mut self, keys: &[Id]) {
        for key in keys {
            self.pending.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn entity(key: u8, version: u8) -> Entity {
        Entity { key: Id(key.into()), version: Id(version.into()), name: vec![key] }
    }

    #[test]
    fn news_are_told_once_and_removals_at_the_end() {
        let mut inventory = Inventory::default();
        inventory.begin();
        assert_eq!(inventory.see(entity(1, 1)), Some(Change::Added));
        assert_eq!(inventory.see(entity(1, 1)), None, "a page that came twice");
        assert_eq!(inventory.see(entity(2, 1)), Some(Change::Added));
        assert!(inventory.take_removed().is_empty());
        assert_eq!(inventory.deliver(&[Id(1), Id(2)]).len(), 2);

        inventory.begin();
        assert_eq!(inventory.see(entity(1, 2)), Some(Change::Changed));
        inventory.begin();
        assert_eq!(inventory.see(entity(1, 2)), None, "it is on its way");
        inventory.withdraw(&[Id(1)]);
        inventory.begin();
        assert_eq!(inventory.see(entity(1, 2)), Some(Change::Changed));
        assert_eq!(inventory.take_removed(), [entity(2, 1)]);
        assert!(inventory.take_removed().is_empty());
        assert_eq!(inventory.deliver(&[Id(2)]), [(Change::Removed, entity(2, 1))]);
        inventory.begin();
        assert!(inventory.take_removed().iter().all(|entity| entity.key == Id(1)));
    }

    #[test]
    fn what_may_have_been_told_before_a_crash_is_spoken_of_again() {
        let mut inventory = Inventory::default();
        inventory.begin();
        assert_eq!(inventory.see(entity(1, 1)), Some(Change::Added));
        assert_eq!(inventory.see(entity(2, 1)), Some(Change::Added));
        let saved = inventory.intents(&[Id(1), Id(2)]);
        let mut inventory = Inventory::new(saved.into_iter().map(|(_, entity)| entity).collect());
        inventory.begin();
        assert_eq!(inventory.see(entity(1, 1)), Some(Change::Added), "perhaps nobody was told");
        let gone = inventory.take_removed();
        assert_eq!(gone.iter().map(|entity| entity.key).collect::<Vec<_>>(), [Id(2)]);
    }

    proptest! {
        /// Whoever replays what was delivered has the inventory, whatever sweeps were cut off and
        /// whatever was withdrawn.
        #[test]
        fn changes_replay_to_the_inventory(
            sweeps in prop::collection::vec(
                (prop::collection::btree_map(0_u8..12, 0_u8..3, 0..12), 0_u8..4), 1..12,
            ),
        ) {
            let mut inventory = Inventory::default();
            let mut replayed: BTreeMap<Id, Id> = BTreeMap::new();
            for (present, fate) in sweeps {
                inventory.begin();
                let mut told = Vec::new();
                for (&key, &version) in &present {
                    let seen = entity(key, key * 10 + version);
                    told.extend(inventory.see(seen).map(|_| Id(key.into())));
                }
                match fate {
                    0 => { inventory.withdraw(&told); continue; }
                    1 => {}
                    _ => told.extend(inventory.take_removed().iter().map(|gone| gone.key)),
                }
                for (change, entity) in inventory.deliver(&told) {
                    match change {
                        Change::Removed => drop(replayed.remove(&entity.key)),
                        _ => drop(replayed.insert(entity.key, entity.version)),
                    }
                }
                if fate > 1 {
                    let expected: BTreeMap<Id, Id> = present
                        .iter()
                        .map(|(&key, &v)| (Id(key.into()), Id((key * 10 + v).into())))
                        .collect();
                    prop_assert_eq!(&replayed, &expected);
                }
            }
        }
    }
}
