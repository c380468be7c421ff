//! Through the phases, through the steps of each, from commit to commit.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use base::Group;
use host::{Host, Spent};
use record::{Checkpoint, Collected, Keep, Mark, PhaseFolder, RunFolder};
use serde_json::json;
use spec::{Gate, Pipeline, StageKind};

use crate::error::Error;
use crate::evaluate::Evaluation;
use crate::executor::Done;
use crate::gates::{self, Checked};
use crate::metrics;
use crate::observer::{Event, Observer};
use crate::phase::Phase;
use crate::plan::trained_model;
use crate::ready::{Ready, prepare};
use crate::run::{Interrupt, Outcome};
use crate::steps::Steps;

/// Where a run goes on. The default is its beginning.
#[derive(Default)]
pub(crate) struct Position {
    /// The number of phases that have ended.
    pub phase: usize,
    /// The checkpoint that the next phase goes on from.
    pub checkpoint: Option<Checkpoint>,
    /// The last commit.
    pub mark: Mark,
}

/// A run under way.
pub(crate) struct Drive<'a> {
    pub run: &'a RunFolder,
    pub phases: &'a [Phase<'a>],
    /// The gates of a recipe as a whole.
    pub recipe_gates: &'a [Gate],
    pub host: &'a Host,
    pub observer: &'a dyn Observer,
    pub interrupt: &'a Interrupt,
}

/// One phase under way.
struct Current<'a> {
    phase: Phase<'a>,
    ready: Ready<'a>,
    folder: PhaseFolder,
    /// Each collect stage's dataset, in the order of `ready.work`.
    collected: Vec<Option<Collected>>,
    /// The stages and evaluations that have warned: once is enough.
    warned: RefCell<BTreeSet<String>>,
}

/// Numbers of a step, by name.
type Numbers = Vec<(String, f64)>;

impl Drive<'_> {
    /// Runs all phases from `position` on. `first` is the first of them, if it has been made ready.
    pub fn go(&self, position: Position, first: Option<Ready<'_>>) -> Result<Outcome, Error> {
        self.observer.notice(&Event::Folder { path: self.run.path() });
        let folder = self.run.path().to_owned();
        let result = self.phases_from(position, first).and_then(|ended| {
            let missed = if ended { self.gates(self.recipe_gates, "")? } else { None };
            missed.map_or(Ok(ended), |missed| Err(Error::Finding(missed)))
        });
        match &result {
            Ok(true) => self.run.events().append("finished", &[])?,
            Ok(false) => self.run.events().append("interrupted", &[])?,
            Err(error) => {
                // The run's own error is the one to report, also where the log can't be written.
                let _ = self.run.events().append("failed", &[("error", json!(error.to_string()))]);
            }
        }
        Ok(if result? { Outcome::Finished { folder } } else { Outcome::Interrupted { folder } })
    }

    fn phases_from(&self, position: Position, mut first: Option<Ready<'_>>) -> Result<bool, Error> {
        let Position { phase: start, mut checkpoint, .. } = position;
        for phase in &self.phases[..start] {
            self.observer.notice(&Event::PhaseSkipped { phase: phase.name });
        }
        for phase in &self.phases[start..] {
            let checkpoint = checkpoint.take();
            let ready = match first.take() {
                Some(ready) => ready,
                None => {
                    let mut takeover = phase.takeover(self.phases, self.run)?;
                    if let (Some(checkpoint), Some(name)) = (&checkpoint, trained_model(phase.pipeline)) {
                        takeover.models.insert(name.to_owned(), checkpoint.path.clone());
                    }
                    prepare(phase, &takeover, self.host)?
                }
            };
            if !self.run_phase(*phase, ready, checkpoint.as_ref())? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Runs a phase to its end; false if an interrupt ended it before.
    fn run_phase(&self, phase: Phase<'_>, ready: Ready<'_>, checkpoint: Option<&Checkpoint>) -> Result<bool, Error> {
        if self.interrupt.requested() {
            return Ok(false);
        }
        let _span = tracing::info_span!("phase", phase = phase.name).entered();
        kernels::pool::set_threads(ready.threads);
        let folder = self.run.phase(phase.folder)?;
        let collected = ready.plan.order().map(|node| match &node.stage.kind {
            StageKind::Collect(collect) => folder.collected(&collect.path.to_string_lossy()).map(Some),
            _ => Ok(None),
        });
        let collected = collected.collect::<Result<Vec<_>, _>>()?;
        let current = Current { phase, ready, folder, collected, warned: RefCell::default() };

        let steps = phase.pipeline.run.steps;
        let dag = Steps::new(&current.ready.plan, &current.ready.work);
        let mut done = 0;
        if let Some(checkpoint) = checkpoint {
            done = checkpoint.step;
            current.load(checkpoint)?;
            dag.load(&checkpoint.path, done)?;
        }
        self.run.events().append("phase", &[("phase", json!(phase.name)), ("from", json!(done))])?;
        self.observer.notice(&Event::PhaseStarted { phase: phase.name, done, steps });
        for note in &current.ready.notes {
            self.warn(&current, note, note)?;
        }
        if checkpoint.is_none() {
            let due = |one: &Evaluation| one.is_due(0, steps);
            let (numbers, seconds) = self.evaluate(&current, 0, due)?;
            if !numbers.is_empty() {
                self.run.metrics().append(phase.name, 0, &numbers)?;
                self.run.timing().append(phase.name, 0, &[("timing_s/evaluations", seconds)])?;
            }
            if steps == 0 {
                self.end(&current, &dag, 0, None)?;
            }
        }
        while done < steps {
            if self.interrupt.requested() {
                return Ok(false);
            }
            let finding = self.step(&current, &dag, done)?;
            done += 1;
            let stops = match &phase.pipeline.run.early_stop {
                Some(stop) if done < steps => gates::stops(stop, phase.name, done, self.run.metrics())?,
                _ => false,
            };
            if stops {
                self.stop_early(&current, done)?;
            }
            if done == steps || stops {
                self.end(&current, &dag, done, finding)?;
                return Ok(true);
            }
            if keep(phase.pipeline).is_due(done) || finding.is_some() || self.interrupt.requested() {
                self.commit(&current, &dag, done, false, finding.as_deref())?;
            }
            if let Some(finding) = finding {
                return Err(Error::Finding(finding));
            }
        }
        Ok(true)
    }

    /// What is due at the end of a phase whose metric has not become better for a while.
    fn stop_early(&self, current: &Current<'_>, done: u64) -> Result<(), Error> {
        let (phase, steps) = (current.phase.name, current.phase.pipeline.run.steps);
        self.run.events().append("stopped-early", &[("phase", json!(phase)), ("step", json!(done))])?;
        self.observer.notice(&Event::StoppedEarly { phase, step: done, steps });
        let last = |one: &Evaluation| one.exam.spec.at_end && !one.is_due(done, steps);
        let (numbers, seconds) = self.evaluate(current, done, last)?;
        if !numbers.is_empty() {
            self.run.metrics().append(phase, done, &numbers)?;
            self.run.timing().append(phase, done, &[("timing_s/evaluations", seconds)])?;
        }
        Ok(())
    }

    /// The last commit of a phase, with what its gates found.
    fn end(&self, current: &Current<'_>, dag: &Steps<'_>, done: u64, finding: Option<String>) -> Result<(), Error> {
        let mut finding = finding;
        for collected in current.collected.iter().flatten() {
            if collected.finish()? == 0 {
                let path = collected.path();
                let empty =
                    format!("{} is empty: in {done} steps nothing was kept that could be collected", path.display());
                finding = finding.or(Some(empty));
            }
        }
        let missed = self.gates(&current.phase.pipeline.gates, current.phase.name)?;
        let finding = finding.or(missed);
        self.commit(current, dag, done, true, finding.as_deref())?;
        finding.map_or(Ok(()), |finding| Err(Error::Finding(finding)))
    }

    /// Looks at gates and tells what each found; what to say if one was missed.
    pub fn gates(&self, gates: &[Gate], phase: &str) -> Result<Option<String>, Error> {
        let mut missed = 0;
        for gate in gates {
            let Checked { passed, text, fields } = gates::check(gate, phase, self.run.metrics())?;
            self.run.events().append("gate", &fields)?;
            self.observer.notice(&Event::Gate { passed, text: &text });
            missed += usize::from(!passed);
        }
        let plural = if gates.len() == 1 { "gate was" } else { "gates were" };
        Ok((missed > 0).then(|| format!("{missed} of {} {plural} missed", gates.len())))
    }

    /// Runs the step after `done` steps and writes what came of it; gives the rule of the file that it broke, if any.
    fn step(&self, current: &Current<'_>, dag: &Steps<'_>, done: u64) -> Result<Option<String>, Error> {
        let (phase, step) = (current.phase.name, done + 1);
        let version = current.ready.trained.as_ref().map_or(0, |model| model.version());
        let started = Instant::now();
        let results = dag.run(done, step == current.phase.pipeline.run.steps)?;
        let seconds = started.elapsed().as_secs_f64();

        let mut numbers = Numbers::new();
        let mut timing = vec![("step_time".to_owned(), seconds)];
        let mut groups: Vec<(Arc<Group>, Vec<f64>)> = Vec::new();
        let mut spent: BTreeMap<String, Spent> = BTreeMap::new();
        let mut finding = None;
        for Done { stage, report, seconds, .. } in results {
            for (name, number) in report.metrics {
                // A second stage of a kind keeps its numbers apart under its own name.
                let name =
                    if numbers.iter().any(|(other, _)| *other == name) { format!("{stage}/{name}") } else { name };
                numbers.push((name, number));
            }
            if let Some((plugin, one)) = report.spent {
                let total = spent.entry(plugin).or_default();
                *total = *total + one;
            }
            timing.push((format!("timing_s/{stage}"), seconds));
            // Where several branches end, the one that learned knows most about the groups.
            let learned =
                |groups: &[(Arc<Group>, Vec<f64>)]| groups.iter().any(|(_, advantages)| !advantages.is_empty());
            if let Some(ended) =
                report.groups.filter(|ended| groups.is_empty() || (learned(ended) && !learned(&groups)))
            {
                groups = ended;
            }
            let found = report.finding.map(|text| format!("{text} (at step {step} of `{phase}`)"));
            finding = finding.or(found);
            if let Some(warning) = report.warning {
                self.warn(current, &stage, &warning)?;
            }
        }
        let tokens = numbers.iter().find(|(name, _)| name == "num_tokens").map_or(0.0, |(_, tokens)| *tokens);
        timing.push(("perf/throughput".to_owned(), tokens / seconds));
        numbers.extend(metrics::of_plugins(&spent));
        numbers.extend(metrics::of_groups(&groups));
        numbers.extend(metrics::lag(&groups, version));

        if !groups.is_empty() {
            let (groups, advantages): (Vec<_>, Vec<_>) = groups.into_iter().unzip();
            current.folder.rollouts().write(step, &groups, &advantages)?;
        }
        for (work, collected) in current.ready.work.iter().zip(&current.collected) {
            if let Some(collected) = collected {
                collected.append(&work.collected())?;
            }
        }
        let steps = current.phase.pipeline.run.steps;
        let due = |one: &Evaluation| one.is_due(step, steps);
        let (evaluated, evaluation_seconds) = self.evaluate(current, step, due)?;
        if !evaluated.is_empty() {
            timing.push(("timing_s/evaluations".to_owned(), evaluation_seconds));
        }
        numbers.extend(evaluated);
        self.run.metrics().append(phase, step, &numbers)?;
        self.run.timing().append(phase, step, &timing)?;
        self.observer.notice(&Event::Step { phase, step, steps, metrics: &numbers, seconds });
        Ok(finding)
    }

    /// Runs the evaluations that are due after `step` steps; their numbers, and the seconds that they took.
    fn evaluate(
        &self,
        current: &Current<'_>,
        step: u64,
        due: impl Fn(&Evaluation) -> bool,
    ) -> Result<(Numbers, f64), Error> {
        let started = Instant::now();
        let phase = current.phase.name;
        let mut numbers = Numbers::new();
        for evaluation in current.ready.evaluations.iter().filter(|one| due(one)) {
            let name = &evaluation.exam.name;
            let evaluated = evaluation.run(step).map_err(|cause| Error::Stage {
                stage: format!("evaluation {name}"),
                step,
                cause: Box::new(cause),
            })?;
            current.folder.evaluations().write(name, step, &evaluated.answered)?;
            self.run.events().append(
                "evaluation",
                &[
                    ("phase", json!(phase)),
                    ("step", json!(step)),
                    ("name", json!(name)),
                    ("examples", evaluated.examples),
                ],
            )?;
            self.observer.notice(&Event::Evaluated { phase, step, name, metrics: &evaluated.metrics });
            numbers.extend(evaluated.metrics);
            for (about, warning) in &evaluated.warnings {
                self.warn(current, &format!("{name}: {about}"), warning)?;
            }
        }
        Ok((numbers, started.elapsed().as_secs_f64()))
    }

    /// Tells the user what a stage or an evaluation warns of, the first time that it does.
    fn warn(&self, current: &Current<'_>, who: &str, message: &str) -> Result<(), Error> {
        if current.warned.borrow_mut().insert(who.to_owned()) {
            self.run
                .events()
                .append("warning", &[("phase", json!(current.phase.name)), ("message", json!(message))])?;
            self.observer.notice(&Event::Warning { message });
        }
        Ok(())
    }

    /// Makes everything up to `done` steps durable, and the finding that ends the run, if one does.
    fn commit(
        &self,
        current: &Current<'_>,
        dag: &Steps<'_>,
        done: u64,
        finished: bool,
        finding: Option<&str>,
    ) -> Result<(), Error> {
        let pipeline = current.phase.pipeline;
        let version = current.ready.trained.as_ref().map_or(0, |model| model.version());
        let state = json!({ "finished": finished, "weights_version": version, "finding": finding });
        current.folder.checkpoints().write(done, keep(pipeline), &state, |folder| {
            current.save(folder)?;
            if finished { Ok(()) } else { dag.save(folder) }
        })?;
        self.observer.notice(&Event::Committed { phase: current.phase.name, step: done });
        Ok(())
    }
}

/// When checkpoints are due, and which of them are kept.
fn keep(pipeline: &Pipeline) -> Keep {
    let spec::Checkpoints { every, keep: newest } = pipeline.run.checkpoint;
    Keep { newest, every, last: pipeline.run.steps }
}

impl Current<'_> {
    fn save(&self, folder: &Path) -> Result<(), Error> {
        if let Some(model) = &self.ready.trained {
            model.save(folder).map_err(Error::model)?;
        }
        self.ready.work.iter().try_for_each(|work| work.save(folder))
    }

    fn load(&self, checkpoint: &Checkpoint) -> Result<(), Error> {
        if let Some(model) = &self.ready.trained {
            let version = checkpoint.state["weights_version"].as_u64();
            model.set_version(
                version.ok_or_else(|| Error::Resume("the checkpoint has no version of the weights".to_owned()))?,
            );
        }
        self.ready.work.iter().try_for_each(|work| work.load(&checkpoint.path))
    }
}
