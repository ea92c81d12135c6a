//! MessagePack: writing values, and looking into values that we wrote.
//!
//! A Fluent Bit event is `[EventTime, map]`. `EventTime` is extension type 0 with seconds and
//! nanoseconds as big-endian 32-bit numbers. The form with metadata, `[[EventTime, {}], map]`, is
//! passed on verbatim by the host's `forward` output and refused by several receivers, so we never
//! write it.

mod view;

use std::ops::Range;

use crate::clock::Time;
pub use view::{Value, View};

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

/// An offset in a record, of which none comes near 4 GB. Four bytes keep small what is noted of a
/// record.
pub type Place = u32;

/// Pieces up to this are copied with what lies behind them, which takes no call.
const PIECE_BYTES: usize = 64;

/// Appends a piece of `bytes`.
#[inline(always)]
pub fn piece(out: &mut Vec<u8>, bytes: &[u8], piece: Range<Place>) {
    let (start, length) = (piece.start as usize, (piece.end - piece.start) as usize);
    match bytes[start..].first_chunk::<PIECE_BYTES>() {
        Some(more) if length <= PIECE_BYTES => block(out, more, length),
        _ => out.extend_from_slice(&bytes[start..start + length]),
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
    self::block(out, block, length);
}

/// Appends the first `length` bytes of a block. To copy it whole takes no call.
#[inline(always)]
fn block<const BLOCK: usize>(out: &mut Vec<u8>, block: &[u8; BLOCK], length: usize) {
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
#[inline]
pub fn close_map(out: &mut Vec<u8>, at: usize, count: usize) {
    fit(out, at..at + 1, count, &MAP);
}

/// Fills in the header of a map for which `reserved` was set aside; returns where it lies now. What
/// lies behind it moves if it needs another size.
pub fn fit_map(out: &mut Vec<u8>, reserved: Range<usize>, count: usize) -> Range<usize> {
    fit(out, reserved, count, &MAP)
}

/// Fills in the header of an array that [`open`] reserved at `at`; returns by how many bytes what
/// lies behind it has moved.
#[inline]
pub fn close_array(out: &mut Vec<u8>, at: usize, count: usize) -> usize {
    fit(out, at..at + 1, count, &ARRAY).len() - 1
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

/// With what containers begin, by how many there are in them.
struct Markers {
    fixed: u8,
    medium: u8,
    large: u8,
}

const MAP: Markers = Markers { fixed: 0x80, medium: 0xde, large: 0xdf };
const ARRAY: Markers = Markers { fixed: 0x90, medium: 0xdc, large: 0xdd };

#[inline]
fn fit(out: &mut Vec<u8>, reserved: Range<usize>, count: usize, markers: &Markers) -> Range<usize> {
    if count <= FIXED_COUNT_MAX && reserved.len() == 1 {
        out[reserved.start] = markers.fixed | count as u8;
        return reserved;
    }
    refit(out, reserved, count, markers)
}

/// The same where a byte is not enough, or too much was set aside.
fn refit(
    out: &mut Vec<u8>,
    reserved: Range<usize>,
    count: usize,
    markers: &Markers,
) -> Range<usize> {
    let mut header = [0; 5];
    let length = if count <= FIXED_COUNT_MAX {
        header[0] = markers.fixed | count as u8;
        1
    } else if let Ok(count) = u16::try_from(count) {
        header[0] = markers.medium;
        header[1..3].copy_from_slice(&count.to_be_bytes());
        3
    } else {
        header[0] = markers.large;
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
