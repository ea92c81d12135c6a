//! What the vendor can do to us: whatever it is, every record arrives once.

use std::time::Duration;

use trendmicro_sim::{EmailConfig, Ending, Fault, FaultKind, Lateness, OldStart, Order, Sim, When};

use crate::support::{
    Books, Form, Host, KEY, PATIENCE, Place, assert_asked_since, at_once, config, email, simulate,
    wait, wait_delivered, wait_delivered_long, wait_long,
};

const ROUTE: &str = "/api/v1/log/";
const ACCEPTED: &str = "/api/v1/log/mailtrackinglog?type=accepted_traffic";

/// A vendor, what the plugin is told beside the usual, and what the log must say.
struct Case {
    name: &'static str,
    email: EmailConfig,
    faults: Vec<Fault>,
    properties: Vec<(&'static str, &'static str)>,
    says: &'static str,
}

impl Case {
    fn new(name: &'static str, email: EmailConfig) -> Self {
        Self { name, email, faults: Vec::new(), properties: Vec::new(), says: "" }
    }

    fn fault(name: &'static str, route: &str, when: When, kind: FaultKind) -> Self {
        Self { faults: vec![Fault::new(route, when, kind)], ..Self::new(name, email()) }
    }

    fn with(mut self, key: &'static str, value: &'static str) -> Self {
        self.properties.push((key, value));
        self
    }

    fn says(mut self, says: &'static str) -> Self {
        self.says = says;
        self
    }

    /// Everything arrives once, in spite of what was to happen, and it did happen.
    fn run(self) {
        let Self { name, email, faults, properties, says } = self;
        let (place, sim) = (Place::new(), simulate(email));
        let faults: Vec<u64> = faults.into_iter().map(|fault| sim.faults().add(fault)).collect();
        let host = Host::start(&place, &config(&sim, &place).with(&properties), &[]);
        wait_delivered(&host, &sim, &place.out());
        if !says.is_empty() {
            host.wait_log(says);
        }
        host.stop();
        Books::of(&sim, &place.out(), Form::Envelope).assert_exact(name);
        let fired: u64 = faults.iter().map(|&id| sim.faults().fired(id)).sum();
        assert!(faults.is_empty() || fired > 0, "{name} never happened");
    }
}

fn status(code: u16, retry_after: Option<&str>) -> FaultKind {
    FaultKind::Status { code, retry_after: retry_after.map(str::to_owned), body: None }
}

/// A fault that strikes by chance, on every page alike.
fn often(name: &'static str, kind: FaultKind) -> Case {
    Case::fault(name, ROUTE, When::Probability(0.3), kind)
}

#[test]
fn failing_answers_are_asked_for_again() {
    let html = |code| FaultKind::HtmlError { code };
    let cases = vec![
        often("429 with Retry-After", status(429, Some("1"))).says("HTTP 429"),
        often("429", status(429, None)).says("HTTP 429"),
        often("500", status(500, None)).says("HTTP 500"),
        often("503", status(503, None)).says("HTTP 503"),
        often("reset", FaultKind::Reset).says("the connection failed"),
        often("an HTML page with 502", html(502)).says("HTTP 502"),
        often("slow", FaultKind::Slow { delay: Duration::from_millis(300) }),
        often("drip", FaultKind::Drip { chunk: 4000, delay: Duration::from_millis(10) }),
        often("hang", FaultKind::Hang).with("timeout", "1s").says("no whole answer within 1 s"),
    ];
    at_once(cases, Case::run);
}

#[test]
fn damaged_answers_are_asked_for_again() {
    // Few enough not to make the plugin believe that the vendor means bytes which are no UTF-8.
    let garbage =
        Case::fault("garbage UTF-8", ROUTE, When::Times(3), FaultKind::GarbageUtf8).says("UTF-8");
    let cases = vec![
        often("close mid body", FaultKind::CloseMidBody).says("the connection failed"),
        often("truncated JSON", FaultKind::TruncatedJson),
        often("not JSON", FaultKind::NotJson),
        often("an HTML page with 200", FaultKind::HtmlError { code: 200 }),
        often("wrong length", FaultKind::WrongLength),
        often("broken gzip", FaultKind::GzipBroken),
        garbage,
    ];
    at_once(cases, Case::run);
}

#[test]
fn pages_that_come_again_or_never_end_do_no_harm() {
    let third = |kind| Case::fault("", ACCEPTED, When::Nth(3), kind);
    let circle = "lead in a circle";
    let cases = vec![
        Case { name: "repeated page", ..third(FaultKind::RepeatPage) }.says(circle),
        Case::fault("repeated records", ROUTE, When::Always, FaultKind::RepeatRecords),
        Case::fault("endless token", ACCEPTED, When::Times(5), FaultKind::EndlessToken)
            .says(circle),
    ];
    at_once(cases, Case::run);
}

#[test]
fn every_way_to_page_and_to_end_is_understood() {
    let ending = |name, ending| Case::new(name, EmailConfig { ending, ..email() });
    let order = |name, order| Case::new(name, EmailConfig { order, ..email() });
    let endings = [
        ending("token, then 204", Ending::TokenThen204),
        ending("always a token, then 204", Ending::AlwaysTokenThen204),
        ending("no token", Ending::NoToken),
        ending("empty token", Ending::EmptyTokenString),
        ending("token, then an empty list", Ending::TokenThenEmptyList),
        ending("token, then an empty body", Ending::TokenThenEmptyBody),
    ];
    let rest = [
        order("newest first", Order::Descending),
        order("no order", Order::Shuffled),
        Case::new("end exclusive", EmailConfig { end_inclusive: false, ..email() }),
        Case::new("plain tokens", EmailConfig { token_percent_encoded: false, ..email() }),
        Case::new("milliseconds", EmailConfig { gen_time_millis: true, ..email() }),
    ];
    at_once(endings.into_iter().chain(rest).collect(), Case::run);
}

#[test]
fn windows_of_any_density_are_read_whole() {
    let burst = EmailConfig { same_second_burst: 1200, page_limit_max: 500, ..email() };
    let exclusive = EmailConfig { end_inclusive: false, ..burst.clone() };
    let old = EmailConfig {
        backlog_span: Duration::from_secs(70 * 3600),
        old_start: OldStart::BadRequest,
        ..email()
    };
    let cases = vec![
        Case::new("1200 records in a second", burst),
        Case::new("1200 records in a second, end exclusive", exclusive),
        Case::new("72 hours, and not a second more", old).with("lookback", "72h"),
    ];
    at_once(cases, Case::run);
}

#[test]
fn clocks_may_differ() {
    let skew = |name, secs, says| {
        let fault = Case::fault(name, ROUTE, When::Always, FaultKind::DateSkew { secs });
        let email = EmailConfig { live_per_second: 20.0, ..email() };
        (Case { email, ..fault }, says)
    };
    let cases = vec![
        skew("the vendor's clock is ahead", 120, "behind the vendor's"),
        skew("the vendor's clock is behind", -120, "ahead of the vendor's"),
    ];
    at_once(cases, |(case, says)| live(case, says));
}

#[test]
fn late_records_within_the_overlap_arrive() {
    let late = |name, order| {
        let email = EmailConfig {
            live_per_second: 30.0,
            lateness: Lateness::Uniform { max: Duration::from_secs(12), share: 0.3 },
            order,
            ..email()
        };
        (Case::new(name, email).with("overlap", "60s"), "")
    };
    let cases = vec![late("late", Order::Ascending), late("late, newest first", Order::Descending)];
    at_once(cases, |(case, says)| live(case, says));
}

/// As [`Case::run`], while records come into being.
fn live(case: Case, says: &str) {
    let (place, sim) = (Place::new(), simulate(case.email));
    for fault in case.faults {
        sim.faults().add(fault);
    }
    let host = Host::start(&place, &config(&sim, &place).with(&case.properties), &[]);
    let enough = || (sim.counts().visible > 340 + 150).then_some(());
    wait("live records", || host.log_tail(), enough);
    if !says.is_empty() {
        host.wait_log(says);
    }
    sim.stop_live();
    wait_delivered(&host, &sim, &place.out());
    host.stop();
    Books::of(&sim, &place.out(), Form::Envelope).assert_exact(case.name);
}

#[test]
fn a_refusal_says_what_to_check_and_ends_with_its_cause() {
    let cases = vec![
        (401, "check api_key, and username"),
        (403, "check its role and permissions"),
        (404, "check base_url or region"),
    ];
    at_once(cases, |(code, advice)| {
        let (place, sim) = (Place::new(), simulate(email()));
        sim.faults().add(Fault::new(ROUTE, When::Always, status(code, None)));
        let host = Host::start(&place, &config(&sim, &place), &[]);
        let line = host.wait_log(&format!("HTTP {code}"));
        assert!(line.contains("[error]") && line.contains(advice), "{line}");
        let asked = || (sim.requests().len() > 8).then_some(());
        wait("more requests, at the interval", || host.log_tail(), asked);
        assert!(delivered(&sim, &place).missing.len() > 300, "delivered in spite of {code}");
        sim.faults().clear();
        wait_delivered(&host, &sim, &place.out());
        host.wait_log("answered again after");
        host.stop();
        delivered(&sim, &place).assert_exact("after the refusal");
    });
}

fn delivered(sim: &Sim, place: &Place) -> Books {
    Books::of(sim, &place.out(), Form::Envelope)
}

/// The vendor repeats what it was sent, as some do in their error pages.
#[test]
fn a_key_in_an_answer_is_not_logged() {
    let (place, sim) = (Place::new(), simulate(email()));
    let body = Some(format!("no such key: {KEY}"));
    let kind = FaultKind::Status { code: 401, retry_after: None, body };
    sim.faults().add(Fault::new(ROUTE, When::Always, kind));
    let host = Host::start(&place, &config(&sim, &place).service("log_level", "debug"), &[]);
    host.wait_log("no such key");
    host.stop();
}

#[test]
fn raw_is_the_vendors_record_and_each_content_type_has_its_tag() {
    let (place, sim) = (Place::new(), simulate(email()));
    let tags = ("tag_format", "tm.{connector}.{content_type}");
    let config = config(&sim, &place).with(&[("format", "raw"), tags]);
    let host = Host::start(&place, &config, &[]);
    let books = || Books::of(&sim, &place.out(), Form::Raw);
    let arrived = || books().missing.is_empty().then_some(());
    wait("raw records", || format!("{}\n{}", books().describe(), host.log_tail()), arrived);
    host.stop();
    books().assert_exact("raw");
    let counts = sim.counts().by_type;
    for (content_type, count) in &counts {
        let tag = format!("tm.email_security.{content_type}");
        assert_eq!(books().by_tag.get(&tag), Some(&(count.visible as usize)), "{tag}");
    }
    assert_eq!(books().by_tag.len(), counts.len());
}

#[test]
fn a_second_start_fetches_only_what_is_new() {
    let sim = simulate(EmailConfig { live_per_second: 20.0, ..email() });
    let place = Place::new();
    let config = config(&sim, &place).with(&[("overlap", "30s")]);
    for run in 0..2 {
        let fresh = sim.counts().visible;
        let host = Host::start(&place, &config, &[]);
        let enough = || (sim.counts().visible > fresh + 100).then_some(());
        wait("live records", || host.log_tail(), enough);
        if run == 1 {
            sim.stop_live();
            wait_delivered(&host, &sim, &place.out());
        } else {
            let begun = || (!delivered(&sim, &place).by_tag.is_empty()).then_some(());
            wait("something to arrive", || host.log_tail(), begun);
        }
        host.stop();
    }
    delivered(&sim, &place).assert_exact("over two runs");
}

/// Rows that the vendor shows up to 50 s after their time, an overlap of none: the first pass reads
/// everything again at the age of a minute.
#[test]
fn what_is_later_than_the_overlap_is_found_by_verification() {
    let lateness = Lateness::Uniform { max: Duration::from_secs(50), share: 0.3 };
    let sim = simulate(EmailConfig { live_per_second: 5.0, lateness, ..email() });
    let place = Place::new();
    let config = config(&sim, &place).with(&[("overlap", "0s")]);
    let host = Host::start(&place, &config, &[]);
    host.wait_log("verification found them");
    sim.stop_live();
    wait_delivered_long(&host, &sim, &place.out(), Duration::from_secs(240));
    host.stop();
    delivered(&sim, &place).assert_exact("after verification");
}

#[test]
fn a_restart_of_a_finished_run_asks_for_the_overlap_only() {
    let (place, sim) = (Place::new(), simulate(email()));
    let config = config(&sim, &place).with(&[("overlap", "10s"), ("verify", "off")]);
    let host = Host::start(&place, &config, &[]);
    wait_delivered(&host, &sim, &place.out());
    // The cursor is written after the records: wait for a round that begins behind them.
    wait_rounds(&sim, &host, 2);
    host.stop();
    let asked = sim.requests().len();
    let host = Host::start(&place, &config, &[]);
    wait_rounds(&sim, &host, 2);
    host.stop();
    delivered(&sim, &place).assert_exact("over two runs");
    assert_asked_since(&sim, asked, 5);
}

/// Waits until every stream was asked for its newest window so many times more.
fn wait_rounds(sim: &Sim, host: &Host, rounds: usize) {
    let before = sim.requests().len();
    let asked = || (sim.requests().len() >= before + 3 * (rounds + 1)).then_some(());
    wait_long("more rounds", PATIENCE, || host.log_tail(), asked);
}

#[test]
fn without_a_state_file_a_restart_begins_at_lookback_and_says_so() {
    let (place, sim) = (Place::new(), simulate(email()));
    let mut config = config(&sim, &place);
    config.inputs = config.inputs.into_iter().map(|input| input.without("db")).collect();
    let total = sim.counts().visible as usize;
    for run in 1..=2 {
        let host = Host::start(&place, &config, &[]);
        host.wait_log("no db is set");
        let arrived = || (delivered(&sim, &place).delivered >= run * total).then_some(());
        wait("everything to arrive", || host.log_tail(), arrived);
        host.stop();
    }
    let books = delivered(&sim, &place);
    books.assert_complete("twice");
    assert_eq!(books.duplicates.len(), total, "{}", books.describe());
}
