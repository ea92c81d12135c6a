//! `${NAME}` in values, as the host replaces it.

use std::collections::HashMap;
use std::path::Path;

/// A value that has grown to this is replaced in no further: variables could multiply.
const VALUE_BYTES_MAX: usize = 1024 * 1024;

/// Variables of the configuration; those of the environment come after them.
#[derive(Default)]
pub(super) struct Variables(HashMap<String, String>);

impl Variables {
    /// Sets one; a value that begins with `file://` is what the file holds. False if it cannot be
    /// read.
    pub(super) fn set(&mut self, name: &str, value: &str) -> bool {
        let value = match value.strip_prefix("file://") {
            None => value.to_owned(),
            Some(path) => match super::text_of(Path::new(path)) {
                // The host takes off one line end.
                Ok(text) => text.strip_suffix('\n').unwrap_or(&text).to_owned(),
                Err(_) => return false,
            },
        };
        self.0.insert(name.to_owned(), value);
        true
    }

    fn get(&self, name: &str) -> Option<String> {
        self.0.get(name).cloned().or_else(|| std::env::var(name).ok())
    }

    /// The value with variables replaced, and the names of those that are not set.
    pub(super) fn resolve(&self, text: &str) -> (String, Vec<String>) {
        let (mut out, mut unset, mut rest) = (String::new(), Vec::new(), text);
        while out.len() < VALUE_BYTES_MAX
            && let Some((before, after)) = rest.split_once("${")
        {
            let Some((inner, behind)) = after.split_once('}').filter(|(name, _)| !name.is_empty())
            else {
                break;
            };
            out.push_str(before);
            let (name, default) = match inner.split_once(":-") {
                Some((name, default)) => (name, Some(default)),
                None => (inner, None),
            };
            match (self.get(name).filter(|v| !(v.is_empty() && default.is_some())), default) {
                (Some(value), _) => out.push_str(&value),
                (None, Some(default)) => out.push_str(default),
                (None, None) => unset.push(name.to_owned()),
            }
            rest = behind;
        }
        out.push_str(rest);
        (out, unset)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn variables_have_defaults_files_and_no_escapes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        fs::write(&path, "s3cret\n").unwrap();
        let mut variables = Variables::default();
        assert!(variables.set("A", "1") && variables.set("E", ""));
        assert!(variables.set("F", &format!("file://{}", path.display())));
        assert!(!variables.set("G", "file:///no/such/file"));
        let resolve = |text| variables.resolve(text);
        assert_eq!(resolve("x${A}y${F}z"), ("x1ys3cretz".into(), vec![]));
        assert_eq!(resolve("${NO_SUCH:-d}${E:-e}${A:-f}"), ("de1".into(), vec![]));
        assert_eq!(resolve("a${NO_SUCH}b"), ("ab".into(), vec!["NO_SUCH".to_owned()]));
        assert_eq!(resolve("${}${A"), ("${}${A".into(), vec![]));
        assert!(!variables.set("Z", "file:///dev/zero"), "a device has no end");
        variables.set("L", &"x".repeat(10_000));
        let (value, _) = variables.resolve(&"${L}".repeat(10_000));
        assert!(value.len() < 2 * VALUE_BYTES_MAX, "{} bytes", value.len());
    }
}
