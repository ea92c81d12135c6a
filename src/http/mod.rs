//! HTTP for the pollers: one request, one answer. The only room that knows reqwest.
//!
//! reqwest's blocking client cannot be told to stop and keeps a thread that nobody joins. So each
//! poller drives the asynchronous client on its own thread and looks up ten times a second whether
//! it should stop; nothing asynchronous leaves this room.

pub mod auth;
pub mod limiter;
mod redact;
pub mod retry;
pub mod tls;

use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::DateTime;
use reqwest::header::{ACCEPT, CONTENT_TYPE, DATE, RETRY_AFTER};
use tokio::runtime;

use crate::clock::{self, Stop, Time};
use crate::config::{ConnectorConfig, Proxy};
use crate::error::{Error, ErrorKind, Result};
use crate::secret::Secret;

use auth::{Authenticator, Scheme};

/// A decoded body; an inventory of a hundred thousand machines is below, and a bomb ends here.
const BODY_BYTES_MAX: usize = 256 * 1024 * 1024;
/// What is read of an answer that is no success.
const REFUSAL_BYTES_MAX: usize = 64 * 1024;
/// A host that does not answer at all should not use up the whole request's time.
const CONNECT_TIMEOUT_MAX: Duration = Duration::from_secs(15);
/// Servers close idle connections after a minute or so; one that is just being closed must not be
/// used for the next round's request.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(15);
/// How often a running request looks whether it should stop.
const STOP_CHECK_INTERVAL: Duration = Duration::from_millis(100);
/// How long a look-up of a name may hold up a stop.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_millis(200);
/// What servers take of a request's first line, more or less; a pointer to a page that is longer
/// would also be kept ten thousand times, to find circles.
const TARGET_BYTES_MAX: usize = 8 * 1024;
const JSON: &str = "application/json";
/// Sent with every request.
const USER_AGENT: &str = concat!("in_trendmicro/", env!("CARGO_PKG_VERSION"));

/// What to ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Path and query exactly as they go over the wire, percent-encoded.
    pub target: String,
    /// A JSON body; with one, the method is POST.
    pub body: Option<String>,
    /// Headers that the API wants beside the usual ones.
    pub headers: &'static [(&'static str, &'static str)],
}

impl Request {
    /// A GET for `target`.
    #[must_use]
    pub fn get(target: String) -> Self {
        Self { target, body: None, headers: &[] }
    }

    /// Its method.
    #[must_use]
    pub fn method(&self) -> &'static str {
        if self.body.is_some() { "POST" } else { "GET" }
    }
}

/// An answer. The body of a success has gone to the sink, decoded.
#[derive(Debug, Default)]
pub struct Response {
    /// HTTP status.
    pub status: u16,
    /// The vendor's clock.
    pub date: Option<Time>,
    /// How long the vendor asks us to wait.
    pub retry_after: Option<Duration>,
    /// The body's media type.
    pub content_type: Option<String>,
    /// The body's start, if the answer is no success.
    pub refusal: Vec<u8>,
}

impl Response {
    /// Whether the vendor did what it was asked for.
    #[must_use]
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// Takes the body of a success, piece by piece. It may take its time: that does not count as the
/// vendor's.
pub type Sink<'a> = &'a mut dyn FnMut(&[u8]) -> Result<()>;

/// Sends requests; the tests and the simulation have their own.
pub trait Transport {
    /// Sends one request and reads its whole answer, whatever its status.
    ///
    /// # Errors
    /// `Retry` or `Narrow` when no whole answer came, `Stopped` when `stop` was raised, and what
    /// `sink` answers.
    fn send(&mut self, request: &Request, stop: &Stop, sink: Sink<'_>) -> Result<Response>;
}

/// The real transport of one connector.
pub struct Client {
    origin: String,
    timeout: Duration,
    authenticator: Arc<Authenticator>,
    proxy_secrets: Arc<[Secret]>,
    client: reqwest::Client,
    runtime: Option<runtime::Runtime>,
}

impl Client {
    /// A client for one connector; nothing is sent yet.
    ///
    /// # Errors
    /// When a certificate, key or proxy of the configuration cannot be used.
    pub fn new(config: &ConnectorConfig, scheme: Scheme) -> Result<Self> {
        let unusable = |error: reqwest::Error| {
            Error::config(format!("{}: the HTTP client cannot start", config.name))
                .caused_by(error.without_url())
        };
        let mut builder = reqwest::Client::builder()
            .tls_backend_preconfigured(tls::client_config(&config.tls)?)
            .user_agent(USER_AGENT)
            .gzip(true)
            .pool_idle_timeout(POOL_IDLE_TIMEOUT)
            // A redirect would carry the credential to a host that nobody configured.
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(config.timeout.min(CONNECT_TIMEOUT_MAX));
        match &config.proxy {
            Proxy::Environment if !config.base_url.is_loopback() => {}
            Proxy::Environment | Proxy::Off => builder = builder.no_proxy(),
            Proxy::Url(url) => {
                builder = builder.proxy(reqwest::Proxy::all(url.expose()).map_err(unusable)?);
            }
        }
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(1)
            .thread_name("trendmicro-dns")
            .build()
            .map_err(|error| Error::config("no event loop for HTTP").caused_by(error))?;
        let base = config.base_url.as_str();
        Ok(Self {
            origin: base[..base.len() - config.base_url.path().len()].to_owned(),
            timeout: config.timeout,
            authenticator: Arc::new(Authenticator::new(scheme, Arc::clone(&config.api_key))),
            proxy_secrets: redact::proxy_secrets(&config.proxy).into(),
            client: builder.build().map_err(unusable)?,
            runtime: Some(runtime),
        })
    }

    /// What takes this connector's secrets out of a text that may be shown: the vendor and proxies
    /// may repeat what they were sent.
    pub fn redactor(&self) -> impl Fn(String) -> String + Send + Sync + use<> {
        let authenticator = Arc::clone(&self.authenticator);
        let proxy_secrets = Arc::clone(&self.proxy_secrets);
        move |text| {
            let text = authenticator.redact(text);
            proxy_secrets.iter().fold(text, |text, secret| redact::hide(&text, secret))
        }
    }

    async fn exchange(&self, request: &Request, sink: Sink<'_>) -> Result<Response> {
        if request.target.len() > TARGET_BYTES_MAX {
            let text = format!(
                "the next page has an address of {} bytes, which no request can carry",
                request.target.len()
            );
            return Err(Error::new(ErrorKind::Refused, text));
        }
        let url = format!("{}{}", self.origin, request.target);
        let mut builder = match &request.body {
            None => self.client.get(url),
            Some(body) => self.client.post(url).header(CONTENT_TYPE, JSON).body(body.clone()),
        };
        for &(name, value) in request.headers {
            builder = builder.header(name, value);
        }
        let (name, value) = self.authenticator.header(request, clock::now())?;
        let builder = builder.header(name, value).header(ACCEPT, JSON);
        let mut response = builder.send().await.map_err(transport_error)?;
        let header = |name| response.headers().get(name)?.to_str().ok().map(str::to_owned);
        let mut answer = Response {
            status: response.status().as_u16(),
            date: header(DATE).and_then(|text| http_date(&text)),
            content_type: header(CONTENT_TYPE),
            ..Response::default()
        };
        answer.retry_after = header(RETRY_AFTER)
            .and_then(|text| retry_after(&text, answer.date.unwrap_or_else(clock::now)));
        let mut bytes = 0;
        while let Some(chunk) = response.chunk().await.map_err(transport_error)? {
            bytes += chunk.len();
            if bytes > BODY_BYTES_MAX {
                let text = format!("the answer is larger than {BODY_BYTES_MAX} bytes");
                return Err(Error::new(ErrorKind::Narrow, text));
            }
            if answer.is_success() {
                sink(&chunk)?;
            } else {
                let room = REFUSAL_BYTES_MAX - answer.refusal.len();
                answer.refusal.extend(chunk.iter().take(room));
            }
        }
        let refusal = String::from_utf8_lossy(&answer.refusal).into_owned();
        answer.refusal = self.redactor()(refusal).into_bytes();
        Ok(answer)
    }

    async fn exchange_until(
        &self,
        request: &Request,
        stop: &Stop,
        sink: Sink<'_>,
    ) -> Result<Response> {
        let started = Instant::now();
        // What the sink takes is our own time: the vendor waits for us then.
        let held = Cell::new(Duration::ZERO);
        let mut timed_sink = |bytes: &[u8]| {
            let begun = Instant::now();
            let taken = sink(bytes);
            held.set(held.get() + begun.elapsed());
            taken
        };
        let mut exchange = Box::pin(self.exchange(request, &mut timed_sink));
        loop {
            if let Ok(answer) = tokio::time::timeout(STOP_CHECK_INTERVAL, &mut exchange).await {
                return answer;
            }
            if stop.is_raised() {
                return Err(Error::stopped());
            }
            if started.elapsed().saturating_sub(held.get()) >= self.timeout {
                let text = format!("no whole answer within {} s", self.timeout.as_secs());
                return Err(Error::new(ErrorKind::Narrow, text));
            }
        }
    }
}

impl Transport for Client {
    fn send(&mut self, request: &Request, stop: &Stop, sink: Sink<'_>) -> Result<Response> {
        let Some(runtime) = &self.runtime else { return Err(Error::stopped()) };
        let answer = runtime.block_on(self.exchange_until(request, stop, sink))?;
        // A signature that the vendor finds too old is made anew, by the vendor's clock, once.
        if answer.status == 401 && self.authenticator.learn_skew(answer.date, clock::now()) {
            return runtime.block_on(self.exchange_until(request, stop, sink));
        }
        Ok(answer)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(SHUTDOWN_TIMEOUT);
        }
    }
}

/// A failure of the connection; the URL is left out, since its query holds tokens.
fn transport_error(error: reqwest::Error) -> Error {
    let kind =
        if error.is_timeout() { ErrorKind::Narrow } else { ErrorKind::Retry { floor: None } };
    let what = if error.is_connect() { "cannot connect" } else { "the connection failed" };
    Error::new(kind, what).caused_by(error.without_url())
}

/// Reads an HTTP date (RFC 9110 §5.6.7, the preferred form).
#[must_use]
pub fn http_date(text: &str) -> Option<Time> {
    DateTime::parse_from_rfc2822(text).ok().map(|time| time.to_utc())
}

/// Reads `Retry-After`: seconds, or a date. Nothing bounds it yet.
#[must_use]
pub fn retry_after(text: &str, now: Time) -> Option<Duration> {
    match text.trim().parse() {
        Ok(secs) => Some(Duration::from_secs(secs)),
        Err(_) => Some((http_date(text.trim())? - now).to_std().unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        assert_eq!(retry_after(" 120 ", now), Some(Duration::from_secs(120)));
        let date = "Sun, 06 Nov 1994 08:50:37 GMT";
        assert_eq!(retry_after(date, now), Some(Duration::from_secs(60)));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:40:00 GMT", now), Some(Duration::ZERO));
        assert_eq!(retry_after("soon", now), None);
        assert_eq!(retry_after("-1", now), None);
    }
}
