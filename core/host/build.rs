//! Lists the first-party plugins, each folder of `plugins/` that holds a component or a script of its own name, with what its
//! `plugin.toml` says, and the runtimes of `plugins/runtimes/`.

use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugins").canonicalize()?;
    println!("cargo::rerun-if-changed={}", folder.display());
    let mut names = Vec::new();
    for entry in fs::read_dir(&folder)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        for (extension, is_script) in [("wasm", false), ("rhai", true)] {
            let file = folder.join(&name).join(format!("{name}.{extension}"));
            if file.is_file() {
                println!("cargo::rerun-if-changed={}", file.display());
                names.push((name.clone(), file, is_script));
            }
        }
    }
    names.sort();
    let mut code = format!("const BUILTINS: [Builtin; {}] = [\n", names.len());
    for (name, file, is_script) in names {
        let manifest = file.with_file_name("plugin.toml");
        let manifest = match manifest.is_file() {
            true => format!("Some(include_str!({:?}))", manifest.display().to_string()),
            false => "None".to_owned(),
        };
        let file = file.display().to_string();
        let _ = writeln!(code, "    ({name:?}, include_bytes!({file:?}), {is_script}, {manifest}),");
    }
    code.push_str("];\n");
    let out = env::var("OUT_DIR").map_err(io::Error::other)?;
    fs::write(Path::new(&out).join("builtins.rs"), code)?;
    let javascript = folder.join("runtimes/javascript.wasm");
    let component = match javascript.is_file() {
        true => format!("Some(include_bytes!({:?}))", javascript.display().to_string()),
        false => "None".to_owned(),
    };
    fs::write(Path::new(&out).join("runtimes.rs"), format!("const JAVASCRIPT: Option<&[u8]> = {component};\n"))
}
