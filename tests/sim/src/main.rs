//! The simulator as a program: starts it, says how to point Fluent Bit at it, and runs until
//! standard input closes, a signal comes or the time is up.

use std::error::Error;
use std::io::{self, Read, Write as _};
use std::time::Duration;

use clap::Parser;
use trendmicro_sim::{
    ApexConfig, Builder, CloudAppConfig, EmailConfig, Fault, Lateness, Sim, WorkloadConfig,
};

/// Simulates Trend Micro's polling APIs: Email Security, and with `--all` the other three.
#[derive(Debug, Parser)]
#[command(version)]
struct Options {
    /// Address to listen on; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:8080")]
    listen: String,
    /// Everything drawn is drawn from this.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Records at the start: three in five accepted, one blocked, one a policy event.
    #[arg(long, default_value_t = 500)]
    backlog: usize,
    /// How far back they reach (such as 90s, 30m, 24h, 3d).
    #[arg(long, default_value = "6h", value_parser = duration)]
    backlog_span: Duration,
    /// New mails per second.
    #[arg(long, default_value_t = 2.0)]
    live: f64,
    /// Share of records that become visible late, 0 to 1.
    #[arg(long, default_value_t = 0.0)]
    late_share: f64,
    /// The longest such delay.
    #[arg(long, default_value = "2m", value_parser = duration)]
    late_max: Duration,
    /// Login of basic authentication.
    #[arg(long, default_value = "admin@example.com")]
    username: String,
    /// Password of basic authentication.
    #[arg(long, default_value = "sim-email-key")]
    api_key: String,
    /// Simulates Cloud App Security, Apex Central and Workload Security too.
    #[arg(long)]
    all: bool,
    /// Records of each service and event of Cloud App Security at the start.
    #[arg(long, default_value_t = 20)]
    cas_backlog: usize,
    /// Agents of Apex Central.
    #[arg(long, default_value_t = 200)]
    agents: usize,
    /// Computers of Workload Security.
    #[arg(long, default_value_t = 100)]
    computers: usize,
    /// A fault rule as JSON, such as '{"when":{"every":5},"kind":{"status":{"code":503}}}'.
    #[arg(long, value_parser = fault)]
    fault: Vec<Fault>,
    /// Stop after so many seconds instead of at the end of standard input.
    #[arg(long)]
    seconds: Option<u64>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    let builder = builder(&options);
    let sim = options.fault.iter().cloned().fold(builder, |builder, fault| builder.fault(fault));
    let sim = sim.start()?;
    let mut out = io::stdout();
    writeln!(out, "{}\n{}", sim.url(), stanza(&options, sim.url()))?;
    out.flush()?;
    match options.seconds {
        Some(seconds) => std::thread::sleep(Duration::from_secs(seconds)),
        None => wait_for_end(io::stdin())?,
    }
    Ok(())
}

/// What the options ask for, but for the faults.
fn builder(options: &Options) -> Builder {
    let lateness = match options.late_share > 0.0 {
        true => Lateness::Uniform { max: options.late_max, share: options.late_share },
        false => Lateness::None,
    };
    let email = EmailConfig {
        username: options.username.clone(),
        api_key: options.api_key.clone(),
        accepted_backlog: options.backlog - 2 * (options.backlog / 5),
        blocked_backlog: options.backlog / 5,
        policy_backlog: options.backlog / 5,
        backlog_span: options.backlog_span,
        live_per_second: options.live,
        lateness,
        ..EmailConfig::default()
    };
    let builder = Sim::builder().seed(options.seed).listen(&options.listen).email(email);
    if !options.all {
        return builder;
    }
    let cloud_app = CloudAppConfig {
        backlog: options.cas_backlog,
        backlog_span: options.backlog_span,
        live_per_second: options.live,
        lateness,
        ..CloudAppConfig::default()
    };
    builder
        .cloud_app(cloud_app)
        .apex(ApexConfig { agents: options.agents, ..ApexConfig::default() })
        .workload(WorkloadConfig { computers: options.computers, ..WorkloadConfig::default() })
}

/// Configuration that Fluent Bit takes as it is.
fn stanza(options: &Options, url: &str) -> String {
    let connectors = match options.all {
        true => all_connectors(options, url),
        false => email_connector(options, url),
    };
    let lines: String = connectors.iter().map(|line| format!("      {line}\n")).collect();
    format!(
        "pipeline:\n  \
           inputs:\n    \
             - name: trendmicro\n\
         {lines}      \
               db: trendmicro.db\n  \
           outputs:\n    \
             - name: stdout\n      \
               match: '*'"
    )
}

fn email_connector(options: &Options, url: &str) -> Vec<String> {
    vec![
        "connector: email_security".to_string(),
        format!("base_url: {url}"),
        format!("username: {}", quoted(&options.username)),
        format!("api_key: {}", quoted(&options.api_key)),
    ]
}

/// Three services make twelve streams, which a client can ask for within the limit of requests.
const SERVICES: &str = "sharepoint, exchange, onedrive";

fn all_connectors(options: &Options, url: &str) -> Vec<String> {
    let (cas, apex, workload) =
        (CloudAppConfig::default(), ApexConfig::default(), WorkloadConfig::default());
    let mut lines = vec!["connectors: mail, cas, apex, workload".to_string()];
    let mut connector = |name: &str, properties: Vec<String>| {
        lines.extend(properties.iter().map(|property| format!("{name}.{property}")));
    };
    connector("mail", email_connector(options, url));
    connector(
        "cas",
        vec![
            "connector: cloud_app_security".to_string(),
            format!("base_url: {url}"),
            format!("services: {SERVICES}"),
            format!("api_key: {}", quoted(&cas.api_key)),
        ],
    );
    connector(
        "apex",
        vec![
            "connector: apex_central".to_string(),
            format!("base_url: {url}"),
            format!("application_id: {}", quoted(&apex.application_id)),
            format!("api_key: {}", quoted(&apex.api_key)),
        ],
    );
    connector(
        "workload",
        vec![
            "connector: workload_security".to_string(),
            format!("base_url: {url}{}", workload.base_path),
            format!("api_key: {}", quoted(&workload.api_key)),
        ],
    );
    lines
}

/// YAML's single quotes take anything once quotes are doubled.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn wait_for_end(mut input: impl Read) -> io::Result<()> {
    let mut ignored = [0; 1024];
    while input.read(&mut ignored)? > 0 {}
    Ok(())
}

fn fault(text: &str) -> Result<Fault, String> {
    let json = serde_json::from_str(text).map_err(|error| error.to_string())?;
    Fault::from_json(&json)
}

fn duration(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: u64 = number.parse().map_err(|_| format!("not a duration: {text}"))?;
    let unit_ms = match unit {
        "ms" => 1,
        "s" | "" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(format!("unknown unit: {unit}")),
    };
    number.checked_mul(unit_ms).map(Duration::from_millis).ok_or(format!("too long: {text}"))
}
