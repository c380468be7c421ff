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
        (Value::String(there), Value::String(here)) => {
            let (there, here) = (chars(there), chars(here));
            let same = there.iter().zip(&here).take_while(|(a, b)| a == b).count();
            found.push(format!("`{path}` is {} there and {} here", around(&there, same), around(&here, same)));
        }
        _ => found.push(format!("`{path}` is {} there and {} here", short(there), short(here))),
    }
}

/// The longest value that is shown whole.
const WHOLE: usize = 40;

fn chars(text: &str) -> Vec<char> {
    text.chars().collect()
}

/// A string, quoted; of a long one the part about its character `at`, of a hash less.
fn around(text: &[char], at: usize) -> String {
    let window = if text.len() >= 32 && text.iter().all(char::is_ascii_hexdigit) { 12 } else { WHOLE };
    if text.len() <= window {
        return Value::String(text.iter().collect()).to_string();
    }
    let start = if at < window { 0 } else { (at - window / 4).min(text.len() - window) };
    let before = if start > 0 { "..." } else { "" };
    let after = if start + window < text.len() { "..." } else { "" };
    let part: String = text[start..start + window].iter().collect();
    Value::String(format!("{before}{part}{after}")).to_string()
}

fn short(value: &Value) -> String {
    let text = value.to_string();
    match value {
        Value::String(text) => around(&chars(text), 0),
        Value::Array(items) if text.chars().count() > WHOLE => format!("a list of {}", items.len()),
        Value::Object(map) if text.chars().count() > WHOLE => format!("a map of {}", map.len()),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn difference(there: &Value, here: &Value) -> String {
        differences(&json!({ "a": there }), &json!({ "a": here }), 5).join(", ")
    }

    #[test]
    fn what_differs_can_be_seen_in_long_values() {
        assert_eq!(difference(&json!(0.0001), &json!(0.0002)), "`a` is 0.0001 there and 0.0002 here");
        assert_eq!(difference(&json!("x\"y"), &json!(null)), r#"`a` is "x\"y" there and null here"#);
        let (one, other) = (blake3::hash(b"1").to_hex().to_string(), blake3::hash(b"2").to_hex().to_string());
        let message = difference(&json!(one), &json!(other));
        assert_eq!(message, format!("`a` is \"{}...\" there and \"{}...\" here", &one[..12], &other[..12]));
        // Hashes with a common beginning are shown from where they differ.
        let alike = format!("{}{}", &one[..60], "0000");
        let message = difference(&json!(one), &json!(alike));
        assert_eq!(message, format!("`a` is \"...{}\" there and \"...{}\" here", &one[52..], &alike[52..]));
        let long = |end: &str| json!(format!("/a/folder/{}/{end}/rows.jsonl", "deep".repeat(30)));
        let message = difference(&long("first"), &long("second"));
        assert!(message.contains("deep/first/rows.jsonl\" there and \"..."), "{message}");
        assert!(message.ends_with("deep/second/rows.jsonl\" here"), "{message}");
        let prefix = "é".repeat(50);
        let message = difference(&json!(prefix), &json!("short"));
        assert_eq!(message, format!("`a` is \"{}...\" there and \"short\" here", "é".repeat(40)));
        let list = |count: usize| json!(vec!["a stage"; count]);
        assert_eq!(difference(&list(20), &list(2)), "`a` is a list of 20 there and [\"a stage\",\"a stage\"] here");
    }
}
