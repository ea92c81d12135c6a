//! The little of HTTP/1.1 that a polling API needs: reading a request, composing an answer.
//!
//! The last byte of a request head stays in the socket until [`Head::accept`] takes it. A socket
//! closed with unread bytes answers with a reset, which is the only way to make one without
//! unsafe code.

use std::io::{self, Read, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use flate2::{Compression, write::GzEncoder};
use percent_encoding::percent_decode_str;

use crate::server::Stop;

/// How long a quiet read waits before it looks whether the server stops.
pub(crate) const TICK: Duration = Duration::from_millis(100);
const HEAD_BYTES_MAX: usize = 64 * 1024;
const BODY_BYTES_MAX: usize = 1024 * 1024;
const BODY_PATIENCE: Duration = Duration::from_secs(5);

/// One request, complete.
#[derive(Debug, Default)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    /// As it came, without the question mark.
    pub(crate) query: String,
    /// Path and query as they came, since a signature covers every byte of them.
    pub(crate) target: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    pub(crate) keeps_alive: bool,
    /// HTTP/1.0 knows no chunks.
    pub(crate) takes_chunks: bool,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    pub(crate) fn accepts_gzip(&self) -> bool {
        self.header("accept-encoding").unwrap_or_default().split(',').any(|coding| {
            let (name, weight) = coding.split_once(';').unwrap_or((coding, ""));
            let weight = weight.trim().trim_start_matches("q=").parse::<f32>().unwrap_or(1.0);
            name.trim().eq_ignore_ascii_case("gzip") && weight > 0.0
        })
    }

    /// The query's parameters in order, decoded as servers decode them: `+` is a space and one
    /// layer of percent-encoding comes off. `Err` names a parameter that is not UTF-8.
    pub(crate) fn params(&self) -> Result<Vec<(String, String)>, String> {
        let decode = |text: &str| {
            let spaced = text.replace('+', " ");
            percent_decode_str(&spaced).decode_utf8().map(|text| text.into_owned())
        };
        let pairs = self.query.split('&').filter(|pair| !pair.is_empty());
        let decoded = pairs.map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            match (decode(name), decode(value)) {
                (Ok(name), Ok(value)) => Ok((name, value)),
                _ => Err(name.to_string()),
            }
        });
        decoded.collect()
    }
}

/// A request head that was seen but whose last byte still lies in the socket.
pub(crate) struct Head(Request);

impl Head {
    pub(crate) fn target(&self) -> &str {
        &self.0.target
    }

    /// Waits for a head. `None` when the peer closed, sent what is no HTTP, or the server stops.
    pub(crate) fn read(stream: &mut TcpStream, stop: &Stop) -> io::Result<Option<Self>> {
        let mut seen = vec![0; HEAD_BYTES_MAX];
        let mut before = 0;
        let length = loop {
            let count = match stream.peek(&mut seen) {
                Ok(count) => count,
                Err(error) if is_timeout(&error) && !stop.is_set() => continue,
                Err(_) => return Ok(None),
            };
            if let Some(at) = seen[..count].windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            if count == 0 || count == seen.len() || stop.is_set() {
                return Ok(None);
            }
            if count == before {
                // A peek returns at once while part of the head lies there.
                stop.wait(Duration::from_millis(1));
            }
            before = count;
        };
        stream.read_exact(&mut seen[..length - 1])?;
        Ok(parse_head(&String::from_utf8_lossy(&seen[..length - 1])).map(Self))
    }

    /// Takes the rest of the request from the socket.
    pub(crate) fn accept(self, stream: &mut TcpStream) -> io::Result<Request> {
        let mut request = self.0;
        let length = request.header("content-length").and_then(|text| text.parse().ok());
        let length: usize = length.unwrap_or(0);
        if length > BODY_BYTES_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut rest = vec![0; 1 + length];
        read_all(stream, &mut rest)?;
        request.body = rest.split_off(1);
        Ok(request)
    }
}

/// Reads all of it. A body may follow its head in its own time, and a quiet tick is no end.
fn read_all(stream: &mut TcpStream, mut rest: &mut [u8]) -> io::Result<()> {
    let deadline = Instant::now() + BODY_PATIENCE;
    while !rest.is_empty() {
        match stream.read(rest) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => rest = &mut rest[count..],
            Err(error) if is_timeout(&error) && Instant::now() < deadline => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn parse_head(text: &str) -> Option<Request> {
    let mut lines = text.lines();
    let mut words = lines.next()?.split(' ');
    let (method, target, version) = (words.next()?, words.next()?, words.next()?);
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let headers = lines.filter_map(|line| line.split_once(':'));
    let mut request = Request {
        method: method.to_string(),
        path: path.to_string(),
        query: query.to_string(),
        target: target.to_string(),
        takes_chunks: version == "HTTP/1.1",
        headers: headers.map(|(k, v)| (k.trim().to_string(), v.trim().to_string())).collect(),
        ..Request::default()
    };
    let connection = request.header("connection").unwrap_or_default().to_ascii_lowercase();
    request.keeps_alive = match version {
        "HTTP/1.1" => !connection.contains("close"),
        _ => connection.contains("keep-alive"),
    };
    Some(request)
}

/// True for the two errors by which platforms say that a read or a write ran out of time.
pub(crate) fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// A body that is made while it is sent.
pub(crate) type Pieces = Box<dyn Iterator<Item = Vec<u8>>>;

/// An answer before it becomes bytes.
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) content_type: &'static str,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Vec<u8>,
    /// What comes after `body`; sent in chunks.
    pub(crate) pieces: Option<Pieces>,
    /// True when the body goes out in chunks, whoever holds it.
    pub(crate) is_chunked: bool,
}

impl Response {
    pub(crate) fn new(status: u16, content_type: &'static str, body: impl Into<Vec<u8>>) -> Self {
        let (headers, body) = (Vec::new(), body.into());
        Self { status, content_type, headers, body, pieces: None, is_chunked: false }
    }

    /// An answer too large to be held.
    pub(crate) fn stream(pieces: Pieces) -> Self {
        Self { pieces: Some(pieces), is_chunked: true, ..Self::json(200, "") }
    }

    pub(crate) fn json(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self::new(status, "application/json;charset=UTF-8", body)
    }

    pub(crate) fn empty(status: u16) -> Self {
        Self::new(status, "application/json;charset=UTF-8", Vec::new())
    }

    /// Makes the whole body, for what has to see all of it.
    pub(crate) fn gather(&mut self) {
        for piece in self.pieces.take().into_iter().flatten() {
            self.body.extend(piece);
        }
    }

    pub(crate) fn compress(&mut self) -> io::Result<()> {
        if let Some(pieces) = self.pieces.take() {
            let encoder = GzEncoder::new(Vec::new(), Compression::fast());
            self.pieces = Some(Box::new(Compressed { pieces, encoder: Some(encoder) }));
            self.headers.push(("Content-Encoding", "gzip".to_string()));
            return Ok(());
        }
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(&self.body)?;
        self.body = encoder.finish()?;
        self.headers.push(("Content-Encoding", "gzip".to_string()));
        Ok(())
    }

    /// The head's bytes, promising a body of `length`.
    pub(crate) fn head(&self, length: usize, date: DateTime<Utc>, keeps_alive: bool) -> Vec<u8> {
        let date = date.format("%a, %d %b %Y %H:%M:%S GMT");
        let reason = reason(self.status);
        let mut head = format!("HTTP/1.1 {} {reason}\r\nDate: {date}\r\n", self.status);
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if length > 0 || self.is_chunked {
            head.push_str(&format!("Content-Type: {}\r\n", self.content_type));
        }
        // A 204 never has a body, so it must not promise one either.
        if self.is_chunked {
            head.push_str("Transfer-Encoding: chunked\r\n");
        } else if self.status != 204 {
            head.push_str(&format!("Content-Length: {length}\r\n"));
        }
        let connection = if keeps_alive { "keep-alive" } else { "close" };
        head.push_str(&format!("Connection: {connection}\r\n\r\n"));
        head.into_bytes()
    }
}

/// Packs a body that is made while it is sent.
struct Compressed {
    pieces: Pieces,
    encoder: Option<GzEncoder<Vec<u8>>>,
}

impl Iterator for Compressed {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            let Some(piece) = self.pieces.next() else {
                // Memory takes every write.
                return self.encoder.take()?.finish().ok();
            };
            let encoder = self.encoder.as_mut()?;
            encoder.write_all(&piece).ok()?;
            let packed = std::mem::take(encoder.get_mut());
            if !packed.is_empty() {
                return Some(packed);
            }
        }
    }
}

/// Frames a piece as one chunk.
pub(crate) fn chunk(piece: &[u8]) -> Vec<u8> {
    let mut framed = format!("{:x}\r\n", piece.len()).into_bytes();
    framed.extend(piece);
    framed.extend(b"\r\n");
    framed
}

/// What follows the last chunk.
pub(crate) const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        204 => "No Content",
        301 => "Moved Permanently",
        302 => "Found",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "Unnamed",
    }
}
