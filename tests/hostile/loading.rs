//! Files that pose as components, and the cache of compiled ones.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use base::{Grants, RngKey};
use host::{Code, Host, Options};
use serde_json::json;

use crate::common::{Rig, component, ctx, group, score, wasm_limits};
use crate::ends;
use crate::guest::{Guest, on_text};

/// What loading says, or what the component then says of an honest text.
fn outcome(bytes: Vec<u8>) -> String {
    let rig = Rig::new();
    match rig.load_wasm(&bytes, &wasm_limits()) {
        Err(error) => error.to_string(),
        Ok(plugin) => match plugin.configure(&json!({})) {
            Err(error) => error.to_string(),
            Ok(plugin) => format!("{:?}", plugin.verify(&ctx(), &group(Some("2"), &["2"]))),
        },
    }
}

#[test]
fn damaged_components_are_refused_or_work() {
    let whole = on_text("");
    let key = RngKey::new(1, "hostile");
    for round in 0..150_u32 {
        let mut bytes = whole.clone();
        for hit in 0..1 + round % 4 {
            let words = key.words([round, hit, 0, 0]);
            let at = words[0] as usize % bytes.len();
            bytes[at] ^= 1 << (words[1] % 8);
        }
        ends("bits flipped", move || outcome(bytes));
    }
    for length in [0, 4, 8, 9, 100, whole.len() / 2, whole.len() - 1] {
        let bytes = whole[..length].to_vec();
        let said = ends("cut short", move || outcome(bytes));
        assert!(said.contains("can't be used"), "{length}: {said}");
    }
}

#[test]
fn what_was_not_granted_is_named() {
    for (name, import) in [
        ("a runner", "pipeline:plugin/runner@0.1.0"),
        ("the network", "wasi:http/outgoing-handler@0.2.6"),
        ("threads", "wasi:threads/spawn@0.1.0"),
        ("something else", "evil:host/everything@1.0.0"),
        ("an asset of another version", "pipeline:plugin/assets@9.0.0"),
    ] {
        let imports = format!(r#"(import "{import}" (instance (export "call" (func))))"#);
        let bytes = Guest { imports: &imports, ..Guest::default() }.bytes();
        let said = ends(name, move || outcome(bytes));
        // A WASI interface that is not given may be imported, but a call of it is the end.
        assert!(said.contains(import) || said.contains("score: 1.0"), "{name}: {said}");
    }
}

#[test]
fn sizes_that_only_declarations_have_are_refused() {
    let memory = "(core module $big (memory 65536)) (core instance (instantiate $big))";
    let table = "(core module $big (table 100000000 funcref)) (core instance (instantiate $big))";
    let shared = "(core module $big (memory 1 1 shared)) (core instance (instantiate $big))";
    let wide = "(core module $big (memory i64 1)) (core instance (instantiate $big))";
    let many = format!("(core module $m (memory 1)) {}", "(core instance (instantiate $m))".repeat(500));
    for (name, imports) in [
        ("a memory of 4 GiB", memory),
        ("a table of 100 million", table),
        ("shared memory", shared),
        ("a 64-bit memory", wide),
        ("500 instances", &many),
    ] {
        let bytes = Guest { imports, ..Guest::default() }.bytes();
        let said = ends(name, move || outcome(bytes));
        assert!(said.contains("can't be used"), "{name}: {said}");
    }
}

/// Small files that are long to compile. They end, and in a time that their size explains.
#[test]
fn compile_bombs_end() {
    let locals = format!(
        "(func {} {})",
        "(local i64)".repeat(20_000),
        (0..20_000)
            .map(|i| format!("(local.set {i} (i64.add (local.get {i}) (local.get {})))", (i * 7919) % 20_000))
            .collect::<String>()
    );
    let blocks = format!("(func {} {})", "(block ".repeat(20_000), ")".repeat(20_000));
    let branches = format!(
        "(func (param i32) {} (br_table {} (local.get 0)) {})",
        "(block ".repeat(500),
        (0..20_000).map(|i| format!("{} ", i % 500)).collect::<String>(),
        ")".repeat(500)
    );
    let functions = "(func (param i64) (result i64) (i64.mul (local.get 0) (i64.const 3)))".repeat(50_000);
    for (name, items) in
        [("locals", locals), ("nested blocks", blocks), ("branch tables", branches), ("functions", functions)]
    {
        let bytes = Guest { items: &items, ..Guest::default() }.bytes();
        let started = Instant::now();
        ends(name, move || outcome(bytes));
        assert!(started.elapsed() < Duration::from_secs(60), "{name}: {:?}", started.elapsed());
    }
    // A component of components, each of which holds two of the one before: 2^24 modules if it were unrolled.
    let mut nested = "(component $c0 (core module (func)))".to_owned();
    for i in 1..24 {
        nested = format!(
            "(component $c{i} {nested} (instance (instantiate $c{})) (instance (instantiate $c{})))",
            i - 1,
            i - 1
        );
    }
    let text = format!("(component {nested} (instance (instantiate $c23)))");
    let said = ends("nested components", move || outcome(component(&text)));
    assert!(said.contains("can't be used"), "{said}");
    let types = (1..40)
        .fold("(type $t0 string)".to_owned(), |text, i| format!("{text} (type $t{i} (tuple $t{} $t{}))", i - 1, i - 1));
    let said = ends("types that double", move || outcome(component(&format!("(component {types})"))));
    assert!(said.contains("can't be used"), "{said}");
}

/// What is in the cache runs as machine code: only what this user's host wrote may be read back.
#[test]
fn a_forged_stale_or_foreign_cache_changes_nothing() {
    let rig = Rig::new();
    let cache = rig.path().join("compiled");
    let honest = rig.path().join("honest.wasm");
    let evil = rig.path().join("evil.wasm");
    std::fs::write(&honest, on_text("")).unwrap();
    std::fs::write(&evil, Guest { items: "(func)", misdeed: "unreachable", ..Guest::default() }.bytes()).unwrap();
    let files = || -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> = std::fs::read_dir(&cache).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
    };
    let judge = |path: &PathBuf| {
        let host = Host::new(Options { cache: Some(cache.clone()), ..Options::default() }).unwrap();
        let plugin = host
            .load("mine", Code::Wasm(path), &wasm_limits(), &Grants::default())
            .unwrap()
            .configure(&json!({}))
            .unwrap();
        plugin.verify(&ctx(), &group(Some("2"), &["2", "3"])).unwrap()
    };
    let right = [score(1.0), score(0.0)];
    assert_eq!(judge(&honest), right);
    let [honest_file] = files().try_into().unwrap();
    let whole = std::fs::read(&honest_file).unwrap();
    judge(&evil);
    let evil_file = files().into_iter().find(|file| *file != honest_file).unwrap();
    let other = std::fs::read(&evil_file).unwrap();

    let mut flipped = whole.clone();
    let last = flipped.len() - 1;
    flipped[last] ^= 0x80;
    let mut extended = whole.clone();
    extended.extend([0; 64]);
    let unsigned = whole[32..].to_vec();
    for (name, forged) in [
        ("another component's file under this name", other),
        ("one bit", flipped),
        ("something behind the end", extended),
        ("without its seal", unsigned),
        ("nothing", Vec::new()),
        ("zeros", vec![0; whole.len()]),
    ] {
        std::fs::write(&honest_file, forged).unwrap();
        assert_eq!(judge(&honest), right, "{name}");
        assert!(std::fs::read(&honest_file).unwrap().len() == whole.len(), "{name}: written anew");
    }
    // A link to what others can write is not followed into trust: the seal is over the content.
    std::fs::remove_file(&honest_file).unwrap();
    std::os::unix::fs::symlink(&evil_file, &honest_file).unwrap();
    assert_eq!(judge(&honest), right, "a link");
    // A folder that others can write to is not used at all.
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(&cache, std::fs::Permissions::from_mode(0o777)).unwrap();
    std::fs::write(&honest_file, b"whatever").unwrap();
    assert_eq!(judge(&honest), right, "an open folder");
}
