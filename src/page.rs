//! An answer's body as it streams in: the records are cut out of their list one by one, and what is
//! left, a few bytes, is the answer's frame for the connector to read.
//!
//! So neither a body nor a tree of it is ever held whole, whatever the size of the list. Cutting
//! needs no more than the nesting; everything is then read strictly, the records by [`Shape`] and the
//! frame by the connector, so a body that is cut or garbled is found out.

use std::borrow::Cow;

use memchr::memchr2;
use simdutf8::compat::from_utf8;

use crate::error::{Error, ErrorKind, Result};
use crate::record::{RecordReader, Records, Shape};

/// One record; the largest known, a fully expanded computer, has hundreds of kilobytes.
const RECORD_BYTES_MAX: usize = 32 * 1024 * 1024;
/// The frame: tokens, links, descriptions, and two bytes per record.
const FRAME_BYTES_MAX: usize = 4 * 1024 * 1024;
/// What the records of a page may take in memory together, by their own text and [`RECORD_COST`]. As
/// many records of a kilobyte as this allows fill the largest body that is taken.
const PAGE_BYTES_MAX: usize = 512 * 1024 * 1024;
/// What a record takes however small it is: its envelope, its identity, its place.
const RECORD_COST: usize = 1024;
/// How much of an unreadable answer is shown.
const EXCERPT_CHARS_MAX: usize = 80;

/// Reads one page's body.
pub struct PageReader {
    cutter: Cutter,
    elements: Elements,
    excerpt: Vec<u8>,
}

/// What a page's body held.
pub struct Body {
    /// The records of its list that were not taken before its end.
    pub records: Records,
    /// The answer with a `0` in the place of each record; empty if the body was.
    pub frame: String,
    /// The start of the body, for messages about answers that are no JSON.
    pub excerpt: String,
}

impl PageReader {
    /// A reader for a page whose records, of that shape, lie in the member `list`.
    ///
    /// Bytes that are no UTF-8 mean that the answer was damaged on its way, unless it always comes
    /// so: then `is_lenient` has it read with replacement characters, since a record with one wrong
    /// character is better than a stream that stands still.
    #[must_use]
    pub fn new(list: &'static str, shape: Shape, is_lenient: bool) -> Self {
        let records = RecordReader::new(shape);
        let elements = Elements { records, is_lenient, cost: 0, last_bytes: 0 };
        Self { cutter: Cutter::new(list), elements, excerpt: Vec::new() }
    }

    /// Keeps each record's own text, and where its members lie, beside what is read of it, for formats
    /// that show it.
    #[must_use]
    pub fn keeping_text(mut self, keeps_text: bool) -> Self {
        self.elements.records.keep_text(keeps_text);
        self
    }

    /// Takes the next bytes of the body.
    ///
    /// # Errors
    /// When a record is malformed or too large.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<()> {
        if self.excerpt.len() < EXCERPT_CHARS_MAX {
            self.excerpt.extend(bytes.iter().take(EXCERPT_CHARS_MAX));
        }
        // So no record is larger that is read where it lies.
        let mut pieces = bytes.chunks(RECORD_BYTES_MAX);
        pieces.try_for_each(|piece| self.cutter.feed(piece, &mut self.elements))
    }

    /// Whether records enough for a batch can be taken.
    #[must_use]
    pub fn is_rich(&self) -> bool {
        self.elements.records.is_rich()
    }

    /// The records that were read since this was last called; what [`PageReader::finish`] returns
    /// are the others.
    #[must_use]
    pub fn take(&mut self) -> Records {
        self.elements.records.take()
    }

    /// The whole body has been fed.
    ///
    /// # Errors
    /// When its frame is not UTF-8.
    pub fn finish(self) -> Result<Body> {
        let frame = utf8(&self.cutter.frame, self.elements.is_lenient)?.trim().to_owned();
        Ok(Body { records: self.elements.records.finish(), frame, excerpt: excerpt(&self.excerpt) })
    }
}

/// Reads the elements of the list.
struct Elements {
    records: RecordReader,
    is_lenient: bool,
    /// What the records so far take in memory.
    cost: usize,
    /// How long the last element was.
    last_bytes: usize,
}

impl Elements {
    /// Reads an element that was cut out.
    fn read(&mut self, element: &[u8]) -> Result<()> {
        self.count(element.len());
        self.records.read(&utf8(element, self.is_lenient)?)
    }

    /// Reads the element with which `text` begins, if it lies in it whole; returns its length. In a
    /// text shorter than the last element the next one is probably cut, and is not tried.
    fn read_first(&mut self, text: &str) -> Option<usize> {
        if text.len() < self.last_bytes {
            return None;
        }
        let length = self.records.read_first(text)?;
        self.count(length);
        Some(length)
    }

    fn count(&mut self, bytes: usize) {
        self.cost += RECORD_COST + bytes;
        self.last_bytes = bytes;
    }
}

/// The start of `bytes` that is text; a character may be cut at their end.
fn text_of(bytes: &[u8]) -> &str {
    let valid = match from_utf8(bytes) {
        Ok(text) => return text,
        Err(error) => error.valid_up_to(),
    };
    from_utf8(&bytes[..valid]).unwrap_or_default()
}

fn utf8(bytes: &[u8], is_lenient: bool) -> Result<Cow<'_, str>> {
    match from_utf8(bytes) {
        Ok(text) => Ok(Cow::Borrowed(text)),
        Err(_) if is_lenient => Ok(String::from_utf8_lossy(bytes)),
        Err(error) => Err(Error::retry("the answer is not UTF-8").caused_by(error)),
    }
}

/// The start of a body that is no JSON; of one that is, nothing, since records are private.
fn excerpt(start: &[u8]) -> String {
    let text = String::from_utf8_lossy(start);
    let text = text.trim_start();
    if text.starts_with(['{', '[']) {
        return String::new();
    }
    text.chars().take(EXCERPT_CHARS_MAX).collect()
}

/// Where the cutter is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Outside the list, at this nesting.
    Frame { depth: u32 },
    /// Inside the list, between records.
    Between,
    /// Inside a record, at this nesting; 0 for one that is no container.
    Record { depth: u32 },
}

/// Cuts the elements of one list out of a JSON object.
struct Cutter {
    list: &'static str,
    place: Place,
    in_string: bool,
    is_escaped: bool,
    /// Where the last string of the frame's top level begins.
    key_start: usize,
    /// The last string of the frame's top level was the list's name, and a colon followed.
    is_list_next: bool,
    frame: Vec<u8>,
    record: Vec<u8>,
}

impl Cutter {
    fn new(list: &'static str) -> Self {
        Self {
            list,
            place: Place::Frame { depth: 0 },
            in_string: false,
            is_escaped: false,
            key_start: 0,
            is_list_next: false,
            frame: Vec::new(),
            record: Vec::new(),
        }
    }

    /// Takes the next bytes. An element that lies in them whole is read where it lies; one that is
    /// cut by their end is put together first.
    fn feed(&mut self, bytes: &[u8], elements: &mut Elements) -> Result<()> {
        let text = text_of(bytes);
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            at += match self.place {
                _ if self.in_string => self.string(rest),
                Place::Frame { depth } => self.frame_byte(rest[0], depth),
                Place::Between => self.between(rest[0], text.get(at..), elements),
                Place::Record { depth } => self.record(rest, depth, elements)?,
            };
            if self.record.len() > RECORD_BYTES_MAX || self.frame.len() > FRAME_BYTES_MAX {
                return Err(Error::new(ErrorKind::Narrow, "a part of the answer is too large"));
            }
            if elements.cost > PAGE_BYTES_MAX {
                return Err(Error::new(ErrorKind::Narrow, "the answer has too many records"));
            }
        }
        Ok(())
    }

    /// Passes the inside of a string up to its end or the end of the bytes.
    fn string(&mut self, bytes: &[u8]) -> usize {
        if self.is_escaped {
            self.is_escaped = false;
            return self.keep(&bytes[..1]);
        }
        let Some(at) = memchr2(b'"', b'\\', bytes) else { return self.keep(bytes) };
        match bytes[at] {
            b'"' => self.in_string = false,
            _ => self.is_escaped = true,
        }
        self.keep(&bytes[..=at])
    }

    /// Passes the bytes of a record up to the next string, its end, or the end of the bytes.
    fn record(&mut self, bytes: &[u8], mut depth: u32, elements: &mut Elements) -> Result<usize> {
        for (i, byte) in bytes.iter().enumerate() {
            match byte {
                b'"' => {
                    self.in_string = true;
                    self.place = Place::Record { depth };
                    return Ok(self.keep(&bytes[..=i]));
                }
                // What ends the record also continues or ends the list, so it is looked at again.
                b',' | b']' if depth == 0 => {
                    self.keep(&bytes[..i]);
                    elements.read(&self.record)?;
                    self.record.clear();
                    self.passed_record();
                    return Ok(i);
                }
                b'{' | b'[' => depth += 1,
                b'}' | b']' => depth = depth.saturating_sub(1),
                _ => {}
            }
        }
        self.place = Place::Record { depth };
        Ok(self.keep(bytes))
    }

    /// What stands for a record in the frame keeps the list's commas checkable.
    fn passed_record(&mut self) {
        self.frame.push(b'0');
        self.place = Place::Between;
    }

    /// Passes one byte of the frame.
    fn frame_byte(&mut self, byte: u8, depth: u32) -> usize {
        self.in_string = byte == b'"';
        let was_list_next = std::mem::take(&mut self.is_list_next);
        let depth = match byte {
            b'[' if was_list_next => {
                self.place = Place::Between;
                return self.keep(&[byte]);
            }
            b'{' | b'[' => depth + 1,
            b'}' | b']' => depth.saturating_sub(1),
            b'"' if depth == 1 => {
                self.key_start = self.frame.len() + 1;
                depth
            }
            b':' if depth == 1 => {
                let key = self.frame.get(self.key_start..).unwrap_or_default().trim_ascii_end();
                self.is_list_next = key.strip_suffix(b"\"") == Some(self.list.as_bytes());
                depth
            }
            b' ' | b'\n' | b'\r' | b'\t' => {
                self.is_list_next = was_list_next;
                depth
            }
            _ => depth,
        };
        self.place = Place::Frame { depth };
        self.keep(&[byte])
    }

    /// Passes what lies between records, or a whole record; returns how many bytes that took.
    fn between(&mut self, byte: u8, text: Option<&str>, elements: &mut Elements) -> usize {
        match byte {
            b' ' | b'\n' | b'\r' | b'\t' => return 1,
            b',' => {}
            b']' => self.place = Place::Frame { depth: 1 },
            _ => {
                if let Some(length) = text.and_then(|text| elements.read_first(text)) {
                    self.passed_record();
                    return length;
                }
                self.place = Place::Record { depth: 0 };
                return 0;
            }
        }
        self.frame.push(byte);
        1
    }

    fn keep(&mut self, bytes: &[u8]) -> usize {
        match self.place {
            Place::Record { .. } => self.record.extend_from_slice(bytes),
            _ => self.frame.extend_from_slice(bytes),
        }
        bytes.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::json::Reader;

    /// Feeds `text` in pieces of the given sizes.
    fn read(text: &str, sizes: &[usize]) -> Result<(Vec<Vec<u8>>, String)> {
        let shape = Shape {
            source: "s",
            content_type: "c",
            variant: "",
            time: &[],
            name: &[],
            folds_name: false,
        };
        let mut reader = PageReader::new("list", shape, false);
        let mut rest = text.as_bytes();
        let mut sizes = sizes.iter().cycle();
        while !rest.is_empty() {
            let (piece, after) = rest.split_at((*sizes.next().unwrap()).min(rest.len()));
            reader.feed(piece)?;
            rest = after;
        }
        let body = reader.finish()?;
        let mut frame = Reader::new(&body.frame);
        frame.skip()?;
        frame.end()?;
        Ok((body.records.iter().map(|record| record.body.to_vec()).collect(), body.frame))
    }

    #[test]
    fn records_are_cut_out_and_the_frame_stays() {
        let text =
            r#" {"a":{"list":[9]}, "list" : [ {"x":"]}\"{"} , {"y":[[],{}]},"s",5 ] ,"b":"}\\" } "#;
        let (records, frame) = read(text, &[3]).unwrap();
        assert_eq!(records.len(), 4);
        assert_eq!(frame, r#"{"a":{"list":[9]}, "list" : [0,0,0,0] ,"b":"}\\" }"#);
        for (text, frame) in [
            (r#"{"list":[]}"#, r#"{"list":[]}"#),
            (r#"{"list":null,"c":"list"}"#, r#"{"list":null,"c":"list"}"#),
            (r#"{"c":"list","d":[1,2]}"#, r#"{"c":"list","d":[1,2]}"#),
        ] {
            assert_eq!(read(text, &[1]).unwrap(), (Vec::new(), frame.to_owned()));
        }
    }

    #[test]
    fn what_is_cut_or_garbled_is_found_out() {
        let whole = r#"{"list":[{"a":"b,c"},{"d":[1,2]}],"t":"x"}"#;
        for end in 0..whole.len() {
            assert!(read(&whole[..end], &[7]).is_err(), "{}", &whole[..end]);
        }
        for text in [
            r#"{"list":[{} {}]}"#,
            r#"{"list":[{},]}"#,
            r#"{"list":[,{}]}"#,
            r#"{"list":[{}}]}"#,
            r#"{"list":[tru]}"#,
            "<html><body>[1]</body></html>",
        ] {
            assert!(read(text, &[5]).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(
            items in prop::collection::vec("[ -~]{0,12}", 0..6),
            sizes in prop::collection::vec(1_usize..9, 1..20),
        ) {
            let list: Vec<_> = items.iter().map(|item| serde_json::json!({ "k": [item, {}] })).collect();
            let text = serde_json::json!({ "before": items, "list": list, "after": "[{" }).to_string();
            let (whole, pieces) = (read(&text, &[usize::MAX]).unwrap(), read(&text, &sizes).unwrap());
            prop_assert_eq!(whole.0.len(), items.len());
            prop_assert_eq!(whole, pieces);
        }

        #[test]
        fn no_bytes_panic(text in "[\\[\\]{}\",:0list\\\\ ]{0,60}") {
            let _ = read(&format!("{{\"list\":{text}"), &[4]);
        }
    }

    /// However small, each takes about a kilobyte.
    #[test]
    fn a_page_of_millions_of_nothings_is_refused() {
        let read = |count: usize, piece: usize| {
            let body = format!("{{\"list\":[0{}]}}", ",0".repeat(count - 1));
            read(&body, &[piece]).map(|(records, _)| records.len())
        };
        assert_eq!(read(1_000, 64 * 1024).unwrap(), 1_000);
        for piece in [64 * 1024, 1] {
            let error = read(PAGE_BYTES_MAX / RECORD_COST, piece).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Narrow);
            assert_eq!(error.to_string(), "the answer has too many records");
        }
    }
}
