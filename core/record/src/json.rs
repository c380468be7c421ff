//! JSON with one spelling: what is equal has equal bytes.

use serde_json::Value;

/// The value with the keys of every object in ascending order.
pub(crate) fn sorted(value: &Value) -> Value {
    match value {
        Value::Array(items) => Value::Array(items.iter().map(sorted).collect()),
        Value::Object(map) => {
            let mut pairs: Vec<_> = map.iter().map(|(key, value)| (key.clone(), sorted(value))).collect();
            pairs.sort_by(|a, b| a.0.cmp(&b.0));
            Value::Object(pairs.into_iter().collect())
        }
        other => other.clone(),
    }
}

/// The blake3 hash, in hexadecimal, of the value's compact form with sorted keys.
pub(crate) fn hash(value: &Value) -> String {
    blake3::hash(sorted(value).to_string().as_bytes()).to_hex().to_string()
}

/// The value for a person: sorted, indented, with a final newline.
pub(crate) fn pretty(value: &Value) -> String {
    format!("{:#}\n", sorted(value))
}

/// Where two values differ, as `a.b is 1 there and 2 here`, the first `limit` places.
pub(crate) fn differences(there: &Value, here: &Value, limit: usize) -> Vec<String> {
    let mut found = Vec::new();
    walk("", there, here, &mut found);
    if found.len() > limit {
        let more = found.len() - limit;
        found.truncate(limit);
        found.push(format!("and {more} more"));
    }
    found
}

fn walk(path: &str, there: &Value, here: &Value, found: &mut Vec<String>) {
    match (there, here) {
        (Value::Object(a), Value::Object(b)) => {
            let mut keys: Vec<&String> = a.keys().chain(b.keys().filter(|key| !a.contains_key(*key))).collect();
            keys.sort();
            for key in keys {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                match (a.get(key), b.get(key)) {
                    (Some(a), Some(b)) => walk(&path, a, b, found),
                    (Some(_), None) => found.push(format!("`{path}` is only there")),
                    _ => found.push(format!("`{path}` is only here")),
                }
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (i, (a, b)) in a.iter().zip(b).enumerate() {
                walk(&format!("{path}[{i}]"), a, b, found);
            }
        }
        _ if sorted(there) == sorted(here) => {}
        _ => found.push(format!("`{path}` is {} there and {} here", short(there), short(here))),
    }
}

fn short(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() <= 40 { text } else { text.chars().take(37).chain("...".chars()).collect() }
}
