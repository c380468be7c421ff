//! Every file in `tests/ui/plugins` is valid in itself and does not fit its plugins; its message is beside it.
//! `UPDATE=1 cargo test -p pipeline --test plugin_ui` writes the messages anew.

use std::path::Path;
use std::process::Command;
use std::{env, fs};

#[test]
fn every_file_that_does_not_fit_its_plugins_gets_its_message() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/ui/plugins");
    let mut files: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|ending| ending == "toml"));
    assert!(files.len() >= 3, "{files:?}");
    let mut wrong = Vec::new();
    for file in files {
        let name = file.file_name().unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_pipeline"))
            .current_dir(&folder)
            .arg("validate")
            .arg(name)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", file.display());
        let said = String::from_utf8(output.stderr).unwrap();
        let expected = file.with_extension("stderr");
        if env::var_os("UPDATE").is_some() {
            fs::write(&expected, said).unwrap();
        } else if fs::read_to_string(&expected).unwrap_or_default() != said {
            wrong.push(format!("{} differs from\n{said}", expected.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
