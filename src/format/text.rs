//! The JSON text of a MessagePack value, for records whose own text is not at hand.

use std::fmt::Write as _;

use crate::msgpack::{Value, View};

/// The value as JSON, without white space.
#[must_use]
pub fn json(view: View<'_>) -> String {
    let mut out = String::with_capacity(view.bytes().len() * 2);
    write(&mut out, view);
    out
}

fn write(out: &mut String, view: View<'_>) {
    match view.value() {
        Value::Nil => out.push_str("null"),
        Value::Boolean(flag) => out.push_str(if flag { "true" } else { "false" }),
        // Writing into a text cannot fail.
        Value::Unsigned(number) => drop(write!(out, "{number}")),
        Value::Signed(number) => drop(write!(out, "{number}")),
        // The form with an exponent, which is short and reads back to the same bits.
        Value::Float(number) => drop(write!(out, "{number:?}")),
        Value::Text(text) => string(out, text),
        Value::Array => {
            out.push('[');
            for (i, item) in view.items().enumerate() {
                out.push_str(if i > 0 { "," } else { "" });
                write(out, item);
            }
            out.push(']');
        }
        Value::Map => {
            out.push('{');
            for (i, (key, value)) in view.pairs().enumerate() {
                out.push_str(if i > 0 { "," } else { "" });
                write(out, key);
                out.push(':');
                write(out, value);
            }
            out.push('}');
        }
    }
}

fn string(out: &mut String, text: &str) {
    out.push('"');
    let mut plain = 0;
    for (at, byte) in text.bytes().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.push_str(&text[plain..at]);
        plain = at + 1;
        match byte {
            b'"' | b'\\' => out.extend(['\\', char::from(byte)]),
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            _ => drop(write!(out, "\\u{byte:04x}")),
        }
    }
    out.push_str(&text[plain..]);
    out.push('"');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::record::Shape;

    fn body(text: &str) -> Vec<u8> {
        let shape = Shape {
            source: "s",
            content_type: "c",
            variant: "",
            time: &[],
            name: &[],
            folds_name: false,
        };
        shape.read([text]).unwrap().iter().next().unwrap().body.to_vec()
    }

    #[test]
    fn every_kind_of_value_is_written() {
        let text =
            r#"{"a":[1,-2,18446744073709551615,2.5,1e300,true,false,null,""],"b":{},"c":[]}"#;
        assert_eq!(json(View::new(&body(text))), text);
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(key in ".{0,20}", text in "\\PC{0,20}|[\\x00-\\x7f]{0,20}", number: f64) {
            let number = if number.is_finite() { number } else { 0.5 };
            let whole = serde_json::json!({ key: [text, number, { "x": text }] }).to_string();
            let before = body(&whole);
            let written = json(View::new(&before));
            // A reader of JSON that is not ours takes it too.
            prop_assert!(serde_json::from_str::<serde_json::Value>(&written).is_ok(), "{}", written);
            prop_assert_eq!(body(&written), before);
        }
    }
}
