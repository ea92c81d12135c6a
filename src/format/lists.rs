//! Lists of texts, out of one field or of several.

use std::collections::HashSet;

use super::convert;
use super::fill::Aid;
use super::found::Found;
use super::plan::{TextsOf, What};
use super::table::Pick;
use crate::msgpack;

/// Among so many texts, another like it is looked for one by one.
const FEW_TEXTS: usize = 8;

/// The texts of a list in which each stands once.
#[derive(Default)]
pub(super) struct Once {
    /// Where the first ones were written.
    places: [(usize, usize); FEW_TEXTS],
    few: usize,
    /// All the others.
    many: HashSet<Box<[u8]>>,
}

impl Once {
    /// Appends a text, unless it was appended before.
    #[inline(always)]
    fn write(&mut self, text: &[u8], out: &mut Vec<u8>) {
        let mut known = self.places[..self.few].iter();
        if known.any(|&(start, end)| end - start == text.len() && out[start..end] == *text) {
            return;
        }
        if self.few < FEW_TEXTS {
            msgpack::text(out, text);
            self.places[self.few] = (out.len() - text.len(), out.len());
            self.few += 1;
        } else if self.many.insert(text.into()) {
            msgpack::text(out, text);
        }
    }

    fn len(&self) -> usize {
        self.few + self.many.len()
    }

    fn clear(&mut self) {
        self.few = 0;
        self.many.clear();
    }
}

impl Found<'_, '_> {
    /// Writes the texts of some fields: `None` if there are none.
    pub(super) fn texts(&mut self, what: &What, out: &mut Vec<u8>) -> Option<bool> {
        match what {
            What::List(list) => match &**list {
                [of] if of.pick == Pick::Sorted => self.sorted(of, out),
                [of] => self.texts_of(of, out),
                _ => self.each_once(list, true, out),
            },
            What::FirstList(list) => list.iter().find_map(|of| self.texts_of(of, out)),
            // What only helps to search takes nothing of the fields.
            What::Related(list) => self.each_once(list, false, out),
            _ => None,
        }
    }

    /// One field's texts stay as they come.
    fn texts_of(&mut self, of: &TextsOf, out: &mut Vec<u8>) -> Option<bool> {
        let value = self.value(of.slot)?;
        let (start, mut count) = (out.len(), 0);
        let at = msgpack::open(out);
        let taken = convert::pick(of.pick, &of.member, value, &mut self.aid.memo, |text| {
            count += 1;
            msgpack::text(out, text);
        });
        if count == 0 {
            out.truncate(start);
            return None;
        }
        msgpack::close_array(out, at, count);
        self.take(of.slot, taken);
        Some(true)
    }

    fn sorted(&mut self, of: &TextsOf, out: &mut Vec<u8>) -> Option<bool> {
        let (value, mut texts) = (self.value(of.slot)?, Vec::new());
        let taken = convert::pick(of.pick, &of.member, value, &mut self.aid.memo, |text| {
            texts.push(text.to_vec());
        });
        if texts.is_empty() {
            return None;
        }
        texts.sort_unstable();
        msgpack::array(out, texts.len());
        texts.iter().for_each(|text| msgpack::text(out, text));
        self.take(of.slot, taken);
        Some(true)
    }

    /// The texts of some fields, each where it comes first.
    fn each_once(&mut self, list: &[TextsOf], takes: bool, out: &mut Vec<u8>) -> Option<bool> {
        let start = out.len();
        let at = msgpack::open(out);
        for of in list {
            let Some(value) = self.value(of.slot) else { continue };
            let text = self.text_at(of.slot);
            let Aid { memo, once, .. } = &mut *self.aid;
            let mut each = |text: &[u8]| once.write(text, out);
            let taken = match text {
                Some(text) if of.member.is_empty() => {
                    convert::pick_text(of.pick, text, memo, &mut each)
                }
                _ => convert::pick(of.pick, &of.member, value, memo, each),
            };
            if takes {
                self.take(of.slot, taken);
            }
        }
        let count = self.aid.once.len();
        self.aid.once.clear();
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
