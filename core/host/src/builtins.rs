//! The plugins that the tool carries; their sources, tests and documentation are in `plugins/`.

use crate::HostError;

/// Name, code, whether it is a script, and its `plugin.toml`.
type Builtin = (&'static str, &'static [u8], bool, Option<&'static str>);

// `BUILTINS`, in alphabetical order.
include!(concat!(env!("OUT_DIR"), "/builtins.rs"));

/// The names of the builtin plugins, in alphabetical order.
pub fn builtins() -> &'static [&'static str] {
    const NAMES: [&str; BUILTINS.len()] = {
        let mut names = [""; BUILTINS.len()];
        let mut i = 0;
        while i < names.len() {
            names[i] = BUILTINS[i].0;
            i += 1;
        }
        names
    };
    &NAMES
}

/// The `plugin.toml` of a builtin, if it has one: the limits it needs, and its tests.
///
/// # Errors
/// There is no builtin of this name; the message suggests one.
pub fn builtin(name: &str) -> Result<Option<&'static str>, HostError> {
    entry(name).map(|builtin| builtin.3)
}

/// The code of a builtin, and whether it is a script.
pub(crate) fn find(name: &str) -> Result<(&'static [u8], bool), HostError> {
    entry(name).map(|builtin| (builtin.1, builtin.2))
}

fn entry(name: &str) -> Result<&'static Builtin, HostError> {
    if let Some(builtin) = BUILTINS.iter().find(|builtin| builtin.0 == name) {
        return Ok(builtin);
    }
    let suggestion = nearest(name, builtins().iter().copied());
    Err(HostError::UnknownBuiltin { name: name.into(), suggestion, known: builtins().join(", ") })
}

/// The known name that `name` may be meant to be.
pub(crate) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let close = |known: &&str| distance(name, known) <= 1 + name.len().max(known.len()) / 4;
    known.filter(close).min_by_key(|known| distance(name, known))
}

/// Levenshtein's distance in bytes.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_and_a_typo_is_understood() {
        assert!(builtins().is_sorted());
        let message = find("fromat").map(|_| ()).unwrap_err().to_string();
        assert!(message.contains("did you mean `format`?"), "{message}");
        assert!(find("zzzzzzzz").is_err_and(|error| !error.to_string().contains("did you mean")));
    }
}
