//! The user's folders, by the XDG base directory specification.

use std::ffi::OsString;
use std::path::PathBuf;

/// `pipeline` in the folder of what can be made anew: `$XDG_CACHE_HOME`, or `~/.cache`.
pub(crate) fn cache() -> Option<PathBuf> {
    user_folder("XDG_CACHE_HOME", ".cache")
}

/// `pipeline` in the folder of what is kept from one run of the program to the next: `$XDG_STATE_HOME`, or `~/.local/state`.
pub(crate) fn state() -> Option<PathBuf> {
    user_folder("XDG_STATE_HOME", ".local/state")
}

fn user_folder(variable: &str, below_home: &str) -> Option<PathBuf> {
    let absolute = |value: OsString| Some(PathBuf::from(value)).filter(|path| path.is_absolute());
    let home = || std::env::var_os("HOME").and_then(absolute).map(|home| home.join(below_home));
    Some(std::env::var_os(variable).and_then(absolute).or_else(home)?.join("pipeline"))
}
