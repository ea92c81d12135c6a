//! Looking into values that we wrote.

use std::ops::Range;

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

    /// Where the value lies in `whole`, of which it is a part.
    #[inline]
    #[must_use]
    pub fn range_in(&self, whole: &[u8]) -> Range<usize> {
        let start = self.0.as_ptr().addr() - whole.as_ptr().addr();
        start..start + self.0.len()
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
            0..=0x7f | 0xcc..=0xcf => Value::Unsigned(self.as_u64().unwrap_or_default()),
            small @ 0xe0..=0xff => Value::Signed(i64::from(small as i8)),
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

    /// How many bytes stand before the text of a string; 0 if the value is none.
    #[inline]
    #[must_use]
    pub fn text_header(&self) -> u8 {
        self.0.first().map_or(0, |&marker| TEXT_HEADERS[usize::from(marker)])
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
        match *self.0 {
            [small @ 0..=0x7f, ..] => Some(u64::from(small)),
            [0xcc, byte, ..] => Some(u64::from(byte)),
            [0xcd, ref rest @ ..] => Some(u16::from_be_bytes(*rest.first_chunk()?).into()),
            [0xce, ref rest @ ..] => Some(u32::from_be_bytes(*rest.first_chunk()?).into()),
            [0xcf, ref rest @ ..] => Some(u64::from_be_bytes(*rest.first_chunk()?)),
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
    pub(super) fn length(&self) -> usize {
        let Some(&marker) = self.0.first() else { return 1 };
        match (LENGTHS[usize::from(marker)], self.0) {
            (0, [0xd9, length, ..]) => 2 + usize::from(*length),
            (0, _) => self.any_length(),
            (length, _) => usize::from(length),
        }
    }

    fn any_length(&self) -> usize {
        let (mut at, mut values) = (0, 1);
        while values > 0 && at < self.0.len() {
            let value = Self(&self.0[at..]);
            values -= 1;
            at += match LENGTHS[usize::from(value.0[0])] {
                0 => match value.shape() {
                    Shape::Scalar { header, payload } => header + payload,
                    Shape::Array { header, count } => {
                        values += count;
                        header
                    }
                    Shape::Map { header, count } => {
                        values += 2 * count;
                        header
                    }
                },
                length => usize::from(length),
            };
        }
        at
    }
}

/// How many bytes stand before the text that begins with this one; 0 if it is none. Whether a text is
/// short is hard to foresee, so this is looked up instead of decided.
static TEXT_HEADERS: [u8; 256] = {
    let mut headers = [0; 256];
    let mut marker = 0xa0;
    while marker <= 0xbf {
        headers[marker] = 1;
        marker += 1;
    }
    (headers[0xd9], headers[0xda], headers[0xdb]) = (2, 3, 5);
    headers
};

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
