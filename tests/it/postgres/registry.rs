//! Leases, by the server's clock.

use std::thread;
use std::time::Duration;

use in_trendmicro::checkpoint::Registry as _;
use in_trendmicro::lease::{Lease, Tenure};

use super::{LONG, fresh, lease, member, open, tenure};
use crate::support::postgres::Server;

#[test]
fn leases_are_made_taken_and_given_back() {
    let Some((server, database, mut one)) = fresh() else { return };
    let mut two = open(&server.address(&database));
    let first = one.beat(&member("one", &["b", "a"]), LONG).unwrap();
    assert_eq!(first.members, [member("one", &["a", "b"])]);
    let free = |name: &str| Lease { connector: name.into(), holder: None, epoch: 0 };
    assert_eq!(first.leases, [free("a"), free("b")]);
    let second = two.beat(&member("two", &["b", "c"]), LONG).unwrap();
    assert_eq!(second.members.len(), 2);
    assert_eq!(second.leases, [free("a"), free("b"), free("c")]);

    // Both have seen it free; one gets it.
    assert_eq!(one.take("one", &free("b")).unwrap(), Some(1));
    assert_eq!(two.take("two", &free("b")).unwrap(), None);
    let roll = two.beat(&member("two", &["b", "c"]), LONG).unwrap();
    let held = lease(&roll, "b");
    assert_eq!((held.holder.as_deref(), held.epoch), (Some("one"), 1));
    assert_eq!(two.take("two", &held).unwrap(), Some(2), "what was seen can be taken");

    // Who was robbed gives nothing back.
    one.release("one", &Tenure { connector: "b".into(), epoch: 1 }).unwrap();
    two.release("two", &Tenure { connector: "b".into(), epoch: 1 }).unwrap();
    let held = lease(&one.beat(&member("one", &["a"]), LONG).unwrap(), "b");
    assert_eq!((held.holder.as_deref(), held.epoch), (Some("two"), 2));
    two.release("two", &Tenure { connector: "b".into(), epoch: 2 }).unwrap();
    let held = lease(&one.beat(&member("one", &["a"]), LONG).unwrap(), "b");
    assert_eq!((held.holder, held.epoch), (None, 2));
    assert_eq!(one.take("one", &Lease { holder: None, ..held }).unwrap(), Some(3));
    assert_eq!(one.take("one", &free("unknown")).unwrap(), None);

    one.take("one", &free("a")).unwrap().unwrap();
    one.leave("one").unwrap();
    let roll = two.beat(&member("two", &["c"]), LONG).unwrap();
    assert_eq!(roll.members, [member("two", &["c"])]);
    assert!(roll.leases.iter().all(|lease| lease.holder.is_none()), "{:?}", roll.leases);
    assert_eq!(lease(&roll, "b").epoch, 3);
}

#[test]
fn who_is_silent_for_too_long_is_dead_and_keeps_its_lease_until_it_is_taken() {
    let Some((server, database, mut one)) = fresh() else { return };
    let mut two = open(&server.address(&database));
    let short = Duration::from_millis(1500);
    // The server has been up for longer than this lasts, or the start would be a grace.
    thread::sleep(short);
    let roll = one.beat(&member("one", &["c"]), short).unwrap();
    one.take("one", &lease(&roll, "c")).unwrap().unwrap();
    let ids = |roll: &in_trendmicro::lease::Roll| -> Vec<String> {
        roll.members.iter().map(|member| member.id.clone()).collect()
    };
    assert_eq!(ids(&two.beat(&member("two", &["c"]), LONG).unwrap()), ["one", "two"]);
    thread::sleep(short + Duration::from_millis(300));
    let roll = two.beat(&member("two", &["c"]), LONG).unwrap();
    assert_eq!(ids(&roll), ["two"]);
    assert_eq!(lease(&roll, "c").holder.as_deref(), Some("one"));
    assert_eq!(ids(&one.beat(&member("one", &["c"]), short).unwrap()), ["one", "two"], "it lives");

    server.sql(
        &database,
        "UPDATE in_trendmicro_host SET expires_at = now() - interval '25 hours' WHERE id = 'one'",
    );
    two.beat(&member("two", &["c"]), LONG).unwrap();
    assert_eq!(server.sql(&database, "SELECT id FROM in_trendmicro_host"), [["two"]]);
}

#[test]
fn after_a_restart_of_the_server_everybody_has_time_to_come_back() {
    let Some(mut server) = Server::start(&[]) else { return };
    let database = server.database();
    let mut one = open(&server.address(&database));
    let mut two = open(&server.address(&database));
    one.beat(&member("one", &["c"]), Duration::from_secs(30)).unwrap();
    server.sql(&database, "UPDATE in_trendmicro_host SET expires_at = now() - interval '1 minute'");
    server.restart();
    let roll = two.beat(&member("two", &["c"]), Duration::from_secs(30)).unwrap();
    assert_eq!(roll.members.len(), 2, "{:?}", roll.members);
    server.sql(&database, "UPDATE in_trendmicro_host SET timeout = '1 ms' WHERE id = 'one'");
    let roll = two.beat(&member("two", &["c"]), Duration::from_secs(30)).unwrap();
    assert_eq!(roll.members.len(), 1, "not for ever");
}

/// Many hosts take what they see, all at once: an epoch is given out once.
#[test]
fn an_epoch_has_one_holder() {
    let Some((server, database, _)) = fresh() else { return };
    let address = server.address(&database);
    let mut given: Vec<u64> = thread::scope(|scope| {
        let hosts: Vec<_> = (0..6)
            .map(|i| {
                let address = address.as_str();
                scope.spawn(move || {
                    let (mut store, id) = (open(address), format!("m{i}"));
                    let mut given = Vec::new();
                    for _ in 0..30 {
                        let roll = store.beat(&member(&id, &["c"]), LONG).unwrap();
                        given.extend(store.take(&id, &lease(&roll, "c")).unwrap());
                    }
                    given
                })
            })
            .collect();
        hosts.into_iter().flat_map(|host| host.join().unwrap()).collect()
    });
    given.sort_unstable();
    assert_eq!(given, (1..=given.len() as u64).collect::<Vec<_>>());
    let mut store = open(&address);
    assert_eq!(tenure(&mut store, "last", "c").epoch, given.len() as u64 + 1);
}
