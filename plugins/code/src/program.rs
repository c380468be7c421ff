//! Puts a program together whose start the row gives.

/// What a body is indented by where it is not.
const INDENTATION: &str = "    ";

/// `start`, and then `block`: the rest of its last function, or that function once more.
pub fn complete(start: &str, block: &str, entry_point: Option<&str>) -> String {
    let name = entry_point.or_else(|| start.lines().filter_map(defined).next_back());
    let is_whole = block.lines().any(|line| match (defined(line), name) {
        (Some(found), Some(name)) => found == name,
        (found, _) => found.is_some(),
    });
    if is_whole {
        return format!("{}\n\n{block}", start.trim_end());
    }
    let is_indented = |line: &str| line.starts_with([' ', '\t']);
    let first = block.lines().find(|line| !line.trim().is_empty());
    if start.trim_end().ends_with('{') || first.is_none_or(is_indented) {
        return format!("{}\n{block}", start.trim_end());
    }
    // The first line lost its indentation, as it does where a completion is trimmed, or all lines did.
    let rest_is_indented = block.lines().filter(|line| !line.trim().is_empty()).skip(1).all(is_indented);
    let is_trimmed = rest_is_indented && !first.is_some_and(|line| line.trim_end().ends_with(':'));
    let mut text = format!("{}\n", start.trim_end());
    for (i, line) in block.lines().skip_while(|line| line.trim().is_empty()).enumerate() {
        if !line.trim().is_empty() && (i == 0 || !is_trimmed) {
            text.push_str(INDENTATION);
        }
        text.push_str(line);
        text.push('\n');
    }
    text
}

/// The function or class that a line defines, outside of all others.
fn defined(line: &str) -> Option<&str> {
    let words =
        ["def ", "async def ", "class ", "function ", "async function ", "function* ", "const ", "let ", "var "];
    let rest = words.into_iter().find_map(|word| line.strip_prefix(word))?.trim_start();
    let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_' && c != '$').unwrap_or(rest.len());
    (end > 0).then(|| &rest[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: &str = "import math\n\ndef g(x):\n    return x\n\ndef f(x):\n    \"\"\"Doubles.\"\"\"\n";

    #[test]
    fn a_body_goes_on_and_a_whole_function_takes_its_place() {
        for (block, expected) in [
            ("    return 2 * x\n", "    return 2 * x\n"),
            ("return 2 * x\n", "    return 2 * x\n"),
            ("y = 2 * x\n    return y\n", "    y = 2 * x\n    return y\n"),
            ("y = 2 * x\n\nreturn y", "    y = 2 * x\n\n    return y\n"),
            ("if x:\n    return 2 * x\nreturn 0", "    if x:\n        return 2 * x\n    return 0\n"),
            ("def f(x):\n    return 2 * x\n", "\ndef f(x):\n    return 2 * x\n"),
            (
                "def h(x):\n    return 2 * x\n\ndef f(x):\n    return h(x)\n",
                "\ndef h(x):\n    return 2 * x\n\ndef f(x):\n    return h(x)\n",
            ),
            ("    return h(x)\n\ndef h(x):\n    return 2 * x\n", "    return h(x)\n\ndef h(x):\n    return 2 * x\n"),
        ] {
            assert_eq!(complete(START, block, None), format!("{START}{expected}"), "{block}");
            assert_eq!(complete(START, block, Some("f")), format!("{START}{expected}"), "{block}");
        }
        assert_eq!(complete("function f(x) {", "  return x;\n}", None), "function f(x) {\n  return x;\n}");
        assert_eq!(complete("function f(x) {", "return x;\n}", None), "function f(x) {\nreturn x;\n}");
    }
}
