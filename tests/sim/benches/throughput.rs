//! How fast pages are served: `cargo bench -p trendmicro-sim`.

#[path = "../tests/client/mod.rs"]
mod client;

use std::time::Instant;

use client::{ALL, Client, TRACKING, encode, still};
use trendmicro_sim::EmailConfig;

/// Pages are found and written without being parsed here, so that the simulator is measured and
/// not the test.
fn measure(backlog: usize, extra: &str) {
    let begun = Instant::now();
    let sim = still(EmailConfig { accepted_backlog: backlog, ..Default::default() });
    println!("{backlog} records prepared in {:?}", begun.elapsed());
    let client = Client { extra: extra.to_string(), ..Client::new(&sim) };
    let (mut stream, mut token) = (client.connect(), String::new());
    let (mut bytes, mut pages, begun) = (0, 0, Instant::now());
    loop {
        let target = format!("{TRACKING}?type=accepted_traffic&{ALL}{token}");
        let reply = client.send_on(&mut stream, "GET", &target, "").expect("a page");
        bytes += reply.body.len();
        pages += 1;
        if reply.status == 204 {
            break;
        }
        let mut body = reply.body;
        if !extra.is_empty() {
            let mut start = vec![0; 300];
            let mut decoder = flate2::read::GzDecoder::new(&body[..]);
            std::io::Read::read_exact(&mut decoder, &mut start).expect("gzip");
            body = start;
        }
        let text = String::from_utf8_lossy(&body[..200.min(body.len())]).into_owned();
        let raw = text.split('"').nth(3).expect("a token");
        let raw = percent_encoding::percent_decode_str(raw).decode_utf8_lossy();
        token = format!("&token={}", encode(&raw));
    }
    let took = begun.elapsed();
    let per_second = backlog as f64 / took.as_secs_f64();
    println!("{pages} pages, {bytes} bytes in {took:?}: {per_second:.0} records/s ({extra:?})");
    let counts = sim.counts().by_type["accepted_traffic"];
    assert_eq!((counts.shown_distinct, counts.shown_total), (backlog as u64, backlog as u64));
}

fn main() {
    measure(1_000_000, "");
    measure(100_000, "Accept-Encoding: gzip\r\n");
}
