//! Writes JSON text straight into a string: no tree per record, so that a page is cheap and the
//! ledger can tell the exact text that was sent.

use std::fmt::Write as _;

use crate::clock::push_time;

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
