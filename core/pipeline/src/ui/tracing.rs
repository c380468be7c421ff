//! `--log` and `--trace`.

use std::path::Path;

use anyhow::Context;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

/// Starts logging to stderr and writing a Chrome trace, as asked. The trace is complete when the guard is dropped.
pub fn start(log: Option<&str>, trace: Option<&Path>) -> anyhow::Result<Option<tracing_chrome::FlushGuard>> {
    if log.is_none() && trace.is_none() {
        return Ok(None);
    }
    let filter =
        EnvFilter::try_new(log.unwrap_or("off")).context("`--log` takes a level or a filter such as `flow=debug`")?;
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_span_events(tracing_subscriber::fmt::format::FmtSpan::CLOSE)
        .with_filter(filter);
    let (chrome, guard) = match trace {
        Some(path) => {
            // The layer's own builder panics where the file can't be made.
            let file = std::fs::File::create(path).with_context(|| format!("failed to create {}", path.display()))?;
            let (layer, guard) = tracing_chrome::ChromeLayerBuilder::new().writer(file).include_args(true).build();
            (Some(layer), Some(guard))
        }
        None => (None, None),
    };
    tracing_subscriber::registry().with(lines).with(chrome).init();
    Ok(guard)
}
