//! `test`: every connector and content type, stage by stage, as the plugin would go about it.

use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use chrono::TimeDelta;
use in_trendmicro::clock::lock;
use in_trendmicro::config::value::is_database;
use in_trendmicro::config::{ConnectorConfig, Db};
use in_trendmicro::connector::{Mode, Stream};
use in_trendmicro::error::{ErrorKind, Result};
use in_trendmicro::http::{Response, retry};
use in_trendmicro::window::{SETTLE, Window};
use indicatif::{ProgressBar, ProgressStyle};

use crate::host::HostConfig;
use crate::report::{Check, Status, Subject};
use crate::stanza::{Line, Stanza};
use crate::state::{self, Access};
use crate::time::{Time, delta, now, span};
use crate::vendor::Vendor;
use crate::{lint, network};

/// How much of a log is looked at: enough to see records, little to fetch.
const SAMPLE: Duration = Duration::from_secs(3600);
/// A difference of clocks that the plugin warns about, too.
const SKEW_NOTABLE: TimeDelta = TimeDelta::seconds(30);
/// Beyond this Apex Central refuses signatures, and windows are visibly off.
const SKEW_MAX: TimeDelta = TimeDelta::seconds(120);

/// What to test.
pub struct Options {
    /// The host's configuration.
    pub config: PathBuf,
    /// Only connectors of these names; empty for all.
    pub connectors: Vec<String>,
    /// Nothing is sent: configuration and state file only.
    pub is_offline: bool,
    /// Connectors that are tested at the same time.
    pub jobs: usize,
}

/// Tests a whole configuration.
///
/// # Errors
/// When it cannot be read, or has nothing to test.
pub fn run(options: &Options) -> Result<Vec<Subject>> {
    let host = HostConfig::read(&options.config)?;
    let inputs: Vec<(Stanza<'_>, Vec<ConnectorConfig>)> =
        host.inputs().map(Stanza).map(|stanza| (stanza, stanza.read_each())).collect();
    let mut subjects = vec![of_host(&host, &inputs, options)];
    for (stanza, configs) in &inputs {
        subjects.push(of_stanza(&host, *stanza, configs, options.is_offline));
    }
    let is_chosen = |config: &&ConnectorConfig| {
        options.connectors.is_empty() || options.connectors.contains(&config.name)
    };
    let chosen: Vec<(Stanza<'_>, &ConnectorConfig)> = inputs
        .iter()
        .flat_map(|(stanza, configs)| configs.iter().filter(is_chosen).map(|c| (*stanza, c)))
        .collect();
    subjects.extend(of_connectors(&chosen, options));
    Ok(subjects)
}

/// The files, and what concerns several inputs.
fn of_host(
    host: &HostConfig,
    inputs: &[(Stanza<'_>, Vec<ConnectorConfig>)],
    options: &Options,
) -> Subject {
    let mut checks = Vec::new();
    for note in &host.notes {
        let status = if note.is_fatal { Status::Failed } else { Status::Warning };
        let line = Line { at: note.at.clone(), text: String::new() };
        checks.push(Check::new("configuration", status, &note.text).at([line]));
    }
    if inputs.is_empty() {
        checks.push(
            Check::failed("configuration", "no input has the name trendmicro")
                .advise("write name: trendmicro in an input of the pipeline"),
        );
    }
    for wanted in &options.connectors {
        if !inputs.iter().flat_map(|(_, configs)| configs).any(|config| config.name == *wanted) {
            let names: Vec<&str> = inputs
                .iter()
                .flat_map(|(_, configs)| configs.iter().map(|config| config.name.as_str()))
                .collect();
            let detail =
                format!("no connector is called {wanted}; there are: {}", names.join(", "));
            checks.push(Check::failed("configuration", detail));
        }
    }
    checks.extend(lint::across(inputs));
    let count = inputs.len();
    checks.insert(0, Check::ok("configuration", format!("{count} input(s) of the plugin")));
    Subject {
        name: options.config.display().to_string(),
        about: "the host's configuration".to_owned(),
        checks,
    }
}

/// One input: its properties, its keys, its storage, its state.
fn of_stanza(
    host: &HostConfig,
    stanza: Stanza<'_>,
    configs: &[ConnectorConfig],
    is_offline: bool,
) -> Subject {
    let mut checks = Vec::new();
    let mut told = None;
    match stanza.read() {
        Ok(config) => {
            let detail = format!("{} connector(s)", config.connectors.len());
            checks.push(Check::ok("configuration", detail));
            checks.extend(lint::outputs(host, stanza, &config));
            if let Some(Db::Server(server)) = &config.db {
                checks.extend(network::database(server, stanza, is_offline));
            }
        }
        Err(error) => {
            let line = stanza.line_of_error(&error);
            told = line.text.split(':').next().map(str::to_owned);
            checks.push(Check::failed("configuration", error.to_string()).at([line]));
        }
    }
    checks.extend(lint::keys(stanza, told.as_deref()));
    checks.extend(lint::storage(host, stanza));
    checks.extend(state_file(stanza));
    let names: Vec<&str> = configs.iter().map(|config| config.name.as_str()).collect();
    Subject {
        name: stanza.0.at.to_string(),
        about: format!("input trendmicro: {}", names.join(", ")),
        checks,
    }
}

fn state_file(stanza: Stanza<'_>) -> Option<Check> {
    const STAGE: &str = "state file";
    let path = stanza.db().filter(|path| !path.to_str().is_some_and(is_database))?;
    let shown = path.display();
    let check = match state::access(&path) {
        Access::Free => Check::ok(STAGE, format!("{shown}: not in use")),
        Access::InUse(holders) => {
            let holders: Vec<String> = holders.iter().map(ToString::to_string).collect();
            let detail =
                format!("{shown}: in use by {}; the plugin is running", holders.join(", "));
            Check::ok(STAGE, detail)
        }
        Access::Missing(Ok(())) => Check::ok(STAGE, format!("{shown}: will be made")),
        Access::Missing(Err(error)) => {
            let advice = "make its directory, owned by the user that fluent-bit runs as";
            Check::failed(STAGE, format!("{shown}: cannot be made ({error})")).advise(advice)
        }
        Access::Unusable(error) => Check::failed(STAGE, format!("{shown}: {error}"))
            .advise("write db: with another file, which only this input uses"),
    };
    let is_ok = check.status == Status::Ok;
    Some(check.at(stanza.line_of_key("db").filter(|_| !is_ok)))
}

/// Several at a time, in the order of the configuration.
fn of_connectors(chosen: &[(Stanza<'_>, &ConnectorConfig)], options: &Options) -> Vec<Subject> {
    let done: Mutex<Vec<Option<Subject>>> = Mutex::new(chosen.iter().map(|_| None).collect());
    let turn = AtomicUsize::new(0);
    // Drawn on a terminal only.
    let bar = ProgressBar::new(chosen.len() as u64).with_style(
        ProgressStyle::with_template("{spinner} {pos}/{len} {msg}")
            .unwrap_or_else(|_| ProgressStyle::default_bar()),
    );
    let work = || {
        loop {
            let i = turn.fetch_add(1, Ordering::Relaxed);
            let Some((stanza, config)) = chosen.get(i) else { return };
            bar.set_message(config.name.clone());
            bar.tick();
            let subject = of_connector(*stanza, config, options.is_offline);
            lock(&done)[i] = Some(subject);
            bar.inc(1);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..options.jobs.clamp(1, chosen.len().max(1)) {
            scope.spawn(work);
        }
    });
    bar.finish_and_clear();
    let done = done.into_inner().unwrap_or_default();
    done.into_iter().flatten().collect()
}

fn of_connector(stanza: Stanza<'_>, config: &ConnectorConfig, is_offline: bool) -> Subject {
    let about = format!("{}, {}", config.product.name, config.base_url.as_str());
    let mut checks = vec![Check::ok("configuration", "every property is legal")];
    if !is_offline {
        checks.extend(network::check(config, stanza));
        let is_reached = checks.iter().all(|check| check.status != Status::Failed);
        if is_reached {
            checks.extend(api(config, stanza));
        } else {
            checks.push(Check::new("credentials", Status::Skipped, "the host was not reached"));
            checks.push(Check::new("data", Status::Skipped, "the host was not reached"));
        }
    }
    Subject { name: config.name.clone(), about, checks }
}

/// Credentials, clock, and one page of each content type.
fn api(config: &ConnectorConfig, stanza: Stanza<'_>) -> Vec<Check> {
    let mut vendor = match Vendor::new(config) {
        Ok(vendor) => vendor,
        Err(error) => {
            let line = stanza.line_of_error(&error);
            return vec![Check::failed("configuration", error.to_string()).at([line])];
        }
    };
    let mut checks = Vec::new();
    let mut seen: Vec<&'static str> = Vec::new();
    let streams: Vec<(usize, &'static str, Mode)> = vendor
        .streams()
        .iter()
        .enumerate()
        .map(|(i, stream): (usize, &Stream)| (i, stream.content_type, stream.mode))
        .collect();
    for (i, content_type, mode) in streams {
        // One event type tells whether a service can be read; all would use up the budget.
        if seen.contains(&content_type) {
            continue;
        }
        let end = now() - delta(SETTLE);
        let window = Window { start: end - delta(SAMPLE), end };
        let answer = vendor.ask(i, &window, None);
        let response = answer.as_ref().ok().map(|(response, _)| response);
        if seen.is_empty() {
            checks.extend(response.and_then(|response| credentials(config, stanza, response)));
            checks.extend(response.and_then(|response| clock(response, now())));
        }
        seen.push(content_type);
        if checks.iter().any(|check| check.stage == "credentials" && check.status == Status::Failed)
        {
            checks.push(Check::new("data", Status::Skipped, "the credential was refused"));
            return checks;
        }
        checks.push(match answer {
            Ok((_, Some(page))) => {
                data(content_type, mode, page.records.len(), page.next.is_some())
            }
            Ok((response, None)) => {
                refusal(config, stanza, &format!("data {content_type}"), &response)
            }
            Err(error) => {
                let stage = format!("data {content_type}");
                let lines = stanza.lines(&config.name, &["base_url", "region"]);
                let advice = match error.kind() {
                    ErrorKind::Narrow => "the vendor is slow: raise timeout",
                    _ => {
                        "check that base_url is the API's own host, not a portal or a proxy's page"
                    }
                };
                Check::failed(&stage, error.to_string()).advise(advice).at(lines)
            }
        });
    }
    checks
}

fn data(content_type: &str, mode: Mode, count: usize, has_more: bool) -> Check {
    let more = if has_more { " on the first page, and more follow" } else { "" };
    let what = match (mode, count) {
        (Mode::Log, 0) => "nothing in the last hour".to_owned(),
        (Mode::Log, _) => format!("{count} records of the last hour{more}"),
        (Mode::Inventory, _) => format!("{count} entries{more}"),
    };
    Check::ok(&format!("data {content_type}"), what)
}

/// What the first answer says about the credential; nothing if it speaks of something else.
fn credentials(config: &ConnectorConfig, stanza: Stanza<'_>, response: &Response) -> Option<Check> {
    match response.status {
        200..=299 => Some(Check::ok("credentials", "accepted")),
        401 | 403 | 407 => Some(refusal(config, stanza, "credentials", response)),
        _ => None,
    }
}

/// An answer that is no success: the table of codes, and the lines that it is about.
fn refusal(
    config: &ConnectorConfig,
    stanza: Stanza<'_>,
    stage: &str,
    response: &Response,
) -> Check {
    let status = response.status;
    let said = retry::check(response).err().map(|error| error.to_string()).unwrap_or_default();
    let said = said.split_once("the vendor says: ").map_or("", |(_, said)| said);
    let detail = format!("HTTP {status}; the vendor says: {said}");
    let account = match config.product.name {
        "email_security" => &["api_key", "api_key_file", "username"][..],
        "apex_central" => &["api_key", "api_key_file", "application_id"][..],
        _ => &["api_key", "api_key_file"][..],
    };
    let properties = match status {
        401 => account,
        403 => &account[..2],
        407 => &["proxy"],
        429 => &["rate_limit"],
        400 => &["content_types", "services", "event_types", "expand", "base_url", "region"],
        _ => &["base_url", "region"],
    };
    let check = match status {
        429 => Check::warning(stage, detail),
        _ => Check::failed(stage, detail),
    };
    check.advise(retry::advice(status)).at(stanza.lines(&config.name, properties))
}

fn clock(response: &Response, now: Time) -> Option<Check> {
    let skew = now - response.date?;
    let way = if skew > TimeDelta::zero() { "ahead of" } else { "behind" };
    let detail = format!("this machine's is {} {way} the vendor's", span(skew.abs()));
    let advice = "set it by NTP (timedatectl set-ntp true)";
    Some(match skew.abs() {
        small if small < SKEW_NOTABLE => Check::ok("clock", "as the vendor's"),
        middle if middle < SKEW_MAX => Check::warning("clock", detail).advise(advice),
        _ => Check::failed("clock", detail).advise(advice),
    })
}
