//! The folder of a run: whose it is, who works in it, and how far it got.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Number, Value, json};

use crate::checkpoint::Checkpoints;
use crate::collected::{self, Collected};
use crate::durable;
use crate::error::{Error, Result};
use crate::evaluations::{self, Evaluations};
use crate::json;
use crate::lines::Lines;
use crate::rollouts::{self, Rollouts};

const PIPELINE: &str = "pipeline.toml";
const IDENTITY: &str = "lock.json";
const LOCK: &str = ".lock";
const EVENTS: &str = "events.jsonl";
const METRICS: &str = "metrics.jsonl";
const TIMING: &str = "timing.jsonl";
const PHASES: &str = "phases";

/// The length and the hash of a file at a commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileMark {
    /// How long it was.
    pub bytes: u64,
    /// The blake3 hash of those bytes, in hexadecimal.
    pub blake3: String,
}

/// What a checkpoint records of the rest of the run's folder. The default is the mark of a run that committed nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Every file that exactness covers, by its path in the run's folder.
    pub files: BTreeMap<String, FileMark>,
    /// Lines of `timing.jsonl`, whose bytes differ from run to run.
    pub timing_lines: u64,
}

/// What [`RunFolder::rewind`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rewound {
    /// Files that were made after the commit, and are gone now.
    pub removed: Vec<PathBuf>,
    /// Rollouts and results of evaluations that the commit vouches for, but that are absent or of another length. Nothing in the run reads them again.
    pub lost: Vec<PathBuf>,
}

/// A run's folder, locked for this process until the last clone is dropped.
#[derive(Clone)]
pub struct RunFolder {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub path: PathBuf,
    name: String,
    resolved: Value,
    events: Events,
    metrics: Metrics,
    timing: Metrics,
    pub ledger: Mutex<Ledger>,
    _lock: File,
}

/// What the next checkpoint will vouch for.
#[derive(Default)]
pub(crate) struct Ledger {
    /// Whole files, by path in the run's folder.
    pub files: BTreeMap<String, FileMark>,
    /// Growing files, by path in the run's folder.
    pub logs: BTreeMap<String, Lines>,
    /// Files that the last commit needs and the next one does not.
    pub superseded: Vec<PathBuf>,
}

impl Inner {
    pub fn ledger(&self) -> MutexGuard<'_, Ledger> {
        hold(&self.ledger)
    }

    pub fn events(&self) -> &Events {
        &self.events
    }

    /// Makes all files durable and says how long they are.
    pub fn mark(&self) -> Result<Mark> {
        let mut ledger = self.ledger();
        let mut files = ledger.files.clone();
        for (name, log) in &mut ledger.logs {
            files.insert(name.clone(), log.mark()?);
        }
        files.insert(METRICS.to_owned(), hold(&self.metrics.lines).mark()?);
        let mut timing = hold(&self.timing.lines);
        timing.mark()?;
        Ok(Mark { files, timing_lines: timing.count()? })
    }
}

/// A panic elsewhere leaves these values whole: each is changed after its file was.
fn hold<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl RunFolder {
    /// Makes `dir/name/ID` with the next free ID (0001, 0002, ...) and locks it. `resolved` is all that the run depends on;
    /// whoever resumes must show the same.
    pub fn create(dir: &Path, name: &str, pipeline_text: &str, resolved: &Value) -> Result<Self> {
        durable::check_name("run", name)?;
        let runs = dir.join(name);
        durable::create_dir_all(&runs)?;
        let mut id = ids(&runs)?.last().map_or(1, |(id, _)| id + 1);
        let path = loop {
            let path = runs.join(format!("{id:04}"));
            match fs::create_dir(&path) {
                Ok(()) => break path,
                // Another process took the number between our look and now.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => id += 1,
                Err(error) => return Err(Error::io("create the run folder", &path)(error)),
            }
        };
        let lock = lock(&path)?;
        durable::write_synced(&path.join(PIPELINE), pipeline_text.as_bytes())?;
        let identity = json!({
            "format": 1, "name": name, "resolved": resolved, "resolved_blake3": json::hash(resolved)
        });
        // The identity comes last: a folder without it never was a run.
        durable::replace(&path.join(IDENTITY), json::pretty(&identity).as_bytes())?;
        durable::sync_dir(&runs)?;
        Self::new(path, lock, name.to_owned(), resolved.clone())
    }

    /// Opens and locks a run folder that exists. Follow with [`RunFolder::require`], then load a checkpoint and
    /// [`RunFolder::rewind`] to its mark.
    pub fn open(path: &Path) -> Result<Self> {
        let not_a_run = |missing| Error::NotARun { path: path.to_owned(), missing };
        let read = |name: &'static str| match fs::read_to_string(path.join(name)) {
            Ok(text) => Ok(text),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                Err(not_a_run(name))
            }
            Err(error) => Err(Error::io("read", &path.join(name))(error)),
        };
        read(PIPELINE)?;
        let identity: Value = serde_json::from_str(&read(IDENTITY)?).map_err(|_| not_a_run(IDENTITY))?;
        let resolved = identity.get("resolved").cloned().ok_or_else(|| not_a_run(IDENTITY))?;
        if identity.get("resolved_blake3") != Some(&Value::String(json::hash(&resolved))) {
            let found = "what it says the run depends on does not have the hash beside it".to_owned();
            return Err(Error::Changed { path: path.join(IDENTITY), found });
        }
        let name = identity.get("name").and_then(Value::as_str).ok_or_else(|| not_a_run(IDENTITY))?;
        let lock = lock(path)?;
        Self::new(path.to_owned(), lock, name.to_owned(), resolved)
    }

    /// The newest run of that name under `dir`, if there is one.
    pub fn latest(dir: &Path, name: &str) -> Result<Option<PathBuf>> {
        let runs = dir.join(name);
        let ids = ids(&runs)?;
        let born = ids.into_iter().rev().map(|(_, id)| runs.join(id)).find(|path| path.join(IDENTITY).is_file());
        Ok(born)
    }

    fn new(path: PathBuf, lock: File, name: String, resolved: Value) -> Result<Self> {
        let open = |name: &str| Lines::open(&path.join(name)).map(Mutex::new);
        let events = Events { lines: open(EVENTS)? };
        let metrics = Metrics { lines: open(METRICS)? };
        let timing = Metrics { lines: open(TIMING)? };
        durable::remove_leftovers(&path)?;
        durable::sync_dir(&path)?;
        let ledger = Mutex::default();
        let inner = Inner { path, name, resolved, events, metrics, timing, ledger, _lock: lock };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// Refuses a run that depends on something else than this folder's run did, and says on what.
    pub fn require(&self, resolved: &Value) -> Result<()> {
        let differences = json::differences(&self.inner.resolved, resolved, 5);
        if differences.is_empty() {
            return Ok(());
        }
        Err(Error::OtherPipeline { path: self.inner.path.clone(), differences })
    }

    /// The folder of a phase, made where it is absent: that of the run itself for a pipeline without phases. What a
    /// killed process left unfinished in it is removed.
    pub fn phase(&self, name: Option<&str>) -> Result<PhaseFolder> {
        let prefix = match name {
            Some(name) => {
                durable::check_name("phase", name)?;
                format!("{PHASES}/{name}/")
            }
            None => String::new(),
        };
        let name = name.unwrap_or(&self.inner.name).to_owned();
        let phase = PhaseFolder { inner: self.inner.clone(), prefix, name };
        durable::create_dir_all(&phase.path())?;
        for part in ["checkpoints", "rollouts", "collected"] {
            durable::remove_leftovers(&phase.path().join(part))?;
        }
        for part in evaluations::folders(&phase.path())? {
            durable::remove_leftovers(&phase.path().join(part))?;
        }
        Checkpoints::new(&phase).recover()?;
        Ok(phase)
    }

    /// The log of what happened and when.
    pub fn events(&self) -> &Events {
        &self.inner.events
    }

    /// `metrics.jsonl`: numbers that the same file, lock and seed repeat to the byte.
    pub fn metrics(&self) -> &Metrics {
        &self.inner.metrics
    }

    /// `timing.jsonl`: numbers that depend on the machine and its mood.
    pub fn timing(&self) -> &Metrics {
        &self.inner.timing
    }

    /// Cuts the run back to a commit: growing files to their recorded lengths, files made later removed. A resumed run
    /// calls it with the mark of the checkpoint it loaded, or with the default if there is none. What a later phase may
    /// read must be as it was committed, else nothing is touched. What the user put beside the run's files stays.
    pub fn rewind(&self, mark: &Mark) -> Result<Rewound> {
        let inner = &*self.inner;
        for (name, file) in mark.files.iter().filter(|(name, _)| collected::is_dataset(name)) {
            verify(&inner.path.join(name), file)?;
        }
        let mut ledger = inner.ledger();
        let mut rewound = Rewound::default();
        *ledger = Ledger::default();
        match mark.files.get(METRICS) {
            Some(metrics) => hold(&inner.metrics.lines).rewind(metrics)?,
            None => hold(&inner.metrics.lines).rewind_to_line(0)?,
        }
        hold(&inner.timing.lines).rewind_to_line(mark.timing_lines)?;
        for (name, file) in mark.files.iter().filter(|(name, _)| *name != METRICS) {
            let path = inner.path.join(name);
            if collected::is_log(name) {
                let mut log = Lines::open(&path)?;
                log.rewind(file)?;
                ledger.logs.insert(name.clone(), log);
            } else {
                if !collected::is_dataset(name) && fs::metadata(&path).map_or(true, |found| found.len() != file.bytes) {
                    rewound.lost.push(path);
                }
                ledger.files.insert(name.clone(), file.clone());
            }
        }
        let phases = durable::names(&inner.path.join(PHASES))?;
        let prefixes = phases.iter().map(|phase| format!("{PHASES}/{phase}/"));
        for prefix in std::iter::once(String::new()).chain(prefixes).filter(|prefix| inner.path.join(prefix).is_dir()) {
            let evaluations = evaluations::folders(&inner.path.join(&prefix))?;
            for part in ["rollouts".to_owned(), "collected".to_owned()].into_iter().chain(evaluations) {
                let names = durable::names(&inner.path.join(&prefix).join(&part))?;
                let is_ours = |name: &str| match part.as_str() {
                    _ if name.starts_with(durable::WRITING) => true,
                    "collected" => collected::is_ours(name, &names),
                    _ => rollouts::step_of(name).is_some(),
                };
                let ours = names.iter().filter(|name| is_ours(name)).map(|name| format!("{prefix}{part}/{name}"));
                let mut later: Vec<String> = ours.filter(|name| !mark.files.contains_key(name)).collect();
                // A log goes last: it is what tells that its dataset is ours.
                later.sort_by_key(|name| collected::is_log(name));
                for path in later.iter().map(|name| inner.path.join(name)) {
                    durable::remove(&path)?;
                    rewound.removed.push(path);
                }
            }
        }
        Ok(rewound)
    }
}

/// The part of a run's folder that belongs to one phase.
#[derive(Clone)]
pub struct PhaseFolder {
    pub(crate) inner: Arc<Inner>,
    pub(crate) prefix: String,
    /// That of the run where the run has no phases.
    pub(crate) name: String,
}

impl PhaseFolder {
    /// The folder.
    pub fn path(&self) -> PathBuf {
        self.inner.path.join(&self.prefix)
    }

    /// Its checkpoints.
    pub fn checkpoints(&self) -> Checkpoints {
        Checkpoints::new(self)
    }

    /// Its rollouts.
    pub fn rollouts(&self) -> Rollouts {
        Rollouts::new(self)
    }

    /// What its evaluations saw.
    pub fn evaluations(&self) -> Evaluations {
        Evaluations::new(self)
    }

    /// A dataset that it makes: a file name that ends in `.jsonl` or `.parquet`.
    pub fn collected(&self, name: &str) -> Result<Collected> {
        Collected::new(self, name)
    }
}

/// `events.jsonl`: one JSON object a line, with the time in UTC and the kind of the event. Never cut back.
pub struct Events {
    lines: Mutex<Lines>,
}

impl Events {
    /// Appends an event.
    pub fn append(&self, kind: &str, fields: &[(&str, Value)]) -> Result<()> {
        let mut event = Map::new();
        event.insert("time".to_owned(), Value::String(utc(SystemTime::now())));
        event.insert("event".to_owned(), Value::String(kind.to_owned()));
        event.extend(fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        hold(&self.lines).append(&format!("{}\n", Value::Object(event)))
    }
}

/// A file of numbers: one flat JSON object a line, `phase` and `step` first, then the names in the order given.
pub struct Metrics {
    lines: Mutex<Lines>,
}

impl Metrics {
    /// Appends a line. Numbers have their shortest form that reads back to the same; what is not finite becomes null.
    pub fn append<N: AsRef<str>>(&self, phase: &str, step: u64, numbers: &[(N, f64)]) -> Result<()> {
        let mut line = Map::new();
        line.insert("phase".to_owned(), Value::String(phase.to_owned()));
        line.insert("step".to_owned(), Value::Number(step.into()));
        for (name, number) in numbers {
            line.insert(name.as_ref().to_owned(), Number::from_f64(*number).map_or(Value::Null, Value::Number));
        }
        hold(&self.lines).append(&format!("{}\n", Value::Object(line)))
    }

    /// The steps at which a number was appended in a phase, and what it was, in order.
    pub fn of(&self, phase: &str, name: &str) -> Result<Vec<(u64, f64)>> {
        let content = hold(&self.lines).read()?;
        let lines = content.split(|&byte| byte == b'\n').filter_map(|line| serde_json::from_slice::<Value>(line).ok());
        let of = |line: Value| Some((line["step"].as_u64()?, line[name].as_f64()?));
        Ok(lines.filter(|line| line["phase"] == phase).filter_map(of).collect())
    }
}

/// Refuses a file that is not as a mark recorded it.
fn verify(path: &Path, mark: &FileMark) -> Result<()> {
    let found = match durable::sum(path) {
        Ok(found) if found == *mark => return Ok(()),
        Ok(found) if found.bytes != mark.bytes => format!("it has {} bytes, and had {}", found.bytes, mark.bytes),
        Ok(_) => "its bytes have changed".to_owned(),
        Err(error) if error.kind() == ErrorKind::NotFound => "it is gone".to_owned(),
        Err(error) => return Err(Error::io("read", path)(error)),
    };
    Err(Error::Changed { path: path.to_owned(), found })
}

/// The run IDs in a folder, ascending.
fn ids(runs: &Path) -> Result<Vec<(u64, String)>> {
    let names = durable::names(runs)?;
    let mut ids: Vec<(u64, String)> = names.into_iter().filter_map(|name| Some((name.parse().ok()?, name))).collect();
    ids.sort();
    Ok(ids)
}

/// Takes the run folder for this process, and writes the process's number into the lock for others to see. The lock goes
/// with the process, however it ends.
fn lock(path: &Path) -> Result<File> {
    let file_path = path.join(LOCK);
    let open = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&file_path);
    let mut file = open.map_err(Error::io("open the lock", &file_path))?;
    // A process that was just killed holds its lock until the system has cleared it away.
    let mut patience = 50;
    let taken = loop {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) if patience > 0 => {
                patience -= 1;
                std::thread::sleep(Duration::from_millis(20));
            }
            other => break other,
        }
    };
    match taken {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            let process = file.read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok());
            return Err(Error::Locked { path: path.to_owned(), process });
        }
        Err(TryLockError::Error(error)) => return Err(Error::io("lock", &file_path)(error)),
    }
    let id = format!("{}\n", std::process::id());
    file.set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| file.write_all(id.as_bytes()))
        .map_err(Error::io("write the lock", &file_path))?;
    Ok(file)
}

/// `2026-02-03T04:05:06.789Z`. The date from the day's number: Hinnant, "chrono-compatible low-level date algorithms".
fn utc(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let z = days + 719_468;
    let day_of_era = z % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + z / 146_097 * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", since.subsec_millis())
}

#[cfg(test)]
mod tests {

    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        let at = |seconds: u64| utc(UNIX_EPOCH + Duration::from_millis(seconds * 1_000 + 7));
        assert_eq!(at(0), "1970-01-01T00:00:00.007Z");
        assert_eq!(at(951_782_399), "2000-02-28T23:59:59.007Z");
        assert_eq!(at(951_782_400), "2000-02-29T00:00:00.007Z");
        assert_eq!(at(4_107_542_399), "2100-02-28T23:59:59.007Z");
        assert_eq!(at(4_107_542_400), "2100-03-01T00:00:00.007Z");
    }
}
