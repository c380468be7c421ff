//! Checkpoints: the only commit.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::durable;
use crate::error::{Error, Result};
use crate::folder::{FileMark, Mark, PhaseFolder};
use crate::json;

const STATE: &str = "state.json";
const FORMAT: u64 = 1;
/// A checkpoint that is being deleted.
const PRUNED: &str = ".pruned-";
/// A checkpoint in whose place a newer one of the same step is being put.
const REPLACED: &str = ".replaced-";
/// What the name of a checkpoint that can't be trusted gets at its end, before a number for a second one.
const DAMAGED: &str = ".damaged";

/// The checkpoints of a phase, each a folder `checkpoints/step-000050` that a user may hand to another tool.
pub struct Checkpoints {
    phase: PhaseFolder,
    dir: PathBuf,
}

/// A checkpoint whose every byte has been verified.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    /// The folder.
    pub path: PathBuf,
    /// The number of finished steps.
    pub step: u64,
    /// What the caller gave.
    pub state: Value,
    /// How far the other files of the run were.
    pub mark: Mark,
}

/// A checkpoint that could not be trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damaged {
    /// The step it was made at.
    pub step: u64,
    /// Where it has been put.
    pub set_aside: PathBuf,
    /// What is wrong with it.
    pub reason: String,
}

/// What [`Checkpoints::latest`] found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Latest {
    /// The newest good checkpoint.
    pub checkpoint: Option<Checkpoint>,
    /// Newer ones that were damaged; the user must be told.
    pub damaged: Vec<Damaged>,
}

/// Which checkpoints are kept: the newest of those that were due. One that an interrupt made stays until the next, so that
/// an interrupted run ends with the checkpoints of one that was not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// How many.
    pub newest: usize,
    /// A checkpoint is due after every so many steps.
    pub every: u64,
    /// The phase's last step, which is always due.
    pub last: u64,
}

impl Keep {
    /// Whether a checkpoint is due after `step` steps.
    pub fn is_due(&self, step: u64) -> bool {
        step == self.last || step.is_multiple_of(self.every)
    }
}

impl Checkpoints {
    pub(crate) fn new(phase: &PhaseFolder) -> Self {
        Self { phase: phase.clone(), dir: phase.path().join("checkpoints") }
    }

    /// Commits: `fill` writes its files into the folder that it is given, and after that they, `state` and the lengths of
    /// the run's other files appear together or not at all. Logs it, then deletes the checkpoints that `keep` doesn't hold
    /// (the new one stays). After an error the checkpoints are those from before.
    pub fn write<E>(
        &self,
        step: u64,
        keep: Keep,
        state: &Value,
        fill: impl FnOnce(&Path) -> std::result::Result<(), E>,
    ) -> Result<PathBuf>
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        durable::create_dir_all(&self.dir)?;
        let path = self.dir.join(name(step));
        let temporary = durable::temporary(&path);
        durable::remove(&temporary)?;
        if let Err(error) = self.prepare(&path, &temporary, step, state, fill) {
            // The space it takes may be what the user lacks. The first error is the one to report.
            let _ = fs::remove_dir_all(&temporary);
            return Err(error);
        }
        let replaced = self.dir.join(format!("{REPLACED}{}", name(step)));
        if path.exists() {
            durable::rename(&path, &replaced)?;
        }
        durable::rename(&temporary, &path)?;
        durable::sync_dir(&self.dir)?;
        let phase = Value::String(self.phase.name.clone());
        self.phase.inner.events().append("checkpoint", &[("phase", phase), ("step", step.into())])?;
        durable::remove(&replaced)?;
        let superseded = std::mem::take(&mut self.phase.inner.ledger().superseded);
        superseded.iter().try_for_each(|path| durable::remove(path))?;
        self.prune(step, keep)?;
        Ok(path)
    }

    /// Makes the whole checkpoint durable under its temporary name.
    fn prepare<E>(
        &self,
        path: &Path,
        temporary: &Path,
        step: u64,
        state: &Value,
        fill: impl FnOnce(&Path) -> std::result::Result<(), E>,
    ) -> Result<()>
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        fs::create_dir(temporary).map_err(Error::io("create the folder", temporary))?;
        fill(temporary).map_err(|error| Error::Fill { path: path.to_owned(), source: error.into() })?;
        let mut files = BTreeMap::new();
        for file in durable::sync_tree(temporary)? {
            let mark = durable::sum(&temporary.join(&file)).map_err(Error::io("read", &temporary.join(&file)))?;
            files.insert(file, mark);
        }
        if files.contains_key(STATE) {
            let what = format!("`{STATE}` is the name of the checkpoint's own file");
            return Err(Error::Shape { path: path.to_owned(), what });
        }
        let mark = self.phase.inner.mark()?;
        let mut document =
            json!({ "format": FORMAT, "step": step, "files": marks(&files), "run": run(&mark), "state": state });
        let hash = json::hash(&document);
        document["blake3"] = Value::String(hash);
        durable::write_synced(&temporary.join(STATE), json::pretty(&document).as_bytes())?;
        durable::sync_dir(temporary)
    }

    /// Deletes what needs not be kept. A checkpoint loses its name first, so that none is ever half there.
    fn prune(&self, new: u64, keep: Keep) -> Result<()> {
        let (due, others): (Vec<u64>, Vec<u64>) = self.steps()?.into_iter().partition(|step| keep.is_due(*step));
        for step in others.iter().chain(due.iter().rev().skip(keep.newest)).filter(|step| **step != new) {
            let pruned = self.dir.join(format!("{PRUNED}{}", name(*step)));
            durable::remove(&pruned)?;
            durable::rename(&self.dir.join(name(*step)), &pruned)?;
            durable::sync_dir(&self.dir)?;
            durable::remove(&pruned)?;
        }
        Ok(())
    }

    /// Finishes what a killed process had begun.
    pub(crate) fn recover(&self) -> Result<()> {
        for found in durable::names(&self.dir)? {
            if found.starts_with(PRUNED) {
                durable::remove(&self.dir.join(found))?;
            } else if let Some(step) = found.strip_prefix(REPLACED) {
                if self.dir.join(step).exists() {
                    durable::remove(&self.dir.join(found))?;
                } else {
                    durable::rename(&self.dir.join(&found), &self.dir.join(step))?;
                    durable::sync_dir(&self.dir)?;
                }
            }
        }
        Ok(())
    }

    /// The steps that have a checkpoint, ascending; whether they are good is not looked at.
    pub fn steps(&self) -> Result<Vec<u64>> {
        let names = durable::names(&self.dir)?;
        let mut steps: Vec<u64> = names.iter().filter_map(|found| step_of(found)).collect();
        steps.sort_unstable();
        Ok(steps)
    }

    /// Whether the phase was ever committed, as far as its folder tells: there is a checkpoint, good or not, or one that
    /// was set aside as damaged.
    pub fn any_left(&self) -> Result<bool> {
        let names = durable::names(&self.dir)?;
        Ok(names.iter().any(|found| step_of(found).is_some() || is_set_aside(found)))
    }

    /// The newest checkpoint that is whole. Newer ones that are not are renamed to `step-000050.damaged`, so that no tool
    /// takes them for good, and reported.
    pub fn latest(&self) -> Result<Latest> {
        let mut latest = Latest::default();
        for step in self.steps()?.into_iter().rev() {
            let path = self.dir.join(name(step));
            match verify(&path, step)? {
                Ok(checkpoint) => {
                    latest.checkpoint = Some(checkpoint);
                    break;
                }
                Err(reason) => {
                    let mut aside = (1u32..).map(|n| match n {
                        1 => self.dir.join(format!("{}{DAMAGED}", name(step))),
                        n => self.dir.join(format!("{}{DAMAGED}-{n}", name(step))),
                    });
                    let set_aside = aside.find(|aside| !aside.exists()).unwrap_or_else(|| path.clone());
                    durable::rename(&path, &set_aside)?;
                    durable::sync_dir(&self.dir)?;
                    latest.damaged.push(Damaged { step, set_aside, reason });
                }
            }
        }
        Ok(latest)
    }
}

fn name(step: u64) -> String {
    format!("step-{step:06}")
}

fn step_of(found: &str) -> Option<u64> {
    let step = found.strip_prefix("step-")?.parse().ok()?;
    (name(step) == found).then_some(step)
}

/// Whether `latest` gave that name to a damaged checkpoint.
fn is_set_aside(found: &str) -> bool {
    let Some((step, number)) = found.split_once(DAMAGED) else { return false };
    let numbered = number.strip_prefix('-').is_some_and(|number| number.parse::<u32>().is_ok());
    step_of(step).is_some() && (number.is_empty() || numbered)
}

fn marks(files: &BTreeMap<String, FileMark>) -> Value {
    let mark = |file: &FileMark| json!({ "bytes": file.bytes, "blake3": file.blake3 });
    Value::Object(files.iter().map(|(name, file)| (name.clone(), mark(file))).collect())
}

fn run(mark: &Mark) -> Value {
    json!({ "files": marks(&mark.files), "timing_lines": mark.timing_lines })
}

/// Reads a checkpoint and compares every byte with what was recorded. The inner error says what is wrong with it; the
/// outer one that this could not be found out.
fn verify(path: &Path, step: u64) -> Result<std::result::Result<Checkpoint, String>> {
    let file = path.join(STATE);
    let text = match fs::read(&file) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::PermissionDenied => return Err(Error::io("read", &file)(error)),
        Err(error) => return Ok(Err(format!("`{STATE}` can't be read: {error}"))),
    };
    let Some(parts) = parse(&text) else {
        return Ok(Err(format!("`{STATE}` is not as it was written")));
    };
    if parts.step != step {
        return Ok(Err(format!("it is the checkpoint of step {}", parts.step)));
    }
    for (name, recorded) in &parts.files {
        let file = path.join(name);
        match durable::sum(&file) {
            Ok(found) if found == *recorded => {}
            Ok(found) if found.bytes != recorded.bytes => {
                return Ok(Err(format!("`{name}` has {} bytes, and had {}", found.bytes, recorded.bytes)));
            }
            Ok(_) => return Ok(Err(format!("the bytes of `{name}` have changed"))),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => return Err(Error::io("read", &file)(error)),
            Err(error) => return Ok(Err(format!("`{name}` can't be read: {error}"))),
        }
    }
    Ok(Ok(Checkpoint { path: path.to_owned(), step, state: parts.state, mark: parts.mark }))
}

struct Parts {
    step: u64,
    files: BTreeMap<String, FileMark>,
    mark: Mark,
    state: Value,
}

/// The parts of a `state.json`, if it has the hash that it says it has.
fn parse(text: &[u8]) -> Option<Parts> {
    let mut document: Value = serde_json::from_slice(text).ok()?;
    let hash = document.as_object_mut()?.shift_remove("blake3")?;
    if hash.as_str()? != json::hash(&document) || document.get("format")?.as_u64()? != FORMAT {
        return None;
    }
    Some(Parts {
        step: document.get("step")?.as_u64()?,
        files: serde_json::from_value(document.get("files")?.clone()).ok()?,
        mark: serde_json::from_value(document.get("run")?.clone()).ok()?,
        state: document.get("state")?.clone(),
    })
}
