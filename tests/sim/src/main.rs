//! The simulator as a program: starts it, says how to point Fluent Bit at it, and runs until
//! standard input closes, a signal comes or the time is up.

use std::error::Error;
use std::io::{self, Read, Write as _};
use std::time::Duration;

use clap::Parser;
use trendmicro_sim::{EmailConfig, Fault, Lateness, Sim};

/// Simulates Trend Micro's polling APIs.
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
    /// A fault rule as JSON, such as '{"when":{"every":5},"kind":{"status":{"code":503}}}'.
    #[arg(long, value_parser = fault)]
    fault: Vec<Fault>,
    /// Stop after so many seconds instead of at the end of standard input.
    #[arg(long)]
    seconds: Option<u64>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
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

/// Configuration that Fluent Bit takes as it is.
fn stanza(options: &Options, url: &str) -> String {
    format!(
        "pipeline:\n  \
           inputs:\n    \
             - name: trendmicro\n      \
               connector: email_security\n      \
               base_url: {url}\n      \
               username: {}\n      \
               api_key: {}\n      \
               db: trendmicro.db\n  \
           outputs:\n    \
             - name: stdout\n      \
               match: '*'",
        quoted(&options.username),
        quoted(&options.api_key)
    )
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
