//! Budgets that hosts share.

use std::thread;
use std::time::{Duration, Instant};

use in_trendmicro::http::limiter::Shared as _;

use super::{fresh, open};

/// However many ask over however many connections, no period has more than the limit.
#[test]
fn no_period_has_more_requests_than_the_limit() {
    const LIMIT: usize = 5;
    const PERIOD: Duration = Duration::from_millis(700);
    let Some((server, database, _)) = fresh() else { return };
    let address = server.address(&database);
    let begun = Instant::now();
    let mut granted: Vec<(Instant, Instant)> = thread::scope(|scope| {
        let hosts: Vec<_> = (0..8)
            .map(|_| {
                let address = address.as_str();
                scope.spawn(move || {
                    let (mut budget, mut granted) = (open(address), Vec::new());
                    while begun.elapsed() < Duration::from_secs(4) {
                        let asked = Instant::now();
                        match budget.take(&[7; 32], LIMIT as u32, PERIOD).unwrap() {
                            None => granted.push((asked, Instant::now())),
                            Some(wait) => {
                                assert!(!wait.is_zero() && wait <= PERIOD, "{wait:?}");
                                thread::sleep(wait);
                            }
                        }
                    }
                    granted
                })
            })
            .collect();
        hosts.into_iter().flat_map(|host| host.join().unwrap()).collect()
    });
    granted.sort();
    // Each was granted at some time between asking and answer.
    for some in granted.windows(LIMIT + 1) {
        let answered = some.iter().map(|(_, answered)| *answered).max().unwrap();
        assert!(answered - some[0].0 >= PERIOD, "{:?}", answered - some[0].0);
    }
    assert!(granted.len() >= 2 * LIMIT, "the budget is used: {}", granted.len());
    let left = server.sql(&database, "SELECT count(*) FROM in_trendmicro_request");
    let left: usize = left[0][0].parse().unwrap();
    assert!(left <= LIMIT, "what is over is forgotten: {left}");
}

#[test]
fn a_hold_holds_everybody_with_the_credential_and_nobody_else() {
    let Some((server, database, mut one)) = fresh() else { return };
    let mut two = open(&server.address(&database));
    let minute = Duration::from_secs(60);
    one.hold(&[1; 32], Duration::from_secs(30)).unwrap();
    two.hold(&[1; 32], Duration::from_secs(1)).unwrap();
    let wait = two.take(&[1; 32], 5, minute).unwrap().expect("a wait");
    assert!(wait > Duration::from_secs(25) && wait <= Duration::from_secs(30), "{wait:?}");
    assert_eq!(two.take(&[2; 32], 1, minute).unwrap(), None);
    let wait = one.take(&[2; 32], 1, minute).unwrap().expect("a wait");
    assert!(wait > Duration::from_secs(55) && wait <= minute, "{wait:?}");
    server.sql(&database, "UPDATE in_trendmicro_credential SET held_until = now()");
    assert_eq!(two.take(&[1; 32], 5, minute).unwrap(), None);
}

/// A server whose clock was an hour ahead, and is right again.
#[test]
fn a_clock_that_is_set_back_holds_up_for_no_longer_than_a_period() {
    let Some((server, database, mut one)) = fresh() else { return };
    let minute = Duration::from_secs(60);
    assert_eq!(one.take(&[3; 32], 1, minute).unwrap(), None);
    server.sql(&database, "UPDATE in_trendmicro_request SET sent_at = sent_at + interval '1 hour'");
    let wait = one.take(&[3; 32], 1, minute).unwrap().expect("a wait");
    assert!(wait <= minute, "{wait:?}");
    server.sql(
        &database,
        "UPDATE in_trendmicro_request SET sent_at = sent_at - interval '61 seconds'",
    );
    assert_eq!(one.take(&[3; 32], 1, minute).unwrap(), None);
}
