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
    said.expect(1, &["FAIL", "completion 1 of 2, `please`", "expected  score 0.5", "got       score 1", "1 failed"]);
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

#[test]
fn the_first_party_plugins_pass_their_tests() {
    let plugins = root().join("plugins").to_string_lossy().into_owned();
    Folder::new().run(["plugin", "test", &plugins]).expect(0, &["passed"]);
}
