//! `--log` and `--trace`.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use anyhow::Context;
use tracing::level_filters::LevelFilter;
use tracing_chrome::{ChromeLayerBuilder, FlushGuard};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::FmtSpan;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

/// The crates whose spans a trace holds: what libraries log would bury them.
const TRACED: [&str; 6] = ["flow", "host", "learn", "model", "record", "spec"];

/// A trace that is being written; complete when it is dropped.
pub struct Trace {
    path: PathBuf,
    guard: Option<FlushGuard>,
    failed: Arc<OnceLock<io::Error>>,
}

impl Drop for Trace {
    fn drop(&mut self) {
        drop(self.guard.take());
        if let Some(error) = self.failed.get() {
            super::say(&format!("warning: the trace {} is not complete: {error}", self.path.display()));
        }
    }
}

/// A file that remembers its first error and swallows what comes after: the layer panics on one, and a run goes on.
struct Tolerant {
    file: File,
    failed: Arc<OnceLock<io::Error>>,
}

impl Write for Tolerant {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.failed.get().is_none()
            && let Err(error) = self.file.write_all(bytes)
        {
            // Whoever came first has said why.
            let _ = self.failed.set(error);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Starts logging to stderr and writing a Chrome trace, as asked.
pub fn start(log: Option<&str>, trace: Option<&Path>) -> anyhow::Result<Option<Trace>> {
    if log.is_none() && trace.is_none() {
        return Ok(None);
    }
    let filter =
        EnvFilter::try_new(log.unwrap_or("off")).context("`--log` takes a level or a filter such as `flow=debug`")?;
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(super::colors())
        .log_internal_errors(false)
        .with_span_events(FmtSpan::CLOSE)
        .with_filter(filter);
    let (chrome, trace) = match trace {
        Some(path) => {
            let file = File::create(path).with_context(|| format!("failed to create {}", path.display()))?;
            let failed = Arc::new(OnceLock::new());
            let writer = Tolerant { file, failed: failed.clone() };
            let (layer, guard) = ChromeLayerBuilder::new().writer(writer).include_args(true).build();
            let spans = Targets::new().with_targets(TRACED.map(|name| (name, LevelFilter::TRACE)));
            (Some(layer.with_filter(spans)), Some(Trace { path: path.to_owned(), guard: Some(guard), failed }))
        }
        None => (None, None),
    };
    tracing_subscriber::registry().with(lines).with(chrome).init();
    Ok(trace)
}
