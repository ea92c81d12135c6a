//! From a page's body to batches, against what else could be done with it, in the same run:
//! `cargo bench --bench transcoding [ROUNDS]`.

mod support;

use in_trendmicro::batch::Builder;
use in_trendmicro::clock::Time;
use in_trendmicro::config::Format;
use in_trendmicro::cursor::Progress;
use in_trendmicro::envelope::{Envelope, Style};
use in_trendmicro::window::Window;
use serde::de::IgnoredAny;
use serde_json::Value;
use support::{Contender, Sample};

const ROUNDS: usize = 30;

fn main() {
    let rounds = std::env::args().skip(1).find_map(|word| word.parse().ok()).unwrap_or(ROUNDS);
    for sample in support::samples() {
        compare(&sample, rounds);
    }
}

fn compare(sample: &Sample, rounds: usize) {
    let mut contenders = [
        Contender::new("envelope", || envelope(sample)),
        Contender::new("tree + MessagePack", || tree(sample, |_, _| ())),
        Contender::new("tree + MessagePack + id", || tree(sample, identify)),
        Contender::new("serde_json, ignored", || {
            each(sample, |body| {
                serde_json::from_slice::<IgnoredAny>(body).expect("JSON");
                1
            })
        }),
        Contender::new("serde_json tree", || {
            each(sample, |body| {
                serde_json::from_slice::<Value>(body).expect("JSON").as_object().expect("").len()
            })
        }),
        Contender::new("sonic-rs tree", || {
            each(sample, |body| {
                let value: sonic_rs::Value = sonic_rs::from_slice(body).expect("JSON");
                usize::from(sonic_rs::JsonValueTrait::is_object(&value))
            })
        }),
        Contender::new("sonic-rs, ignored", || {
            each(sample, |body| {
                sonic_rs::from_slice::<IgnoredAny>(body).expect("JSON");
                1
            })
        }),
        Contender::new("simd-json tape", || {
            each(sample, |body| {
                simd_json::to_tape(&mut body.to_vec()).map_or(0, |tape| tape.0.len())
            })
        }),
    ];
    let medians = support::medians(&mut contenders, rounds);
    println!(
        "\n{}: {} records, {} bytes each",
        sample.product,
        sample.records,
        sample.bytes() / sample.records
    );
    for (contender, median) in contenders.iter().zip(&medians) {
        let nanos = median.as_nanos() as f64;
        println!(
            "  {:<26} {:>8.0} ns/record {:>8.0} MB/s {:>6.2}",
            contender.name,
            nanos / sample.records as f64,
            1000.0 * sample.bytes() as f64 / nanos,
            nanos / medians[0].as_nanos() as f64,
        );
    }
}

fn each(sample: &Sample, read: impl Fn(&[u8]) -> usize) -> usize {
    sample.bodies.iter().map(|body| read(body)).sum()
}

/// As the plugin does it.
fn envelope(sample: &Sample) -> usize {
    let now = Time::from_timestamp(1_700_000_000, 0).expect("a time");
    let window = Progress::new(None).open(now);
    let span = Window { start: now, end: now };
    let envelope = Envelope::new(&Style::of(Format::Envelope), sample.stream(), "mail");
    each(sample, |body| {
        let mut builder = Builder::new(0, window, span, None);
        let mut writer = envelope.writer();
        sample.read(body).records.consume(|record| {
            builder.push(record.id, |out| writer.write(out, &record, now, None));
        });
        builder.finish().iter().map(|batch| batch.bytes.len()).sum()
    })
}

/// The obvious way: a tree of the whole body, and MessagePack from that.
fn tree(sample: &Sample, also: impl Fn(&Value, &mut Vec<u8>)) -> usize {
    let list = sample.connector.list();
    each(sample, |body| {
        let body: Value = serde_json::from_slice(body).expect("JSON");
        let mut out = Vec::new();
        for record in body[list].as_array().expect("a list") {
            write(&mut out, record).expect("memory");
            also(record, &mut out);
        }
        out.len()
    })
}

fn write(out: &mut Vec<u8>, value: &Value) -> std::io::Result<()> {
    use rmp::encode;
    match value {
        Value::Null => encode::write_nil(out)?,
        Value::Bool(value) => encode::write_bool(out, *value)?,
        Value::Number(number) => match (number.as_u64(), number.as_i64(), number.as_f64()) {
            (Some(value), ..) => drop(encode::write_uint(out, value)?),
            (_, Some(value), _) => drop(encode::write_sint(out, value)?),
            (.., Some(value)) => encode::write_f64(out, value)?,
            _ => encode::write_str(out, &number.to_string())?,
        },
        Value::String(text) => encode::write_str(out, text)?,
        Value::Array(items) => {
            encode::write_array_len(out, items.len() as u32)?;
            items.iter().try_for_each(|item| write(out, item))?;
        }
        Value::Object(members) => {
            encode::write_map_len(out, members.len() as u32)?;
            members.iter().try_for_each(|(key, value)| {
                encode::write_str(out, key)?;
                write(out, value)
            })?;
        }
    }
    Ok(())
}

/// What identity costs on top: the record with sorted keys, hashed.
fn identify(record: &Value, out: &mut Vec<u8>) {
    let mut sorted = record.clone();
    sorted.sort_all_objects();
    let mut canonical = Vec::new();
    write(&mut canonical, &sorted).expect("memory");
    out.extend_from_slice(&blake3::hash(&canonical).as_bytes()[..16]);
}
