//! Whether two JSON texts are the same record, whatever hands they went through.

use serde_json::{Number, Value};

/// A record's text with sorted keys and numbers as a careful receiver has them: integers beyond 64
/// bits as strings of their digits, everything with a fraction or exponent as a double's first 15
/// digits, since JSON writers such as Fluent Bit's own print no more than 16.
pub fn canonical(record: &Value) -> String {
    let mut out = String::new();
    write(record, &mut out);
    out
}

fn write(value: &Value, out: &mut String) {
    match value {
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_by_key(|(key, _)| *key);
            out.push('{');
            for (key, member) in members {
                out.push_str(&Value::from(key.as_str()).to_string());
                out.push(':');
                write(member, out);
                out.push(',');
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for item in items {
                write(item, out);
                out.push(',');
            }
            out.push(']');
        }
        Value::Number(number) => out.push_str(&write_number(number)),
        other => out.push_str(&other.to_string()),
    }
}

fn write_number(number: &Number) -> String {
    let text = number.to_string();
    // JSON's minus zero is no integer: only a float keeps its sign.
    if text == "-0" || text.contains(['.', 'e', 'E']) {
        number.as_f64().map_or(text, |float| format!("{float:.14e}"))
    } else if number.is_i64() || number.is_u64() {
        text
    } else {
        format!("\"{text}\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_and_spelling_do_not_matter_and_values_do() {
        let read = |text: &str| canonical(&serde_json::from_str(text).expect("JSON"));
        assert_eq!(read(r#"{"a":[1,{"c":2,"b":1.50}]}"#), read(r#"{ "a":[1,{"b":1.5,"c":2}]}"#));
        assert_eq!(read("[18446744073709551616]"), read(r#"["18446744073709551616"]"#));
        assert_eq!(read("[-0]"), read("[-0.0]"));
        assert_ne!(read("[9007199254740993]"), read("[9007199254740992]"));
        assert_ne!(read("[1]"), read(r#"["1"]"#));
        assert_ne!(read("[1,2]"), read("[2,1]"));
    }
}
