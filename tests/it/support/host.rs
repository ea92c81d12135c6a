//! A host as a process: the embedded one, or a real Fluent Bit.

use std::env;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::Duration;

use base64::Engine as _;
use serde_json::Value;
use trendmicro_sim::EmailConfig;

use super::torture::AS_HOST;
use super::{Config, KEY, PATIENCE, Place, wait, wait_long};

/// Clocks fast enough for tests, slow enough for a busy machine: the plugin calls a batch lost after
/// 30 ticks.
const CLOCKS: [&str; 8] =
    ["--tick-ms", "50", "--drain-ms", "20", "--flush-ms", "50", "--shutdown-tick-ms", "50"];
/// What the embedded host ends with when a rule was broken.
const EXIT_VIOLATIONS: i32 = 3;
const LOG_TAIL_LINES: usize = 60;

/// How a host ended.
#[derive(Debug)]
pub struct Ending {
    pub code: Option<i32>,
    /// What it logged since its start.
    pub log: String,
}

/// What the embedded host says at its end.
#[derive(Debug)]
pub struct Report {
    pub json: Value,
    pub log: String,
}

impl Report {
    /// A counter of an input of the last configuration that ran.
    pub fn count(&self, input: usize, name: &str) -> u64 {
        self.json["inputs"][input][name].as_u64().unwrap_or_else(|| panic!("no counter {name}"))
    }
}

/// A running host. Dropping it kills it.
pub struct Host {
    child: Child,
    stdin: Option<ChildStdin>,
    config: PathBuf,
    log: PathBuf,
    answers: PathBuf,
    /// Where the log and the answers of this run begin: a place sees many runs.
    log_start: usize,
    answers_start: usize,
}

impl Host {
    /// Starts the embedded host.
    pub fn start(place: &Place, config: &Config, arguments: &[&str]) -> Self {
        Self::start_text(place, &config.classic(), arguments)
    }

    /// The same with a configuration as it is.
    pub fn start_text(place: &Place, config: &str, arguments: &[&str]) -> Self {
        let mut command = embedded_host();
        command.arg("-e").arg(plugin()).args(CLOCKS).args(arguments).arg("--strict");
        Self::spawn(place, command, "host.conf", config)
    }

    /// The same inside of a tool that looks at what it does, and with slower clocks.
    pub fn start_under(place: &Place, mut tool: Command, config: &str) -> Self {
        tool.arg(embedded_host().get_program()).arg("-e").arg(plugin());
        Self::spawn(place, tool, "host.conf", config)
    }

    /// Starts the real host that the environment names; `None` if it names none.
    pub fn start_real(place: &Place, name: &str, config: &str) -> Option<Self> {
        let mut command = Command::new(fluent_bit()?);
        let own = env::var_os("IN_TRENDMICRO_SO").map_or_else(plugin, PathBuf::from);
        command.arg("-e").arg(own);
        Some(Self::spawn(place, command, name, config))
    }

    fn spawn(place: &Place, mut command: Command, name: &str, text: &str) -> Self {
        let (config, log, answers) =
            (place.path(name), place.path("host.log"), place.path("host.out"));
        fs::write(&config, text).expect("a configuration is written");
        let append = |path: &Path| {
            OpenOptions::new().create(true).append(true).open(path).expect("a log opens")
        };
        let (err, out) = (append(&log), append(&answers));
        let length = |file: &File| file.metadata().expect("a log's length").len() as usize;
        let (log_start, answers_start) = (length(&err), length(&out));
        let mut child = command
            .arg("-c")
            .arg(&config)
            .stdin(Stdio::piped())
            .stdout(out)
            .stderr(err)
            .spawn()
            .expect("the host starts");
        let stdin = child.stdin.take();
        Self { child, stdin, config, log, answers, log_start, answers_start }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn is_running(&self) -> bool {
        // A zombie is still listed, but has no memory map any more.
        fs::read(format!("/proc/{}/maps", self.pid())).is_ok_and(|maps| !maps.is_empty())
    }

    /// What it has logged since its start.
    pub fn log(&self) -> String {
        since(&self.log, self.log_start)
    }

    /// The end of that.
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n")
    }

    /// Waits until a line of the log holds `text`, and returns that line.
    pub fn wait_log(&self, text: &str) -> String {
        let find = || self.log().lines().find(|line| line.contains(text)).map(str::to_owned);
        wait(&format!("the log to say \"{text}\""), || self.log_tail(), find)
    }

    /// Waits until the log has said `text` so many times.
    pub fn wait_log_times(&self, text: &str, times: usize) {
        let what = format!("the log to say \"{text}\" {times} times");
        let enough = || (self.log().matches(text).count() >= times).then_some(());
        wait(&what, || self.log_tail(), enough);
    }

    /// Replaces the configuration file.
    pub fn rewrite_config(&self, text: &str) {
        fs::write(&self.config, text).expect("a configuration is written");
    }

    /// Gives the embedded host a command.
    pub fn command(&self, line: &str) {
        let mut stdin = self.stdin.as_ref().expect("a host's standard input");
        stdin.write_all(format!("{line}\n").as_bytes()).expect("the host reads");
    }

    fn answers(&self, kind: &str) -> Vec<String> {
        let text = since(&self.answers, self.answers_start);
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let prefix = format!("{kind} ");
        whole.lines().filter_map(|line| line.strip_prefix(&prefix)).map(str::to_owned).collect()
    }

    /// What the embedded host says about itself now.
    pub fn status(&self) -> Value {
        let before = self.answers("STATUS").len();
        self.command("status");
        let answer =
            wait("a status", || self.log_tail(), || self.answers("STATUS").into_iter().nth(before));
        serde_json::from_str(&answer).expect("a status is JSON")
    }

    /// Reloads and waits until that is done; returns how it went.
    pub fn reload(&self) -> String {
        let before = self.answers("RELOAD").len();
        self.signal("HUP");
        wait("a reload", || self.log_tail(), || self.answers("RELOAD").into_iter().nth(before))
    }

    pub fn signal(&self, name: &str) {
        send_signal(self.pid(), name);
    }

    /// Ends it as a crash would.
    pub fn kill(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Waits until it ends by itself.
    pub fn wait_end(mut self) -> Ending {
        let status = self.wait_exit(PATIENCE);
        self.assert_no_secrets();
        Ending { code: status.code(), log: self.log() }
    }

    /// Stops the embedded host with SIGTERM. It must end by itself and well: no rule broken, no
    /// thread left, every record accounted for.
    #[track_caller]
    pub fn stop(self) -> Report {
        self.stop_in_spite_of(&[])
    }

    /// The same where some rules of the embedded host do not hold.
    #[track_caller]
    pub fn stop_in_spite_of(mut self, rules: &[&str]) -> Report {
        self.signal("TERM");
        let status = self.wait_exit(PATIENCE);
        let tail = self.log_tail();
        let report = self.answers("REPORT").pop();
        let report = report.unwrap_or_else(|| panic!("no report, {status}\n{tail}"));
        let json: Value = serde_json::from_str(&report).expect("a report is JSON");
        let broken: Vec<_> = json["violations"].as_object().into_iter().flatten().collect();
        let is_bad = broken.iter().any(|(name, _)| !rules.contains(&name.as_str()));
        assert!(!is_bad, "rules were broken: {broken:?}\n{tail}");
        assert_eq!(json["threads_left"], serde_json::json!([]), "threads were left\n{tail}");
        let code = if broken.is_empty() { 0 } else { EXIT_VIOLATIONS };
        assert_eq!(status.code(), Some(code), "the host ended with {status}\n{tail}");
        self.assert_no_secrets();
        let log = self.log();
        assert_balanced(&log);
        Report { json, log }
    }

    /// Stops a real host with SIGTERM.
    #[track_caller]
    pub fn stop_real(mut self) -> Ending {
        self.signal("TERM");
        let status = self.wait_exit(PATIENCE);
        self.assert_no_secrets();
        let log = self.log();
        assert_eq!(status.code(), Some(0), "the host ended with {status}\n{}", self.log_tail());
        assert_balanced(&log);
        Ending { code: status.code(), log }
    }

    fn wait_exit(&mut self, patience: Duration) -> ExitStatus {
        let (log, start) = (self.log.clone(), self.log_start);
        let explain = || since(&log, start);
        wait_long("the host to end", patience, explain, || {
            self.child.try_wait().expect("a child can be waited for")
        })
    }

    /// Neither the key nor what HTTP makes of it may be seen, in any run of this place.
    #[track_caller]
    fn assert_no_secrets(&self) {
        let said = since(&self.log, 0) + &since(&self.answers, 0);
        assert_no_secrets(&said);
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Fails if `text` holds the API key in any form.
#[track_caller]
pub fn assert_no_secrets(text: &str) {
    let pair = format!("{}:{KEY}", EmailConfig::default().username);
    let encoded = base64::engine::general_purpose::STANDARD.encode(pair);
    for secret in [KEY, encoded.trim_end_matches('=')] {
        let line = text.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "a secret was logged");
    }
}

/// Fails unless every stream's closing line adds up.
#[track_caller]
fn assert_balanced(log: &str) {
    let mut lines = 0;
    for line in log.lines().filter(|line| line.contains("] fetched ")) {
        let number = |name: &str| -> u64 {
            let Some((_, rest)) = line.split_once(&format!("{name} ")) else { return 0 };
            let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
            digits.parse().expect(line)
        };
        let sum = number("delivered") + number("duplicate") + number("pending") + number("left");
        assert_eq!(number("fetched"), sum, "{line}");
        lines += 1;
    }
    assert!(lines > 0, "no closing lines with the counts");
    assert!(!log.contains("went astray"), "records went astray");
}

pub fn send_signal(pid: u32, name: &str) {
    let status = Command::new("kill").arg(format!("-{name}")).arg(pid.to_string()).status();
    assert!(status.expect("kill runs").success(), "no process {pid} takes {name}");
}

fn since(path: &Path, start: usize) -> String {
    let bytes = fs::read(path).unwrap_or_default();
    String::from_utf8_lossy(bytes.get(start..).unwrap_or_default()).into_owned()
}

/// The plugin that cargo has just built.
pub fn plugin() -> PathBuf {
    embedded_host::built_plugin("libin_trendmicro.so").unwrap_or_else(|error| panic!("{error}"))
}

/// The embedded host: an example of its own, and the examples that torment it can be it as well.
fn embedded_host() -> Command {
    let own = own_path();
    if own.file_stem().is_some_and(|name| name == "torture" || name == "fleet") {
        let mut command = Command::new(own);
        command.env(AS_HOST, "1");
        return command;
    }
    let path = built("examples/embedded_host");
    assert!(path.is_file(), "{} is missing: run cargo build --examples first", path.display());
    Command::new(path)
}

/// Something below the folder that this program was built into.
fn built(path: &str) -> PathBuf {
    let own = own_path();
    own.ancestors().nth(2).unwrap_or(&own).join(path)
}

/// The real host, if the environment names one.
pub fn fluent_bit() -> Option<PathBuf> {
    let path = env::var_os("FLUENT_BIT").filter(|path| !path.is_empty()).map(PathBuf::from)?;
    assert!(path.is_file(), "FLUENT_BIT is {}, which is no file", path.display());
    Some(path)
}

fn own_path() -> PathBuf {
    env::current_exe().expect("a path of this test")
}
