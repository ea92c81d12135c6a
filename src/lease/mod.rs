//! Who runs what, where several hosts share one state: the lease of each connector, and how the
//! connectors are spread.
//!
//! A lease is the right to run one connector. It has an *epoch*, which grows with every new holder;
//! whatever is saved is saved under an epoch, and the store refuses one that is no longer the
//! lease's. So a host that was paused, cut off or slow can do no harm, whatever it believes.
//!
//! A host holds its leases for as long as it says often enough that it lives. All times by which that
//! is judged are the database's; a host's own clock only tells it how long ago it last said so.

mod keeper;
mod seat;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

pub use keeper::{Deed, Departure, Keeper};
pub use seat::{Seat, Warrant};

/// A host, for as long as its process runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Member {
    /// Which process, and which of its inputs; never the same twice.
    pub id: String,
    /// What people call the host.
    pub name: String,
    /// The connectors that it is able to run, by their leases' names.
    pub connectors: Vec<String>,
}

/// The right to run a connector.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lease {
    /// The connector.
    pub connector: String,
    /// The id of the member that holds it; `None` if nobody does.
    pub holder: Option<String>,
    /// How often it has been taken.
    pub epoch: u64,
}

/// A lease at one of its epochs; a state file knows none, and everything happens in epoch 0.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tenure {
    /// The connector.
    pub connector: Arc<str>,
    /// The epoch.
    pub epoch: u64,
}

/// Who lives, and who runs what, as one look at the database shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roll {
    /// Members that have said lately that they live.
    pub members: Vec<Member>,
    /// All leases, those of dead members too.
    pub leases: Vec<Lease>,
}

impl Roll {
    /// The lease of a connector.
    #[must_use]
    pub fn lease(&self, connector: &str) -> Option<&Lease> {
        self.leases.iter().find(|lease| lease.connector == connector)
    }

    /// A member that lives.
    #[must_use]
    pub fn member(&self, id: &str) -> Option<&Member> {
        self.members.iter().find(|member| member.id == id)
    }

    /// The living member that holds a lease.
    #[must_use]
    pub fn holder(&self, lease: &Lease) -> Option<&Member> {
        lease.holder.as_deref().and_then(|id| self.member(id))
    }
}

/// Which member should run each connector: as even as can be, and with as few moves as that takes.
///
/// Whoever holds a lease and lives keeps it, unless another member has two fewer. Every host computes
/// the same from the same roll, so nobody needs to be asked.
#[must_use]
pub fn assign(roll: &Roll) -> BTreeMap<&str, &str> {
    let mut members: Vec<&Member> = roll.members.iter().collect();
    members.sort_by(|one, two| one.id.cmp(&two.id));
    let mut leases: Vec<&Lease> = roll.leases.iter().collect();
    leases.sort_by(|one, two| one.connector.cmp(&two.connector));
    let mut spread = Spread::new(&members);
    for lease in &leases {
        let holder = members.iter().position(|m| Some(&m.id) == lease.holder.as_ref());
        if let Some(holder) = holder.filter(|&member| spread.is_able(member, &lease.connector)) {
            spread.give(&lease.connector, holder);
        }
    }
    for lease in &leases {
        if !spread.of.contains_key(lease.connector.as_str())
            && let Some(member) = spread.least_loaded(&lease.connector)
        {
            spread.give(&lease.connector, member);
        }
    }
    while spread.level() {}
    spread
        .of
        .into_iter()
        .map(|(connector, member)| (connector, members[member].id.as_str()))
        .collect()
}

/// Connectors on members, as far as they are assigned. Members are told by their places.
struct Spread<'a> {
    /// The members that are able to run a connector, the first by id first: who levels asks often.
    able: HashMap<&'a str, Vec<usize>>,
    loads: Vec<usize>,
    of: BTreeMap<&'a str, usize>,
}

impl<'a> Spread<'a> {
    /// Nothing is assigned yet.
    fn new(members: &[&'a Member]) -> Self {
        let mut able: HashMap<&str, Vec<usize>> = HashMap::new();
        for (index, member) in members.iter().enumerate() {
            for connector in &member.connectors {
                able.entry(connector).or_default().push(index);
            }
        }
        Self { able, loads: vec![0; members.len()], of: BTreeMap::new() }
    }

    fn able(&self, connector: &str) -> &[usize] {
        self.able.get(connector).map_or(&[], Vec::as_slice)
    }

    fn is_able(&self, member: usize, connector: &str) -> bool {
        self.able(connector).contains(&member)
    }

    fn give(&mut self, connector: &'a str, member: usize) {
        if let Some(before) = self.of.insert(connector, member) {
            self.loads[before] -= 1;
        }
        self.loads[member] += 1;
    }

    fn least_loaded(&self, connector: &str) -> Option<usize> {
        let able = self.able(connector).iter().copied();
        able.min_by_key(|&member| (self.loads[member], member))
    }

    /// Moves one connector to a member that has at least two fewer; false if there is none.
    fn level(&mut self) -> bool {
        let moves = self.of.iter().filter_map(|(&connector, &from)| {
            let to = self.least_loaded(connector)?;
            let gain = self.loads[from].saturating_sub(self.loads[to]);
            (gain >= 2).then_some((gain, connector, to))
        });
        // The first by name of those that gain most.
        let best = moves.max_by(|one, two| one.0.cmp(&two.0).then(two.1.cmp(one.1)));
        best.map(|(_, connector, to)| self.give(connector, to)).is_some()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(super) fn member(id: &str, connectors: &[&str]) -> Member {
        let connectors = connectors.iter().map(|&name| name.to_owned()).collect();
        Member { id: id.to_owned(), name: id.to_owned(), connectors }
    }

    pub(super) fn lease(connector: &str, holder: Option<&str>, epoch: u64) -> Lease {
        Lease { connector: connector.to_owned(), holder: holder.map(str::to_owned), epoch }
    }

    #[test]
    fn what_a_living_member_holds_stays_and_what_a_dead_one_holds_goes() {
        let all = ["c1", "c2", "c3", "c4"];
        let roll = Roll {
            members: vec![member("b", &all), member("a", &all)],
            leases: vec![
                lease("c1", Some("a"), 3),
                lease("c2", Some("dead"), 9),
                lease("c3", None, 0),
                lease("c4", Some("b"), 1),
            ],
        };
        let spread: Vec<_> = assign(&roll).into_iter().collect();
        assert_eq!(spread, [("c1", "a"), ("c2", "a"), ("c3", "b"), ("c4", "b")]);
    }

    #[test]
    fn nobody_is_given_what_it_cannot_run() {
        let roll = Roll {
            members: vec![member("a", &["c1", "c2", "c3"]), member("b", &["c3"])],
            leases: ["c1", "c2", "c3", "c4"].map(|name| lease(name, Some("a"), 1)).to_vec(),
        };
        let spread: Vec<_> = assign(&roll).into_iter().collect();
        assert_eq!(spread, [("c1", "a"), ("c2", "a"), ("c3", "b")]);
    }

    /// The same as its description says it, with nothing prepared and nothing kept.
    fn assign_plainly(roll: &Roll) -> BTreeMap<&str, &str> {
        let mut members: Vec<&Member> = roll.members.iter().collect();
        members.sort_by_key(|member| &member.id);
        let mut leases: Vec<&Lease> = roll.leases.iter().collect();
        leases.sort_by_key(|lease| &lease.connector);
        let is_able = |id: &str, connector: &str| {
            let member = members.iter().find(|member| member.id == id).unwrap();
            member.connectors.iter().any(|able| able == connector)
        };
        let load = |of: &BTreeMap<_, _>, id| of.values().filter(|&&member| member == id).count();
        let least = |of: &BTreeMap<_, _>, connector: &str| {
            let ids = members.iter().map(|member| member.id.as_str());
            ids.filter(|id| is_able(id, connector)).min_by_key(|&id| (load(of, id), id))
        };
        let mut of: BTreeMap<&str, &str> = BTreeMap::new();
        for Lease { connector, holder, .. } in &leases {
            let holder = members.iter().find(|member| Some(&member.id) == holder.as_ref());
            let holder = holder.filter(|member| is_able(&member.id, connector));
            of.extend(holder.map(|member| (connector.as_str(), member.id.as_str())));
        }
        for Lease { connector, .. } in &leases {
            if !of.contains_key(connector.as_str()) {
                of.extend(least(&of, connector).map(|id| (connector.as_str(), id)));
            }
        }
        loop {
            let moves = of.iter().filter_map(|(&connector, &from)| {
                let to = least(&of, connector)?;
                let gain = load(&of, from).checked_sub(load(&of, to)).filter(|&gain| gain >= 2)?;
                Some((std::cmp::Reverse(gain), connector, to))
            });
            let Some((_, connector, to)) = moves.min() else { return of };
            of.insert(connector, to);
        }
    }

    /// Living members with what they can run, and leases with their holders, some of them dead.
    fn rolls() -> impl Strategy<Value = Roll> {
        let able = prop::collection::vec(0_usize..12, 0..16);
        let members = prop::collection::btree_map(0_usize..6, able, 0..5);
        let leases = prop::collection::btree_map(0_usize..12, prop::option::of(0_usize..6), 0..12);
        (members, leases).prop_map(|(members, leases)| {
            let id = |n: usize| format!("m{n}");
            let members = members.into_iter().rev().map(|(n, able)| Member {
                id: id(n),
                name: id(n),
                connectors: able.into_iter().map(|n| format!("c{n}")).collect(),
            });
            let lease = |(n, holder): (usize, Option<usize>)| {
                lease(&format!("c{n}"), holder.map(id).as_deref(), 1)
            };
            Roll { members: members.collect(), leases: leases.into_iter().map(lease).collect() }
        })
    }

    proptest! {
        #[test]
        fn what_is_prepared_changes_no_choice(roll in rolls()) {
            prop_assert_eq!(assign(&roll), assign_plainly(&roll));
        }

        #[test]
        fn equal_members_differ_by_one_at_most_and_nothing_moves_without_need(
            members in 1_usize..6, holders in prop::collection::vec(0_usize..8, 0..70),
        ) {
            let names: Vec<String> = (0..holders.len()).map(|n| format!("c{n}")).collect();
            let all: Vec<&str> = names.iter().map(String::as_str).collect();
            let ids: Vec<String> = (0..members).map(|n| format!("m{n}")).collect();
            let id = |n: usize| format!("m{n}");
            let roll = Roll {
                members: ids.iter().map(|id| member(id, &all)).collect(),
                leases: names.iter().zip(&holders)
                    .map(|(name, &n)| lease(name, Some(&id(n)), 1)).collect(),
            };
            let spread = assign(&roll);
            prop_assert_eq!(spread.len(), holders.len());
            let load = |id: &str| spread.values().filter(|&&member| member == id).count();
            let loads: Vec<usize> = ids.iter().map(|id| load(id)).collect();
            let (least, most) = (*loads.iter().min().unwrap(), *loads.iter().max().unwrap());
            prop_assert!(most - least <= 1, "{:?}", loads);
            // Whoever gives something away had more than anybody has now.
            for (n, id) in ids.iter().enumerate() {
                let had = holders.iter().filter(|&&holder| holder == n).count();
                let kept = names.iter().zip(&holders)
                    .filter(|(name, holder)| **holder == n && spread[name.as_str()] == id).count();
                prop_assert!(kept == had || kept >= least, "{} kept {} of {}", id, kept, had);
            }
            let after = Roll {
                leases: spread.iter().map(|(name, id)| lease(name, Some(id), 2)).collect(),
                ..roll.clone()
            };
            prop_assert_eq!(&assign(&after), &spread, "and stays so");
        }
    }
}
