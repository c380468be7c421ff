//! Puts the SDK's files into the program: `pipeline plugin new` writes them into a new plugin's folder.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::{env, fs};

/// Folders and files of `sdk/`; what else lies there is built or is for people.
const EMBEDDED: [&str; 13] = [
    "assemblyscript",
    "c",
    "cpp",
    "go",
    "javascript",
    "python",
    "rust/Cargo.toml",
    "rust/build.rs",
    "rust/src",
    "templates",
    "typescript",
    "wit",
    "zig",
];

fn main() {
    let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR"));
    let sdk = manifest.join("../../sdk").canonicalize().expect("sdk/ is beside core/");
    let mut table = String::from("&[\n");
    for name in EMBEDDED {
        println!("cargo::rerun-if-changed={}", sdk.join(name).display());
        let mut files = Vec::new();
        collect(&sdk.join(name), &mut files);
        files.sort();
        for file in files {
            let name = file.strip_prefix(&sdk).expect("it was found below").to_str().expect("names are ASCII");
            writeln!(table, "    ({name:?}, include_str!({file:?})),").expect("a string takes everything");
        }
    }
    table.push_str("]\n");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    fs::write(out.join("sdk.rs"), table).expect("OUT_DIR can be written to");
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) {
    if !path.is_dir() {
        return files.push(path.to_owned());
    }
    for entry in fs::read_dir(path).unwrap_or_else(|error| panic!("failed to read {}: {error}", path.display())) {
        collect(&entry.expect("an entry can be read").path(), files);
    }
}
