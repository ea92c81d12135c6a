//! One stream, shared by its poller and the committer: where it stands, and what of it is to be saved.

use std::array;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use super::Recalled;
use crate::activity::Activity;
use crate::batch::Batch;
use crate::checkpoint::{Change, Saved, Store};
use crate::clock::{Time, delta, lock};
use crate::config::Emit;
use crate::connector::Mode;
use crate::cursor::{Lane, Progress, WindowId};
use crate::error::Result;
use crate::lease::Tenure;
use crate::ledger::Ledger;
use crate::record::Id;
use crate::sweep::Inventory;
use crate::window::{HORIZON, PASSES, Policy, WINDOW_RECORDS_MAX, Window};

/// Ids that a verification pass compares a window with; a busier window is halved.
const RECALLED_MAX: usize = 2 * WINDOW_RECORDS_MAX;

/// What has happened to the records of one stream since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Records read from the vendor.
    pub fetched: u64,
    /// Of these, records that were known already.
    pub duplicate: u64,
    /// Of these, records confirmed by the host and committed.
    pub delivered: u64,
    /// Of these, records that only a verification pass found.
    pub late: u64,
    /// Of these, records that were given up before they were committed, since the lease ended or the
    /// poller failed; whoever comes next reads them again.
    pub left: u64,
}

/// Where one stream stands.
#[derive(Default)]
pub struct Position {
    /// Under which lease.
    pub tenure: Tenure,
    /// How far it has been delivered.
    pub progress: Progress,
    /// How far each verification pass has read.
    pub passes: [Progress; PASSES],
    /// What has been delivered.
    pub ledger: Ledger,
    /// What the receiver was told, for an inventory of which only changes are delivered.
    pub inventory: Option<Inventory>,
    /// How many records went which way.
    pub counts: Counts,
    /// The longest that a record was seen to take from its generation to its first showing.
    pub lateness_max: Duration,
}

impl Position {
    /// The progress of whoever reads a window.
    pub fn lane(&mut self, lane: Lane) -> &mut Progress {
        match lane {
            Lane::Live => &mut self.progress,
            Lane::Pass(pass) => &mut self.passes[pass],
        }
    }

    /// A new stream begins at `start`; its passes have nothing to verify before that.
    pub fn anchor(&mut self, start: Time) {
        self.progress.anchor(start);
        for pass in self.passes.iter_mut().filter(|pass| pass.cursor().is_none()) {
            pass.skip_to(start);
        }
    }

    /// The vendor's clock shows that a cursor lies in its future, where ours has put the beginning of
    /// a stream: it begins by the vendor's clock instead. Returns whether that was so.
    pub fn retreat(&mut self, vendor_now: Time, lookback: Duration) -> bool {
        let start = vendor_now - delta(lookback);
        let is_beyond = self.progress.retreat(vendor_now, start);
        for pass in self.passes.iter_mut().filter(|_| is_beyond) {
            pass.retreat(vendor_now, start);
        }
        is_beyond
    }

    /// Gives up what is pending: somebody else will read and deliver it.
    fn forfeit(&mut self) {
        self.counts.left += self.ledger.pending() as u64;
    }

    /// `fetched = delivered + duplicate + left + pending`; anything else means that records went astray.
    #[must_use]
    pub fn is_balanced(&self) -> bool {
        let Counts { fetched, duplicate, delivered, left, .. } = self.counts;
        fetched == delivered + duplicate + left + self.ledger.pending() as u64
    }
}

/// One stream, shared by its poller and the committer.
pub struct StreamState {
    pub(super) key: String,
    policy: Policy,
    mode: Mode,
    emit: Emit,
    position: Mutex<Position>,
    activity: Mutex<Activity>,
}

impl StreamState {
    /// A stream of which nothing is known yet, since another host may be reading it.
    #[must_use]
    pub fn new(key: String, policy: Policy, mode: Mode, emit: Emit) -> Self {
        let (position, activity) = (Mutex::default(), Mutex::default());
        Self { key, policy, mode, emit, position, activity }
    }

    /// A stream that nobody else reads, as it was saved.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn load(
        key: String,
        policy: Policy,
        mode: Mode,
        emit: Emit,
        store: &mut dyn Store,
    ) -> Result<Self> {
        let mut state = Self::new(key, policy, mode, emit);
        if state.begin(Tenure::default(), store)? {
            // All that the vendor still has may be missing.
            state.policy.lookback = HORIZON;
        }
        Ok(state)
    }

    /// Begins anew under a lease, from what is saved; what is still on its way under another one is
    /// no longer counted. Returns whether nobody knows where the stream stood.
    ///
    /// # Errors
    /// When the store cannot be read; the stream has not begun then.
    pub fn begin(&self, tenure: Tenure, store: &mut dyn Store) -> Result<bool> {
        let Saved { cursor, verified, entities, is_unknown } = store.load(&self.key)?;
        let mut ledger = Ledger::default();
        if let Some(cursor) = cursor {
            let reachable = Window { start: self.policy.reach(cursor), end: Time::MAX_UTC };
            let ids = store.recall(&self.key, reachable, usize::MAX)?;
            ids.iter().flatten().for_each(|&(until, id)| ledger.deliver(&[id], until));
        }
        let epoch = tenure.epoch;
        // A store that knows nothing of passes has forgotten what they would compare with.
        let pass = |pass| Progress::of(Lane::Pass(pass), verified[pass].or(cursor)).under(epoch);
        let mut position = self.position();
        position.forfeit();
        *position = Position {
            tenure,
            progress: Progress::new(cursor).under(epoch),
            passes: array::from_fn(pass),
            ledger,
            inventory: (self.emit == Emit::Changes).then(|| Inventory::new(entities)),
            ..*position
        };
        Ok(is_unknown)
    }

    /// The lease is lost: from now on nothing that was read under it is handed over or saved.
    pub fn lose(&self) {
        self.position().tenure = Tenure::default();
    }

    /// Forgets what was known under a lease, once nobody reads under it any more.
    pub fn vacate(&self) {
        let mut position = self.position();
        position.forfeit();
        *position = Position {
            counts: position.counts,
            lateness_max: position.lateness_max,
            ..Position::default()
        };
    }

    /// Whether a batch was read under the lease that is held now.
    #[must_use]
    pub fn is_current(&self, batch: &Batch) -> bool {
        self.position().tenure.epoch == batch.window.epoch()
    }

    /// Whether all that was read is committed.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.position().ledger.pending() == 0
    }

    /// Its windows' policy.
    #[must_use]
    pub fn policy(&self) -> Policy {
        self.policy
    }

    /// How it is read.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Where it stands; held briefly, for memory is all that is touched.
    pub fn position(&self) -> MutexGuard<'_, Position> {
        lock(&self.position)
    }

    /// What its poller is doing; held briefly, and never together with the position.
    pub fn activity(&self) -> MutexGuard<'_, Activity> {
        lock(&self.activity)
    }

    /// Gives up the windows of a lane that are not read to their end, and the batches of them that
    /// nobody has seen; all of it is asked for again.
    pub fn abandon(&self, lane: Lane, unseen: &[Batch]) {
        let mut position = self.position();
        for batch in unseen {
            position.ledger.withdraw(&batch.ids);
            position.lane(lane).settled(batch.window);
            position.counts.left += batch.records() as u64;
            if let Some(inventory) = &mut position.inventory {
                inventory.withdraw(&batch.ids);
            }
        }
        position.lane(lane).abandon();
    }

    /// Whether a verification pass of that number reads it again.
    #[must_use]
    pub fn has_pass(&self, pass: usize) -> bool {
        self.mode == Mode::Log && self.policy.pass_age(pass).is_some()
    }

    /// Whether batches must be announced to the committer before they are queued.
    #[must_use]
    pub fn has_intents(&self) -> bool {
        self.position().inventory.is_some()
    }

    /// What is to be saved before a batch may reach the host.
    pub(super) fn intend(&self, ids: &[Id]) -> Change {
        let position = self.position();
        let entities = position.inventory.as_ref().map(|inventory| inventory.intents(ids));
        let entities = entities.unwrap_or_default();
        let tenure = position.tenure.clone();
        Change { tenure, stream: self.key.clone(), entities, ..Change::default() }
    }

    /// Takes batches over as delivered and moves the cursors.
    pub(super) fn settle(&self, batches: &[&Batch]) -> Change {
        let mut position = self.position();
        let mut delivered: HashMap<WindowId, (Window, Vec<Id>)> = HashMap::new();
        let mut entities = Vec::new();
        for batch in batches {
            if let Some(inventory) = &mut position.inventory {
                entities.extend(inventory.deliver(&batch.ids));
            }
            position.ledger.deliver(&batch.ids, batch.span.end);
            position.lane(batch.window.lane()).settled(batch.window);
            position.counts.delivered += batch.records() as u64;
            // Batches from before and after a split name the same window with another span.
            let (span, ids) = delivered.entry(batch.window).or_insert((batch.span, Vec::new()));
            span.end = span.end.max(batch.span.end);
            ids.extend(&batch.ids);
        }
        let cursor = position.progress.advance();
        let verified = array::from_fn(|pass| position.passes[pass].advance());
        // Also what a pass has just found: only the store can tell it from late records again.
        if let Some(cursor) = position.progress.cursor() {
            position.ledger.forget(self.policy.reach(cursor));
        }
        // A sweep that was cut off begins anew, so nobody asks what it had delivered.
        let is_kept = self.mode == Mode::Log;
        Change {
            tenure: position.tenure.clone(),
            stream: self.key.clone(),
            delivered: delivered.into_values().filter(|_| is_kept).collect(),
            entities,
            cursor,
            verified,
            forget_before: cursor.map(|cursor| self.policy.memory(cursor)),
        }
    }

    /// Everything that a new store must know, when the old one is lost.
    ///
    /// The ledger in memory reaches back only as far as the overlap, so the passes begin there.
    pub(super) fn snapshot(&self) -> Change {
        let mut position = self.position();
        let cursor = position.progress.cursor();
        if let Some(cursor) = cursor {
            let known_from = self.policy.reach(cursor);
            position.passes.iter_mut().for_each(|pass| pass.skip_to(known_from));
        }
        let span = |end| Window { start: Time::UNIX_EPOCH, end };
        let delivered = position.ledger.buckets().map(|(until, ids)| (span(until), ids));
        Change {
            tenure: position.tenure.clone(),
            stream: self.key.clone(),
            delivered: delivered.filter(|_| self.mode == Mode::Log).collect(),
            entities: position.inventory.as_ref().map(Inventory::snapshot).unwrap_or_default(),
            cursor,
            verified: array::from_fn(|pass| position.passes[pass].cursor()),
            forget_before: None,
        }
    }

    /// What a pass compares a window with.
    pub(super) fn recall(
        &self,
        lane: Lane,
        span: Window,
        store: &mut dyn Store,
    ) -> Result<Recalled> {
        // The store may have been made anew since the window was planned.
        if self.position().lane(lane).cursor() > Some(span.start) {
            return Ok(Recalled::Forgotten);
        }
        let known = store.recall(&self.key, span, RECALLED_MAX)?;
        Ok(known.map_or(Recalled::TooMany, |known| {
            Recalled::Known(known.into_iter().map(|(_, id)| id).collect())
        }))
    }
}
