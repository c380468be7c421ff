//! Any bytes are loaded as a component, configured and called: there is an error or a verdict, and the next component works.
#![no_main]

use std::sync::LazyLock;

use host::{Code, Host, Options};
use libfuzzer_sys::fuzz_target;

struct Rig {
    host: Host,
    folder: tempfile::TempDir,
}

static RIG: LazyLock<Rig> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let host = Host::new(Options { cache: Some(folder.path().join("compiled")), ..Options::default() }).expect("a host");
    Rig { host, folder }
});

fuzz_target!(|data: &[u8]| {
    let path = RIG.folder.path().join("plugin.wasm");
    std::fs::write(&path, data).expect("a temporary file");
    let limits = base::Limits { fuel: Some(1_000_000), memory: Some(4 << 20), ..base::Limits::default() };
    let Ok(plugin) = RIG.host.load("fuzzed", Code::Wasm(&path), &limits, &base::Grants::default()) else { return };
    let _ = plugin.schema();
    let Ok(plugin) = plugin.configure(&serde_json::json!({})) else { return };
    let ctx = base::Context { step: 0, seed: 1, max_tokens: 8, evaluating: false };
    let _ = plugin.generate(&ctx, 0, 2);
});
