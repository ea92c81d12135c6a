//! The rules of the house that no lint knows, read from the sources, and the documents that repeat
//! what the code says.
//!
//! `UPDATE_EXPECT=1 cargo test --test it tidy` writes the tables of properties and metrics anew.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use in_trendmicro::config::options::{OPTIONS, Opt};
use in_trendmicro::metrics::{Kind, METRICS, Metric, PREFIX};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
/// What still fits into a head; a file's own tests do not count.
const FILE_LINES_MAX: usize = 500;

/// Each room with the rooms that it may use. Data travels downwards here, acknowledgement upwards;
/// a room that wants another one first has to be allowed to.
const ROOMS: &[(&str, &[&str])] = &[
    ("ffi", &["clock", "config", "error", "handover", "instance", "log", "metrics"]),
    ("config", &["connector", "error", "secret"]),
    (
        "instance",
        &[
            "activity",
            "batch",
            "checkpoint",
            "clock",
            "commit",
            "config",
            "connector",
            "envelope",
            "error",
            "handover",
            "http",
            "lease",
            "log",
            "metrics",
            "poller",
            "queue",
            "status",
            "window",
        ],
    ),
    (
        "poller",
        &[
            "activity",
            "batch",
            "clock",
            "commit",
            "connector",
            "cursor",
            "envelope",
            "error",
            "http",
            "lease",
            "ledger",
            "log",
            "msgpack",
            "page",
            "queue",
            "record",
            "sweep",
            "window",
        ],
    ),
    ("connector", &["error", "http", "json", "page", "record", "window"]),
    ("page", &["error", "record"]),
    ("http", &["clock", "config", "error", "secret"]),
    ("sweep", &["record"]),
    ("window", &["clock"]),
    ("json", &["error"]),
    ("record", &["clock", "error", "identity", "json", "msgpack", "outline"]),
    ("outline", &["msgpack"]),
    ("identity", &[]),
    ("envelope", &["clock", "config", "connector", "format", "msgpack", "record", "sweep"]),
    ("format", &["clock", "config", "connector", "msgpack", "record", "secret", "sweep"]),
    ("msgpack", &["clock"]),
    ("batch", &["cursor", "record", "window"]),
    ("queue", &["batch", "clock"]),
    ("handover", &["batch"]),
    (
        "commit",
        &[
            "activity",
            "batch",
            "checkpoint",
            "clock",
            "config",
            "connector",
            "cursor",
            "error",
            "lease",
            "ledger",
            "log",
            "queue",
            "record",
            "sweep",
            "window",
        ],
    ),
    ("cursor", &["clock"]),
    ("ledger", &["clock", "record"]),
    ("checkpoint", &["clock", "config", "error", "http", "lease", "record", "sweep", "window"]),
    ("lease", &["clock"]),
    ("activity", &["clock"]),
    ("metrics", &["activity", "clock", "commit", "window"]),
    ("status", &["activity", "metrics"]),
    ("secret", &["clock", "error"]),
    ("log", &["clock"]),
    ("clock", &[]),
    ("error", &[]),
];

/// Rooms that are pure: the same input gives the same output, so tests need no world around them.
const PURE: &[&str] = &[
    "window", "cursor", "ledger", "record", "identity", "outline", "envelope", "format", "msgpack",
    "batch", "json", "handover", "activity", "metrics", "status",
];
/// What makes a room impure.
const WORLD: &[&str] = &[
    "std::env",
    "std::fs",
    "std::io",
    "std::net::TcpListener",
    "std::net::TcpStream",
    "std::net::ToSocketAddrs",
    "std::net::UdpSocket",
    "std::process",
    "std::sync::Mutex",
    "std::sync::atomic",
    "std::thread",
    "std::time::SystemTime",
    "Instant::now",
    "SystemTime::now",
    "Utc::now",
    "chrono::Local",
    "crate::clock::Stop",
    "crate::clock::lock",
    "crate::clock::monotonic",
    "crate::clock::now",
    "crate::log",
    "fastrand",
    "rand",
];

/// What only some rooms may touch, by its path.
const OWNED: &[(&str, &[&str])] = &[
    ("libc", &["ffi"]),
    ("reqwest", &["http"]),
    ("rusqlite", &["checkpoint"]),
    ("rustls", &["http"]),
    ("rustls_native_certs", &["http"]),
    ("std::fs", &["checkpoint", "secret"]),
    ("std::os::unix", &["checkpoint", "secret"]),
    ("std::net::TcpStream", &[]),
    ("std::process", &[]),
    ("tokio", &["checkpoint", "http"]),
    ("tokio_postgres", &["checkpoint"]),
    ("tokio_postgres_rustls", &["checkpoint"]),
    ("hmac", &["http"]),
    ("sha2", &["http"]),
    ("zeroize", &["http", "secret"]),
    // Whoever needs the time is given it; these are the edges that give it.
    ("Utc::now", &["clock"]),
    ("SystemTime::now", &[]),
    ("Instant::now", &["clock", "http"]),
    ("crate::clock::now", &["http", "poller"]),
    ("crate::clock::monotonic", &["http", "instance", "poller"]),
];

/// What only a part of a room may touch: the folder, and what nobody else uses there.
const WITHIN: &[(&str, &str, &[&str])] = &[(
    "checkpoint",
    "src/checkpoint/postgres",
    &["tokio", "tokio_postgres", "tokio_postgres_rustls"],
)];

/// All that a connector may know of the rest: it describes an API and does nothing.
const CONNECTOR: &[&str] = &[
    "crate::clock::Time",
    "crate::error",
    "crate::http::Request",
    "crate::http::Response",
    "crate::http::auth::Scheme",
    "crate::json",
    "crate::msgpack::View",
    "crate::page::Body",
    "crate::record",
    "crate::window",
];

/// All that the C side may know of rooms that are not its own to drive.
const FFI: &[(&str, &[&str])] = &[
    ("crate::clock", &["crate::clock::lock"]),
    ("crate::handover", &["crate::handover::Counters"]),
];

/// What no code outside tests says: it prints past the host's log, or is not finished.
const FORBIDDEN: &[&str] = &[
    ".unwrap()",
    "dbg!(",
    "eprint!(",
    "eprintln!(",
    "print!(",
    "println!(",
    "todo!(",
    "unimplemented!(",
];

/// Where the plugin may panic, since what would have to happen never does; everything else that is
/// unexpected is an error. Texts are left out, as in [`Source`].
const PANICS: &[(&str, &str)] = &[
    ("src/config/properties.rs", "options::find(name).expect("),
    ("src/format/plan.rs", "_ => unreachable!("),
    ("src/http/auth.rs", "new_from_slice(key.as_bytes()).expect("),
];

/// A source file without comments, texts and tests.
struct Source {
    path: PathBuf,
    room: String,
    code: String,
    lines: usize,
}

fn sources() -> Vec<Source> {
    sources_of("src")
}

fn sources_of(folder: &str) -> Vec<Source> {
    let src = Path::new(ROOT).join(folder);
    let mut paths = Vec::new();
    let mut folders = vec![src.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                paths.push(path);
            }
        }
    }
    paths.sort();
    assert!(paths.len() > 10, "{paths:?}");
    let source = |path: PathBuf| {
        let within = path.strip_prefix(&src).unwrap().to_owned();
        let first = within.components().next().unwrap().as_os_str().to_string_lossy().into_owned();
        let text = bare(&fs::read_to_string(&path).unwrap());
        let code = without_tests(&text);
        Source {
            path: Path::new(folder).join(within),
            room: first.trim_end_matches(".rs").to_owned(),
            lines: code.lines().count(),
            code,
        }
    };
    paths.into_iter().map(source).collect()
}

/// Replaces comments and the inside of texts by nothing; lines stay.
fn bare(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::new();
    let mut at = 0;
    while at < chars.len() {
        let end = match chars[at] {
            '/' if chars.get(at + 1) == Some(&'/') => find(&chars, at, "\n"),
            '"' => end_of_text(&chars, at),
            'r' if is_raw(&chars, at) => {
                let hashes = chars[at + 1..].iter().take_while(|&&c| c == '#').count();
                let close = format!("\"{}", "#".repeat(hashes));
                find(&chars, at + hashes + 2, &close) + close.len()
            }
            '\'' if chars.get(at + 1) == Some(&'\\') => find(&chars, at + 3, "'") + 1,
            '\'' if chars.get(at + 2) == Some(&'\'') => at + 3,
            other => {
                out.push(other);
                at += 1;
                continue;
            }
        };
        let end = end.min(chars.len());
        out.extend(chars[at..end].iter().filter(|&&c| c == '\n'));
        at = end;
    }
    out
}

fn is_raw(chars: &[char], at: usize) -> bool {
    let in_word = at > 0 && (chars[at - 1].is_alphanumeric() || chars[at - 1] == '_');
    let after = chars[at + 1..].iter().find(|&&c| c != '#');
    (!in_word || chars[at - 1] == 'b') && after == Some(&'"')
}

fn find(chars: &[char], from: usize, what: &str) -> usize {
    let what: Vec<char> = what.chars().collect();
    let rest = chars.get(from..).unwrap_or_default();
    rest.windows(what.len()).position(|window| window == what).map_or(chars.len(), |i| from + i)
}

fn end_of_text(chars: &[char], start: usize) -> usize {
    let mut at = start + 1;
    while at < chars.len() && chars[at] != '"' {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    at + 1
}

/// Cuts out modules that only tests see.
fn without_tests(code: &str) -> String {
    let mut rest = code;
    let mut out = String::new();
    while let Some(at) = rest.find("#[cfg(test)]") {
        let (before, marked) = rest.split_at(at);
        out.push_str(before);
        let line_end = marked.find('\n').map_or(marked.len(), |i| i + 1);
        let item = &marked[line_end..];
        let bare = item.trim_start().trim_start_matches("pub(crate) ").trim_start_matches("pub ");
        if !bare.starts_with("mod ") {
            // A statement inside a function: one line.
            rest = item.split_once('\n').map_or("", |(_, after)| after);
            continue;
        }
        let mut depth = 0_usize;
        let end = item.char_indices().find(|&(_, c)| {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            c == '}' && depth == 0
        });
        rest = end.map_or("", |(i, _)| &item[i + 1..]);
    }
    out + rest
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Every path that code names: what `use` brings, expanded, and what it spells out in place.
fn paths(code: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut in_place = String::new();
    let mut rest = code;
    while let Some(at) = rest.find("use ") {
        in_place.push_str(&rest[..at]);
        let begins = !rest[..at].ends_with(is_word);
        rest = &rest[at + 4..];
        if begins && let Some((tree, after)) = rest.split_once(';') {
            expand("", tree, &mut found);
            rest = after;
        }
    }
    in_place.push_str(rest);
    for word in in_place.split(|c: char| !is_word(c) && c != ':') {
        let word = word.trim_matches(':');
        if word.contains("::") {
            found.insert(word.to_owned());
        }
    }
    found
}

/// Expands the braces of a `use`.
fn expand(prefix: &str, tree: &str, found: &mut BTreeSet<String>) {
    let tree = tree.trim();
    let braces =
        tree.split_once('{').and_then(|(head, rest)| Some((head, rest.rsplit_once('}')?.0)));
    let Some((head, inner)) = braces else {
        let name = tree.split(" as ").next().unwrap_or_default();
        found.insert(format!("{prefix}{name}").trim_end_matches("::self").to_owned());
        return;
    };
    let (mut depth, mut start) = (0_usize, 0);
    for (i, c) in inner.char_indices().chain([(inner.len(), ',')]) {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                if !inner[start..i].trim().is_empty() {
                    expand(&format!("{prefix}{head}"), &inner[start..i], found);
                }
                start = i + 1;
            }
            _ => {}
        }
    }
}

/// Whether `path` is `allowed` or lies in it.
fn is_within(path: &str, allowed: &str) -> bool {
    path.strip_prefix(allowed).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// Whether `path` names something of `owned`, also when a module was brought in and the path begins
/// with that.
fn names(path: &str, owned: &str) -> bool {
    let short = owned.strip_prefix("crate::").unwrap_or(owned);
    is_within(path, owned) || is_within(path, short) || path.ends_with(&format!("::{short}"))
}

/// The tests below are only as good as the reader above.
#[test]
fn the_reader_of_sources_sees_what_is_code_and_nothing_else() {
    let source = r##"
        use crate::{a::{self, B as C}, d::E}; // use crate::comment;
        fn f<'a>() { let x = '"'; let y = '\''; g("use crate::text; \" {", r#"unsafe"#); }
        #[cfg(test)]
        panic_if_armed();
        #[cfg(test)]
        mod tests { use crate::test; fn t() { x.unwrap() } }
        fn h() { crate::i::j(&mut std::fs::File::open()); }
    "##;
    let code = without_tests(&bare(source));
    let expected = ["crate::a", "crate::a::B", "crate::d::E", "crate::i::j", "std::fs::File::open"];
    assert_eq!(paths(&code).iter().map(String::as_str).collect::<Vec<_>>(), expected, "{code}");
    for absent in ["unsafe", "text", "comment", "unwrap", "armed"] {
        assert!(!code.contains(absent), "{absent} in {code}");
    }
    assert!(code.contains("fn h()") && code.contains("fn f<'a>()"), "{code}");
    assert!(names("std::fs::File", "std::fs") && !names("std::fsync", "std::fs"));
    assert!(names("clock::now", "crate::clock::now") && names("chrono::Utc::now", "Utc::now"));
}

#[test]
fn unsafe_stands_only_in_ffi() {
    for source in sources().iter().filter(|source| source.room != "ffi") {
        let words = source.code.split(|c: char| !is_word(c));
        assert_eq!(words.filter(|&word| word == "unsafe").count(), 0, "{}", source.path.display());
    }
}

#[test]
fn files_are_short() {
    let long: Vec<String> = sources()
        .into_iter()
        .chain(sources_of("ctl/src"))
        .filter(|source| source.lines > FILE_LINES_MAX)
        .map(|source| format!("{}: {} lines", source.path.display(), source.lines))
        .collect();
    assert!(long.is_empty(), "more than {FILE_LINES_MAX} lines without tests: {long:?}");
}

#[test]
fn rooms_use_only_the_rooms_that_they_may() {
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|source| source.room != "lib") {
        let (_, allowed) = ROOMS
            .iter()
            .find(|(room, _)| *room == source.room)
            .unwrap_or_else(|| panic!("{} is no room of the table", source.room));
        for path in paths(&source.code) {
            let Some(rest) = path.strip_prefix("crate::") else { continue };
            let room = rest.split("::").next().unwrap();
            if room != source.room && !allowed.contains(&room) {
                wrong.push(format!("{} uses {path}", source.path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// An allowance that nobody uses any more would let something in unseen.
#[test]
fn rooms_use_all_that_they_may() {
    let sources = sources();
    for (room, allowed) in ROOMS {
        let of_room = sources.iter().filter(|source| source.room == *room);
        let used: BTreeSet<String> = of_room.flat_map(|source| paths(&source.code)).collect();
        assert!(sources.iter().any(|source| source.room == *room), "{room} is gone");
        for other in *allowed {
            let other = format!("crate::{other}");
            assert!(
                used.iter().any(|path| is_within(path, &other)),
                "{room} no longer uses {other}"
            );
        }
    }
}

#[test]
fn pure_rooms_know_nothing_of_the_world() {
    for source in sources().iter().filter(|source| PURE.contains(&source.room.as_str())) {
        for path in paths(&source.code) {
            let world = WORLD.iter().find(|world| names(&path, world));
            assert_eq!(world, None, "{} uses {path}", source.path.display());
        }
    }
}

#[test]
fn what_belongs_to_one_room_is_used_nowhere_else() {
    let mut wrong = Vec::new();
    for source in sources() {
        for path in paths(&source.code) {
            let is_foreign = |(owned, rooms): &(&str, &[&str])| {
                names(&path, owned) && !rooms.contains(&source.room.as_str())
            };
            let is_outside = |(room, folder, owned): &(&str, &str, &[&str])| {
                source.room == *room
                    && !source.path.starts_with(folder)
                    && owned.iter().any(|owned| names(&path, owned))
            };
            if OWNED.iter().any(is_foreign) || WITHIN.iter().any(is_outside) {
                wrong.push(format!("{} uses {path}", source.path.display()));
            }
        }
        let looks = [".is_file()", ".is_dir()", ".exists()"];
        let may_look = ["checkpoint", "config", "secret"].contains(&source.room.as_str());
        if !may_look && looks.iter().any(|look| source.code.contains(look)) {
            wrong.push(format!("{} looks at files", source.path.display()));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn connectors_describe_and_do_nothing() {
    let connectors: Vec<Source> =
        sources().into_iter().filter(|source| source.room == "connector").collect();
    let name = |source: &Source| source.path.file_stem().unwrap().to_string_lossy().into_owned();
    let names: Vec<String> = connectors.iter().map(name).filter(|name| name != "mod").collect();
    assert!(!names.is_empty());
    for source in &connectors {
        for path in paths(&source.code).iter().filter(|path| path.starts_with("crate::")) {
            let may = CONNECTOR.iter().any(|allowed| is_within(path, allowed));
            assert!(may, "{} uses {path}", source.path.display());
        }
        for world in WORLD.iter().filter(|world| world.starts_with("std::")) {
            assert!(!source.code.contains(world), "{} uses {world}", source.path.display());
        }
        let own = name(source);
        let others = names.iter().filter(|other| own != "mod" && **other != own);
        for other in others {
            let words = source.code.split(|c: char| !is_word(c));
            assert_eq!(words.filter(|word| word == other).count(), 0, "{own} names {other}");
        }
    }
}

#[test]
fn the_c_side_takes_only_what_it_needs() {
    for source in sources().iter().filter(|source| source.room == "ffi") {
        for path in paths(&source.code) {
            let row = FFI.iter().find(|(room, _)| is_within(&path, room));
            let may = row.is_none_or(|(_, allowed)| allowed.iter().any(|a| is_within(&path, a)));
            assert!(may, "{} uses {path}", source.path.display());
        }
    }
}

#[test]
fn nothing_is_printed_past_the_host_or_left_unfinished() {
    for source in sources() {
        for (number, line) in source.code.lines().enumerate() {
            let starts = |word: &&&str| {
                line.match_indices(**word).any(|(at, _)| !line[..at].ends_with(is_word))
                    || (word.starts_with('.') && line.contains(**word))
            };
            let found = FORBIDDEN.iter().find(starts);
            assert_eq!(found, None, "{}:{}", source.path.display(), number + 1);
        }
    }
}

#[test]
fn the_places_that_may_panic_are_known() {
    let mut left: Vec<_> = PANICS.to_vec();
    for source in sources() {
        // Without its text, an `expect` is told from the JSON reader's, which gives an error.
        let panics = |line: &&str| {
            let words = ["panic!(", "unreachable!(", "assert!(", "assert_eq!(", ".expect()"];
            words.iter().any(|word| line.contains(word)) && !line.contains("const _")
        };
        for line in source.code.lines().filter(panics) {
            let path = source.path.display().to_string();
            let is_it = |(file, text): &(&str, &str)| path.ends_with(file) && line.contains(text);
            let known = left.iter().position(is_it);
            left.remove(known.unwrap_or_else(|| panic!("{path} may panic: {line}")));
        }
    }
    assert!(left.is_empty(), "no longer there: {left:?}");
}

/// Every crate that is linked in has its reason, and no reason is left of a crate that is gone.
#[test]
fn every_dependency_is_justified_in_the_one_table() {
    let text = document("SECURITY.md");
    let (_, table) = text.split_once("| crate | for |").expect("a table");
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    let names = |row: &str| -> Vec<String> {
        let cell = row.split('|').nth(1).unwrap_or_default().replace(" with ", ", ");
        let name = |part: &str| part.split_whitespace().next().map(str::to_owned);
        cell.split(',').filter_map(name).collect()
    };
    let justified: BTreeSet<String> = rows.flat_map(names).collect();
    let mut linked = BTreeSet::from(["ring".to_owned(), "SQLite".to_owned()]);
    for manifest in ["Cargo.toml", "ctl/Cargo.toml"] {
        let text = document(manifest);
        let (_, list) = text.split_once("\n[dependencies]\n").expect("dependencies");
        let lines = list.lines().take_while(|line| !line.starts_with('['));
        let lines = lines.filter(|line| !line.contains("path = "));
        linked.extend(lines.filter_map(|line| Some(line.split_once(" = ")?.0.to_owned())));
    }
    assert_eq!(justified, linked);
}

fn document(name: &str) -> String {
    let path = Path::new(ROOT).join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name} is missing: {error}"))
}

/// The table of properties, as the code has them.
fn options_table(options: &[&Opt]) -> String {
    let mut table = "| Key | Description | Default |\n| --- | --- | --- |\n".to_owned();
    for opt in options {
        let default = match opt.default {
            "" => "_none_".to_owned(),
            default => format!("`{default}`"),
        };
        let text = format!("{} Legal: {}.", opt.help, opt.legal).replace('|', "\\|");
        table.push_str(&format!("| `{}` | {text} | {default} |\n", opt.name));
    }
    table
}

/// Compares the table between a document's markers, or writes it.
fn assert_table(name: &str, what: &str, expected: &str) {
    let (start, end) = (format!("<!-- {what} -->\n"), format!("<!-- /{what} -->"));
    let text = document(name);
    let (before, rest) =
        text.split_once(&start).unwrap_or_else(|| panic!("{name} has no line {start}"));
    let (table, after) =
        rest.split_once(&end).unwrap_or_else(|| panic!("{name} has no line {end}"));
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        let updated = format!("{before}{start}\n{expected}\n{end}{after}");
        fs::write(Path::new(ROOT).join(name), updated).unwrap();
        return;
    }
    assert_eq!(
        table.trim(),
        expected.trim(),
        "{name}: write the table anew with `UPDATE_EXPECT=1 cargo test --test it tidy`"
    );
}

#[test]
fn the_documents_have_every_property() {
    let mut options: Vec<&Opt> = OPTIONS.iter().collect();
    assert_table("README.md", "options", &options_table(&options));
    // The host's documentation sorts by name.
    options.sort_by_key(|opt| opt.name);
    assert_table("docs/trendmicro.md", "options", &options_table(&options));
}

/// The table of metrics, as the code has them.
fn metrics_table() -> String {
    let mut table =
        "| Metric | Type | Labels | Description |\n| --- | --- | --- | --- |\n".to_owned();
    for metric in METRICS {
        let kind = if metric.kind == Kind::Counter { "counter" } else { "gauge" };
        let labels: Vec<_> = metric.labels().iter().map(|label| format!("`{label}`")).collect();
        let (name, labels, help) = (full_name(metric), labels.join(", "), metric.help);
        let scope = if metric.is_for_inventories() { "" } else { " Not of inventories." };
        table.push_str(&format!("| `{name}` | {kind} | {labels} | {help}{scope} |\n"));
    }
    table
}

#[test]
fn the_documents_have_every_metric() {
    assert_table("docs/monitoring.md", "metrics", &metrics_table());
}

/// What uses the metrics names only such as there are, and only labels that they have.
#[test]
fn dashboard_and_alerts_name_metrics_that_exist() {
    let mut used = BTreeSet::new();
    let dashboard = document("examples/monitoring/grafana-dashboard.json");
    let dashboard: serde_json::Value = serde_json::from_str(&dashboard).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().unwrap());
    let mut queries: Vec<String> =
        targets.map(|target| target["expr"].as_str().unwrap().to_owned()).collect();
    assert!(queries.len() >= 10, "{queries:?}");
    let alerts = document("examples/monitoring/alerts.yaml");
    let rules: Vec<_> =
        alerts.lines().filter_map(|line| line.trim().strip_prefix("expr: ")).collect();
    assert!(rules.len() >= 6, "{rules:?}");
    queries.extend(rules.into_iter().map(str::to_owned));
    for query in &queries {
        let metrics = metrics_of(query);
        assert!(!metrics.is_empty(), "{query} uses no metric");
        for label in labels_of(query) {
            let has = |metric: &&Metric| metric.labels().contains(&label.as_str());
            assert!(metrics.iter().all(has), "{query}: not every metric has the label {label}");
        }
        used.extend(metrics.into_iter().map(full_name));
    }
    let unused: Vec<_> =
        METRICS.iter().map(full_name).filter(|name| !used.contains(name)).collect();
    assert!(unused.is_empty(), "neither shown nor watched: {unused:?}");
}

fn full_name(metric: &Metric) -> String {
    format!("{}_{}", PREFIX.join("_"), metric.name)
}

/// The metrics that a query names; one that does not exist fails.
fn metrics_of(query: &str) -> Vec<&'static Metric> {
    let words = query.split(|c: char| !is_word(c)).filter(|word| word.starts_with("fluentbit_"));
    let find = |word: &str| METRICS.iter().find(|metric| full_name(metric) == word);
    words.map(|word| find(word).unwrap_or_else(|| panic!("{word} does not exist"))).collect()
}

/// The labels that a query selects or groups by.
fn labels_of(query: &str) -> Vec<String> {
    let inside = |open: &str, close: char| -> Vec<String> {
        let pieces = query.split(open).skip(1);
        pieces.filter_map(|piece| Some(piece.split_once(close)?.0.to_owned())).collect()
    };
    let selected = inside("{", '}').into_iter().flat_map(|matchers| {
        let names = matchers.split(',').map(|matcher| {
            matcher.trim().split(|c: char| !is_word(c)).next().unwrap_or_default().to_owned()
        });
        names.collect::<Vec<_>>()
    });
    let grouped = inside("by (", ')')
        .into_iter()
        .flat_map(|names| names.split(',').map(|name| name.trim().to_owned()).collect::<Vec<_>>());
    selected.chain(grouped).collect()
}

#[test]
fn the_changelog_names_this_version() {
    let changelog = document("CHANGELOG.md");
    let version = env!("CARGO_PKG_VERSION");
    let is_heading = |line: &str| line.starts_with("## ") && line.contains(version);
    assert!(changelog.lines().any(is_heading), "CHANGELOG.md has no heading for {version}");
}

#[test]
fn the_architecture_lists_every_module() {
    let architecture = document("ARCHITECTURE.md");
    let lib = sources().into_iter().find(|source| source.room == "lib").unwrap();
    let modules: Vec<&str> = lib
        .code
        .lines()
        .filter_map(|line| line.trim().trim_start_matches("pub ").strip_prefix("mod "))
        .map(|rest| rest.trim_end_matches(';'))
        .collect();
    assert!(modules.len() > 20, "{modules:?}");
    for module in modules {
        let named = [format!("`{module}`"), format!("`{module}/"), format!("`{module}.rs")];
        let is_named = named.iter().any(|name| architecture.contains(name));
        assert!(is_named, "ARCHITECTURE.md says nothing of `{module}`");
        assert!(ROOMS.iter().any(|(room, _)| *room == module), "{module} is no room of the table");
    }
}
