//! How fast pages become events in each format: `cargo bench --bench formats`.
//!
//! From an answer's bytes to the host's, as a poller does it: cut, read, identified, written. Words
//! after `--` choose products and formats: `cargo bench --bench formats -- email_security ecs`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use in_trendmicro::clock::Time;
use in_trendmicro::config::{Format, Redact, Redaction};
use in_trendmicro::connector::{Connector, PRODUCTS, Settings};
use in_trendmicro::envelope::{Envelope, Style};
use in_trendmicro::page::PageReader;
use trendmicro_sim::{ApexConfig, CloudAppConfig, EmailConfig, Sim, WorkloadConfig};

const PAGE_RECORDS: usize = 500;
const MEASURED: Duration = Duration::from_millis(1500);
/// Of which the best counts: other programs only ever add to it.
const ROUNDS: usize = 30;
const FORMS: [&str; 5] = ["raw", "envelope", "ecs", "ocsf", "redacted"];

fn main() {
    let email = EmailConfig { accepted_backlog: 5000, ..EmailConfig::default() };
    let sim = Sim::builder()
        .email(email)
        .cloud_app(CloudAppConfig::default())
        .apex(ApexConfig::default())
        .workload(WorkloadConfig::default())
        .start()
        .expect("the simulator starts");
    let chosen: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let is_chosen = |name: &str, all: &[&str]| {
        let among = |word: &String| all.contains(&word.as_str());
        !chosen.iter().any(among) || chosen.iter().any(|word| word == name)
    };
    let products: Vec<&str> = PRODUCTS.iter().map(|product| product.name).collect();
    for product in PRODUCTS.iter().filter(|product| is_chosen(product.name, &products)) {
        let settings = Settings { authority: "localhost".to_owned(), ..Settings::default() };
        let connector = (product.connect)(&settings);
        let stream = match product.name {
            "cloud_app_security" => "sharepoint.securityrisk",
            _ => connector.streams()[0].name.as_str(),
        };
        measure(&sim, product.name, &connector, stream, &|form| is_chosen(form, &FORMS));
    }
}

fn measure(
    sim: &Sim,
    product: &str,
    connector: &Arc<dyn Connector>,
    name: &str,
    is_chosen: &dyn Fn(&str) -> bool,
) {
    let stream = connector.streams().iter().find(|stream| stream.name == name).expect("a stream");
    let mut records: Vec<String> = Vec::new();
    sim.for_each_record(|record| {
        // The simulator joins service and event type by a slash.
        if record.content_type.replace('/', ".") == name {
            records.push(record.json.clone());
        }
    });
    let records: Vec<&str> =
        records.iter().map(String::as_str).cycle().take(PAGE_RECORDS).collect();
    let page = format!("{{\"{}\":[{}]}}", connector.list(), records.join(","));
    let styles: Vec<(&str, Style)> = [
        ("raw", Style::of(Format::Raw)),
        ("envelope", Style::of(Format::Envelope)),
        ("ecs", Style::of(Format::Ecs)),
        ("ocsf", Style::of(Format::Ocsf)),
        ("redacted", Style { redaction: redaction(), ..Style::of(Format::Ecs) }),
    ]
    .into_iter()
    .filter(|(form, _)| is_chosen(form))
    .collect();
    let envelopes: Vec<_> =
        styles.iter().map(|(_, style)| Envelope::new(style, stream, "bench")).collect();
    let mut best = vec![f64::MAX; styles.len()];
    // Turn and turn about, so that what else the machine does falls on all alike.
    for _ in 0..ROUNDS {
        for (envelope, best) in envelopes.iter().zip(&mut best) {
            *best = best.min(seconds_per_page(envelope, &**connector, stream, &page));
        }
    }
    println!("{product}, {name}: {} bytes a record", page.len() / PAGE_RECORDS);
    let of_envelope = styles.iter().position(|(form, _)| *form == "envelope").map(|at| best[at]);
    for ((form, _), seconds) in styles.iter().zip(&best) {
        let rate = PAGE_RECORDS as f64 / seconds;
        let ratio = of_envelope.map(|envelope| format!(", {:.2} of envelope", envelope / seconds));
        println!("  {form:10} {rate:9.0} records/s{}", ratio.unwrap_or_default());
    }
}

fn redaction() -> Redaction {
    Redaction { what: vec![Redact::Subject, Redact::Recipients, Redact::FileNames], key: None }
}

fn seconds_per_page(
    envelope: &Envelope,
    connector: &dyn Connector,
    stream: &in_trendmicro::connector::Stream,
    page: &str,
) -> f64 {
    let polled = Time::from_timestamp(1_767_323_045, 678_000_000).expect("a time");
    // Taken over from page to page: this compares formats, not ways to get memory from the kernel.
    let mut out = Vec::new();
    let (begun, mut pages) = (Instant::now(), 0);
    while begun.elapsed() < MEASURED / ROUNDS as u32 {
        let mut reader = PageReader::new(connector.list(), stream.shape, false)
            .keeping_text(envelope.needs_text());
        // As large as the pieces in which answers arrive.
        for piece in page.as_bytes().chunks(16 * 1024) {
            reader.feed(piece).expect("a page");
        }
        out.clear();
        let records = reader.finish().expect("a page").records;
        let mut writer = envelope.writer();
        records.consume(|record| writer.write(&mut out, &record, polled, None));
        std::hint::black_box(&out);
        pages += 1;
    }
    begun.elapsed().as_secs_f64() / f64::from(pages)
}
