//! Reading the body of a search.

use serde_json::{Map, Value};

/// Which computers a request asks for.
#[derive(Debug, Clone)]
pub(crate) struct Search {
    pub(crate) max_items: usize,
    /// Whether the computers come in the order of their identifiers.
    pub(crate) is_sorted: bool,
    /// The identifier of the first criterion, for the log of requests.
    pub(crate) resume: Option<String>,
    criteria: Vec<Criterion>,
}

/// A condition on the identifier.
#[derive(Debug, Clone, Copy)]
struct Criterion {
    test: fn(&i64, &i64) -> bool,
    value: i64,
}

impl Search {
    /// Everything, in the order that the API prefers.
    pub(crate) fn all() -> Self {
        Self { max_items: usize::MAX, is_sorted: false, resume: None, criteria: Vec::new() }
    }

    /// `None` refuses the search. Unknown members are ignored, so a misspelt one asks for all.
    pub(crate) fn read(body: &[u8], max_items_max: usize) -> Option<Self> {
        if body.is_empty() {
            return Some(Self { max_items: max_items_max, ..Self::all() });
        }
        let body: Map<String, Value> = serde_json::from_slice(body).ok()?;
        let max_items = match body.get("maxItems").filter(|value| !value.is_null()) {
            Some(value) => usize::try_from(value.as_u64()?).ok().filter(|count| *count > 0)?,
            None => max_items_max,
        };
        let is_sorted = match body.get("sortByObjectID") {
            None | Some(Value::Null) => false,
            Some(Value::Bool(is_sorted)) => *is_sorted,
            // One of the vendor's own tools sends a text.
            Some(Value::String(text)) => text == "true",
            Some(_) => return None,
        };
        let criteria = match body.get("searchCriteria") {
            None | Some(Value::Null) => Vec::new(),
            Some(value) => {
                value.as_array()?.iter().map(Criterion::read).collect::<Option<Vec<_>>>()?
            }
        };
        let resume = criteria.first().map(|criterion| criterion.value.to_string());
        Some(Self { max_items: max_items.min(max_items_max), is_sorted, resume, criteria })
    }

    pub(crate) fn matches(&self, id: u64) -> bool {
        let id = id as i64;
        self.criteria.iter().all(|criterion| (criterion.test)(&id, &criterion.value))
    }
}

impl Criterion {
    fn read(criterion: &Value) -> Option<Self> {
        let criterion = criterion.as_object()?;
        // Conditions on fields are not simulated, and to ignore one would return too much.
        if criterion.contains_key("fieldName") {
            return None;
        }
        let test = match criterion.get("idTest").filter(|value| !value.is_null()) {
            None => "equal",
            Some(value) => value.as_str()?,
        };
        let test: fn(&i64, &i64) -> bool = match test {
            "less-than" => i64::lt,
            "less-than-or-equal" => i64::le,
            "equal" => i64::eq,
            "greater-than-or-equal" => i64::ge,
            "greater-than" => i64::gt,
            "not-equal" => i64::ne,
            _ => return None,
        };
        Some(Self { test, value: criterion.get("idValue")?.as_i64()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<Search> {
        Search::read(text.as_bytes(), 5000)
    }

    fn matching(criteria: &str) -> Vec<u64> {
        let search = read(&format!("{{\"searchCriteria\":[{criteria}]}}")).expect("a search");
        (1..=5).filter(|id| search.matches(*id)).collect()
    }

    #[test]
    fn every_test_and_their_conjunction() {
        let test = |name: &str| matching(&format!("{{\"idValue\":3,\"idTest\":\"{name}\"}}"));
        assert_eq!(test("less-than"), [1, 2]);
        assert_eq!(test("less-than-or-equal"), [1, 2, 3]);
        assert_eq!(test("equal"), [3]);
        assert_eq!(test("greater-than-or-equal"), [3, 4, 5]);
        assert_eq!(test("greater-than"), [4, 5]);
        assert_eq!(test("not-equal"), [1, 2, 4, 5]);
        assert_eq!(matching("{\"idValue\":3}"), [3]);
        let both = "{\"idValue\":1,\"idTest\":\"greater-than\"},\
                    {\"idValue\":4,\"idTest\":\"less-than\"}";
        assert_eq!(matching(both), [2, 3]);
    }

    #[test]
    fn bodies_are_read_or_refused() {
        assert_eq!(read("").map(|search| search.max_items), Some(5000));
        assert_eq!(read("{\"maxItems\":9000}").map(|search| search.max_items), Some(5000));
        assert_eq!(read("{\"maxItems\":7,\"max_items\":1}").map(|it| it.max_items), Some(7));
        assert_eq!(read("{\"sortByObjectID\":\"true\"}").map(|it| it.is_sorted), Some(true));
        for wrong in [
            "[]",
            "nonsense",
            "{\"maxItems\":0}",
            "{\"maxItems\":\"ten\"}",
            "{\"sortByObjectID\":1}",
            "{\"searchCriteria\":{}}",
            "{\"searchCriteria\":[{\"idTest\":\"equal\"}]}",
            "{\"searchCriteria\":[{\"idValue\":1,\"idTest\":\"greather-than-or-equal\"}]}",
            "{\"searchCriteria\":[{\"fieldName\":\"hostName\",\"stringValue\":\"a\"}]}",
        ] {
            assert!(read(wrong).is_none(), "{wrong}");
        }
    }
}
