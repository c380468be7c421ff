//! Any text is read as a pipeline file and as a plugin's `plugin.toml`: there are findings or a document, never a panic.
#![no_main]

use std::path::PathBuf;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;

static FOLDER: LazyLock<tempfile::TempDir> = LazyLock::new(|| tempfile::tempdir().expect("a temporary folder"));

fuzz_target!(|data: &[u8]| {
    let path: PathBuf = FOLDER.path().join("pipeline.toml");
    std::fs::write(&path, data).expect("a temporary file");
    let (document, findings) = spec::load(&path, &[], &mut spec::Files::default());
    let is_sound = !findings.iter().any(|finding| finding.is_error());
    assert_eq!(document.is_some(), is_sound, "a document exactly if there is no error");
    for finding in &findings {
        if let Some((span, _)) = &finding.place {
            assert!(span.start <= span.end && span.end <= data.len(), "{finding:?}");
        }
    }
    let (manifest, findings) = spec::manifest(&path, &mut spec::Files::default());
    assert_eq!(manifest.is_some(), !findings.iter().any(|finding| finding.is_error()));
});
