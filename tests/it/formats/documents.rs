//! `docs/formats.md` has the tables as the code has them.

use std::collections::BTreeSet;
use std::fs;

use in_trendmicro::config::{EcsMapping, Format, Redact};
use in_trendmicro::format::redact::FIELDS;
use in_trendmicro::format::table::Row;
use in_trendmicro::format::{self, ecs, ocsf};

use super::{every_stream, root, updates};

/// A table of the document: its heading, its rows.
struct Part {
    heading: String,
    rows: Vec<&'static Row>,
}

/// The tables of a format, one per product; streams that differ in some rows share one table.
fn parts(format: Format, mapping: EcsMapping) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    every_stream(|product, stream| {
        let tables = format::tables(format, mapping, &stream.shape).unwrap();
        let heading = match product {
            "email_security" | "apex_central" => format!("{product}, {}", stream.content_type),
            _ => product.to_owned(),
        };
        let at = parts.iter().position(|part| part.heading == heading).unwrap_or_else(|| {
            parts.push(Part { heading, rows: Vec::new() });
            parts.len() - 1
        });
        for row in tables.into_iter().flatten() {
            if !parts[at].rows.iter().any(|known| std::ptr::eq(*known, row)) {
                parts[at].rows.push(row);
            }
        }
    });
    parts
}

fn table(rows: &[&Row]) -> String {
    let mut out = "| target | from | how |\n| --- | --- | --- |\n".to_owned();
    for row in rows {
        let from: Vec<String> = row.sources().iter().map(|name| format!("`{name}`")).collect();
        let words = row.words().replace('|', "\\|");
        out.push_str(&format!("| `{}` | {} | {words} |\n", row.0, from.join(", ")));
    }
    out
}

fn redacted() -> String {
    let mut out = "| source | `subject` | `recipients` | `file_names` |\n".to_owned();
    out.push_str("| --- | --- | --- | --- |\n");
    for fields in FIELDS {
        let names = |what| {
            let names: Vec<String> =
                fields.of(what).iter().map(|name| format!("`{name}`")).collect();
            names.join(", ")
        };
        out.push_str(&format!(
            "| `{}` | {} | {} | {} |\n",
            fields.source,
            names(Redact::Subject),
            names(Redact::Recipients),
            names(Redact::FileNames)
        ));
    }
    out
}

fn generated() -> String {
    let mut out = String::new();
    let mut chapter = |title: String, parts: Vec<Part>| {
        out.push_str(&format!("## {title}\n\n"));
        for part in parts {
            out.push_str(&format!("### {}\n\n{}\n", part.heading, table(&part.rows)));
        }
    };
    let (ecs_title, ocsf_title) =
        (format!("ECS {}", ecs::VERSION), format!("OCSF {}", ocsf::VERSION));
    chapter(ecs_title, parts(Format::Ecs, EcsMapping::Full));
    let of_email = |mapping| {
        let mut parts = parts(Format::Ecs, mapping);
        parts.truncate(1);
        parts
    };
    chapter("`ecs_mapping: sekoia`".to_owned(), of_email(EcsMapping::Sekoia));
    chapter("`ecs_mapping: sekoia_2023`".to_owned(), of_email(EcsMapping::Sekoia2023));
    chapter(ocsf_title, parts(Format::Ocsf, EcsMapping::Full));
    out.push_str(&format!("## Redacted fields\n\n{}", redacted()));
    out
}

#[test]
fn the_document_has_every_table() {
    const START: &str = "<!-- tables -->\n";
    const END: &str = "<!-- /tables -->";
    let path = root("docs/formats.md");
    let text = fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once(START).unwrap();
    let (tables, after) = rest.split_once(END).unwrap();
    if updates() {
        let text = format!("{before}{START}\n{}\n{END}{after}", generated());
        return fs::write(path, text).unwrap();
    }
    assert!(
        tables.trim() == generated().trim(),
        "docs/formats.md: write the tables anew with `UPDATE_EXPECT=1 cargo test --test it formats`"
    );
}

/// Within a table each target is filled once.
#[test]
fn no_target_is_filled_twice() {
    every_stream(|product, stream| {
        for format in [Format::Ecs, Format::Ocsf] {
            for mapping in [EcsMapping::Full, EcsMapping::Sekoia, EcsMapping::Sekoia2023] {
                let tables = format::tables(format, mapping, &stream.shape).unwrap();
                let mut seen = BTreeSet::new();
                for row in tables.into_iter().flatten() {
                    assert!(seen.insert(row.0), "{product} {}: {}", stream.name, row.0);
                }
            }
        }
    });
}
