//! Builds the runtimes that the tool does not carry: CPython, by componentize-py from PyPI.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::{fs, io};

use host::Runtime;

/// What turns the interpreter with our application into a component. It brings its own CPython and standard library: no other
/// Python takes part in the result.
const COMPONENTIZE: &str = "componentize-py==0.25.1";

macro_rules! sources {
    ($($path:literal),*) => {
        [$(($path, include_str!(concat!("../../../plugins/runtimes/python/", $path)))),*]
    };
}

/// The application: `execute`, the modules that programs can import, and the tests' and the program's sides of a judgement.
const SOURCES: [(&str, &str); 5] =
    sources!["app.py", "_judge/__init__.py", "_judge/program.py", "_judge/tests.py", "_judge/values.py"];

const WIT: &str = include_str!("../../../sdk/wit/0.1.0/plugin.wit");

/// Why a runtime could not be built.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The tool carries it.
    #[error("the runtime `{0}` is part of this program: there is nothing to build")]
    Carried(&'static str),
    /// There is nowhere to put it.
    #[error("there is no cache folder for the runtime: set XDG_CACHE_HOME or HOME")]
    NoFolder,
    /// A file could not be written.
    #[error("failed to write {}: {source}", .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A program is missing.
    #[error("failed to start {program}: {source}; {help}")]
    Start {
        /// The program.
        program: String,
        /// Why.
        source: io::Error,
        /// What to do.
        help: &'static str,
    },
    /// A step failed.
    #[error("failed to {what}; {help}\n{said}")]
    Step {
        /// The step.
        what: String,
        /// What to do.
        help: &'static str,
        /// The end of what it printed.
        said: String,
    },
}

/// Builds a runtime into the user's cache folder, where a host looks for it, and tells each step. Needs `python3` with the
/// module `venv`, and PyPI.
///
/// Two builds differ: when CPython starts, which is in the build, it draws the key of its string hashes. So the order of a
/// printed set of strings is one for all runs of a build, and another for another build.
///
/// # Errors
/// Something is missing, with what to do about it.
pub fn build_runtime(runtime: Runtime, tell: &mut dyn FnMut(&str)) -> Result<PathBuf, RuntimeError> {
    if runtime == Runtime::JavaScript {
        return Err(RuntimeError::Carried(runtime.name()));
    }
    let path = runtime.path().ok_or(RuntimeError::NoFolder)?;
    let folder = path.parent().ok_or(RuntimeError::NoFolder)?;
    let written = |path: &Path| {
        let path = path.to_owned();
        move |source| RuntimeError::Write { path, source }
    };
    fs::create_dir_all(folder).map_err(written(folder))?;
    // Beside its place, so that it can be moved there in one step.
    let place = tempfile::Builder::new().prefix("python-").tempdir_in(folder).map_err(written(folder))?;
    let at = |name: &str| place.path().join(name);

    tell("making a virtual environment");
    let help = "install Python 3 with its module venv (Debian: apt install python3-venv)";
    step("python3", [OsStr::new("-m"), OsStr::new("venv"), at("venv").as_os_str()], place.path(), help)?;
    let program = |name: &str| at("venv").join(if cfg!(windows) { "Scripts" } else { "bin" }).join(name);

    tell(&format!("installing {COMPONENTIZE} from PyPI (about 40 MB)"));
    let help = "is PyPI reachable, by pip's own settings?";
    let arguments = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input", COMPONENTIZE];
    step(program("python"), arguments, place.path(), help)?;

    tell("building the component (about 10 seconds)");
    let sources = SOURCES.map(|(name, text)| (at("app").join(name), text));
    for (path, text) in sources.into_iter().chain([(at("wit").join("plugin.wit"), WIT)]) {
        let folder = path.parent().unwrap_or(place.path());
        fs::create_dir_all(folder).and_then(|()| fs::write(&path, text)).map_err(written(&path))?;
    }
    let built = at("python.wasm");
    let arguments = ["-q", "-d", "../wit", "-w", "runtime", "componentize", "-p", ".", "app", "-o", "../python.wasm"];
    step(program("componentize-py"), arguments, &at("app"), "this is a defect of this program or of that version")?;
    fs::File::open(&built).and_then(|file| file.sync_all()).map_err(written(&built))?;
    fs::rename(&built, &path).map_err(written(&path))?;
    Ok(path)
}

/// Runs a program to its end.
fn step<A: AsRef<OsStr>>(
    program: impl AsRef<OsStr>,
    arguments: impl IntoIterator<Item = A>,
    folder: &Path,
    help: &'static str,
) -> Result<(), RuntimeError> {
    let mut command = Command::new(program);
    // Of an environment that is active nothing must come in.
    command.args(arguments).current_dir(folder).stdin(Stdio::null());
    for variable in ["PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"] {
        command.env_remove(variable);
    }
    let name = command.get_program().to_string_lossy().into_owned();
    let Output { status, stdout, stderr } =
        command.output().map_err(|source| RuntimeError::Start { program: name.clone(), source, help })?;
    if status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&[stdout, stderr].concat()).trim_end().to_owned();
    let tail = said.lines().count().saturating_sub(12);
    let what = command.get_args().map(|argument| argument.to_string_lossy()).collect::<Vec<_>>().join(" ");
    let said = said.lines().skip(tail).collect::<Vec<_>>().join("\n");
    Err(RuntimeError::Step { what: format!("run {name} {what} ({status})"), help, said })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_that_fails_says_what_it_said_and_what_to_do() {
        let error = step("sh", ["-c", "echo one; echo two >&2; exit 3"], Path::new("."), "do better").unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with("failed to run sh -c") && text.contains("exit status: 3"), "{text}");
        assert!(text.ends_with("; do better\none\ntwo"), "{text}");
        let error = step("no-such-program", [""; 0], Path::new("."), "install it").unwrap_err().to_string();
        assert!(error.starts_with("failed to start no-such-program: ") && error.ends_with("; install it"), "{error}");
        let carried = build_runtime(Runtime::JavaScript, &mut |_| {}).unwrap_err().to_string();
        assert_eq!(carried, "the runtime `javascript` is part of this program: there is nothing to build");
    }
}
