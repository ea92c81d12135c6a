//! Torture: one host after the other is killed, frozen, reloaded, stalled and starved of disk, while
//! the vendor goes on. What the vendor had and what arrived is compared at the end.

use std::fmt;
use std::thread::sleep;
use std::time::{Duration, Instant};

use fastrand::Rng;
use trendmicro_sim::{EmailConfig, Fault, FaultKind, Sim, When};

use super::{
    Books, Config, Disk, Form, Host, Place, Receiver, Watch, config, email, fluent_bit, simulate,
    wait_delivered_long, wait_long,
};

/// Set for a program that is to be the embedded host.
pub const AS_HOST: &str = "IN_TRENDMICRO_AS_HOST";
/// What the plugin logs once it runs.
const STARTED: &str = "connectors; records are";
/// How long the last host may take for what its predecessors left.
const CATCH_UP: Duration = Duration::from_secs(600);
/// How long a start may take.
const START: Duration = Duration::from_secs(120);
/// How long a reload may take.
const RELOAD: Duration = Duration::from_secs(60);
/// What the outcome calls the host that is none of Fluent Bit's.
const EMBEDDED: &str = "the embedded host";

/// What was done, and what came of it.
#[derive(Debug, Default)]
pub struct Outcome {
    pub seed: u64,
    pub host: String,
    pub rounds: u32,
    pub kills: u32,
    pub stops: u32,
    pub reloads: u32,
    /// Of these, reloads that a real host never came to the end of, and was killed in.
    pub hung_reloads: u32,
    pub freezes: u32,
    pub stalls: u32,
    pub full_disks: u32,
    /// Full disks on which the plugin had something to write, and said that it could not.
    pub full_disks_felt: u32,
    pub read_only_starts: u32,
    /// Records that the vendor had.
    pub records: u64,
    /// Of these, records that did not arrive.
    pub missing: usize,
    /// Second and further copies.
    pub twice: usize,
    /// The first cases of everything that is not right.
    pub details: String,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, host, rounds, kills, stops, reloads, hung_reloads, freezes, .. } = self;
        let Self { stalls, full_disks, full_disks_felt, read_only_starts, .. } = self;
        let Self { records, missing, twice, .. } = self;
        writeln!(
            f,
            "{host}, seed {seed}: {rounds} rounds, {kills} times kill -9, {stops} times SIGTERM"
        )?;
        writeln!(
            f,
            "{reloads} reloads ({hung_reloads} hung), {freezes} freezes, {stalls} stalled outputs, \
             {full_disks} full disks ({full_disks_felt} felt), {read_only_starts} starts on a \
             read-only disk"
        )?;
        write!(f, "{records} records, {missing} missing, {twice} twice")
    }
}

/// Torments hosts for as long as `goes_on` says, asked before each round with its number.
///
/// The host is the real one that `FLUENT_BIT` names, with filesystem storage, else the embedded one.
///
/// # Panics
/// When a host does not do what it is told, or something comes again that was committed.
pub fn run(seed: u64, goes_on: &mut dyn FnMut(u32) -> bool) -> Outcome {
    let mut torture = Torture::new(seed);
    while goes_on(torture.outcome.rounds) {
        torture.round();
        torture.outcome.rounds += 1;
    }
    torture.finish()
}

struct Torture {
    rng: Rng,
    place: Place,
    disk: Disk,
    sim: Sim,
    receiver: Receiver,
    config: Config,
    is_real: bool,
    /// What came again, where the host's journal can be read.
    watch: Option<Watch>,
    outcome: Outcome,
}

impl Torture {
    fn new(seed: u64) -> Self {
        let (place, is_real) = (Place::new(), fluent_bit().is_some());
        let disk = Disk::new(place.path("state"));
        if !disk.is_mounted() {
            eprintln!(
                "NOT TESTED: a full and a read-only disk, since this machine lets us mount none \
                 (run as root, or below `unshare --map-root-user --mount`)"
            );
        }
        let sim = vendor(seed);
        let receiver = Receiver::start(vec![place.out()]);
        receiver.open(true);
        let config = configure(&sim, &place, &disk, is_real.then_some(receiver.port()));
        let journal = place.path("storage/trendmicro.0.journal");
        let watch = (!is_real).then(|| Watch::new(journal, disk.path().join("state.db")));
        let host = fluent_bit().map_or(EMBEDDED.to_owned(), |path| path.display().to_string());
        let outcome = Outcome { seed, host, ..Outcome::default() };
        let rng = Rng::with_seed(seed);
        Self { rng, place, disk, sim, receiver, config, is_real, watch, outcome }
    }

    /// One host, from its start to its end.
    fn round(&mut self) {
        if self.disk.is_mounted() && self.rng.u8(..10) == 0 && self.outcome.rounds > 0 {
            self.start_on_a_read_only_disk();
        }
        let host = self.start();
        if self.outcome.rounds == 0 && !self.is_real {
            // Before the embedded host has noted a position it cannot tell what it has delivered.
            let noted = || self.place.path("storage/host.pos").exists().then_some(());
            wait_long("the host's position", START, || host.log_tail(), noted);
        }
        for _ in 0..self.rng.u8(..3) {
            self.sleep(0..1000);
            if !self.disturb(&host) {
                return self.kill(host);
            }
        }
        self.sleep(0..2000);
        if self.rng.u8(..8) > 0 {
            return self.kill(host);
        }
        self.outcome.stops += 1;
        self.stop(host);
        self.look();
    }

    /// Does something to a host; false if that should not end before its life does.
    fn disturb(&mut self, host: &Host) -> bool {
        let outlasts = self.rng.bool();
        match self.rng.u8(..4) {
            0 => {
                self.outcome.freezes += 1;
                host.signal("STOP");
                self.sleep(100..3000);
                if !outlasts {
                    host.signal("CONT");
                }
            }
            1 => {
                self.outcome.stalls += 1;
                self.stall(host, true);
                self.sleep(100..3000);
                if !outlasts {
                    self.stall(host, false);
                }
            }
            2 if self.disk.is_mounted() => self.fill_disk(host, outlasts),
            _ => return self.reload(host, outlasts),
        }
        !outlasts
    }

    /// Reloads a host; false if it is to die in the middle of that, or hangs there.
    fn reload(&mut self, host: &Host, outlasts: bool) -> bool {
        let loads = || host.log().matches(STARTED).count();
        let before = loads();
        self.outcome.reloads += 1;
        host.signal("HUP");
        if outlasts {
            self.sleep(0..1500);
            return false;
        }
        let begun = Instant::now();
        while loads() == before {
            if begun.elapsed() > RELOAD {
                // Some real hosts wait for ever for chunks that an earlier one has left.
                assert!(self.is_real, "a reload hangs\n{}", host.log_tail());
                self.outcome.hung_reloads += 1;
                return false;
            }
            sleep(Duration::from_millis(50));
        }
        true
    }

    fn fill_disk(&mut self, host: &Host, outlasts: bool) {
        const FULL: &str = "collecting waits until positions can be saved";
        let felt = || host.log().matches(FULL).count() as u32;
        let before = felt();
        self.outcome.full_disks += 1;
        self.disk.fill();
        self.sleep(500..4000);
        self.outcome.full_disks_felt += felt() - before;
        if !outlasts {
            self.disk.clear();
        }
    }

    /// A host that cannot write its state must not start, and say why.
    fn start_on_a_read_only_disk(&mut self) {
        self.outcome.read_only_starts += 1;
        self.disk.protect(true);
        let host = self.spawn();
        let line = host.wait_log("db = \"");
        assert!(line.contains("[error]") && line.contains("state.db"), "{line}");
        // Hosts before 4 do not end when an input fails; they hang.
        host.kill();
        self.disk.protect(false);
    }

    fn start(&self) -> Host {
        let host = self.spawn();
        host.wait_log(STARTED);
        host
    }

    fn spawn(&self) -> Host {
        if self.is_real {
            let host = Host::start_real(&self.place, "host.conf", &self.config.classic());
            return host.expect("the real host was there at the beginning");
        }
        Host::start(&self.place, &self.config, &[])
    }

    fn kill(&mut self, host: Host) {
        self.outcome.kills += 1;
        host.kill();
        self.look();
        self.disk.clear();
        self.receiver.open(true);
    }

    fn stop(&self, host: Host) {
        if self.is_real {
            host.stop_real();
        } else {
            host.stop();
        }
    }

    fn look(&mut self) {
        if let Some(watch) = &mut self.watch {
            watch.look();
        }
    }

    fn stall(&self, host: &Host, is_stalled: bool) {
        if self.is_real {
            self.receiver.open(!is_stalled);
        } else {
            host.command(if is_stalled { "stall" } else { "unstall" });
        }
    }

    fn sleep(&mut self, millis: std::ops::Range<u64>) {
        sleep(Duration::from_millis(self.rng.u64(millis)));
    }

    /// Nothing disturbs the last host; what it delivers in the end is compared.
    fn finish(mut self) -> Outcome {
        self.sim.faults().clear();
        self.sim.stop_live();
        let host = self.start();
        wait_delivered_long(&host, &self.sim, &self.place.out(), CATCH_UP);
        self.stop(host);
        self.look();
        let books = Books::of(&self.sim, &self.place.out(), Form::Envelope);
        let is_right = books.unexpected.is_empty() && books.confused.is_empty();
        assert!(is_right, "{}", books.describe());
        if let Some(watch) = &self.watch {
            assert_eq!(books.duplicates.len(), watch.duplicates, "{}", books.describe());
        }
        Outcome {
            records: self.sim.counts().visible,
            missing: books.missing.len(),
            twice: books.duplicates.len(),
            details: books.describe(),
            ..self.outcome
        }
    }
}

/// A vendor with something to hand over at every moment, some of it late, and some faults.
fn vendor(seed: u64) -> Sim {
    let sim = simulate(EmailConfig {
        accepted_backlog: 4000,
        blocked_backlog: 1000,
        policy_backlog: 1000,
        live_per_second: 60.0,
        page_limit_max: 50,
        lateness: trendmicro_sim::Lateness::Uniform { max: Duration::from_secs(10), share: 0.1 },
        ..email()
    });
    let mut rng = Rng::with_seed(seed);
    let slow = FaultKind::Slow { delay: Duration::from_millis(rng.u64(5..20)) };
    sim.faults().add(Fault::new("/api/v1/log/", When::Always, slow));
    for kind in [FaultKind::Reset, FaultKind::CloseMidBody, FaultKind::TruncatedJson] {
        sim.faults().add(Fault::new("/api/v1/log/", When::Probability(0.01), kind));
    }
    sim
}

/// Storage that survives the host, as the documentation recommends it, and a state file on `disk`.
fn configure(sim: &Sim, place: &Place, disk: &Disk, port: Option<u16>) -> Config {
    let state = disk.path().join("state.db").display().to_string();
    let config = config(sim, place).service("storage.path", &place.text("storage")).with(&[
        ("storage.type", "filesystem"),
        ("queue_limit", "1M"),
        ("overlap", "1m"),
        ("db", &state),
    ]);
    let Some(port) = port else { return config };
    let mut config = config
        .service("flush", "1")
        .service("storage.backlog.mem_limit", "50M")
        .service("scheduler.base", "1")
        .service("scheduler.cap", "2");
    let output = config.outputs.remove(0).without("path").without("file").set("name", "http");
    let output = output.set("host", "127.0.0.1").set("port", &port.to_string()).set("uri", "/0");
    config.outputs.push(output.set("format", "json_lines").set("retry_limit", "no_limits"));
    config
}
