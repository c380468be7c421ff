//! One step: every stage on a thread of its own, groups streaming between them through bounded channels.
//!
//! A channel that closes is the end of a step. A stage that fails says so and drops both its ends: its neighbours stop in
//! turn, nothing is learned from half a step, and no thread is left waiting. The first error in the order of the stages that
//! is not such a consequence is the cause that is reported.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Scope, ScopedJoinHandle};
use std::time::Instant;

use base::Group;
use crossbeam::channel::{Receiver, Sender, bounded};
use host::Spent;
use record::CollectedRow;

use crate::error::Error;
use crate::plan::Plan;

/// Groups that may wait between two stages.
const CAPACITY: usize = 64;

/// What a stage does in a step.
pub(crate) trait Work: Send + Sync {
    /// Takes groups from `inbox` until it ends, hands groups to `outbox`, and says what it measured.
    fn run(&self, step: u64, inbox: &Inbox, outbox: &Outbox) -> Result<Report, Error>;

    /// Writes what the stage remembers over steps into a checkpoint.
    fn save(&self, _folder: &Path) -> Result<(), Error> {
        Ok(())
    }

    /// Takes what the stage remembers from a checkpoint.
    fn load(&self, _folder: &Path) -> Result<(), Error> {
        Ok(())
    }

    /// The dataset rows of the step that was last run.
    fn collected(&self) -> Vec<CollectedRow> {
        Vec::new()
    }
}

/// What a stage leaves behind after a step.
#[derive(Default)]
pub(crate) struct Report {
    /// Metrics by name.
    pub metrics: Vec<(String, f64)>,
    /// The step's groups in prompt order, from stages that nothing follows: each with the advantage of every completion,
    /// or with none where nothing is learned from them.
    pub groups: Option<Vec<(Arc<Group>, Vec<f64>)>>,
    /// What the stage's plugin has spent, by the plugin's name.
    pub spent: Option<(String, Spent)>,
    /// A rule of the file that the step broke: the run ends after the commit.
    pub finding: Option<String>,
    /// What the user should know though the run goes on.
    pub warning: Option<String>,
}

/// What a stage receives.
pub(crate) struct Inbox {
    groups: Receiver<Delivery>,
    /// Whether a stage of the step has failed.
    failed: Arc<AtomicBool>,
}

/// A group and the position of the input that it came by.
type Delivery = (usize, Arc<Group>);

impl Inbox {
    /// Groups with the position of the input that they came by, as they come.
    pub fn iter(&self) -> impl Iterator<Item = Delivery> {
        self.groups.iter()
    }

    /// The whole step in prompt order; an error if a stage before has failed.
    pub fn whole_step(&self) -> Result<Vec<Arc<Group>>, Error> {
        let mut groups: Vec<Arc<Group>> = self.groups.iter().map(|(_, group)| group).collect();
        if self.failed.load(Ordering::SeqCst) {
            return Err(Error::Downstream);
        }
        groups.sort_by_key(|group| group.index);
        Ok(groups)
    }
}

/// Where a stage's groups go.
pub(crate) struct Outbox(Vec<(usize, Sender<Delivery>)>);

impl Outbox {
    /// Hands a group to every stage that follows; waits while one of them is busy.
    pub fn send(&self, group: &Arc<Group>) -> Result<(), Error> {
        for (position, sender) in &self.0 {
            sender.send((*position, group.clone())).map_err(|_| Error::Downstream)?;
        }
        Ok(())
    }
}

/// A stage's report and the seconds it took.
pub(crate) struct Done {
    pub stage: String,
    pub report: Report,
    pub seconds: f64,
}

/// Runs one step. `work` holds one entry for each stage of the plan, in the plan's order.
pub(crate) fn run_step(plan: &Plan, work: &[Box<dyn Work>], step: u64) -> Result<Vec<Done>, Error> {
    let stages: Vec<_> = plan.order().collect();
    let mut ends: Vec<_> =
        stages.iter().map(|_| bounded(CAPACITY)).map(|(sender, receiver)| (sender, Some(receiver))).collect();
    let mut outboxes = Vec::with_capacity(stages.len());
    for (index, _) in &stages {
        let targets = plan.outputs(*index).into_iter().filter_map(|(target, position)| {
            let place = stages.iter().position(|(index, _)| *index == target)?;
            Some((position, ends[place].0.clone()))
        });
        outboxes.push(Outbox(targets.collect()));
    }
    // Only outboxes may keep a channel open: a stage's input ends when all that feed it are done.
    let failed = Arc::new(AtomicBool::new(false));
    let inbox = |groups| Inbox { groups, failed: failed.clone() };
    let inboxes: Vec<Inbox> = ends.iter_mut().filter_map(|(_, receiver)| receiver.take()).map(inbox).collect();
    drop(ends);

    let results: Vec<Result<Done, Error>> = std::thread::scope(|scope| {
        let threads: Vec<_> = stages
            .iter()
            .zip(work)
            .zip(inboxes.into_iter().zip(outboxes))
            .map(|(((_, node), work), (inbox, outbox))| {
                let span = tracing::info_span!("stage", stage = node.name, step = step + 1);
                spawn(scope, move || {
                    let _entered = span.entered();
                    let started = Instant::now();
                    let run = catch_unwind(AssertUnwindSafe(|| work.run(step, &inbox, &outbox)));
                    let report = run.unwrap_or_else(|panic| Err(Error::Panic(panic_text(panic.as_ref()))));
                    if report.is_err() {
                        // Whoever finds a channel closed has to know why.
                        inbox.failed.store(true, Ordering::SeqCst);
                    }
                    drop((inbox, outbox));
                    let stage = node.name.to_owned();
                    match report {
                        Ok(report) => Ok(Done { stage, report, seconds: started.elapsed().as_secs_f64() }),
                        Err(Error::Downstream) => Err(Error::Downstream),
                        Err(cause) => Err(Error::Stage { stage, step: step + 1, cause: Box::new(cause) }),
                    }
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread?.join().unwrap_or_else(|panic| Err(Error::Panic(panic_text(panic.as_ref())))))
            .collect()
    });

    let mut done = Vec::with_capacity(results.len());
    let mut consequence = None;
    for result in results {
        match result {
            Ok(one) => done.push(one),
            Err(Error::Downstream) => consequence = Some(Error::Downstream),
            Err(cause) => return Err(cause),
        }
    }
    consequence.map_or(Ok(done), Err)
}

/// A thread that may call plugins.
///
/// # Errors
/// The machine has no room for one.
pub(crate) fn spawn<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    work: impl FnOnce() -> T + Send + 'scope,
) -> Result<ScopedJoinHandle<'scope, T>, Error> {
    std::thread::Builder::new().stack_size(host::STACK).spawn_scoped(scope, work).map_err(Error::Thread)
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text =
        panic.downcast_ref::<&str>().map(|text| (*text).to_owned()).or_else(|| panic.downcast_ref::<String>().cloned());
    format!("a stage panicked: {}", text.unwrap_or_else(|| "no message".to_owned()))
}
