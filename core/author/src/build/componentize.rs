//! Makes a component of what a compiler left: a core module, in binary or in text, or a component already.
//!
//! It needs no tool beside it: the WIT is here, and so is a WASI preview 1 with nothing behind it.

use std::collections::BTreeSet;

use wasmparser::{Encoding, Parser, Payload};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// The interface that plugins are built against, and its version.
pub const WIT: &str = include_str!("../../../../sdk/wit/0.1.0/plugin.wit");
const PACKAGE: &str = "pipeline:plugin/";
const VERSION: &str = "0.1.0";

const WASI: &str = "wasi_snapshot_preview1";
const PREVIEW1: &str = include_str!("preview1.wat");

/// Where bindings generators keep the world that a module was made for.
const EMBEDDED: &str = "component-type";

/// The interfaces of the worlds, each with one function of its own name. `config` is beside them in every world.
const FUNCTIONS: [&str; 4] = ["verify", "reward", "filter", "generate"];
const IMPORTS: [&str; 3] = ["log", "assets", "runner"];

/// Why there is no component.
#[derive(Debug, thiserror::Error)]
pub enum ComponentizeError {
    /// It is no WebAssembly at all.
    #[error("it is no WebAssembly module: {0}")]
    Malformed(String),
    /// A function of the interface is missing, or one that is not there is imported.
    #[error("{0}")]
    Unfit(String),
    /// The types of its functions are not those of the interface.
    #[error("it does not fit the interface: {0}")]
    Encode(String),
}

/// The component that `module` makes; a component is given back as it is. `strings` says how a core module encodes strings.
///
/// # Errors
/// `module` is malformed, or does not export what a plugin must, or imports what no plugin is given.
pub fn componentize(module: &[u8], strings: StringEncoding) -> Result<Vec<u8>, ComponentizeError> {
    let malformed = |error: &dyn std::fmt::Display| ComponentizeError::Malformed(error.to_string());
    let mut module = wat::parse_bytes(module).map_err(|error| malformed(&error))?.into_owned();
    let shape = Shape::read(&module).map_err(|error| malformed(&error))?;
    if shape.is_component {
        return shape.check_component().map(|()| module).map_err(ComponentizeError::Unfit);
    }
    let encode = |error: anyhow::Error| ComponentizeError::Encode(format!("{error:#}"));
    if !shape.has_world {
        let world = shape.world().map_err(ComponentizeError::Unfit)?;
        embed(&mut module, "plugin", &world, strings).map_err(encode)?;
    }
    let mut encoder = ComponentEncoder::default();
    encoder.validate(true).module(&module).map_err(encode)?;
    if shape.imports.iter().any(|(name, _)| name == WASI) {
        let mut adapter = wat::parse_str(PREVIEW1).map_err(|error| malformed(&error))?;
        let world = [format!("import pipeline:plugin/log@{VERSION};")];
        embed(&mut adapter, "adapter", &world, StringEncoding::UTF8).map_err(encode)?;
        encoder.adapter(WASI, &adapter).map_err(encode)?;
    }
    encoder.encode().map_err(encode)
}

/// Writes a world into a module.
fn embed(module: &mut Vec<u8>, name: &str, items: &[String], strings: StringEncoding) -> anyhow::Result<()> {
    let mut resolve = Resolve::default();
    resolve.push_str("plugin.wit", WIT)?;
    let world = format!("package pipeline:built-{name};\nworld {name} {{ {} }}", items.concat());
    let package = resolve.push_str("built.wit", &world)?;
    let world = resolve.select_world(&[package], None)?;
    embed_component_metadata(module, &resolve, world, strings, false)
}

/// What a module says of itself.
#[derive(Default)]
struct Shape {
    is_component: bool,
    imports: BTreeSet<(String, String)>,
    exports: BTreeSet<String>,
    /// It carries its world with it.
    has_world: bool,
}

impl Shape {
    fn read(bytes: &[u8]) -> wasmparser::Result<Self> {
        let mut shape = Self::default();
        // A component has modules inside: they are walked through, and only the outermost is looked at.
        let mut depth = 0;
        for payload in Parser::new(0).parse_all(bytes) {
            match payload? {
                Payload::Version { encoding, .. } => {
                    depth += 1;
                    shape.is_component |= encoding == Encoding::Component;
                }
                Payload::End(_) => depth -= 1,
                _ if depth > 1 => {}
                Payload::ImportSection(imports) => {
                    for import in imports.into_imports() {
                        let import = import?;
                        shape.imports.insert((import.module.into(), import.name.into()));
                    }
                }
                Payload::ExportSection(exports) => {
                    for export in exports {
                        shape.exports.insert(export?.name.into());
                    }
                }
                Payload::ComponentExportSection(exports) => {
                    for export in exports {
                        shape.exports.insert(export?.name.name.into());
                    }
                }
                Payload::CustomSection(section) => shape.has_world |= section.name().starts_with(EMBEDDED),
                _ => {}
            }
        }
        Ok(shape)
    }

    fn listed(&self) -> String {
        let exports: Vec<String> = self.exports.iter().map(|name| format!("`{name}`")).collect();
        if exports.is_empty() { "nothing".into() } else { exports.join(", ") }
    }

    /// Whether a component is a plugin's, of whatever version.
    fn check_component(&self) -> Result<(), String> {
        let exports =
            |interface: &str| self.exports.iter().any(|name| name.starts_with(&format!("{PACKAGE}{interface}@")));
        if exports("config") && FUNCTIONS.into_iter().any(exports) {
            return Ok(());
        }
        let wanted = FUNCTIONS.map(|name| format!("`{PACKAGE}{name}@{VERSION}`")).join(", ");
        let listed = self.listed();
        Err(format!("it must export `{PACKAGE}config@{VERSION}` and one of {wanted}, and exports {listed}"))
    }

    /// The lines of the world that the module is made for, or how it misses every one.
    fn world(&self) -> Result<Vec<String>, String> {
        let of = |interface: &str| format!("{PACKAGE}{interface}@{VERSION}");
        let exported =
            |interface: &str, function: &str| self.exports.contains(&format!("{}#{function}", of(interface)));
        let functions: Vec<&str> = FUNCTIONS.into_iter().filter(|name| exported(name, name)).collect();
        let mut missing = Vec::new();
        for function in ["schema", "configure"] {
            if !exported("config", function) {
                missing.push(format!("`{}#{function}`", of("config")));
            }
        }
        if functions.is_empty() {
            missing.push(format!("one of {}", FUNCTIONS.map(|name| format!("`{}#{name}`", of(name))).join(", ")));
        }
        for name in ["memory", "cabi_realloc"] {
            if !self.exports.contains(name) {
                missing.push(format!("`{name}`"));
            }
        }
        if !missing.is_empty() {
            return Err(format!("it does not export {}; it exports {}", missing.join(", nor "), self.listed()));
        }
        let given: Vec<String> = IMPORTS.map(of).into();
        let foreign: Vec<String> = self
            .imports
            .iter()
            .filter(|(module, _)| module != WASI && !given.contains(module))
            .map(|(module, name)| format!("`{name}` from `{module}`"))
            .collect();
        if !foreign.is_empty() {
            return Err(format!(
                "it imports {}, and plugins are given {} and {WASI} only; a function that was declared and never defined \
                 becomes an import",
                foreign.join(", "),
                given.join(", ")
            ));
        }
        let imports = given.iter().filter(|name| self.imports.iter().any(|(module, _)| module == *name));
        let lines = imports.map(|name| format!("import {name};"));
        let exports = functions.iter().copied().chain(["config"]).map(|name| format!("export {};", of(name)));
        Ok(lines.chain(exports).collect())
    }
}
