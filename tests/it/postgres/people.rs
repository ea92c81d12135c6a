//! What people see and change while hosts run.

use in_trendmicro::checkpoint::{Change, Postgres, Registry as _, Store as _};
use in_trendmicro::record::Id;
use in_trendmicro::sweep::{self, Entity};

use super::{LONG, at, configured, fresh, lease, member, open, span, tenure, text};

#[test]
fn an_overview_shows_hosts_leases_and_streams() {
    let Some((_, _, mut store)) = fresh() else { return };
    let held = tenure(&mut store, "one", "c");
    let roll = store.beat(&member("two", &["c", "d"]), LONG).unwrap();
    store.take("gone", &lease(&roll, "d")).unwrap().unwrap();
    let entity = Entity { key: Id(1), version: Id(1), name: vec![1] };
    let change = Change {
        tenure: held,
        stream: "c/p/h/a/s".into(),
        delivered: vec![(span(0, 10), vec![Id(1), Id(2)]), (span(10, 30), vec![Id(3)])],
        cursor: Some(at(30)),
        ..Change::default()
    };
    let listed = Change {
        stream: "c/p/h/a/t".into(),
        delivered: Vec::new(),
        cursor: None,
        entities: vec![(sweep::Change::Added, entity)],
        ..change.clone()
    };
    store.commit(&[change, listed]).unwrap();
    let seen = store.overview().unwrap();
    let names: Vec<_> = seen.hosts.iter().map(|h| (h.name.as_str(), h.is_alive)).collect();
    assert_eq!(names, [("host of one", true), ("host of two", true)]);
    assert!(seen.hosts[0].silent_secs < 60);
    let runs: Vec<_> = seen.runs.iter().map(|r| (&*r.connector, r.host.as_deref())).collect();
    assert_eq!(runs, [("c", Some("host of one")), ("d", None)]);
    assert_eq!((seen.runs[1].holder.as_deref(), seen.runs[1].is_alive), (Some("gone"), false));
    assert_eq!(seen.runs[0].epoch, 1);
    assert!((chrono::Utc::now() - seen.runs[0].since).num_seconds() < 60);
    let streams: Vec<_> = seen
        .streams
        .iter()
        .map(|s| (&*s.stream, s.cursor, s.ledger_count, s.ledger_since, s.inventory_count))
        .collect();
    let (log, list) = ("c/p/h/a/s", "c/p/h/a/t");
    assert_eq!(streams, [(log, Some(at(30)), 3, Some(at(10)), 0), (list, None, 0, None, 1)]);
    assert_eq!(store.ledger(log).unwrap().len(), 3);
}

/// A position is moved while a host runs the connector: what that host still saves is refused, and
/// whoever takes the lease next begins from the new position.
#[test]
fn a_position_is_moved_under_a_running_host() {
    let Some((server, database, mut host)) = fresh() else { return };
    let mut person = open(&server.address(&database));
    let stream = "c/p/h/a/s";
    let other = tenure(&mut host, "one", "cc");
    let moved = |tenure: &_, stream: &str, secs| Change {
        tenure: Clone::clone(tenure),
        stream: stream.into(),
        cursor: Some(at(secs)),
        delivered: vec![(span(secs - 10, secs), vec![Id(secs as u128)])],
        ..Change::default()
    };
    let mut held = tenure(&mut host, "one", "c");
    for secs in [10, 20, 30] {
        host.commit(&[moved(&held, stream, secs)]).unwrap();
    }
    let steps: [&mut dyn FnMut() -> Vec<String>; 3] = [
        &mut || open(&server.address(&database)).set_cursor(&[stream], at(5)).unwrap(),
        &mut || person.rewind(&[(stream, at(25))], at(15)).unwrap(),
        &mut || open(&server.address(&database)).reset(&[stream]).unwrap(),
    ];
    let expected = [(Some(at(5)), 3), (Some(at(15)), 2), (None, 0)];
    for (step, (cursor, remembered)) in steps.into_iter().zip(expected) {
        assert_eq!(step(), ["host of one"]);
        let late = [moved(&held, stream, 99), moved(&other, "cc/x", 1)];
        assert_eq!(host.commit(&late).unwrap(), [held.clone()]);
        assert_eq!(host.load(stream).unwrap().cursor, cursor);
        assert_eq!(host.ledger(stream).unwrap().len(), remembered);
        held = tenure(&mut host, "one", "c");
        host.commit(&[Change { delivered: vec![], ..moved(&held, stream, 30) }]).unwrap();
    }
    assert_eq!(host.load("cc/x").unwrap().cursor, Some(at(1)), "another connector goes on");
    host.leave("one").unwrap();
    assert_eq!(host.set_cursor(&[stream], at(1)).unwrap(), [] as [String; 0]);
}

#[test]
fn a_look_makes_nothing() {
    let Some((server, database, mut store)) = fresh() else { return };
    let db = configured(&server.address(&database), &[]);
    let said = Postgres::probe(&db).unwrap();
    assert!(said.contains("PostgreSQL") && said.ends_with("can be made"), "{said}");
    let error = Postgres::look(&db).unwrap().overview().unwrap_err();
    assert!(text(&error).contains("schema version 0 of 1"), "{error}");
    let tables = "SELECT count(*) FROM pg_class WHERE relname LIKE 'in_trendmicro%'";
    assert_eq!(server.sql(&database, tables), [["0"]]);
    store.connect().unwrap();
    assert!(Postgres::probe(&db).unwrap().ends_with("are there"));
    assert_eq!(Postgres::look(&db).unwrap().overview().unwrap().streams, []);
    server.sql(&database, "REVOKE INSERT ON in_trendmicro_ledger FROM app");
    let error = Postgres::probe(&db).unwrap_err();
    assert!(text(&error).contains("permission denied for table in_trendmicro_ledger"), "{error}");
}
