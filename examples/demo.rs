//! The plugin at work, without an account: `cargo run --release --example demo`.
//!
//! Starts the simulator of all four products, loads the built plugin through the real ABI (in the embedded host,
//! or in the Fluent Bit that `FLUENT_BIT` names), prints the records as JSON lines on standard
//! output, and reconciles at the end what the vendor had with what arrived. Progress and the
//! reconciliation go to standard error.

use std::collections::HashMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode};
use std::time::{Duration, Instant};

use embedded_host::{Host, Options, built_plugin};
use serde_json::Value;
use trendmicro_sim::{
    ApexConfig, CloudAppConfig, EmailConfig, Lateness, Sim, WorkloadConfig, canonical,
};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// What cargo builds.
const PLUGIN: &str = "libin_trendmicro.so";
/// How long records keep coming into being.
const LIVE: Duration = Duration::from_secs(8);
/// How long to wait without any progress before giving up.
const PATIENCE: Duration = Duration::from_secs(60);

/// The keys of the vendor's records.
const SOURCES: [&str; 4] = [
    "trendmicro_email_security",
    "trendmicro_cloud_app_security",
    "trendmicro_apexcentral",
    "trendmicro_cloudone",
];

const CLASSIC: &str = include_str!("fluent-bit/demo.conf");
const YAML: &str = include_str!("fluent-bit/demo.yaml");

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("demo: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<bool> {
    let dir = tempfile::tempdir()?;
    let sim = Sim::builder()
        .seed(1)
        .email(EmailConfig {
            live_per_second: 10.0,
            lateness: Lateness::Uniform { max: Duration::from_secs(3), share: 0.1 },
            ..EmailConfig::default()
        })
        .cloud_app(CloudAppConfig {
            services: vec!["sharepoint".to_owned()],
            live_per_second: 0.5,
            ..CloudAppConfig::default()
        })
        .apex(ApexConfig::default())
        .workload(WorkloadConfig::default())
        .start()?;
    eprintln!("demo: the simulator listens on {}", sim.url());
    let mut running = Running::start(&built_plugin(PLUGIN)?, dir.path(), sim.url())?;
    let delivered = dir.path().join("delivered");
    follow(&sim, &delivered, &mut running)?;
    let log = running.stop()?;
    reconcile(&sim, &delivered, &log)
}

/// The host that runs the plugin.
enum Running {
    /// The embedded one, in this process.
    Embedded(Box<Host>),
    /// The real one.
    Real { child: Child, log: PathBuf },
}

impl Running {
    fn start(plugin: &Path, dir: &Path, url: &str) -> Result<Self> {
        let fill = |text: &str| {
            text.replace("${DEMO_URL}", url).replace("${DEMO_DIR}", &dir.display().to_string())
        };
        let Some(fluent_bit) = std::env::var_os("FLUENT_BIT") else {
            eprintln!("demo: FLUENT_BIT is not set, so the embedded host runs the plugin");
            let options = Options { log_echo: false, ..Options::new(plugin) };
            return Ok(Self::Embedded(Box::new(Host::start(options, &fill(CLASSIC))?)));
        };
        let (config, log) = (dir.join("fluent-bit.yaml"), dir.join("fluent-bit.log"));
        std::fs::write(&config, fill(YAML))?;
        eprintln!("demo: {} runs the plugin", Path::new(&fluent_bit).display());
        let child = Command::new(fluent_bit)
            .arg("--quiet")
            .args([Path::new("-e"), plugin, Path::new("-c"), &config, Path::new("-l"), &log])
            .stderr(std::process::Stdio::null())
            .spawn()?;
        Ok(Self::Real { child, log })
    }

    fn check(&mut self) -> Result<()> {
        if let Self::Real { child, log } = self
            && let Some(status) = child.try_wait()?
        {
            let log = std::fs::read_to_string(log).unwrap_or_default();
            return Err(format!("Fluent Bit ended with {status}:\n{log}").into());
        }
        Ok(())
    }

    /// Stops the host and returns its log.
    fn stop(self) -> Result<String> {
        match self {
            Self::Embedded(host) => Ok(host.stop().log.join("\n")),
            Self::Real { mut child, log } => {
                Command::new("kill").args(["-TERM", &child.id().to_string()]).status()?;
                child.wait()?;
                Ok(std::fs::read_to_string(log)?)
            }
        }
    }
}

/// Shows progress until everything that the vendor has is delivered, or nothing moves any more.
fn follow(sim: &Sim, delivered: &Path, running: &mut Running) -> Result<()> {
    let started = Instant::now();
    let (mut last, mut last_progress) = (0, started);
    loop {
        std::thread::sleep(Duration::from_millis(500));
        running.check()?;
        if started.elapsed() >= LIVE {
            sim.stop_live();
        }
        let (counts, arrived) = (sim.counts(), lines(delivered)?);
        eprintln!(
            "demo: {:>4.1} s  the vendor has {:>5}  shown {:>5}  delivered {arrived:>5}",
            started.elapsed().as_secs_f32(),
            counts.visible,
            counts.shown_distinct,
        );
        if arrived != last {
            (last, last_progress) = (arrived, Instant::now());
        }
        let is_complete = arrived as u64 >= counts.visible && counts.pending == 0;
        if started.elapsed() > LIVE && (is_complete || last_progress.elapsed() > PATIENCE) {
            return Ok(());
        }
    }
}

fn lines(path: &Path) -> Result<usize> {
    if !path.exists() {
        return Ok(0);
    }
    Ok(std::fs::read(path)?.iter().filter(|&&byte| byte == b'\n').count())
}

/// Compares record by record, and prints the account.
fn reconcile(sim: &Sim, delivered: &Path, log: &str) -> Result<bool> {
    let mut arrived: HashMap<String, u64> = HashMap::new();
    for line in std::fs::read_to_string(delivered)?.lines() {
        let record = record(line)?;
        let vendors = SOURCES.iter().find_map(|source| record.get(source));
        let vendors = vendors.ok_or("a record without the vendor's part")?;
        *arrived.entry(canonical(vendors)).or_default() += 1;
    }
    let total: u64 = arrived.values().sum();
    let twice: u64 = arrived.values().map(|count| count - 1).sum();
    let mut missing = 0;
    sim.for_each_record(|record| {
        let json = serde_json::from_str(&record.json).unwrap_or_default();
        missing += u64::from(arrived.remove(&canonical(&json)).is_none());
    });
    let unknown = arrived.len();
    let counts = sim.counts();
    eprintln!("\nreconciliation");
    for (what, count) in [
        ("the vendor has", counts.visible),
        ("shown by the vendor, at least once", counts.shown_distinct),
        ("fetched by the plugin, overlap included", counted(log, "fetched")),
        ("of these duplicate", counted(log, "duplicate")),
        ("confirmed by the host's counter", counted(log, "delivered")),
        ("still pending", counted(log, "pending")),
        ("delivered to the output", total),
        ("delivered more than once", twice),
        ("delivered but unknown to the vendor", unknown as u64),
        ("missing", missing),
    ] {
        eprintln!("  {what:<42} {count:>7}");
    }
    Ok(missing == 0 && twice == 0 && unknown == 0)
}

/// The record of an output line: after its tag and time in the real host, a member in the embedded.
fn record(line: &str) -> Result<Value> {
    if line.starts_with('{') {
        let line: Value = serde_json::from_str(line)?;
        return Ok(line["record"].clone());
    }
    let (_, event) = line.split_once(": ").ok_or("an output line without a tag")?;
    let event: Value = serde_json::from_str(event)?;
    Ok(event[1].clone())
}

/// Adds up a figure from the plugin's closing lines, one per stream.
fn counted(log: &str, what: &str) -> u64 {
    let closing = log.lines().filter(|line| line.contains("fetched ") && line.contains("pending "));
    let figure = |line: &str| -> Option<u64> {
        let after = line.split_once(&format!("{what} "))?.1;
        after.split([',', ' ']).next()?.parse().ok()
    };
    closing.filter_map(figure).sum()
}
