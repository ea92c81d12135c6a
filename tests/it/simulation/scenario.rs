//! What a seed stands for: the products, the host, and everything that will go wrong, and when.

use std::time::Duration;

use fastrand::Rng;
use in_trendmicro::config::Emit;
use in_trendmicro::connector::{self, Settings};
use in_trendmicro::poller::Rhythm;
use in_trendmicro::window::{Policy, WINDOW_RECORDS_MAX};

use super::host::Kind;
use crate::rig::{Mail, TYPES, Vendor, settings, words};

/// Seconds of an hour.
pub const HOUR: i64 = 3_600;
/// How long the vendors keep a record, in seconds.
pub const KEPT: i64 = 72 * HOUR;
/// How much sooner than after `overlap` a late row must be there, in seconds.
const LATE_MARGIN: i64 = 15;
/// How long after the last disturbance everything must have arrived, in seconds.
const PATIENCE: i64 = 6 * HOUR;

/// Something that happens at a moment; times are in ms.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Event {
    /// The process is killed after so many further steps.
    Kill { steps: u32, down_ms: u64 },
    /// The process is killed inside its next call of the store, before or after it is durable.
    KillInStore { is_after: bool, down_ms: u64 },
    /// The host stops the input, at once or when it next holds something in its ring buffer, and
    /// starts it again.
    Stop { down_ms: u64, is_busy: bool },
    /// The host wants no records.
    Pause { ms: u64 },
    /// Nothing of the process moves.
    Freeze { ms: u64 },
    /// The state file cannot be written.
    DiskFails { ms: u64 },
    /// The vendor answers nothing but this status.
    VendorFails { ms: u64, status: u16 },
    /// The vendor forgets its page tokens.
    TokensLost,
    /// A poller fails inside and is started again.
    PollerDies,
    /// Our wall clock is set to so many seconds ahead of the vendor's.
    ClockSet { ahead_secs: i64 },
}

/// One connector and its vendor.
pub struct Part {
    pub product: &'static str,
    pub settings: Settings,
    pub policy: Policy,
    pub rhythm: Rhythm,
    pub emit: Emit,
    pub page_size: usize,
    pub mails: Vec<Mail>,
    pub sends_date: bool,
    pub trails: bool,
    pub is_sorted: bool,
}

impl Part {
    /// Whether it lists what there is, instead of what happened.
    pub fn is_inventory(&self) -> bool {
        self.policy.span_max.is_zero()
    }

    /// Leaves no record to the passes.
    pub fn be_punctual(&mut self) {
        let late_max = (self.policy.overlap.as_secs() as i64 - LATE_MARGIN).max(0);
        self.mails.iter_mut().for_each(|mail| mail.late = mail.late.min(late_max));
    }
}

/// The vendors of `parts`; no two records have the same number.
pub fn draw_vendors(parts: &[Part], rng: &mut Rng) -> Vec<Vendor> {
    let vendors = parts.iter().scan(0, |base, part| {
        let mut vendor = Vendor::new(part.product, rng.u64(..));
        vendor.mails.clone_from(&part.mails);
        vendor.base = *base;
        *base += part.mails.len() as u64;
        (vendor.page_size, vendor.trails) = (part.page_size, part.trails);
        vendor.is_sorted = part.is_sorted;
        vendor.sends_date = part.sends_date;
        Some(vendor)
    });
    vendors.collect()
}

/// How often single answers go wrong, as probabilities.
#[derive(Clone, Copy, Debug)]
pub struct Odds {
    /// It fails.
    pub fails: f64,
    /// It takes up to a minute.
    pub is_slow: f64,
    /// Windows longer than so many seconds cannot be answered in time.
    pub span_secs_max: i64,
}

/// A whole run.
pub struct Scenario {
    pub parts: Vec<Part>,
    pub limit: Option<u32>,
    pub queue_bytes_max: usize,
    pub host: Kind,
    /// The state is in a real file, not in a model of one.
    pub is_sqlite: bool,
    pub odds: Odds,
    /// What happens, by its ms, the last first.
    pub events: Vec<(u64, Event)>,
    /// From this ms on nothing goes wrong any more.
    pub calm_ms: u64,
    /// Everything must have arrived by then.
    pub end_ms: u64,
    pub ahead_secs: i64,
    /// Our clock and the vendor's differ at some time.
    pub has_two_clocks: bool,
}

impl Scenario {
    /// Draws everything from `rng`.
    pub fn draw(rng: &mut Rng) -> Self {
        // A run over days, in which the vendor forgets, is rare.
        let is_long = rng.u8(..25) == 0;
        let calm_secs = if is_long { rng.i64(60..100) * HOUR } else { rng.i64(600..2 * HOUR) };
        let mut parts = vec![draw_part(rng, calm_secs, is_long)];
        if rng.u8(..6) == 0 {
            parts.push(draw_part(rng, calm_secs, is_long));
        }
        if parts.iter().filter(|part| part.emit == Emit::Changes).count() > 1 {
            parts.pop();
        }
        // Sweeps are told apart by our clock, and the horizon is judged by it.
        let has_one_clock = is_long || parts.iter().any(Part::is_inventory);
        let ahead_secs = if has_one_clock { 0 } else { draw_ahead(rng) };
        let mut events = draw_events(rng, calm_secs, is_long, has_one_clock);
        let sets_clock = |(_, event): &(u64, Event)| matches!(event, Event::ClockSet { .. });
        let has_two_clocks = ahead_secs != 0 || events.iter().any(sets_clock);
        if !has_two_clocks {
            parts.iter_mut().for_each(|part| part.sends_date = rng.u8(..4) > 0);
        }
        let host = Kind::draw(rng);
        if !host.is_counted() {
            // After a freeze, time alone has passed, and the host has done nothing in it.
            events.retain(|(_, event)| !matches!(event, Event::Freeze { .. }));
        }
        events.sort_by_key(|(ms, _)| std::cmp::Reverse(*ms));
        let is_budgeted = parts.iter().any(|part| part.rhythm.is_budgeted);
        let limit = (is_budgeted || rng.u8(..4) == 0).then(|| rng.u32(6..40));
        if has_two_clocks || limit.is_some() {
            // By a wrong clock a pass looks too soon, and with a small budget it looks when it can.
            parts.iter_mut().for_each(Part::be_punctual);
        }
        let behind = events.iter().filter_map(|(_, event)| match event {
            Event::ClockSet { ahead_secs } => Some(-ahead_secs),
            _ => None,
        });
        let behind = behind.chain([-ahead_secs, 0]).max().unwrap_or(0);
        Self {
            limit,
            queue_bytes_max: if rng.bool() { rng.usize(100..3_000) } else { 1_000_000 },
            host,
            is_sqlite: rng.u8(..50) == 0,
            odds: Odds {
                fails: choose(rng, &[0.0, 0.02, 0.1, 0.4]),
                is_slow: choose(rng, &[0.0, 0.02, 0.2]),
                span_secs_max: if rng.u8(..4) == 0 { rng.i64(60..1_800) } else { i64::MAX },
            },
            events,
            calm_ms: calm_secs as u64 * 1_000,
            end_ms: (calm_secs + PATIENCE + behind) as u64 * 1_000,
            ahead_secs,
            has_two_clocks,
            parts,
        }
    }
}

fn choose<T: Copy>(rng: &mut Rng, among: &[T]) -> T {
    among[rng.usize(..among.len())]
}

fn secs(secs: i64) -> Duration {
    Duration::from_secs(secs as u64)
}

fn draw_part(rng: &mut Rng, calm_secs: i64, is_long: bool) -> Part {
    match rng.u8(..10) {
        0..6 => draw_email_security(rng, calm_secs, is_long),
        6..8 => draw_cloud_app_security(rng, calm_secs, is_long),
        8 => draw_apex_central(rng, calm_secs, is_long),
        _ => draw_workload_security(rng, calm_secs, is_long),
    }
}

pub fn draw_email_security(rng: &mut Rng, calm_secs: i64, is_long: bool) -> Part {
    let streams = rng.usize(1..=3);
    let settings = Settings { content_types: words(&TYPES[..streams]), ..settings() };
    let interval = if is_long { rng.i64(1_800..7_200) } else { rng.i64(10..300) };
    draw_log(rng, "email_security", settings, (interval, HOUR), calm_secs, is_long)
}

pub fn draw_cloud_app_security(rng: &mut Rng, calm_secs: i64, is_long: bool) -> Part {
    let services = words(&["onedrive", "sharepoint"][..rng.usize(1..=2)]);
    let event_types = words(&["securityrisk", "dlp"][..rng.usize(1..=2)]);
    let settings = Settings { services, event_types, ..settings() };
    let interval = if is_long { rng.i64(1_800..7_200) } else { rng.i64(60..300) };
    let rhythm = (interval, 24 * HOUR);
    let part = draw_log(rng, "cloud_app_security", settings, rhythm, calm_secs, is_long);
    Part { rhythm: Rhythm { is_budgeted: true, ..part.rhythm }, ..part }
}

/// A log; `rhythm` is the seconds of its interval and of its longest window.
fn draw_log(
    rng: &mut Rng,
    product: &'static str,
    settings: Settings,
    (interval, span): (i64, i64),
    calm_secs: i64,
    is_long: bool,
) -> Part {
    let streams = (connector::product(product).unwrap().connect)(&settings).streams().len();
    let lookback = rng.i64(1..if is_long { 70 * HOUR } else { 5 * HOUR });
    let overlap = rng.i64(0..600);
    let verify = rng.bool();
    // The first pass looks again at four times the overlap, and at a minute at least.
    let found_until = if verify { (4 * overlap).max(60) } else { overlap };
    let late_max = found_until - LATE_MARGIN;
    let mut mails = Vec::new();
    for stream in 0..streams {
        let mut generated = 0;
        for _ in 0..rng.usize(1..40) {
            // Now and then many within a second.
            if rng.u8(..5) > 0 {
                generated = rng.i64(-lookback..calm_secs + 300);
            }
            let late = if late_max > 0 && rng.u8(..4) == 0 { rng.i64(0..=late_max) } else { 0 };
            let number = mails.len() as u64;
            let gone = generated + KEPT;
            mails.push(Mail { number, stream, generated, late, gone, name: number });
        }
    }
    let page_size = rng.usize(1..20);
    Part {
        product,
        settings,
        policy: Policy {
            lookback: secs(lookback),
            overlap: secs(overlap),
            span_max: secs(span),
            records_max: [page_size, 3 * page_size, WINDOW_RECORDS_MAX][rng.usize(..3)],
            verify,
        },
        rhythm: Rhythm { interval: secs(interval), is_budgeted: false },
        emit: Emit::All,
        page_size,
        mails,
        sends_date: true,
        trails: rng.bool(),
        is_sorted: rng.bool(),
    }
}

/// Agents and servers, which come, change and go.
fn draw_apex_central(rng: &mut Rng, calm_secs: i64, is_long: bool) -> Part {
    let mut mails = Vec::new();
    for name in 0..rng.u64(1..20) {
        let stream = rng.usize(..2);
        let mut generated = if rng.bool() { -HOUR } else { rng.i64(0..calm_secs) };
        for _ in 0..rng.u8(1..4) {
            let from = generated.max(0) + 1;
            let gone = if rng.bool() { i64::MAX } else { rng.i64(from..from + calm_secs) };
            let number = mails.len() as u64;
            mails.push(Mail { number, stream, generated, late: 0, gone, name });
            if gone > calm_secs {
                break;
            }
            // It is there again, at once or later, and not as it was.
            generated = if rng.bool() { gone } else { gone + rng.i64(1..HOUR) };
        }
    }
    let emit = if rng.bool() { Emit::Changes } else { Emit::All };
    let settings = Settings { content_types: words(&["agents", "servers"]), ..settings() };
    Part { emit, ..inventory(rng, "apex_central", settings, mails, is_long) }
}

/// Computers, a page at a time.
fn draw_workload_security(rng: &mut Rng, calm_secs: i64, is_long: bool) -> Part {
    let machine = |number| {
        let generated = if rng.bool() { -HOUR } else { rng.i64(0..calm_secs) };
        let gone =
            if rng.u8(..3) > 0 { i64::MAX } else { generated.max(0) + rng.i64(1..calm_secs) };
        Mail { number, stream: 0, generated, late: 0, gone, name: number }
    };
    let mails = (0..30).map(machine).collect();
    let emit = if rng.bool() { Emit::Changes } else { Emit::All };
    Part { emit, ..inventory(rng, "workload_security", settings(), mails, is_long) }
}

fn inventory(
    rng: &mut Rng,
    product: &'static str,
    settings: Settings,
    mails: Vec<Mail>,
    is_long: bool,
) -> Part {
    let interval = if is_long { 4 * HOUR } else { rng.i64(120..HOUR) };
    let zero = Duration::ZERO;
    Part {
        product,
        settings,
        policy: Policy {
            lookback: zero,
            overlap: zero,
            span_max: zero,
            records_max: WINDOW_RECORDS_MAX,
            verify: false,
        },
        rhythm: Rhythm { interval: secs(interval), is_budgeted: false },
        emit: Emit::All,
        page_size: rng.usize(1..20),
        mails,
        sends_date: true,
        trails: false,
        is_sorted: false,
    }
}

/// How far our clock is ahead of the vendor's; mostly not at all.
fn draw_ahead(rng: &mut Rng) -> i64 {
    let most = choose(rng, &[0, 0, 0, 20, 600, 3 * HOUR, 20 * HOUR]);
    rng.i64(-most..=most)
}

fn draw_events(
    rng: &mut Rng,
    calm_secs: i64,
    is_long: bool,
    has_one_clock: bool,
) -> Vec<(u64, Event)> {
    let calm_ms = calm_secs as u64 * 1_000;
    let mut events = Vec::new();
    for _ in 0..rng.usize(..8) {
        let at = rng.u64(..calm_ms);
        // Most things are over soon; those that are not end with the disturbances.
        let ms = choose(rng, &[2_000, 30_000, 600_000, 3_600_000]);
        let ms = rng.u64(..ms).min(calm_ms - at);
        let down_ms = if rng.bool() { rng.u64(..20_000) } else { ms };
        events.push((at, draw_event(rng, ms, down_ms, has_one_clock)));
    }
    if is_long {
        // Long enough that the vendor may forget meanwhile what was not read.
        let ms = rng.u64(50..90).min(calm_secs as u64 / 3_600) * 3_600_000;
        let at = rng.u64(..=calm_ms - ms);
        let down_ms = ms;
        let stop = Event::Stop { down_ms, is_busy: false };
        let long = [Event::VendorFails { ms, status: 401 }, stop];
        events.push((at, choose(rng, &long)));
    }
    events
}

fn draw_event(rng: &mut Rng, ms: u64, down_ms: u64, has_one_clock: bool) -> Event {
    match rng.u8(..14) {
        0..3 => Event::Kill { steps: rng.u32(..40), down_ms },
        3 | 4 => Event::KillInStore { is_after: rng.bool(), down_ms },
        5 => Event::Stop { down_ms, is_busy: rng.u8(..4) > 0 },
        6 | 7 => Event::Pause { ms },
        8 => Event::Freeze { ms },
        9 => Event::DiskFails { ms },
        10 => Event::VendorFails { ms, status: choose(rng, &[400, 401, 403, 404, 429, 500, 503]) },
        11 => Event::TokensLost,
        12 => Event::PollerDies,
        _ if has_one_clock => Event::PollerDies,
        _ => Event::ClockSet { ahead_secs: draw_ahead(rng) },
    }
}
