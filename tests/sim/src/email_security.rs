//! Email Security: mail tracking and policy event logs behind a window, pages and a token.
//!
//! What the vendor leaves open is a choice in [`EmailConfig`]; what is chosen by default is the
//! reading that trips a careless client.

mod mail;
mod query;
mod record;
mod schedule;
pub(crate) mod vocabulary;

use std::sync::Mutex;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::clock::from_millis;
use crate::fault::FaultKind;
use crate::http::{Request, Response};
use crate::ledger::{Count, Counts, LedgerRecord};
use crate::locked;
use crate::server::{Answer, Api, RowId};
use crate::token::{Span, Token, percent_encode};
use crate::window::{Lateness, OldStart, Order};
use mail::Kind;
use query::{Query, Refusal};
use record::Records;
use schedule::{Row, Schedule};

/// What Email Security holds and how it behaves.
#[derive(Debug, Clone, PartialEq)]
pub struct EmailConfig {
    /// The login of basic authentication.
    pub username: String,
    /// Its password.
    pub api_key: String,
    /// Accepted-traffic records at the start, the samples among them.
    pub accepted_backlog: usize,
    /// Blocked-traffic records at the start.
    pub blocked_backlog: usize,
    /// Policy events at the start.
    pub policy_backlog: usize,
    /// How far back the backlog reaches.
    pub backlog_span: Duration,
    /// New mails per second over the three content types; a mail makes one record or several.
    pub live_per_second: f64,
    /// Whether records show up later than their generation time.
    pub lateness: Lateness,
    /// More accepted-traffic records, all of one second in the middle of the backlog.
    pub same_second_burst: usize,
    /// Whether four real records are among accepted traffic, with their times moved into the
    /// backlog and everything else verbatim.
    pub seed_samples: bool,
    /// The order of rows over the pages of a result.
    pub order: Order,
    /// Whether a record generated at `end` is in the window.
    pub end_inclusive: bool,
    /// The most rows in a page; a larger `limit` is lowered to it.
    pub page_limit_max: usize,
    /// How a result ends.
    pub ending: Ending,
    /// Whether the token is percent-encoded inside the JSON.
    pub token_percent_encoded: bool,
    /// How far back a window may reach.
    pub horizon: Duration,
    /// What becomes of a window that begins before that.
    pub old_start: OldStart,
    /// Whether generation times have milliseconds; all real ones seen so far are whole seconds.
    pub gen_time_millis: bool,
}

/// How a result ends. A first page without rows is a 204 in every case.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Ending {
    /// A full page has a token even when nothing follows, and the next is a 204.
    #[default]
    TokenThen204,
    /// Every page has a token, full or not, and the last is a 204.
    AlwaysTokenThen204,
    /// The last page has no token.
    NoToken,
    /// The last page has an empty token.
    EmptyTokenString,
    /// Every page has a token, and the last has an empty list.
    TokenThenEmptyList,
    /// Every page has a token, and the last is a 200 without a body.
    TokenThenEmptyBody,
}

impl Default for EmailConfig {
    fn default() -> Self {
        Self {
            username: "admin@example.com".to_string(),
            api_key: "sim-email-key".to_string(),
            accepted_backlog: 300,
            blocked_backlog: 100,
            policy_backlog: 100,
            backlog_span: Duration::from_secs(6 * 3600),
            live_per_second: 2.0,
            lateness: Lateness::None,
            same_second_burst: 0,
            seed_samples: true,
            order: Order::Ascending,
            end_inclusive: true,
            page_limit_max: 500,
            ending: Ending::TokenThen204,
            token_percent_encoded: true,
            horizon: Duration::from_secs(72 * 3600),
            old_start: OldStart::Clamp,
            gen_time_millis: false,
        }
    }
}

impl EmailConfig {
    fn backlog(&self, kind: Kind) -> usize {
        match kind {
            Kind::Accepted => self.accepted_backlog,
            Kind::Blocked => self.blocked_backlog,
            Kind::Policy => self.policy_backlog,
        }
    }
}

/// The API, with its records.
pub(crate) struct EmailSecurity {
    config: EmailConfig,
    seed: u64,
    records: Records,
    schedule: Mutex<Schedule>,
}

impl Api for EmailSecurity {
    fn owns(&self, path: &str) -> bool {
        path.starts_with("/api/v1/log/")
    }

    fn answer(&self, request: &Request, now_ms: i64, fault: Option<&FaultKind>) -> Answer {
        match self.admit(request, now_ms) {
            Ok(query) => self.page(&query, now_ms, fault),
            Err(refusal) => {
                let params = request.params().unwrap_or_default();
                let token = params.into_iter().find(|(name, _)| name == "token");
                let response = refusal.response(&self.config.username);
                Answer { token: token.map(|(_, value)| value), ..Answer::from(response) }
            }
        }
    }

    fn refusal(&self, status: u16) -> Response {
        Refusal::of_status(status)
            .map_or_else(|| Response::empty(status), |it| it.response(&self.config.username))
    }

    fn mark_shown(&self, rows: &[RowId]) {
        let mut schedule = locked(&self.schedule);
        rows.iter().for_each(|row| schedule.streams[row.stream].shown[row.at] += 1);
    }

    fn unmark_shown(&self, rows: &[RowId]) {
        let mut schedule = locked(&self.schedule);
        rows.iter().for_each(|row| schedule.streams[row.stream].shown[row.at] -= 1);
    }

    fn count(&self, now_ms: i64, counts: &mut Counts) {
        let mut schedule = locked(&self.schedule);
        schedule.advance(now_ms);
        for kind in Kind::ALL {
            let mut count = Count::default();
            let stream = &schedule.streams[kind as usize];
            for (row, shown) in stream.rows.iter().zip(&stream.shown) {
                if row.visible_ms > now_ms {
                    count.pending += 1;
                } else {
                    count.visible += 1;
                    count.shown_distinct += u64::from(*shown > 0);
                    count.shown_total += u64::from(*shown);
                }
            }
            counts.add(kind.content_type(), count);
        }
    }

    fn visit(&self, now_ms: i64, visit: &mut dyn FnMut(&LedgerRecord)) {
        locked(&self.schedule).advance(now_ms);
        for kind in Kind::ALL {
            let mut at = 0;
            loop {
                let piece = self.copy_rows(kind, at);
                if piece.is_empty() {
                    break;
                }
                at += piece.len();
                for (row, shown) in piece.iter().filter(|(row, _)| row.visible_ms <= now_ms) {
                    visit(&self.ledger_record(kind, row, *shown));
                }
            }
        }
    }

    fn stop_live(&self, now_ms: i64) {
        locked(&self.schedule).stop_live(now_ms);
    }
}

/// A part of a result: its rows and where the next part begins.
#[derive(Default)]
struct Page {
    rows: Vec<(usize, Row)>,
    offset: u64,
    is_last: bool,
}

impl EmailSecurity {
    pub(crate) fn new(config: EmailConfig, seed: u64, now_ms: i64) -> Self {
        let records = Records::new(seed, config.seed_samples);
        let schedule = Schedule::new(&config, records.sample_count(), seed, now_ms);
        Self { config, seed, records, schedule: Mutex::new(schedule) }
    }

    /// Credentials come first, then the resource, then the method, then the parameters.
    fn admit(&self, request: &Request, now_ms: i64) -> Result<Query, Refusal> {
        let expected = format!("{}:{}", self.config.username, self.config.api_key);
        let (scheme, credentials) = request
            .header("authorization")
            .and_then(|value| value.split_once(' '))
            .unwrap_or_default();
        if !scheme.eq_ignore_ascii_case("basic") || credentials.trim() != STANDARD.encode(expected)
        {
            return Err(Refusal::Credentials);
        }
        Query::read(request, &self.config, now_ms)
    }

    fn page(&self, query: &Query, now_ms: i64, fault: Option<&FaultKind>) -> Answer {
        let answer = self.try_page(query, now_ms, fault);
        let token = query.token.clone();
        match answer {
            Ok((response, rows)) => Answer { response, token, rows },
            Err(refusal) => {
                Answer { token, ..Answer::from(refusal.response(&self.config.username)) }
            }
        }
    }

    fn try_page(
        &self,
        query: &Query,
        now_ms: i64,
        fault: Option<&FaultKind>,
    ) -> Result<(Response, Vec<RowId>), Refusal> {
        let place = match &query.token {
            Some(text) => self.reopen(text, query)?,
            None => self.begin(query, now_ms),
        };
        let page = self.select(query, &place, place.offset);
        let is_continued = query.token.is_some();
        let used = query.token.as_deref().unwrap_or_default();
        let next = Token { offset: page.offset, previous: place.offset, ..place }.seal(self.seed);
        let previous = || self.select(query, &place, place.previous);
        match fault {
            Some(FaultKind::RepeatPage) if is_continued => {
                Ok(self.compose(query, &previous().rows, Some(used)))
            }
            Some(FaultKind::RepeatRecords) if is_continued && !page.rows.is_empty() => {
                let mut rows = previous().rows;
                rows.drain(..rows.len().saturating_sub(5));
                rows.extend(&page.rows);
                Ok(self.compose(query, &rows, self.next_token(&page, query, &next)))
            }
            Some(FaultKind::EndlessToken) => {
                let rows = if page.rows.is_empty() { previous().rows } else { page.rows };
                Ok(self.compose(query, &rows, Some(if is_continued { used } else { &next })))
            }
            _ if page.rows.is_empty() => Ok((self.ending(is_continued), Vec::new())),
            _ => Ok(self.compose(query, &page.rows, self.next_token(&page, query, &next))),
        }
    }

    fn reopen(&self, text: &str, query: &Query) -> Result<Token, Refusal> {
        let token = Token::open(text, self.seed).ok_or(Refusal::Format)?;
        let is_same = token.fingerprint == query.fingerprint();
        is_same.then_some(token).ok_or(Refusal::Format)
    }

    /// Freezes the rows of a window.
    fn begin(&self, query: &Query, now_ms: i64) -> Token {
        let mut schedule = locked(&self.schedule);
        schedule.advance(now_ms);
        let rows = &schedule.streams[query.kind as usize].rows;
        let Query { start_ms, end_ms, .. } = *query;
        let span = Span { start_ms, end_ms, holds_end: self.config.end_inclusive };
        Token::freeze(query.fingerprint(), rows, |row| row.gen_ms, &span, now_ms)
    }

    fn select(&self, query: &Query, place: &Token, offset: u64) -> Page {
        let schedule = locked(&self.schedule);
        let rows = &schedule.streams[query.kind as usize].rows;
        let mut page = Page { offset, is_last: true, ..Page::default() };
        for looked_at in offset..place.high - place.low {
            let count = place.high - place.low;
            let rank = self.config.order.place(looked_at, count, self.seed);
            let at = (place.low + rank) as usize;
            let row = rows[at];
            if row.visible_ms > place.as_of_ms || !self.records.matches(query, &row) {
                continue;
            }
            if page.rows.len() == query.limit {
                page.is_last = false;
                break;
            }
            page.rows.push((at, row));
            page.offset = looked_at + 1;
        }
        page
    }

    fn next_token<'a>(&self, page: &Page, query: &Query, next: &'a str) -> Option<&'a str> {
        match self.config.ending {
            _ if !page.is_last => Some(next),
            Ending::TokenThen204 => (page.rows.len() == query.limit).then_some(next),
            Ending::NoToken => None,
            Ending::EmptyTokenString => Some(""),
            Ending::AlwaysTokenThen204
            | Ending::TokenThenEmptyList
            | Ending::TokenThenEmptyBody => Some(next),
        }
    }

    fn ending(&self, is_continued: bool) -> Response {
        match self.config.ending {
            Ending::TokenThenEmptyList if is_continued => Response::json(200, r#"{"logs":[]}"#),
            Ending::TokenThenEmptyBody if is_continued => Response::empty(200),
            _ => Response::empty(204),
        }
    }

    fn compose(
        &self,
        query: &Query,
        rows: &[(usize, Row)],
        token: Option<&str>,
    ) -> (Response, Vec<RowId>) {
        let mut body = String::with_capacity(64 + rows.len() * 1024);
        body.push('{');
        if let Some(token) = token {
            let is_encoded = self.config.token_percent_encoded;
            let token = if is_encoded { percent_encode(token) } else { token.to_string() };
            body.push_str(&format!("\"nextToken\":\"{token}\","));
        }
        body.push_str("\"logs\":[");
        for (nth, (_, row)) in rows.iter().enumerate() {
            if nth > 0 {
                body.push(',');
            }
            self.records.write(&mut body, query.kind, row);
        }
        body.push_str("]}");
        let stream = query.kind as usize;
        let ids = rows.iter().map(|(at, _)| RowId { stream, at: *at }).collect();
        (Response::json(200, body), ids)
    }

    /// Copies a piece of the rows, so that their text is made without holding the lock.
    fn copy_rows(&self, kind: Kind, at: usize) -> Vec<(Row, u32)> {
        let schedule = locked(&self.schedule);
        let stream = &schedule.streams[kind as usize];
        let rows = stream.rows.iter().copied().zip(stream.shown.iter().copied());
        rows.skip(at).take(4096).collect()
    }

    fn ledger_record(&self, kind: Kind, row: &Row, shown: u32) -> LedgerRecord {
        let mut json = String::with_capacity(1024);
        self.records.write(&mut json, kind, row);
        LedgerRecord {
            content_type: kind.content_type().to_string(),
            gen_time: from_millis(row.gen_ms),
            visible_at: from_millis(row.visible_ms),
            shown: u64::from(shown),
            json,
        }
    }
}
