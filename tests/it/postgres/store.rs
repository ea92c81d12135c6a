//! Cursors and ledgers: the same as in a state file, and under a lease.

use std::thread;
use std::time::{Duration, Instant};

use in_trendmicro::checkpoint::{Change, Postgres, Registry as _, Saved, Sqlite, Store};
use in_trendmicro::error::ErrorKind;
use in_trendmicro::lease::{Lease, Tenure};
use in_trendmicro::record::Id;
use in_trendmicro::sweep::{self, Entity};

use super::{LONG, at, fresh, lease, member, open, span, tenure, text};
use crate::support::postgres::Server;

fn entity(key: u128, version: u128) -> Entity {
    Entity { key: Id(key), version: Id(version), name: vec![1, 2, key as u8] }
}

fn change(tenure: &Tenure, stream: &str) -> Change {
    Change { tenure: tenure.clone(), stream: stream.to_owned(), ..Change::default() }
}

type Ids = Vec<(i64, Id)>;

/// Everything that a store shows of a stream, in a fixed order.
fn shown(store: &mut dyn Store, stream: &str) -> (Saved, Ids, Ids, bool) {
    let mut saved = store.load(stream).unwrap();
    saved.entities.sort_by_key(|entity| entity.key.0);
    let mut ids = |start, end| {
        let found = store.recall(stream, span(start, end), 1000).unwrap().unwrap();
        let mut found: Vec<_> = found.into_iter().map(|(t, id)| (t.timestamp(), id)).collect();
        found.sort_by_key(|(t, id)| (*t, id.0));
        found
    };
    let (all, some) = (ids(-1000, 1000), ids(11, 19));
    let is_too_many = store.recall(stream, span(-1000, 1000), 2).unwrap().is_none();
    (saved, all, some, is_too_many)
}

/// Every kind of change, also several of one stream and of one entity in one commit.
fn commits(tenure: &Tenure) -> Vec<Vec<Change>> {
    use sweep::Change::{Added, Changed, Removed};
    let change = |stream: &str| change(tenure, stream);
    let full = Change {
        delivered: vec![(span(0, 10), vec![Id(1), Id(u128::MAX)]), (span(10, 20), vec![Id(2)])],
        cursor: Some(at(10)),
        verified: [None, Some(at(5)), Some(at(30))],
        entities: vec![
            (Added, entity(1, 1)),
            (Added, entity(2, 1)),
            (Removed, entity(1, 1)),
            (Changed, entity(2, 7)),
            (Removed, entity(9, 9)),
        ],
        ..change("a")
    };
    vec![
        vec![full.clone(), Change { stream: "b".into(), ..full.clone() }],
        vec![
            Change { forget_before: Some(at(20)), ..change("a") },
            Change { delivered: vec![(span(-20, -5), vec![Id(3)])], ..change("a") },
            Change { cursor: Some(at(-7)), verified: [Some(at(1)), None, None], ..change("a") },
            Change {
                entities: vec![(Added, entity(4, 4)), (Removed, entity(2, 7))],
                ..change("b")
            },
        ],
        vec![Change { delivered: vec![(span(3, 4), vec![])], ..change("c") }],
        vec![Change { forget_before: Some(at(6)), ..change("b") }],
        vec![change("d")],
    ]
}

#[test]
fn it_remembers_what_a_state_file_remembers() {
    let Some((server, database, mut store)) = fresh() else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut file = Sqlite::open(&dir.path().join("state.db"), "OFF").unwrap();
    let held = tenure(&mut store, "one", "c");
    for (number, changes) in commits(&held).into_iter().enumerate() {
        assert_eq!(store.commit(&changes).unwrap(), []);
        file.commit(&changes).unwrap();
        for stream in ["a", "b", "c", "d", "never"] {
            let (one, two) = (shown(&mut store, stream), shown(&mut file, stream));
            assert_eq!(one, two, "{stream} after commit {number}");
        }
    }
    assert_eq!(store.commit(&[]).unwrap(), []);
    let mut again = open(&server.address(&database));
    assert_eq!(shown(&mut again, "b"), shown(&mut file, "b"), "over another connection");
    assert_eq!(store.renew(&[]).unwrap_err().kind(), ErrorKind::Store);
    assert!(!store.load("never").unwrap().is_unknown);
}

#[test]
fn a_commit_that_is_repeated_changes_nothing() {
    let Some((server, database, mut store)) = fresh() else { return };
    let held = tenure(&mut store, "one", "c");
    let full = commits(&held).remove(0);
    store.commit(&full).unwrap();
    let before = (shown(&mut store, "a"), shown(&mut store, "b"));
    store.commit(&full).unwrap();
    assert_eq!((shown(&mut store, "a"), shown(&mut store, "b")), before);
    let rows = server.sql(&database, "SELECT count(*) FROM in_trendmicro_ledger");
    assert_eq!(rows, [["4"]]);
}

#[test]
fn an_inventory_of_a_hundred_thousand_is_saved_and_loaded_in_seconds() {
    let Some((_, _, mut store)) = fresh() else { return };
    let held = tenure(&mut store, "one", "c");
    let entities: Vec<_> =
        (0..100_000).map(|key| (sweep::Change::Added, entity(key, key))).collect();
    let begun = Instant::now();
    let all = Change { entities, cursor: Some(at(1)), ..change(&held, "a") };
    store.commit(&[all]).unwrap();
    assert_eq!(store.load("a").unwrap().entities.len(), 100_000);
    let entities: Vec<_> =
        (0..100_000).map(|key| (sweep::Change::Removed, entity(key, key))).collect();
    store.commit(&[Change { entities, ..change(&held, "a") }]).unwrap();
    assert_eq!(store.load("a").unwrap().entities.len(), 0);
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
}

#[test]
fn nothing_is_saved_under_a_tenure_that_is_over() {
    let Some((server, database, mut first)) = fresh() else { return };
    let mut second = open(&server.address(&database));
    let other = tenure(&mut first, "one", "d");
    let old = tenure(&mut first, "one", "c");
    let new = tenure(&mut second, "two", "c");
    assert_eq!(new.epoch, old.epoch + 1);
    let never = Tenure { connector: "nobody's".into(), epoch: 0 };
    let moved = |tenure: &Tenure, stream, secs| Change {
        cursor: Some(at(secs)),
        delivered: vec![(span(0, secs), vec![Id(7)])],
        ..change(tenure, stream)
    };
    second.commit(&[moved(&new, "a", 50)]).unwrap();
    let late =
        [moved(&old, "a", 99), moved(&other, "b", 1), moved(&old, "c", 9), moved(&never, "e", 1)];
    assert_eq!(first.commit(&late).unwrap(), [old, never]);
    let cursor = |store: &mut Postgres, stream| store.load(stream).unwrap().cursor;
    assert_eq!(cursor(&mut second, "a"), Some(at(50)));
    assert_eq!(cursor(&mut second, "b"), Some(at(1)), "another connector's is saved");
    assert_eq!((cursor(&mut second, "c"), cursor(&mut second, "e")), (None, None));
    let epochs = server.sql(&database, "SELECT stream, epoch FROM in_trendmicro_ledger ORDER BY 1");
    assert_eq!(epochs, [["a", &new.epoch.to_string()], ["b", "1"]]);
}

/// Who takes a lease waits for the commit that is just being made under it, and then sees all of it.
#[test]
fn a_lease_is_not_taken_in_the_midst_of_a_commit() {
    let Some((server, database, mut first)) = fresh() else { return };
    let address = server.address(&database);
    let old = tenure(&mut first, "one", "c");
    // Somebody holds what the commit wants to write, so that it stands still behind its look.
    let hold = "BEGIN; LOCK in_trendmicro_cursor IN EXCLUSIVE MODE; SELECT pg_sleep(2); COMMIT";
    thread::scope(|scope| {
        scope.spawn(|| server.sql(&database, hold));
        thread::sleep(Duration::from_millis(500));
        let all = [Change { cursor: Some(at(42)), ..change(&old, "a") }];
        let commit = scope.spawn(move || first.commit(&all).unwrap());
        thread::sleep(Duration::from_millis(300));
        let mut second = open(&address);
        let seen = Lease { connector: "c".into(), holder: Some("one".into()), epoch: old.epoch };
        let begun = Instant::now();
        assert_eq!(second.take("two", &seen).unwrap(), None, "not now");
        assert!(
            begun.elapsed() < Duration::from_secs(1),
            "and nobody waits: {:?}",
            begun.elapsed()
        );
        assert_eq!(commit.join().unwrap(), []);
        assert_eq!(second.take("two", &seen).unwrap(), Some(old.epoch + 1));
        assert_eq!(second.load("a").unwrap().cursor, Some(at(42)), "all of it is there");
    });
}

/// A commit that meets a taking waits for it, and saves nothing.
#[test]
fn a_commit_waits_for_who_is_just_taking_its_lease() {
    let Some((server, database, mut first)) = fresh() else { return };
    let old = tenure(&mut first, "one", "c");
    let take = "BEGIN; UPDATE in_trendmicro_lease SET holder = 'two', epoch = epoch + 1;
                SELECT pg_sleep(1); COMMIT";
    thread::scope(|scope| {
        scope.spawn(|| server.sql(&database, take));
        thread::sleep(Duration::from_millis(500));
        let all = [Change { cursor: Some(at(42)), ..change(&old, "a") }];
        assert_eq!(first.commit(&all).unwrap(), [old]);
    });
    assert_eq!(first.load("a").unwrap().cursor, None);
}

#[test]
fn hosts_that_start_at_once_make_the_tables_once() {
    let Some(server) = Server::shared() else { return };
    for _ in 0..3 {
        let address = server.address(&server.database());
        thread::scope(|scope| {
            let hosts: Vec<_> = (0..8)
                .map(|i| {
                    let address = address.as_str();
                    scope.spawn(move || {
                        let me = member(&format!("m{i}"), &["c", "d", "e"]);
                        open(address).beat(&me, LONG).unwrap()
                    })
                })
                .collect();
            let rolls: Vec<_> = hosts.into_iter().map(|host| host.join().unwrap()).collect();
            assert!(rolls.iter().all(|roll| roll.leases.len() == 3 && lease(roll, "d").epoch == 0));
        });
    }
}

#[test]
fn a_database_of_a_newer_version_is_refused_and_left_alone() {
    let Some((server, database, mut store)) = fresh() else { return };
    store.connect().unwrap();
    drop(store);
    server.sql(&database, "UPDATE in_trendmicro_meta SET value = '99' WHERE name = 'schema'");
    let error = open(&server.address(&database)).load("a").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    let text = text(&error);
    assert!(text.contains("schema version 99, newer than 1") && text.contains("write: "), "{text}");
    let rows = server.sql(&database, "SELECT value FROM in_trendmicro_meta");
    assert_eq!(rows, [["99"]]);
}
