//! What the plugin costs: `cargo run --release --example load [RECORDS]`.
//!
//! The simulator serves pages of 500 mail records, or a list of machines in one answer, over loopback
//! from this process; another process is the embedded host with the plugin. Each run collects a backlog
//! from nothing; the growth ends at RECORDS (one million; ten million take a quarter of an hour). Prints
//! tables and writes plots to `docs/performance`.
//!
//! The host's threads do what Fluent Bit would do with the records, so processor time is told by
//! thread: those named `tm-…` are the plugin's, and the input's own runs its callbacks. Memory is
//! that of a second run, in a process that has no host around the plugin but one that counts.

use std::collections::HashMap;
use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use embedded_host::{Host, Options, built_plugin};
use in_trendmicro::config::Config;
use in_trendmicro::handover::Counters;
use in_trendmicro::instance::{self, Abilities, Instance};
use in_trendmicro::log::{Level, Line, Log, Logger};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use trendmicro_sim::{ApexConfig, EmailConfig, Sim};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// What cargo builds.
const PLUGIN: &str = "libin_trendmicro.so";
const RECORDS_MAX: usize = 1_000_000;
/// A host that ticks once a second takes 8 MB a second; this one shall not be what is measured.
const TICK: Duration = Duration::from_millis(100);
const DRAIN: Duration = Duration::from_millis(10);
/// The ticks of a real host, for what idle connectors cost.
const IDLE_TICK: Duration = Duration::from_secs(1);
const IDLE_TIME: Duration = Duration::from_secs(20);
/// Without any progress for so long, a run has failed.
const PATIENCE: Duration = Duration::from_secs(120);
const SO_BYTES_MAX: u64 = 8_000_000;

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["host", config, tick_ms] => host(Path::new(config), tick_ms.parse()?),
        ["bare", config, tick_ms] => bare(Path::new(config), tick_ms.parse()?),
        [] => sweep(RECORDS_MAX),
        [records] => sweep(records.parse()?),
        _ => Err("usage: load [RECORDS]".into()),
    }
}

/// The other process: a host that says how many records it counted whenever it is asked.
fn host(config: &Path, tick_ms: u64) -> Result<()> {
    let options = Options {
        tick: Duration::from_millis(tick_ms),
        drain: DRAIN,
        flush: Duration::from_millis(100),
        log_echo: false,
        ..Options::new(built_plugin(PLUGIN)?)
    };
    let begun = Instant::now();
    let host = Host::start(options, &fs::read_to_string(config)?)?;
    println!("{}", begun.elapsed().as_micros());
    for _ in std::io::stdin().lines() {
        let inputs = host.status().inputs;
        println!("{}", inputs.iter().map(|input| input.counts.records_total).sum::<u64>());
    }
    let violations = host.stop().violations;
    if violations.is_empty() { Ok(()) } else { Err(format!("{violations:?}").into()) }
}

/// A host that counts what it is handed, and keeps nothing of it.
struct Counting {
    records: u64,
}

impl instance::Host for Counting {
    fn measure(&mut self, _: &[in_trendmicro::metrics::Sample], _: u64) {}

    fn counters(&mut self) -> Option<Counters> {
        Some(Counters { records: self.records, ring_writes: None, ring_failures: None })
    }

    fn append(&mut self, _: Option<&str>, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            let event = rmpv::decode::read_value(&mut bytes);
            self.records += u64::from(event.is_ok_and(|event| event.is_array()));
        }
        true
    }

    fn print(&mut self, _: &Line) {}

    fn is_paused(&self) -> bool {
        false
    }
}

/// The same process without a host of its own.
fn bare(config: &Path, tick_ms: u64) -> Result<()> {
    let text = fs::read_to_string(config)?;
    let input = text.split("[INPUT]").nth(1).and_then(|rest| rest.split('[').next());
    let pairs = input.ok_or("no input")?.lines().filter_map(|line| line.trim().split_once(' '));
    let properties: HashMap<&str, &str> = pairs.collect();
    let lookup = |key: &str| properties.get(key).map(|&value| value.to_owned());
    let abilities = Abilities { can_append: true, can_count: true, keeps_at_stop: true };
    let log = Log::new(Level::Warn);
    let logger = Logger::new(Arc::clone(&log), "");
    let begun = Instant::now();
    let mut instance = Instance::start(Config::read(&lookup)?, abilities, log, logger)?;
    println!("{}", begun.elapsed().as_micros());
    let (asked, questions) = mpsc::channel();
    thread::spawn(move || std::io::stdin().lines().try_for_each(|_| asked.send(())));
    let mut host = Counting { records: 0 };
    loop {
        match questions.recv_timeout(Duration::from_millis(tick_ms)) {
            Ok(()) => println!("{}", host.records),
            Err(RecvTimeoutError::Timeout) => drop(instance.tick(&mut host)),
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    instance.stop(&mut host);
    Ok(())
}

/// What is collected in one run.
#[derive(Clone, Copy)]
struct Load {
    /// Each of them collects the whole backlog.
    connectors: usize,
    backlog: usize,
    way: Way,
}

/// What comes, and how.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Mails in pages.
    Http,
    Https,
    /// Mails in pages, written as Elastic Common Schema.
    Ecs,
    /// Machines in one answer.
    OneAnswer,
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Self::Http => "HTTP",
            Self::Https => "HTTPS",
            Self::Ecs => "HTTP, `format: ecs`",
            Self::OneAnswer => "HTTP, one answer",
        }
    }
}

/// What that cost.
struct Cost {
    records: usize,
    wall: Duration,
    /// Processor time of the plugin's threads, of the thread that runs its callbacks, and of all.
    plugin: Duration,
    /// Of the plugin's, what the state file takes.
    committer: Duration,
    callbacks: Duration,
    process: Duration,
    peak_bytes: u64,
}

fn sweep(records_max: usize) -> Result<()> {
    report_library()?;
    let idle = idle(1)?;
    println!(
        "\n| backlog | connectors | | records/s | CPU s per million: plugin | of it the state file | callbacks | process | peak over idle, MB |"
    );
    println!("| ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |");
    let mut by_backlog = Vec::new();
    let mut backlog = 10_000;
    while backlog <= records_max {
        let load = Load { connectors: 1, backlog, way: Way::Http };
        by_backlog.push((backlog, print(load, measure(load)?, idle.peak_bytes)));
        backlog *= 10;
    }
    for way in [Way::Https, Way::Ecs, Way::OneAnswer] {
        let load = Load { connectors: 1, backlog: records_max.min(100_000), way };
        print(load, measure(load)?, idle.peak_bytes);
    }
    let mut by_connectors = Vec::new();
    for connectors in [1, 4, 16, 64] {
        let backlog = records_max.min(320_000) / connectors;
        let load = Load { connectors, backlog, way: Way::Http };
        by_connectors.push((connectors, print(load, measure(load)?, idle.peak_bytes)));
    }
    println!("\n| idle connectors | CPU, % of a core | resident MB |");
    println!("| ---: | ---: | ---: |");
    for connectors in [1, 64] {
        let cost = self::idle(connectors)?;
        let share = 100.0 * cost.process.as_secs_f64() / cost.wall.as_secs_f64();
        println!("| {connectors} | {share:.2} | {:.1} |", cost.peak_bytes as f64 / 1e6);
    }
    plot("backlog", "records of backlog", &by_backlog)?;
    plot("connectors", "connectors", &by_connectors)
}

/// How large the library is, stripped.
fn report_library() -> Result<()> {
    let stripped = tempfile::NamedTempFile::new()?;
    let (plugin, out) = (built_plugin(PLUGIN)?, stripped.path());
    Command::new("strip").arg("-o").arg(out).arg(&plugin).status()?;
    let bytes = out.metadata()?.len();
    println!("{}: {bytes} bytes stripped", plugin.display());
    if bytes > SO_BYTES_MAX {
        return Err(format!("the library has {bytes} bytes, more than {SO_BYTES_MAX}").into());
    }
    Ok(())
}

/// The other process, as seen from here.
struct Running {
    child: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Running {
    fn start(kind: &str, config: &Path, tick: Duration) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg(kind)
            .arg(config)
            .arg(tick.as_millis().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let commands = child.stdin.take().ok_or("no standard input")?;
        let answers = BufReader::new(child.stdout.take().ok_or("no standard output")?);
        let mut running = Self { child, commands, answers };
        let micros = running.answer()?;
        eprintln!("load: loaded and started in {:.1} ms", micros as f64 / 1e3);
        Ok(running)
    }

    fn answer(&mut self) -> Result<u64> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        line.trim().parse().map_err(|_| "the host has ended".into())
    }

    fn records(&mut self) -> Result<u64> {
        self.commands.write_all(b"\n")?;
        self.answer()
    }

    fn stop(mut self) -> Result<()> {
        drop(self.commands);
        let status = self.child.wait()?;
        if status.success() { Ok(()) } else { Err(format!("the host ended with {status}").into()) }
    }

    /// What the process has cost until now.
    fn cost(&self, records: u64, wall: Duration) -> Result<Cost> {
        let mut cost = Cost {
            records: records as usize,
            wall,
            plugin: Duration::ZERO,
            committer: Duration::ZERO,
            callbacks: Duration::ZERO,
            process: Duration::ZERO,
            peak_bytes: self.status("VmHWM:")?,
        };
        for task in fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            let (name, time) = cpu_time(&task?.path().join("stat"))?;
            cost.process += time;
            if name.starts_with("tm-") || name.starts_with("trendmicro") {
                cost.plugin += time;
                cost.committer += if name == "tm-commit" { time } else { Duration::ZERO };
            } else if name.starts_with("flb-in-") {
                cost.callbacks += time;
            }
        }
        Ok(cost)
    }

    /// A size out of the process's status, in bytes.
    fn status(&self, name: &str) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix(name)).ok_or("no such line")?;
        let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(1024 * kilobytes)
    }
}

/// Name and processor time of a thread, which the kernel counts in hundredths of a second.
fn cpu_time(stat: &Path) -> Result<(String, Duration)> {
    let text = fs::read_to_string(stat)?;
    let (head, tail) = text.rsplit_once(')').ok_or("no thread")?;
    let (_, name) = head.split_once('(').ok_or("no name")?;
    let ticks: u64 =
        tail.split_whitespace().skip(11).take(2).filter_map(|n| n.parse::<u64>().ok()).sum();
    Ok((name.to_owned(), Duration::from_millis(10 * ticks)))
}

/// What a load costs in the host, and how much memory without it.
fn measure(load: Load) -> Result<Cost> {
    let cost = run("host", load)?;
    Ok(Cost { peak_bytes: run("bare", load)?.peak_bytes, ..cost })
}

/// Collects a backlog from nothing.
fn run(kind: &str, load: Load) -> Result<Cost> {
    let dir = tempfile::tempdir()?;
    let sim = simulate(load)?;
    let url =
        if load.way == Way::Https { tls_front(&sim, dir.path())? } else { sim.url().to_owned() };
    let begun = Instant::now();
    let mut running = Running::start(kind, &config(load, &url, dir.path())?, TICK)?;
    let expected = (load.connectors * load.backlog) as u64;
    let (mut last, mut last_progress) = (0, begun);
    loop {
        // The bare host ticks when nobody asks.
        thread::sleep(TICK + TICK / 2);
        let records = running.records()?;
        if records >= expected {
            let cost = running.cost(records, begun.elapsed())?;
            running.stop()?;
            return Ok(cost);
        }
        if records > last {
            (last, last_progress) = (records, Instant::now());
        }
        if last_progress.elapsed() > PATIENCE {
            return Err(format!("{records} of {expected} records, and nothing moves").into());
        }
    }
}

/// What connectors cost that have nothing to collect.
fn idle(connectors: usize) -> Result<Cost> {
    let dir = tempfile::tempdir()?;
    let load = Load { connectors, backlog: 0, way: Way::Http };
    let sim = simulate(load)?;
    let mut running = Running::start("bare", &config(load, sim.url(), dir.path())?, IDLE_TICK)?;
    // The first round, which every start has.
    thread::sleep(Duration::from_secs(3));
    let (begun, before) = (Instant::now(), running.cost(0, Duration::ZERO)?);
    thread::sleep(IDLE_TIME);
    let records = running.records()?;
    let mut cost = running.cost(records, begun.elapsed())?;
    cost.process -= before.process;
    running.stop()?;
    Ok(cost)
}

fn simulate(load: Load) -> Result<Sim> {
    if load.way == Way::OneAnswer {
        let apex = ApexConfig { agents: load.backlog, ..ApexConfig::default() };
        return Ok(Sim::builder().apex(apex).start()?);
    }
    let email = EmailConfig {
        accepted_backlog: load.backlog,
        blocked_backlog: 0,
        policy_backlog: 0,
        backlog_span: Duration::from_secs(24 * 3600),
        live_per_second: 0.0,
        seed_samples: false,
        ..EmailConfig::default()
    };
    Ok(Sim::builder().email(email).start()?)
}

fn config(load: Load, url: &str, dir: &Path) -> Result<PathBuf> {
    let names: Vec<String> = (0..load.connectors).map(|i| format!("c{i}")).collect();
    let mut text = format!(
        "[SERVICE]\n    log_level info\n[INPUT]\n    Name trendmicro\n    Tag tm\n    \
         connectors {}\n    base_url {url}\n    db {}\n{}",
        names.join(","),
        dir.join("state.db").display(),
        product(load.way),
    );
    if load.way == Way::Https {
        writeln!(text, "    tls_ca_file {}", dir.join("ca.pem").display())?;
    }
    text += "[OUTPUT]\n    Name null\n    Match *\n";
    let path = dir.join("load.conf");
    fs::write(&path, text)?;
    Ok(path)
}

/// The properties of what is collected.
fn product(way: Way) -> String {
    if way == Way::OneAnswer {
        let apex = ApexConfig::default();
        return format!(
            "    connector apex_central\n    content_types agents\n    application_id {}\n    \
             api_key {}\n    interval 1h\n",
            apex.application_id, apex.api_key,
        );
    }
    let email = EmailConfig::default();
    let format = if way == Way::Ecs { "ecs" } else { "envelope" };
    format!(
        "    connector email_security\n    content_types accepted_traffic\n    username {}\n    \
         api_key {}\n    interval 1s\n    lookback 25h\n    format {format}\n",
        email.username, email.api_key,
    )
}

/// Something that speaks TLS before the simulator; returns its URL and leaves its authority in `dir`.
fn tls_front(sim: &Sim, dir: &Path) -> Result<String> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    fs::write(dir.join("ca.pem"), issuer.pem())?;
    let key = KeyPair::generate()?;
    let certificate =
        CertificateParams::new(vec!["localhost".to_owned()])?.signed_by(&key, &issuer)?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)?;
    let (config, listener) = (Arc::new(config), TcpListener::bind("127.0.0.1:0")?);
    let url = format!("https://localhost:{}", listener.local_addr()?.port());
    let behind = sim.url().trim_start_matches("http://").to_owned();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (config, behind) = (Arc::clone(&config), behind.clone());
            // A connection that breaks is the client's to notice.
            thread::spawn(move || forward(stream, config, &behind).is_ok());
        }
    });
    Ok(url)
}

/// Requests are small and come one at a time, so one thread can take turns.
fn forward(stream: TcpStream, config: Arc<ServerConfig>, behind: &str) -> Result<()> {
    let mut front = StreamOwned::new(ServerConnection::new(config)?, stream);
    let mut behind = TcpStream::connect(behind)?;
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            match front.read(&mut buffer)? {
                0 => return Ok(behind.shutdown(Shutdown::Both)?),
                count => request.extend_from_slice(&buffer[..count]),
            }
        }
        behind.write_all(&request)?;
        let mut left = usize::MAX;
        let mut head = Vec::new();
        while left > 0 {
            let count = behind.read(&mut buffer)?;
            front.write_all(&buffer[..count])?;
            if left == usize::MAX {
                head.extend_from_slice(&buffer[..count]);
                let Some(end) = memchr::memmem::find(&head, b"\r\n\r\n") else { continue };
                left = body_bytes(&head[..end]) - (head.len() - end - 4);
            } else {
                left -= count;
            }
        }
        front.flush()?;
    }
}

/// The length of a body, from the head of its answer; an answer without one has none.
fn body_bytes(head: &[u8]) -> usize {
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    length.and_then(|length| length.trim().parse().ok()).unwrap_or(0)
}

/// Prints a row of the table.
fn print(load: Load, cost: Cost, idle_bytes: u64) -> Cost {
    let millions = cost.records as f64 / 1e6;
    println!(
        "| {} | {} | {} | {:.0} | {:.2} | {:.2} | {:.2} | {:.2} | {:.1} |",
        load.backlog,
        load.connectors,
        load.way.name(),
        cost.records as f64 / cost.wall.as_secs_f64(),
        cost.plugin.as_secs_f64() / millions,
        cost.committer.as_secs_f64() / millions,
        cost.callbacks.as_secs_f64() / millions,
        cost.process.as_secs_f64() / millions,
        cost.peak_bytes.saturating_sub(idle_bytes) as f64 / 1e6,
    );
    cost
}

/// Writes a plot of speed and of memory, each as a share of its largest value.
fn plot(name: &str, label: &str, costs: &[(usize, Cost)]) -> Result<()> {
    let speed = |cost: &Cost| cost.records as f64 / cost.wall.as_secs_f64();
    let memory = |cost: &Cost| cost.peak_bytes as f64 / 1e6;
    let mut svg = String::from(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 640 260\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"640\" height=\"260\" fill=\"white\"/>\n",
    );
    let steps = costs.len().saturating_sub(1).max(1) as f64;
    let x = |i: usize| 60.0 + 520.0 * i as f64 / steps;
    for (color, top, what, value) in [
        ("#1f77b4", 30.0, "records/s", &speed as &dyn Fn(&Cost) -> f64),
        ("#d62728", 140.0, "peak memory without the host, MB", &memory),
    ] {
        let max = costs.iter().map(|(_, cost)| value(cost)).fold(0.0, f64::max);
        let y = |cost: &Cost| top + 80.0 - 70.0 * value(cost) / max;
        let points: Vec<String> = costs
            .iter()
            .enumerate()
            .map(|(i, (_, cost))| format!("{:.0},{:.0}", x(i), y(cost)))
            .collect();
        writeln!(svg, "<text x=\"60\" y=\"{top}\" fill=\"{color}\">{what}</text>")?;
        writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"2\"/>",
            points.join(" ")
        )?;
        for (i, (_, cost)) in costs.iter().enumerate() {
            writeln!(
                svg,
                "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"middle\">{:.0}</text>",
                x(i),
                y(cost) + 16.0,
                value(cost)
            )?;
        }
    }
    for (i, (at, _)) in costs.iter().enumerate() {
        writeln!(svg, "<text x=\"{:.0}\" y=\"250\" text-anchor=\"middle\">{at}</text>", x(i))?;
    }
    writeln!(svg, "<text x=\"630\" y=\"236\" text-anchor=\"end\">{label}</text>\n</svg>")?;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/performance");
    fs::create_dir_all(&folder)?;
    fs::write(folder.join(format!("{name}.svg")), svg)?;
    Ok(())
}
