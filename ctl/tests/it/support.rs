//! A place on disk, a simulator, and the program.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use embedded_host::{Host, Options};
use serde_json::Value;
use tempfile::TempDir;
use trendmicro_sim::{ApexConfig, CloudAppConfig, EmailConfig, Sim, WorkloadConfig};

/// How long a test waits for what should happen within seconds; other programs share the machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// The directory of one test.
pub struct Place(TempDir);

impl Place {
    pub fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }
}

/// All four products.
pub fn simulate() -> Sim {
    let email = EmailConfig {
        accepted_backlog: 300,
        blocked_backlog: 100,
        policy_backlog: 100,
        backlog_span: Duration::from_secs(3 * 3600),
        live_per_second: 0.0,
        ..EmailConfig::default()
    };
    let cloud_app = CloudAppConfig {
        services: vec!["sharepoint".to_owned()],
        backlog: 5,
        live_per_second: 0.0,
        rate_limit: None,
        ..CloudAppConfig::default()
    };
    Sim::builder()
        .email(email)
        .cloud_app(cloud_app)
        // Two runs within a second sign the same.
        .apex(ApexConfig { refuse_replays: false, ..ApexConfig::default() })
        .workload(WorkloadConfig::default())
        .start()
        .unwrap()
}

/// A configuration without a mistake; `@URL` and `@DIR` stand for what differs.
pub const GOOD: &str = "
service:
  flush: 1
  storage.path: '@DIR/storage'
pipeline:
  inputs:
    - name: trendmicro
      tag: tm
      connectors: mail, cas, apex, workload
      base_url: '@URL'
      db: '@DIR/state.db'
      tag_format: tm.{connector}.{content_type}
      storage.type: filesystem
      mail.connector: email_security
      mail.username: admin@example.com
      mail.api_key: sim-email-key
      mail.lookback: 6h
      cas.connector: cloud_app_security
      cas.api_key: 0123456789abcdef0123456789abcdef01234567
      cas.rate_limit: none
      apex.connector: apex_central
      apex.application_id: 11111111-2222-3333-4444-555555555555
      apex.api_key: 0A1B2C3D-4E5F-6071-8293-A4B5C6D7E8F9
      workload.connector: workload_security
      workload.base_url: '@URL/api'
      workload.api_key: '1:sim-workload-key='
  outputs:
    - name: file
      match: 'tm.*'
      path: '@DIR/out'
";

/// `text` with its marks replaced.
pub fn fill(text: &str, url: &str, place: &Place) -> String {
    text.replace("@URL", url).replace("@DIR", &place.path("").display().to_string())
}

/// The same in the classic format.
pub fn classic(yaml: &str) -> String {
    let mut text = String::new();
    for line in yaml.lines().filter(|line| !line.trim().is_empty()) {
        let bare = line.trim().trim_start_matches("- ");
        let (key, value) = bare.split_once(':').unwrap();
        match (key, line.trim_start().starts_with('-')) {
            ("service", _) => text.push_str("[SERVICE]\n"),
            ("inputs" | "outputs" | "pipeline", _) => {}
            (_, starts) => {
                if starts {
                    let is_input = value.trim() == "trendmicro";
                    text.push_str(if is_input { "[INPUT]\n" } else { "[OUTPUT]\n" });
                }
                let value = value.trim().trim_matches('\'');
                text.push_str(&format!("    {key} {value}\n"));
            }
        }
    }
    text
}

/// Runs the program.
pub fn ctl(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_trendmicroctl"));
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"]
    {
        command.env_remove(name);
    }
    command.args(arguments).output().unwrap()
}

/// What it says on both outputs, and how it ends.
pub fn said(output: &Output) -> (String, i32) {
    let text = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    (text.concat(), output.status.code().unwrap())
}

/// Its JSON.
pub fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{:?}", said(output)))
}

/// Lets the real plugin run in the embedded host until `sim` has shown everything at least once and
/// the state file knows it.
pub fn collect(sim: &Sim, config: &str, place: &Place) {
    let plugin = std::env::current_exe().unwrap().with_file_name("libin_trendmicro.so");
    assert!(plugin.exists(), "{} was not built", plugin.display());
    fs::create_dir_all(place.path("out")).unwrap();
    let options = Options { log_echo: false, ..Options::new(plugin) };
    let host = Host::start(options, config).unwrap();
    let begun = Instant::now();
    loop {
        std::thread::sleep(Duration::from_millis(200));
        let counts = sim.counts();
        if lines(&place.path("out")) >= counts.visible as usize {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "{counts:?}, {} lines", lines(&place.path("out")));
    }
    // The position is written after the records are confirmed.
    std::thread::sleep(Duration::from_secs(3));
    host.stop();
}

pub fn lines(out: &Path) -> usize {
    let files = fs::read_dir(out).into_iter().flatten().flatten();
    files.map(|file| fs::read_to_string(file.path()).unwrap_or_default().lines().count()).sum()
}
