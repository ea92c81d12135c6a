//! A reader over JSON text that hands out pieces and never builds a tree.
//!
//! It exists because records must pass through exactly: key order, duplicate keys, integers of any
//! size. Structure is checked strictly, since a cut or garbled page has to be asked for again. The
//! inside of a string is taken as it comes (raw control characters, unknown escapes, lone
//! surrogates), since refusing a page that the vendor will always send so would stop a stream.

use std::borrow::Cow;

use memchr::memchr2;
use wide::u8x32;

use crate::error::{Error, Result};

/// How much of a string is looked at in one go, with the vector instructions that every processor of
/// an architecture has.
pub const BLOCK_BYTES: usize = 32;
/// So many digits always fit 64 bits.
const SHORT_DIGITS_MAX: usize = 19;

/// What the next value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `{…}`
    Object,
    /// `[…]`
    Array,
    /// `"…"`
    String,
    /// `-1.5e3`
    Number,
    /// `true`
    True,
    /// `false`
    False,
    /// `null`
    Null,
}

/// A position in a JSON text. A copy of it is a way back.
#[derive(Clone, Copy)]
pub struct Reader<'a> {
    text: &'a str,
    /// What was not read yet.
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// A reader at the start of `text`.
    #[must_use]
    pub fn new(text: &'a str) -> Self {
        Self { text, rest: text.as_bytes() }
    }

    /// The kind of the next value, without reading it.
    ///
    /// # Errors
    /// When no value begins here.
    #[inline]
    pub fn peek(&mut self) -> Result<Kind> {
        match self.skip_space() {
            Some(b'{') => Ok(Kind::Object),
            Some(b'[') => Ok(Kind::Array),
            Some(b'"') => Ok(Kind::String),
            Some(b't') => Ok(Kind::True),
            Some(b'f') => Ok(Kind::False),
            Some(b'n') => Ok(Kind::Null),
            Some(b'-' | b'0'..=b'9') => Ok(Kind::Number),
            _ => Err(self.fault("a value")),
        }
    }

    /// Reads an object; `member` gets each key and must read its value.
    ///
    /// # Errors
    /// When the text is not a well-formed object, or `member` fails.
    #[inline]
    pub fn object(
        &mut self,
        mut member: impl FnMut(&mut Self, Cow<'a, str>) -> Result<()>,
    ) -> Result<()> {
        self.members(|reader| {
            let key = reader.string()?;
            reader.colon()?;
            member(reader, key)
        })
    }

    /// Reads an object; `member` must read each key, the colon and the value.
    ///
    /// # Errors
    /// When the text is not a well-formed object, or `member` fails.
    #[inline]
    pub fn members(&mut self, mut member: impl FnMut(&mut Self) -> Result<()>) -> Result<()> {
        self.expect(b'{', "an object")?;
        if self.accept(b'}') {
            return Ok(());
        }
        loop {
            member(self)?;
            if !self.accept(b',') {
                return self.expect(b'}', "',' or '}'");
            }
        }
    }

    /// Reads the colon behind a key.
    ///
    /// # Errors
    /// When something else follows.
    #[inline]
    pub fn colon(&mut self) -> Result<()> {
        self.expect(b':', "':'")
    }

    /// Reads an array; `element` must read each element.
    ///
    /// # Errors
    /// When the text is not a well-formed array, or `element` fails.
    #[inline]
    pub fn array(&mut self, mut element: impl FnMut(&mut Self) -> Result<()>) -> Result<()> {
        self.expect(b'[', "an array")?;
        if self.accept(b']') {
            return Ok(());
        }
        loop {
            element(self)?;
            if !self.accept(b',') {
                return self.expect(b']', "',' or ']'");
            }
        }
    }

    /// Reads a string, borrowed where it holds no escape.
    ///
    /// # Errors
    /// When no string begins here or it does not end.
    #[inline]
    pub fn string(&mut self) -> Result<Cow<'a, str>> {
        let before = *self;
        self.expect(b'"', "a string")?;
        match memchr2(b'"', b'\\', self.rest) {
            Some(length) if self.rest[length] == b'"' => {
                let start = self.position();
                self.rest = &self.rest[length + 1..];
                Ok(Cow::Borrowed(&self.text[start..start + length]))
            }
            Some(_) => {
                let mut out = Vec::new();
                *self = before;
                self.string_onto(&mut out)?;
                String::from_utf8(out).map(Cow::Owned).map_err(|_| self.fault("UTF-8"))
            }
            None => Err(self.fault("the end of a string")),
        }
    }

    /// Reads a string that is shorter than the block it lies in, which is returned with its length.
    /// Anything else, and a string with an escape in it, stays where it is.
    #[inline(always)]
    pub fn short_string(&mut self) -> Option<(&'a [u8; BLOCK_BYTES], usize)> {
        if self.skip_space() != Some(b'"') {
            return None;
        }
        let block = self.rest.get(1..)?.first_chunk()?;
        let length = first_mark(block).filter(|&length| block[length] == b'"')?;
        self.rest = &self.rest[length + 2..];
        Some((block, length))
    }

    /// Reads a string without an escape and returns its text. One with an escape stays where it is,
    /// for [`Reader::string_onto`], and so does one that is cut.
    ///
    /// # Errors
    /// When no string begins here.
    #[inline]
    pub fn plain_string(&mut self) -> Result<Option<&'a [u8]>> {
        let before = *self;
        self.expect(b'"', "a string")?;
        let blocks = self.rest.as_chunks::<BLOCK_BYTES>().0;
        for (i, block) in blocks.iter().enumerate() {
            let Some(within) = first_mark(block) else { continue };
            if block[within] == b'\\' {
                break;
            }
            let (text, rest) = self.rest.split_at(i * BLOCK_BYTES + within);
            self.rest = &rest[1..];
            return Ok(Some(text));
        }
        *self = before;
        Ok(None)
    }

    /// Reads a string and appends it.
    ///
    /// # Errors
    /// When no string begins here or it does not end.
    pub fn string_onto(&mut self, out: &mut Vec<u8>) -> Result<()> {
        self.expect(b'"', "a string")?;
        loop {
            let Some(length) = memchr2(b'"', b'\\', self.rest) else {
                return Err(self.fault("the end of a string"));
            };
            let (text, rest) = self.rest.split_at(length);
            out.extend_from_slice(text);
            self.rest = rest;
            if self.take(b'"') {
                return Ok(());
            }
            // One escape is often followed by others.
            while self.take(b'\\') {
                self.escape(out)?;
            }
        }
    }

    /// Reads `true`, `false` or `null`.
    ///
    /// # Errors
    /// When the word is cut or misspelt.
    pub fn word(&mut self, word: &str) -> Result<()> {
        self.skip_space();
        match self.rest.strip_prefix(word.as_bytes()) {
            Some(rest) => {
                self.rest = rest;
                Ok(())
            }
            None => Err(self.fault(word)),
        }
    }

    /// Reads a number that is neither negative nor of many digits, as most are. Any other stays where
    /// it is.
    #[inline]
    pub fn short_number(&mut self) -> Option<u64> {
        self.skip_space();
        let (mut value, mut length) = (0, 0);
        while let Some(digit @ b'0'..=b'9') = self.rest.get(length) {
            if length == SHORT_DIGITS_MAX {
                return None;
            }
            value = 10 * value + u64::from(digit - b'0');
            length += 1;
        }
        let goes_on = matches!(self.rest.get(length), Some(b'.' | b'e' | b'E'));
        let has_idle_zero = length > 1 && self.rest[0] == b'0';
        if length == 0 || goes_on || has_idle_zero {
            return None;
        }
        self.rest = &self.rest[length..];
        Some(value)
    }

    /// Reads a number and returns its text, which follows JSON's grammar.
    ///
    /// # Errors
    /// When the number is malformed.
    pub fn number(&mut self) -> Result<&'a str> {
        self.skip_space();
        let start = self.position();
        self.take(b'-');
        if !self.take(b'0') {
            self.digits()?;
        }
        if self.take(b'.') {
            self.digits()?;
        }
        if self.take(b'e') || self.take(b'E') {
            let _ = self.take(b'+') || self.take(b'-');
            self.digits()?;
        }
        Ok(&self.text[start..self.position()])
    }

    /// Reads any value and returns its text.
    ///
    /// It keeps its own stack, so the nesting of a hostile text costs heap in proportion to its
    /// length and never the thread's stack.
    ///
    /// # Errors
    /// When the value is malformed.
    pub fn skip(&mut self) -> Result<&'a str> {
        self.skip_space();
        let start = self.position();
        let mut open: Vec<u8> = Vec::new();
        loop {
            if self.open_or_scalar(&mut open)? {
                continue;
            }
            loop {
                let Some(&container) = open.last() else {
                    return Ok(&self.text[start..self.position()]);
                };
                if self.accept(b',') {
                    if container == b'}' {
                        self.key()?;
                    }
                    break;
                }
                self.expect(container, "',' or the end of a container")?;
                open.pop();
            }
        }
    }

    /// Fails unless nothing but white space is left.
    ///
    /// # Errors
    /// When more text follows.
    pub fn end(&mut self) -> Result<()> {
        match self.skip_space() {
            None => Ok(()),
            Some(_) => Err(self.fault("the end of the text")),
        }
    }

    /// Fails unless an array that is read from within goes on or ends here.
    ///
    /// # Errors
    /// When something else follows, or nothing.
    pub fn item_end(&mut self) -> Result<()> {
        match self.skip_space() {
            Some(b',' | b']') => Ok(()),
            _ => Err(self.fault("',' or ']'")),
        }
    }

    /// How many bytes have been read.
    #[must_use]
    pub fn position(&self) -> usize {
        self.text.len() - self.rest.len()
    }

    /// Enters a container (true: its first element comes next) or reads a scalar (false).
    fn open_or_scalar(&mut self, open: &mut Vec<u8>) -> Result<bool> {
        match self.peek()? {
            Kind::Object => {
                self.take(b'{');
                if !self.accept(b'}') {
                    self.key()?;
                    open.push(b'}');
                    return Ok(true);
                }
            }
            Kind::Array => {
                self.take(b'[');
                if !self.accept(b']') {
                    open.push(b']');
                    return Ok(true);
                }
            }
            Kind::String => self.string().map(drop)?,
            Kind::Number => self.number().map(drop)?,
            Kind::True => self.word("true")?,
            Kind::False => self.word("false")?,
            Kind::Null => self.word("null")?,
        }
        Ok(false)
    }

    fn key(&mut self) -> Result<()> {
        self.string()?;
        self.colon()
    }

    /// Reads what follows a backslash, and appends what it stands for.
    fn escape(&mut self, out: &mut Vec<u8>) -> Result<()> {
        let Some((&byte, rest)) = self.rest.split_first() else {
            return Err(self.fault("the end of a string"));
        };
        let meant = match byte {
            b'"' | b'\\' | b'/' => byte,
            b'b' => 0x08,
            b'f' => 0x0c,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => {
                self.rest = rest;
                let meant = self.unicode_escape();
                out.extend_from_slice(meant.encode_utf8(&mut [0; 4]).as_bytes());
                return Ok(());
            }
            // Not JSON; both characters are kept, the other as the text that follows, so nothing of
            // the record is lost.
            _ => {
                out.push(b'\\');
                return Ok(());
            }
        };
        self.rest = rest;
        out.push(meant);
        Ok(())
    }

    /// Reads the digits after `\u`, and the second half of a surrogate pair if it follows.
    fn unicode_escape(&mut self) -> char {
        let Some(first) = self.hex4() else { return char::REPLACEMENT_CHARACTER };
        if let Some(c) = char::from_u32(first) {
            return c;
        }
        let before = *self;
        if self.take(b'\\')
            && self.take(b'u')
            && let Some(second @ 0xDC00..=0xDFFF) = self.hex4()
            && (0xD800..=0xDBFF).contains(&first)
        {
            let scalar = 0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00);
            return char::from_u32(scalar).unwrap_or(char::REPLACEMENT_CHARACTER);
        }
        *self = before;
        char::REPLACEMENT_CHARACTER
    }

    fn hex4(&mut self) -> Option<u32> {
        let (digits, rest) = self.rest.split_first_chunk::<4>()?;
        let mut digits = digits.iter().map(|&digit| char::from(digit).to_digit(16));
        let value = digits.try_fold(0, |value, digit| Some(value << 4 | digit?))?;
        self.rest = rest;
        Some(value)
    }

    fn digits(&mut self) -> Result<()> {
        let count = self.rest.iter().take_while(|b| b.is_ascii_digit()).count();
        self.rest = &self.rest[count..];
        if count == 0 { Err(self.fault("a digit")) } else { Ok(()) }
    }

    #[inline(always)]
    fn take(&mut self, byte: u8) -> bool {
        match self.rest {
            [first, rest @ ..] if *first == byte => {
                self.rest = rest;
                true
            }
            _ => false,
        }
    }

    #[inline(always)]
    fn accept(&mut self, byte: u8) -> bool {
        self.take(byte) || self.accept_after_space(byte)
    }

    #[inline(always)]
    fn accept_after_space(&mut self, byte: u8) -> bool {
        self.rest.first().is_some_and(|&first| first <= b' ')
            && self.skip_some_space() == Some(byte)
            && self.take(byte)
    }

    #[inline(always)]
    fn expect(&mut self, byte: u8, what: &str) -> Result<()> {
        if self.accept(byte) { Ok(()) } else { Err(self.fault(what)) }
    }

    /// Passes white space, of which there mostly is none; returns the byte after it.
    #[inline(always)]
    fn skip_space(&mut self) -> Option<u8> {
        match self.rest.first() {
            Some(&byte) if byte > b' ' => Some(byte),
            _ => self.skip_some_space(),
        }
    }

    #[cold]
    fn skip_some_space(&mut self) -> Option<u8> {
        let is_space = |byte: &&u8| matches!(byte, b' ' | b'\n' | b'\r' | b'\t');
        let count = self.rest.iter().take_while(is_space).count();
        self.rest = &self.rest[count..];
        self.rest.first().copied()
    }

    /// Says what was expected and where; the text itself may be private and is left out.
    #[cold]
    fn fault(&self, expected: &str) -> Error {
        let at = self.position();
        let seen = &self.text.as_bytes()[..at];
        let line = 1 + seen.iter().filter(|&&b| b == b'\n').count();
        let cut = if self.rest.is_empty() { "the text ends" } else { "the text goes on otherwise" };
        Error::retry(format!("expected {expected} at byte {at} (line {line}), {cut}"))
    }
}

/// Where the first quotation mark or backslash is.
#[inline]
fn first_mark(block: &[u8; BLOCK_BYTES]) -> Option<usize> {
    let block = u8x32::new(*block);
    let is_mark = block.simd_eq(u8x32::splat(b'"')) | block.simd_eq(u8x32::splat(b'\\'));
    let marks = is_mark.to_bitmask();
    (marks != 0).then_some(marks.trailing_zeros() as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_keep_every_character() {
        let text = r#""a\"\\\/\b\f\n\r\té😀\ud83d\ude00\u00e9\u0000""#;
        let expected = "a\"\\/\u{8}\u{c}\n\r\té😀😀é\0";
        assert_eq!(Reader::new(text).string().unwrap(), expected);
        for length in 0..100 {
            for tail in ["", "\\n", "\u{1}é😀"] {
                let string = "x".repeat(length) + tail;
                for after in ["", ",", ", \"a string that goes on behind\""] {
                    let text = format!("\"{string}\"{after}");
                    let (mut reader, mut out) = (Reader::new(&text), b"before".to_vec());
                    reader.string_onto(&mut out).unwrap();
                    let expected = format!("before{}", string.replace("\\n", "\n"));
                    assert_eq!((out, reader.rest), (expected.into_bytes(), after.as_bytes()));
                    let mut reader = Reader::new(&text);
                    let Some((block, length)) = reader.short_string() else {
                        assert_eq!(reader.position(), 0);
                        continue;
                    };
                    assert_eq!(&block[..length], string.as_bytes());
                    assert_eq!(reader.rest, after.as_bytes());
                }
                let cut = format!("\"{string}");
                assert!(Reader::new(&cut).string_onto(&mut Vec::new()).is_err());
            }
        }
        for (odd, expected) in [
            (r#""\ud83dx""#, "\u{fffd}x"),
            (r#""\ude00\ud83d""#, "\u{fffd}\u{fffd}"),
            (r#""\q""#, "\\q"),
            ("\"\u{1}\"", "\u{1}"),
            (r#""\u12""#, "\u{fffd}12"),
        ] {
            assert_eq!(Reader::new(odd).string().unwrap(), expected, "{odd}");
        }
    }

    #[test]
    fn structure_is_strict() {
        for bad in [
            "",
            "{",
            "[",
            "[1,]",
            "{\"a\":1,}",
            "{\"a\"}",
            "{a:1}",
            "01",
            "-",
            "1.",
            "1e",
            "tru",
            "\"a",
            "[1 2]",
            "{\"a\":1 \"b\":2}",
            "]",
            "<html>",
            "\"\\",
        ] {
            let mut reader = Reader::new(bad);
            assert!(reader.skip().and_then(|_| reader.end()).is_err(), "{bad}");
        }
        for good in [" {} ", "[ ]", "-0.5e-3", "{\"a\":[{\"b\":[]},null,true,false,\"x\"]}"] {
            let mut reader = Reader::new(good);
            assert!(reader.skip().and_then(|_| reader.end()).is_ok(), "{good}");
        }
    }

    #[test]
    fn a_hostile_nesting_costs_no_stack() {
        let deep = "[".repeat(1_000_000) + &"]".repeat(1_000_000);
        assert_eq!(Reader::new(&deep).skip().unwrap().len(), deep.len());
    }
}
