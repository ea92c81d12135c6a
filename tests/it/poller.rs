//! What the poller's machine asks for and when, and that every record arrives once.
//!
//! The vendor and the clock are those of the rig.

use std::time::Duration;

use fastrand::Rng;
use in_trendmicro::connector::Settings;
use in_trendmicro::error::Error;
use in_trendmicro::http::Response;
use in_trendmicro::poller::{Rhythm, Step};
use in_trendmicro::window::{Policy, SETTLE};
use proptest::prelude::*;

use crate::rig::{Asked, Fault, HOUR, RHYTHM, Rig, Script, TYPES, answer, policy, settings, words};

#[test]
fn a_round_covers_from_behind_the_cursor_to_now_and_stays_as_it_is() {
    let mut rig = Rig::one(1);
    rig.vendor.page_size = 10;
    rig.latency = 3.0;
    rig.mails(-3_600..200, 100);
    rig.run_until(59.0);
    let first: Vec<_> = rig.asked.iter().map(|asked| (asked.start, asked.end)).collect();
    assert_eq!(first, [(-3_600, -5); 4], "36 records are 4 pages of one frozen window");
    assert!(rig.asked[0].token.is_none() && rig.asked[1..].iter().all(|a| a.token.is_some()));
    assert_eq!(rig.cursor(0), Some(-5));
    rig.run_until(130.0);
    let second = &rig.asked[4];
    assert_eq!((second.start, second.end), (-305, 55), "300 s behind the cursor, 5 s behind now");
    assert!((second.at - 60.0).abs() < 0.1, "rounds begin at the interval: {second:?}");
    rig.run_until(300.0);
    rig.assert_complete(-3_600..200);
}

#[test]
fn a_days_backlog_is_cut_into_hours_oldest_first() {
    let mut rig = Rig::one(24);
    rig.mails(-86_400..0, 500);
    rig.run_until(50.0);
    assert_eq!(rig.asked.len(), 24);
    assert_eq!((rig.asked[0].start, rig.asked[23].end), (-86_400, -5));
    for pair in rig.asked.windows(2) {
        assert_eq!(pair[0].end, pair[1].start, "neighbours share their second");
    }
    assert!(rig.asked.iter().all(|asked| asked.end - asked.start <= 3_600));
    rig.run_until(100.0);
    rig.assert_complete(-86_400..0);
}

#[test]
fn a_failed_page_is_asked_for_again_after_the_backoff() {
    let mut rig = Rig::one(1);
    rig.vendor.page_size = 10;
    rig.mails(-3_600..-5, 100);
    rig.script = Box::new(|_, count| (1..4).contains(&count).then_some(Fault::Status(503)));
    rig.run_requests(5);
    let page = &rig.asked[1];
    assert!(page.token.is_some());
    for (again, wait) in rig.asked[2..5].iter().zip([0.5, 1.0, 2.0]) {
        assert_eq!((&again.token, again.start, again.end), (&page.token, page.start, page.end));
        let before = rig.asked.iter().rev().find(|asked| asked.at < again.at).unwrap();
        assert!((again.at - before.at - rig.latency - wait).abs() < 0.01, "{again:?}");
    }
    rig.run_until(30.0);
    rig.assert_complete(-3_600..-5);
    assert!(rig.lines.iter().any(|line| line.contains("answered again after 3 failures")));
}

/// What a body has shown before it broke off was delivered, and is not delivered again; but the window
/// counts as read only when a whole body has come.
#[test]
fn a_body_that_breaks_off_loses_nothing_and_doubles_nothing() {
    for confirms_after in [0.0, 3.0, 100.0] {
        let mut rig = Rig::one(1);
        (rig.hands_over, rig.confirms_after) = (true, confirms_after);
        rig.vendor.page_size = 20;
        rig.mails(-3_600..-5, 30);
        rig.script = Box::new(|_, count| (count % 3 > 0 && count < 12).then_some(Fault::Broken));
        rig.run_requests(3);
        assert!(rig.cursor(0) <= Some(-3_600), "{:?}", rig.cursor(0));
        rig.run_until(300.0);
        rig.assert_complete(-3_600..-5);
    }
}

/// A process that ends within a body begins the window anew, and knows what was committed of it.
#[test]
fn a_crash_within_a_body_doubles_nothing_that_was_committed() {
    let mut rig = Rig::one(1);
    rig.hands_over = true;
    rig.mails(-3_600..-5, 30);
    rig.script = Box::new(|_, count| (count == 0).then_some(Fault::Broken));
    rig.run_requests(1);
    rig.step();
    let delivered = rig.delivered.len();
    assert!(delivered > 20 && delivered < 100, "{delivered} of half a body");
    rig.restart();
    rig.run_until(300.0);
    rig.assert_complete(-3_600..-5);
}

/// So it is with a sweep, which is delivered once however often it breaks off.
#[test]
fn a_sweep_that_breaks_off_is_delivered_once() {
    let settings = Settings { expand: vec!["none".to_owned()], ..settings() };
    let rhythm = Rhythm { interval: Duration::from_secs(600), ..RHYTHM };
    let mut rig = Rig::of("workload_security", settings, policy(HOUR, 300), rhythm);
    rig.hands_over = true;
    rig.vendor.page_size = 1_000;
    for _ in 0..100 {
        rig.mail(0, -10, 0);
    }
    rig.script = Box::new(|_, count| (count < 2).then_some(Fault::Broken));
    rig.run_until(300.0);
    assert_eq!(rig.delivered.len(), 100);
    assert!(rig.delivered.values().all(|&times| times == 1), "{:?}", rig.delivered);
}

#[test]
fn retry_after_is_a_floor_and_holds_everybody() {
    let mut rig = Rig::one(1);
    rig.script = Box::new(|_, count| (count == 0).then_some(Fault::RetryAfter(40)));
    rig.run_requests(1);
    assert!((rig.held_until - rig.elapsed - 40.0).abs() < 0.01, "told to the limiter");
    rig.held_until = 0.0;
    rig.run_requests(1);
    let wait = rig.asked[1].at - rig.asked[0].at - rig.latency;
    assert!((40.0..41.0).contains(&wait), "{wait}");
}

/// A vendor that asks for a day, or for ever, is asked again after an hour, by everybody.
#[test]
fn retry_after_has_a_bound() {
    for secs in [86_400, u64::MAX] {
        let mut rig = Rig::one(1);
        rig.script = Box::new(move |_, count| (count == 0).then_some(Fault::RetryAfter(secs)));
        let Step::Fetch { task: stream, .. } = rig.poller.next(rig.now()) else {
            panic!("a fetch")
        };
        let retry_after = Some(Duration::from_secs(secs));
        let response = Response { retry_after, ..answer(429) };
        let body = rig.poller.reader(stream).finish().unwrap();
        let hold = rig.poller.fetched(stream, Ok((response, body)), rig.now(), 0.5).unwrap();
        assert!(hold <= Duration::from_secs(3_600), "everybody waits {hold:?}");
    }
}

#[test]
fn an_answer_that_is_too_slow_halves_the_window_and_skips_nothing() {
    let mut rig = Rig::one(1);
    rig.mails(-3_600..-5, 7);
    rig.script = Box::new(|asked, _| (asked.end - asked.start > 500).then_some(Fault::Timeout));
    rig.run_until(59.0);
    let read: Vec<_> = rig.asked.iter().filter(|asked| asked.end - asked.start <= 500).collect();
    assert_eq!((read[0].start, read.last().unwrap().end), (-3_600, -5));
    for pair in read.windows(2) {
        assert_eq!(pair[0].end, pair[1].start);
    }
    assert_eq!(rig.cursor(0), Some(-5));
    rig.assert_complete(-3_600..-5);
}

#[test]
fn a_page_that_is_too_slow_halves_the_window_too() {
    let mut rig = Rig::one(1);
    rig.vendor.page_size = 20;
    rig.mails(-3_600..-5, 30);
    rig.confirms_after = 20.0;
    rig.script = Box::new(|asked, _| {
        (asked.token.is_some() && asked.end - asked.start > 1_000).then_some(Fault::Timeout)
    });
    rig.run_until(100.0);
    rig.assert_complete(-3_600..-5);
}

#[test]
fn a_window_of_a_second_that_is_always_too_slow_is_not_asked_for_without_end() {
    let mut rig = Rig::one(1);
    rig.script = Box::new(|_, _| Some(Fault::Timeout));
    rig.run_until(3_600.0);
    assert!(rig.asked.len() < 200, "{} requests in an hour", rig.asked.len());
    assert_eq!(rig.cursor(0), Some(-3_600), "the beginning stays");
}

#[test]
fn a_refusal_keeps_the_cursor_and_waits_for_the_interval() {
    for status in [400, 401, 403, 404] {
        let mut rig = Rig::one(1);
        rig.mails(-3_600..1_000, 60);
        rig.run_until(30.0);
        let (cursor, count) = (rig.cursor(0), rig.asked.len());
        rig.script = Box::new(move |asked, _| (asked.at < 600.0).then_some(Fault::Status(status)));
        rig.run_until(600.0);
        assert_eq!(rig.cursor(0), cursor);
        let asked = rig.asked.len() - count;
        assert!((8..=10).contains(&asked), "{asked} requests in ten minutes");
        rig.run_until(1_200.0);
        rig.assert_complete(-3_600..1_000);
    }
}

/// A token that the vendor has forgotten is refused for ever; the window begins anew, at a bounded
/// rate.
#[test]
fn a_refused_token_restarts_the_window_at_a_bounded_rate() {
    let mut rig = Rig::one(1);
    rig.vendor.page_size = 10;
    rig.mails(-3_600..-5, 100);
    rig.script = Box::new(|asked, _| {
        (asked.token.is_some() && asked.at < 3_600.0).then_some(Fault::Status(400))
    });
    rig.run_until(3_600.0);
    let asked = rig.asked.len();
    assert!(asked < 300, "{asked} requests in an hour");
    rig.run_until(3_900.0);
    rig.assert_complete(-3_600..-5);
}

#[test]
fn a_circle_of_tokens_restarts_the_window_at_a_bounded_rate() {
    let mut rig = Rig::one(1);
    rig.mails(-3_600..-5, 100);
    rig.script = Box::new(|asked, _| (asked.at < 3_600.0).then_some(Fault::Circle));
    rig.run_until(3_600.0);
    let asked = rig.asked.len();
    assert!((10..300).contains(&asked), "{asked} requests in an hour");
    assert!(rig.lines.iter().any(|line| line.contains("lead in a circle")));
    assert_eq!(rig.cursor(0), Some(-3_600), "a window that never ended moves nothing");
    rig.run_until(3_800.0);
    rig.assert_complete(-3_600..-5);
}

#[test]
fn a_later_page_that_fails_five_times_begins_its_window_anew() {
    let mut rig = Rig::one(1);
    rig.vendor.page_size = 10;
    rig.mails(-3_600..-5, 100);
    rig.script = Box::new(|_, count| (1..6).contains(&count).then_some(Fault::Status(500)));
    rig.run_requests(8);
    let tokens: Vec<bool> = rig.asked.iter().map(|asked| asked.token.is_some()).collect();
    assert_eq!(tokens, [false, true, true, true, true, true, false, true]);
    rig.run_until(100.0);
    rig.assert_complete(-3_600..-5);
}

/// What the first page shows is known before the window is read, if pages are in order.
#[test]
fn a_window_that_begins_too_dense_is_narrowed_after_a_page() {
    let mut rig = crowd();
    rig.vendor.is_sorted = true;
    rig.run_until(50.0);
    let spans: Vec<_> = rig.asked.iter().map(|asked| asked.end - asked.start).collect();
    assert_eq!(spans[..2], [3_600, 225], "the page has a record a second, and 225 s have 225");
    assert_eq!((rig.asked[0].start, rig.asked[1].start), (-7_200, -7_200));
    assert!(spans[1..].iter().all(|&span| span <= 450), "{spans:?}");
    rig.run_until(120.0);
    rig.assert_complete(-7_200..0);
}

/// Of pages in no order, only the end of a window tells how many records it had.
#[test]
fn a_window_is_narrowed_by_what_the_one_before_it_had() {
    let mut rig = crowd();
    rig.run_until(50.0);
    let spans: Vec<_> = rig.asked.iter().map(|asked| asked.end - asked.start).collect();
    let first = spans.iter().take_while(|&&span| span == 3_600).count();
    assert_eq!(first, 37, "an hour and its last second have 3,601 records, in pages of 100");
    assert!(spans[first..].iter().all(|&span| span <= 225), "{spans:?}");
    rig.run_until(120.0);
    rig.assert_complete(-7_200..0);
}

/// Two hours with a record each second, of which a window is to have 300.
fn crowd() -> Rig {
    let policy = Policy { records_max: 300, ..policy(2 * HOUR, 300) };
    let mut rig = Rig::new(&TYPES[..1], policy);
    rig.vendor.page_size = 100;
    rig.latency = 0.01;
    for at in -7_200..0 {
        rig.mail(0, at, 0);
    }
    rig
}

/// A vendor whose pages do not end within a window is asked for half of it.
#[test]
fn a_window_of_too_many_pages_is_halved() {
    let mut rig = Rig::one(1);
    rig.latency = 0.01;
    rig.vendor.page_size = 1;
    // More pages in the hour than are followed, fewer in each half of it.
    for i in 0..10_400 {
        rig.mail(0, -3_600 + i * 3_590 / 10_400, 0);
    }
    // A page's rest is copied with each token, which would take long for so many.
    rig.run_requests(10_050);
    let span = |asked: &Asked| asked.end - asked.start;
    let whole = span(&rig.asked[0]);
    assert!(rig.asked.iter().any(|asked| span(asked) <= whole / 2 + 1), "asked in full again");
}

#[test]
fn a_stop_in_the_middle_of_a_request_is_no_failure() {
    let mut rig = Rig::one(1);
    rig.mails(-3_600..-5, 100);
    let Step::Fetch { task: stream, request, .. } = rig.poller.next(rig.now()) else {
        panic!("a fetch")
    };
    assert_eq!(rig.poller.fetched(stream, Err(Error::stopped()), rig.now(), 0.5), None);
    let Step::Fetch { request: again, .. } = rig.poller.next(rig.now()) else { panic!("a fetch") };
    assert_eq!(request, again);
    assert!(rig.log.take().is_empty());
}

/// A vendor whose clock is behind ours is asked for its own future, where nothing is yet to be
/// seen: the cursor waits for its clock.
#[test]
fn the_cursor_does_not_pass_the_vendors_clock() {
    for ahead in [20, 600, 8 * 3_600] {
        let mut rig = Rig::new(&TYPES[..1], policy(600, 0));
        rig.ahead = ahead;
        rig.mails(0..3_000, 7);
        rig.run_until(3_300.0);
        rig.assert_complete(0..3_000);
        assert!(rig.lines.iter().any(|line| line.contains("ahead of")) == (ahead > 30));
    }
}

/// The same with a backlog that takes long: several windows lie in the vendor's future, and none of
/// them may carry the cursor past what an earlier one has seen.
#[test]
fn windows_in_the_vendors_future_carry_the_cursor_nowhere() {
    let mut rig = Rig::new(&TYPES[..1], policy(12 * HOUR, 0));
    rig.ahead = 8 * 3_600;
    rig.latency = 40.0;
    rig.mails(-4 * 3_600..3_000, 11);
    rig.run_until(3_600.0);
    rig.assert_complete(-4 * 3_600..3_000);
}

#[test]
fn a_clock_that_jumps_loses_nothing() {
    for (jump, back) in [(3_600, false), (-3_600, false), (3_600, true), (-3_600, true)] {
        let mut rig = Rig::one(1);
        rig.mails(-3_600..16_000, 31);
        rig.run_until(1_800.0);
        rig.ahead = jump;
        rig.run_until(5_400.0);
        if back {
            rig.ahead = 0;
        }
        rig.run_until(21_000.0);
        rig.assert_complete(-3_600..16_000);
    }
}

#[test]
fn streams_take_turns() {
    let mut rig = Rig::new(&TYPES, policy(24 * HOUR, 300));
    rig.vendor.page_size = 10;
    for secs in (-86_400..-5).step_by(60) {
        rig.mail(0, secs, 0);
    }
    rig.mails(-600..-5, 60);
    rig.run_requests(30);
    let streams: Vec<_> = rig.asked.iter().map(|asked| asked.stream).collect();
    let expected: Vec<_> = (0..30).map(|i| i % 3).collect();
    assert_eq!(streams, expected, "one backlog starves nobody");
    rig.run_until(400.0);
    rig.assert_complete(-86_400..-5);
}

#[test]
fn what_is_old_is_backfill_and_what_is_new_is_live() {
    let mut rig = Rig::one(6);
    rig.run_until(300.0);
    for asked in &rig.asked {
        let age = asked.at as i64 - asked.end;
        assert_eq!(asked.is_live, age <= 600, "{asked:?}");
    }
    assert!(rig.asked.iter().any(|asked| asked.is_live));
    assert!(rig.asked.iter().any(|asked| !asked.is_live));
}

#[test]
fn the_cursor_moves_only_after_the_commit() {
    let mut rig = Rig::one(3);
    rig.confirms_after = 500.0;
    rig.mail(0, -9_000, 0);
    rig.mail(0, -100, 0);
    rig.run_until(490.0);
    let begins = Some(-3 * 3_600);
    assert_eq!(rig.cursor(0), begins, "read to the end, but the first window is not confirmed");
    assert!(rig.asked.len() > 5, "the rounds go on meanwhile");
    rig.restart();
    rig.run_until(980.0);
    assert_eq!(rig.cursor(0), begins);
    assert!(rig.delivered.is_empty());
    rig.run_until(1_100.0);
    assert!(rig.cursor(0).is_some_and(|cursor| cursor > 900), "{:?}", rig.cursor(0));
    rig.assert_complete(-9_000..0);
}

#[test]
fn an_empty_stream_moves_its_cursor_too() {
    let mut rig = Rig::one(2);
    rig.run_until(1_000.0);
    assert!(rig.cursor(0).is_some_and(|cursor| cursor > 900));
    assert_eq!(rig.asked.len(), 2 + 16, "one request a round");
}

/// After an outage longer than the vendor's memory, the frozen windows of the old round lie beyond
/// its horizon. A vendor that refuses those must not stop the stream for ever.
#[test]
fn an_outage_beyond_the_horizon_ends() {
    let mut rig = Rig::one(1);
    let recovered = 80 * 3_600;
    rig.mails(recovered..recovered + 600, 60);
    rig.script = Box::new(move |asked, _| {
        let too_old = asked.start < asked.at as i64 - 72 * 3_600;
        let is_down = (30.0..recovered as f64).contains(&asked.at);
        (is_down || too_old).then_some(Fault::Status(400))
    });
    rig.run_until(recovered as f64 + 3_600.0);
    rig.assert_complete(recovered..recovered + 600);
    assert!(rig.lines.iter().any(|line| line.contains("are lost")), "and says what is lost");
}

/// A poller that failed inside is started again over the same streams. What it had read but not yet
/// put into the queue was seen by nobody, and must be read again.
#[test]
fn batches_of_a_poller_that_died_are_read_again() {
    let mut rig = Rig::one(1);
    rig.mails(-3_600..-5, 100);
    rig.run_requests(1);
    assert!(!rig.vendor.mails.is_empty() && rig.delivered.is_empty(), "read, but not offered");
    rig.poller.abandon();
    rig.poller = rig.new_poller();
    rig.run_until(200.0);
    rig.assert_complete(-3_600..-5);
}

/// What such a poller did put into the queue is confirmed later, and the cursor waits for that: the
/// next poller takes these records for known, and a crash would lose them.
#[test]
fn batches_of_a_poller_that_died_hold_the_cursor() {
    let mut rig = Rig::one(1);
    rig.vendor.page_size = 10;
    rig.mails(-3_600..-5, 100);
    rig.confirms_after = 100.0;
    rig.run_requests(2);
    assert_eq!(rig.handed.len(), 1, "the first page is with the host, the second on its way");
    rig.poller.abandon();
    rig.poller = rig.new_poller();
    rig.confirms_after = 0.0;
    rig.run_until(50.0);
    assert_eq!(rig.cursor(0), Some(-3_600), "the first page is not confirmed");
    rig.run_until(200.0);
    rig.assert_complete(-3_600..-5);
    assert!(rig.cursor(0).is_some());
}

/// A rhythm in seconds.
fn rhythm(secs: u64, is_budgeted: bool) -> Rhythm {
    Rhythm { interval: Duration::from_secs(secs), is_budgeted }
}

/// Cloud App Security with some of its services, as it is by default.
fn cloud_app_security(services: &[&str], event_types: &[&str]) -> Rig {
    let settings =
        Settings { services: words(services), event_types: words(event_types), ..settings() };
    let policy = Policy { span_max: Duration::from_secs(24 * HOUR), ..policy(HOUR, 300) };
    Rig::of("cloud_app_security", settings, policy, rhythm(300, true))
}

/// An inventory, swept every hour, with so many machines in each stream.
fn inventory(product: &str, machines: usize) -> Rig {
    let policy = Policy { span_max: Duration::ZERO, ..policy(0, 0) };
    let mut rig = Rig::of(product, settings(), policy, rhythm(HOUR, false));
    for stream in 0..rig.streams.len() {
        for _ in 0..machines {
            rig.mail(stream, -1_000, 0);
        }
    }
    rig
}

const INVENTORIES: [&str; 2] = ["apex_central", "workload_security"];

/// The pauses between the rounds of a stream that began from `since` on.
fn pauses(rig: &Rig, stream: usize, since: f64) -> Vec<f64> {
    let rounds: Vec<f64> = rig.rounds(stream).into_iter().filter(|&at| at >= since).collect();
    rounds.windows(2).map(|pair| pair[1] - pair[0]).collect()
}

/// Requests are scarce: who shows nothing is asked less often, but at least every 15 minutes; who
/// shows something is asked at the interval, and again at once after a silence.
#[test]
fn idle_streams_of_a_budgeted_connector_are_asked_less_often() {
    let mut rig = cloud_app_security(&["sharepoint"], &[]);
    for secs in (-3_600..14_400).step_by(60) {
        rig.mail(0, secs, 0);
    }
    rig.run_until(14_400.0);
    assert!(pauses(&rig, 0, 0.0).iter().all(|pause| (299.0..302.0).contains(pause)), "busy");
    for stream in 1..4 {
        let pauses = pauses(&rig, stream, 0.0);
        let first = &pauses[..3];
        assert!((first[0] - 600.0).abs() < 3.0 && (first[1] - 900.0).abs() < 3.0, "{first:?}");
        assert!(pauses.iter().all(|pause| (299.0..903.0).contains(pause)), "idle: {pauses:?}");
        assert!(rig.cursor(stream).unwrap() > 13_400, "its cursor follows all the same");
    }
    for secs in (14_400..21_600).step_by(60) {
        rig.mail(2, secs, 0);
    }
    rig.run_until(21_600.0);
    let woken = pauses(&rig, 2, 15_400.0);
    assert!(woken.iter().all(|pause| (299.0..302.0).contains(pause)), "busy again: {woken:?}");
    let asleep = pauses(&rig, 0, 16_500.0);
    assert!(asleep.iter().all(|pause| (899.0..903.0).contains(pause)), "idle now: {asleep:?}");
    rig.run_until(23_000.0);
    rig.assert_complete(-3_500..21_600);
}

#[test]
fn forty_eight_idle_streams_stay_far_below_the_budget() {
    let mut rig = cloud_app_security(&[], &[]);
    assert_eq!(rig.streams.len(), 48);
    rig.run_until(3_600.0);
    let before = rig.asked.len();
    rig.run_until(7_200.0);
    let an_hour = rig.asked.len() - before;
    assert!((144..=240).contains(&an_hour), "{an_hour} requests in an hour");
}

#[test]
fn idle_streams_without_a_budget_and_with_a_long_interval_keep_the_interval() {
    for (secs, is_budgeted) in [(60, false), (1_800, false), (1_800, true)] {
        let settings = Settings { services: words(&["box"]), ..settings() };
        let rhythm = rhythm(secs, is_budgeted);
        let mut rig = Rig::of("cloud_app_security", settings, policy(HOUR, 300), rhythm);
        rig.run_until(20.0 * secs as f64);
        for stream in 0..4 {
            let pauses = pauses(&rig, stream, 0.0);
            assert!(pauses.iter().all(|pause| (pause - secs as f64).abs() < 3.0), "{pauses:?}");
        }
    }
}

/// `next_link` comes with and without a scheme, with either path, with stray spaces and with a port;
/// its end is empty, null or missing.
#[test]
fn links_are_followed_in_all_their_forms() {
    let mut rig = cloud_app_security(&["exchange", "teams_chat"], &["dlp", "ransomware"]);
    rig.vendor.page_size = 7;
    rig.vendor.trails = true;
    rig.mails(-3_500..-5, 50);
    rig.mails(0..3_000, 70);
    rig.script = random_faults(Rng::with_seed(7), 0.2, 3_000.0);
    rig.run_until(6_000.0);
    rig.assert_complete(-3_500..3_000);
    let pages: Vec<&Asked> = rig.asked.iter().filter(|asked| asked.token.is_some()).collect();
    assert!(pages.len() > 50, "{}", pages.len());
    let has = |part: &str| pages.iter().any(|asked| asked.target.contains(part));
    assert!(has("/siem/v1/security_events?") && has("/v1/siem/security_events?"));
    assert!(has("&%20page_id="), "a stray space is encoded");
}

/// The token must not go to a host that nobody configured; the page is asked for again instead.
#[test]
fn a_link_to_another_host_is_not_followed() {
    let mut rig = cloud_app_security(&["box"], &["dlp"]);
    rig.vendor.page_size = 10;
    rig.mails(-3_500..-5, 50);
    rig.script =
        Box::new(|asked, count| (asked.token.is_none() && count < 3).then_some(Fault::Astray));
    // Such a link is refused like a wrong credential: the next try is an interval away.
    rig.run_until(1_000.0);
    rig.assert_complete(-3_500..-5);
    assert!(rig.asked[..4].iter().all(|asked| asked.token.is_none()), "{:?}", rig.asked);
    let line = rig.lines.iter().find(|line| line.contains("evil.example")).unwrap();
    assert!(line.contains("is not followed"), "{line}");
}

/// An item that is shown again under its name is known, whatever else in it changed; the same name
/// under another service or event type is another item.
#[test]
fn items_are_told_apart_by_name_service_and_event_type() {
    let mut rig = cloud_app_security(&["box", "gmail"], &["dlp", "ransomware"]);
    assert_eq!(rig.streams.len(), 4);
    let mut add = |stream, generated, name| {
        let number = rig.mail(stream, generated, 0);
        rig.vendor.mails[number as usize].name = name;
        number
    };
    let originals: Vec<u64> = (0..4).map(|stream| add(stream, -100, 1_000)).collect();
    let same_page = add(0, -90, 1_000);
    let later = add(1, 200, 1_000);
    let other = add(1, 210, 1_001);
    rig.run_until(1_500.0);
    let count = |number: &u64| rig.delivered.get(number).copied().unwrap_or(0);
    assert_eq!(count(&originals[0]) + count(&same_page), 1, "one of the two");
    assert!(originals[1..].iter().all(|number| count(number) == 1), "{:?}", rig.delivered);
    assert_eq!((count(&later), count(&other)), (0, 1));
    assert!(rig.streams.iter().all(|stream| stream.position().is_balanced()));
}

/// The same name again after the overlap, when no window can show the first any more.
#[test]
fn a_name_is_not_remembered_for_ever() {
    let mut rig = cloud_app_security(&["box"], &["dlp"]);
    for generated in [-100, 8_000] {
        let number = rig.mail(0, generated, 0);
        rig.vendor.mails[number as usize].name = 5;
    }
    rig.run_until(10_000.0);
    rig.assert_complete(-200..9_000);
    let delivered = rig.streams[0].position().ledger.delivered();
    assert!(delivered <= 1, "{delivered}");
}

#[test]
fn an_inventory_is_swept_once_an_interval_and_delivered_anew() {
    for product in INVENTORIES {
        let mut rig = inventory(product, 45);
        rig.vendor.page_size = 20;
        rig.run_until(60.0);
        rig.assert_listed(1);
        rig.run_until(3_599.0);
        rig.assert_listed(1);
        rig.run_until(3_660.0);
        rig.assert_listed(2);
        rig.run_until(4.0 * 3_600.0 + 60.0);
        rig.assert_listed(5);
        for stream in 0..rig.streams.len() {
            let pauses = pauses(&rig, stream, 0.0);
            assert_eq!(pauses.len(), 4, "{product}");
            assert!(pauses.iter().all(|pause| (pause - 3_600.0).abs() < 3.0), "{pauses:?}");
            assert_eq!(rig.streams[stream].position().ledger.pending(), 0);
            let delivered = rig.streams[stream].position().ledger.delivered();
            assert_eq!(delivered, 45, "{product} remembers one sweep and no more");
        }
    }
}

#[test]
fn an_inventory_is_what_is_there_when_it_is_swept() {
    for product in INVENTORIES {
        let mut rig = inventory(product, 3);
        let new = rig.mail(0, 1_000, 0);
        rig.vendor.mails[0].gone = 5_000;
        rig.run_until(3.0 * 3_600.0 + 60.0);
        assert_eq!((rig.delivered[&0], rig.delivered[&1], rig.delivered[&new]), (2, 4, 3));
    }
}

#[test]
fn a_restart_within_the_interval_does_not_sweep_again() {
    for product in INVENTORIES {
        let mut rig = inventory(product, 30);
        for at in [600.0, 601.0, 1_800.0, 3_500.0] {
            rig.run_until(at);
            rig.restart();
        }
        rig.run_until(3_590.0);
        rig.assert_listed(1);
        rig.run_until(3_660.0);
        rig.assert_listed(2);
        let second = rig.rounds(0)[1];
        assert!((3_599.0..3_602.0).contains(&second), "the interval goes on: {second}");
        // After a rest of hours the next sweep is due at once.
        rig.elapsed += 10_000.0;
        rig.restart();
        rig.run_until(rig.elapsed + 60.0);
        rig.assert_listed(3);
    }
}

/// What a sweep has shown before it failed is not shown a second time by its repetition.
#[test]
fn a_sweep_that_fails_is_repeated_and_doubles_nothing() {
    let faults = [
        Fault::Status(500),
        Fault::Status(400),
        Fault::Reset,
        Fault::Timeout,
        Fault::Garbage,
        Fault::RetryAfter(30),
    ];
    for (fault, failures) in faults.iter().flat_map(|fault| [1, 5, 12].map(|n| (*fault, n))) {
        let mut rig = inventory("workload_security", 95);
        rig.vendor.page_size = 20;
        let mut left = failures;
        rig.script = Box::new(move |asked, _| {
            let is_middle = asked.token.as_deref() == Some("40") && left > 0;
            left -= usize::from(is_middle);
            is_middle.then_some(fault)
        });
        rig.run_until(3_500.0);
        rig.assert_listed(1);
        assert!(rig.asked.len() >= 6 + failures, "{fault:?}: {}", rig.asked.len());
        let moment = rig.cursor(0).unwrap();
        assert!((0..3_400).contains(&moment), "the moment of the attempt that succeeded: {moment}");
        rig.script = Box::new(|_, _| None);
        rig.run_until(moment as f64 + 3_500.0);
        rig.assert_listed(1);
        rig.run_until(moment as f64 + 3_700.0);
        rig.assert_listed(2);
    }
}

/// An inventory that comes in one answer is refused by the code inside it.
#[test]
fn a_sweep_that_the_body_refuses_delivers_nothing_and_keeps_the_cursor() {
    let mut rig = inventory("apex_central", 10);
    rig.script = Box::new(|asked, _| (asked.at < 1_000.0).then_some(Fault::Code(20)));
    rig.run_until(1_000.0);
    rig.assert_listed(0);
    assert_eq!((rig.cursor(0), rig.cursor(1)), (None, None));
    assert!(rig.lines.iter().any(|line| line.contains("result_code 20")), "{:?}", rig.lines);
    rig.run_until(4_700.0);
    assert!(rig.delivered.values().all(|&count| count >= 1) && rig.delivered.len() == 20);
    assert!(rig.cursor(0).is_some() && rig.cursor(1).is_some());
}

/// A refusal is a refusal wherever it stands: whoever may not ask is not asked every minute.
#[test]
fn a_sweep_that_the_body_refuses_waits_for_the_interval() {
    let mut rig = inventory("apex_central", 10);
    rig.script = Box::new(|_, _| Some(Fault::Code(20)));
    rig.run_until(4.0 * 3_600.0 + 60.0);
    assert!((4..=6).contains(&rig.rounds(0).len()), "{}", rig.rounds(0).len());
}

/// A sweep that succeeds after hours of trouble counts from when it was answered, so that the next
/// one does not follow on its heels.
#[test]
fn a_sweep_after_long_trouble_is_not_followed_by_another() {
    for product in INVENTORIES {
        let mut rig = inventory(product, 10);
        rig.script = Box::new(|asked, _| (asked.at < 7_000.0).then_some(Fault::Status(503)));
        rig.run_until(10_000.0);
        rig.assert_listed(1);
    }
}

/// When the next sweep is due is a matter of our own clock.
#[test]
fn a_vendor_whose_clock_is_behind_does_not_make_a_restart_sweep_again() {
    for product in INVENTORIES {
        let mut rig = inventory(product, 10);
        rig.ahead = 7_200;
        rig.run_until(600.0);
        rig.restart();
        rig.run_until(1_200.0);
        rig.assert_listed(1);
    }
}

/// Computers come and go while a sweep is under way: those that stay are shown once.
#[test]
fn a_sweep_goes_on_behind_what_it_has_seen() {
    let mut rig = inventory("workload_security", 100);
    rig.vendor.page_size = 10;
    rig.latency = 10.0;
    for (number, mail) in rig.vendor.mails.iter_mut().enumerate().filter(|(i, _)| i % 3 == 0) {
        mail.gone = number as i64;
    }
    rig.run_until(300.0);
    let count = |number: u64| rig.delivered.get(&number).copied().unwrap_or(0);
    assert!((0..100).filter(|number| number % 3 != 0).all(|number| count(number) == 1));
    assert!((0..100).all(|number| count(number) <= 1));
}

#[test]
fn the_cursor_of_a_sweep_moves_only_after_its_commit() {
    for product in INVENTORIES {
        let mut rig = inventory(product, 50);
        rig.vendor.page_size = 20;
        rig.confirms_after = 500.0;
        rig.run_until(490.0);
        assert_eq!(rig.cursor(0), None, "{product}: swept, but not confirmed");
        let asked = rig.asked.len();
        rig.restart();
        rig.run_until(900.0);
        assert_eq!(rig.asked.len(), 2 * asked, "{product}: nobody knows of the first sweep");
        assert_eq!(rig.cursor(0), None);
        rig.run_until(1_100.0);
        assert_eq!(rig.cursor(0), Some(490), "{product}");
        rig.assert_listed(1);
        rig.restart();
        rig.run_until(3_900.0);
        assert_eq!(rig.asked.len(), 2 * asked, "{product}: now everybody does");
    }
}

/// A host that takes longer than the interval gets no second sweep on top of the first.
#[test]
fn a_sweep_waits_until_the_last_one_is_delivered() {
    for product in INVENTORIES {
        let mut rig = inventory(product, 50);
        rig.confirms_after = 5_000.0;
        rig.run_until(4_990.0);
        assert_eq!(rig.rounds(0).len(), 1, "{product}");
        rig.run_until(5_020.0);
        assert_eq!(rig.rounds(0).len(), 2, "{product}");
        rig.assert_listed(1);
        rig.run_until(10_100.0);
        rig.assert_listed(2);
    }
}

/// A sweep through random trouble shows everything once.
fn sweep(seed: u64) {
    let mut rng = Rng::with_seed(seed);
    let product = INVENTORIES[rng.usize(0..2)];
    let mut rig = inventory(product, rng.usize(1..80));
    rig.vendor.rng = rng.fork();
    rig.vendor.page_size = rng.usize(1..30);
    rig.confirms_after = rng.f64() * 300.0;
    rig.random = rng.f64();
    let trouble = rng.f64() * 0.5;
    // A refusal waits for the interval, and then the sweep begins late.
    let faults = [Fault::Status(500), Fault::Reset, Fault::Timeout, Fault::Garbage];
    let mut random = rng.fork();
    rig.script = Box::new(move |asked, _| {
        let fault = faults[random.usize(0..faults.len())];
        (asked.at < 900.0 && random.f64() < trouble).then_some(fault)
    });
    rig.run_until(3_500.0);
    rig.assert_listed(1);
    assert!((0..rig.streams.len()).all(|stream| rig.cursor(stream).is_some()));
    rig.run_until(5_000.0);
    rig.assert_listed(2);
}

/// How wrong our clock is in a random life, in seconds.
const SKEW_MAX: i64 = 120;

/// A random life: late records, faults, slow confirmations, restarts; healthy in the end.
fn live(seed: u64) {
    let mut rng = Rng::with_seed(seed);
    let overlap = [60, 300, 1_800][rng.usize(0..3)];
    let lookback = rng.u64(1..=6) * HOUR;
    let mut rig = Rig::new(&TYPES[..rng.usize(1..=3)], policy(lookback, overlap));
    rig.vendor.rng = rng.fork();
    rig.vendor.page_size = rng.usize(1..30);
    rig.vendor.trails = rng.bool();
    rig.vendor.sends_date = rng.bool();
    rig.latency = rng.f64() * 3.0;
    let (end, healthy) = (7_200, 5_400.0);
    for _ in 0..rng.usize(0..300) {
        let stream = rng.usize(0..rig.streams.len());
        let late = if rng.bool() { 0 } else { rng.i64(0..=overlap as i64) };
        rig.mail(stream, rng.i64(-(lookback as i64)..end), late);
    }
    let (faults, trouble) = (rng.fork(), rng.f64() * 0.6);
    rig.script = random_faults(faults, trouble, healthy);
    while rig.elapsed < healthy {
        rig.confirms_after = rng.f64() * rng.f64() * 900.0;
        rig.random = rng.f64();
        // Without the vendor's date nothing tells that our clock is wrong.
        rig.ahead = if rig.vendor.sends_date { rng.i64(-SKEW_MAX..=SKEW_MAX) } else { 0 };
        rig.run_until(rig.elapsed + rng.f64() * 600.0);
        // Before the first commit there is nothing that a start could go on from.
        let has_begun = (0..rig.streams.len()).all(|stream| rig.cursor(stream).is_some());
        if has_begun && rng.u8(..) < 40 {
            rig.restart();
        }
    }
    rig.confirms_after = rng.f64() * 30.0;
    rig.ahead = 0;
    rig.run_until(f64::from(end as i32) + overlap as f64 + 1_200.0);
    rig.confirms_after = 0.0;
    rig.run_until(rig.elapsed + 200.0);
    // Where the first rounds began depends on our clock and on who was held first.
    rig.assert_complete(-(lookback as i64) + 500..end);
    for stream in 0..rig.streams.len() {
        let cursor = rig.cursor(stream).unwrap();
        assert!(rig.elapsed as i64 - cursor < 200, "the cursor follows: {cursor}");
        assert_eq!(rig.streams[stream].position().ledger.pending(), 0);
    }
    let newest = |asked: &Asked| asked.at as i64 - SETTLE.as_secs() as i64 + SKEW_MAX + 1;
    assert!(rig.asked.iter().all(|asked| asked.end <= newest(asked)), "nobody asks for the future");
}

fn random_faults(mut rng: Rng, trouble: f64, healthy: f64) -> Script {
    Box::new(move |asked, _| {
        if asked.at >= healthy || rng.f64() >= trouble {
            return None;
        }
        Some(match rng.u8(0..12) {
            0..3 => Fault::Status(500),
            3 => Fault::Status(401),
            4 => Fault::Status(404),
            5 => Fault::RetryAfter(rng.u64(0..90)),
            6..8 => Fault::Timeout,
            8..10 => Fault::Reset,
            10 => Fault::Garbage,
            _ => Fault::Circle,
        })
    })
}

/// What fails is in the message; no file is left behind.
fn attempts(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(attempts(80))]

    #[test]
    fn whatever_happens_every_record_arrives_once(seed in any::<u64>()) {
        live(seed);
    }

    #[test]
    fn whatever_happens_a_sweep_shows_everything_once(seed in any::<u64>()) {
        sweep(seed);
    }
}
