//! A model of the database: what the hosts share, by its own clock.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use in_trendmicro::checkpoint::{Change, Registry, Saved, Store};
use in_trendmicro::clock::Time;
use in_trendmicro::error::{Error, ErrorKind, Result};
use in_trendmicro::http::limiter::Budget;
use in_trendmicro::lease::{Lease, Member, Roll, Tenure};
use in_trendmicro::record::Id;
use in_trendmicro::window::Window;

use crate::rig::Kept;

/// A member, and until when it is believed to live.
struct Entry {
    member: Member,
    until_ms: u64,
    node: usize,
}

/// The database.
pub struct Database {
    kept: BTreeMap<String, Kept>,
    entries: BTreeMap<String, Entry>,
    leases: BTreeMap<String, Lease>,
    pub budget: Budget,
    pub now_ms: u64,
    pub zero: Instant,
    /// Nodes that cannot reach it.
    pub cut: Vec<bool>,
    /// The answer to the next commit is lost.
    pub loses_answer: bool,
    /// What was saved since this was last looked at.
    pub applied: Vec<Change>,
    /// When each tenure began, by a count of all that happened here.
    pub begun: HashMap<Tenure, u64>,
    pub sequence: u64,
    /// Commits of tenures that were over.
    pub refused: u64,
    pub takeovers: u64,
}

impl Database {
    pub fn new(nodes: usize, limit: Option<u32>, zero: Instant) -> Self {
        Self {
            kept: BTreeMap::new(),
            entries: BTreeMap::new(),
            leases: BTreeMap::new(),
            budget: Budget::new(limit),
            now_ms: 0,
            zero,
            cut: vec![false; nodes],
            loses_answer: false,
            applied: Vec::new(),
            begun: HashMap::new(),
            sequence: 0,
            refused: 0,
            takeovers: 0,
        }
    }

    pub fn now(&self) -> Instant {
        self.zero + Duration::from_millis(self.now_ms)
    }

    /// How many leases each living member holds, if all are held.
    pub fn loads(&self) -> Option<Vec<usize>> {
        let is_alive = |id: &&String| self.entries[*id].until_ms > self.now_ms;
        let alive: Vec<&String> = self.entries.keys().filter(is_alive).collect();
        let load = |id: &String| {
            self.leases.values().filter(|lease| lease.holder.as_ref() == Some(id)).count()
        };
        let loads: Vec<usize> = alive.into_iter().map(load).collect();
        (loads.iter().sum::<usize>() == self.leases.len()).then_some(loads)
    }

    /// Whether a node holds a lease, alive or not.
    pub fn holds(&self, node: usize) -> bool {
        let mut holders = self.leases.values().filter_map(|lease| lease.holder.as_ref());
        holders.any(|id| self.entries.get(id).is_some_and(|entry| entry.node == node))
    }

    /// Whether a tenure is not over.
    pub fn is_current(&self, tenure: &Tenure) -> bool {
        self.leases.get(&*tenure.connector).is_some_and(|lease| lease.epoch == tenure.epoch)
    }
}

/// The database as one host sees it.
#[derive(Clone)]
pub struct Handle {
    pub database: Arc<Mutex<Database>>,
    pub node: usize,
}

impl Handle {
    fn open(&self) -> Result<MutexGuard<'_, Database>> {
        let database = self.database.lock().unwrap();
        if database.cut[self.node] {
            return Err(Error::new(ErrorKind::Store, "the database cannot be reached"));
        }
        Ok(database)
    }
}

impl Store for Handle {
    fn load(&mut self, stream: &str) -> Result<Saved> {
        Ok(self.open()?.kept.entry(stream.to_owned()).or_default().saved())
    }

    fn recall(
        &mut self,
        stream: &str,
        span: Window,
        count_max: usize,
    ) -> Result<Option<Vec<(Time, Id)>>> {
        Ok(self.open()?.kept.entry(stream.to_owned()).or_default().recall(span, count_max))
    }

    fn commit(&mut self, changes: &[Change]) -> Result<Vec<Tenure>> {
        let mut database = self.open()?;
        let mut ended = Vec::new();
        for change in changes {
            if database.is_current(&change.tenure) {
                database.sequence += 1;
                database.kept.entry(change.stream.clone()).or_default().save(change);
                database.applied.push(change.clone());
            } else {
                database.refused += 1;
                ended.push(change.tenure.clone());
            }
        }
        if std::mem::take(&mut database.loses_answer) {
            return Err(Error::new(ErrorKind::Store, "the answer is lost"));
        }
        Ok(ended)
    }

    fn renew(&mut self, _: &[Change]) -> Result<String> {
        unreachable!("a database is never damaged")
    }
}

impl Registry for Handle {
    fn beat(&mut self, me: &Member, timeout: Duration) -> Result<Roll> {
        let mut database = self.open()?;
        let until_ms = database.now_ms + timeout.as_millis() as u64;
        let (member, node) = (me.clone(), self.node);
        database.entries.insert(me.id.clone(), Entry { member, until_ms, node });
        for connector in &me.connectors {
            let lease = Lease { connector: connector.clone(), ..Lease::default() };
            database.leases.entry(connector.clone()).or_insert(lease);
        }
        let is_alive = |entry: &&Entry| entry.until_ms > database.now_ms;
        let alive = database.entries.values().filter(is_alive);
        let members = alive.map(|entry| entry.member.clone()).collect();
        Ok(Roll { members, leases: database.leases.values().cloned().collect() })
    }

    fn take(&mut self, me: &str, seen: &Lease) -> Result<Option<u64>> {
        let mut database = self.open()?;
        if database.leases.get(&seen.connector) != Some(seen) {
            return Ok(None);
        }
        database.sequence += 1;
        database.takeovers += u64::from(seen.holder.as_deref().is_some_and(|holder| holder != me));
        let (epoch, sequence) = (seen.epoch + 1, database.sequence);
        let connector = seen.connector.clone();
        let tenure = Tenure { connector: connector.as_str().into(), epoch };
        database.begun.insert(tenure, sequence);
        let lease = Lease { connector: connector.clone(), holder: Some(me.to_owned()), epoch };
        database.leases.insert(connector, lease);
        Ok(Some(epoch))
    }

    fn release(&mut self, me: &str, tenure: &Tenure) -> Result<()> {
        let mut database = self.open()?;
        let lease = database.leases.get_mut(&*tenure.connector);
        let is_held =
            |lease: &&mut Lease| lease.holder.as_deref() == Some(me) && lease.epoch == tenure.epoch;
        lease.filter(is_held).into_iter().for_each(|lease| lease.holder = None);
        Ok(())
    }

    fn leave(&mut self, me: &str) -> Result<()> {
        let mut database = self.open()?;
        database.entries.remove(me);
        let own = database.leases.values_mut().filter(|l| l.holder.as_deref() == Some(me));
        own.for_each(|lease| lease.holder = None);
        Ok(())
    }
}
