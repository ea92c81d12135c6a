//! `simulate`: the vendor's four APIs on this machine, and configurations that point at them.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde_json::json;
use trendmicro_sim::{ApexConfig, CloudAppConfig, EmailConfig, Sim, WorkloadConfig};

use crate::Failure;

/// What is simulated.
#[derive(Debug, Args)]
pub struct Options {
    /// Address to listen on; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:8480", value_name = "ADDRESS")]
    listen: String,
    /// Everything drawn is drawn from this.
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,
    /// Mail records at the start.
    #[arg(long, default_value_t = 500, value_name = "N")]
    backlog: usize,
    /// New mails per second.
    #[arg(long, default_value_t = 2.0, value_name = "N")]
    live: f64,
    /// Writes fluent-bit.yaml and fluent-bit.conf into this directory.
    #[arg(long, value_name = "DIR")]
    write: Option<PathBuf>,
    /// Ends after so many seconds; else it runs until it is interrupted.
    #[arg(long, value_name = "N")]
    seconds: Option<u64>,
}

/// The simulator's keys.
struct Accounts {
    email: EmailConfig,
    cloud_app: CloudAppConfig,
    apex: ApexConfig,
    workload: WorkloadConfig,
}

/// Runs the simulator.
///
/// # Errors
/// When the address is taken, or a file cannot be written.
pub fn run(options: &Options, is_json: bool, out: &mut dyn Write) -> Result<(), Failure> {
    let fifth = options.backlog / 5;
    let accounts = Accounts {
        email: EmailConfig {
            accepted_backlog: options.backlog - 2 * fifth,
            blocked_backlog: fifth,
            policy_backlog: fifth,
            live_per_second: options.live,
            ..EmailConfig::default()
        },
        cloud_app: CloudAppConfig {
            services: vec!["sharepoint".to_owned()],
            ..CloudAppConfig::default()
        },
        // Whoever runs `test` and Fluent Bit within one second signs the same twice.
        apex: ApexConfig { refuse_replays: false, ..ApexConfig::default() },
        workload: WorkloadConfig::default(),
    };
    let sim = Sim::builder()
        .seed(options.seed)
        .listen(&options.listen)
        .email(accounts.email.clone())
        .cloud_app(accounts.cloud_app.clone())
        .apex(accounts.apex.clone())
        .workload(accounts.workload.clone())
        .start()?;
    let folder = options.write.clone().unwrap_or_else(|| PathBuf::from("."));
    let properties = accounts.properties(sim.url(), &folder);
    let service = vec![
        ("flush".to_owned(), "1".to_owned()),
        ("storage.path".to_owned(), folder.join("storage").display().to_string()),
    ];
    let (yaml, classic) = (yaml(&service, &properties), classic(&service, &properties));
    if let Some(folder) = &options.write {
        std::fs::create_dir_all(folder)?;
        std::fs::write(folder.join("fluent-bit.yaml"), &yaml)?;
        std::fs::write(folder.join("fluent-bit.conf"), &classic)?;
    }
    if is_json {
        writeln!(out, "{}", json!({"url": sim.url(), "yaml": yaml, "classic": classic}))?;
    } else {
        announce(sim.url(), options.write.as_deref(), &yaml, &classic, out)?;
    }
    out.flush()?;
    match options.seconds {
        Some(seconds) => std::thread::sleep(Duration::from_secs(seconds)),
        // An interrupt ends the process.
        None => loop {
            std::thread::park();
        },
    }
    Ok(())
}

fn announce(
    url: &str,
    folder: Option<&Path>,
    yaml: &str,
    classic: &str,
    out: &mut dyn Write,
) -> std::io::Result<()> {
    writeln!(out, "# The simulator of all four products listens on {url}; Ctrl-C ends it.")?;
    let Some(folder) = folder else {
        writeln!(out, "# fluent-bit.yaml\n{yaml}\n# or fluent-bit.conf\n{classic}")?;
        return Ok(());
    };
    let config = folder.join("fluent-bit.yaml");
    let config = config.display();
    writeln!(out, "# In another terminal:")?;
    writeln!(out, "trendmicroctl test -c {config}")?;
    writeln!(out, "fluent-bit -e libin_trendmicro.so -c {config}")
}

impl Accounts {
    /// The properties of an input that collects everything.
    fn properties(&self, url: &str, folder: &Path) -> Vec<(String, String)> {
        let mut all = vec![
            ("name".to_owned(), "trendmicro".to_owned()),
            ("tag".to_owned(), "trendmicro".to_owned()),
            ("connectors".to_owned(), "mail, cas, apex, workload".to_owned()),
            ("base_url".to_owned(), url.to_owned()),
            ("db".to_owned(), folder.join("trendmicro.db").display().to_string()),
            ("storage.type".to_owned(), "filesystem".to_owned()),
            ("tag_format".to_owned(), "trendmicro.{connector}.{content_type}".to_owned()),
        ];
        let mut add = |key: &str, value: &str| all.push((key.to_owned(), value.to_owned()));
        add("mail.connector", "email_security");
        add("mail.username", &self.email.username);
        add("mail.api_key", &self.email.api_key);
        add("mail.interval", "5s");
        add("cas.connector", "cloud_app_security");
        add("cas.services", "sharepoint");
        add("cas.api_key", &self.cloud_app.api_key);
        add("apex.connector", "apex_central");
        add("apex.application_id", &self.apex.application_id);
        add("apex.api_key", &self.apex.api_key);
        add("workload.connector", "workload_security");
        add("workload.base_url", &format!("{url}{}", self.workload.base_path));
        add("workload.api_key", &self.workload.api_key);
        all
    }
}

/// Records go to standard output.
const OUTPUT: [(&str, &str); 3] =
    [("name", "stdout"), ("match", "trendmicro.*"), ("format", "json_lines")];

fn yaml(service: &[(String, String)], input: &[(String, String)]) -> String {
    // YAML's single quotes take anything once quotes are doubled.
    let quoted = |value: &str| value.replace('\'', "''");
    let mut text = "service:\n".to_owned();
    for (key, value) in service {
        text.push_str(&format!("  {key}: '{}'\n", quoted(value)));
    }
    text.push_str("pipeline:\n  inputs:\n");
    for (i, (key, value)) in input.iter().enumerate() {
        let mark = if i == 0 { '-' } else { ' ' };
        text.push_str(&format!("    {mark} {key}: '{}'\n", quoted(value)));
    }
    text.push_str("  outputs:\n");
    for (i, (key, value)) in OUTPUT.iter().enumerate() {
        let mark = if i == 0 { '-' } else { ' ' };
        text.push_str(&format!("    {mark} {key}: '{value}'\n"));
    }
    text
}

fn classic(service: &[(String, String)], input: &[(String, String)]) -> String {
    let mut text = String::new();
    let output = OUTPUT.map(|(key, value)| (key.to_owned(), value.to_owned()));
    for (name, properties) in [("SERVICE", service), ("INPUT", input), ("OUTPUT", &output)] {
        text.push_str(&format!("[{name}]\n"));
        for (key, value) in properties {
            text.push_str(&format!("    {key:<24} {value}\n"));
        }
        text.push('\n');
    }
    text
}
