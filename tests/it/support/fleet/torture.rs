//! Torture of a fleet: the holder of a lease is killed or frozen again and again, while the server is
//! restarted or stands still and cables are cut. What the vendor had and what all hosts delivered is
//! compared at the end, and what the database saw is looked at.

use std::fmt;
use std::thread::sleep;
use std::time::{Duration, Instant};

use chrono::Utc;
use fastrand::Rng;
use trendmicro_sim::{Fault, FaultKind, When};

use super::{CONNECTORS, Fleet, LEASE_TIMEOUT, Watch, stanza, takings, vendor, wait};
use crate::support::{fluent_bit, wait_long};

/// How many hosts share the work.
const HOSTS: usize = 3;
/// Connectors whose takeover is measured: they ask every second.
const MEASURED: &[&str] = CONNECTORS.split_at(3).0;
/// Connectors whose requests are limited per minute wait for that as well.
const CATCH_UP: Duration = Duration::from_secs(600);
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// What was done, and what came of it.
#[derive(Debug, Default)]
pub struct Outcome {
    pub seed: u64,
    pub host: String,
    pub rounds: u32,
    pub kills: u32,
    pub freezes: u32,
    pub restarts: u32,
    pub server_freezes: u32,
    pub cuts: u32,
    /// From the end of a holder to its successor's first request, with nothing else disturbed.
    pub takeovers: Vec<Duration>,
    /// The same while the server or the way to it was disturbed.
    pub disturbed: Vec<Duration>,
    /// How often a lease was taken, and how often from a host that still held it.
    pub takings: (usize, usize),
    /// Records that the vendor had.
    pub records: usize,
    /// Of these, records that did not arrive.
    pub missing: usize,
    /// Second and further copies.
    pub twice: usize,
    /// Of the copies, those of records that were committed before they were handed over again.
    pub recommitted: usize,
    /// What the database saw and must never see.
    pub faults: usize,
    /// Requests beyond the vendor's limit.
    pub violations: u64,
    /// The most requests within a minute, as the vendor counts.
    pub asked_most: usize,
    /// The first cases of everything that is not right.
    pub details: String,
}

impl Outcome {
    /// Whether every promise was kept.
    pub fn is_right(&self) -> bool {
        self.missing == 0 && self.faults == 0 && self.violations == 0
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, host, rounds, kills, freezes, restarts, server_freezes, cuts, .. } = self;
        let Self { takings, records, missing, twice, recommitted, faults, .. } = self;
        let Self { violations, asked_most, .. } = self;
        writeln!(
            f,
            "{HOSTS} times {host}, seed {seed}: {rounds} rounds, the holder of a lease {kills} times \
             killed and {freezes} times frozen"
        )?;
        writeln!(
            f,
            "the server {restarts} times restarted and {server_freezes} times frozen, {cuts} cables \
             cut"
        )?;
        for (name, times) in [("alone", &self.takeovers), ("disturbed", &self.disturbed)] {
            writeln!(f, "takeovers, {name}: {}", Spread::of(times))?;
        }
        writeln!(
            f,
            "{} leases taken, {} of them from a silent host; {faults} faults in the database",
            takings.0, takings.1
        )?;
        writeln!(
            f,
            "at most {asked_most} requests a minute of Cloud App Security, {violations} refused"
        )?;
        write!(
            f,
            "{records} records, {missing} missing, {twice} twice, {recommitted} of them although \
             they were committed"
        )
    }
}

/// The middle and the end of some times.
struct Spread(usize, Duration, Duration);

impl Spread {
    fn of(times: &[Duration]) -> Self {
        let mut times = times.to_vec();
        times.sort_unstable();
        let at = |index: usize| times.get(index).copied().unwrap_or_default();
        Self(times.len(), at(times.len() / 2), at(times.len().saturating_sub(1)))
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(count, median, max) = self;
        let (median, max) = (median.as_secs_f64(), max.as_secs_f64());
        write!(f, "{count}, median {median:.1} s, longest {max:.1} s")
    }
}

/// What happens beside the end of a holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Disturbance {
    Nothing,
    Restart,
    Freeze,
    Cut(usize),
}

/// Torments hosts for as long as `goes_on` says, asked before each round with its number; `None` where
/// there can be no server.
///
/// # Panics
/// When a host does not do what it is told, or nobody takes over.
pub fn run(seed: u64, goes_on: &mut dyn FnMut(u32) -> bool) -> Option<Outcome> {
    let mut torture = Torture::new(seed)?;
    while goes_on(torture.outcome.rounds) {
        torture.round();
        torture.outcome.rounds += 1;
    }
    Some(torture.finish())
}

struct Torture {
    rng: Rng,
    fleet: Fleet,
    watch: Option<Watch>,
    outcome: Outcome,
}

impl Torture {
    fn new(seed: u64) -> Option<Self> {
        let sim = vendor(20.0, 0.2);
        let slow = FaultKind::Slow { delay: Duration::from_millis(10) };
        sim.faults().add(Fault::new("/api/v1/log/", When::Always, slow));
        for kind in [FaultKind::Reset, FaultKind::CloseMidBody, FaultKind::TruncatedJson] {
            sim.faults().add(Fault::new("/api/v1/log/", When::Probability(0.01), kind));
        }
        let mut fleet = Fleet::new(sim, HOSTS, &stanza)?;
        fleet.start_all();
        let real = fluent_bit().map(|path| path.display().to_string());
        let watch =
            real.is_none().then(|| Watch::new(fleet.nodes.iter().map(super::Node::journal)));
        let host = real.unwrap_or_else(|| "the embedded host".to_owned());
        fleet.wait_spread(CONNECTORS.len(), HOSTS);
        let outcome = Outcome { seed, host, ..Outcome::default() };
        Some(Self { rng: Rng::with_seed(seed), fleet, watch, outcome })
    }

    /// One end of a holder.
    fn round(&mut self) {
        let up_to = self.rng.u64(..2000);
        self.rest(Duration::from_millis(up_to));
        let connector = MEASURED[self.rng.usize(..MEASURED.len())];
        let explain = || format!("{:?}\n{}", self.fleet.leases(), self.fleet.tails());
        let holder = wait("a holder", explain, || self.fleet.holder(connector));
        let disturbance = match self.rng.u8(..8) {
            0 => Disturbance::Restart,
            1 => Disturbance::Freeze,
            2 => Disturbance::Cut(self.rng.usize(..HOSTS)),
            _ => Disturbance::Nothing,
        };
        let is_kill = self.rng.bool();
        self.begin(disturbance);
        let since = Utc::now();
        if is_kill {
            self.outcome.kills += 1;
            self.fleet.kill(holder);
        } else {
            self.outcome.freezes += 1;
            self.fleet.nodes[holder].host().signal("STOP");
        }
        let begun = Instant::now();
        // Long enough for somebody else to take over, or not.
        let more = Duration::from_millis(self.rng.u64(..3000));
        if disturbance == Disturbance::Freeze || matches!(disturbance, Disturbance::Cut(_)) {
            sleep(LEASE_TIMEOUT + more);
        }
        self.end(disturbance);
        let took = self.fleet.wait_asked(connector, since);
        match disturbance {
            Disturbance::Nothing => self.outcome.takeovers.push(took),
            _ => self.outcome.disturbed.push(took),
        }
        if is_kill {
            self.rest(more);
            self.fleet.start(holder);
        } else {
            self.rest((LEASE_TIMEOUT + more).saturating_sub(begun.elapsed()));
            self.fleet.nodes[holder].host().signal("CONT");
        }
    }

    fn begin(&mut self, disturbance: Disturbance) {
        match disturbance {
            Disturbance::Nothing => {}
            Disturbance::Restart => {
                self.outcome.restarts += 1;
                self.fleet.server.restart();
            }
            Disturbance::Freeze => {
                self.outcome.server_freezes += 1;
                self.fleet.server.pause();
            }
            Disturbance::Cut(index) => {
                self.outcome.cuts += 1;
                self.fleet.nodes[index].way.cut(true);
            }
        }
        let up_to = if disturbance == Disturbance::Nothing { 1 } else { 1000 };
        sleep(Duration::from_millis(self.rng.u64(..up_to)));
    }

    fn end(&mut self, disturbance: Disturbance) {
        match disturbance {
            Disturbance::Nothing | Disturbance::Restart => {}
            Disturbance::Freeze => self.fleet.server.resume(),
            Disturbance::Cut(index) => self.fleet.nodes[index].way.cut(false),
        }
    }

    /// Lets time pass, and looks at what is handed over and committed meanwhile.
    fn rest(&mut self, time: Duration) {
        let until = Instant::now() + time;
        loop {
            if let Some(watch) = &mut self.watch {
                watch.look(&self.fleet.server, &self.fleet.database);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            sleep(left.min(LOOK_INTERVAL));
        }
    }

    /// Nothing disturbs the last hosts; what was delivered in the end is compared.
    fn finish(mut self) -> Outcome {
        self.fleet.sim.faults().clear();
        self.fleet.sim.stop_live();
        let fleet = &self.fleet;
        wait_long(
            "every connector to run",
            CATCH_UP,
            || fleet.tails(),
            || (fleet.leases().len() == CONNECTORS.len()).then_some(()),
        );
        fleet.wait_delivered(CATCH_UP);
        fleet.wait_spread(CONNECTORS.len(), HOSTS);
        self.rest(Duration::ZERO);
        self.fleet.stop_all();
        // Three looks, so that what came last is compared with what was committed before it.
        (0..3).for_each(|_| self.rest(Duration::ZERO));
        let Self { fleet, watch, mut outcome, .. } = self;
        let account = fleet.account();
        let is_right = account.unexpected.is_empty() && account.confused.is_empty();
        assert!(is_right, "{}", account.describe());
        let found = super::faults(&fleet.server, &fleet.database);
        let again = watch.as_ref().map(|watch| watch.recommitted.clone()).unwrap_or_default();
        if let Some(watch) = &watch {
            assert_eq!(account.twice.len(), watch.copies(), "{}", account.describe());
        }
        let rates = fleet.sim.rates();
        outcome.takings = takings(&fleet.server, &fleet.database);
        outcome.records = account.records;
        outcome.missing = account.missing.len();
        outcome.twice = account.twice.len();
        outcome.recommitted = again.len();
        outcome.faults = found.len();
        outcome.violations = fleet.sim.rate_violations();
        outcome.asked_most = rates.iter().map(|rate| rate.max_in_window).max().unwrap_or(0);
        outcome.details = format!(
            "{}\nfaults: {:?}\ncommitted and handed over: {:?}",
            account.describe(),
            &found[..found.len().min(5)],
            &again[..again.len().min(5)]
        );
        outcome
    }
}
