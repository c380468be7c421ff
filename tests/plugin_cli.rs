//! `pipeline plugin ...` as a plugin's author uses it: each mistake gets its message, its place and an exit code.

mod support;

use support::{Folder, root};

const POLITE: &str = r#"
fn schema() { #{ type: "object", required: ["word"], properties: #{ word: #{ type: "string" } } } }
fn verify(ctx, group) {
    group.completions.map(|c| if c.text.contains(config.word) { 1.0 } else { #{ score: 0.0, note: "no word" } })
}
"#;

const MANIFEST: &str = r#"
name = "polite"
rhai = "polite.rhai"
limits = { operations = 10_000 }

[[tests]]
name = "asks for the word"
config = { word = "please" }
input = { prompt = "Ask!", completions = ["please", "now"] }
expect = [1.0, { score = 0, note = "no word" }]
"#;

/// A folder `polite` with a script and its tests.
fn polite(script: &str, manifest: &str) -> Folder {
    let folder = Folder::new();
    folder.write("polite/polite.rhai", script);
    folder.write("polite/plugin.toml", manifest);
    folder
}

#[test]
fn tests_pass_fail_and_are_counted() {
    let folder = polite(POLITE, MANIFEST);
    folder
        .run(["plugin", "test", "polite"])
        .expect(0, &["ok    polite: asks for the word", "1 test of 1 plugin: 1 passed"]);
    folder.write("polite/plugin.toml", MANIFEST.replace("[1.0, {", "[0.5, {"));
    let said = folder.run(["plugin", "test", "polite", "--junit", "junit.xml"]);
    said.expect(
        1,
        &[
            "FAIL  polite: asks for the word (polite/plugin.toml:7)",
            "completion 1 of 2, `please`",
            "expected  score 0.5",
            "got       score 1",
            "1 failed",
        ],
    );
    let xml = std::fs::read_to_string(folder.path("junit.xml")).unwrap();
    assert!(xml.contains("failures=\"1\""), "{xml}");
    folder.run(["plugin", "test", "polite", "--filter", "another"]).expect(4, &["0 tests of 1 plugin"]);
}

#[test]
fn a_plugin_that_looks_at_its_neighbours_is_caught() {
    let script = "fn verify(ctx, group) { let n = -1; group.completions.map(|c| { n += 1; to_float(n) }) }";
    let manifest = MANIFEST.replace("config = { word = \"please\" }\n", "");
    let manifest = manifest.replace("[1.0, { score = 0, note = \"no word\" }]", "[0, 1]");
    polite(script, &manifest).run(["plugin", "test", "polite"]).expect(
        1,
        &[
            "completion 1 of 2, `please`: not the same with the completions in another order",
            "first   score 0",
            "second  score 1",
        ],
    );
}

#[test]
fn a_wrong_manifest_is_told_in_its_places_at_once() {
    let manifest = MANIFEST
        .replace("operations", "opertions")
        .replace("completions = [", "completion = [")
        .replace("[1.0", "[\"undecidd\"");
    polite(POLITE, &manifest).run(["plugin", "test", "polite"]).expect(
        1,
        &[
            "polite/plugin.toml:4:12",
            "did you mean `operations`?",
            "did you mean `completions`?",
            "did you mean `undecided`?",
            "1 plugin could not be tested",
        ],
    );
}

#[test]
fn what_is_no_plugin_is_said() {
    let folder = polite(POLITE, MANIFEST);
    folder.write("notes/README.md", "nothing");
    folder.run(["plugin", "test", "absent/polite"]).expect(2, &["absent/polite does not exist"]);
    folder.run(["plugin", "test", "notes"]).expect(2, &["notes is no plugin: name a folder with a plugin.toml"]);
    folder.run(["plugin", "test", "fromat"]).expect(2, &["`fromat` is no file or folder", "did you mean `format`?"]);
    folder.run(["plugin", "test", "polite", "notes"]).expect(0, &["1 path without a plugin.toml passed over"]);
    folder.run(["plugin", "test"]).expect(0, &["1 test of 1 plugin: 1 passed"]);
}

const LINES: &str = r#"{"prompt": "Ask!", "completion": "please"}

{"completions": ["now", {"text": "please", "tokens": 3, "finish": "length"}], "level": 2}
"#;

const CONFIG: &str = r#"{"word": "please"}"#;

/// Everything that is in a folder of verdicts.
fn names(folder: &Folder, path: &str) -> Vec<String> {
    let entries = std::fs::read_dir(folder.path(path)).expect("a test's folder can be listed").flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn a_file_is_judged_line_by_line() {
    let folder = polite(POLITE, MANIFEST);
    folder.write("in.jsonl", LINES);
    folder.write("out/old.jsonl", "");
    let run = ["plugin", "run", "polite", "--config", CONFIG, "--input", "in.jsonl"];
    let verdicts = "{\"verdicts\":[{\"score\":1.0,\"note\":null}]}\n\
        {\"verdicts\":[{\"score\":0.0,\"note\":\"no word\"},{\"score\":1.0,\"note\":null}]}\n";
    let said = folder.run(run);
    said.expect(0, &["3 completions in 2 lines: mean score 0.6667", "at p99", "completions/s"]);
    assert_eq!(said.out, verdicts);
    folder.run(run.iter().chain(&["--output", "out/verdicts.jsonl"])).expect(0, &[]);
    assert_eq!(std::fs::read_to_string(folder.path("out/verdicts.jsonl")).unwrap(), verdicts);
    folder.run(run.iter().chain(&["--output", "out/old.jsonl"])).expect(0, &[]);
    let mut left = names(&folder, "out");
    left.sort();
    assert_eq!(left, ["old.jsonl", "verdicts.jsonl"]);
    // A script by itself, and a builtin.
    let said = folder.run(["plugin", "run", "polite/polite.rhai", "--config", CONFIG, "--input", "in.jsonl"]);
    assert_eq!(said.out, verdicts);
    folder.run(["plugin", "run", "format", "--input", "in.jsonl"]).expect(0, &["mean score 0.0000"]);
}

#[test]
fn a_line_is_answered_before_the_next_is_there() {
    use std::io::{BufRead, BufReader, Write};
    let folder = polite(POLITE, MANIFEST);
    let mut command = folder.command(["plugin", "run", "polite", "--config", CONFIG, "--input", "-"]);
    let mut child = command.stdin(std::process::Stdio::piped()).spawn().unwrap();
    let mut to = child.stdin.take().unwrap();
    let mut from = BufReader::new(child.stdout.take().unwrap());
    for (text, score) in [("please", "1.0"), ("now", "0.0")] {
        writeln!(to, "{{\"completion\": \"{text}\"}}").unwrap();
        let mut line = String::new();
        from.read_line(&mut line).unwrap();
        assert!(line.contains(score), "{line}");
    }
    drop(to);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[cfg(unix)]
#[test]
fn what_was_judged_by_half_goes_with_an_interrupt() {
    let folder = polite(POLITE, MANIFEST);
    folder.write("out/keep", "");
    let run = ["plugin", "run", "polite", "--config", CONFIG, "--input", "-", "--output", "out/verdicts.jsonl"];
    let mut child = folder.command(run).stdin(std::process::Stdio::piped()).spawn().unwrap();
    while names(&folder, "out").len() < 2 {
        assert!(child.try_wait().unwrap().is_none(), "it waits for its input");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let id = child.id().to_string();
    assert!(std::process::Command::new("kill").args(["-INT", &id]).status().unwrap().success());
    // Its input stays open: nothing else ends it.
    let input = child.stdin.take();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    drop(input);
    assert_eq!(names(&folder, "out"), ["keep"]);
}

#[test]
fn a_runtime_is_granted_to_a_plugin_that_runs_programs() {
    let folder = Folder::new();
    let wasm = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugins/code/code.wasm");
    std::fs::copy(&wasm, folder.path("bare.wasm")).unwrap();
    let row = r#"{"inputs": [""], "outputs": ["3\n"], "completion": "```js\nconsole.log(3);\n```"}"#;
    folder.write("in.jsonl", row);
    let config = r#"{"language": "javascript"}"#;
    let run = |plugin: &str, more: &[&str]| {
        folder.run(["plugin", "run", plugin, "--config", config, "--input", "in.jsonl"].iter().chain(more))
    };
    let grant = ["--grant", "javascript"];
    run("bare.wasm", &grant).expect(0, &["mean score 1.0000"]);
    run("code", &[]).expect(0, &["mean score 1.0000"]);
    run("number", &grant).expect(2, &["javascript"]);
    run("code", &["--grant", "ruby"]).expect(2, &["[possible values: javascript, python]"]);
}

#[test]
fn order_and_verdicts_do_not_depend_on_threads() {
    let folder = polite(POLITE, MANIFEST);
    let text: String =
        (0..5000).map(|i| format!("{{\"completion\": \"{}{i}\"}}\n", if i % 3 == 0 { "please" } else { "" })).collect();
    folder.write("in.jsonl", text);
    let run = |threads: &str| {
        let run = ["plugin", "run", "polite", "--config", CONFIG, "--input", "in.jsonl", "--threads", threads];
        let said = folder.run(run);
        said.expect(0, &["5,000 completions in 5,000 lines: mean score 0.3334"]);
        said.out
    };
    let one = run("1");
    assert!(one == run("7"));
    let scores: Vec<bool> = one.lines().map(|line| line.contains("\"score\":1.0")).collect();
    assert!(scores.iter().enumerate().all(|(i, right)| *right == (i % 3 == 0)));
}

#[test]
fn what_is_wrong_with_a_run_is_said_and_leaves_no_verdicts() {
    let folder = polite(POLITE, MANIFEST);
    folder.write("in.jsonl", LINES);
    folder.write("out/keep", "");
    let run = |input: &str, more: &[&str]| {
        let run = ["plugin", "run", "polite", "--config", CONFIG, "--input", input];
        folder.run(run.iter().chain(&["--output", "out/verdicts.jsonl"]).chain(more))
    };
    run("absent.jsonl", &[]).expect(2, &["failed to read absent.jsonl"]);
    for (line, place, text) in [
        ("{\"completion\": \"a\",", "bad.jsonl:4:", "EOF while parsing"),
        (
            "{\"prompt\": \"a\", \"answer\": \"b\"}",
            "bad.jsonl:4:",
            "neither `completion` nor `completions`, but `answer`; write {",
        ),
        ("{\"completions\": \"a\"}", "bad.jsonl:4:19:", "write {"),
        ("3", "bad.jsonl:4:", "expected a JSON object"),
    ] {
        folder.write("bad.jsonl", format!("{LINES}{line}\n{line}\n"));
        run("bad.jsonl", &[]).expect(1, &[place, text]);
    }
    let refused = folder.run(["plugin", "run", "polite", "--config", r#"{"wrd": 1}"#, "--input", "in.jsonl"]);
    refused.expect(1, &["the plugin refuses its config: \"word\" is a required property"]);
    let refused = folder.run(["plugin", "run", "format", "--config", r#"{"thnk": "t"}"#, "--input", "in.jsonl"]);
    refused.expect(1, &["refuses its config at `/thnk`: unknown key `thnk`"]);
    folder.run(["plugin", "run", "polite", "--config", "{", "--input", "in.jsonl"]).expect(2, &["it is no JSON"]);
    folder
        .run(["plugin", "run", "arithmetic.wasm", "--input", "in.jsonl"])
        .expect(2, &["arithmetic.wasm does not exist"]);
    run("in.jsonl", &["--memory", "64 Mb"]).expect(2, &["such as \"64 MiB\""]);
    let unwritable = folder.run(["plugin", "run", "format", "--input", "in.jsonl", "--output", "absent/out.jsonl"]);
    unwritable.expect(2, &["failed to write absent/out.jsonl.partial"]);
    assert_eq!(names(&folder, "out"), ["keep"]);
}

#[test]
fn undecided_verdicts_are_data_with_their_reasons_counted() {
    let folder = Folder::new();
    folder.write("doubt.rhai", r#"fn verify(ctx, group) { group.completions.map(|c| undecided("no " + c.text)) }"#);
    folder.write("in.jsonl", "{\"completions\": [\"a\", \"b\", \"a\"]}\n{\"completion\": \"c\\u001b\"}\n".repeat(3));
    let said = folder.run(["plugin", "run", "doubt.rhai", "--input", "in.jsonl"]);
    said.expect(
        0,
        &[
            "no score, 12 undecided",
            "undecided 6 times, first in line 1: no a",
            "3 times, first in line 2: no c\\u{1b}",
        ],
    );
    assert!(said.out.starts_with("{\"verdicts\":[{\"undecided\":\"no a\"},"), "{}", said.out);
}

#[test]
fn a_rewarder_is_given_judgements() {
    let folder = Folder::new();
    folder.write(
        "in.jsonl",
        r#"{"completions": ["a", "b"], "judgements": {"accuracy": [1, {"score": 0.5, "note": null}]}}"#,
    );
    let script = r#"fn reward(ctx, group, judgements) { judgements[0].verdicts.map(|v| v.score * 2.0) }"#;
    folder.write("twice.rhai", script);
    let said = folder.run(["plugin", "run", "twice.rhai", "--input", "in.jsonl"]);
    said.expect(0, &["mean reward 1.5000"]);
    assert_eq!(said.out, "{\"rewards\":[2.0,1.0]}\n");
    folder.write("drop.rhai", "fn filter(ctx, groups, rewards) { [] }");
    folder.run(["plugin", "run", "drop.rhai", "--input", "in.jsonl"]).expect(2, &["only a verifier or a rewarder"]);
}

#[test]
fn a_plugin_is_described_and_measured() {
    let folder = polite(POLITE, MANIFEST);
    let said = folder.run(["plugin", "info", "number"]);
    said.expect(0, &[]);
    for part in ["verifier, pipeline:plugin 0.1.0", "builtin: a component of", "compiled in", "fuel,", "\"tolerance\""]
    {
        assert!(said.out.contains(part), "`{part}` is not in:\n{}", said.out);
    }
    // Its folder grants a file, which is not in the tool.
    folder.run(["plugin", "info", "contamination"]).expect(0, &[]);
    let said = folder.run(["plugin", "info", "polite"]);
    assert!(said.out.contains("refuses this config: \"word\" is a required property; try --config"), "{}", said.out);
    let said = folder.run(["plugin", "info", "polite", "--config", CONFIG, "--format", "json"]);
    let info: serde_json::Value = serde_json::from_str(&said.out).expect("stdout is JSON");
    assert_eq!((&info["worlds"][0], &info["configure"]["operations"]), (&"verifier".into(), &0.into()));

    let said = folder.run(["plugin", "bench", "polite"]);
    said.expect(0, &[]);
    assert!(
        said.out.contains("verifier, 2 completions") && said.out.ends_with("limits = { operations = 1_000 }\n"),
        "{}",
        said.out
    );
    folder.write("in.jsonl", LINES);
    let said = folder.run(["plugin", "bench", "number", "--input", "in.jsonl"]);
    said.expect(0, &[]);
    // Without a reference it can't tell, but what that costs is known.
    assert!(said.out.contains("3 completions, 3 undecided") && said.out.contains("limits = { fuel ="), "{}", said.out);
    folder.run(["plugin", "bench", "number"]).expect(0, &[]);
    folder.write("alone.rhai", POLITE);
    folder.run(["plugin", "bench", "alone.rhai"]).expect(2, &["there is nothing to measure"]);
}

#[test]
fn the_first_party_plugins_pass_their_tests() {
    let plugins = root().join("plugins").to_string_lossy().into_owned();
    Folder::new().run(["plugin", "test", &plugins]).expect(0, &["passed"]);
}
