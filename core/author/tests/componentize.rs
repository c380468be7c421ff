//! What building makes of a module, and what it says of one that is no plugin.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use author::{BuildError, Built, Language, Toolchains, componentize};
use spec::Files;
use wit_component::StringEncoding;

const CONFIG: &str = r#"
    (func (export "pipeline:plugin/config@0.1.0#schema") (result i32) (i32.const 0))
    (func (export "pipeline:plugin/config@0.1.0#configure") (param i32 i32) (result i32) (i32.const 0))"#;
const GENERATE: &str = r#"
    (func (export "pipeline:plugin/generate@0.1.0#generate") (param i64 i64 i32 i32 i64 i32) (result i32) (i32.const 0))"#;
const MEMORY: &str = r#"
    (memory (export "memory") 1)
    (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 0))"#;

fn made(parts: &[&str]) -> Result<Vec<u8>, String> {
    let text = format!("(module {})", parts.concat());
    componentize(text.as_bytes(), StringEncoding::UTF8).map_err(|error| error.to_string())
}

#[track_caller]
fn refused(parts: &[&str], why: &[&str]) {
    let error = made(parts).unwrap_err();
    for part in why {
        assert!(error.contains(part), "{error}\ndoes not say {part}");
    }
}

/// The interface is published: plugins that were built against it exist. A change of it is a new version in a new folder.
#[test]
fn the_published_interface_never_changes() {
    let wit = include_bytes!("../../../sdk/wit/0.1.0/plugin.wit");
    assert_eq!(blake3::hash(wit).to_hex().as_str(), "4cfc5ddc9b7f83cf0eb8a5f044cfed95f662dc3d22299416dc289fecc842f3db");
}

#[test]
fn any_world_is_found_by_its_exports() {
    let component = made(&[MEMORY, CONFIG, GENERATE]).unwrap();
    assert_eq!(component[..8], *b"\0asm\x0d\0\x01\0", "a component");
    assert_eq!(componentize(&component, StringEncoding::UTF8).unwrap(), component, "a component stays as it is");
    made(&[&wasi("fd_write", "i32 i32 i32 i32"), MEMORY, CONFIG, GENERATE]).unwrap();
}

fn wasi(name: &str, params: &str) -> String {
    format!(r#"(import "wasi_snapshot_preview1" "{name}" (func (param {params}) (result i32)))"#)
}

#[test]
fn a_module_that_is_no_plugin_is_told_why() {
    refused(
        &[MEMORY, r#"(func (export "run"))"#],
        &[
            "it does not export `pipeline:plugin/config@0.1.0#schema`",
            "#verify`",
            "it exports `cabi_realloc`, `memory`, `run`",
        ],
    );
    refused(&[CONFIG, GENERATE], &["it does not export `memory`, nor `cabi_realloc`; it exports"]);
    refused(
        &[r#"(import "env" "helper" (func))"#, MEMORY, CONFIG, GENERATE],
        &["it imports `helper` from `env`", "declared and never defined"],
    );
    refused(&[&wasi("no_such_call", "i32"), MEMORY, CONFIG, GENERATE], &["no_such_call"]);
    let short = GENERATE.replace("i64 i64 i32", "i64");
    refused(&[MEMORY, CONFIG, &short], &["does not fit the interface", "pipeline:plugin/generate"]);
    let error = |bytes: &[u8]| componentize(bytes, StringEncoding::UTF8).unwrap_err().to_string();
    assert!(error(b"int main() {}").contains("no WebAssembly module"), "{}", error(b"int main() {}"));
    assert!(error(b"\0asm\x01\0\0\0\xff").contains("no WebAssembly module"));
    let bare = error(b"(component (core module (func) (export \"pipeline:plugin/config@0.1.0\" (func 0))))");
    assert!(
        bare.contains("it must export `pipeline:plugin/config@0.1.0`") && bare.ends_with("exports nothing"),
        "{bare}"
    );
}

/// A build leaves a component or nothing new, and says what is wrong.
#[test]
fn a_build_that_fails_leaves_what_was_there() {
    let folder = tempfile::tempdir().unwrap();
    let polite = folder.path().join("polite");
    author::new(&polite, language("wat")).unwrap();
    let file = polite.join("plugin.toml");
    let manifest = std::fs::read_to_string(&file).unwrap();
    let build = |command: &str| {
        let text =
            manifest.replace("module = \"verify.wat\"", &format!("command = '{command}'\nmodule = \"build/it.wat\""));
        std::fs::write(&file, text).unwrap();
        let (manifest, findings) = spec::manifest(&file, &mut Files::default());
        author::build(&manifest.unwrap_or_else(|| panic!("{findings:?}")), &Toolchains::of_user().unwrap(), false)
    };
    let Built::Component { path, bytes } = build("cp verify.wat build/it.wat").unwrap() else { panic!("no component") };
    assert_eq!(std::fs::metadata(&path).unwrap().len(), bytes);
    assert!(matches!(build("exit 3"), Err(BuildError::Failed { .. })));
    assert!(matches!(build("true"), Err(BuildError::NoModule(_))), "an earlier module does not count");
    assert!(matches!(build("echo nonsense > build/it.wat"), Err(BuildError::Unfit { .. })));
    assert_eq!(std::fs::metadata(&path).unwrap().len(), bytes, "the component of before is still there");
}

fn language(name: &str) -> Language {
    author::LANGUAGES.into_iter().find(|language| language.name == name).unwrap()
}
