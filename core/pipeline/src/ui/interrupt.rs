//! Ctrl-C: the first ends the run after the step, with a checkpoint; the second ends it at once. A file that is half written
//! goes with it.

use std::path::PathBuf;

use anyhow::Context;

use crate::exit_code;

/// What a shell says of a process that SIGINT ended.
const SIGINT: i32 = 128 + 2;

/// Ctrl-C removes this file and ends the process.
pub fn remove(partial: PathBuf) -> anyhow::Result<()> {
    ctrlc::set_handler(move || {
        // The process ends either way, and the file may be whole by now and have its name.
        let _ = std::fs::remove_file(&partial);
        #[expect(clippy::exit, reason = "who interrupts wants the process to end at once")]
        std::process::exit(SIGINT);
    })
    .context("failed to install the handler of Ctrl-C")
}

pub fn install(interrupt: flow::Interrupt) -> anyhow::Result<()> {
    ctrlc::set_handler(move || {
        if interrupt.request() {
            super::say("\nfinishing the step, then a checkpoint; once more to stop at once");
        } else {
            super::say("\nstopped; what was committed is kept");
            #[expect(clippy::exit, reason = "the second signal asks for the process to end at once")]
            std::process::exit(exit_code::INTERRUPTED.into());
        }
    })
    .context("failed to install the handler of Ctrl-C")
}
