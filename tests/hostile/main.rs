//! Attacks on the sandbox, by components, scripts and programs. Each is run beside honest work, and must end, with a reason,
//! having changed nothing else: not a neighbour's verdict, not a file, not the next call.
//!
//! | file | who attacks |
//! | --- | --- |
//! | `components.rs` | WebAssembly components: when they are loaded, started, configured and called |
//! | `scripts.rs` | Rhai scripts |
//! | `loading.rs` | files that pose as components, and the cache of compiled ones |

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "../../core/host/tests/common/mod.rs"]
mod common;
mod components;
mod guest;
mod loading;
mod scripts;

use std::sync::mpsc;
use std::time::Duration;

use base::Verdict;
use common::{ctx, group, score};
use host::Configured;

/// Far above what any attack takes; one that reaches it hangs.
const PATIENCE: Duration = Duration::from_secs(120);

/// Runs an attack on a thread of its own, and fails if it does not end.
fn ends<T: Send + 'static>(name: &str, attack: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = mpsc::channel();
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || sender.send(attack())).unwrap();
    match receiver.recv_timeout(PATIENCE) {
        Ok(found) => found,
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("{name}: hangs"),
        Err(mpsc::RecvTimeoutError::Disconnected) => match thread.join() {
            Err(panic) => std::panic::resume_unwind(panic),
            Ok(_) => unreachable!("the thread sends before it ends"),
        },
    }
}

/// The verdict on `text` between two honest texts, which must be judged as ever, in this call and in one that follows.
fn verdict_among_honest(plugin: &Configured, text: &str) -> Verdict {
    let honest = group(Some("2"), &["2", "3"]);
    let verdicts = plugin.verify(&ctx(), &group(Some("2"), &["2", text, "3"])).unwrap();
    let [right, middle, wrong] = verdicts.try_into().unwrap();
    assert_eq!((right, wrong), (score(1.0), score(0.0)), "the neighbours of {text}");
    let after = plugin.verify(&ctx(), &honest).unwrap();
    assert_eq!(after, [score(1.0), score(0.0)], "the call after {text}");
    middle
}

/// The reason why the text in the middle is undecided.
fn reason(name: &str, verdict: Verdict) -> String {
    match verdict {
        Verdict::Undecided(reason) => reason,
        other => panic!("{name}: {other:?}"),
    }
}

/// Fails unless `found` holds `part`; all attacks of a table are compared at once.
fn compare(found: &[(String, String)], expected: &[&str]) {
    let wrong: Vec<String> = found
        .iter()
        .zip(expected)
        .filter(|((_, found), part)| !found.contains(**part))
        .map(|((name, found), part)| format!("{name}\n  expected: {part}\n  found:    {found}"))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
