//! Progress while a run is under way: a bar on a terminal, counted lines elsewhere.

use std::io::IsTerminal;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use flow::{Event, Observer};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{escape, say};

/// Without a terminal, a line a step would drown a log: one in this time is enough.
const QUIET: Duration = Duration::from_secs(5);

/// Shows a run's events on stderr.
pub struct Progress {
    on_terminal: bool,
    state: Mutex<State>,
}

struct State {
    bar: ProgressBar,
    spoken: Option<Instant>,
}

impl Progress {
    /// Progress for the process's stderr.
    pub fn new() -> Self {
        let on_terminal = std::io::stderr().is_terminal();
        Self { on_terminal, state: Mutex::new(State { bar: ProgressBar::hidden(), spoken: None }) }
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        self.with(|state| state.bar.finish_and_clear());
    }

    fn with(&self, f: impl FnOnce(&mut State)) {
        f(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn line(&self, text: &str) {
        // What a file or a model wrote may be part of it.
        let text = escape(text);
        self.with(|state| state.bar.suspend(|| say(&text)));
    }
}

impl Observer for Progress {
    fn notice(&self, event: &Event<'_>) {
        match event {
            Event::Folder { path } => self.line(&format!("run folder: {}", path.display())),
            Event::PhaseStarted { phase, done, steps } => {
                self.line(&format!("{phase}: {}", from(*done, *steps)));
                self.with(|state| {
                    state.bar.finish_and_clear();
                    state.spoken = None;
                    if self.on_terminal {
                        let bar = ProgressBar::with_draw_target(Some(*steps), ProgressDrawTarget::stderr());
                        let style = ProgressStyle::with_template("{prefix} {wide_bar} {pos}/{len} {msg} eta {eta}");
                        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
                        bar.set_prefix(escape(phase));
                        bar.set_position(*done);
                        state.bar = bar;
                    }
                });
            }
            Event::PhaseSkipped { phase } => self.line(&format!("{phase}: has ended before")),
            Event::Step { phase, step, steps, metrics, seconds } => {
                let message = numbers(metrics, *seconds);
                self.with(|state| {
                    state.bar.set_position(*step);
                    state.bar.set_message(message.clone());
                    let due = state.spoken.is_none_or(|spoken| spoken.elapsed() >= QUIET) || step == steps;
                    if !self.on_terminal && due {
                        state.spoken = Some(Instant::now());
                        say(&format!("{}: step {step}/{steps}  {message}", escape(phase)));
                    }
                });
            }
            Event::StoppedEarly { phase, step, steps } => {
                self.line(&format!("{phase}: ends early, after {step} of {steps} steps"));
            }
            Event::Evaluated { phase, step, name, metrics } => {
                let prefix = format!("eval/{name}/");
                // What plugins measured beside their scores has a name of more parts; it stands in the metrics.
                let parts: Vec<String> = metrics
                    .iter()
                    .map(|(name, number)| (name.strip_prefix(&prefix).unwrap_or(name), number))
                    .filter(|(name, _)| !name.contains('/'))
                    .map(|(name, number)| format!("{name} {number:.3}"))
                    .collect();
                self.line(&format!("{phase}: step {step}: {name}: {}", parts.join("  ")));
            }
            Event::Committed { .. } => {}
            Event::Rewound { phase, to: 0 } => {
                self.line(&format!("resuming: nothing of {phase} was committed, so it starts from its beginning"));
            }
            Event::Rewound { phase, to } => {
                self.line(&format!("resuming: {phase} goes on from its checkpoint of step {to}"));
            }
            Event::Gate { passed, text } => {
                self.line(&format!("gate {}: {text}", if *passed { "passed" } else { "missed" }));
            }
            Event::Warning { message } => self.line(&format!("warning: {message}")),
        }
    }
}

fn from(done: u64, steps: u64) -> String {
    let plural = if steps == 1 { "" } else { "s" };
    match done {
        0 => format!("{steps} step{plural}"),
        done => format!("{steps} step{plural}, {done} of them done"),
    }
}

/// What people look at first, where it was measured.
const SHOWN: [(&str, &str); 6] = [
    ("loss", "loss"),
    ("accuracy", "accuracy"),
    ("reward", "reward"),
    ("completions/mean_length", "length"),
    ("groups_learned", "groups"),
    ("kl", "kl"),
];

fn numbers(metrics: &[(String, f64)], seconds: f64) -> String {
    let mut text = String::new();
    for (name, shown) in SHOWN {
        if let Some((_, number)) = metrics.iter().find(|(metric, _)| metric == name) {
            text.push_str(&format!("{shown} {number:.3}  "));
        }
    }
    text.push_str(&format!("{seconds:.2} s"));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_what_was_measured_in_a_fixed_order() {
        let metrics = [("reward".to_owned(), 0.25), ("loss".to_owned(), -1.0), ("other".to_owned(), 9.0)];
        assert_eq!(numbers(&metrics, 1.234), "loss -1.000  reward 0.250  1.23 s");
        assert_eq!(from(3, 10), "10 steps, 3 of them done");
    }
}
