//! What the benches share: pages of every product as the vendor sends them, and contenders that are
//! timed in turn, so that a machine that changes its speed changes it for all of them.

#![allow(dead_code, reason = "each bench uses its own part")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use in_trendmicro::clock::{Stop, Time};
use in_trendmicro::config::Config;
use in_trendmicro::connector::{self, Connector, Settings, Stream};
use in_trendmicro::http::{Client, Transport};
use in_trendmicro::page::{Body, PageReader};
use in_trendmicro::window::Window;
use trendmicro_sim::{ApexConfig, CloudAppConfig, EmailConfig, Sim, WorkloadConfig};

/// Records of each product; enough that no cache holds all of them.
const RECORDS: usize = 4_000;
/// A body comes from the network in pieces of about this size.
pub const CHUNK_BYTES: usize = 16 * 1024;

/// Pages of one stream.
pub struct Sample {
    pub product: &'static str,
    pub connector: Arc<dyn Connector>,
    pub bodies: Vec<Vec<u8>>,
    pub records: usize,
}

impl Sample {
    pub fn stream(&self) -> &Stream {
        &self.connector.streams()[0]
    }

    pub fn bytes(&self) -> usize {
        self.bodies.iter().map(Vec::len).sum()
    }

    /// Reads a body as a poller does.
    pub fn read(&self, body: &[u8]) -> Body {
        let mut reader = PageReader::new(self.connector.list(), self.stream().shape, false);
        body.chunks(CHUNK_BYTES).for_each(|piece| reader.feed(piece).expect("a page"));
        reader.finish().expect("a page")
    }
}

/// Pages of the first stream of each product, fetched from the simulator.
pub fn samples() -> Vec<Sample> {
    let sim = Sim::builder()
        .email(EmailConfig {
            accepted_backlog: RECORDS,
            live_per_second: 0.0,
            ..EmailConfig::default()
        })
        .cloud_app(CloudAppConfig {
            services: vec!["exchange".to_owned()],
            backlog: RECORDS,
            live_per_second: 0.0,
            rate_limit: None,
            ..CloudAppConfig::default()
        })
        .apex(ApexConfig { agents: RECORDS, ..ApexConfig::default() })
        .workload(WorkloadConfig { computers: RECORDS / 20, ..WorkloadConfig::default() })
        .start()
        .expect("a simulator");
    let email = EmailConfig::default();
    let apex = ApexConfig::default();
    [
        ("email_security", email.api_key, ("username", email.username)),
        ("cloud_app_security", CloudAppConfig::default().api_key, ("services", String::new())),
        ("apex_central", apex.api_key, ("application_id", apex.application_id)),
        ("workload_security", WorkloadConfig::default().api_key, ("expand", "all".to_owned())),
    ]
    .map(|(product, key, (name, value))| {
        sample(product, &[("base_url", sim.url()), ("api_key", &key), (name, &value)])
    })
    .into()
}

fn sample(product: &'static str, properties: &[(&str, &str)]) -> Sample {
    let lookup = |key: &str| match key {
        "connector" => Some(product.to_owned()),
        _ => properties.iter().find(|(name, _)| *name == key).map(|(_, value)| value.to_string()),
    };
    let config = Config::read(&lookup).expect("a configuration").connectors.remove(0);
    let connector = (config.product.connect)(&Settings {
        authority: config.base_url.as_str().trim_start_matches("http://").to_owned(),
        username: config.username.clone(),
        application_id: config.application_id.clone(),
        expand: config.expand.clone(),
        ..Settings::default()
    });
    let mut client = Client::new(&config, connector.scheme()).expect("a client");
    let now = Time::from_timestamp(now_secs(), 0).expect("a time");
    let window = Window { start: now - chrono::TimeDelta::hours(24), end: now };
    let mut sample = Sample { product, connector, bodies: Vec::new(), records: 0 };
    let mut next = None;
    loop {
        let request = sample.connector.request(0, &window, next.as_deref());
        let mut bytes = Vec::new();
        let answer = client.send(&request, &Stop::default(), &mut |piece| {
            bytes.extend_from_slice(piece);
            Ok(())
        });
        let answer = answer.expect("an answer");
        let body = sample.read(&bytes);
        let page = connector::read(&*sample.connector, &answer, body).expect("a page");
        if !page.records.is_empty() {
            sample.records += page.records.len();
            sample.bodies.push(bytes);
        }
        next = page.next;
        if next.is_none() {
            assert!(sample.records >= RECORDS / 20, "{product}: {} records", sample.records);
            return sample;
        }
    }
}

fn now_secs() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.expect("a clock after 1970").as_secs() as i64
}

/// Something that is timed.
pub struct Contender<'a> {
    pub name: &'a str,
    pub run: Box<dyn FnMut() -> usize + 'a>,
}

impl<'a> Contender<'a> {
    /// What `run` returns is looked at, so that its work is not left out.
    pub fn new(name: &'a str, run: impl FnMut() -> usize + 'a) -> Self {
        Self { name, run: Box::new(run) }
    }
}

/// Runs every contender once a round and returns the median time of each.
pub fn medians(contenders: &mut [Contender<'_>], rounds: usize) -> Vec<Duration> {
    let mut times = vec![Vec::with_capacity(rounds); contenders.len()];
    for _ in 0..rounds {
        for (contender, times) in contenders.iter_mut().zip(&mut times) {
            let begun = Instant::now();
            std::hint::black_box((contender.run)());
            times.push(begun.elapsed());
        }
    }
    let median = |mut times: Vec<Duration>| {
        times.sort_unstable();
        times[times.len() / 2]
    };
    times.into_iter().map(median).collect()
}
