//! Native helpers of scripts, so that they stay glue. A helper that walks text adds to the operations.
//!
//! | helper | gives |
//! | --- | --- |
//! | `tag(text, name)` | what the last `<name>..</name>` holds, or `()` |
//! | `tags(text, name)` | what each `<name>..</name>` holds |
//! | `blocks(text)` | the text as a list of `#{ tag, text }`; `tag` is `""` for what stands outside of all tags |
//! | `boxed(text)` | what the last `\boxed{..}` holds, or `()` |
//! | `count(text, part)` | how often `part` stands in `text`, without overlap |
//! | `words(text)`, `count_words(text)` | the words between white space; their number |
//! | `number(text)` | the number that the text is (`-1,234.5`, `$3`), or `()` |
//! | `numbers(text)` | all numbers in the text |
//! | `shuffled(list, seed, a, b)` | the list in an order that depends on the three numbers alone |
//! | `floor`, `ceiling`, `round`, `to_int`, `to_float`, `sqrt`, `exp`, `ln`, `pow`, `is_nan` | the same on every machine |
//! | `undecided(reason)`, `not_applicable()` | verdicts |
//! | `mask(reason)`, `drop(reason)` | decisions; the third is `"keep"` |
//! | `log(text)` | a line in the log |

use std::fmt::Display;

use base::RngKey;
use rhai::{Array, Dynamic, Engine, EvalAltResult, ImmutableString, Map};

use super::meter::{log, walk};

type Result<T> = std::result::Result<T, Box<EvalAltResult>>;

pub(super) fn register(engine: &mut Engine) {
    engine
        .register_fn("tag", |text: &str, name: &str| -> Result<Dynamic> {
            walk(2 * text.len())?;
            Ok(tags(text, name).pop().map_or(Dynamic::UNIT, Into::into))
        })
        .register_fn("tags", |text: &str, name: &str| -> Result<Array> {
            walk(2 * text.len())?;
            Ok(tags(text, name).into_iter().map(Into::into).collect())
        })
        .register_fn("blocks", |text: &str| -> Result<Array> {
            walk(4 * text.len())?;
            let block = |(tag, text): (&str, &str)| -> Dynamic {
                Map::from([("tag".into(), tag.into()), ("text".into(), text.into())]).into()
            };
            Ok(blocks(text).into_iter().map(block).collect())
        })
        .register_fn("boxed", |text: &str| -> Result<Dynamic> {
            walk(2 * text.len())?;
            Ok(boxed(text).map_or(Dynamic::UNIT, Into::into))
        })
        .register_fn("count", |text: &str, part: &str| -> Result<i64> {
            walk(text.len())?;
            Ok(if part.is_empty() { 0 } else { text.matches(part).count() as i64 })
        })
        .register_fn("words", |text: &str| -> Result<Array> {
            walk(8 * text.len())?;
            Ok(text.split_whitespace().map(Into::into).collect())
        })
        .register_fn("count_words", |text: &str| -> Result<i64> {
            walk(text.len())?;
            Ok(text.split_whitespace().count() as i64)
        })
        .register_fn("number", |text: &str| -> Result<Dynamic> {
            walk(text.len())?;
            Ok(number(text).map_or(Dynamic::UNIT, Dynamic::from))
        })
        .register_fn("numbers", |text: &str| -> Result<Array> {
            walk(4 * text.len())?;
            let part = |c: char| !(c.is_ascii_digit() || matches!(c, '.' | ',' | '-'));
            let trimmed = text.split(part).map(|word| word.trim_end_matches(['.', ',', '-']));
            Ok(trimmed.filter_map(number).map(Dynamic::from).collect())
        })
        .register_fn("shuffled", |list: Array, seed: i64, a: i64, b: i64| -> Result<Array> {
            walk(64 * list.len())?;
            let order = RngKey::new(seed as u64, "shuffled").derive(&format!("{a}/{b}")).permutation(0, list.len());
            Ok(order.into_iter().map(|i| list[i].clone()).collect())
        })
        .register_fn("log", log);
    numbers(engine);
    strings(engine);
    let word = |name: &'static str| move |reason: &str| Map::from([(name.into(), reason.into())]);
    engine
        .register_fn("undecided", word("undecided"))
        .register_fn("mask", word("mask"))
        .register_fn("drop", word("drop"))
        .register_fn("not_applicable", || Map::from([("not_applicable".into(), true.into())]));
    // The language's own would wait in real time.
    let asleep = || -> Result<()> { Err("`sleep` is not given to plugins".into()) };
    engine.register_fn("sleep", move |_: i64| asleep()).register_fn("sleep", move |_: f64| asleep());
}

/// The language's own functions that make strings out of strings, metered: so a script's budget bounds its memory too.
fn strings(engine: &mut Engine) {
    fn joined(a: impl Display, b: impl Display, bytes: usize) -> Result<String> {
        walk(bytes)?;
        Ok(format!("{a}{b}"))
    }
    fn append(text: &mut ImmutableString, more: impl Display, bytes: usize) -> Result<()> {
        // A string that is shared is copied; that can't be seen from here.
        walk(text.len() / 32 + bytes)?;
        if text.len() + bytes > super::STRING {
            return Err("the string is too long".into());
        }
        *text += more.to_string();
        Ok(())
    }
    fn parts<'a>(text: &str, parts: impl Iterator<Item = &'a str>) -> Result<Array> {
        walk(8 * text.len())?;
        let mut array = Array::new();
        for part in parts {
            if array.len() == super::ARRAY {
                return Err("the list is too long".into());
            }
            array.push(part.into());
        }
        Ok(array)
    }
    fn replace(text: &mut ImmutableString, from: &str, to: &str) -> Result<()> {
        let grown = text.len() + if to.len() > from.len() { text.matches(from).count() * to.len() } else { 0 };
        walk(text.len() + grown)?;
        if grown > super::STRING {
            return Err("the string is too long".into());
        }
        *text = text.replace(from, to).into();
        Ok(())
    }
    engine
        .register_fn("+", |a: &str, b: &str| joined(a, b, a.len() + b.len()))
        .register_fn("+", |a: &str, b: char| joined(a, b, a.len() + 4))
        .register_fn("+", |a: char, b: &str| joined(a, b, b.len() + 4))
        .register_fn("+=", |a: &mut ImmutableString, b: &str| append(a, b, b.len()))
        .register_fn("+=", |a: &mut ImmutableString, b: char| append(a, b, 4))
        .register_fn("append", |a: &mut ImmutableString, b: &str| append(a, b, b.len()))
        .register_fn("split", |text: &str| parts(text, text.split_whitespace()))
        .register_fn("split", |text: &str, by: &str| parts(text, text.split(by)))
        .register_fn("split", |text: &str, by: char| parts(text, text.split(by)))
        .register_fn("split_rev", |text: &str, by: &str| parts(text, text.rsplit(by)))
        .register_fn("split_rev", |text: &str, by: char| parts(text, text.rsplit(by)))
        .register_fn("to_chars", |text: &str| -> Result<Array> {
            walk(8 * text.len())?;
            if text.len() > super::ARRAY {
                return Err("the list is too long".into());
            }
            Ok(text.chars().map(Into::into).collect())
        })
        .register_fn("replace", |text: &mut ImmutableString, from: &str, to: &str| replace(text, from, to))
        .register_fn("to_upper", |text: &str| walk(4 * text.len()).map(|()| text.to_uppercase()))
        .register_fn("to_lower", |text: &str| walk(4 * text.len()).map(|()| text.to_lowercase()))
        .register_fn("sub_string", |text: &str, start: i64| walk(text.len()).map(|()| part(text, start, i64::MAX)))
        .register_fn("sub_string", |text: &str, start: i64, n: i64| walk(text.len()).map(|()| part(text, start, n)));
}

/// `n` characters from `start` on, which counts from the end if it is negative.
fn part(text: &str, start: i64, n: i64) -> String {
    let start = match usize::try_from(start) {
        Ok(start) => start,
        Err(_) => text.chars().count().saturating_sub(start.unsigned_abs() as usize),
    };
    text.chars().skip(start).take(usize::try_from(n).unwrap_or(0)).collect()
}

fn numbers(engine: &mut Engine) {
    let to_int = |x: f64| -> Result<i64> {
        // Beyond this a float no longer tells neighbouring integers apart.
        if x.abs() <= 9_007_199_254_740_992.0 { Ok(x as i64) } else { Err(format!("{x} is no integer").into()) }
    };
    engine
        .register_fn("floor", libm::floor)
        .register_fn("ceiling", libm::ceil)
        .register_fn("round", libm::round)
        .register_fn("sqrt", libm::sqrt)
        .register_fn("exp", libm::exp)
        .register_fn("ln", libm::log)
        .register_fn("pow", libm::pow)
        .register_fn("pow", |x: f64, y: i64| libm::pow(x, y as f64))
        .register_fn("is_nan", f64::is_nan)
        .register_fn("to_float", |x: i64| x as f64)
        .register_fn("to_float", |x: f64| x)
        .register_fn("to_int", to_int)
        .register_fn("to_int", |x: i64| x);
}

/// What stands in each `<name>..</name>`, in order; the innermost where they are nested.
fn tags<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(end) = rest.find(&close) {
        if let Some(start) = rest[..end].rfind(&open) {
            found.push(&rest[start + open.len()..end]);
        }
        rest = &rest[end + close.len()..];
    }
    found
}

/// The text as tagged blocks and what stands outside of them, in order; white space between blocks is left out.
fn blocks(text: &str) -> Vec<(&str, &str)> {
    let mut found = Vec::new();
    let (mut outside, mut at) = (0, 0);
    let outer = |from: usize, to: usize, found: &mut Vec<_>| {
        let text = text[from..to].trim();
        if !text.is_empty() {
            found.push(("", text));
        }
    };
    while let Some(start) = text[at..].find('<').map(|i| at + i) {
        let name_end = text[start + 1..].find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '-')));
        let Some(name_end) = name_end.map(|i| start + 1 + i) else { break };
        let name = &text[start + 1..name_end];
        at = start + 1;
        if name.is_empty() || !text[name_end..].starts_with('>') {
            continue;
        }
        let close = format!("</{name}>");
        let Some(end) = text[name_end..].find(&close).map(|i| name_end + i) else { continue };
        outer(outside, start, &mut found);
        found.push((name, &text[name_end + 1..end]));
        at = end + close.len();
        outside = at;
    }
    outer(outside, text.len(), &mut found);
    found
}

/// What the last `\boxed{..}` holds, braces matched.
fn boxed(text: &str) -> Option<&str> {
    let start = text.rfind("\\boxed{")? + "\\boxed{".len();
    let mut depth = 1;
    for (i, byte) in text[start..].bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(&text[start..start + i]);
        }
    }
    None
}

/// A decimal number with separators between thousands and perhaps a currency sign.
fn number(text: &str) -> Option<f64> {
    let text = text.trim();
    let (sign, digits) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text),
    };
    let digits = digits.trim_start_matches(['$', '€', '£']);
    if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') || !digits.ends_with(|c: char| c.is_ascii_digit())
    {
        return None;
    }
    if digits.bytes().any(|byte| !(byte.is_ascii_digit() || matches!(byte, b'.' | b','))) {
        return None;
    }
    digits.replace(',', "").parse::<f64>().ok().map(|number| sign * number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_and_what_stands_outside() {
        let text = "<think>a < b</think>\n<answer>1</answer> so";
        assert_eq!(blocks(text), [("think", "a < b"), ("answer", "1"), ("", "so")]);
        assert_eq!(blocks("x<think>never closed"), [("", "x<think>never closed")]);
        assert_eq!(blocks(" \n"), []);
        assert_eq!(blocks("é<é<a></a>"), [("", "é<é"), ("a", "")]);
    }

    #[test]
    fn tags_boxes_and_numbers() {
        assert_eq!(tags("<a>1</a><a><a>2</a></a></a>", "a"), ["1", "2"]);
        assert_eq!(boxed(r"\boxed{1} and \boxed{\frac{1}{2}}."), Some(r"\frac{1}{2}"));
        assert_eq!(boxed(r"\boxed{1"), None);
        assert_eq!(number(" -$1,234.50 "), Some(-1234.5));
        assert_eq!([number("1e5"), number("inf"), number(""), number("1."), number("1.2.3")], [None; 5]);
    }
}
