//! Every invalid file in `tests/ui` has its message beside it. `UPDATE=1 cargo test -p spec` writes the messages anew.
//!
//! Lines `# set: a.b=c` at the start of a file are overrides.

use std::path::{Path, PathBuf};
use std::{env, fs};

use spec::Files;

#[path = "../../pipeline/src/ui/diagnostics.rs"]
mod diagnostics;
#[path = "../../pipeline/src/ui/text.rs"]
mod text;

fn invalid_files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/ui");
    // Snapshots name files as a user in that folder would.
    env::set_current_dir(folder).expect("tests/ui is a folder");
    let entries = fs::read_dir(".").expect("tests/ui can be listed");
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.file_name().into()).collect();
    files.retain(|file| file.extension().is_some_and(|ending| ending == "toml"));
    files.sort();
    files
}

#[test]
fn every_invalid_file_gets_its_message() {
    let mut wrong = Vec::new();
    let invalid = invalid_files();
    assert!(invalid.len() >= 30, "{} invalid files", invalid.len());
    for file in &invalid {
        let text = fs::read_to_string(file).unwrap();
        let overrides: Vec<String> =
            text.lines().map_while(|line| line.strip_prefix("# set: ")).map(str::to_owned).collect();
        let mut files = Files::default();
        let (document, findings) = spec::load(file, &overrides, &mut files);
        let warned = findings.iter().all(|finding| !finding.is_error());
        assert_eq!(document.is_some(), warned, "{}: a document exactly if there is no error", file.display());
        assert!(!findings.is_empty(), "{}: nothing is found", file.display());

        let rendered = diagnostics::render(&findings, &files, false);
        let obeyed =
            |letter: char| letter != '\n' && (letter.is_control() || ('\u{202a}'..='\u{202e}').contains(&letter));
        assert!(!rendered.contains(obeyed), "{}: a terminal would obey {rendered:?}", file.display());
        let json = diagnostics::render_json(&findings, &files);
        assert!(!json.contains(obeyed), "{}: a terminal would obey {json:?}", file.display());
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json.as_array().map(Vec::len), Some(findings.len()));
        for (finding, json) in findings.iter().zip(json.as_array().unwrap()) {
            assert_eq!(json["code"], finding.code);
            assert_eq!(json["message"], finding.message.as_str());
        }

        let expected = file.with_extension("stderr");
        if env::var_os("UPDATE").is_some() {
            fs::write(&expected, &rendered).unwrap();
        } else if fs::read_to_string(&expected).unwrap_or_default() != rendered {
            wrong.push(format!("{} differs from\n{rendered}", expected.display()));
        }
    }
    for entry in fs::read_dir(".").unwrap() {
        let path: PathBuf = entry.unwrap().file_name().into();
        let orphan = path.extension().is_some_and(|it| it == "stderr") && !path.with_extension("toml").exists();
        assert!(!orphan, "{} has no file", path.display());
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn colour_adds_escapes_and_nothing_else() {
    let mut files = Files::default();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/ui/unknown-key.toml");
    let (_, findings) = spec::load(&path, &[], &mut files);
    let plain = diagnostics::render(&findings, &files, false);
    let mut coloured = diagnostics::render(&findings, &files, true);
    assert!(coloured.contains('\u{1b}'));
    while let Some(start) = coloured.find('\u{1b}') {
        let end = start + coloured[start..].find('m').unwrap();
        coloured.replace_range(start..=end, "");
    }
    assert_eq!(coloured, plain);
}

#[test]
fn json_places_count_from_one_and_columns_are_characters() {
    let folder = env::temp_dir().join(format!("spec-ui-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let path = folder.join("places.toml");
    fs::write(
        &path,
        "schema = 1\nname = \"x\" # \u{202e}\r\n\"\u{e9}\u{20ac}\" = { a = 1 }\nseed = { \"\u{20ac}\" = 1 }",
    )
    .unwrap();
    let mut files = Files::default();
    let (_, findings) = spec::load(&path, &[], &mut files);
    let json: serde_json::Value = serde_json::from_str(&diagnostics::render_json(&findings, &files)).unwrap();
    let of = |code: &str| json.as_array().unwrap().iter().find(|it| it["code"] == code).unwrap().clone();
    let place = &of("unknown-key")["place"];
    assert_eq!(place["start"], serde_json::json!({ "line": 3, "column": 1, "byte": 29 }));
    assert_eq!(place["end"], serde_json::json!({ "line": 3, "column": 5, "byte": 36 }));
    let place = &of("wrong-type")["place"];
    assert_eq!(place["start"], serde_json::json!({ "line": 4, "column": 8, "byte": 56 }));
    fs::remove_dir_all(folder).unwrap();
}
