//! Progress of a file that is judged: a bar on a terminal, counted lines elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use author::Summary;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::ui;
use crate::ui::table::thousands;

/// Without a terminal, a line in this time is enough.
const QUIET: Duration = Duration::from_secs(5);

/// Shows on stderr how far it is.
pub struct Progress {
    bar: Option<ProgressBar>,
    start: Instant,
    shown: Instant,
}

impl Progress {
    /// `bytes` is the length of the input, where it is known.
    pub fn new(bytes: Option<u64>) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let target = ProgressDrawTarget::stderr();
            let template = match bytes {
                Some(_) => "{wide_bar} {percent}% {msg} eta {eta}",
                None => "{spinner} {msg}",
            };
            let bar = ProgressBar::with_draw_target(bytes, target);
            bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar
        });
        Self { bar, start: Instant::now(), shown: Instant::now() }
    }

    /// Shows what was judged so far, if it is time.
    pub fn show(&mut self, summary: &Summary) {
        let pause = if self.bar.is_some() { QUIET / 50 } else { QUIET };
        if self.shown.elapsed() < pause {
            return;
        }
        self.shown = Instant::now();
        let rate = summary.completions as f64 / self.start.elapsed().as_secs_f64();
        let line = format!("{} completions, {} a second", thousands(summary.completions), thousands(rate as u64));
        match &self.bar {
            Some(bar) => {
                bar.set_position(summary.bytes);
                bar.set_message(line);
            }
            None => ui::say(&line),
        }
    }

    /// Takes the bar away; the seconds since the start.
    pub fn finish(self) -> f64 {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
        self.start.elapsed().as_secs_f64()
    }
}
