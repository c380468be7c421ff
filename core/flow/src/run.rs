//! Starting a run, and going on with one.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use base::Diagnostic;
use host::{Host, Options};
use indexmap::IndexMap;
use record::RunFolder;
use serde_json::{Value, json};
use spec::Document;

use crate::drive::{Drive, Position};
use crate::environment;
use crate::error::Error;
use crate::observer::{Event, Observer};
use crate::phase::{Phase, phases, resolved};
use crate::ready::{Takeover, prepare};

/// The kind of the first event of a run: where and how it was started.
const STARTED: &str = "started";

/// What is to be run, and how the user named it.
#[derive(Clone, Copy, Debug)]
pub struct Job<'a> {
    /// What the file says.
    pub document: &'a Document,
    /// The file.
    pub file: &'a Path,
    /// The overrides, as on the command line.
    pub overrides: &'a [String],
    /// Whether `document` is no more than the file's evaluations.
    pub only_evaluations: bool,
}

/// How a run was started, so that it can be read again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The working folder, which paths are relative to.
    pub folder: PathBuf,
    /// The file.
    pub file: PathBuf,
    /// The overrides.
    pub overrides: Vec<String>,
    /// Whether only the evaluations of the file were run.
    pub only_evaluations: bool,
}

/// How a run ended without an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All steps are done.
    Finished {
        /// The run's folder.
        folder: PathBuf,
    },
    /// The step that was under way is done and committed; [`resume`] goes on.
    Interrupted {
        /// The run's folder.
        folder: PathBuf,
    },
}

/// A request to end after the step that is under way.
#[derive(Clone, Debug, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Asks for the end; whether this was the first time.
    pub fn request(&self) -> bool {
        !self.0.swap(true, Ordering::SeqCst)
    }

    pub(crate) fn requested(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// Whatever does not fit between a document and the plugins, data and models that it names.
///
/// # Errors
/// Plugins can't be run on this machine at all.
pub fn check(document: &Document) -> Result<Vec<Diagnostic>, Error> {
    let host = Host::new(Options::default())?;
    Ok(check_phases(&phases(document), &host).0)
}

fn check_phases(phases: &[Phase<'_>], host: &Host) -> (Vec<Diagnostic>, Vec<IndexMap<String, String>>) {
    let mut findings = Vec::new();
    let hashes = phases.iter().map(|phase| environment::check(phase, phases, host, &mut findings)).collect();
    // Two phases may run one file.
    let mut unique: Vec<Diagnostic> = Vec::new();
    for finding in findings {
        if !unique.contains(&finding) {
            unique.push(finding);
        }
    }
    (unique, hashes)
}

/// What starting and resuming share: a document that fits its surroundings.
struct Fit<'a> {
    phases: Vec<Phase<'a>>,
    host: Host,
    resolved: Value,
}

fn fit<'a>(job: &Job<'a>) -> Result<Fit<'a>, Error> {
    let folder = std::env::current_dir().unwrap_or_default();
    if let Some(path) = [&*folder, job.file].into_iter().find(|path| path.to_str().is_none()) {
        return Err(Error::Finding(format!("the path {} is not UTF-8: rename it", path.display())));
    }
    let phases = phases(job.document);
    let host = Host::new(Options::default())?;
    let (findings, plugins) = check_phases(&phases, &host);
    if findings.iter().any(Diagnostic::is_error) {
        return Err(Error::Environment(findings));
    }
    let inputs = phases.iter().map(environment::inputs).collect::<Result<Vec<_>, _>>()?;
    let resolved = resolved(job.document, &plugins, &inputs)?;
    Ok(Fit { phases, host, resolved })
}

/// The gates of a recipe; a pipeline's are looked at when its phase ends.
fn recipe_gates(document: &Document) -> &[spec::Gate] {
    match document {
        Document::Pipeline(_) => &[],
        Document::Recipe(recipe) => &recipe.gates,
    }
}

fn place(document: &Document) -> (&Path, &str) {
    match document {
        Document::Pipeline(pipeline) => (&pipeline.run.dir, &pipeline.name),
        Document::Recipe(recipe) => (&recipe.dir, &recipe.name),
    }
}

/// Makes a run folder and runs the document in it.
///
/// # Errors
/// What [`Error`] lists; what was committed before stays.
pub fn run(job: &Job<'_>, observer: &dyn Observer, interrupt: &Interrupt) -> Result<Outcome, Error> {
    let Fit { phases, host, resolved } = fit(job)?;
    // What can't be loaded is found before there is a folder.
    let first = match phases.first() {
        Some(phase) => Some(prepare(phase, &Takeover::of_files(phase), &host)?),
        None => None,
    };
    let text = std::fs::read_to_string(job.file)
        .map_err(|error| Error::Defect(format!("{} can't be read again: {error}", job.file.display())))?;
    let (dir, name) = place(job.document);
    let run = RunFolder::create(dir, name, &text, &resolved)?;
    let folder = std::env::current_dir().unwrap_or_default();
    run.events().append(
        STARTED,
        &[
            ("folder", json!(folder)),
            ("file", json!(job.file)),
            ("overrides", json!(job.overrides)),
            ("only_evaluations", json!(job.only_evaluations)),
        ],
    )?;
    let recipe_gates = recipe_gates(job.document);
    let drive = Drive { run: &run, phases: &phases, recipe_gates, host: &host, observer, interrupt };
    drive.go(Position::default(), first)
}

/// The folder of the latest run of a document's name.
///
/// # Errors
/// There is none, or what is there can't be read.
pub fn latest(job: &Job<'_>) -> Result<PathBuf, Error> {
    let (dir, name) = place(job.document);
    RunFolder::latest(dir, name)?.ok_or_else(|| {
        let hint = format!("start one with: pipeline run {}", job.file.display());
        Error::Resume(format!("there is nothing to resume: no run of `{name}` below {}; {hint}", dir.display()))
    })
}

/// Goes on with the run in `folder` from its last commit.
///
/// # Errors
/// It is another document's, or another process works in it; and what [`Error`] lists.
pub fn resume(job: &Job<'_>, folder: &Path, observer: &dyn Observer, interrupt: &Interrupt) -> Result<Outcome, Error> {
    let run = RunFolder::open(folder)?;
    let Fit { phases, host, resolved } = fit(job)?;
    run.require(&resolved)?;
    let position = locate(&run, &phases, observer)?;
    let recipe_gates = recipe_gates(job.document);
    if position.phase == phases.len() {
        observer.notice(&Event::Folder { path: run.path() });
        observer.notice(&Event::Warning { message: "there is nothing to resume: the run has ended" });
        let drive = Drive { run: &run, phases: &phases, recipe_gates, host: &host, observer, interrupt };
        if let Some(missed) = drive.gates(recipe_gates, "")? {
            return Err(Error::Finding(missed));
        }
        return Ok(Outcome::Finished { folder: run.path().to_owned() });
    }
    let mark = position.mark.clone();
    let rewound = run.rewind(&mark)?;
    for lost in &rewound.lost {
        let message = format!("{} is not as it was when it was committed; nothing in the run reads it", lost.display());
        observer.notice(&Event::Warning { message: &message });
    }
    let to = position.checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.step);
    let phase = phases[position.phase].name;
    run.events().append("rewound", &[("phase", json!(phase)), ("to", json!(to))])?;
    observer.notice(&Event::Rewound { phase, to });
    let drive = Drive { run: &run, phases: &phases, recipe_gates, host: &host, observer, interrupt };
    drive.go(position, None)
}

/// Finds the last commit of the run, and where it goes on from there. A phase with a checkpoint shows that those before it
/// have ended.
fn locate(run: &RunFolder, phases: &[Phase<'_>], observer: &dyn Observer) -> Result<Position, Error> {
    for (i, phase) in phases.iter().enumerate().rev() {
        let checkpoints = run.phase(phase.folder)?.checkpoints();
        let latest = checkpoints.latest()?;
        for damaged in &latest.damaged {
            let message = format!(
                "the checkpoint of step {} is damaged ({}); it was set aside as {}",
                damaged.step,
                damaged.reason,
                damaged.set_aside.display()
            );
            run.events().append("damaged", &[("phase", json!(phase.name)), ("message", json!(message))])?;
            observer.notice(&Event::Warning { message: &message });
        }
        let name = phase.name;
        match latest.checkpoint {
            None if checkpoints.any_left()? => {
                let advice = "restore one that was set aside, or run it from the start with `pipeline run`";
                return Err(Error::Resume(format!(
                    "no checkpoint of `{name}` is left that could be resumed from; {advice}"
                )));
            }
            None => {}
            Some(checkpoint) => {
                if let Some(finding) = checkpoint.state["finding"].as_str() {
                    return Err(Error::Finding(format!("the run has ended with a finding: {finding}")));
                }
                let finished = checkpoint.state["finished"] == json!(true);
                let mark = checkpoint.mark.clone();
                return Ok(match finished {
                    true => Position { phase: i + 1, checkpoint: None, mark },
                    false => Position { phase: i, checkpoint: Some(checkpoint), mark },
                });
            }
        }
    }
    Ok(Position::default())
}

/// How the run in a folder was started.
///
/// # Errors
/// The folder is no run's.
pub fn origin(folder: &Path) -> Result<Origin, Error> {
    let path = folder.join("events.jsonl");
    let unknown =
        |why: String| Error::Resume(format!("{} is no run's folder that can be resumed: {why}", folder.display()));
    let text =
        std::fs::read_to_string(&path).map_err(|error| unknown(format!("events.jsonl can't be read: {error}")))?;
    let events = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let started = events.filter(|event| event["event"] == STARTED).find_map(|event| {
        Some(Origin {
            folder: serde_json::from_value(event["folder"].clone()).ok()?,
            file: serde_json::from_value(event["file"].clone()).ok()?,
            overrides: serde_json::from_value(event["overrides"].clone()).ok()?,
            only_evaluations: event["only_evaluations"] == json!(true),
        })
    });
    started.ok_or_else(|| unknown("its events don't say how it was started".to_owned()))
}
