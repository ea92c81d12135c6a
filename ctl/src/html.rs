//! A reconciliation as one page for an auditor: no script, nothing from elsewhere.

use std::fmt::Write;

use crate::reconcile::{Account, BUCKETS, Books, hex};
use crate::time::{self, Time};

/// Size of a timeline's drawing, in its own units.
const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 120.0;
/// Missing records that the page names per stream.
const NAMED_MAX: usize = 200;
/// Lists up to this are unfolded.
const OPEN_MAX: u64 = 12;
const TICKS: i32 = 6;

const STYLE: &str = "
:root { color-scheme: light dark; --ink: #1d2430; --soft: #5d6778; --line: #d6dbe3; --page: #fff;
  --good: #2f7d5b; --bad: #c62f3b; --void: #eceff3; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ee; --soft: #9aa4b4; --line: #39414e;
  --page: #14181f; --good: #4fb488; --bad: #ff6b74; --void: #222833; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page);
  max-width: 1040px; margin: 2.5rem auto; padding: 0 1.5rem; }
h1 { font-size: 1.5rem; margin: 0 0 .25rem } h2 { font-size: 1.05rem; margin: 2.2rem 0 .3rem }
.soft, td.soft { color: var(--soft) } .mono { font-family: ui-monospace, monospace; font-size: .86em }
.verdict { border-left: 6px solid; padding: .6rem 1rem; margin: 1.2rem 0; font-size: 1.1rem;
  background: var(--void) }
.good { border-color: var(--good) } .bad { border-color: var(--bad) }
table { border-collapse: collapse; width: 100%; margin: .6rem 0 }
th, td { text-align: right; padding: .3rem .6rem; border-bottom: 1px solid var(--line);
  font-variant-numeric: tabular-nums }
th:first-child, td:first-child { text-align: left } th { font-weight: 600; color: var(--soft) }
.lost { color: var(--bad); font-weight: 600 } details { margin: .4rem 0 }
svg { width: 100%; height: auto; display: block } svg text { font: 11px system-ui, sans-serif;
  fill: var(--soft) }
.key { display: inline-block; width: .8em; height: .8em; margin: 0 .35em 0 1em }
@media print { body { margin: 0; max-width: none } h2 { break-after: avoid } svg { break-inside: avoid } }
";

/// The whole page.
#[must_use]
pub fn page(books: &Books) -> String {
    let mut out = String::new();
    let (since, until) = (time::text(books.span.0), time::text(books.span.1));
    let missing = books.sum(|account| account.missing);
    let (class, verdict) = match (books.is_clean(), missing) {
        (true, _) => ("good", "Nothing is missing.".to_owned()),
        (false, 0) => ("bad", "Not everything could be compared.".to_owned()),
        (false, missing) => ("bad", format!("{missing} records are missing.")),
    };
    // Writing to a string cannot fail.
    let _ = write!(
        out,
        "<!doctype html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n\
         <title>Trend Micro reconciliation, {since} to {until}</title>\n<style>{STYLE}</style></head>\n\
         <body>\n<h1>What the vendor had, and what was delivered</h1>\n\
         <div class=\"soft\">{since} to {until} (UTC) · made {} by trendmicroctl {} · delivered as \
         told by {}</div>\n<div class=\"verdict {class}\">{verdict}</div>\n",
        time::text(books.made_at),
        env!("CARGO_PKG_VERSION"),
        escape(&books.source),
    );
    table(&mut out, books);
    out.push_str(
        "<div class=\"soft\"><span class=\"key\" style=\"background:var(--good)\"></span>delivered\
         <span class=\"key\" style=\"background:var(--bad)\"></span>missing\
         <span class=\"key\" style=\"background:var(--void)\"></span>not compared</div>\n",
    );
    books.accounts.iter().for_each(|account| stream(&mut out, account, books.span));
    out.push_str("</body>\n</html>\n");
    out
}

fn table(out: &mut String, books: &Books) {
    out.push_str(
        "<table><thead><tr><th>stream</th><th>the vendor had</th><th>delivered</th><th>missing</th>\
         <th>extra</th><th>further copies</th></tr></thead><tbody>\n",
    );
    for account in &books.accounts {
        let Account { name, vendor, missing, extra, copies, .. } = account;
        let class = if *missing > 0 { " class=\"lost\"" } else { "" };
        let copies = copies.map_or("not known".to_owned(), |copies| copies.to_string());
        let _ = writeln!(
            out,
            "<tr><td>{}</td><td>{vendor}</td><td>{}</td><td{class}>{missing}</td><td>{extra}</td>\
             <td class=\"soft\">{copies}</td></tr>",
            escape(name),
            vendor - missing,
        );
    }
    out.push_str("</tbody></table>\n");
}

fn stream(out: &mut String, account: &Account, whole: (Time, Time)) {
    let _ = writeln!(out, "<h2>{}</h2>", escape(&account.name));
    let span = account.span.map_or("not compared".to_owned(), |span| {
        format!("compared {} to {}", time::text(span.start), time::text(span.end))
    });
    let note = account.note.as_ref().map_or(String::new(), |note| format!("; {}", escape(note)));
    let _ = writeln!(out, "<div class=\"soft\">{span}{note}</div>");
    timeline(out, account, whole);
    if account.missing == 0 {
        return;
    }
    // A long list would push the next timeline out of sight.
    let open = if account.missing <= OPEN_MAX { " open" } else { "" };
    let shown = account.named.len().min(NAMED_MAX);
    let first = match account.missing > shown as u64 {
        true => format!(", the first {shown} of them"),
        false => String::new(),
    };
    let _ = writeln!(
        out,
        "<details{open}><summary>{} missing records{first}</summary><table><tbody>",
        account.missing
    );
    for named in account.named.iter().take(NAMED_MAX) {
        let (id, at) = (hex(named.id), time::text(named.time));
        let _ = writeln!(out, "<tr><td class=\"mono\">{id}</td><td class=\"soft\">{at}</td></tr>");
    }
    out.push_str("</tbody></table></details>\n");
}

/// Columns of records over time: delivered from the ground, missing on top of them.
fn timeline(out: &mut String, account: &Account, (since, until): (Time, Time)) {
    let most = account.buckets.iter().map(|(one, two)| one + two).max().unwrap_or(0).max(1);
    let total = (until - since).num_milliseconds().max(1) as f64;
    let x = |time: Time| ((time - since).num_milliseconds() as f64 / total).clamp(0.0, 1.0) * WIDTH;
    let _ = writeln!(
        out,
        "<svg viewBox=\"0 -14 {WIDTH} {}\" role=\"img\" aria-label=\"{} over time\">",
        HEIGHT + 36.0,
        escape(&account.name)
    );
    let (from, to) = account.span.map_or((0.0, 0.0), |span| (x(span.start), x(span.end)));
    for (left, right) in [(0.0, from), (to, WIDTH)] {
        let width = right - left;
        let _ = writeln!(
            out,
            "<rect x=\"{left:.1}\" width=\"{width:.1}\" height=\"{HEIGHT}\" fill=\"var(--void)\"/>"
        );
    }
    let column = WIDTH / BUCKETS as f64;
    for (i, (delivered, missing)) in account.buckets.iter().enumerate() {
        let height = |count: u64| count as f64 / most as f64 * HEIGHT;
        let left = i as f64 * column + 0.5;
        let (good, bad) = (height(*delivered), height(*missing));
        for (tall, top, fill) in
            [(good, HEIGHT - good, "var(--good)"), (bad, HEIGHT - good - bad, "var(--bad)")]
        {
            if tall > 0.0 {
                let width = column - 1.0;
                let _ = writeln!(
                    out,
                    "<rect x=\"{left:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" \
                     height=\"{tall:.1}\" fill=\"{fill}\"/>"
                );
            }
        }
    }
    let _ = writeln!(
        out,
        "<line y1=\"{HEIGHT}\" y2=\"{HEIGHT}\" x2=\"{WIDTH}\" stroke=\"var(--line)\"/>\
         <text x=\"0\" y=\"-4\">{most} records</text>"
    );
    ticks(out, since, until);
    out.push_str("</svg>\n");
}

fn ticks(out: &mut String, since: Time, until: Time) {
    let is_long = until - since > chrono::TimeDelta::hours(24);
    let format = if is_long { "%m-%d %H:%M" } else { "%H:%M" };
    for tick in 0..=TICKS {
        let at = since + (until - since) * tick / TICKS;
        let x = WIDTH * f64::from(tick) / f64::from(TICKS);
        let anchor = match tick {
            0 => "start",
            TICKS => "end",
            _ => "middle",
        };
        let y = HEIGHT + 16.0;
        let _ = writeln!(
            out,
            "<text x=\"{x:.0}\" y=\"{y}\" text-anchor=\"{anchor}\">{}</text>",
            at.format(format)
        );
    }
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            _ => out.push(c),
        }
    }
    out
}
