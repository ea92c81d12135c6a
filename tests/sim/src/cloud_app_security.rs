//! Cloud App Security: security event logs per service and event, behind a window, links to the
//! next page and a limit of requests.
//!
//! What the vendor leaves open is a choice in [`CloudAppConfig`].

mod query;
mod record;
mod schedule;
mod vocabulary;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::{from_millis, push_time_millis};
use crate::fault::FaultKind;
use crate::http::{Request, Response};
use crate::json::push_string;
use crate::ledger::{Count, Counts, LedgerRecord};
use crate::locked;
use crate::rate::{Limiter, Rate, RateRule, retry_after};
use crate::rng::{mix, uuid};
use crate::server::{Answer, Api, RowId};
use crate::token::{Span, Token};
use crate::window::{Lateness, OldStart, Order};
use query::{Query, Refusal};
use record::Records;
use schedule::{Row, Schedule};
use vocabulary::{STREAMS, content_type};

/// What Cloud App Security holds and how it behaves.
#[derive(Debug, Clone, PartialEq)]
pub struct CloudAppConfig {
    /// The bearer token.
    pub api_key: String,
    /// The services that have records; requests may name all twelve.
    pub services: Vec<String>,
    /// Records of each service and event at the start, the samples among them.
    pub backlog: usize,
    /// Other numbers for some of them, such as `("sharepoint/dlp", 5000)`.
    pub backlog_of: Vec<(String, usize)>,
    /// How far back the backlog reaches.
    pub backlog_span: Duration,
    /// New records per second over all services and events.
    pub live_per_second: f64,
    /// Whether records show up later than their generation time.
    pub lateness: Lateness,
    /// Whether the reference's sample records are among the backlog, with their times moved.
    pub seed_samples: bool,
    /// Whether a ransomware record has the `log_item_id` of a security risk record of its service.
    pub overlapping_ids: bool,
    /// The time that windows select by.
    pub filter: FilterTime,
    /// The order of rows over the pages of a result.
    pub order: Order,
    /// Whether a record of the very end of the window is in it.
    pub end_inclusive: bool,
    /// The most rows in a page; a larger `limit` is lowered to it.
    pub page_limit_max: usize,
    /// How the link to the next page is written.
    pub link_form: LinkForm,
    /// What stands in its place on the last page.
    pub link_end: LinkEnd,
    /// Whether a full last page has a link all the same, to a page without events.
    pub link_after_last: bool,
    /// The scheme in links; the simulator itself speaks `http`.
    pub link_scheme: String,
    /// Another origin for the next links, such as `http://evil.test:81`: whoever follows gives its
    /// token away.
    pub evil_link: Option<String>,
    /// How far back a window may reach.
    pub horizon: Duration,
    /// What becomes of a window that begins before that.
    pub old_start: OldStart,
    /// Requests let through in a window of the rate limit; `None` for no limit.
    pub rate_limit: Option<usize>,
    /// The length of that window.
    pub rate_window: Duration,
    /// Which requests it counts.
    pub rate_rule: RateRule,
    /// Whether a 429 says when to come again.
    pub retry_after: bool,
}

/// The time of a record that windows select by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum FilterTime {
    /// When the log item was generated, ten seconds after the detection.
    #[default]
    Generation,
    /// `detection_time`; the record can be had ten seconds later.
    Detection,
}

/// How a link to the next page is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LinkForm {
    /// `http://host/v1/siem/security_events?…`
    #[default]
    Full,
    /// `host/v1/siem/security_events?…`
    WithoutScheme,
    /// `http://host/siem/v1/security_events?…`
    ReversedPath,
    /// A space after the last `&`.
    StraySpace,
}

/// How a last page says that it is the last.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LinkEnd {
    /// `"next_link":""`
    #[default]
    EmptyString,
    /// `"next_link":null`
    Null,
    /// No `next_link`.
    Missing,
}

impl Default for CloudAppConfig {
    fn default() -> Self {
        Self {
            api_key: "0123456789abcdef0123456789abcdef01234567".to_string(),
            services: vocabulary::SERVICES.iter().map(|service| service.name.to_string()).collect(),
            backlog: 20,
            backlog_of: Vec::new(),
            backlog_span: Duration::from_secs(6 * 3600),
            live_per_second: 2.0,
            lateness: Lateness::None,
            seed_samples: true,
            overlapping_ids: false,
            filter: FilterTime::Generation,
            order: Order::Ascending,
            end_inclusive: true,
            page_limit_max: 500,
            link_form: LinkForm::Full,
            link_end: LinkEnd::EmptyString,
            link_after_last: false,
            link_scheme: "http".to_string(),
            evil_link: None,
            horizon: Duration::from_secs(72 * 3600),
            old_start: OldStart::Clamp,
            rate_limit: Some(20),
            rate_window: Duration::from_secs(60),
            rate_rule: RateRule::FromFirstRequest,
            retry_after: false,
        }
    }
}

/// The API, with its records.
pub(crate) struct CloudAppSecurity {
    config: CloudAppConfig,
    seed: u64,
    records: Records,
    schedule: Mutex<Schedule>,
    limiter: Limiter,
    /// How many answers there were, for their trace identifiers.
    answers: AtomicU64,
}

impl Api for CloudAppSecurity {
    fn owns(&self, path: &str) -> bool {
        path.starts_with("/v1/siem/") || path.starts_with("/siem/v1/")
    }

    fn answer(&self, request: &Request, now_ms: i64, fault: Option<&FaultKind>) -> Answer {
        let trace = self.trace(request);
        let params = request.params().unwrap_or_default();
        let page = params.into_iter().find(|(name, _)| name.trim() == "page_id");
        let token = page.map(|(_, value)| value);
        let answer = self
            .admit(request, now_ms)
            .and_then(|query| self.page(request, &query, now_ms, fault, &trace));
        match answer {
            Ok((body, rows)) => Answer { response: Response::json(200, body), token, rows },
            Err(refusal) => Answer { token, ..Answer::from(refusal.response(&trace)) },
        }
    }

    fn refusal(&self, status: u16) -> Response {
        let trace = uuid(mix(self.answers.fetch_add(1, Ordering::SeqCst)));
        Refusal::of_status(status)
            .map_or_else(|| Response::empty(status), |refusal| refusal.response(&trace))
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
        for at in self.streams() {
            let mut count = Count::default();
            let stream = &schedule.streams[at];
            for (row, shown) in stream.rows.iter().zip(&stream.shown) {
                if row.visible_ms > now_ms {
                    count.pending += 1;
                } else {
                    count.visible += 1;
                    count.shown_distinct += u64::from(*shown > 0);
                    count.shown_total += u64::from(*shown);
                }
            }
            counts.add(&content_type(at), count);
        }
    }

    fn visit(&self, now_ms: i64, visit: &mut dyn FnMut(&LedgerRecord)) {
        locked(&self.schedule).advance(now_ms);
        for stream in self.streams() {
            let content_type = content_type(stream);
            for (row, shown) in self.copy_rows(stream) {
                if row.visible_ms > now_ms {
                    continue;
                }
                let mut json = String::new();
                self.records.write(&mut json, stream, &row);
                visit(&LedgerRecord {
                    content_type: content_type.clone(),
                    gen_time: from_millis(row.filter_ms),
                    visible_at: from_millis(row.visible_ms),
                    shown: u64::from(shown),
                    json,
                });
            }
        }
    }

    fn stop_live(&self, now_ms: i64) {
        locked(&self.schedule).stop_live(now_ms);
    }

    fn rate(&self) -> Option<Rate> {
        Some(self.limiter.rate("cloud_app_security"))
    }
}

/// A part of a result: its rows and where the next part begins.
#[derive(Default)]
struct Page {
    rows: Vec<(usize, Row)>,
    offset: u64,
    is_last: bool,
}

impl CloudAppSecurity {
    pub(crate) fn new(config: CloudAppConfig, seed: u64, now_ms: i64) -> Self {
        let records = Records::new(seed, &config);
        let schedule = Schedule::new(&config, &records, seed, now_ms);
        let limiter = Limiter::new(config.rate_limit, config.rate_window, config.rate_rule);
        let (schedule, answers) = (Mutex::new(schedule), AtomicU64::new(0));
        Self { config, seed, records, schedule, limiter, answers }
    }

    /// The streams that have records.
    fn streams(&self) -> impl Iterator<Item = usize> + '_ {
        (0..STREAMS).filter(|stream| vocabulary::is_of(*stream, &self.config.services))
    }

    fn copy_rows(&self, stream: usize) -> Vec<(Row, u32)> {
        let schedule = locked(&self.schedule);
        let stream = &schedule.streams[stream];
        stream.rows.iter().copied().zip(stream.shown.iter().copied()).collect()
    }

    /// The identifier that a client gave the request, or else our own.
    fn trace(&self, request: &Request) -> String {
        let own = || uuid(mix(self.seed) ^ self.answers.fetch_add(1, Ordering::SeqCst));
        request.header("traceid").map_or_else(own, str::to_string)
    }

    /// Credentials come first, then the rate limit, then the resource, the method, the parameters.
    fn admit(&self, request: &Request, now_ms: i64) -> Result<Query, Refusal> {
        let (scheme, token) = request
            .header("authorization")
            .and_then(|value| value.split_once(' '))
            .unwrap_or_default();
        if !scheme.eq_ignore_ascii_case("bearer") || token.trim() != self.config.api_key {
            return Err(Refusal::Credentials);
        }
        self.limiter.take(now_ms).map_err(|wait_ms| {
            Refusal::TooMany(self.config.retry_after.then(|| retry_after(wait_ms)))
        })?;
        Query::read(request, &self.config, now_ms)
    }

    fn page(
        &self,
        request: &Request,
        query: &Query,
        now_ms: i64,
        fault: Option<&FaultKind>,
        trace: &str,
    ) -> Result<(String, Vec<RowId>), Refusal> {
        let place = match &query.page_id {
            Some(text) => self.reopen(text, query)?,
            None => self.begin(query, now_ms),
        };
        let mut page = self.select(query, &place, place.offset);
        let is_continued = query.page_id.is_some();
        let used = query.page_id.clone().unwrap_or_default();
        let next = Token { offset: page.offset, previous: place.offset, ..place };
        let next = url_safe(&next.seal(self.seed));
        let is_full = self.config.link_after_last && page.rows.len() == query.limit;
        let mut link = (!page.is_last || is_full).then(|| next.clone());
        let previous = || self.select(query, &place, place.previous).rows;
        match fault {
            Some(FaultKind::RepeatPage) if is_continued => {
                (page.rows, link) = (previous(), Some(used));
            }
            Some(FaultKind::RepeatRecords) if is_continued && !page.rows.is_empty() => {
                let mut rows = previous();
                rows.drain(..rows.len().saturating_sub(5));
                rows.append(&mut page.rows);
                page.rows = rows;
            }
            Some(FaultKind::EndlessToken) => {
                if page.rows.is_empty() {
                    page.rows = previous();
                }
                link = Some(if is_continued { used } else { next });
            }
            _ => {}
        }
        let ids = page.rows.iter().map(|(at, _)| RowId { stream: query.stream, at: *at });
        Ok((self.compose(request, query.stream, &page.rows, link.as_deref(), trace), ids.collect()))
    }

    fn reopen(&self, text: &str, query: &Query) -> Result<Token, Refusal> {
        let text = text.replace('-', "+").replace('_', "/");
        let token = Token::open(&text, self.seed);
        let token = token.filter(|token| token.fingerprint == query.fingerprint());
        token.ok_or(Refusal::Parameter("page_id".to_string()))
    }

    /// Freezes the rows of a window.
    fn begin(&self, query: &Query, now_ms: i64) -> Token {
        let mut schedule = locked(&self.schedule);
        schedule.advance(now_ms);
        let rows = &schedule.streams[query.stream].rows;
        let Query { start_ms, end_ms, .. } = *query;
        let span = Span { start_ms, end_ms, holds_end: self.config.end_inclusive };
        Token::freeze(query.fingerprint(), rows, |row| row.filter_ms, &span, now_ms)
    }

    fn select(&self, query: &Query, place: &Token, offset: u64) -> Page {
        let schedule = locked(&self.schedule);
        let rows = &schedule.streams[query.stream].rows;
        let mut page = Page { offset, is_last: true, ..Page::default() };
        let count = place.high - place.low;
        for looked_at in offset..count {
            let at = (place.low + self.config.order.place(looked_at, count, self.seed)) as usize;
            if rows[at].visible_ms > place.as_of_ms {
                continue;
            }
            if page.rows.len() == query.limit {
                page.is_last = false;
                break;
            }
            page.rows.push((at, rows[at]));
            page.offset = looked_at + 1;
        }
        page
    }

    fn compose(
        &self,
        request: &Request,
        stream: usize,
        rows: &[(usize, Row)],
        page_id: Option<&str>,
        trace: &str,
    ) -> String {
        let host = request.header("host").unwrap_or("localhost");
        let origin = format!("{}://{host}", self.config.link_scheme);
        let mut body = String::with_capacity(512 + rows.len() * 1024);
        body.push_str("{\"current_link\":");
        push_string(&mut body, &format!("{origin}{}", request.target), false);
        match page_id.map(|page_id| self.link(request, &origin, page_id)) {
            Some(link) => {
                body.push_str(",\"next_link\":");
                push_string(&mut body, &link, false);
            }
            None => body.push_str(match self.config.link_end {
                LinkEnd::EmptyString => ",\"next_link\":\"\"",
                LinkEnd::Null => ",\"next_link\":null",
                LinkEnd::Missing => "",
            }),
        }
        body.push_str(",\"last_log_item_generation_time\":\"");
        if let Some(last_ms) = rows.iter().map(|(_, row)| row.generated_ms).max() {
            push_time_millis(&mut body, last_ms);
        }
        body.push_str("\",\"security_events\":[");
        for (nth, (_, row)) in rows.iter().enumerate() {
            if nth > 0 {
                body.push(',');
            }
            self.records.write(&mut body, stream, row);
        }
        body.push_str("],\"traceId\":");
        push_string(&mut body, trace, false);
        body.push('}');
        body
    }

    /// The request's own URL, with the page in the place of the one that was asked for.
    fn link(&self, request: &Request, origin: &str, page_id: &str) -> String {
        let form = self.config.link_form;
        let origin = match form {
            _ if self.config.evil_link.is_some() => {
                self.config.evil_link.as_deref().unwrap_or_default()
            }
            LinkForm::WithoutScheme => origin.split_once("://").map_or(origin, |(_, host)| host),
            _ => origin,
        };
        let path = match form {
            LinkForm::ReversedPath => "/siem/v1/security_events",
            _ => "/v1/siem/security_events",
        };
        let is_page = |pair: &&str| {
            let name = pair.trim_start_matches("%20").trim_start_matches('+');
            name.starts_with("page_id=")
        };
        let others = request.query.split('&').filter(|pair| !is_page(pair));
        let others = others.collect::<Vec<_>>().join("&");
        let space = if form == LinkForm::StraySpace { " " } else { "" };
        format!("{origin}{path}?{others}&{space}page_id={page_id}")
    }
}

/// Base64 as it may stand in a URL; the `=` at its end stays, as in the vendor's links.
fn url_safe(token: &str) -> String {
    token.replace('+', "-").replace('/', "_")
}
