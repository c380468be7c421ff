//! `plugin.toml`: every invalid one in `tests/ui/manifest` has its message beside it, and a valid one means what it says.
//! `UPDATE=1 cargo test -p spec` writes the messages anew.

use std::path::{Path, PathBuf};
use std::{env, fs};

use base::{Finding, Finish, Message, Verdict};
use spec::{Expect, ExpectDecision, ExpectRow, ExpectVerdict, Files, Input, Manifest};

#[path = "../../pipeline/src/ui/diagnostics.rs"]
#[allow(dead_code, reason = "JSON is tested elsewhere")]
mod diagnostics;
#[path = "../../pipeline/src/ui/text.rs"]
#[allow(dead_code, reason = "JSON is tested elsewhere")]
mod text;

#[test]
fn every_invalid_manifest_gets_its_message() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/ui/manifest");
    // Snapshots name files as a user in that folder would.
    env::set_current_dir(folder).expect("tests/ui/manifest is a folder");
    let entries = fs::read_dir(".").expect("tests/ui/manifest can be listed");
    let mut invalid: Vec<PathBuf> = entries.flatten().map(|entry| entry.file_name().into()).collect();
    invalid.retain(|file| file.extension().is_some_and(|ending| ending == "toml"));
    invalid.sort();
    assert!(invalid.len() >= 4, "{} invalid files", invalid.len());
    let mut wrong = Vec::new();
    for file in &invalid {
        let mut files = Files::default();
        let (manifest, findings) = spec::manifest(file, &mut files);
        assert!(manifest.is_none() && !findings.is_empty(), "{} is valid", file.display());
        let rendered = diagnostics::render(&findings, &files, false);
        let expected = file.with_extension("stderr");
        if env::var_os("UPDATE").is_some() {
            fs::write(&expected, &rendered).unwrap();
        } else if fs::read_to_string(&expected).unwrap_or_default() != rendered {
            wrong.push(format!("{} differs from\n{rendered}", expected.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[track_caller]
fn read(text: &str) -> Manifest {
    let mut files = Files::default();
    files.insert("plugins/polite/plugin.toml".into(), text.into());
    let (manifest, findings) = spec::manifest(Path::new("plugins/polite/plugin.toml"), &mut files);
    manifest.unwrap_or_else(|| panic!("{}", diagnostics::render(&findings, &files, false)))
}

#[test]
fn inputs_tell_which_side_is_meant() {
    let manifest = read(
        r#"
name = "polite"
wasm = "polite.wasm"
limits = { fuel = 1_000_000, memory = "16 MiB" }

[[tests]]
name = "verify"
context = { seed = 7, max_tokens = 100 }
input = { prompt = "2+2?", reference = "4", fields = { level = "2", tests = [1, { a = true }] }, completions = ["4", { text = "so 2", tokens = 3, finish = "length" }] }
expect = [1, { score = 0.0, answer = "2", note = "part", metrics = { length = 3 } }]

[[tests]]
name = "reward"
input = { prompt = [{ role = "system", content = "" }], completions = ["a", "b", "c", "d"], judgements = { accuracy = [1, "undecided", "not_applicable", { score = 0.5, answer = "7" }] } }
expect = [0.5, "undecided", 0, 1]

[[tests]]
name = "filter"
input = [{ completions = ["a", "b"], rewards = [1.0, "undecided"] }, { completions = ["c"] }]
expect = [["keep", { drop = "why" }], ["mask"]]

[[tests]]
name = "generate"
input = { first = 5, count = 2 }
expect = [{ prompt = "2+2?", reference = "4" }, { fields = { n = 3 } }]
tolerance = 0.1

[[tests]]
name = "the world is said"
world = "rewarder"
input = { completions = ["a"] }
expect = { failed = "no stage" }

[[tests]]
name = "refused"
config = { word = 3 }
expect = { refused = "a string" }
"#,
    );
    assert_eq!(manifest.name, "polite");
    let [verify, reward, filter, generate, failed, refused] = manifest.tests.as_slice() else { panic!() };

    let Input::Verify(group) = &verify.input else { panic!("{:?}", verify.input) };
    assert_eq!((verify.context.seed, verify.context.max_tokens, verify.tolerance), (7, 100, 1e-9));
    assert_eq!(group.prompt.reference.as_deref(), Some("4"));
    let fields = [("level", "2"), ("tests", r#"[1,{"a":true}]"#)];
    assert_eq!(group.prompt.fields, fields.map(|(name, value)| (name.to_owned(), value.to_owned())));
    assert_eq!((group.completions[1].tokens.len(), group.completions[1].finish), (3, Finish::Length));
    let decided = |score, answer: Option<&str>, note: Option<&str>, metrics: &[(&str, f64)]| ExpectVerdict::Decided {
        score: Some(score),
        answer: answer.map(str::to_owned),
        note: note.map(str::to_owned),
        metrics: metrics.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect(),
    };
    let second = decided(0.0, Some("2"), Some("part"), &[("length", 3.0)]);
    assert_eq!(verify.expect, Expect::Verdicts(vec![decided(1.0, None, None, &[]), second]));

    let Input::Reward(group) = &reward.input else { panic!("{:?}", reward.input) };
    assert_eq!(group.prompt.messages, [Message { role: "system".into(), content: String::new() }]);
    let last = Verdict::Decided(Finding { score: 0.5, answer: Some("7".into()), ..Finding::default() });
    assert_eq!(group.judgements[0].verdicts[2..], [Verdict::NotApplicable, last]);
    assert_eq!(reward.expect, Expect::Rewards(vec![Some(0.5), None, Some(0.0), Some(1.0)]));

    let Input::Filter(groups) = &filter.input else { panic!("{:?}", filter.input) };
    assert_eq!(groups[0].rewards, [Some(1.0), None]);
    let kept = vec![ExpectDecision::Keep, ExpectDecision::Drop("why".into())];
    assert_eq!(filter.expect, Expect::Decisions(vec![kept, vec![ExpectDecision::Mask(String::new())]]));

    assert!(matches!(generate.input, Input::Generate { first: 5, count: 2 }), "{:?}", generate.input);
    let prompt = Some(vec![Message { role: "user".into(), content: "2+2?".into() }]);
    let first = ExpectRow { prompt, reference: Some("4".into()), fields: Vec::new() };
    let second = ExpectRow { fields: vec![("n".into(), "3".into())], ..ExpectRow::default() };
    assert_eq!((&generate.expect, generate.tolerance), (&Expect::Rows(vec![first, second]), 0.1));

    assert!(matches!(failed.input, Input::Reward(_)), "{:?}", failed.input);
    assert!(matches!(refused.input, Input::Nothing), "{:?}", refused.input);
    assert_eq!(refused.expect, Expect::Refused("a string".into()));
}
