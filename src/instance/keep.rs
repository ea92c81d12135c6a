//! The thread that keeps an instance's leases: it says that this host lives, looks who else does, and
//! lets connectors run or makes them leave. What to do is the [`Keeper`]'s to say.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::activity::Standing;
use crate::checkpoint::Registry;
use crate::clock::{Stop, monotonic};
use crate::commit::StreamState;
use crate::error::{Error, ErrorKind, Result};
use crate::lease::{Deed, Departure, Keeper, Lease, Member, Roll, Seat, Tenure, Warrant};
use crate::log::Logger;

/// From one sign of life to the next, at most.
const BEAT_INTERVAL_MAX: Duration = Duration::from_secs(1);
/// Signs of life within a timeout, at least.
const BEATS_MIN: u32 = 6;

/// A connector, as far as its lease is concerned.
pub struct Desk {
    /// Its name.
    pub name: String,
    /// The name of its lease.
    pub lease: Arc<str>,
    /// Where its thread waits.
    pub seat: Arc<Seat>,
    /// Its streams.
    pub streams: Vec<Arc<StreamState>>,
}

impl Desk {
    fn departure(&self) -> Departure {
        if !self.seat.is_vacant() {
            return Departure::Running;
        }
        let is_settled = self.streams.iter().all(|stream| stream.is_settled());
        if is_settled { Departure::Settled } else { Departure::Left }
    }

    fn note(&self, standing: impl Fn(&mut Standing)) {
        for stream in &self.streams {
            standing(stream.activity().standing.get_or_insert_default());
        }
    }
}

/// What keeps the leases of one instance.
pub struct Keep {
    registry: Box<dyn Registry>,
    me: Member,
    lease_timeout: Duration,
    keeper: Keeper,
    desks: Vec<Desk>,
    warrant: Warrant,
    stop: Stop,
    logger: Logger,
    /// The kinds of errors that were told since the database went away; empty while it answers.
    told: Vec<ErrorKind>,
}

impl Keep {
    /// The leases of a host that has just come.
    ///
    /// # Errors
    /// When the database refuses what is configured; one that cannot be reached may be back later.
    pub fn open(
        registry: Box<dyn Registry>,
        lease_timeout: Duration,
        desks: Vec<Desk>,
        stop: Stop,
        logger: Logger,
        now: Instant,
    ) -> Result<Self> {
        let name = gethostname::gethostname().to_string_lossy().into_owned();
        let me = Member {
            id: format!("{name}/{:016x}", fastrand::u64(..)),
            name,
            connectors: desks.iter().map(|desk| desk.lease.to_string()).collect(),
        };
        let keeper = Keeper::new(&me.id, desks.iter().map(|desk| Arc::clone(&desk.lease)));
        let warrant = Warrant::until(now);
        let mut keep = Self {
            registry,
            me,
            lease_timeout,
            keeper,
            desks,
            warrant,
            stop,
            logger,
            told: Vec::new(),
        };
        keep.desks.iter().for_each(|desk| desk.note(|_| {}));
        match keep.look(now) {
            Err(error) if error.kind() == ErrorKind::Config => Err(error),
            seen => {
                keep.note_contact(seen.as_ref().err());
                Ok(keep)
            }
        }
    }

    /// Until when the host may act.
    #[must_use]
    pub fn warrant(&self) -> Warrant {
        self.warrant.clone()
    }

    /// Keeps the leases until the instance stops, and holds them until `done`: what was delivered
    /// last must still be committed.
    pub(super) fn run(mut self, done: &Stop) {
        let interval = BEAT_INTERVAL_MAX.min(self.lease_timeout / BEATS_MIN);
        while !self.stop.is_raised() {
            self.beat(monotonic());
            let _ = self.stop.wait(interval);
        }
        while !done.wait(interval) {
            let seen = self.look(monotonic());
            self.note_contact(seen.as_ref().err());
        }
        self.leave();
    }

    /// Gives all leases back.
    pub fn leave(&mut self) {
        if let Err(error) = self.registry.leave(&self.me.id) {
            self.logger.warn(format!(
                "{error}; other hosts take over only after lease_timeout, since this one could not \
                 give its leases back"
            ));
        }
    }

    /// Says that this host lives, and does what is to be done at `now`.
    pub fn beat(&mut self, now: Instant) {
        let seen = self.look(now);
        self.note_contact(seen.as_ref().err());
        let Ok(roll) = seen else { return };
        self.note_holders(&roll);
        let desks = &self.desks;
        let deeds = self.keeper.deeds(&roll, now, |desk| desks[desk].departure());
        let begun = monotonic();
        for deed in deeds {
            // With many leases to take from a slow database, this host must not be silent meanwhile.
            let is_late = begun.elapsed() > self.lease_timeout / BEATS_MIN;
            if is_late && matches!(deed, Deed::Take(..)) {
                continue;
            }
            if let Err(error) = self.act(deed, &roll) {
                // The next beat begins with what this one left.
                return self.note_contact(Some(&error));
            }
        }
    }

    /// Says that this host lives; from then on it may act for a while.
    fn look(&mut self, now: Instant) -> Result<Roll> {
        // What is left of the timeout is for others to see it and to begin.
        let lifetime = self.lease_timeout - self.lease_timeout / BEATS_MIN;
        let roll = self.registry.beat(&self.me, lifetime)?;
        self.warrant.extend(now + lifetime);
        Ok(roll)
    }

    fn act(&mut self, deed: Deed, roll: &Roll) -> Result<()> {
        match deed {
            Deed::Take(desk, seen) => self.take(desk, &seen, roll)?,
            Deed::Lost(desk) => {
                let Desk { name, streams, seat, .. } = &self.desks[desk];
                streams.iter().for_each(|stream| stream.lose());
                seat.end();
                self.logger.child(name).warn(
                    "the lease is lost: this host was silent for too long and another one may have \
                     taken over; what was delivered and is not committed comes twice",
                );
            }
            Deed::Move(desk) => {
                self.desks[desk].seat.end();
                self.logger.child(&self.desks[desk].name).info(
                    "moves to another host, so that all have the same share; first, what was read \
                     is delivered",
                );
            }
            Deed::Vacate(desk, tenure) => {
                self.desks[desk].streams.iter().for_each(|stream| stream.vacate());
                self.desks[desk].note(|standing| standing.is_held = false);
                if let Some(tenure) = tenure {
                    self.registry.release(&self.me.id, &tenure)?;
                }
            }
        }
        Ok(())
    }

    /// Takes a lease, reads where its streams stand, and lets the connector run.
    fn take(&mut self, index: usize, seen: &Lease, roll: &Roll) -> Result<()> {
        let Some(epoch) = self.registry.take(&self.me.id, seen)? else { return Ok(()) };
        let desk = &self.desks[index];
        for stream in &desk.streams {
            let tenure = Tenure { connector: Arc::clone(&desk.lease), epoch };
            stream.begin(tenure, &mut *self.registry)?;
        }
        self.keeper.taken(index, epoch);
        let silent = seen.holder.as_deref().filter(|&id| id != self.me.id);
        desk.note(|standing| {
            standing.is_held = true;
            standing.epoch = epoch;
            standing.holder.clone_from(&self.me.name);
            standing.takeovers += u64::from(silent.is_some());
        });
        let from = silent
            .map_or_else(String::new, |id| format!(", taken over from {id}, which is silent"));
        let hosts = roll.members.len();
        self.logger
            .child(&desk.name)
            .info(format!("runs on this host now, one of {hosts}; epoch {epoch}{from}"));
        desk.seat.grant(self.stop.child());
        Ok(())
    }

    /// Lets others see who runs what this host does not.
    fn note_holders(&self, roll: &Roll) {
        for desk in &self.desks {
            let holder = roll.lease(&desk.lease).and_then(|lease| roll.holder(lease));
            let name = holder.map_or("", |member| &member.name);
            desk.note(|standing| {
                if standing.holder != name {
                    name.clone_into(&mut standing.holder);
                }
            });
        }
    }

    /// Says once that the database is away, once that a person has to change something, and once that it
    /// is back.
    fn note_contact(&mut self, error: Option<&Error>) {
        match error {
            Some(error) if !self.told.contains(&error.kind()) => {
                self.told.push(error.kind());
                self.logger.error(format!(
                    "{error}; nothing is lost: nothing new is asked for or saved until it answers, \
                     and what was fetched waits"
                ));
            }
            None if !self.told.is_empty() => {
                self.told.clear();
                self.logger.info("the database answers again");
            }
            _ => {}
        }
        self.desks.iter().for_each(|desk| desk.note(|standing| standing.is_away = error.is_some()));
    }
}
