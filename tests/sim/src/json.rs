//! Writes JSON text straight into a string: no tree per record, so that a page is cheap and the
//! ledger can tell the exact text that was sent.

use std::fmt::Write as _;

use crate::clock::push_time;
use crate::http::Pieces;

/// Long texts are made and sent in pieces of about this size.
pub(crate) const PIECE_BYTES: usize = 256 * 1024;

/// Writes one object; `finish` closes it.
pub(crate) struct ObjectWriter<'a> {
    out: &'a mut String,
    is_first: bool,
    /// Escape whatever is not ASCII, as some encoders do; both forms mean the same.
    is_ascii: bool,
}

impl<'a> ObjectWriter<'a> {
    pub(crate) fn new(out: &'a mut String, is_ascii: bool) -> Self {
        out.push('{');
        Self { out, is_first: true, is_ascii }
    }

    pub(crate) fn text(&mut self, name: &str, value: &str) {
        self.name(name);
        push_string(self.out, value, self.is_ascii);
    }

    pub(crate) fn int(&mut self, name: &str, value: i64) {
        self.name(name);
        let _ = write!(self.out, "{value}");
    }

    /// A value that is JSON already.
    pub(crate) fn raw(&mut self, name: &str, json: &str) {
        self.name(name);
        self.out.push_str(json);
    }

    pub(crate) fn time(&mut self, name: &str, ms: i64) {
        self.name(name);
        self.out.push('"');
        push_time(self.out, ms);
        self.out.push('"');
    }

    pub(crate) fn texts(&mut self, name: &str, values: impl IntoIterator<Item = String>) {
        self.name(name);
        self.out.push('[');
        for (at, value) in values.into_iter().enumerate() {
            if at > 0 {
                self.out.push(',');
            }
            push_string(self.out, &value, self.is_ascii);
        }
        self.out.push(']');
    }

    pub(crate) fn bool(&mut self, name: &str, value: bool) {
        self.raw(name, if value { "true" } else { "false" });
    }

    pub(crate) fn ints(&mut self, name: &str, values: impl IntoIterator<Item = u64>) {
        let values: Vec<String> = values.into_iter().map(|value| value.to_string()).collect();
        self.raw(name, &format!("[{}]", values.join(",")));
    }

    pub(crate) fn object(&mut self, name: &str, write: impl FnOnce(&mut ObjectWriter<'_>)) {
        self.name(name);
        let mut object = ObjectWriter::new(self.out, self.is_ascii);
        write(&mut object);
        object.finish();
    }

    /// An array of objects, each written by `write`.
    pub(crate) fn objects(
        &mut self,
        name: &str,
        count: usize,
        mut write: impl FnMut(usize, &mut ObjectWriter<'_>),
    ) {
        self.name(name);
        self.out.push('[');
        for at in 0..count {
            if at > 0 {
                self.out.push(',');
            }
            let mut object = ObjectWriter::new(self.out, self.is_ascii);
            write(at, &mut object);
            object.finish();
        }
        self.out.push(']');
    }

    /// How long the whole text is so far, with whatever stood before the object.
    pub(crate) fn length(&self) -> usize {
        self.out.len()
    }

    pub(crate) fn finish(self) {
        self.out.push('}');
    }

    fn name(&mut self, name: &str) {
        if !self.is_first {
            self.out.push(',');
        }
        self.is_first = false;
        self.out.push('"');
        self.out.push_str(name);
        self.out.push_str("\":");
    }
}

/// An object with an array of records, made piece by piece: `before`, the records that `write`
/// appends, `after`.
pub(crate) fn pieces(
    before: &str,
    after: &'static str,
    count: usize,
    mut write: impl FnMut(usize, &mut String) + 'static,
) -> Pieces {
    let (mut at, mut text, mut is_done) = (0, before.to_string(), false);
    Box::new(std::iter::from_fn(move || {
        while at < count && text.len() < PIECE_BYTES {
            if at > 0 {
                text.push(',');
            }
            write(at, &mut text);
            at += 1;
        }
        if at == count && !std::mem::replace(&mut is_done, true) {
            text.push_str(after);
        }
        // The end has been told when nothing is left to say.
        (!text.is_empty()).then(|| std::mem::take(&mut text).into_bytes())
    }))
}

pub(crate) fn push_string(out: &mut String, text: &str, is_ascii: bool) {
    out.push('"');
    if text.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\') {
        out.push_str(text);
    } else {
        text.chars().for_each(|c| push_char(out, c, is_ascii));
    }
    out.push('"');
}

fn push_char(out: &mut String, c: char, is_ascii: bool) {
    match c {
        '"' => out.push_str("\\\""),
        '\\' => out.push_str("\\\\"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        '/' if is_ascii => out.push_str("\\/"),
        c if c < ' ' || (is_ascii && !c.is_ascii()) => {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        }
        c => out.push(c),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_read_back() {
        for text in ["", "plain", "\"\\/\u{0}\u{1}\u{7f}\n\r\t", "🚀 日本語 مرحبا \u{2028}"]
        {
            for is_ascii in [false, true] {
                let mut out = String::new();
                push_string(&mut out, text, is_ascii);
                assert_eq!(serde_json::from_str::<String>(&out).unwrap(), text);
                assert!(!is_ascii || out.is_ascii());
            }
        }
    }
}
