//! Servers that refuse, end, restart or stand still.

use std::time::{Duration, Instant};

use in_trendmicro::checkpoint::{Change, Postgres, Registry as _, Store as _};
use in_trendmicro::error::ErrorKind;
use in_trendmicro::http::limiter::Shared;

use super::{LONG, at, configured, file, fresh, member, open, tenure, text};
use crate::support::postgres::{PASSWORD, Server, USER};

/// What a database at an address says, which must be a mistake of the configuration.
#[track_caller]
fn mistake(mut store: Postgres) -> String {
    let error = store.load("a").unwrap_err();
    let text = text(&error);
    assert_eq!(error.kind(), ErrorKind::Config, "{text}");
    assert!(text.contains("; legal: ") && text.contains("; write: "), "{text}");
    text
}

#[test]
fn a_mistake_is_told_with_what_to_write() {
    let Some((server, database, mut store)) = fresh() else { return };
    store.connect().unwrap();
    let good = server.address(&database);
    let said = mistake(open(&good.replace(PASSWORD, "wrong")));
    assert!(said.contains("password authentication failed"), "{said}");
    assert!(said.starts_with(&format!("db = \"postgres://{USER}@127.0.0.1")), "{said}");
    let said = mistake(open(&good.replace(&format!(":{PASSWORD}"), "")));
    assert!(said.contains("password missing"), "{said}");
    let said = mistake(open(&good.replace(&database, "none")));
    assert!(said.contains("\"none\" does not exist"), "{said}");
    let said = mistake(open(&good.replace("app:", "nobody:")));
    assert!(said.contains("nobody"), "{said}");
    server.sql("postgres", &format!("CREATE ROLE guest LOGIN PASSWORD '{PASSWORD}'"));
    let said = mistake(open(&good.replace("app:", "guest:")));
    assert!(said.contains("permission denied") && said.contains("GRANT"), "{said}");
    let empty = server.database();
    server.sql(&empty, "REVOKE CREATE ON SCHEMA public FROM PUBLIC");
    let said = mistake(open(&server.address(&empty).replace("app:", "guest:")));
    assert!(said.contains("permission denied for schema"), "{said}");
    let error = Postgres::new(&configured(&format!("{good}&nonsense=1"), &[])).err().unwrap();
    let said = text(&error);
    assert!(error.kind() == ErrorKind::Config && said.contains("nonsense"), "{said}");
}

#[test]
fn a_password_file_is_read_again_at_every_connection() {
    let Some((server, database, _)) = fresh() else { return };
    let path = file(server, "changing-password", "wrong");
    let address = server.address(&database).replace(&format!(":{PASSWORD}"), "");
    let path = path.display().to_string();
    let db = configured(&address, &[("db_password_file", &path)]);
    let mut store = Postgres::new(&db).unwrap();
    assert_eq!(store.connect().unwrap_err().kind(), ErrorKind::Config);
    file(server, "changing-password", &format!("{PASSWORD}\n"));
    store.connect().unwrap();
    std::fs::remove_file(&path).unwrap();
    store.load("a").expect("the connection is there");
    let error = Postgres::new(&db).unwrap().connect().unwrap_err();
    assert!(text(&error).contains("cannot be read"), "{error}");
}

#[test]
fn a_socket_of_this_machine_needs_no_tls() {
    let Some((server, database, _)) = fresh() else { return };
    let (folder, port) = (server.path().display(), server.port());
    let mut store = open(&format!("postgres:///{database}?host={folder}&port={port}&user={USER}"));
    store.connect().unwrap();
    assert_eq!(store.load("a").unwrap().cursor, None);
}

#[test]
fn a_server_that_is_not_there_is_a_matter_of_time() {
    let Some((server, _, _)) = fresh() else { return };
    let free = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
    let address = server.address("d").replace(&server.port().to_string(), &free.to_string());
    let mut store = open(&address);
    let error = store.load("a").unwrap_err();
    let said = text(&error);
    assert_eq!(error.kind(), ErrorKind::Store, "{said}");
    assert!(
        said.starts_with(&format!("the database postgres://{USER}@127.0.0.1:{free}/d")),
        "{said}"
    );
    assert!(said.contains("cannot be reached") && said.contains("refused"), "{said}");
}

#[test]
fn a_server_that_was_restarted_is_used_on() {
    let Some(mut server) = Server::start(&[]) else { return };
    let database = server.database();
    let mut store = open(&server.address(&database));
    let held = tenure(&mut store, "one", "c");
    let moved = |secs| Change {
        tenure: held.clone(),
        stream: "a".into(),
        cursor: Some(at(secs)),
        ..Change::default()
    };
    store.commit(&[moved(1)]).unwrap();
    server.restart();
    store.commit(&[moved(2)]).unwrap();
    server.stop();
    let error = store.commit(&[moved(3)]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Store, "{}", text(&error));
    let error = store.beat(&member("one", &["c"]), LONG).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Store, "{}", text(&error));
    server.run();
    assert_eq!(store.load("a").unwrap().cursor, Some(at(2)));
    server.kill();
    assert!(store.load("a").is_err());
    server.run();
    store.commit(&[moved(4)]).unwrap();
    assert_eq!(store.load("a").unwrap().cursor, Some(at(4)));
    // An administrator ends the connection, which takes a moment.
    let ours = "FROM pg_stat_activity WHERE application_name = 'in_trendmicro'";
    server.sql(&database, &format!("SELECT pg_terminate_backend(pid) {ours}"));
    while server.sql(&database, &format!("SELECT count(*) {ours}")) != [["0"]] {
        std::thread::sleep(Duration::from_millis(10));
    }
    store.commit(&[moved(5)]).unwrap();
}

#[test]
fn a_server_that_stands_still_is_given_up_in_time() {
    let Some(server) = Server::start(&[]) else { return };
    let database = server.database();
    let (mut old, mut new) = (open(&server.address(&database)), open(&server.address(&database)));
    let held = tenure(&mut old, "one", "c");
    let change =
        Change { tenure: held, stream: "a".into(), cursor: Some(at(7)), ..Change::default() };
    server.pause();
    let begun = Instant::now();
    let error = old.commit(std::slice::from_ref(&change)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Store, "{}", text(&error));
    assert!(text(&error).contains("no answer within 10 s"), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    let begun = Instant::now();
    let error = Shared::take(&mut new, &[1; 32], 1, LONG).unwrap_err();
    assert!(text(&error).contains("no answer within 5 s"), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(9), "{:?}", begun.elapsed());
    server.resume();
    assert_eq!(old.commit(&[change]).unwrap(), []);
    assert_eq!(new.load("a").unwrap().cursor, Some(at(7)));
}

/// Somebody else holds the row of a lease, for ever: an error, and not a wait without an end.
#[test]
fn a_lock_is_not_waited_for_without_end() {
    let Some((server, database, mut store)) = fresh() else { return };
    let held = tenure(&mut store, "one", "c");
    let change =
        Change { tenure: held, stream: "a".into(), cursor: Some(at(7)), ..Change::default() };
    std::thread::scope(|scope| {
        let hold =
            "BEGIN; UPDATE in_trendmicro_lease SET since = now(); SELECT pg_sleep(8); COMMIT";
        scope.spawn(|| server.sql(&database, hold));
        std::thread::sleep(Duration::from_millis(500));
        let error = store.commit(std::slice::from_ref(&change)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Store);
        assert!(text(&error).contains("lock timeout"), "{error}");
    });
    assert_eq!(store.commit(&[change]).unwrap(), []);
}

#[test]
fn a_database_that_can_only_be_read_is_a_matter_of_time() {
    let Some((server, database, mut store)) = fresh() else { return };
    let held = tenure(&mut store, "one", "c");
    drop(store);
    server.sql(
        "postgres",
        &format!("ALTER DATABASE {database} SET default_transaction_read_only = on"),
    );
    let change =
        Change { tenure: held, stream: "a".into(), cursor: Some(at(7)), ..Change::default() };
    let error = open(&server.address(&database)).commit(&[change]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Store);
    assert!(text(&error).contains("read-only"), "{error}");
}
