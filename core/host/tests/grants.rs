//! What is granted, and only that: programs in granted runtimes, and granted files.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::collections::BTreeMap;

use base::{Finding, Grants, Limits, Runs, Verdict};
use common::{Rig, component, ctx, group, obedient, undecided, wasm_limits};
use host::{Code, Configured, Host, HostError, Options, Plugin, Spent};
use serde_json::json;

const RUNS: Runs = Runs { fuel: 1_000_000, memory: 1 << 20, runs: 4 };

/// A host that knows the runtime `letters`, and a plugin that runs each program `times` times.
struct Programs {
    rig: Rig,
    bytes: Vec<u8>,
}

impl Programs {
    fn new(times: u32) -> Self {
        let mut rig = Rig::new();
        let runtime = wat::parse_str(include_str!("components/runtime.wat")).unwrap();
        let runtimes = BTreeMap::from([("letters".to_owned(), runtime), ("broken".to_owned(), obedient())]);
        rig.host = Host::new(Options { cache: Some(rig.path().join("compiled")), runtimes }).unwrap();
        let text = include_str!("components/runner.wat").replace("{times}", &times.to_string());
        Self { rig, bytes: component(&text) }
    }

    fn load(&self, limits: &Limits, grants: &Grants) -> Result<Plugin, HostError> {
        let path = self.rig.path().join("plugin.wasm");
        std::fs::write(&path, &self.bytes).unwrap();
        self.rig.host.load("mine", Code::Wasm(&path), limits, grants)
    }

    fn granted(&self, runs: Runs) -> Configured {
        self.load(&wasm_limits(), &grant("letters", runs)).unwrap().configure(&json!({})).unwrap()
    }

    fn refused(&self, grants: &Grants) -> String {
        self.load(&wasm_limits(), grants).unwrap_err().to_string()
    }
}

fn grant(runtime: &str, runs: Runs) -> Grants {
    Grants { runtimes: BTreeMap::from([(runtime.to_owned(), runs)]), ..Grants::default() }
}

/// Verdicts on programs of the runtime `letters`, as (how it ended, stderr or the trap, stdout).
fn run(plugin: &Configured, stdin: &str, programs: &[&str]) -> Vec<Verdict> {
    let mut group = group(Some(stdin), programs);
    let mut prompt = (*group.prompt).clone();
    prompt.source = "letters".into();
    group.prompt = prompt.into();
    plugin.verify(&ctx(), &group).unwrap()
}

fn ended(exit: f64, stderr: &str, stdout: &str) -> Verdict {
    let (answer, note) = (Some(stderr.into()), Some(stdout.into()));
    Verdict::Decided(Finding { score: exit, answer, note, ..Finding::default() })
}

#[test]
fn a_program_is_run_and_how_it_ended_is_told() {
    let plugin = Programs::new(1).granted(RUNS);
    let programs = ["echo", "Fail", "Exit", "Quit", "Loop", "Memory", "Trap", "Print", ""];
    let found = run(&plugin, "1 2\n", &programs);
    let expected = [
        ended(0.0, "", "1 2\n"),
        ended(1.0, "oh no", ""),
        ended(1.0, "", ""),
        ended(0.0, "", ""),
        ended(2.0, "", ""),
        ended(3.0, "", ""),
        ended(4.0, "wasm `unreachable` instruction executed", ""),
        ended(2.0, "", "\0"),
        ended(0.0, "", "1 2\n"),
    ];
    assert_eq!(found.len(), expected.len());
    for ((found, expected), program) in found.iter().zip(&expected).zip(programs) {
        if program == "Print" {
            // The fuel of a million ends before a million bytes are written.
            let Verdict::Decided(Finding { score: 2.0, note: Some(stdout), .. }) = found else { panic!("{found:?}") };
            assert!(stdout.len() > 4096, "{}", stdout.len());
        } else {
            assert_eq!(found, expected, "{program}");
        }
    }
    let Spent { runs, run_fuel, calls, .. } = plugin.spent();
    assert_eq!((calls, runs), (1, 9));
    assert!(run_fuel > 2_000_000 && run_fuel < 9_000_000, "{run_fuel}");
    let (limits, runs) = (Limits { output: Some(4 << 20), ..wasm_limits() }, Runs { fuel: 100_000_000, ..RUNS });
    let rich = Programs::new(1).load(&limits, &grant("letters", runs)).unwrap().configure(&json!({})).unwrap();
    let [Verdict::Decided(Finding { score: 4.0, answer: Some(trap), note: Some(stdout), .. })] =
        &run(&rich, "", &["Print"])[..]
    else {
        panic!()
    };
    assert_eq!(trap, "wrote too much: 1,052,672 bytes, 1,048,576 allowed to stdout, and to stderr");
    assert_eq!(stdout.len(), 1 << 20);
}

#[test]
fn a_program_sees_the_same_clock_and_chance_wherever_it_is_run() {
    let programs = Programs::new(2);
    let plugin = programs.granted(RUNS);
    let alone = run(&plugin, "", &["Clock"]);
    assert_eq!(run(&plugin, "", &["echo", "Clock", "Clock"])[1..], [alone[0].clone(), alone[0].clone()]);
}

#[test]
fn runs_are_counted_for_each_completion_and_only_the_greedy_one_is_undecided() {
    let programs = Programs::new(3);
    assert_eq!(run(&programs.granted(Runs { runs: 3, ..RUNS }), "x", &["a"; 4]), vec![ended(0.0, "", "x"); 4]);
    let spent = undecided("runs in `letters` exhausted: 3 asked for, 2 allowed for one completion");
    assert_eq!(run(&programs.granted(Runs { runs: 2, ..RUNS }), "x", &["a"; 2]), vec![spent; 2]);
}

#[test]
fn a_run_costs_its_plugin_a_base_and_its_bytes() {
    let programs = Programs::new(1);
    let fuel = |stdin: &str| {
        let plugin = programs.granted(RUNS);
        run(&plugin, stdin, &["a"]);
        plugin.spent().fuel
    };
    // In and out again; the plugin copies nothing itself.
    let (short, long) = (fuel("x"), fuel(&"x".repeat(1001)));
    assert!((2000..2200).contains(&(long - short)), "{short} {long}");
    assert!(short > 10_000, "{short}");
    let flood = Programs::new(10_000);
    let plugin = flood.granted(Runs { runs: 1_000_000, ..RUNS });
    let found = run(&plugin, "x", &["a"]);
    assert_eq!(found, [undecided("fuel exhausted: 20,000,000 spent, 20,000,000 allowed for one completion")]);
    assert!(plugin.spent().runs < 2_000, "{:?}", plugin.spent());
}

#[test]
fn many_plugins_run_programs_at_the_same_time() {
    let programs = Programs::new(4);
    let plugin = programs.granted(RUNS);
    std::thread::scope(|scope| {
        for _ in 0..40 {
            scope.spawn(|| assert_eq!(run(&plugin, "x", &["a", "b"]), vec![ended(0.0, "", "x"); 2]));
        }
    });
    assert_eq!(plugin.spent().runs, 320);
}

#[test]
fn nothing_is_run_that_was_not_granted() {
    let programs = Programs::new(1);
    assert_eq!(
        programs.refused(&Grants::default()).split_once("can't be used: ").unwrap().1,
        "it imports `pipeline:plugin/runner@0.1.0` to run programs, and no runtime is granted; what grants one is, under \
         `[plugins.mine.grants]`: python = { fuel = 2_000_000_000, memory = \"256 MiB\", runs = 16 }"
    );
    let plugin = programs.load(&wasm_limits(), &grant("letters", RUNS)).unwrap().configure(&json!({})).unwrap();
    let found = plugin.verify(&ctx(), &group(Some("x"), &["a"])).unwrap();
    assert_eq!(found, [undecided("the pipeline file grants no runtime `sums`")]);
    assert_eq!(
        programs.refused(&grant("ruby", RUNS)),
        "plugin `mine`: the runtime `ruby` can't be used: there is none of this name; the runtimes are `broken`, \
         `letters`, `javascript`, `python`"
    );
    assert_eq!(
        programs.refused(&grant("broken", RUNS)),
        "plugin `mine`: the runtime `broken` can't be used: it imports `pipeline:plugin/types@0.1.0`, and runtimes are \
         given a virtual WASI 0.2 only"
    );
    assert_eq!(
        programs.refused(&grant("letters", Runs { memory: 65_535, ..RUNS })),
        "plugin `mine`: the runtime `letters` can't be used: it fails when it starts: memory exhausted: 65,536 bytes asked for, 65,535 allowed"
    );
    let useless = programs.rig.path().join("useless.wasm");
    std::fs::write(&useless, obedient()).unwrap();
    let load = |grants: &Grants| programs.rig.host.load("mine", Code::Wasm(&useless), &wasm_limits(), grants);
    let error = load(&grant("letters", RUNS)).unwrap_err().to_string();
    assert!(
        error.ends_with(
            "it does not import `pipeline:plugin/runner@0.1.0`, and can't use `letters`: remove it from \
             `[plugins.mine.grants]`"
        ),
        "{error}"
    );
}

#[test]
fn an_asset_is_read_by_parts_and_pinned() {
    let rig = Rig::new();
    let (path, words) = (rig.path().join("reader.wasm"), rig.path().join("words.txt"));
    std::fs::write(&path, component(include_str!("components/reader.wat"))).unwrap();
    let grants = Grants { assets: BTreeMap::from([("words".to_owned(), words.clone())]), ..Grants::default() };
    let load = || rig.host.load("mine", Code::Wasm(&path), &wasm_limits(), &grants);
    assert!(matches!(load().unwrap_err(), HostError::Asset { asset, .. } if asset == "words"));
    let read = |content: &str| {
        std::fs::write(&words, content).unwrap();
        let plugin = load().unwrap();
        let configured = plugin.configure(&json!({})).unwrap();
        (configured.verify(&ctx(), &group(None, &["words", "letters"])).unwrap(), plugin.hash())
    };
    let found = |text: &str| {
        let finding = Finding { score: text.len() as f64, answer: Some(text.into()), ..Finding::default() };
        let none = "the pipeline file grants no asset `letters`: it would be `letters = { file = \"...\" }`";
        vec![Verdict::Decided(finding), undecided(none)]
    };
    let (long, long_hash) = read("abcdefghijkl");
    assert_eq!(long, found("bcdefghi"));
    let (short, short_hash) = read("abc");
    assert_eq!(short, found("bc"));
    assert_eq!(read("").0, found(""));
    assert_ne!(long_hash, short_hash);
    assert_eq!(read("abc").1, short_hash);
    let bare = rig.host.load("mine", Code::Wasm(&path), &wasm_limits(), &Grants::default()).unwrap();
    assert_eq!(bare.hash(), blake3::hash(&std::fs::read(&path).unwrap()).to_hex().to_string());
    let script = rig.path().join("judge.rhai");
    std::fs::write(&script, "fn verify(ctx, group) { [] }").unwrap();
    let error = rig.host.load("mine", Code::Rhai(&script), &common::rhai_limits(), &grants).unwrap_err();
    let refused = "can't be used: a script can't use what is granted: remove its `grants`, or write a component";
    assert!(error.to_string().ends_with(refused), "{error}");
}
