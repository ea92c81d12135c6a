//! What a host does about its leases: a pure machine, told what the database shows.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Roll, Tenure, assign};
use crate::lease::Lease;

/// How long a lease that moves waits for the commit of what is on its way; what is not confirmed by
/// then is delivered again by whoever comes next.
const PATIENCE: Duration = Duration::from_secs(10);

/// How far a connector that was told to leave has gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Departure {
    /// Its thread still runs it.
    Running,
    /// Its thread has left, but records of its are still on their way.
    Left,
    /// All that it fetched is committed.
    Settled,
}

/// What is to be done, by the connector's index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deed {
    /// Take the lease as it was seen, and report to [`Keeper::taken`].
    Take(usize, Lease),
    /// The lease is lost: another member has taken it over. Make the connector leave.
    Lost(usize),
    /// The lease goes to another member. Make the connector leave once it is read so far.
    Move(usize),
    /// The connector has left. Forget what it knew and, if the lease is still held, give it back.
    Vacate(usize, Option<Tenure>),
}

#[derive(Clone, Copy)]
enum Hold {
    Out,
    Held(u64),
    Leaving { epoch: u64, is_lost: bool, since: Instant },
}

/// The leases of one host.
pub struct Keeper {
    me: String,
    connectors: Vec<(Arc<str>, Hold)>,
}

impl Keeper {
    /// The leases of the member `me`, which holds none yet.
    #[must_use]
    pub fn new(me: &str, connectors: impl IntoIterator<Item = Arc<str>>) -> Self {
        let connectors = connectors.into_iter().map(|name| (name, Hold::Out)).collect();
        Self { me: me.to_owned(), connectors }
    }

    /// A connector's lease is taken.
    pub fn taken(&mut self, connector: usize, epoch: u64) {
        self.connectors[connector].1 = Hold::Held(epoch);
    }

    /// What is to be done, now that the database shows `roll`.
    pub fn deeds(
        &mut self,
        roll: &Roll,
        now: Instant,
        departure: impl Fn(usize) -> Departure,
    ) -> Vec<Deed> {
        let spread = assign(roll);
        let mut deeds = Vec::new();
        for (index, (name, hold)) in self.connectors.iter_mut().enumerate() {
            let Some(lease) = roll.lease(name) else { continue };
            let is_meant = spread.get(&**name) == Some(&self.me.as_str());
            let has = |epoch| lease.holder.as_deref() == Some(&*self.me) && lease.epoch == epoch;
            match *hold {
                // One that is ours and not held: the answer to its taking was lost.
                Hold::Out if is_meant && roll.holder(lease).is_none_or(|m| m.id == self.me) => {
                    deeds.push(Deed::Take(index, lease.clone()));
                }
                Hold::Out => {}
                Hold::Held(epoch) if !has(epoch) => {
                    *hold = Hold::Leaving { epoch, is_lost: true, since: now };
                    deeds.push(Deed::Lost(index));
                }
                Hold::Held(epoch) if !is_meant => {
                    *hold = Hold::Leaving { epoch, is_lost: false, since: now };
                    deeds.push(Deed::Move(index));
                }
                Hold::Held(_) => {}
                Hold::Leaving { epoch, is_lost, since } => {
                    let is_late = now.saturating_duration_since(since) >= PATIENCE;
                    let is_lost = is_lost || !has(epoch);
                    let is_gone = match departure(index) {
                        Departure::Running => false,
                        Departure::Left => is_lost || is_late,
                        Departure::Settled => true,
                    };
                    *hold = Hold::Leaving { epoch, is_lost, since };
                    if is_gone {
                        *hold = Hold::Out;
                        let tenure = Tenure { connector: Arc::clone(name), epoch };
                        deeds.push(Deed::Vacate(index, (!is_lost).then_some(tenure)));
                    }
                }
            }
        }
        deeds
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{lease, member};
    use super::*;

    fn roll(members: &[&str], leases: Vec<Lease>) -> Roll {
        let names: Vec<String> = leases.iter().map(|lease| lease.connector.clone()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        Roll { members: members.iter().map(|id| member(id, &names)).collect(), leases }
    }

    fn keeper() -> Keeper {
        Keeper::new("a", ["c1".into(), "c2".into()])
    }

    #[test]
    fn what_is_free_or_a_dead_members_is_taken_and_nothing_else() {
        let mut keeper = keeper();
        let now = Instant::now();
        let (free, dead) = (lease("c1", None, 0), lease("c2", Some("dead"), 7));
        let deeds = keeper
            .deeds(&roll(&["a"], vec![free.clone(), dead.clone()]), now, |_| Departure::Settled);
        assert_eq!(deeds, [Deed::Take(0, free), Deed::Take(1, dead)]);
        let others = vec![lease("c1", Some("b"), 1), lease("c2", Some("b"), 8)];
        let deeds = keeper.deeds(&roll(&["a", "b"], others), now, |_| Departure::Settled);
        assert_eq!(deeds, [], "the other must give one back first");
    }

    #[test]
    fn a_lease_under_another_epoch_is_lost_at_once_and_taken_again_only_when_all_have_left() {
        let mut keeper = keeper();
        let now = Instant::now();
        keeper.taken(0, 3);
        let seen = roll(&["a"], vec![lease("c1", Some("a"), 4)]);
        assert_eq!(keeper.deeds(&seen, now, |_| Departure::Running), [Deed::Lost(0)]);
        assert_eq!(keeper.deeds(&seen, now, |_| Departure::Running), []);
        assert_eq!(keeper.deeds(&seen, now, |_| Departure::Left), [Deed::Vacate(0, None)]);
        let take = Deed::Take(0, lease("c1", Some("a"), 4));
        assert_eq!(keeper.deeds(&seen, now, |_| Departure::Left), [take]);
    }

    #[test]
    fn a_lease_that_moves_is_given_back_once_all_is_committed_or_patience_ends() {
        let now = Instant::now();
        let tenure = Tenure { connector: "c1".into(), epoch: 3 };
        let both = || vec![lease("c1", Some("a"), 3), lease("c2", Some("a"), 5)];
        let seen = roll(&["a", "b"], both());
        for (departure, later, is_given) in [
            (Departure::Running, PATIENCE, false),
            (Departure::Left, Duration::ZERO, false),
            (Departure::Left, PATIENCE, true),
            (Departure::Settled, Duration::ZERO, true),
        ] {
            let mut keeper = keeper();
            keeper.taken(0, 3);
            keeper.taken(1, 5);
            assert_eq!(keeper.deeds(&seen, now, |_| Departure::Running), [Deed::Move(0)]);
            let deeds = keeper.deeds(&seen, now + later, |_| departure);
            let given = [Deed::Vacate(0, Some(tenure.clone()))];
            assert_eq!(deeds, if is_given { &given[..] } else { &[] }, "{departure:?} {later:?}");
        }
    }

    #[test]
    fn a_lease_that_moves_can_be_lost_on_the_way() {
        let (mut keeper, now) = (keeper(), Instant::now());
        keeper.taken(0, 3);
        keeper.taken(1, 5);
        let held = vec![lease("c1", Some("a"), 3), lease("c2", Some("a"), 5)];
        keeper.deeds(&roll(&["a", "b"], held), now, |_| Departure::Running);
        let lost = vec![lease("c1", Some("b"), 4), lease("c2", Some("a"), 5)];
        let deeds = keeper.deeds(&roll(&["a", "b"], lost), now, |_| Departure::Left);
        assert_eq!(deeds, [Deed::Vacate(0, None)]);
    }
}
