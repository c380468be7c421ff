//! `plugin build`: runs the folder's build command and makes a component of what it leaves.

mod componentize;
mod toolchain;

use std::path::{Path, PathBuf};
use std::{fs, io};

use spec::{Manifest, PluginSource, Strings};
use wit_component::StringEncoding;

pub use componentize::{ComponentizeError, componentize};
pub use toolchain::Toolchains;

/// Why there is no component.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The folder doesn't say how.
    #[error("{} has no [build]: say there which `command` makes which `module`", .0.display())]
    NoBuild(PathBuf),
    /// There is no place for toolchains.
    #[error("there is no folder for toolchains: set HOME or PIPELINE_TOOLCHAINS")]
    NoHome,
    /// A program is not there.
    #[error("{tool} is not there; {how}")]
    Missing {
        /// Which.
        tool: &'static str,
        /// How to come by it.
        how: String,
    },
    /// A program failed; it has said why.
    #[error("{what} failed ({status})")]
    Failed {
        /// What was run.
        what: String,
        /// How it ended.
        status: String,
    },
    /// The command left no module.
    #[error("the build command made no {}, which plugin.toml names as its `module`", .0.display())]
    NoModule(PathBuf),
    /// The module is no plugin.
    #[error("{}: {source}", .path.display())]
    Unfit {
        /// The module.
        path: PathBuf,
        /// What is wrong with it.
        source: ComponentizeError,
    },
    /// A file can't be read or written, or a program can't be started.
    #[error("{}: {source}", .path.display())]
    Io {
        /// The file or the program.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// What was built.
#[derive(Debug)]
pub enum Built {
    /// A component of so many bytes.
    Component {
        /// Where it is.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// A script runs as it is.
    Script,
}

/// Builds the plugin of a folder. `install` lets compilers that are missing be fetched.
///
/// # Errors
/// A compiler is missing or fails, or what it makes is no plugin. Nothing is written then.
pub fn build(manifest: &Manifest, toolchains: &Toolchains, install: bool) -> Result<Built, BuildError> {
    let target = match &manifest.plugin.source {
        PluginSource::Wasm(path) => path,
        PluginSource::Rhai(_) | PluginSource::Builtin(_) => return Ok(Built::Script),
    };
    let build = manifest.build.as_ref().ok_or_else(|| BuildError::NoBuild(manifest.file.clone()))?;
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| BuildError::Io { path, source }
    };
    let folder = match manifest.file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    if let Some(command) = &build.command {
        toolchains.provide(command, folder, install)?;
        // What an earlier build left must not pass for what this one makes.
        match fs::remove_file(&build.module) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(&build.module)(error)),
            _ => {}
        }
        if let Some(parent) = build.module.parent() {
            fs::create_dir_all(parent).map_err(failed(parent))?;
        }
        toolchains.run(command, folder)?;
    }
    let module = match fs::read(&build.module) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(BuildError::NoModule(build.module.clone()));
        }
        other => other.map_err(failed(&build.module))?,
    };
    let strings = match build.strings {
        Strings::Utf8 => StringEncoding::UTF8,
        Strings::Utf16 => StringEncoding::UTF16,
    };
    let component =
        componentize(&module, strings).map_err(|source| BuildError::Unfit { path: build.module.clone(), source })?;
    // Whole or not at all: a run may be reading it.
    let unfinished = target.with_extension("wasm.tmp");
    fs::write(&unfinished, &component).map_err(failed(&unfinished))?;
    fs::rename(&unfinished, target).map_err(failed(target))?;
    Ok(Built::Component { path: target.clone(), bytes: component.len() as u64 })
}
