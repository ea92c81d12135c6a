//! One connector's API, asked as the plugin asks it.

use std::sync::Arc;

use in_trendmicro::clock::Stop;
use in_trendmicro::config::ConnectorConfig;
use in_trendmicro::connector::{self, Connector, Page, Stream};
use in_trendmicro::error::{Error, ErrorKind, Result};
use in_trendmicro::http::limiter::{Allowance, Priority};
use in_trendmicro::http::retry::{self, Backoff};
use in_trendmicro::http::{Client, Response, Transport};
use in_trendmicro::instance::{connect, credential_digest};
use in_trendmicro::page::PageReader;
use in_trendmicro::record::Record;
use in_trendmicro::window::{HORIZON, HORIZON_MARGIN, Policy, SETTLE, Window};

use crate::time::{Time, delta, now};

/// Attempts at one page before a person has to look.
const ATTEMPTS_MAX: u32 = 4;

/// One connector's API.
pub struct Vendor {
    connector: Arc<dyn Connector>,
    client: Client,
    allowance: Allowance,
    span_max: std::time::Duration,
    stop: Stop,
}

impl Vendor {
    /// Prepares to ask; nothing is sent yet.
    ///
    /// # Errors
    /// When a certificate, key or proxy of the configuration cannot be used.
    pub fn new(config: &ConnectorConfig) -> Result<Self> {
        let connector = connect(config);
        Ok(Self {
            client: Client::new(config, connector.scheme())?,
            allowance: Allowance::new(credential_digest(config)?, config.rate_limit, None),
            span_max: config.product.span_max,
            connector,
            stop: Stop::default(),
        })
    }

    /// Its streams.
    #[must_use]
    pub fn streams(&self) -> &[Stream] {
        self.connector.streams()
    }

    /// Asks once for one page, and returns the answer with the page if the vendor gave one.
    ///
    /// # Errors
    /// When no whole answer came, or what came cannot be read.
    pub fn ask(
        &mut self,
        stream: usize,
        window: &Window,
        next: Option<&str>,
    ) -> Result<(Response, Option<Page>)> {
        let shape = self.connector.streams()[stream].shape;
        let mut reader = PageReader::new(self.connector.list(), shape, true).keeping_text(true);
        let request = self.connector.request(stream, window, next);
        self.allowance.acquire(Priority::Backfill, &self.stop)?;
        let response = self.client.send(&request, &self.stop, &mut |bytes| reader.feed(bytes))?;
        if !response.is_success() {
            return Ok((response, None));
        }
        let page = connector::read(&*self.connector, &response, reader.finish()?)?;
        Ok((response, Some(page)))
    }

    /// Shows every record of a span, cut into windows as the plugin cuts them. A record on the border
    /// of two windows may be shown twice.
    ///
    /// # Errors
    /// When the vendor refuses, or fails several times in a row.
    pub fn read(
        &mut self,
        stream: usize,
        span: Window,
        visit: &mut dyn FnMut(Record<'_>, &Window) -> Result<()>,
    ) -> Result<()> {
        let (overlap, span_max) = (Default::default(), self.span_max);
        let policy =
            Policy { lookback: HORIZON, overlap, span_max, records_max: usize::MAX, verify: false };
        // The plan's end is a moment before its now.
        let mut windows = policy.plan(Some(span.start), span.end + delta(SETTLE)).windows;
        windows.reverse();
        while let Some(window) = windows.pop() {
            match self.window(stream, &window, visit) {
                Err(error) if error.kind() == ErrorKind::Narrow => {
                    let (first, second) = window.split().ok_or(error)?;
                    windows.extend([second, first]);
                }
                other => other?,
            }
        }
        Ok(())
    }

    fn window(
        &mut self,
        stream: usize,
        window: &Window,
        visit: &mut dyn FnMut(Record<'_>, &Window) -> Result<()>,
    ) -> Result<()> {
        let mut next: Option<String> = None;
        loop {
            let page = self.page(stream, window, next.as_deref())?;
            let token = page.next;
            page.records.iter().try_for_each(|record| visit(record, window))?;
            match token {
                Some(token) if next.as_ref() != Some(&token) => next = Some(token),
                _ => return Ok(()),
            }
        }
    }

    /// Asks for a page until it comes.
    fn page(&mut self, stream: usize, window: &Window, next: Option<&str>) -> Result<Page> {
        let mut backoff = Backoff::default();
        loop {
            let answer = self.ask(stream, window, next).and_then(|(response, page)| {
                retry::check(&response)?;
                page.ok_or_else(|| Error::retry("no page in the answer"))
            });
            match answer {
                Err(error) if backoff.attempt() < ATTEMPTS_MAX => {
                    let ErrorKind::Retry { floor } = error.kind() else { return Err(error) };
                    let _ = self.stop.wait(backoff.next(floor, 0.5));
                }
                other => return other,
            }
        }
    }
}

/// What the vendor can still be asked for of a span; `None` if nothing.
#[must_use]
pub fn within_horizon(since: Time, until: Time) -> Option<Window> {
    let oldest = now() - delta(HORIZON) + delta(HORIZON_MARGIN);
    let span = Window { start: since.max(oldest), end: until.min(now() - delta(SETTLE)) };
    (span.start < span.end).then_some(span)
}
