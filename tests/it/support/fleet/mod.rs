//! Several hosts as processes, one database that they share, one vendor, and a way of its own from each
//! host to the database.

mod account;
mod audit;
mod proxy;
pub mod torture;

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use trendmicro_sim::{CloudAppConfig, EmailConfig, RequestLog, Sim};

use super::postgres::{PASSWORD, Server, USER};
use super::{Config, Host, KEY, LineCounter, Place, Section, email, fluent_bit, wait, wait_long};

pub use account::Account;
pub use audit::{Watch, faults, install, takings};
pub use proxy::Proxy;

/// What the tests' hosts are configured with: short, so that tests are.
pub const LEASE_TIMEOUT: Duration = Duration::from_secs(3);
/// A host believes in its leases for five sixths of that.
pub const WARRANT: Duration = Duration::from_millis(2500);
/// Connectors of [`stanza`]: three of Email Security that share nothing, and two of Cloud App Security
/// that share a budget.
pub const CONNECTORS: [&str; 5] = ["accepted", "blocked", "policy", "exchange", "sharepoint"];
/// How long a start of a host may take.
const START: Duration = Duration::from_secs(120);
/// What a killed host answered to may still be on its way.
const IN_FLIGHT: Duration = Duration::from_millis(100);

/// One host.
pub struct Node {
    pub place: Place,
    pub way: Proxy,
    pub host: Option<Host>,
    config: Config,
}

/// Several hosts.
pub struct Fleet {
    pub server: Server,
    pub database: String,
    pub sim: Sim,
    pub nodes: Vec<Node>,
    is_real: bool,
}

impl Fleet {
    /// So many hosts, none of which runs yet; `None` where there can be no server.
    pub fn new(sim: Sim, count: usize, stanza: &dyn Fn(&Sim) -> Section) -> Option<Self> {
        let server = Server::start(&[])?;
        let database = server.database();
        install(&server, &database);
        let is_real = fluent_bit().is_some();
        let mut fleet = Self { server, database, sim, nodes: Vec::new(), is_real };
        for _ in 0..count {
            let node = fleet.node(stanza(&fleet.sim));
            fleet.nodes.push(node);
        }
        Some(fleet)
    }

    fn node(&self, stanza: Section) -> Node {
        let (place, way) = (Place::new(), Proxy::start(self.server.port()));
        let address =
            format!("postgres://{USER}@127.0.0.1:{}/{}?sslmode=disable", way.port(), self.database);
        write_password(&place, PASSWORD);
        let input = stanza
            .set("db", &address)
            .set("db_password_file", &place.text("password"))
            .set("lease_timeout", &format!("{}s", LEASE_TIMEOUT.as_secs()))
            .set("storage.type", "filesystem");
        let service = Section::default()
            .set("log_level", "info")
            .set("grace", "60")
            .set("hot_reload", "on")
            .set("storage.path", &place.text("storage"));
        let service = if self.is_real {
            service.set("flush", "1").set("storage.backlog.mem_limit", "50M")
        } else {
            service
        };
        let output = Section::default()
            .set("name", "file")
            .set("match", "*")
            .set("path", &place.out().display().to_string())
            .set("file", "all");
        let config = Config { service, inputs: vec![input], outputs: vec![output] };
        Node { place, way, host: None, config }
    }

    /// Starts a host that does not run.
    pub fn start(&mut self, index: usize) {
        self.launch(index, false);
    }

    /// The same for one that will have nothing to deliver.
    pub fn start_idle(&mut self, index: usize) {
        self.launch(index, true);
    }

    fn launch(&mut self, index: usize, is_idle: bool) {
        let is_real = self.is_real;
        let node = &mut self.nodes[index];
        assert!(node.host.is_none(), "host {index} runs already");
        let host = if is_real {
            Host::start_real(&node.place, "host.conf", &node.config.classic())
                .expect("the real host was there at the beginning")
        } else {
            Host::start(&node.place, &node.config, &[])
        };
        node.host = Some(host);
        if !is_real && !is_idle {
            // Before the embedded host has noted a position it cannot tell what it has delivered.
            let path = node.place.path("storage/host.pos");
            let log = || self.nodes[index].host().log_tail();
            wait_long("the host's position", START, log, || path.exists().then_some(()));
        }
    }

    pub fn start_all(&mut self) {
        (0..self.nodes.len()).for_each(|index| self.start(index));
    }

    /// Ends a host as a crash would.
    pub fn kill(&mut self, index: usize) {
        self.nodes[index].host.take().expect("a host that runs").kill();
    }

    /// Stops a host with SIGTERM; returns how long that took, and what it said.
    pub fn stop(&mut self, index: usize) -> (Duration, String) {
        let host = self.nodes[index].host.take().expect("a host that runs");
        let begun = Instant::now();
        let log = if self.is_real { host.stop_real().log } else { host.stop().log };
        assert!(!log.contains(PASSWORD), "the password was logged");
        (begun.elapsed(), log)
    }

    pub fn stop_all(&mut self) {
        for index in 0..self.nodes.len() {
            if self.nodes[index].host.is_some() {
                self.stop(index);
            }
        }
    }

    /// Who runs what, as the database says: connector, holder and epoch. What nobody holds is left out.
    pub fn leases(&self) -> Vec<(String, String, u64)> {
        let rows = self.server.sql(
            &self.database,
            "SELECT split_part(connector, '/', 1), holder, epoch FROM in_trendmicro_lease
             WHERE holder IS NOT NULL ORDER BY 1",
        );
        let lease = |row: Vec<String>| {
            let epoch = row[2].parse().expect("an epoch");
            (row[0].clone(), row[1].clone(), epoch)
        };
        rows.into_iter().map(lease).collect()
    }

    /// The running host that holds the lease of a connector, as it says itself.
    pub fn holder(&self, connector: &str) -> Option<usize> {
        let leases = self.leases();
        let (_, _, epoch) = leases.iter().find(|(name, _, _)| name == connector)?;
        let ended = format!("epoch {epoch}");
        let is_taking = |line: &str| {
            line.contains(&format!("[{connector}]"))
                && line.contains("runs on this host now")
                && line.split(['\n', ';', ',']).any(|part| part.trim() == ended)
        };
        self.nodes.iter().position(|node| {
            node.host.as_ref().is_some_and(|host| host.log().lines().any(is_taking))
        })
    }

    /// How many connectors each holder has, in order.
    pub fn spread(&self) -> Vec<usize> {
        let mut counts: HashMap<String, usize> = HashMap::new();
        for (_, holder, _) in self.leases() {
            *counts.entry(holder).or_default() += 1;
        }
        let mut counts: Vec<usize> = counts.into_values().collect();
        counts.sort_unstable();
        counts
    }

    /// Waits until so many connectors are spread over so many hosts within one; returns how long
    /// that took.
    pub fn wait_spread(&self, connectors: usize, hosts: usize) -> Duration {
        let begun = Instant::now();
        let explain = || format!("{:?}\n{}", self.leases(), self.tails());
        wait("an even spread", explain, || {
            let spread = self.spread();
            let is_even = spread.len() == hosts.min(connectors)
                && spread.iter().sum::<usize>() == connectors
                && spread.last()? - spread.first()? <= 1;
            is_even.then_some(())
        });
        begun.elapsed()
    }

    /// When the first request for a connector came to the vendor after `since`.
    pub fn asked_since(&self, connector: &str, since: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let since = since + IN_FLIGHT;
        let is_its = |request: &RequestLog| request.at > since && is_of(request, connector);
        self.sim.requests().iter().find(|request| is_its(request)).map(|request| request.at)
    }

    /// Waits until somebody asks for what a connector collects; returns how long after `since`.
    pub fn wait_asked(&self, connector: &str, since: DateTime<Utc>) -> Duration {
        let what = format!("a request for {connector}");
        let at = wait(&what, || self.tails(), || self.asked_since(connector, since));
        (at - since).to_std().unwrap_or_default()
    }

    /// Waits until everything that the vendor shows was delivered.
    pub fn wait_delivered(&self, patience: Duration) -> Account {
        let mut lines = LineCounter::default();
        let explain = || format!("{}\n{}", self.account().describe(), self.tails());
        wait_long("everything to be delivered", patience, explain, || {
            let counts = self.sim.counts();
            let delivered: u64 = self.outs().iter().map(|out| lines.count(out)).sum();
            let seems_complete = counts.pending == 0 && delivered >= counts.visible;
            seems_complete.then(|| self.account()).filter(|account| account.missing.is_empty())
        })
    }

    /// What all hosts delivered together.
    pub fn account(&self) -> Account {
        Account::of(&self.sim, self.outs().iter().map(PathBuf::as_path))
    }

    pub fn outs(&self) -> Vec<PathBuf> {
        self.nodes.iter().map(|node| node.place.out()).collect()
    }

    /// Fails if the database saw anything that must never be.
    #[track_caller]
    pub fn assert_fenced(&self) {
        let found = faults(&self.server, &self.database);
        assert!(found.is_empty(), "{} faults: {:?}", found.len(), &found[..found.len().min(5)]);
    }

    /// The ends of all logs.
    pub fn tails(&self) -> String {
        let tail = |(index, node): (usize, &Node)| {
            let tail = node.host.as_ref().map_or("does not run".to_owned(), Host::log_tail);
            format!("host {index}: {tail}")
        };
        self.nodes.iter().enumerate().map(tail).collect::<Vec<_>>().join("\n")
    }
}

impl Node {
    pub fn host(&self) -> &Host {
        self.host.as_ref().expect("a host that runs")
    }

    pub fn journal(&self) -> PathBuf {
        self.place.path("storage/trendmicro.0.journal")
    }
}

/// Writes a host's password file.
pub fn write_password(place: &Place, password: &str) {
    let path = place.path("password");
    fs::write(&path, password).expect("a file is written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("its mode is set");
}

/// Whether a request is for what a connector of [`CONNECTORS`] collects.
fn is_of(request: &RequestLog, connector: &str) -> bool {
    let RequestLog { route, query, .. } = request;
    match connector {
        "accepted" | "blocked" => query.contains(&format!("type={connector}")),
        "policy" => route.ends_with("/policyeventlog"),
        service => query.contains(&format!("service={service}")),
    }
}

/// The vendor of [`stanza`].
pub fn vendor(email_live: f64, cloud_app_live: f64) -> Sim {
    let cloud_app = CloudAppConfig {
        api_key: KEY.to_owned(),
        services: ["exchange", "sharepoint"].map(str::to_owned).to_vec(),
        backlog: 20,
        backlog_span: Duration::from_secs(1500),
        live_per_second: cloud_app_live,
        ..CloudAppConfig::default()
    };
    let email = EmailConfig {
        accepted_backlog: 400,
        blocked_backlog: 200,
        policy_backlog: 200,
        live_per_second: email_live,
        ..email()
    };
    Sim::builder().email(email).cloud_app(cloud_app).start().expect("the simulator starts")
}

/// The five connectors of [`CONNECTORS`] in one stanza.
pub fn stanza(sim: &Sim) -> Section {
    let mut stanza = common(sim).set("connectors", &CONNECTORS.join(", "));
    for (name, content_type) in [
        ("accepted", "accepted_traffic"),
        ("blocked", "blocked_traffic"),
        ("policy", "policy_events"),
    ] {
        let key = |key: &str| format!("{name}.{key}");
        stanza = stanza
            .set(&key("connector"), "email_security")
            .set(&key("username"), &EmailConfig::default().username)
            .set(&key("content_types"), content_type);
    }
    for service in ["exchange", "sharepoint"] {
        let key = |key: &str| format!("{service}.{key}");
        stanza = stanza
            .set(&key("connector"), "cloud_app_security")
            .set(&key("services"), service)
            .set(&key("event_types"), "securityrisk, dlp, virtualanalyzer, ransomware");
    }
    stanza
}

/// What every stanza of a fleet has.
pub fn common(sim: &Sim) -> Section {
    Section::default()
        .set("name", "trendmicro")
        .set("tag", "tm")
        .set("base_url", sim.url())
        .set("api_key", KEY)
        .set("interval", "1s")
        .set("lookback", "1h")
        .set("overlap", "1m")
}

/// Whether a folder of outputs has anything.
pub fn has_lines(out: &Path) -> bool {
    LineCounter::default().count(out) > 0
}
