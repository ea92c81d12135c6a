//! What must hold for a fleet, whatever happened.

use std::collections::HashMap;

use in_trendmicro::checkpoint::Change;
use in_trendmicro::clock::Time;
use in_trendmicro::lease::Tenure;
use in_trendmicro::record::Id;

use crate::rig::{Mail, START};
use crate::simulation::scenario::Part;

/// One record of the vendors, and what became of it.
struct Row {
    mail: Mail,
    stream: String,
    arrivals: u32,
    /// When it was first committed, as the database counts.
    committed_at: Option<u64>,
    /// Under which tenures it arrived, and how often.
    tenures: HashMap<Tenure, u32>,
}

/// One stream.
#[derive(Default)]
struct Line {
    overlap: i64,
    rows: Vec<usize>,
    /// From when on its records are owed, in seconds after `START`.
    origin: Option<i64>,
    /// Where each epoch began to ask.
    begins: HashMap<u64, i64>,
    cursor: Option<Time>,
    epoch: u64,
}

/// Numbers over a run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub records: u64,
    pub twice: u64,
    pub requests: u64,
    pub kills: u64,
    pub stops: u64,
    pub freezes: u64,
    pub takeovers: u64,
    pub refused_commits: u64,
    pub takeover_ms_max: u64,
    pub hours: u64,
}

impl Tally {
    pub fn add(&mut self, other: &Self) {
        self.records += other.records;
        self.twice += other.twice;
        self.requests += other.requests;
        self.kills += other.kills;
        self.stops += other.stops;
        self.freezes += other.freezes;
        self.takeovers += other.takeovers;
        self.refused_commits += other.refused_commits;
        self.takeover_ms_max = self.takeover_ms_max.max(other.takeover_ms_max);
        self.hours += other.hours;
    }
}

/// Watches a run.
pub struct Watch {
    rows: Vec<Row>,
    lines: HashMap<String, Line>,
    /// The row of each id.
    ids: HashMap<(String, Id), usize>,
}

impl Watch {
    /// Watches the streams of `parts`, by the names that they have in the database.
    pub fn new(parts: &[Part], streams: &[Vec<String>]) -> Self {
        let (mut rows, mut lines) = (Vec::new(), HashMap::<String, Line>::new());
        for (part, names) in parts.iter().zip(streams) {
            for name in names {
                let overlap = part.policy.overlap.as_secs() as i64;
                lines.insert(name.clone(), Line { overlap, ..Line::default() });
            }
            for &mail in &part.mails {
                let stream = names[mail.stream].clone();
                lines.get_mut(&stream).unwrap().rows.push(rows.len());
                let (arrivals, committed_at, tenures) = (0, None, HashMap::new());
                rows.push(Row { mail, stream, arrivals, committed_at, tenures });
            }
        }
        Self { rows, lines, ids: HashMap::new() }
    }

    pub fn records(&self) -> u64 {
        self.rows.len() as u64
    }

    pub fn twice(&self) -> u64 {
        self.rows.iter().filter(|row| row.arrivals > 1).count() as u64
    }

    /// A window is asked for that begins at `start`.
    pub fn asked(&mut self, stream: &str, epoch: u64, start: i64) {
        let line = self.lines.get_mut(stream).unwrap();
        line.begins.entry(epoch).or_insert(start);
    }

    /// A batch is about to be queued.
    pub fn queued(&mut self, stream: &str, numbers: &[u64], ids: &[Id]) {
        for (&number, &id) in numbers.iter().zip(ids) {
            self.ids.insert((stream.to_owned(), id), number as usize);
        }
    }

    /// A record has reached a chunk of a host that read it under `tenure`, which began at `begun`.
    pub fn arrived(&mut self, number: u64, tenure: &Tenure, begun: u64, may_repeat: bool) {
        let row = &mut self.rows[number as usize];
        row.arrivals += 1;
        let times = row.tenures.entry(tenure.clone()).or_default();
        *times += 1;
        assert!(*times == 1 || may_repeat, "{:?} came twice under {tenure:?}", row.mail);
        let is_known = row.committed_at.is_some_and(|at| at < begun);
        assert!(!is_known, "{:?} came under {tenure:?}, but was committed before", row.mail);
    }

    /// The database has saved something, at `sequence`.
    pub fn saved(&mut self, change: &Change, sequence: u64) {
        let line = self.lines.get_mut(&change.stream).unwrap();
        let epoch = change.tenure.epoch;
        assert!(epoch >= line.epoch, "{} saved under a stale epoch", change.stream);
        line.epoch = epoch;
        for id in change.delivered.iter().flat_map(|(_, ids)| ids) {
            let row = &mut self.rows[self.ids[&(change.stream.clone(), *id)]];
            assert!(row.arrivals > 0, "{:?} was committed before a host had it", row.mail);
            row.committed_at.get_or_insert(sequence);
        }
        if change.cursor.is_some() || !change.delivered.is_empty() {
            line.origin = line.origin.or(line.begins.get(&epoch).copied());
        }
        let Some(cursor) = change.cursor else { return };
        assert!(Some(cursor) >= line.cursor, "the cursor went back to {cursor}");
        line.cursor = Some(cursor);
        let reach = cursor.timestamp() - START - line.overlap - 1;
        for &row in &line.rows {
            let Row { mail, arrivals, .. } = &self.rows[row];
            let is_owed = mail.generated >= line.origin.unwrap_or(i64::MAX)
                && mail.generated < reach
                && mail.late <= line.overlap;
            assert!(!is_owed || *arrivals > 0, "the cursor at {cursor} passed {mail:?} for good");
        }
    }

    /// Something that is owed at `now_secs` after `START` and not there.
    pub fn first_missing(&self, now_secs: i64) -> Option<String> {
        let is_missing = |row: &&Row| {
            let origin = self.lines[&row.stream].origin;
            let mail = row.mail;
            let is_owed = origin.is_some_and(|origin| mail.generated >= origin)
                && mail.generated + mail.late < now_secs - 600;
            is_owed && row.committed_at.is_none()
        };
        let row = self.rows.iter().find(is_missing)?;
        Some(format!("{:?} of {}, which arrived {} times", row.mail, row.stream, row.arrivals))
    }

    /// A stream that was not read beyond its last record.
    pub fn first_unread(&self) -> Option<(&str, Option<Time>)> {
        let unread = self.lines.iter().find(|(_, line)| {
            let cursor = line.cursor.map_or(i64::MIN, |cursor| cursor.timestamp() - START);
            let last = line.rows.iter().map(|&row| self.rows[row].mail.generated).max();
            last.is_some_and(|last| last >= cursor - line.overlap)
        });
        unread.map(|(name, line)| (name.as_str(), line.cursor))
    }
}
