//! The server: one thread per connection on plain sockets, so that every way of failing on the
//! wire is within reach. It knows no API; it asks each whether a path is its own.

use std::io::{self, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};

use crate::clock::Clock;
use crate::fault::{FaultKind, Faults};
use crate::http::{Head, LAST_CHUNK, Request, Response, TICK, chunk, is_timeout};
use crate::inventory::{Mutated, Mutation, Sweep};
use crate::json::PIECE_BYTES;
use crate::ledger::{Counts, LedgerRecord, RequestLog, Requests};
use crate::rate::Rate;
use crate::{control, locked};

/// What a simulated API has to offer the server.
pub(crate) trait Api: Send + Sync {
    /// True for the paths that this API answers.
    fn owns(&self, path: &str) -> bool;

    /// Answers a request. Faults of paging are carried out here, all others by the server.
    fn answer(&self, request: &Request, now_ms: i64, fault: Option<&FaultKind>) -> Answer;

    /// The vendor's own error answer for a status.
    fn refusal(&self, status: u16) -> Response;

    /// Notes that the records of an answer are sent whole. The server says so before it sends,
    /// so that a client never knows more than the ledger, and takes it back with
    /// [`Api::unmark_shown`] when sending fails.
    fn mark_shown(&self, rows: &[RowId]);

    /// Takes back what was noted.
    fn unmark_shown(&self, rows: &[RowId]);

    /// Adds this API's numbers.
    fn count(&self, now_ms: i64, counts: &mut Counts);

    /// Shows every visible record.
    fn visit(&self, now_ms: i64, visit: &mut dyn FnMut(&LedgerRecord));

    /// Ends the generation of live records; an inventory has none.
    fn stop_live(&self, _now_ms: i64) {}

    /// Changes an inventory; `None` when it is not this API's.
    fn mutate(&self, _now_ms: i64, _content_type: &str, _mutation: Mutation) -> Option<Mutated> {
        None
    }

    /// The answers with parts of an inventory so far.
    fn sweeps(&self) -> Vec<Sweep> {
        Vec::new()
    }

    /// Shows the records of such an answer if it was this API's.
    fn visit_sweep(&self, _sweep: &Sweep, _visit: &mut dyn FnMut(&LedgerRecord)) {}

    /// How the clients kept to the rate limit, where there is one.
    fn rate(&self) -> Option<Rate> {
        None
    }
}

/// Names one record within its API: content type and position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RowId {
    pub(crate) stream: usize,
    pub(crate) at: usize,
}

/// An API's answer, and what the log and the ledger need of it.
pub(crate) struct Answer {
    pub(crate) response: Response,
    pub(crate) token: Option<String>,
    pub(crate) rows: Vec<RowId>,
}

impl From<Response> for Answer {
    fn from(response: Response) -> Self {
        Self { response, token: None, rows: Vec::new() }
    }
}

/// Everything the connections share.
pub(crate) struct Shared {
    pub(crate) apis: Vec<Box<dyn Api>>,
    pub(crate) faults: Faults,
    pub(crate) clock: Clock,
    pub(crate) requests: Requests,
    pub(crate) stop: Stop,
    connections: AtomicUsize,
}

impl Shared {
    pub(crate) fn new(apis: Vec<Box<dyn Api>>, faults: Faults, clock: Clock) -> Self {
        let (requests, stop) = (Requests::default(), Stop::default());
        Self { apis, faults, clock, requests, stop, connections: AtomicUsize::new(0) }
    }

    /// Waits for the connections to notice that the server stops. They look every [`TICK`].
    pub(crate) fn drain(&self) {
        let deadline = Instant::now() + Duration::from_secs(5);
        while self.connections.load(Ordering::SeqCst) > 0 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// Tells every thread to end, and wakes those that wait.
#[derive(Debug, Default)]
pub(crate) struct Stop {
    is_set: Mutex<bool>,
    wakes: Condvar,
}

impl Stop {
    pub(crate) fn set(&self) {
        *locked(&self.is_set) = true;
        self.wakes.notify_all();
    }

    pub(crate) fn is_set(&self) -> bool {
        *locked(&self.is_set)
    }

    /// Waits, or returns early when the server stops.
    pub(crate) fn wait(&self, duration: Duration) {
        let guard = locked(&self.is_set);
        let waited = self.wakes.wait_timeout_while(guard, duration, |is_set| !*is_set);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }
}

/// Accepts connections until the server stops. The stop is noticed at the next connection, so
/// whoever sets it makes one.
pub(crate) fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for stream in listener.incoming() {
        if shared.stop.is_set() {
            return;
        }
        // An accept can fail for a connection that is gone already; the next one is sound.
        let Ok(stream) = stream else { continue };
        let connection = Connection::new(shared);
        std::thread::spawn(move || {
            // A broken connection is the client's business: it sees it too.
            let _ = serve(&connection.0, stream);
        });
    }
}

/// Counts itself, so that a stopping server knows when the last one is gone, even by a panic.
struct Connection(Arc<Shared>);

impl Connection {
    fn new(shared: &Arc<Shared>) -> Self {
        shared.connections.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(shared))
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::SeqCst);
    }
}

fn serve(shared: &Shared, mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(TICK))?;
    stream.set_write_timeout(Some(TICK))?;
    while let Some(head) = Head::read(&mut stream, &shared.stop)? {
        let target = head.target().to_string();
        if target.starts_with(control::PREFIX) {
            control::answer(shared, &head.accept(&mut stream)?, &mut stream)?;
            return Ok(());
        }
        let strike = Strike::new(shared.faults.strike(&target));
        if strike.kind == Some(FaultKind::Reset) {
            // The unread last byte of the request turns this close into a reset.
            log_unanswered(shared, &target);
            return Ok(());
        }
        let request = head.accept(&mut stream)?;
        let mut exchange = Exchange { shared, stream: &mut stream, request: &request, strike };
        if !exchange.run()? {
            return Ok(());
        }
    }
    Ok(())
}

fn log_unanswered(shared: &Shared, target: &str) {
    let (route, query) = target.split_once('?').unwrap_or((target, ""));
    shared.requests.push(RequestLog {
        at: shared.clock.now(),
        route: route.to_string(),
        query: query.to_string(),
        status: 0,
        records: 0,
        token: None,
        accept_gzip: false,
    });
}

/// The faults that strike one request, sorted by how they combine.
struct Strike {
    delay: Duration,
    skew_secs: i64,
    kind: Option<FaultKind>,
}

impl Strike {
    fn new(kinds: Vec<FaultKind>) -> Self {
        let mut strike = Self { delay: Duration::ZERO, skew_secs: 0, kind: None };
        for kind in kinds {
            match kind {
                FaultKind::Slow { delay } => strike.delay += delay,
                FaultKind::DateSkew { secs } => strike.skew_secs += secs,
                kind => strike.kind = strike.kind.or(Some(kind)),
            }
        }
        strike
    }
}

/// One request and its answer.
struct Exchange<'a> {
    shared: &'a Shared,
    stream: &'a mut TcpStream,
    request: &'a Request,
    strike: Strike,
}

impl Exchange<'_> {
    /// Answers; false when the connection is to be closed.
    fn run(&mut self) -> io::Result<bool> {
        self.shared.stop.wait(self.strike.delay);
        if self.strike.kind == Some(FaultKind::Hang) {
            log_unanswered(self.shared, &self.request.target);
            self.hang();
            return Ok(false);
        }
        let now_ms = self.shared.clock.now_ms();
        let api = self.shared.apis.iter().find(|api| api.owns(&self.request.path));
        let mut answer = match api {
            Some(api) => api.answer(self.request, now_ms, self.strike.kind.as_ref()),
            None => Answer::from(Response::new(404, "text/plain", "Not Found")),
        };
        self.gather(&mut answer.response);
        self.replace(&mut answer, api.map(|api| &**api));
        let response = &mut answer.response;
        if self.request.method == "HEAD" {
            response.body.clear();
            response.pieces = None;
            response.is_chunked = false;
        }
        let has_body = !response.body.is_empty() || response.pieces.is_some();
        if self.request.accepts_gzip() && has_body {
            response.compress()?;
        }
        self.log(&answer);
        if let Some(api) = api {
            api.mark_shown(&answer.rows);
        }
        let sent = self.send(answer.response);
        if let (Some(api), Err(_)) = (api, &sent) {
            api.unmark_shown(&answer.rows);
        }
        Ok(sent? && self.request.keeps_alive)
    }

    /// Makes the whole body for clients that know no chunks and for faults that have to see it.
    /// Of these, only the two that stop or stumble on the way leave it in chunks.
    fn gather(&self, response: &mut Response) {
        let takes_chunks = self.request.takes_chunks;
        if takes_chunks && self.strike.kind.is_none() {
            return;
        }
        response.gather();
        let is_on_the_way =
            matches!(self.strike.kind, Some(FaultKind::CloseMidBody | FaultKind::Drip { .. }));
        response.is_chunked &= takes_chunks && is_on_the_way;
    }

    fn log(&self, answer: &Answer) {
        self.shared.requests.push(RequestLog {
            at: self.shared.clock.now(),
            route: self.request.path.clone(),
            query: self.request.query.clone(),
            status: answer.response.status,
            records: answer.rows.len(),
            token: answer.token.clone(),
            accept_gzip: self.request.accepts_gzip(),
        });
    }

    /// Carries out the faults that change the answer before it is packed. Records of an answer
    /// that no client can read count as never shown, so they leave the answer here.
    fn replace(&self, answer: &mut Answer, api: Option<&dyn Api>) {
        let Some(kind) = &self.strike.kind else { return };
        if !kind.is_intact() {
            answer.rows.clear();
        }
        match kind {
            FaultKind::Status { code, retry_after, body } => {
                let mut response =
                    api.map_or_else(|| Response::empty(*code), |api| api.refusal(*code));
                if let Some(body) = body {
                    response.body = body.clone().into_bytes();
                }
                response.headers.extend(retry_after.clone().map(|after| ("Retry-After", after)));
                if *code == 204 {
                    response.body.clear();
                }
                answer.response = response;
            }
            FaultKind::NotJson => answer.response = Response::new(200, "text/plain", "OK"),
            FaultKind::HtmlError { code } => answer.response = html(*code),
            FaultKind::TruncatedJson => {
                let body = &mut answer.response.body;
                body.truncate(body.len() / 2);
            }
            FaultKind::GarbageUtf8 => spoil_text(&mut answer.response.body),
            _ => {}
        }
    }

    /// Sends with the faults of the wire; false when the connection is to be closed.
    fn send(&mut self, mut response: Response) -> io::Result<bool> {
        let skew = TimeDelta::try_seconds(self.strike.skew_secs).unwrap_or_default();
        let date = self.shared.clock.now() + skew;
        let (length, keeps_alive) = (response.body.len(), self.request.keeps_alive);
        if let Some(pieces) = response.pieces.take() {
            let head = response.head(length, date, keeps_alive);
            write_all(self.stream, &head, &self.shared.stop)?;
            for piece in pieces {
                write_all(self.stream, &chunk(&piece), &self.shared.stop)?;
            }
            write_all(self.stream, LAST_CHUNK, &self.shared.stop)?;
            return Ok(true);
        }
        match self.strike.kind.clone() {
            // A server that dies has promised to stay, so these two say keep-alive.
            Some(FaultKind::CloseMidBody) => {
                response.body.truncate(length / 2);
                self.write(&response, length, date, true)?;
                return Ok(false);
            }
            Some(FaultKind::WrongLength) => {
                self.write(&response, length.saturating_sub(17), date, true)?;
                return Ok(false);
            }
            Some(FaultKind::GzipBroken) if length > 0 => {
                spoil_gzip(&mut response)?;
                self.write(&response, response.body.len(), date, keeps_alive)?;
            }
            Some(FaultKind::Drip { chunk, delay }) => {
                let mut bytes = response.head(length, date, keeps_alive);
                bytes.extend(framed(&response));
                if response.is_chunked {
                    bytes.extend(LAST_CHUNK);
                }
                for piece in bytes.chunks(chunk.max(1)) {
                    self.shared.stop.wait(delay);
                    write_all(self.stream, piece, &self.shared.stop)?;
                }
            }
            _ => self.write(&response, length, date, keeps_alive)?,
        }
        Ok(true)
    }

    fn write(
        &mut self,
        response: &Response,
        length: usize,
        date: DateTime<Utc>,
        keeps_alive: bool,
    ) -> io::Result<()> {
        let mut bytes = response.head(length, date, keeps_alive);
        bytes.extend(framed(response));
        write_all(self.stream, &bytes, &self.shared.stop)
    }

    fn hang(&self) {
        let deadline = Instant::now() + Duration::from_secs(600);
        while Instant::now() < deadline && !self.shared.stop.is_set() {
            match self.stream.peek(&mut [0]) {
                Ok(0) => return,
                Ok(_) => self.shared.stop.wait(TICK),
                Err(error) if is_timeout(&error) => {}
                Err(_) => return,
            }
        }
    }
}

/// The body as it goes out, without the end of the chunks if it goes in chunks.
fn framed(response: &Response) -> Vec<u8> {
    match response.is_chunked {
        true => response.body.chunks(PIECE_BYTES).flat_map(chunk).collect(),
        false => response.body.clone(),
    }
}

/// Writes all of it, however slowly the client reads, unless the server stops.
pub(crate) fn write_all(stream: &mut TcpStream, mut bytes: &[u8], stop: &Stop) -> io::Result<()> {
    while !bytes.is_empty() {
        match stream.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => bytes = &bytes[count..],
            Err(error) if is_timeout(&error) && !stop.is_set() => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn html(code: u16) -> Response {
    let page = format!(
        "<!DOCTYPE html>\n<html><head><title>{code}</title></head>\n\
         <body><h1>The service is temporarily unavailable</h1></body></html>\n"
    );
    Response::new(code, "text/html;charset=UTF-8", page)
}

/// Texts that receivers read, by the start of their member.
const SPOILT_TEXTS: [&str; 4] =
    ["\"subject\":\"", "\"affected_user\":\"", "\"host_name\":\"", "\"hostName\":\""];

/// Puts a byte that begins no character into such a text, or into the first string.
fn spoil_text(body: &mut Vec<u8>) {
    let end_of = |marker: &str| {
        let at = body.windows(marker.len()).position(|bytes| bytes == marker.as_bytes());
        at.map(|at| at + marker.len())
    };
    let first = || body.iter().position(|byte| *byte == b'"').map(|at| at + 1);
    if let Some(at) = SPOILT_TEXTS.iter().find_map(|marker| end_of(marker)).or_else(first) {
        body.insert(at, 0xff);
    }
}

/// Cuts the body and turns its middle, in gzip whether or not the client asked for it.
fn spoil_gzip(response: &mut Response) -> io::Result<()> {
    if !response.headers.iter().any(|(name, _)| *name == "Content-Encoding") {
        response.compress()?;
    }
    let middle = response.body.len() / 2;
    response.body.truncate(response.body.len() - 4);
    response.body[middle] ^= 0x55;
    Ok(())
}
