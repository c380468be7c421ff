//! A part of a step: every stage on a thread of its own, groups streaming between them through bounded channels.
//!
//! A channel that closes is the end of a part. A stage that fails says so and drops both its ends: its neighbours stop in
//! turn, nothing is learned from half a step, and no thread is left waiting. The first error in the order of the stages that
//! is not such a consequence is the cause that is reported.

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Scope, ScopedJoinHandle};
use std::time::Instant;

use base::Group;
use crossbeam::channel::{Receiver, Sender, bounded, unbounded};
use host::Spent;
use record::CollectedRow;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::plan::Plan;

/// Groups that may wait between two stages.
const CAPACITY: usize = 64;

/// What a stage does in a step.
pub(crate) trait Work: Send + Sync {
    /// Takes groups from `inbox` until it ends, hands groups to `outbox`, and says what it measured.
    fn run(&self, step: u64, inbox: &Inbox, outbox: &Outbox) -> Result<Report, Error>;

    /// Called while nothing learns, before the stage runs in a step.
    fn begin(&self) -> Result<(), Error> {
        Ok(())
    }

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
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Report {
    /// Metrics by name.
    pub metrics: Vec<(String, f64)>,
    /// The step's groups in prompt order, from stages that nothing follows: each with the advantage of every completion,
    /// or with none where nothing is learned from them.
    #[serde(skip)]
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
pub(crate) type Delivery = (usize, Arc<Group>);

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
#[derive(Serialize, Deserialize)]
pub(crate) struct Done {
    /// The stage's place in the plan's order.
    pub place: usize,
    pub stage: String,
    pub report: Report,
    #[serde(skip)]
    pub seconds: f64,
}

/// Groups that wait before stages, by the stage's place in the plan's order: where a step is cut into parts.
pub(crate) type Waiting = BTreeMap<usize, Vec<Delivery>>;

/// Runs the stages at the places `part` of a step. `work` holds one entry for each stage of the plan, in the plan's order.
/// Each takes what waits before it, and what its neighbours in the part send; what goes to stages outside of the part waits
/// before them after.
pub(crate) fn run_part(
    plan: &Plan,
    work: &[Box<dyn Work>],
    part: &[usize],
    step: u64,
    waiting: &mut Waiting,
) -> Result<Vec<Done>, Error> {
    let names: Vec<&str> = plan.order().map(|node| node.name).collect();
    let mut channels: BTreeMap<usize, (Sender<Delivery>, Receiver<Delivery>)> = BTreeMap::new();
    for &place in part {
        let before = waiting.remove(&place).unwrap_or_default();
        let (sender, receiver) = bounded(CAPACITY + before.len());
        before.into_iter().try_for_each(|delivery| sender.send(delivery)).map_err(|_| Error::Downstream)?;
        channels.insert(place, (sender, receiver));
    }
    let mut outside: BTreeMap<usize, (Sender<Delivery>, Receiver<Delivery>)> = BTreeMap::new();
    let outbox = |&place: &usize| {
        let sender = |(target, position): (usize, usize)| {
            let (sender, _) = match channels.get(&target) {
                Some(inside) => inside,
                None => outside.entry(target).or_insert_with(unbounded),
            };
            (position, sender.clone())
        };
        Outbox(plan.outputs(place).into_iter().map(sender).collect())
    };
    let outboxes: Vec<Outbox> = part.iter().map(outbox).collect();
    // Only outboxes may keep a channel open: a stage's input ends when all that feed it are done.
    let failed = Arc::new(AtomicBool::new(false));
    let inboxes: Vec<Inbox> =
        channels.into_values().map(|(_, groups)| Inbox { groups, failed: failed.clone() }).collect();
    let caught: Vec<(usize, Receiver<Delivery>)> =
        outside.into_iter().map(|(place, (_, receiver))| (place, receiver)).collect();

    let results: Vec<Result<Done, Error>> = std::thread::scope(|scope| {
        let threads: Vec<_> = part
            .iter()
            .zip(inboxes.into_iter().zip(outboxes))
            .map(|(&place, (inbox, outbox))| {
                let (work, stage) = (&work[place], names[place]);
                let span = tracing::info_span!("stage", stage, step = step + 1);
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
                    let stage = stage.to_owned();
                    match report {
                        Ok(report) => Ok(Done { place, stage, report, seconds: started.elapsed().as_secs_f64() }),
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
    for (place, receiver) in caught {
        waiting.entry(place).or_default().extend(receiver.try_iter());
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
