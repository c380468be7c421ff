//! Components that are right, wrong and hostile: exact verdicts, exact reasons, the same every time.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use base::{Grants, Limits, Verdict};
use common::{Rig, component, ctx, group, judged, obedient, score, undecided, wasm_limits};
use host::{ConfigureError, HostError, Options, Spent, World};
use serde_json::json;

/// The verdict on a text that asks for a misdeed, between two honest ones that must not suffer.
fn verdict_on(text: &str, limits: &Limits) -> Verdict {
    let plugin = Rig::new().wasm(&obedient(), limits);
    let verdicts = plugin.verify(&ctx(), &group(Some("2"), &["2", text, "3"])).unwrap();
    let [right, middle, wrong] = verdicts.try_into().unwrap();
    assert_eq!((right, wrong), (score(1.0), score(0.0)));
    assert_eq!(plugin.spent().undecided, u64::from(matches!(middle, Verdict::Undecided(_))));
    middle
}

#[test]
fn a_verifier_is_right() {
    let plugin = Rig::new().wasm(&obedient(), &wasm_limits());
    let verdicts = plugin.verify(&ctx(), &group(Some("42"), &["42", "41", "", "42 "])).unwrap();
    assert_eq!(verdicts, [score(1.0), score(0.0), score(0.0), score(0.0)]);
    assert_eq!(plugin.verify(&ctx(), &group(None, &[])).unwrap(), []);
    let Spent { fuel, .. } = plugin.spent();
    assert_eq!(plugin.spent(), Spent { calls: 1, fuel, memory: 1 << 16, ..Spent::default() });
    assert!(fuel > 0 && fuel < 10_000, "{fuel}");
}

#[test]
fn each_misdeed_is_an_undecided_verdict_with_its_reason() {
    let cases = [
        ("Loop", "fuel exhausted: 20,000,000 spent, 20,000,000 allowed for one completion"),
        ("Memory", "memory exhausted: 16,842,752 bytes asked for, 16,777,216 allowed"),
        ("Trap", "trapped: wasm `unreachable` instruction executed; 286 fuel spent, 20,000,000 allowed"),
        (
            "Warn\nof it",
            "trapped: wasm `unreachable` instruction executed (Warn of it); 1,304 fuel spent, 20,000,000 allowed",
        ),
        ("Divide", "trapped: integer divide by zero; 265 fuel spent, 20,000,000 allowed"),
        ("Stack", "trapped: call stack exhausted"),
        ("Outside", "trapped: out of bounds memory access; 265 fuel spent, 20,000,000 allowed"),
        ("Few", "returned 0 verdicts for one completion"),
        ("Big", "list pointer/length out of bounds of memory"),
        ("A string", "returned too much: more than the 1,048,576 bytes allowed in a call"),
        ("Invalid", "unexpected discriminant: 9"),
        ("Error", "too hard"),
        ("Undecided", "too hard"),
        ("NaN", "returned a score that is not finite: NaN"),
        ("Print", "logged too much: 65,541 bytes, 65,536 allowed in a call"),
        ("Quietly", "logged too much: 65,552 bytes, 65,536 allowed in a call"),
    ];
    let found: Vec<_> = cases.iter().map(|(text, _)| (*text, verdict_on(text, &wasm_limits()))).collect();
    let expected: Vec<_> = cases.iter().map(|(text, reason)| (*text, undecided(reason))).collect();
    assert_eq!(found, expected);
    assert_eq!(verdict_on("X", &wasm_limits()), Verdict::NotApplicable);
}

/// A mixture of honest texts and misdeeds.
const MIXED: [&str; 8] = ["2", "Loop", "3", "Trap", "Memory", "2", "NaN", "Print"];

#[test]
fn verdicts_and_costs_are_the_same_twice_and_from_any_number_of_threads() {
    let limits = Limits { fuel: Some(1_000_000), ..wasm_limits() };
    let rig = Rig::new();
    let judge = |threads: usize| {
        let plugin = rig.wasm(&obedient(), &limits);
        let next = std::sync::atomic::AtomicUsize::new(0);
        let found = std::sync::Mutex::new(vec![Vec::new(); 48]);
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    loop {
                        let i = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                        if i >= 48 {
                            break;
                        }
                        let texts: Vec<&str> = (0..4).map(|j| MIXED[(i + j * j) % 8]).collect();
                        let verdicts = plugin.verify(&ctx(), &group(Some("2"), &texts)).unwrap();
                        found.lock().unwrap()[i] = verdicts;
                    }
                });
            }
        });
        // NaN is nobody's equal: the verdicts are compared as text.
        (format!("{:?}", found.into_inner().unwrap()), plugin.spent())
    };
    let one = judge(1);
    assert_eq!(one, judge(8));
    assert_eq!(one, judge(24));
    assert!(one.1.undecided > 48, "{:?}", one.1);
}

#[test]
fn a_budget_is_one_completions_and_a_groups_the_sum() {
    let plugin = Rig::new().wasm(&obedient(), &wasm_limits());
    plugin.verify(&ctx(), &group(Some("2"), &["2"])).unwrap();
    let one = plugin.spent().fuel;
    let limits = Limits { fuel: Some(one), ..wasm_limits() };
    let plugin = Rig::new().wasm(&obedient(), &limits);
    let verdicts = plugin.verify(&ctx(), &group(Some("2"), &["2"; 16])).unwrap();
    assert_eq!(verdicts, vec![score(1.0); 16]);
    assert_eq!(plugin.spent().calls, 1);
    // The start and `configure` have the fuel of one completion to themselves; `verify` has its own.
    let tight = Limits { fuel: Some(100), ..wasm_limits() };
    let plugin = Rig::new().wasm(&obedient(), &tight);
    let verdicts = plugin.verify(&ctx(), &group(Some("2"), &["2", "3"])).unwrap();
    assert_eq!(verdicts, vec![undecided("fuel exhausted: 100 spent, 100 allowed for one completion"); 2]);
}

#[test]
fn memory_is_the_sum_over_all_memories_the_first_ones_included() {
    let limits = Limits { memory: Some(65_536), ..wasm_limits() };
    let rig = Rig::new();
    let plugin = rig.wasm(&obedient(), &limits);
    assert_eq!(plugin.verify(&ctx(), &group(Some("2"), &["2"])).unwrap(), [score(1.0)], "one page is what it has");
    let second = "(core module $other (memory 1)) (core instance (instantiate $other))\n  (core module $main";
    let bytes = component(&include_str!("components/verifier.wat").replacen("(core module $main", second, 1));
    let error = rig.load_wasm(&bytes, &limits).unwrap_err().to_string();
    assert!(
        error.ends_with("it fails when it starts: memory exhausted: 131,072 bytes asked for, 65,536 allowed"),
        "{error}"
    );
    let many = format!("(core module $other (memory 0))\n{}", "(core instance (instantiate $other))\n".repeat(4));
    let text =
        include_str!("components/verifier.wat").replacen("(core module $main", &(many + "  (core module $main"), 1);
    assert!(rig.load_wasm(&component(&text), &wasm_limits()).is_err(), "no more than four memories");
}

#[test]
fn a_text_that_is_not_a_plugin_is_refused_with_what_to_do() {
    let rig = Rig::new();
    let error = |bytes: &[u8]| {
        let message = rig.load_wasm(bytes, &wasm_limits()).unwrap_err().to_string();
        let start = format!("plugin `mine`: {} can't be used: ", rig.path().join("plugin.wasm").display());
        message.strip_prefix(&start).unwrap_or(&message).to_owned()
    };
    assert_eq!(error(b"not wasm"), "it is no WebAssembly component");
    assert_eq!(error(b""), "it is no WebAssembly component");
    let core = error(&wat::parse_str("(module)").unwrap());
    assert_eq!(core, "it is a core module, not a component; build it for `wasm32-wasip2`, or encode it");
    let interfaces = "it must export `config` and one of `verify`, `reward`, `filter`, `generate` of the package \
                      `pipeline:plugin`";
    let none = format!("the component exports no plugin interface: {interfaces}");
    assert_eq!(error(&component("(component)")), none);
    let whole = obedient();
    for length in [9, 100, whole.len() / 2, whole.len() - 1] {
        assert!(error(&whole[..length]).starts_with("it does not compile: "), "{length}: {}", error(&whole[..length]));
    }
    let verifier = include_str!("components/verifier.wat");
    let newer = verifier.replace("plugin/verify@0.1.0", "plugin/verify@0.9.0");
    assert_eq!(
        error(&component(&newer)),
        "the component was built for pipeline:plugin 0.9.0, and this host knows 0.1.0"
    );
    let without = verifier.replace("{config}", "");
    let missing = "the component exports no function `schema` in `pipeline:plugin/config@0.1.0`";
    assert_eq!(error(&component(&without)), missing);
    let shape = verifier.replace(
        "(result (result (list $verdict) (error string)))",
        "(result (result (list $decision) (error string)))",
    );
    let wrong = error(&component(&shape));
    assert!(wrong.starts_with("a function's type is not that of pipeline:plugin 0.1.0: "), "{wrong}");
    for (import, reason) in [
        (
            "pipeline:plugin/runner@0.1.0",
            "it imports `pipeline:plugin/runner@0.1.0` to run programs, and no runtime is granted; what grants one is, under \
             `[plugins.mine.grants]`: python = { fuel = 2_000_000_000, memory = \"256 MiB\", runs = 16 }",
        ),
        (
            "evil:net/http@1.0.0",
            "it imports `evil:net/http@1.0.0`, and plugins are given `log`, `assets`, a granted `runner` and a virtual WASI \
             0.2 only",
        ),
    ] {
        let greedy = verifier.replacen("(component", &format!("(component (import \"{import}\" (instance))"), 1);
        assert_eq!(error(&component(&greedy)), reason);
    }
    let absent = rig
        .host
        .load("mine", host::Code::Wasm(&rig.path().join("absent.wasm")), &wasm_limits(), &Grants::default())
        .unwrap_err();
    assert!(matches!(absent, HostError::Read { .. }), "{absent}");
}

#[test]
fn a_component_never_runs_without_budgets() {
    for (limits, missing) in
        [(Limits { fuel: None, ..wasm_limits() }, "fuel"), (Limits { memory: None, ..wasm_limits() }, "memory")]
    {
        let error = Rig::new().load_wasm(&obedient(), &limits).unwrap_err();
        assert!(matches!(error, HostError::MissingLimit { key, .. } if key == missing), "{error}");
    }
}

#[test]
fn a_component_may_refuse_its_config() {
    let rig = Rig::new();
    let plugin = rig.load_wasm(&obedient(), &wasm_limits()).unwrap();
    assert_eq!(plugin.worlds(), [World::Verifier]);
    assert_eq!(plugin.schema().unwrap(), json!({ "type": "object" }));
    let Err(ConfigureError::Config { errors }) = plugin.configure(&json!({ "refused": true })) else { panic!() };
    assert_eq!(errors, [("/refused".to_owned(), "this component refuses it".to_owned())]);
}

#[test]
fn a_start_that_never_ends_is_refused() {
    let start = "(func $spin (loop $l (br $l))) (start $spin) (func $is-equal";
    let bytes = component(&include_str!("components/verifier.wat").replacen("(func $is-equal", start, 1));
    let error = Rig::new().load_wasm(&bytes, &wasm_limits()).unwrap_err().to_string();
    assert!(
        error.ends_with("it fails when it starts: fuel exhausted: 20,000,000 spent, 20,000,000 allowed"),
        "{error}"
    );
}

#[test]
fn a_failed_reward_is_the_whole_groups() {
    // 16 flat parameters of `reward` are two too many: they come by pointer.
    let text = include_str!("components/rewarder.wat");
    let rig = Rig::new();
    let two = judged(group(None, &["a", "b"]), "accuracy", vec![score(1.0), undecided("why")]);
    let reward =
        |body: &str| rig.wasm(&component(&text.replace("{body}", body)), &wasm_limits()).reward(&ctx(), &two).unwrap();
    assert_eq!(reward(""), [Ok(Some(0.5)), Ok(None)]);
    let reason = "trapped: wasm `unreachable` instruction executed; 304 fuel spent, 40,000,000 allowed".to_owned();
    assert_eq!(reward("unreachable"), [Err(reason.clone()), Err(reason)]);
    let reason =
        "fuel exhausted: 40,000,000 spent, 20,000,000 allowed for one completion, of which there were 2".to_owned();
    assert_eq!(reward("(loop $l (br $l))"), [Err(reason.clone()), Err(reason)]);
    let reason = "returned one reward for 2 completions".to_owned();
    assert_eq!(reward("(i32.store (i32.const 136) (i32.const 1))"), [Err(reason.clone()), Err(reason)]);
    let reason = "returned a reward that is not finite: inf".to_owned();
    let infinite = "(f64.store (i32.const 152) (f64.const inf))";
    assert_eq!(reward(infinite), [Err(reason.clone()), Err(reason)]);
}

#[test]
fn a_cached_component_behaves_as_a_fresh_one() {
    let rig = Rig::new();
    let path = rig.path().join("plugin.wasm");
    std::fs::write(&path, obedient()).unwrap();
    let cache = rig.path().join("compiled");
    let files = || {
        let mut files: Vec<_> = std::fs::read_dir(&cache).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
    };
    let verdicts = || {
        let host = host::Host::new(Options { cache: Some(cache.clone()), ..Options::default() }).unwrap();
        let plugin = host.load("mine", host::Code::Wasm(&path), &wasm_limits(), &Grants::default()).unwrap();
        let plugin = plugin.configure(&json!({})).unwrap();
        (plugin.verify(&ctx(), &group(Some("2"), &["2", "3", "Trap"])).unwrap(), plugin.spent())
    };
    let first = verdicts();
    let [file] = files().try_into().unwrap();
    let whole = std::fs::read(&file).unwrap();
    assert_eq!(first, verdicts());
    let mut forged = whole.clone();
    let middle = forged.len() / 2;
    forged[middle] ^= 1;
    for damaged in [forged, whole[..whole.len() / 2].to_vec(), Vec::new()] {
        std::fs::write(&file, damaged).unwrap();
        assert_eq!(first, verdicts());
        assert_eq!(std::fs::read(&file).unwrap().len(), whole.len(), "compiled anew and kept");
    }
    assert_eq!(files(), [file]);
}
