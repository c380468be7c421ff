//! A step in parts: what samples and judges, in rounds where a filter asks for more, and what learns from it; with
//! `ahead`, the next step is sampled while this one is learned.
//!
//! Whatever of this a later step depends on is in the commit: the finished batch of the next step, and the groups that a
//! filter kept beyond what it asked for.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use base::{Decision, Group};
use serde::{Deserialize, Serialize};
use spec::{Refill, StageKind};

use crate::error::Error;
use crate::executor::{Done, Report, Waiting, Work, run_part, spawn};
use crate::plan::Plan;

/// The steps of a phase.
pub(crate) struct Steps<'a> {
    plan: &'a Plan<'a>,
    work: &'a [Box<dyn Work>],
    /// What is run again until a filter has enough, if one asks for that.
    rounds: Option<Rounds>,
    /// The places of other stages that others follow.
    front: Vec<usize>,
    /// The places of stages that nothing follows: they learn and collect.
    ends: Vec<usize>,
    ahead: bool,
    state: Mutex<State>,
}

/// A filter that asks for more, and all that flows into it.
struct Rounds {
    filter: usize,
    part: Vec<usize>,
    refill: Refill,
}

/// What a later step takes over from those before it.
#[derive(Default)]
struct State {
    /// The next step as far as it was made ahead. Why that failed is said when its turn comes.
    next: Option<Result<Batch, Error>>,
    /// Groups that a filter kept beyond what it asked for.
    surplus: Vec<Arc<Group>>,
}

/// A step whose ends have not run.
#[derive(Serialize, Deserialize)]
struct Batch {
    step: u64,
    waiting: Waiting,
    done: Vec<Done>,
}

/// What a checkpoint holds of [`State`].
#[derive(Serialize, Deserialize)]
struct Saved {
    next: Option<Batch>,
    surplus: Vec<Arc<Group>>,
}

impl<'a> Steps<'a> {
    pub fn new(plan: &'a Plan<'a>, work: &'a [Box<dyn Work>]) -> Self {
        let nodes: Vec<_> = plan.order().collect();
        let rounds = nodes.iter().enumerate().find_map(|(filter, node)| match &node.stage.kind {
            StageKind::Filter(spec::Filter { refill: Some(refill), .. }) => {
                Some(Rounds { filter, part: plan.upstream(filter), refill: *refill })
            }
            _ => None,
        });
        let in_rounds = |place: &usize| rounds.as_ref().is_some_and(|rounds| rounds.part.contains(place));
        let (ends, front): (Vec<usize>, Vec<usize>) =
            (0..nodes.len()).filter(|place| !in_rounds(place)).partition(|&place| plan.outputs(place).is_empty());
        let ahead = nodes.iter().any(|node| matches!(&node.stage.kind, StageKind::Sample(sample) if sample.ahead));
        Self { plan, work, rounds, front, ends, ahead, state: Mutex::default() }
    }

    /// Runs a step; with `ahead`, all but the ends of the next one beside it, unless this is the `last`. What its stages
    /// left behind, in the plan's order.
    pub fn run(&self, step: u64, last: bool) -> Result<Vec<Done>, Error> {
        let next = self.state().next.take();
        let batch = match next {
            Some(batch) => batch?,
            None => {
                self.begin()?;
                self.batch(step)?
            }
        };
        debug_assert_eq!(batch.step, step);
        if !self.ahead || last {
            return self.finish(batch);
        }
        self.begin()?;
        let (done, next) = std::thread::scope(|scope| {
            let next = spawn(scope, || self.batch(step + 1))?;
            let done = self.finish(batch);
            let next = next.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            Ok::<_, Error>((done, next))
        })?;
        self.state().next = Some(next);
        done
    }

    /// Tells the stages that a step's first part comes.
    fn begin(&self) -> Result<(), Error> {
        let rounds = self.rounds.iter().flat_map(|rounds| &rounds.part);
        self.front.iter().chain(rounds).try_for_each(|&place| self.work[place].begin())
    }

    /// All of a step but its ends.
    fn batch(&self, step: u64) -> Result<Batch, Error> {
        let mut waiting = Waiting::new();
        let mut done = match &self.rounds {
            Some(rounds) => self.refill(rounds, step, &mut waiting)?,
            None => Vec::new(),
        };
        done.extend(run_part(self.plan, self.work, &self.front, step, &mut waiting)?);
        Ok(Batch { step, waiting, done })
    }

    fn finish(&self, batch: Batch) -> Result<Vec<Done>, Error> {
        let Batch { step, mut waiting, mut done } = batch;
        done.extend(run_part(self.plan, self.work, &self.ends, step, &mut waiting)?);
        done.sort_by_key(|one| one.place);
        Ok(done)
    }

    /// Samples in rounds until the filter has kept enough groups (dynamic sampling of DAPO, arXiv 2503.14476, section 3.2).
    /// A round takes the rows after those of the round before. What is kept beyond that waits for the next step.
    fn refill(&self, rounds: &Rounds, step: u64, waiting: &mut Waiting) -> Result<Vec<Done>, Error> {
        let Rounds { filter, part, refill } = rounds;
        let targets = self.plan.outputs(*filter);
        let mut groups = std::mem::take(&mut self.state().surplus);
        let mut done: Vec<Done> = Vec::new();
        let mut count = 0;
        while survivors(&groups) < refill.until && count <= refill.at_most {
            let mut made = Waiting::new();
            let round = run_part(self.plan, self.work, part, step, &mut made)?;
            let made = targets.first().and_then(|(target, _)| made.remove(target)).unwrap_or_default();
            let mut made: Vec<Arc<Group>> = made.into_iter().map(|(_, group)| group).collect();
            made.sort_by_key(|group| group.index);
            groups.extend(made);
            match done.is_empty() {
                true => done = round,
                false => done.iter_mut().zip(round).for_each(|(sum, one)| sum.add(one)),
            }
            count += 1;
        }
        let (mut groups, surplus) = cut(groups, refill.until);
        for (index, group) in groups.iter_mut().enumerate() {
            Arc::make_mut(group).index = index;
        }
        for (target, position) in targets {
            waiting.entry(target).or_default().extend(groups.iter().map(|group| (position, group.clone())));
        }

        let name = self.plan.order().nth(*filter).map_or("", |node| node.name);
        if done.is_empty() {
            // All was there already.
            let report = Report::default();
            done.push(Done { place: *filter, stage: name.to_owned(), report, seconds: 0.0 });
        }
        if let Some(own) = done.iter_mut().find(|one| one.place == *filter) {
            let (kept, more) = (survivors(&groups), surplus.len());
            own.report.metrics.extend([
                (format!("filter/{name}/rounds"), count as f64),
                (format!("filter/{name}/surplus"), more as f64),
            ]);
            if kept < refill.until {
                own.report.warning.get_or_insert(format!(
                    "`{name}` kept {kept} groups of the {} that `refill` asks for, after {count} rounds",
                    refill.until
                ));
            }
        }
        self.state().surplus = surplus;
        Ok(done)
    }

    /// Writes what later steps depend on into a checkpoint.
    pub fn save(&self, folder: &Path) -> Result<(), Error> {
        let mut state = self.state();
        let next = match state.next.take() {
            Some(Err(failed)) => return Err(failed),
            Some(Ok(batch)) => Some(batch),
            None => None,
        };
        let saved = Saved { next, surplus: std::mem::take(&mut state.surplus) };
        if saved.next.is_some() || !saved.surplus.is_empty() {
            let path = file(folder);
            let bytes = postcard::to_stdvec(&saved).map_err(|error| Error::Defect(error.to_string()))?;
            std::fs::write(&path, bytes)
                .map_err(|error| Error::Model(format!("failed to write {}: {error}", path.display())))?;
        }
        *state = State { next: saved.next.map(Ok), surplus: saved.surplus };
        Ok(())
    }

    /// Takes over what [`Steps::save`] wrote; `done` steps were done then.
    pub fn load(&self, folder: &Path, done: u64) -> Result<(), Error> {
        let path = file(folder);
        if !path.exists() {
            return Ok(());
        }
        let unusable = |why: String| Error::Resume(format!("{} can't be used: {why}", path.display()));
        let bytes = std::fs::read(&path).map_err(|error| unusable(error.to_string()))?;
        let Saved { next, surplus } = postcard::from_bytes(&bytes).map_err(|error| unusable(error.to_string()))?;
        if let Some(next) = next.as_ref().filter(|next| next.step != done) {
            return Err(unusable(format!("it holds step {}, and step {} comes next", next.step + 1, done + 1)));
        }
        *self.state() = State { next: next.map(Ok), surplus };
        Ok(())
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn file(folder: &Path) -> PathBuf {
    folder.join("waiting.bin")
}

impl Done {
    /// Adds what the stage did in another round.
    fn add(&mut self, round: Self) {
        for (name, number) in round.report.metrics {
            match self.report.metrics.iter_mut().find(|(other, _)| *other == name) {
                Some((_, sum)) => *sum += number,
                None => self.report.metrics.push((name, number)),
            }
        }
        if let (Some((_, sum)), Some((_, one))) = (&mut self.report.spent, round.report.spent) {
            *sum = *sum + one;
        }
        let Report { finding, warning, .. } = &mut self.report;
        *finding = finding.take().or(round.report.finding);
        *warning = warning.take().or(round.report.warning);
        self.seconds += round.seconds;
    }
}

fn survives(group: &Group) -> bool {
    group.decisions.contains(&Decision::Keep)
}

fn survivors(groups: &[Arc<Group>]) -> usize {
    groups.iter().filter(|group| survives(group)).count()
}

/// The groups up to the one that makes `until` survivors, with all that nothing is left of; and the other survivors.
fn cut(groups: Vec<Arc<Group>>, until: usize) -> (Vec<Arc<Group>>, Vec<Arc<Group>>) {
    let mut kept = 0;
    groups.into_iter().partition(|group| {
        let counts = survives(group);
        kept += usize::from(counts);
        !counts || kept <= until
    })
}
