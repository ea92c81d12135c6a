//! How a connector fares, in one line for people: now and then, and at once when that changes.

use std::time::{Duration, Instant};

use crate::activity::{Trouble, Wait};
use crate::metrics::{Moment, Reading};

/// From one line to the next while nothing changes; also how long a stream may show nothing new
/// before that is said.
const LINE_INTERVAL: Duration = Duration::from_secs(5 * 60);
/// A state that comes and goes is told at most this often.
const REPEAT_INTERVAL: Duration = Duration::from_secs(60);
/// A failure that the next try cures is not worth a line of its own.
const FAILURES_MIN: u32 = 2;
/// Streams that are named in a line; more are counted.
const NAMES_MAX: usize = 3;
/// How much of a reason is repeated; the whole stands in the line of the failure.
const REASON_CHARS_MAX: usize = 160;

/// How a connector fares; the worst comes last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// No answer yet.
    Starting,
    /// Another host runs it, or none does yet.
    StandingBy,
    /// The vendor answers.
    Working,
    /// The vendor fails, and is asked again.
    Failing,
    /// The vendor refuses, and a person must look.
    Refused,
    /// What is delivered cannot be noted.
    Unsaved,
    /// The database that hosts share cannot be asked.
    Away,
    /// The host takes nothing.
    Paused,
}

/// How many states there are.
const STATES: usize = State::Paused as usize + 1;

/// What was last told of one connector.
pub struct Status {
    state: State,
    told_at: Instant,
    /// When each state was last told.
    states_told_at: [Option<Instant>; STATES],
}

impl Status {
    /// Of a connector that starts now.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self { state: State::Starting, told_at: now, states_told_at: [None; STATES] }
    }

    /// Looks at the connector's streams; returns a line when one is due.
    pub fn look(&mut self, streams: &[Reading], moment: &Moment) -> Option<String> {
        let (state, now) = (state(streams, moment), moment.instant);
        let is_older = |at: Instant, age| now.saturating_duration_since(at) >= age;
        let told = &mut self.states_told_at[state as usize];
        let is_news = state != self.state && told.is_none_or(|at| is_older(at, REPEAT_INTERVAL));
        if !is_news && !is_older(self.told_at, LINE_INTERVAL) {
            return None;
        }
        *told = Some(now);
        (self.state, self.told_at) = (state, now);
        Some(line(state, streams, moment))
    }
}

fn state(streams: &[Reading], moment: &Moment) -> State {
    let standing = streams.first().and_then(|reading| reading.activity.standing.as_ref());
    match standing {
        Some(standing) if standing.is_away => return State::Away,
        Some(standing) if !standing.is_held => return State::StandingBy,
        _ => {}
    }
    let of_stream = |reading: &Reading| match &reading.activity {
        activity if activity.is_unsaved => State::Unsaved,
        activity => match &activity.trouble {
            Some(trouble) if trouble.is_refused => State::Refused,
            Some(trouble) if trouble.failures >= FAILURES_MIN => State::Failing,
            _ if activity.answered_at.is_some() => State::Working,
            _ => State::Starting,
        },
    };
    let worst = streams.iter().map(of_stream).max().unwrap_or(State::Starting);
    if moment.is_paused { State::Paused } else { worst }
}

fn line(state: State, streams: &[Reading], moment: &Moment) -> String {
    let how = match state {
        State::Starting => "starting".to_owned(),
        State::Working => "working".to_owned(),
        State::Failing => troubles("waiting after failures", streams, moment, |trouble| {
            trouble.failures >= FAILURES_MIN
        }),
        State::Refused => troubles("refused", streams, moment, |trouble| trouble.is_refused),
        State::Unsaved => "positions cannot be saved".to_owned(),
        State::StandingBy => return standing_by(streams),
        State::Away => "the database does not answer".to_owned(),
        State::Paused => "paused by the host".to_owned(),
    };
    let answered = streams.iter().filter_map(|reading| reading.activity.answered_at).max();
    let answer = answered.map_or_else(
        || "no answer yet".to_owned(),
        |at| format!("last answer {} ago", span((moment.time - at).to_std().unwrap_or_default())),
    );
    let lag = streams.iter().map(|reading| reading.lag(moment.time)).max().unwrap_or_default();
    let sum = |count: fn(&Reading) -> u64| streams.iter().map(count).sum::<u64>();
    format!(
        "{how}; {answer}, {} behind, delivered {}, duplicate {}{}; waiting for {}",
        span(lag),
        sum(|reading| reading.counts.delivered),
        sum(|reading| reading.counts.duplicate),
        silence(streams, moment),
        wait(state, streams, moment),
    )
}

/// Who runs a connector that this host does not.
fn standing_by(streams: &[Reading]) -> String {
    let standing = streams.first().and_then(|reading| reading.activity.standing.as_ref());
    match standing.map(|standing| standing.holder.as_str()) {
        Some(holder) if !holder.is_empty() => format!("standing by; {holder} runs it"),
        _ => "standing by; no host runs it yet".to_owned(),
    }
}

/// Which streams are in trouble, and what with.
fn troubles(
    what: &str,
    streams: &[Reading],
    moment: &Moment,
    is_meant: fn(&Trouble) -> bool,
) -> String {
    let trouble = |reading: &&Reading| reading.activity.trouble.as_ref().is_some_and(is_meant);
    let troubled: Vec<&Reading> = streams.iter().filter(trouble).collect();
    let mut names: Vec<&str> =
        troubled.iter().take(NAMES_MAX).map(|reading| reading.stream).collect();
    let more = format!("{} more", troubled.len().saturating_sub(NAMES_MAX));
    if troubled.len() > NAMES_MAX {
        names.push(&more);
    }
    let first = troubled.first().and_then(|reading| reading.activity.trouble.as_ref());
    let Some(Trouble { failures, reason, until, .. }) = first else { return what.to_owned() };
    let reason: String = reason.chars().take(REASON_CHARS_MAX).collect();
    format!(
        "{what} ({} of {} streams: {}): {reason}, {failures} in a row, again in {}",
        troubled.len(),
        streams.len(),
        names.join(", "),
        span(until.saturating_duration_since(moment.instant)),
    )
}

/// Tells a connector that answers and has nothing new from one that does not answer.
fn silence(streams: &[Reading], moment: &Moment) -> String {
    let news = streams.iter().filter_map(|reading| reading.activity.news_at).max();
    let is_answered = streams.iter().any(|reading| reading.activity.answered_at.is_some());
    match news {
        None if is_answered => ", nothing new so far".to_owned(),
        Some(at) if (moment.time - at).to_std().is_ok_and(|age| age >= LINE_INTERVAL) => {
            format!(", nothing new since {}", at.format("%Y-%m-%dT%H:%M:%SZ"))
        }
        _ => String::new(),
    }
}

/// What the connector waits for; its one thread does one thing at a time.
fn wait(state: State, streams: &[Reading], moment: &Moment) -> String {
    let wait =
        streams.iter().map(|reading| reading.activity.wait).find(|wait| *wait != Wait::Round);
    match (state, wait) {
        (State::Paused, _) => "the host".to_owned(),
        (State::Unsaved, _) => "the state store".to_owned(),
        (State::Away, _) => "the database".to_owned(),
        (_, Some(Wait::Budget)) => "the request budget".to_owned(),
        (_, Some(Wait::Answer)) => "an answer".to_owned(),
        (_, Some(Wait::Room)) => "room in the queue".to_owned(),
        _ => {
            let due = streams.iter().filter_map(|reading| {
                let trouble = reading.activity.trouble.as_ref();
                trouble.map_or(reading.activity.due, |trouble| Some(trouble.until))
            });
            let due = due.min().unwrap_or(moment.instant);
            format!("the next round in {}", span(due.saturating_duration_since(moment.instant)))
        }
    }
}

/// A length of time in its two largest units at most.
fn span(length: Duration) -> String {
    let secs = length.as_secs();
    match (secs / 3600, secs / 60 % 60, secs % 60) {
        (0, 0, secs) => format!("{secs} s"),
        (0, minutes, secs) => format!("{minutes} min {secs} s"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::activity::Standing;
    use crate::metrics::tests::{at, moment, reading};

    fn trouble(failures: u32, is_refused: bool, until: Instant) -> Option<Trouble> {
        let reason = if is_refused { "HTTP 403: not allowed" } else { "HTTP 503: a fault" };
        Some(Trouble { failures, is_refused, reason: reason.to_owned(), until })
    }

    #[test]
    fn a_change_is_told_at_once_and_nothing_else_for_five_minutes() {
        let zero = Instant::now();
        let mut status = Status::new(zero);
        let mut streams = [reading("m", "mail", true), reading("m", "events", true)];
        assert_eq!(status.look(&streams, &moment(0, zero)), None, "starting is no news");
        streams[0].activity.answered(at(1));
        streams[0].activity.news_at = Some(at(1));
        streams[0].activity.due = Some(zero + Duration::from_secs(61));
        let line = status.look(&streams, &moment(3, zero)).unwrap();
        assert_eq!(
            line,
            "working; last answer 2 s ago, 1 min 3 s behind, delivered 10, duplicate 6; waiting for \
             the next round in 58 s"
        );
        for secs in 4..303 {
            assert_eq!(status.look(&streams, &moment(secs, zero)), None, "{secs}");
        }
        let line = status.look(&streams, &moment(303, zero)).unwrap();
        assert!(line.contains("nothing new since 2023-11-14T22:13:21Z"), "{line}");
        streams[1].activity.trouble = trouble(1, false, zero);
        assert_eq!(status.look(&streams, &moment(304, zero)), None, "the next try may cure it");
        streams[1].activity.trouble = trouble(2, false, zero + Duration::from_secs(309));
        let line = status.look(&streams, &moment(305, zero)).unwrap();
        assert!(
            line.starts_with(
                "waiting after failures (1 of 2 streams: events): HTTP 503: a fault, 2 in a row, \
                 again in 4 s; last answer"
            ),
            "{line}"
        );
    }

    #[test]
    fn the_worst_is_told() {
        let zero = Instant::now();
        let mut now = moment(9, zero);
        let mut streams = [reading("m", "mail", true), reading("m", "events", true)];
        let tell = |streams: &[Reading], now: &Moment| {
            Status::new(zero).look(streams, now).unwrap_or_default()
        };
        streams[0].activity.answered(at(1));
        streams[0].activity.wait = Wait::Room;
        assert!(tell(&streams, &now).ends_with("; waiting for room in the queue"));
        streams[1].activity.trouble = trouble(7, true, now.instant);
        assert!(tell(&streams, &now).starts_with("refused (1 of 2 streams: events): HTTP 403"));
        streams[0].activity.is_unsaved = true;
        assert!(tell(&streams, &now).starts_with("positions cannot be saved; "));
        now.is_paused = true;
        let line = tell(&streams, &now);
        assert!(
            line.starts_with("paused by the host; ") && line.ends_with("for the host"),
            "{line}"
        );
    }

    #[test]
    fn a_host_that_stands_by_says_who_does_the_work() {
        let zero = Instant::now();
        let mut streams = [reading("m", "mail", true)];
        let tell = |streams: &[Reading]| Status::new(zero).look(streams, &moment(300, zero));
        let mut standing = Standing { holder: "web-2".to_owned(), ..Standing::default() };
        streams[0].activity.standing = Some(standing.clone());
        assert_eq!(tell(&streams).unwrap(), "standing by; web-2 runs it");
        standing.is_held = true;
        streams[0].activity.standing = Some(standing.clone());
        assert!(tell(&streams).unwrap().starts_with("starting; "));
        standing.is_away = true;
        streams[0].activity.standing = Some(standing);
        let line = tell(&streams).unwrap();
        assert!(line.starts_with("the database does not answer; "), "{line}");
        assert!(line.ends_with("; waiting for the database"), "{line}");
    }

    #[test]
    fn an_empty_stream_is_not_a_broken_one() {
        let zero = Instant::now();
        let mut broken = [reading("m", "mail", true)];
        let mut empty = [reading("m", "mail", true)];
        empty[0].activity.answered(at(300));
        broken[0].activity.trouble = trouble(9, false, zero);
        let tell =
            |streams: &[Reading]| Status::new(zero).look(streams, &moment(300, zero)).unwrap();
        let (empty, broken) = (tell(&empty), tell(&broken));
        assert!(empty.contains("working; last answer") && empty.contains("nothing new so far"));
        assert!(broken.contains("failures") && broken.contains("; no answer yet"), "{broken}");
        assert!(!broken.contains("nothing new"), "{broken}");
    }

    #[test]
    fn a_state_that_flaps_is_told_once_a_minute() {
        let zero = Instant::now();
        let mut status = Status::new(zero);
        let mut streams = [reading("m", "mail", true)];
        let mut lines = 0;
        for secs in 0..600 {
            let is_ok = secs % 2 == 0;
            streams[0].activity.answered(at(0));
            streams[0].activity.trouble = if is_ok { None } else { trouble(3, false, zero) };
            lines += u32::from(status.look(&streams, &moment(secs, zero)).is_some());
        }
        assert!((18..=21).contains(&lines), "{lines} lines in ten minutes");
    }

    #[test]
    fn many_troubled_streams_are_counted() {
        let zero = Instant::now();
        let mut streams = ["a", "b", "c", "d", "e"].map(|name| reading("m", name, true));
        streams.iter_mut().for_each(|stream| stream.activity.trouble = trouble(1, true, zero));
        let line = Status::new(zero).look(&streams, &moment(0, zero)).unwrap();
        assert!(line.starts_with("refused (5 of 5 streams: a, b, c, 2 more): "), "{line}");
    }
}
