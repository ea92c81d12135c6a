//! What must hold at every moment and at the end, whatever happened.

use std::collections::HashMap;
use std::sync::Arc;

use chrono::TimeDelta;
use in_trendmicro::batch::Batch;
use in_trendmicro::checkpoint::Change;
use in_trendmicro::clock::Time;
use in_trendmicro::commit::StreamState;
use in_trendmicro::config::Emit;
use in_trendmicro::cursor::Lane;
use in_trendmicro::record::Id;

use super::scenario::{KEPT, Scenario};
use super::{News, decode, life::Life};
use crate::rig::{Mail, START};

/// The plugin gives up what is nearer to the horizon than this, in seconds.
const HORIZON_MARGIN: i64 = 5 * 60;
/// The ledger keeps an id for the minute that its window ended in.
const BUCKET_SECS: i64 = 60;

/// One record of the vendor, and what became of it.
struct Row {
    mail: Mail,
    /// Its stream, within the instance.
    stream: usize,
    arrivals: u32,
    /// Whether the disk says that it was delivered.
    is_committed: bool,
    /// How often it may arrive: once, and again after each crash, stop or loss that left it
    /// unconfirmed.
    arrivals_max: u32,
    /// It was lost beyond the horizon, and that was said.
    is_lost: bool,
    /// The life and the cursor of the sweep in which it last came.
    sweep: Option<(u32, Option<Time>)>,
}

/// One stream.
struct Line {
    part: usize,
    overlap: i64,
    span: i64,
    is_log: bool,
    /// Its rows by the time of their generation.
    rows: Vec<usize>,
    /// How many of these were found safe behind the cursor.
    safe: usize,
    /// From when on its records are owed, in seconds after `START`: where the first life that saved
    /// anything began.
    origin: Option<i64>,
    /// Where this life began to ask.
    begins: Option<i64>,
    cursor: Option<Time>,
    /// Batches that are queued or further, by who read their window and its end.
    queued: Vec<(Lane, Time, Vec<usize>)>,
}

/// Numbers over a run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub records: u64,
    pub twice: u64,
    pub lost_beyond_horizon: u64,
    pub requests: u64,
    pub kills: u64,
    pub stops: u64,
    pub losses: u64,
    pub refusals: u64,
    pub commits: u64,
    pub hours: u64,
}

impl Tally {
    pub fn add(&mut self, other: &Self) {
        self.records += other.records;
        self.twice += other.twice;
        self.lost_beyond_horizon += other.lost_beyond_horizon;
        self.requests += other.requests;
        self.kills += other.kills;
        self.stops += other.stops;
        self.losses += other.losses;
        self.refusals += other.refusals;
        self.commits += other.commits;
        self.hours += other.hours;
    }
}

/// Watches a run.
pub struct Oracle {
    rows: Vec<Row>,
    lines: Vec<Line>,
    keys: HashMap<String, usize>,
    /// The row of each id of a stream.
    numbers: HashMap<(usize, Id), usize>,
    /// What whoever replays the changes of an inventory believes to be there.
    replayed: HashMap<String, usize>,
    /// The host tells what is handed over by counts that mean nothing.
    is_exact: bool,
    life: u32,
    /// In this life a poller failed inside and began its sweep anew, or the host lost something.
    may_sweep_again: bool,
    pub tally: Tally,
}

impl Oracle {
    pub fn new(scenario: &Scenario, life: &Life) -> Self {
        let (mut rows, mut lines, mut keys) = (Vec::new(), Vec::new(), HashMap::new());
        for (arm, plan) in life.arms.iter().zip(&scenario.parts) {
            let base = rows.len();
            rows.extend(plan.mails.iter().map(|&mail| Row {
                mail,
                stream: arm.first + mail.stream,
                arrivals: 0,
                is_committed: false,
                arrivals_max: 1,
                is_lost: false,
                sweep: None,
            }));
            for (index, stream) in arm.connector.streams().iter().enumerate() {
                let own = (base..rows.len()).filter(|&row| rows[row].mail.stream == index);
                let mut own: Vec<usize> = own.collect();
                own.sort_by_key(|&row| rows[row].mail.generated);
                keys.insert(format!("{}/{}", arm.part, stream.name), lines.len());
                lines.push(Line {
                    part: arm.part,
                    overlap: plan.policy.overlap.as_secs() as i64,
                    span: plan.policy.span_max.as_secs() as i64,
                    is_log: !plan.is_inventory(),
                    rows: own,
                    safe: 0,
                    origin: None,
                    begins: None,
                    cursor: None,
                    queued: Vec::new(),
                });
            }
        }
        let mut oracle = Self {
            rows,
            lines,
            keys,
            numbers: HashMap::new(),
            replayed: HashMap::new(),
            is_exact: scenario.host.is_exact(),
            life: 0,
            may_sweep_again: false,
            tally: Tally::default(),
        };
        oracle.tally.records = oracle.rows.len() as u64;
        oracle
    }

    /// A process begins.
    pub fn begin(&mut self) {
        self.life += 1;
        self.may_sweep_again = false;
        self.lines.iter_mut().for_each(|line| line.begins = None);
    }

    /// A poller has failed inside.
    pub fn poller_died(&mut self) {
        self.may_sweep_again = true;
    }

    /// A window is asked for that begins at `start`. The first one of the first life that saves
    /// anything is where the stream begins.
    pub fn asked(&mut self, stream: usize, start: i64) {
        self.lines[stream].begins.get_or_insert(start);
    }

    /// A batch is about to be queued.
    pub fn queued(&mut self, batch: &Batch) {
        let news = decode(&batch.bytes);
        assert_eq!(news.len(), batch.records(), "a batch holds what it says");
        let line = &self.lines[batch.stream];
        if !line.is_log {
            return;
        }
        let rows: Vec<usize> = news.iter().map(|news| self.row(news)).collect();
        let ids = batch.ids.iter().map(|&id| (batch.stream, id));
        self.numbers.extend(ids.zip(rows.iter().copied()));
        self.lines[batch.stream].queued.push((batch.window.lane(), batch.span.end, rows));
    }

    /// The last batch did not find room; it will be tried again.
    pub fn unqueued(&mut self, stream: usize) {
        self.lines[stream].queued.pop();
    }

    fn row(&self, news: &News) -> usize {
        news.number.expect("a record with a number") as usize
    }

    /// A buffer has reached a chunk of the host.
    pub fn arrived(&mut self, bytes: &[u8], streams: &[Arc<StreamState>], now_secs: i64) {
        for news in decode(bytes) {
            if let Some(change) = news.change {
                self.replay(&news.name, news.number, &change, now_secs);
                continue;
            }
            let number = self.row(&news);
            let (is_exact, life) = (self.is_exact, self.life);
            let row = &mut self.rows[number];
            row.arrivals += 1;
            if self.lines[row.stream].is_log {
                let is_allowed = row.arrivals <= row.arrivals_max || !is_exact;
                assert!(is_allowed, "{:?} came twice, and no crash explains it", row.mail);
                self.tally.twice += u64::from(row.arrivals > 1);
                continue;
            }
            let sweep = Some((life, streams[row.stream].position().progress.cursor()));
            let is_allowed = row.sweep != sweep || !is_exact || self.may_sweep_again;
            assert!(is_allowed, "{:?} came twice in a sweep", row.mail);
            row.sweep = sweep;
        }
    }

    fn replay(&mut self, name: &str, number: Option<u64>, change: &str, now_secs: i64) {
        match (change, number) {
            ("removed", _) => {
                let told = self.replayed.remove(name).map(|number| self.rows[number].mail);
                let is_gone = told.is_none_or(|mail| mail.gone <= now_secs);
                assert!(is_gone, "{name} is said to be removed, and is there: {told:?}");
            }
            (_, Some(number)) => drop(self.replayed.insert(name.to_owned(), number as usize)),
            _ => panic!("{name} {change} without a record"),
        }
    }

    /// The disk has saved something.
    pub fn saved(&mut self, change: &Change) {
        let line = self.keys[&change.stream];
        if !self.lines[line].is_log {
            return;
        }
        for id in change.delivered.iter().flat_map(|(_, ids)| ids) {
            let row = &mut self.rows[self.numbers[&(line, *id)]];
            // A copy that a processor adds may be counted for a record that is still on its way.
            let has_arrived = row.arrivals > 0 || !self.is_exact;
            assert!(has_arrived, "{:?} was committed before the host had it", row.mail);
            row.is_committed = true;
        }
        let line = &mut self.lines[line];
        let is_new = change.cursor.is_some() || !change.delivered.is_empty();
        if line.origin.is_none() && is_new {
            line.origin = line.begins;
        }
        line.queued.retain(|(_, _, rows)| rows.iter().any(|&row| !self.rows[row].is_committed));
        // A round reaches back behind the cursor, so what is there may be unconfirmed.
        let overlap = TimeDelta::seconds(line.overlap);
        let moved = |(lane, _, _): &&(Lane, Time, _)| match lane {
            Lane::Live => change.cursor.map(|cursor| cursor - overlap),
            Lane::Pass(pass) => change.verified[*pass],
        };
        let passed = line.queued.iter().find(|batch| moved(batch).is_some_and(|to| batch.1 <= to));
        assert!(passed.is_none(), "a cursor passed an unconfirmed batch: {change:?}, {passed:?}");
        let Some(cursor) = change.cursor else { return };
        assert!(Some(cursor) >= line.cursor, "the cursor went back to {cursor}");
        line.cursor = Some(cursor);
        let reach = cursor.timestamp() - START - line.overlap - 1;
        while let Some(&row) =
            line.rows.get(line.safe).filter(|&&row| self.rows[row].mail.generated < reach)
        {
            let row = &self.rows[row];
            let is_owed = row.mail.generated >= line.origin.unwrap_or(i64::MAX) && !row.is_lost;
            // What comes later than that is looked for by others than the live rounds.
            let is_safe = row.arrivals > 0 || !is_owed || row.mail.late > line.overlap;
            assert!(is_safe, "the cursor at {cursor} passed {:?} for good", row.mail);
            line.safe += 1;
        }
    }

    /// What has arrived and is not committed may come again.
    fn forgive(&mut self) {
        for row in &mut self.rows {
            if !row.is_committed {
                row.arrivals_max = row.arrivals + 1;
            }
            row.sweep = None;
        }
    }

    /// The process has ended, however.
    pub fn ended(&mut self) {
        self.forgive();
        self.lines.iter_mut().for_each(|line| line.queued.clear());
    }

    /// A line of the plugin's log at `now_secs` after `START`. What it says to be lost must be.
    pub fn said(&mut self, text: &str, now_secs: i64) {
        assert!(!text.contains("astray"), "{text}");
        if text.contains("some may arrive twice") {
            // The host has lost a part of what it was handed at once, or seems to.
            self.forgive();
            self.may_sweep_again = true;
            let queued = self.lines.iter().flat_map(|line| &line.queued);
            for &row in queued.flat_map(|(_, _, rows)| rows) {
                let row = &mut self.rows[row];
                row.arrivals_max = row.arrivals_max.max(row.arrivals + 2);
            }
        }
        let Some((stream, start, end)) = parse_lost(text) else { return };
        let is_beyond = end <= now_secs - KEPT + HORIZON_MARGIN + 1;
        assert!(is_beyond, "{text}, which is not beyond the horizon at {now_secs}");
        for &row in &self.lines[stream].rows {
            let row = &mut self.rows[row];
            row.is_lost |= (start..=end).contains(&row.mail.generated);
        }
    }

    /// What must hold between any two steps.
    pub fn check(&self, life: &Life, queue_bytes_max: usize) {
        let bytes = life.queue.bytes();
        let is_bounded = bytes <= queue_bytes_max || life.queue.waiting() <= 1;
        assert!(is_bounded, "{bytes} bytes in a queue for {queue_bytes_max}");
    }

    /// What must hold whenever the committer has done its work.
    pub fn check_streams(&self, life: &Life) {
        for state in &life.streams {
            let position = state.position();
            let (counts, pending) = (position.counts, position.ledger.pending());
            assert!(position.is_balanced(), "{counts:?} with {pending} pending");
        }
    }

    /// Whether everything has arrived that is owed at `now_secs` after `START`.
    pub fn is_complete(
        &self,
        scenario: &Scenario,
        life: &Life,
        now_secs: i64,
        calm_wall: i64,
    ) -> bool {
        if life.queue.bytes() > 0 {
            return false;
        }
        let cursor = |line: usize| {
            let cursor = life.streams[line].position().progress.cursor();
            cursor.map_or(i64::MIN / 2, |cursor| cursor.timestamp() - START)
        };
        for (index, line) in self.lines.iter().enumerate() {
            let is_read = if line.is_log {
                line.rows
                    .last()
                    .is_none_or(|&row| self.rows[row].mail.generated < cursor(index) - line.overlap)
            } else {
                cursor(index) > calm_wall
            };
            let is_settled = life.streams[index].position().progress.is_settled();
            if !is_read || (!line.is_log && !is_settled) {
                return false;
            }
        }
        self.first_missing(scenario, now_secs).is_none()
    }

    /// Something that is owed and not there.
    pub fn first_missing(&self, scenario: &Scenario, now_secs: i64) -> Option<String> {
        for row in &self.rows {
            let (line, mail) = (&self.lines[row.stream], row.mail);
            let is_owed = if line.is_log {
                line.origin.is_some_and(|origin| mail.generated >= origin)
                    && mail.generated + mail.late < now_secs - HORIZON_MARGIN
                    && !row.is_lost
            } else {
                mail.gone > now_secs && scenario.parts[line.part].emit == Emit::All
            };
            let is_there = row.arrivals > 0 && (row.is_committed || !line.is_log);
            if is_owed && !is_there {
                let Row { arrivals, is_committed, .. } = row;
                return Some(format!(
                    "{mail:?} of stream {} arrived {arrivals} times, committed: {is_committed}; the \
                     stream begins at {:?}, its cursor is {:?}",
                    row.stream, line.origin, line.cursor
                ));
            }
        }
        self.wrong_replay(scenario, now_secs)
    }

    /// Where the replayed changes are not the inventory.
    fn wrong_replay(&self, scenario: &Scenario, now_secs: i64) -> Option<String> {
        let mut there = HashMap::new();
        for (number, row) in self.rows.iter().enumerate() {
            let is_told = scenario.parts[self.lines[row.stream].part].emit == Emit::Changes;
            if is_told && row.mail.generated <= now_secs && row.mail.gone > now_secs {
                there.insert(self.name_of(scenario, row), number);
            }
        }
        let is_same = there == self.replayed;
        (!is_same).then(|| format!("{:?} is there, replayed was {:?}", there, self.replayed))
    }

    /// What the vendor calls a machine.
    fn name_of(&self, scenario: &Scenario, row: &Row) -> String {
        match scenario.parts[self.lines[row.stream].part].product {
            "apex_central" => format!("E-{}", row.mail.name),
            _ => super::computer(row.mail.number + 1),
        }
    }

    /// What must hold at the very end.
    pub fn check_end(&mut self, scenario: &Scenario, life: &Life) {
        for (line, state) in self.lines.iter().zip(&life.streams) {
            let position = state.position();
            assert_eq!(position.ledger.pending(), 0, "pending when everything is delivered");
            let kept = position.ledger.delivered();
            let reach = line.cursor.map_or(i64::MIN / 2, |cursor| {
                cursor.timestamp() - START - line.overlap - line.span - 2 * BUCKET_SECS
            });
            let young =
                line.rows.iter().filter(|&&row| self.rows[row].mail.generated >= reach).count();
            // Windows that end in the vendor's future keep their ids until it is there.
            let is_bounded = !line.is_log || scenario.has_two_clocks || kept <= young;
            assert!(is_bounded, "{kept} ids are kept for {young} records");
        }
        self.tally.lost_beyond_horizon = self.rows.iter().filter(|row| row.is_lost).count() as u64;
    }
}

/// The stream and the span, in seconds after `START`, that a line of the log says to be lost.
fn parse_lost(text: &str) -> Option<(usize, i64, i64)> {
    let (before, rest) = text.split_once("what the vendor generated from ")?;
    let (span, _) = rest.split_once(" was not read in time")?;
    let (start, end) = span.split_once(" to ")?;
    let secs = |text: &str| text.parse::<Time>().ok().map(|time| time.timestamp() - START);
    let (_, stream) = before.split_once("[stream ")?;
    let stream = stream.split(']').next()?.parse().ok()?;
    Some((stream, secs(start)?, secs(end)?))
}
