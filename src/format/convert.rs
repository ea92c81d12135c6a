//! From a vendor's value to the one that a target wants, written as MessagePack.
//!
//! A conversion says how much of the value it took. What it did not take whole stays in the record
//! under the vendor's own name, so no conversion can lose anything.
//!
//! Texts are read as bytes: they are known to be UTF-8 and only cut beside ASCII, and to check that
//! again for each target takes longer than most conversions.

use super::address::{Delivery, Memo, Protocol, address, bare, is_email, mac, split};
use super::table::{Convert, Delivered, Literal, Pick, Tls};
use crate::clock::Time;
use crate::msgpack::{self, Value, View};
use crate::record::parse_time;
use chrono::{Datelike as _, SecondsFormat, Timelike as _};

/// How much of a value its target holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Taken {
    /// Nothing; nothing was written.
    #[default]
    Nothing,
    /// Something of it, or something that follows from it.
    Part,
    /// All of it.
    All,
}

/// Writes what `convert` makes of a value that is not empty. [`Convert::Each`] is not for here: it
/// needs a plan.
pub fn convert<'a>(
    convert: &Convert,
    value: View<'a>,
    memo: &mut Memo<'a>,
    out: &mut Vec<u8>,
) -> Taken {
    match convert {
        Convert::Any => verbatim(value, out),
        Convert::Text if value.as_bytes().is_some() => verbatim(value, out),
        Convert::Long => match value.as_u64() {
            Some(number) if i64::try_from(number).is_ok() => verbatim(value, out),
            _ => Taken::Nothing,
        },
        Convert::Digits => match value.value() {
            Value::Unsigned(number) => text(number.to_string().as_bytes(), out),
            Value::Signed(number) => text(number.to_string().as_bytes(), out),
            Value::Text(_) => verbatim(value, out),
            _ => Taken::Nothing,
        },
        Convert::Wrapped(key, pick) => wrapped(key, *pick, value, memo, out),
        // Some write one sender as a list of one.
        Convert::Email if value.is_array() => {
            let mut items = value.items().filter_map(|item| item.as_bytes());
            let taken = items.find_map(|text| {
                let taken = of_text(convert, text, value, memo, out);
                (taken != Taken::Nothing).then_some(Taken::Part)
            });
            taken.unwrap_or_default()
        }
        _ => {
            value.as_bytes().map_or(Taken::Nothing, |text| of_text(convert, text, value, memo, out))
        }
    }
}

/// Whether a conversion reads texts alone, and knows nothing to say without one.
pub fn is_of_text(convert: &Convert) -> bool {
    match convert {
        Convert::MessageId
        | Convert::Date
        | Convert::Millis
        | Convert::Ip
        | Convert::FirstIp
        | Convert::Address
        | Convert::Rename(_)
        | Convert::Delivered(_)
        | Convert::Tls(_) => true,
        Convert::Any
        | Convert::Text
        | Convert::Long
        | Convert::Digits
        | Convert::Wrapped(..)
        | Convert::Each(_)
        | Convert::Email
        | Convert::Classify(..)
        | Convert::ClassifyStart(..) => false,
    }
}

/// The conversions that read a text.
pub fn of_text<'a>(
    convert: &Convert,
    whole: &'a [u8],
    value: View<'a>,
    memo: &mut Memo<'a>,
    out: &mut Vec<u8>,
) -> Taken {
    match convert {
        Convert::MessageId => message_id(whole, out),
        Convert::Date => date(whole, value, out),
        Convert::Millis => millis(whole, out),
        Convert::Ip if memo.is_ip(whole) => verbatim(value, out),
        Convert::FirstIp => match parts(whole).find_map(|part| memo.part_address(part)) {
            Some(ip) => part_of(whole, ip, out),
            None => Taken::Nothing,
        },
        Convert::Address => part_of(whole, bare(whole), out),
        Convert::Email => match address(whole).filter(|address| is_email(address)) {
            Some(address) => part_of(whole, address, out),
            None => Taken::Nothing,
        },
        Convert::Rename(pairs) => rename(pairs, whole, out),
        Convert::Classify(pairs, other) => {
            let known = pairs.iter().find(|(from, _)| from.as_bytes() == whole);
            class(known.map_or(other, |(_, literal)| literal), out)
        }
        Convert::ClassifyStart(pairs, other) => {
            let known = pairs.iter().find(|(from, _)| whole.starts_with(from.as_bytes()));
            class(known.map_or(other, |(_, literal)| literal), out)
        }
        Convert::Delivered(part) => delivered(*part, memo.delivery(whole), out),
        Convert::Tls(part) => tls(*part, memo.protocol(whole), out),
        _ => Taken::Nothing,
    }
}

fn message_id(whole: &[u8], out: &mut Vec<u8>) -> Taken {
    let id = trim(trim(whole, b'<'), b'>');
    if id.is_empty() { Taken::Nothing } else { text(id, out) }
}

fn rename(pairs: &[(&str, &str)], whole: &[u8], out: &mut Vec<u8>) -> Taken {
    let renamed = pairs.iter().find(|(from, _)| from.as_bytes() == whole);
    text(renamed.map_or(whole, |(_, to)| to.as_bytes()), out)
}

/// A text without that byte at its ends.
fn trim(text: &[u8], byte: u8) -> &[u8] {
    let Some(start) = text.iter().position(|&other| other != byte) else { return &[] };
    let end = text.iter().rposition(|&other| other != byte).map_or(0, |last| last + 1);
    &text[start..end]
}

/// Writes a value that stands in a table; returns whether there is one.
pub fn literal(literal: &Literal, out: &mut Vec<u8>) -> bool {
    match literal {
        Literal::None => return false,
        Literal::Text(text) => msgpack::string(out, text),
        Literal::Number(number) => msgpack::unsigned(out, *number),
        Literal::Flag(flag) => msgpack::boolean(out, *flag),
        Literal::Texts(texts) => {
            msgpack::array(out, texts.len());
            texts.iter().for_each(|text| msgpack::string(out, text));
        }
        Literal::Numbers(numbers) => {
            msgpack::array(out, numbers.len());
            numbers.iter().for_each(|&number| msgpack::unsigned(out, number));
        }
    }
    true
}

/// Writes a time as receivers of dates read it.
pub fn time(time: Time, out: &mut Vec<u8>) {
    // chrono's own writing takes as long as much of the rest of an event.
    let nanos = time.timestamp_subsec_nanos();
    let Some(year) = u32::try_from(time.year()).ok().filter(|&year| year < 10_000) else {
        return msgpack::string(out, &time.to_rfc3339_opts(SecondsFormat::AutoSi, true));
    };
    let mut text = *b"0000-00-00T00:00:00.000000000Z";
    let fields = [
        (0, 4, year),
        (5, 2, time.month()),
        (8, 2, time.day()),
        (11, 2, time.hour()),
        (14, 2, time.minute()),
        (17, 2, time.second()),
        (20, 9, nanos % 1_000_000_000),
    ];
    for (start, digits, value) in fields {
        let mut rest = value;
        for place in text[start..start + digits].iter_mut().rev() {
            *place = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
    }
    let end = match nanos {
        0 => 19,
        _ if nanos.is_multiple_of(1_000_000) => 23,
        _ if nanos.is_multiple_of(1_000) => 26,
        _ => 29,
    };
    text[end] = b'Z';
    msgpack::string(out, std::str::from_utf8(&text[..=end]).unwrap_or_default());
}

/// Whether a date that we can read is one in the form that every receiver reads.
#[must_use]
pub fn is_plain_date(bytes: &[u8]) -> bool {
    let has_zone = matches!(bytes, [.., b'Z'] | [.., b'+' | b'-', _, _, b':', _, _]);
    has_zone && bytes.get(10) == Some(&b'T')
}

/// Hands out the texts of a value: of itself, of its elements, or of a member of each, if the
/// MessagePack of that one's key is given. Returns how much of the value they are.
pub fn pick<'a>(
    pick: Pick,
    member: &[u8],
    value: View<'a>,
    memo: &mut Memo<'a>,
    mut each: impl FnMut(&[u8]),
) -> Taken {
    let mut tally = Tally::default();
    let mut take = |value: View<'a>| match value.as_bytes() {
        Some(text) if !text.is_empty() => tally.add(pick_text(pick, text, memo, &mut each)),
        _ if value.is_empty() => {}
        _ => tally.add(Taken::Nothing),
    };
    if member.is_empty() {
        elements(value).for_each(take);
    } else {
        let inner = elements(value)
            .filter_map(|item| item.pairs().find(|(key, _)| key.bytes() == member))
            .flat_map(|(_, inner)| elements(inner));
        inner.for_each(&mut take);
    }
    tally.total()
}

/// The elements of a list, or the value itself if it is none.
#[inline(always)]
fn elements<'a>(value: View<'a>) -> impl Iterator<Item = View<'a>> {
    let only = (!value.is_array()).then_some(value);
    only.into_iter().chain(value.items())
}

/// Adds up how much was taken of the parts of a value.
#[derive(Default)]
pub struct Tally {
    some: bool,
    lacks: bool,
}

impl Tally {
    /// Counts a part.
    pub fn add(&mut self, taken: Taken) {
        self.some |= taken != Taken::Nothing;
        self.lacks |= taken != Taken::All;
    }

    /// What that makes of the whole.
    #[must_use]
    pub fn total(&self) -> Taken {
        match (self.some, self.lacks) {
            (false, _) => Taken::Nothing,
            (true, true) => Taken::Part,
            (true, false) => Taken::All,
        }
    }
}

/// The same for one text.
#[inline(always)]
pub fn pick_text<'a>(
    pick: Pick,
    text: &'a [u8],
    memo: &mut Memo<'a>,
    each: &mut impl FnMut(&[u8]),
) -> Taken {
    let part = match pick {
        Pick::Text | Pick::Sorted => Some(text),
        Pick::Address => Some(bare(text)),
        Pick::Email => address(text).filter(|address| is_email(address)),
        Pick::DeliveredHost => memo.delivery(text).host,
        Pick::DeliveredIp => memo.delivery(text).ip,
        Pick::Ip if memo.is_ip(text) => Some(text),
        Pick::Ip => return list(text, |part| take_part(part, memo.part_address(part), each)),
        Pick::Mac => return list(text, |part| take_part(part, mac(part).as_deref(), each)),
    };
    take_part(text, part, each)
}

/// Hands out what was made of a text; returns how much of it that is.
#[inline(always)]
fn take_part(text: &[u8], part: Option<&[u8]>, each: &mut impl FnMut(&[u8])) -> Taken {
    let Some(part) = part else { return Taken::Nothing };
    each(part);
    if std::ptr::eq(part, text) || part == text { Taken::All } else { Taken::Part }
}

/// The parts of a comma-separated list; it is taken whole if each part is, as it stands.
fn list<'a>(text: &'a [u8], take: impl FnMut(&'a [u8]) -> Taken) -> Taken {
    let mut tally = Tally::default();
    parts(text).map(take).for_each(|taken| tally.add(taken));
    tally.total()
}

/// The parts of a comma-separated list.
fn parts(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    split(text, b',').filter(|part| !part.is_empty())
}

fn delivered(part: Delivered, delivery: &Delivery<'_>, out: &mut Vec<u8>) -> Taken {
    let is_there = match part {
        Delivered::Host => delivery.host.map(|host| msgpack::text(out, host)),
        Delivered::Ip => delivery.ip.map(|ip| msgpack::text(out, ip)),
        Delivered::Port => delivery.port.map(|port| msgpack::unsigned(out, port.into())),
    };
    if is_there.is_some() { Taken::Part } else { Taken::Nothing }
}

fn tls(part: Tls, protocol: &Protocol<'_>, out: &mut Vec<u8>) -> Taken {
    let is_there = match part {
        Tls::Version => protocol.version.map(|version| msgpack::text(out, version)),
        Tls::Established => protocol.is_encrypted.map(|is_it| msgpack::boolean(out, is_it)),
    };
    if is_there.is_some() { Taken::Part } else { Taken::Nothing }
}

fn date(whole: &[u8], value: View<'_>, out: &mut Vec<u8>) -> Taken {
    if is_common_date(whole) {
        return verbatim(value, out);
    }
    let Some(read) = read_time(whole) else { return Taken::Nothing };
    if is_plain_date(whole) {
        return verbatim(value, out);
    }
    time(read, out);
    Taken::Part
}

fn read_time(text: &[u8]) -> Option<Time> {
    parse_time(str::from_utf8(text).ok()?)
}

/// Whether a text is a date such as `2023-09-28T13:55:33Z`, seen at a glance; others take a closer
/// look.
fn is_common_date(text: &[u8]) -> bool {
    const FORM: &[u8; 20] = b"0000-00-00T00:00:00Z";
    let Ok(text) = <&[u8; FORM.len()]>::try_from(text) else { return false };
    // Without a way out in between, which is faster.
    let has_form = text.iter().zip(FORM).fold(true, |has_form, (byte, form)| {
        has_form & if *form == b'0' { byte.is_ascii_digit() } else { byte == form }
    });
    let number = |at: usize| (text[at] - b'0') * 10 + (text[at + 1] - b'0');
    has_form
        && (1..=12).contains(&number(5))
        && (1..=28).contains(&number(8))
        && number(11) < 24
        && number(14) < 60
        && number(17) < 60
}

fn millis(whole: &[u8], out: &mut Vec<u8>) -> Taken {
    let Some(read) = read_time(whole) else { return Taken::Nothing };
    msgpack::signed(out, read.timestamp_millis());
    let is_whole = read.timestamp_subsec_nanos().is_multiple_of(1_000_000);
    if is_whole { Taken::All } else { Taken::Part }
}

fn wrapped<'a>(
    key: &str,
    pick_as: Pick,
    value: View<'a>,
    memo: &mut Memo<'a>,
    out: &mut Vec<u8>,
) -> Taken {
    let start = out.len();
    let at = msgpack::open(out);
    let mut count = 0;
    let taken = pick(pick_as, b"", value, memo, |text| {
        count += 1;
        msgpack::map(out, 1);
        msgpack::string(out, key);
        msgpack::text(out, text);
    });
    if count == 0 {
        out.truncate(start);
        return Taken::Nothing;
    }
    msgpack::close_array(out, at, count);
    taken
}

fn class(of: &Literal, out: &mut Vec<u8>) -> Taken {
    if literal(of, out) { Taken::Part } else { Taken::Nothing }
}

fn verbatim(value: View<'_>, out: &mut Vec<u8>) -> Taken {
    msgpack::raw(out, value.bytes());
    Taken::All
}

fn text(text: &[u8], out: &mut Vec<u8>) -> Taken {
    msgpack::text(out, text);
    Taken::All
}

fn part_of(whole: &[u8], part: &[u8], out: &mut Vec<u8>) -> Taken {
    msgpack::text(out, part);
    // A part that is as long is the whole.
    if part.len() == whole.len() { Taken::All } else { Taken::Part }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn times_are_written_as_chrono_writes_them(
            seconds in -70_000_000_000_i64..300_000_000_000,
            nanos in prop_oneof![Just(0_u32), 0..1_999_999_999_u32, (0..999_u32).prop_map(|ms| ms * 1_000_000)],
        ) {
            let Some(moment) = Time::from_timestamp(seconds, nanos) else { return Ok(()) };
            prop_assume!(nanos < 1_000_000_000);
            let (mut ours, mut theirs) = (Vec::new(), Vec::new());
            time(moment, &mut ours);
            msgpack::string(&mut theirs, &moment.to_rfc3339_opts(SecondsFormat::AutoSi, true));
            prop_assert_eq!(ours, theirs);
        }

        #[test]
        fn a_date_at_a_glance_is_one_at_a_closer_look(
            text in "[0-2][0-9]{3}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-6][0-9]:[0-6][0-9]Z",
        ) {
            prop_assert!(!is_common_date(text.as_bytes()) || parse_time(&text).is_some());
        }
    }
}
