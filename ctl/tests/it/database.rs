//! Every command on a database that hosts share, while they run.

use std::time::Duration;

use in_trendmicro::checkpoint::{Change, Postgres, Registry as _, Store as _};
use in_trendmicro::config::{Config, Db};
use in_trendmicro::instance::{connect, state_key};
use in_trendmicro::lease::{Member, Tenure};
use in_trendmicro::record::Id;
use in_trendmicro::window::Window;
use serde_json::Value;

use crate::postgres::{PASSWORD, Server};
use crate::support::{Place, ctl, json, said};

const CONFIG: &str = "
service:
  storage.path: '@DIR/storage'
pipeline:
  inputs:
    - name: trendmicro
      tag: tm
      connectors: mail
      base_url: http://127.0.0.1:9
      db: '@DB'
      storage.type: filesystem
      mail.connector: email_security
      mail.username: admin@example.com
      mail.api_key: sim-email-key
  outputs:
    - name: file
      match: 'tm'
      path: '@DIR/out'
";

/// A host that runs the only connector of a configuration, and what it delivers.
struct Running {
    place: Place,
    config: String,
    address: String,
    store: Postgres,
    keys: Vec<String>,
    tenure: Tenure,
}

impl Running {
    fn new(server: &Server) -> Self {
        let place = Place::new();
        let address = server.address(&server.database());
        let yaml = CONFIG.replace("@DB", &address);
        let yaml = yaml.replace("@DIR", &place.path("").display().to_string());
        let config = place.write("fluent-bit.yaml", &yaml).display().to_string();
        let (db, keys) = read(&address);
        let mut store = Postgres::new(&db).unwrap();
        let tenure = take(&mut store);
        Self { place, config, address, store, keys, tenure }
    }

    /// Delivers a record an hour up to now; returns the tenures that are over.
    fn deliver(&mut self) -> Vec<Tenure> {
        let now = chrono::Utc::now();
        let hour = |ago: i64| now - chrono::TimeDelta::hours(ago);
        let delivered = (0..10_i64)
            .rev()
            .map(|ago| (Window { start: hour(ago + 1), end: hour(ago) }, vec![Id(ago as u128)]));
        let change = |key: &String| Change {
            tenure: self.tenure.clone(),
            stream: key.clone(),
            delivered: delivered.clone().collect(),
            cursor: Some(now),
            ..Change::default()
        };
        let changes: Vec<Change> = self.keys.iter().map(change).collect();
        self.store.commit(&changes).unwrap()
    }

    fn streams(&self) -> Vec<Value> {
        let status = ctl(&["status", "--json", "-c", &self.config]);
        json(&status)["streams"].as_array().unwrap().clone()
    }

    /// Cursor and size of the ledger of a stream.
    fn standing(&self, stream: &str) -> Option<(String, u64)> {
        let all = self.streams();
        let row = all.iter().find(|row| row["stream"] == stream)?;
        let cursor = row["cursor"].as_str().unwrap_or("none").to_owned();
        Some((cursor, row["ledger_records"].as_u64().unwrap()))
    }
}

/// The plugin's own reading of the address, and the keys of the streams.
fn read(address: &str) -> (in_trendmicro::config::DbServer, Vec<String>) {
    let lookup = |key: &str| {
        let all = [
            ("connectors", "mail"),
            ("base_url", "http://127.0.0.1:9"),
            ("mail.connector", "email_security"),
            ("mail.username", "admin@example.com"),
            ("mail.api_key", "sim-email-key"),
            ("db", address),
        ];
        all.iter().find(|(name, _)| *name == key).map(|(_, value)| (*value).to_owned())
    };
    let config = Config::read(&lookup).unwrap();
    let mail = &config.connectors[0];
    let keys = connect(mail).streams().iter().map(|stream| state_key(mail, stream)).collect();
    match config.db {
        Some(Db::Server(server)) => (*server, keys),
        _ => panic!("no database"),
    }
}

fn take(store: &mut Postgres) -> Tenure {
    let me = Member { id: "m1".into(), name: "web1".into(), connectors: vec!["mail".into()] };
    let roll = store.beat(&me, Duration::from_secs(60)).unwrap();
    let epoch = store.take("m1", &roll.leases[0]).unwrap().unwrap();
    Tenure { connector: "mail".into(), epoch }
}

#[test]
fn it_is_shown_who_runs_what_and_where_streams_stand() {
    let Some(server) = Server::shared() else { return };
    let mut running = Running::new(server);
    assert_eq!(running.deliver(), []);
    let output = ctl(&["status", "--json", "-c", &running.config]);
    let shown = json(&output);
    assert_eq!(shown["hosts"][0]["name"], "web1", "{shown:#}");
    assert_eq!(shown["leases"][0]["host"], "web1", "{shown:#}");
    assert_eq!(
        (&shown["leases"][0]["epoch"], &shown["hosts"][0]["is_alive"]),
        (&1.into(), &true.into())
    );
    assert_eq!(running.standing("accepted_traffic").unwrap().1, 10);
    for arguments in [["status", "-c", &running.config], ["status", "--db", &running.address]] {
        let (text, code) = said(&ctl(&arguments));
        assert_eq!(code, 0, "{text}");
        assert!(text.contains("connector mail: run by web1") && text.contains("epoch 1"), "{text}");
        assert!(text.contains("host web1 (m1) lives, heard of"), "{text}");
        assert!(text.contains("mail/accepted_traffic") && !text.contains(PASSWORD), "{text}");
    }
    running.store.leave("m1").unwrap();
    let (text, _) = said(&ctl(&["status", "-c", &running.config]));
    assert!(text.contains("connector mail: run by NOBODY"), "{text}");
}

#[test]
fn positions_are_moved_while_a_host_runs_and_it_begins_anew() {
    let Some(server) = Server::shared() else { return };
    let mut running = Running::new(server);
    running.deliver();
    let config = running.config.clone();
    let old = running.standing("blocked_traffic").unwrap();

    let span = ["-c", &config, "--since", "5h", "--connector", "mail/blocked_traffic"];
    let (text, code) = said(&ctl(&[&["replay", "--dry-run"], &span[..]].concat()));
    assert!(code == 0 && text.contains("is delivered again"), "{text}");
    assert_eq!(running.standing("blocked_traffic").unwrap(), old);
    let (text, code) = said(&ctl(&[&["replay", "--yes"], &span[..]].concat()));
    assert!(code == 0 && text.contains("web1 ran it and must begin anew"), "{text}");
    let (cursor, remembered) = running.standing("blocked_traffic").unwrap();
    assert!(cursor < old.0 && remembered < 10, "{cursor} {remembered}");
    assert_eq!(running.standing("accepted_traffic").unwrap().1, 10);
    let over = running.tenure.clone();
    assert_eq!(running.deliver(), [over], "what the host still saves is refused");
    assert_eq!(running.standing("blocked_traffic").unwrap(), (cursor, remembered));

    running.tenure = take(&mut running.store);
    assert_eq!(running.deliver(), []);
    let to = ["state", "set", "-c", &config, "--stream", "mail/policy_events", "--to"];
    let (text, code) = said(&ctl(&[&to[..], &["2026-01-01", "--yes"]].concat()));
    assert!(code == 0 && text.contains("web1 ran it"), "{text}");
    assert_eq!(running.standing("policy_events").unwrap().0, "2026-01-01T00:00:00Z");
    let db = running.address.clone();
    let reset = ["state", "reset", "--db", &db, "--stream", "mail/policy_events", "--yes"];
    let (text, code) = said(&ctl(&reset));
    assert!(code == 0 && !text.contains("ran it"), "nobody holds it now: {text}");
    assert_eq!(running.standing("policy_events"), None);
}

#[test]
fn the_test_says_what_is_wrong_with_a_database() {
    let Some(server) = Server::shared() else { return };
    let running = Running::new(server);
    let test = |config: &str, more: &[&str]| {
        let (text, _) = said(&ctl(&[&["test", "-c", config], more].concat()));
        assert!(!text.contains(PASSWORD), "{text}");
        let found = text.lines().skip_while(|line| !line.contains("  database")).take(3);
        found.collect::<Vec<_>>().join("\n")
    };
    let told = test(&running.config, &[]);
    assert!(told.contains("ok") && told.contains("the tables are there"), "{told}");
    let told = test(&running.config, &["--offline"]);
    assert!(told.contains("skipped") && told.contains("nothing is sent"), "{told}");
    let good = std::fs::read_to_string(&running.config).unwrap();
    let free = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
    let (port, free) = (format!(":{}/", server.port()), format!(":{free}/"));
    let database = running.address.split(['/', '?']).nth(3).unwrap().to_owned();
    for (wrong, right, expected) in [
        (PASSWORD, "wrong", "password authentication failed"),
        ("?sslmode=disable", "", "speaks no TLS"),
        (&database, "none", "does not exist"),
        ("@127.0.0.1", "@nowhere.invalid", "no address"),
        (&port, &free, "refused"),
    ] {
        let config = running.place.write("wrong.yaml", &good.replace(wrong, right));
        let told = test(&config.display().to_string(), &[]);
        assert!(told.contains("FAILED") && told.contains(expected), "{expected}: {told}");
        assert!(told.lines().count() > 1, "no advice: {told}");
    }
    let empty = good.replace(&database, &server.database());
    let config = running.place.write("empty.yaml", &empty).display().to_string();
    let told = test(&config, &[]);
    assert!(told.contains("the tables can be made"), "{told}");
    let (text, code) = said(&ctl(&["status", "-c", &config]));
    assert!(code == 2 && text.contains("start Fluent Bit"), "{text}");
}
