//! An inventory: entities that are listed whole, and that come, change and go between two looks.
//!
//! An entity's text is made from the seed, its number and its revision, so that every state it
//! ever had can be told again.

use std::collections::VecDeque;
use std::sync::Arc;

use chrono::{DateTime, Utc};

use crate::clock::from_millis;
use crate::ledger::{Count, LedgerRecord};
use crate::rng::Rng;

/// How many entities are to come, go and change. Which ones follows from the seed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Mutation {
    /// So many are new.
    pub add: usize,
    /// So many of those before disappear.
    pub remove: usize,
    /// So many of those that stay are different.
    pub change: usize,
}

/// What came of a mutation, by the identifiers of the entities.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mutated {
    /// The new ones.
    pub added: Vec<String>,
    /// Those that are gone.
    pub removed: Vec<String>,
    /// Those that are different.
    pub changed: Vec<String>,
}

/// One answer with entities of an inventory: all of them, or a page or selection.
#[derive(Debug, Clone)]
pub struct Sweep {
    /// `agents`, `servers` or `computers`.
    pub content_type: String,
    /// When it was answered.
    pub at: DateTime<Utc>,
    /// What chose the entities: the query, for a search its body.
    pub query: String,
    /// How many entities it has.
    pub entities: usize,
    pub(crate) form: usize,
    pub(crate) versions: Arc<Vec<u32>>,
}

/// One state of one entity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Version {
    pub(crate) entity: u64,
    pub(crate) revision: u32,
    since_ms: i64,
}

impl Version {
    /// The state that an entity begins with, for its name.
    pub(crate) fn first(entity: u64) -> Self {
        Self { entity, revision: 0, since_ms: 0 }
    }
}

/// The sweeps of a long run must not fill the memory.
const SWEEPS_MAX: usize = 10_000;

/// The entities that exist, and every state that any had.
pub(crate) struct Inventory {
    content_type: &'static str,
    seed: u64,
    versions: Vec<Version>,
    current: Arc<Vec<u32>>,
    next_entity: u64,
    mutations: u64,
    /// How often each version was shown, per form of the records.
    shown: Vec<Vec<u32>>,
    latest_form: usize,
    sweeps: VecDeque<Sweep>,
}

impl Inventory {
    pub(crate) fn new(content_type: &'static str, size: usize, seed: u64, now_ms: i64) -> Self {
        let version = |entity| Version { entity, revision: 0, since_ms: now_ms };
        Self {
            content_type,
            seed,
            versions: (0..size as u64).map(version).collect(),
            current: Arc::new((0..size as u32).collect()),
            next_entity: size as u64,
            mutations: 0,
            shown: vec![Vec::new()],
            latest_form: 0,
            sweeps: VecDeque::new(),
        }
    }

    /// What exists now, by position.
    pub(crate) fn current(&self) -> Arc<Vec<u32>> {
        Arc::clone(&self.current)
    }

    pub(crate) fn version(&self, at: u32) -> Version {
        self.versions[at as usize]
    }

    /// Makes entities come, go and change.
    pub(crate) fn mutate(
        &mut self,
        mutation: Mutation,
        now_ms: i64,
        name: impl Fn(&Version) -> String,
    ) -> Mutated {
        self.mutations += 1;
        let mut rng = Rng::keyed(self.seed, &[0x6d, self.mutations]);
        let mut mutated = Mutated::default();
        let mut current = (*self.current).clone();
        for _ in 0..mutation.remove.min(current.len()) {
            let gone = current.remove(rng.below(current.len() as u64) as usize);
            mutated.removed.push(name(&self.version(gone)));
        }
        // The first of a shuffle that stops early: no entity changes twice.
        let mut places: Vec<usize> = (0..current.len()).collect();
        for nth in 0..mutation.change.min(current.len()) {
            let other = nth + rng.below((places.len() - nth) as u64) as usize;
            places.swap(nth, other);
            let old = self.version(current[places[nth]]);
            let version = Version { revision: old.revision + 1, since_ms: now_ms, ..old };
            mutated.changed.push(name(&version));
            current[places[nth]] = self.push(version);
        }
        for _ in 0..mutation.add {
            let version = Version { entity: self.next_entity, revision: 0, since_ms: now_ms };
            self.next_entity += 1;
            mutated.added.push(name(&version));
            current.push(self.push(version));
        }
        self.current = Arc::new(current);
        mutated
    }

    fn push(&mut self, version: Version) -> u32 {
        self.versions.push(version);
        (self.versions.len() - 1) as u32
    }

    /// Notes an answer. Records may have several forms, told by number.
    pub(crate) fn note_sweep(
        &mut self,
        form: usize,
        versions: Arc<Vec<u32>>,
        query: &str,
        now_ms: i64,
    ) {
        self.latest_form = form;
        if self.sweeps.len() == SWEEPS_MAX {
            self.sweeps.pop_front();
        }
        self.sweeps.push_back(Sweep {
            content_type: self.content_type.to_string(),
            at: from_millis(now_ms),
            query: query.to_string(),
            entities: versions.len(),
            form,
            versions,
        });
    }

    pub(crate) fn sweeps(&self) -> impl Iterator<Item = Sweep> + '_ {
        self.sweeps.iter().cloned()
    }

    /// Counts a record as shown, or takes that back.
    pub(crate) fn mark(&mut self, form: usize, at: usize, is_shown: bool) {
        if self.shown.len() <= form {
            self.shown.resize(form + 1, Vec::new());
        }
        let shown = &mut self.shown[form];
        if shown.len() <= at {
            shown.resize(self.versions.len(), 0);
        }
        if is_shown {
            shown[at] += 1;
        } else {
            shown[at] -= 1;
        }
    }

    fn shown(&self, form: usize, at: usize) -> u32 {
        self.shown.get(form).and_then(|shown| shown.get(at)).copied().unwrap_or(0)
    }

    /// The rows of the ledger: what exists now, in the form last asked for, and whatever was shown
    /// in any form. An exact number of copies would be of no use for what was never shown.
    pub(crate) fn rows(&self) -> Vec<Row> {
        let mut exists = vec![false; self.versions.len()];
        self.current.iter().for_each(|at| exists[*at as usize] = true);
        let forms = self.shown.len().max(self.latest_form + 1);
        let mut rows = Vec::with_capacity(self.current.len());
        for form in 0..forms {
            for (at, version) in self.versions.iter().enumerate() {
                let shown = self.shown(form, at);
                if shown > 0 || (exists[at] && form == self.latest_form) {
                    rows.push(Row { form, version: *version, shown });
                }
            }
        }
        rows
    }

    /// The rows of one answer.
    pub(crate) fn sweep_rows(&self, sweep: &Sweep) -> Vec<Row> {
        let row = |at: &u32| Row {
            form: sweep.form,
            version: self.version(*at),
            shown: self.shown(sweep.form, *at as usize),
        };
        sweep.versions.iter().map(row).collect()
    }

    pub(crate) fn count(&self) -> Count {
        let mut count = Count::default();
        for row in self.rows() {
            count.visible += 1;
            count.shown_distinct += u64::from(row.shown > 0);
            count.shown_total += u64::from(row.shown);
        }
        count
    }
}

/// One row of the ledger before it has its text.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    pub(crate) form: usize,
    pub(crate) version: Version,
    pub(crate) shown: u32,
}

impl Row {
    pub(crate) fn record(&self, content_type: &str, json: String) -> LedgerRecord {
        let since = from_millis(self.version.since_ms);
        LedgerRecord {
            content_type: content_type.to_string(),
            gen_time: since,
            visible_at: since,
            shown: u64::from(self.shown),
            json,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn mutations_hit_distinct_entities_and_follow_from_the_seed() {
        let run = || {
            let mut inventory = Inventory::new("x", 50, 7, 0);
            let mutation = Mutation { add: 3, remove: 20, change: 40 };
            let mutated = inventory.mutate(mutation, 1, |version| version.entity.to_string());
            (inventory, mutated)
        };
        let (inventory, mutated) = run();
        assert_eq!(mutated, run().1);
        let Mutated { added, removed, changed } = &mutated;
        assert_eq!((added.len(), removed.len(), changed.len()), (3, 20, 30));
        let all: HashSet<_> = removed.iter().chain(changed).chain(added).collect();
        assert_eq!((all.len(), inventory.current().len()), (53, 33));
        assert_eq!(inventory.count().visible, 33);
    }

    #[test]
    fn what_was_shown_stays_in_the_ledger() {
        let mut inventory = Inventory::new("x", 2, 7, 0);
        inventory.mark(0, 0, true);
        inventory.mark(0, 1, true);
        inventory.mark(0, 1, false);
        inventory.mutate(Mutation { remove: 2, ..Default::default() }, 1, |_| String::new());
        let count = inventory.count();
        assert_eq!((count.visible, count.shown_distinct, count.shown_total), (1, 1, 1));
    }
}
