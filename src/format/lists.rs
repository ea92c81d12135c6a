//! Lists of texts, out of one field or of several.

use std::collections::HashSet;
use std::ops::Range;

use super::convert;
use super::found::Found;
use super::plan::TextsOf;
use super::table::{Pick, Texts};
use crate::msgpack;
use crate::record::Prefix;

/// Among so many texts, another like it is looked for one by one.
const FEW_TEXTS: usize = 8;

/// The texts of a list in which each stands once.
#[derive(Default)]
pub(super) struct Once {
    /// The first ones, as where they were written.
    few: Vec<(Prefix, Range<usize>)>,
    /// All of them, if they are more.
    many: HashSet<Box<[u8]>>,
}

impl Once {
    /// Appends a text, unless it was appended before.
    fn write(&mut self, text: &[u8], out: &mut Vec<u8>) {
        let prefix = Prefix::of(text, text.len());
        let is_it = |(known, place): &(Prefix, Range<usize>)| {
            *known == prefix && out[place.clone()] == *text
        };
        if self.few.iter().any(is_it) {
            return;
        }
        if self.few.len() < FEW_TEXTS {
            msgpack::text(out, text);
            self.few.push((prefix, out.len() - text.len()..out.len()));
        } else if self.many.insert(text.into()) {
            msgpack::text(out, text);
        }
    }

    fn len(&self) -> usize {
        self.few.len() + self.many.len()
    }

    fn clear(&mut self) {
        self.few.clear();
        self.many.clear();
    }
}

impl Found<'_> {
    pub(super) fn list(&mut self, list: &[TextsOf], out: &mut Vec<u8>) -> Option<bool> {
        match list {
            [(slot, of)] if of.2 == Pick::Sorted => self.sorted(*slot, of, out),
            [(slot, of)] => self.texts_of(*slot, of, out),
            _ => self.each_once(list, true, out),
        }
    }

    /// Texts that only help to search take nothing of the fields.
    pub(super) fn related(&mut self, list: &[TextsOf], out: &mut Vec<u8>) -> Option<bool> {
        self.each_once(list, false, out)
    }

    /// One field's texts stay as they come.
    pub(super) fn texts_of(&mut self, slot: usize, of: &Texts, out: &mut Vec<u8>) -> Option<bool> {
        let value = self.value(slot)?;
        let (start, mut count) = (out.len(), 0);
        let at = msgpack::open(out);
        let taken = convert::pick(of, value, &mut self.memo, |text| {
            count += 1;
            msgpack::text(out, &text);
        });
        if count == 0 {
            out.truncate(start);
            return None;
        }
        msgpack::close_array(out, at, count);
        self.take(slot, taken);
        Some(true)
    }

    fn sorted(&mut self, slot: usize, of: &Texts, out: &mut Vec<u8>) -> Option<bool> {
        let mut texts = Vec::new();
        let taken = convert::pick(of, self.value(slot)?, &mut self.memo, |text| texts.push(text));
        if texts.is_empty() {
            return None;
        }
        texts.sort_unstable();
        msgpack::array(out, texts.len());
        texts.iter().for_each(|text| msgpack::text(out, text));
        self.take(slot, taken);
        Some(true)
    }

    /// The texts of some fields, each where it comes first.
    fn each_once(&mut self, list: &[TextsOf], takes: bool, out: &mut Vec<u8>) -> Option<bool> {
        let start = out.len();
        let at = msgpack::open(out);
        for &(slot, of) in list {
            let Some(value) = self.value(slot) else { continue };
            let once = &mut self.scratch.once;
            let taken = convert::pick(of, value, &mut self.memo, |text| once.write(&text, out));
            if takes {
                self.take(slot, taken);
            }
        }
        let count = self.scratch.once.len();
        self.scratch.once.clear();
        if count == 0 {
            out.truncate(start);
            return None;
        }
        msgpack::close_array(out, at, count);
        Some(true)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::msgpack::View;

    proptest! {
        #[test]
        fn each_text_stands_where_it_came_first(
            texts in prop::collection::vec("[ab\\x00]{0,2}|(same|samesame)[ab]{0,2}", 0..40),
        ) {
            let (mut once, mut out) = (Once::default(), Vec::new());
            let at = msgpack::open(&mut out);
            texts.iter().for_each(|text| once.write(text.as_bytes(), &mut out));
            msgpack::close_array(&mut out, at, once.len());
            let written: Vec<_> = View::new(&out).items().filter_map(|item| item.as_str()).collect();
            let mut expected: Vec<&str> = Vec::new();
            for text in &texts {
                if !expected.contains(&text.as_str()) {
                    expected.push(text);
                }
            }
            prop_assert_eq!(written, expected);
        }
    }
}
