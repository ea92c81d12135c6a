//! MessagePack: writing values, and looking into values that we wrote.
//!
//! A Fluent Bit event is `[EventTime, map]`. `EventTime` is extension type 0 with seconds and
//! nanoseconds as big-endian 32-bit numbers. The form with metadata, `[[EventTime, {}], map]`, is
//! passed on verbatim by the host's `forward` output and refused by several receivers, so we never
//! write it.

use std::ops::Range;

use crate::clock::Time;

/// The shortest header of a container can tell of so many.
pub const FIXED_COUNT_MAX: usize = 15;

/// Hosts from 3.1 to 4.1 drop the rest of a chunk after a time beyond this second.
const SECONDS_MAX: i64 = i32::MAX as i64;
/// Hosts from 5.1 drop the rest of a chunk after nanoseconds beyond this.
const NANOS_MAX: u32 = 999_999_999;

/// Writes the array header and time that open every event; the record's map must follow.
pub fn event(out: &mut Vec<u8>, time: Time) {
    // The bounds make the casts exact.
    let seconds = time.timestamp().clamp(0, SECONDS_MAX) as u32;
    let nanos = time.timestamp_subsec_nanos().min(NANOS_MAX);
    out.extend([0x92, 0xd7, 0x00]);
    out.extend(seconds.to_be_bytes());
    out.extend(nanos.to_be_bytes());
}

/// Writes a string.
#[inline]
pub fn string(out: &mut Vec<u8>, text: &str) {
    self::text(out, text.as_bytes());
}

/// Writes a string whose bytes are known to be text.
#[inline]
pub fn text(out: &mut Vec<u8>, text: &[u8]) {
    let length = text.len();
    match length {
        0..=31 => out.push(0xa0 | length as u8),
        32..=0xff => out.extend_from_slice(&[0xd9, length as u8]),
        0x100..=0xffff => sized(out, 0xda, &(length as u16).to_be_bytes()),
        _ => sized(out, 0xdb, &(length as u32).to_be_bytes()),
    }
    raw(out, text);
}

/// Appends bytes. Most are a few, and copied as their first and their last block, which takes no call.
#[inline]
pub fn raw(out: &mut Vec<u8>, bytes: &[u8]) {
    match bytes.len() {
        4..=7 => ends::<4>(out, bytes),
        8..=16 => ends::<8>(out, bytes),
        17..=32 => ends::<16>(out, bytes),
        33..=64 => ends::<32>(out, bytes),
        65..=128 => ends::<64>(out, bytes),
        _ => out.extend_from_slice(bytes),
    }
}

/// Appends bytes, of which there are at least one block and at most two.
#[inline]
fn ends<const BLOCK: usize>(out: &mut Vec<u8>, bytes: &[u8]) {
    let (Some(first), Some(last)) = (bytes.first_chunk::<BLOCK>(), bytes.last_chunk::<BLOCK>())
    else {
        return out.extend_from_slice(bytes);
    };
    let start = out.len();
    out.extend_from_slice(first);
    out.truncate(start + bytes.len() - BLOCK);
    out.extend_from_slice(last);
}

/// Writes the string that is the first `length` bytes of a block, of which there are fewer than it has
/// and which are known to be text. With more behind it, a string is copied without a call.
#[inline(always)]
pub fn short_text(out: &mut Vec<u8>, block: &[u8; 32], length: usize) {
    out.push(short_text_header(length));
    let end = out.len() + length;
    out.extend_from_slice(block);
    out.truncate(end);
}

/// With what a text of fewer than 32 bytes begins.
#[inline(always)]
#[must_use]
pub fn short_text_header(length: usize) -> u8 {
    0xa0 | length as u8
}

/// Writes a number of JSON exactly where MessagePack can, else as a string of its digits.
pub fn number(out: &mut Vec<u8>, text: &str) {
    let is_integer = !text.contains(['.', 'e', 'E']);
    if is_integer && text != "-0" {
        if let Ok(value) = text.parse::<u64>() {
            return unsigned(out, value);
        }
        return match text.parse::<i64>() {
            Ok(value) => signed(out, value),
            Err(_) => string(out, text),
        };
    }
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() => float(out, value),
        _ => string(out, text),
    }
}

/// Writes an unsigned integer in its shortest form.
pub fn unsigned(out: &mut Vec<u8>, value: u64) {
    match value {
        0..=0x7f => out.push(value as u8),
        0x80..=0xff => out.extend([0xcc, value as u8]),
        0x100..=0xffff => sized(out, 0xcd, &(value as u16).to_be_bytes()),
        0x1_0000..=0xffff_ffff => sized(out, 0xce, &(value as u32).to_be_bytes()),
        _ => sized(out, 0xcf, &value.to_be_bytes()),
    }
}

/// Writes a signed integer in its shortest form.
pub fn signed(out: &mut Vec<u8>, value: i64) {
    match value {
        0.. => unsigned(out, value as u64),
        -32..=-1 => out.push(value as u8),
        -0x80..=-33 => out.extend([0xd0, value as u8]),
        -0x8000..=-0x81 => sized(out, 0xd1, &(value as i16).to_be_bytes()),
        -0x8000_0000..=-0x8001 => sized(out, 0xd2, &(value as i32).to_be_bytes()),
        _ => sized(out, 0xd3, &value.to_be_bytes()),
    }
}

/// Writes a 64-bit float.
pub fn float(out: &mut Vec<u8>, value: f64) {
    sized(out, 0xcb, &value.to_be_bytes());
}

/// Writes a boolean.
pub fn boolean(out: &mut Vec<u8>, value: bool) {
    out.push(if value { 0xc3 } else { 0xc2 });
}

/// Writes nil.
pub fn nil(out: &mut Vec<u8>) {
    out.push(0xc0);
}

/// Writes the header of a map of `count` pairs.
pub fn map(out: &mut Vec<u8>, count: usize) {
    let at = open(out);
    close_map(out, at, count);
}

/// Writes the header of an array of `count` values.
pub fn array(out: &mut Vec<u8>, count: usize) {
    let at = open(out);
    close_array(out, at, count);
}

/// Reserves the header of a value whose size is not known yet; returns where it lies.
pub fn open(out: &mut Vec<u8>) -> usize {
    out.push(0xc1);
    out.len() - 1
}

/// Reserves the header of a map whose size is not known yet; returns where it lies. A guess that it
/// will be large saves moving what lies behind it.
pub fn open_map(out: &mut Vec<u8>, is_large: bool) -> Range<usize> {
    let start = out.len();
    out.extend_from_slice(if is_large { &[0xde, 0, 0] } else { &[0xc1] });
    start..out.len()
}

/// Fills in the header of a map that [`open`] reserved at `at`.
pub fn close_map(out: &mut Vec<u8>, at: usize, count: usize) {
    fit_map(out, at..at + 1, count);
}

/// Fills in the header of a map for which `reserved` was set aside; returns where it lies now. What
/// lies behind it moves if it needs another size.
pub fn fit_map(out: &mut Vec<u8>, reserved: Range<usize>, count: usize) -> Range<usize> {
    fit(out, reserved, count, [0x80, 0xde, 0xdf])
}

/// Fills in the header of an array that [`open`] reserved at `at`; returns by how many bytes what
/// lies behind it has moved.
pub fn close_array(out: &mut Vec<u8>, at: usize, count: usize) -> usize {
    fit(out, at..at + 1, count, [0x90, 0xdc, 0xdd]).len() - 1
}

/// Fills in the header of a string that [`open`] reserved at `at`; its bytes lie behind it.
#[inline]
pub fn close_string(out: &mut Vec<u8>, at: usize) {
    let length = out.len() - at - 1;
    match length {
        0..=31 => out[at] = 0xa0 | length as u8,
        32..=0xff => {
            out[at] = 0xd9;
            out.insert(at + 1, length as u8);
        }
        0x100..=0xffff => {
            out[at] = 0xda;
            out.splice(at + 1..at + 1, (length as u16).to_be_bytes());
        }
        _ => {
            out[at] = 0xdb;
            out.splice(at + 1..at + 1, (length as u32).to_be_bytes());
        }
    }
}

fn fit(
    out: &mut Vec<u8>,
    reserved: Range<usize>,
    count: usize,
    [fixed, medium, large]: [u8; 3],
) -> Range<usize> {
    let mut header = [0; 5];
    let length = if count <= FIXED_COUNT_MAX {
        header[0] = fixed | count as u8;
        1
    } else if let Ok(count) = u16::try_from(count) {
        header[0] = medium;
        header[1..3].copy_from_slice(&count.to_be_bytes());
        3
    } else {
        header[0] = large;
        header[1..].copy_from_slice(&(count as u32).to_be_bytes());
        5
    };
    let start = reserved.start;
    if length == reserved.len() {
        out[reserved].copy_from_slice(&header[..length]);
    } else {
        out.splice(reserved, header[..length].iter().copied());
    }
    start..start + length
}

fn sized(out: &mut Vec<u8>, marker: u8, bytes: &[u8]) {
    out.push(marker);
    out.extend_from_slice(bytes);
}

/// A value inside bytes that this module wrote.
///
/// Bytes from elsewhere are read without harm, but the answers may be wrong.
#[derive(Clone, Copy)]
pub struct View<'a>(&'a [u8]);

/// A value as Rust knows it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// Nothing.
    Nil,
    /// True or false.
    Boolean(bool),
    /// An integer that is not negative.
    Unsigned(u64),
    /// A negative integer.
    Signed(i64),
    /// A number with a fraction.
    Float(f64),
    /// A string.
    Text(&'a str),
    /// Values in a row; see [`View::items`].
    Array,
    /// Pairs; see [`View::pairs`].
    Map,
}

/// What a [`View`] shows, with the offset at which a container's contents begin.
enum Shape {
    Scalar { header: usize, payload: usize },
    Map { header: usize, count: usize },
    Array { header: usize, count: usize },
}

impl<'a> View<'a> {
    /// The value that begins at the start of `bytes`.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The bytes of the value: all that the view was made of.
    #[must_use]
    pub fn bytes(&self) -> &'a [u8] {
        self.0
    }

    /// Whether the value is nil, or a text or container without anything in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        matches!(self.0, [0x80 | 0x90 | 0xa0 | 0xc0, ..] | [])
    }

    /// What the value is.
    #[must_use]
    pub fn value(&self) -> Value<'a> {
        let (header, payload) = match self.shape() {
            Shape::Map { .. } => return Value::Map,
            Shape::Array { .. } => return Value::Array,
            Shape::Scalar { header, payload } => (header, payload),
        };
        let bytes = self.0.get(header..header + payload).unwrap_or_default();
        let number = || bytes.iter().fold(0, |sum, &byte| sum << 8 | u64::from(byte));
        let unused_bits = 64 - 8 * bytes.len().clamp(1, 8) as u32;
        match self.0.first().copied().unwrap_or(0xc0) {
            small @ 0..=0x7f => Value::Unsigned(u64::from(small)),
            small @ 0xe0..=0xff => Value::Signed(i64::from(small as i8)),
            0xcc..=0xcf => Value::Unsigned(number()),
            // The sign moves to the top and back, which spreads it.
            0xd0..=0xd3 => Value::Signed(((number() << unused_bits) as i64) >> unused_bits),
            0xcb => Value::Float(f64::from_bits(number())),
            0xc2 => Value::Boolean(false),
            0xc3 => Value::Boolean(true),
            0xa0..=0xbf | 0xd9..=0xdb => std::str::from_utf8(bytes).map_or(Value::Nil, Value::Text),
            _ => Value::Nil,
        }
    }

    /// The bytes of a string, of which nobody has checked that they are text.
    #[must_use]
    pub fn as_bytes(&self) -> Option<&'a [u8]> {
        match *self.0 {
            [short @ 0xa0..=0xbf, ref rest @ ..] => rest.get(..usize::from(short & 0x1f)),
            [0xd9, length, ref rest @ ..] => rest.get(..usize::from(length)),
            [0xda | 0xdb, ..] => {
                let Shape::Scalar { header, payload } = self.shape() else { return None };
                self.0.get(header..header + payload)
            }
            _ => None,
        }
    }

    /// Whether the value is a map.
    #[must_use]
    pub fn is_map(&self) -> bool {
        matches!(self.0.first(), Some(0x80..=0x8f | 0xde | 0xdf))
    }

    /// Whether the value is an array.
    #[must_use]
    pub fn is_array(&self) -> bool {
        matches!(self.0.first(), Some(0x90..=0x9f | 0xdc | 0xdd))
    }

    /// The value as text, if it is a string.
    #[must_use]
    pub fn as_str(&self) -> Option<&'a str> {
        std::str::from_utf8(self.as_bytes()?).ok()
    }

    /// The value, if it is an integer that is not negative.
    #[must_use]
    pub fn as_u64(&self) -> Option<u64> {
        let number = |bytes: &[u8]| bytes.iter().fold(0, |sum, &byte| sum << 8 | u64::from(byte));
        match self.0 {
            [small @ 0..=0x7f, ..] => Some(u64::from(*small)),
            [0xcc..=0xcf, ..] => {
                let Shape::Scalar { header, payload } = self.shape() else { return None };
                self.0.get(header..header + payload).map(number)
            }
            _ => None,
        }
    }

    /// The value at the end of `path`, a key per level; the first of a repeated key.
    #[must_use]
    pub fn get(&self, path: &[&str]) -> Option<Self> {
        let Some((key, rest)) = path.split_first() else { return Some(*self) };
        self.pairs().find(|(name, _)| name.is(key))?.1.get(rest)
    }

    /// The value at the end of a path that is not empty.
    #[must_use]
    pub fn find(&self, path: &[&str]) -> Option<Self> {
        if path.is_empty() { None } else { self.get(path) }
    }

    /// Whether the value is nil or an empty string.
    #[must_use]
    pub fn is_blank(&self) -> bool {
        matches!(self.0, [0xa0 | 0xc0, ..])
    }

    /// The pairs of a map, in their order; nothing for another value.
    pub fn pairs(&self) -> impl Iterator<Item = (Self, Self)> + use<'a> {
        let (header, count) = match self.shape() {
            Shape::Map { header, count } => (header, count),
            _ => (0, 0),
        };
        let mut rest = self.0.get(header..).unwrap_or_default();
        (0..count).map_while(move |_| {
            let key = take(&mut rest)?;
            Some((key, take(&mut rest)?))
        })
    }

    /// The values of an array, in their order; nothing for another value.
    pub fn items(&self) -> impl Iterator<Item = Self> + use<'a> {
        let (header, count) = match self.shape() {
            Shape::Array { header, count } => (header, count),
            _ => (0, 0),
        };
        let mut rest = self.0.get(header..).unwrap_or_default();
        (0..count).map_while(move |_| take(&mut rest))
    }

    /// Whether the value is a string and that text.
    fn is(&self, text: &str) -> bool {
        self.as_bytes() == Some(text.as_bytes())
    }

    fn shape(&self) -> Shape {
        let size = |width: usize| {
            let bytes = self.0.get(1..1 + width).unwrap_or_default();
            bytes.iter().fold(0_usize, |sum, &byte| sum << 8 | usize::from(byte))
        };
        let scalar = |header, payload| Shape::Scalar { header, payload };
        match self.0.first().copied().unwrap_or(0xc0) {
            marker @ 0x80..=0x8f => Shape::Map { header: 1, count: usize::from(marker & 0x0f) },
            marker @ 0x90..=0x9f => Shape::Array { header: 1, count: usize::from(marker & 0x0f) },
            marker @ 0xa0..=0xbf => scalar(1, usize::from(marker & 0x1f)),
            0xcc | 0xd0 => scalar(1, 1),
            0xcd | 0xd1 => scalar(1, 2),
            0xca | 0xce | 0xd2 => scalar(1, 4),
            0xcb | 0xcf | 0xd3 => scalar(1, 8),
            0xd9 => scalar(2, size(1)),
            0xda => scalar(3, size(2)),
            0xdb => scalar(5, size(4)),
            0xdc => Shape::Array { header: 3, count: size(2) },
            0xdd => Shape::Array { header: 5, count: size(4) },
            0xde => Shape::Map { header: 3, count: size(2) },
            0xdf => Shape::Map { header: 5, count: size(4) },
            _ => scalar(1, 0),
        }
    }

    /// How many bytes the value takes.
    #[inline(always)]
    fn length(&self) -> usize {
        let Some(&marker) = self.0.first() else { return 1 };
        match (LENGTHS[usize::from(marker)], self.0) {
            (0, [0xd9, length, ..]) => 2 + usize::from(*length),
            (0, _) => self.any_length(),
            (length, _) => usize::from(length),
        }
    }

    fn any_length(&self) -> usize {
        let (header, mut values) = match self.shape() {
            Shape::Scalar { header, payload } => return header + payload,
            Shape::Array { header, count } => (header, count),
            Shape::Map { header, count } => (header, 2 * count),
        };
        let mut at = header;
        while values > 0 && at < self.0.len() {
            at += Self(&self.0[at..]).length();
            values -= 1;
        }
        at
    }
}

/// How many bytes a value takes that begins with this one; 0 if more must be known.
static LENGTHS: [u8; 256] = {
    let mut lengths = [0; 256];
    let mut marker = 0;
    while marker < lengths.len() {
        lengths[marker] = match marker {
            0x81..=0x8f | 0x91..=0x9f | 0xd9..=0xdf => 0,
            0xa0..=0xbf => 1 + (marker as u8 & 0x1f),
            0xcc | 0xd0 => 2,
            0xcd | 0xd1 => 3,
            0xca | 0xce | 0xd2 => 5,
            0xcb | 0xcf | 0xd3 => 9,
            _ => 1,
        };
        marker += 1;
    }
    lengths
};

/// Splits the first value off `rest`.
#[inline(always)]
fn take<'a>(rest: &mut &'a [u8]) -> Option<View<'a>> {
    let length = View(rest).length();
    let (value, after) = rest.split_at_checked(length).filter(|(value, _)| !value.is_empty())?;
    *rest = after;
    Some(View(value))
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use proptest::prelude::*;
    use rmpv::Value;

    use super::*;

    fn decoded(bytes: &[u8]) -> Value {
        let mut rest = bytes;
        let value = rmpv::decode::read_value(&mut rest).expect("valid MessagePack");
        assert!(rest.is_empty(), "nothing follows the value");
        value
    }

    #[test]
    fn an_event_time_stays_within_what_every_host_accepts() {
        for (seconds, nanos, expected) in [
            (1_700_000_000, 123_456_789, (1_700_000_000_u32, 123_456_789_u32)),
            (-5, 0, (0, 0)),
            (i64::from(u32::MAX), 0, (i32::MAX as u32, 0)),
            // chrono writes a leap second as nanoseconds beyond a whole second.
            (1_699_999_979, 1_999_999_999, (1_699_999_979, 999_999_999)),
        ] {
            let mut out = Vec::new();
            event(&mut out, DateTime::from_timestamp(seconds, nanos).unwrap());
            assert_eq!(out[..3], [0x92, 0xd7, 0x00]);
            assert_eq!(out[3..7], expected.0.to_be_bytes());
            assert_eq!(out[7..], expected.1.to_be_bytes());
        }
    }

    #[test]
    fn containers_of_every_size_get_their_header() {
        for count in [0, 15, 16, 0xffff, 0x1_0000] {
            let mut out = Vec::new();
            let at = open(&mut out);
            (0..count).for_each(|_| nil(&mut out));
            close_array(&mut out, at, count);
            assert_eq!(decoded(&out).as_array().unwrap().len(), count);
            assert_eq!(View::new(&out).length(), out.len());
        }
    }

    proptest! {
        #[test]
        fn scalars_round_trip(i: i64, u: u64, f: f64, s in ".{0,300}", b: bool) {
            let mut out = Vec::new();
            let at = open(&mut out);
            signed(&mut out, i);
            unsigned(&mut out, u);
            float(&mut out, f);
            string(&mut out, &s);
            boolean(&mut out, b);
            nil(&mut out);
            close_array(&mut out, at, 6);
            let value = decoded(&out);
            let items = value.as_array().unwrap();
            prop_assert_eq!(items[0].as_i64(), Some(i));
            prop_assert_eq!(items[1].as_u64(), Some(u));
            let mut alone = Vec::new();
            unsigned(&mut alone, u);
            prop_assert_eq!(View::new(&alone).as_u64(), Some(u));
            prop_assert_eq!(items[2].as_f64().unwrap().to_bits(), f.to_bits());
            prop_assert_eq!(items[3].as_str(), Some(s.as_str()));
            prop_assert_eq!(items[4].as_bool(), Some(b));
            prop_assert!(items[5].is_nil());
            prop_assert_eq!(View::new(&out).length(), out.len());
            let signed = if i < 0 { super::Value::Signed(i) } else { super::Value::Unsigned(i as u64) };
            let views: Vec<_> = View::new(&out).items().collect();
            prop_assert_eq!(views.len(), 6);
            prop_assert_eq!(views.iter().map(|view| view.bytes().len()).sum::<usize>() + 1, out.len());
            prop_assert_eq!(views[0].value(), signed);
            prop_assert_eq!(views[1].value(), super::Value::Unsigned(u));
            prop_assert!(matches!(views[2].value(), super::Value::Float(x) if x.to_bits() == f.to_bits()));
            prop_assert_eq!(views[3].value(), super::Value::Text(&s));
            prop_assert_eq!(views[4].value(), super::Value::Boolean(b));
            prop_assert_eq!(views[5].value(), super::Value::Nil);
        }

        #[test]
        fn looking_into_foreign_bytes_never_panics(bytes: Vec<u8>) {
            let view = View::new(&bytes);
            let _ = (view.is_map(), view.as_str().is_some(), view.get(&["a", "b"]).is_some());
            let _ = (view.bytes(), view.value());
            view.pairs().for_each(drop);
            view.items().for_each(drop);
        }
    }
}
