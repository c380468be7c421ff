//! Ctrl-C: the first ends the run after the step, with a checkpoint; the second ends it at once.

use anyhow::Context;

use crate::exit_code;

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
