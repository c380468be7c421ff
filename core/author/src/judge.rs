//! Judges a file of completions: lines in, lines out, in order, on all cores, in constant memory.
//!
//! A thread reads, workers parse, judge and write into buffers, and the calling thread puts the buffers in order. What
//! waits between them is bounded.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use base::{Context, Group, Verdict};
use host::{ConfigureError, Configured, HostError, World};
use serde::Serialize;
use serde_json::Value;

use crate::quantiles::Quantiles;
use crate::rows;

/// Lines that a worker takes at once.
const BATCH: usize = 8;

/// Bytes that are read at once.
const BUFFER: usize = 1 << 20;

/// The longest line.
const LONGEST: u64 = 256 << 20;

/// How many different reasons are kept for the summary.
const REASONS: usize = 5;

/// Why a file could not be judged to its end.
#[derive(Debug, thiserror::Error)]
pub enum JudgeError {
    /// The plugin does not judge completions.
    #[error("plugin `{0}` is a {1}: only a verifier or a rewarder judges completions")]
    World(String, String),
    /// The plugin refuses its config.
    #[error(transparent)]
    Config(#[from] ConfigureError),
    /// A line is not what it should be.
    #[error("{file}:{line}{}: {message}", column.map(|column| format!(":{column}")).unwrap_or_default())]
    Line {
        /// The file.
        file: String,
        /// From 1.
        line: u64,
        /// From 1, in bytes.
        column: Option<usize>,
        /// What is wrong, and what to write.
        message: String,
    },
    /// The input can't be read.
    #[error("failed to read {0}: {1}")]
    Read(String, std::io::Error),
    /// The output can't be written.
    #[error("failed to write the verdicts: {0}")]
    Write(std::io::Error),
    /// The host failed.
    #[error(transparent)]
    Host(#[from] HostError),
    /// No thread can be started.
    #[error("failed to start a thread: {0}")]
    Thread(std::io::Error),
    /// A worker panicked.
    #[error("a worker ended early; this is a defect of the tool")]
    Worker,
}

/// What to judge with.
pub struct Judge<'a> {
    /// The plugin.
    pub plugin: &'a host::Plugin,
    /// Its name, for messages.
    pub name: &'a str,
    /// Its config.
    pub config: &'a Value,
    /// What it is told beside its input.
    pub ctx: Context,
    /// How many threads judge.
    pub threads: usize,
}

/// What was judged so far.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Lines.
    pub lines: u64,
    /// Bytes of input.
    pub bytes: u64,
    /// Completions.
    pub completions: u64,
    /// Those with a score or a reward.
    pub decided: u64,
    /// Those that the plugin says are not its own.
    pub not_applicable: u64,
    /// The sum of the scores or rewards, in the order of the lines.
    pub sum: f64,
    /// Fuel or operations of a completion: its share of the call of its line.
    pub spent: Quantiles,
    /// The first different reasons, how often each was given, and the line where it was first.
    pub reasons: Vec<(String, u64, u64)>,
    /// Undecided completions with other reasons than these.
    pub other_reasons: u64,
}

impl Summary {
    /// Completions that could not be decided.
    pub fn undecided(&self) -> u64 {
        self.completions - self.decided - self.not_applicable
    }

    /// The mean score or reward of what was decided.
    pub fn mean(&self) -> Option<f64> {
        (self.decided > 0).then(|| self.sum / self.decided as f64)
    }

    fn reason(&mut self, reason: &str, times: u64, line: u64) {
        if let Some(known) = self.reasons.iter_mut().find(|known| known.0 == reason) {
            known.1 += times;
        } else if self.reasons.len() < REASONS {
            self.reasons.push((reason.to_owned(), times, line));
        } else {
            self.other_reasons += times;
        }
    }

    fn merge(&mut self, done: &Done) {
        let other = &done.summary;
        self.lines += other.lines;
        self.bytes += other.bytes;
        self.completions += other.completions;
        self.decided += other.decided;
        self.not_applicable += other.not_applicable;
        self.sum += other.sum;
        for (spent, times) in &done.spent {
            self.spent.add(*spent, *times);
        }
        for (reason, times, line) in &other.reasons {
            self.reason(reason, *times, *line);
        }
        self.other_reasons += other.other_reasons;
    }
}

/// Lines on their way to a worker.
struct Batch {
    text: Vec<u8>,
    /// The number of the first line in the file, from 0.
    first: u64,
    done: SyncSender<Result<Done, JudgeError>>,
}

/// Judged lines.
#[derive(Default)]
struct Done {
    text: Vec<u8>,
    summary: Summary,
    /// What each completion of a line has spent, and how many they are.
    spent: Vec<(u64, u64)>,
}

impl Judge<'_> {
    /// Judges the lines of `input`, which messages call `file`; blank lines are passed over. `observe` is told what has been
    /// written so far.
    ///
    /// # Errors
    /// The first thing wrong, in the order of the lines; what was written before it stays.
    pub fn judge(
        &self,
        input: impl Read + Send,
        file: &str,
        output: &mut dyn Write,
        mut observe: impl FnMut(&Summary),
    ) -> Result<Summary, JudgeError> {
        let mut workers = Vec::new();
        for _ in 0..self.threads.max(1) {
            // A config of its own gives each worker a meter of its own.
            let plugin = self.plugin.configure(self.config)?;
            let world = [World::Verifier, World::Rewarder].into_iter().find(|world| plugin.worlds().contains(world));
            let world = world.ok_or_else(|| JudgeError::World(self.name.into(), World::list(plugin.worlds())))?;
            workers.push(Worker { plugin, world, ctx: self.ctx, file: file.into() });
        }
        let waiting = 4 * workers.len();
        let (send, jobs) = sync_channel::<Batch>(waiting);
        let (order, due) = sync_channel::<Receiver<Result<Done, JudgeError>>>(waiting);
        let jobs = &Mutex::new(jobs);
        std::thread::scope(|scope| {
            for worker in workers {
                let thread = std::thread::Builder::new().stack_size(host::STACK);
                thread.spawn_scoped(scope, move || worker.work(jobs)).map_err(JudgeError::Thread)?;
            }
            scope.spawn(move || read(BufReader::with_capacity(BUFFER, input), file, &send, &order));
            let mut summary = Summary::default();
            loop {
                let next = match due.try_recv() {
                    Err(TryRecvError::Empty) => {
                        output.flush().map_err(JudgeError::Write)?;
                        due.recv().ok()
                    }
                    next => next.ok(),
                };
                let Some(done) = next else { break };
                let done = done.recv().map_err(|_| JudgeError::Worker)??;
                output.write_all(&done.text).map_err(JudgeError::Write)?;
                summary.merge(&done);
                observe(&summary);
            }
            output.flush().map_err(JudgeError::Write)?;
            Ok(summary)
        })
    }
}

/// Cuts the input into batches of lines, until the other side is gone.
fn read(
    mut input: BufReader<impl Read>,
    file: &str,
    jobs: &SyncSender<Batch>,
    order: &SyncSender<Receiver<Result<Done, JudgeError>>>,
) {
    let mut first = 0;
    loop {
        let (done, receive) = sync_channel(1);
        let mut text = Vec::new();
        let mut lines = 0;
        let mut problem = None;
        // A line that is not there yet is not waited for: who writes it may wait for the verdict of the one before.
        while problem.is_none() && (lines == 0 || (lines < BATCH && input.buffer().contains(&b'\n'))) {
            match (&mut input).take(LONGEST).read_until(b'\n', &mut text) {
                Ok(0) => break,
                Ok(n) if n as u64 == LONGEST => {
                    let message = format!("the line is longer than {} MiB", LONGEST >> 20);
                    let line = first + lines as u64 + 1;
                    problem = Some(JudgeError::Line { file: file.into(), line, column: None, message });
                }
                Ok(_) => lines += 1,
                Err(error) => problem = Some(JudgeError::Read(file.into(), error)),
            }
        }
        if order.send(receive).is_err() {
            return;
        }
        if let Some(problem) = problem {
            let _ = done.send(Err(problem));
            return;
        }
        if lines == 0 {
            let _ = done.send(Ok(Done::default()));
            return;
        }
        if jobs.send(Batch { text, first, done }).is_err() {
            return;
        }
        first += lines as u64;
    }
}

/// What each thread judges with.
struct Worker {
    plugin: Configured,
    world: World,
    ctx: Context,
    file: Arc<str>,
}

impl Worker {
    fn work(&self, jobs: &Mutex<Receiver<Batch>>) {
        loop {
            let next = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(batch) = next else { return };
            let done = self.batch(&batch);
            if batch.done.send(done).is_err() {
                return;
            }
        }
    }

    fn batch(&self, batch: &Batch) -> Result<Done, JudgeError> {
        let mut done = Done::default();
        done.summary.bytes = batch.text.len() as u64;
        for (i, line) in batch.text.split_inclusive(|byte| *byte == b'\n').enumerate() {
            let index = batch.first + i as u64;
            if line.trim_ascii().is_empty() {
                continue;
            }
            let group = rows::group_at(line, &self.file, index)?;
            self.group(&group, index + 1, &mut done)?;
        }
        Ok(done)
    }

    fn group(&self, group: &Group, line: u64, done: &mut Done) -> Result<(), JudgeError> {
        let n = group.completions.len() as u64;
        let before = self.plugin.spent();
        let summary = &mut done.summary;
        let answer = if self.world == World::Verifier {
            let verdicts = self.plugin.verify(&self.ctx, group)?;
            for verdict in &verdicts {
                match verdict {
                    Verdict::Decided(finding) => {
                        summary.decided += 1;
                        summary.sum += finding.score;
                    }
                    Verdict::Undecided(reason) => summary.reason(reason, 1, line),
                    Verdict::NotApplicable => summary.not_applicable += 1,
                }
            }
            let verdicts = verdicts.iter().map(Written::from).collect();
            serde_json::to_writer(&mut done.text, &Verdicts { verdicts })
        } else {
            let rewards = self.plugin.reward(&self.ctx, group)?;
            for reward in &rewards {
                match reward {
                    Ok(Some(reward)) => {
                        summary.decided += 1;
                        summary.sum += reward;
                    }
                    Ok(None) => summary.reason("no reward", 1, line),
                    Err(reason) => summary.reason(reason, 1, line),
                }
            }
            let undecided = rewards.iter().find_map(|reward| reward.as_ref().err().map(String::as_str));
            let rewards = rewards.iter().map(|reward| reward.as_ref().ok().copied().flatten()).collect();
            serde_json::to_writer(&mut done.text, &Rewards { rewards, undecided })
        };
        answer.map_err(|error| JudgeError::Write(error.into()))?;
        done.text.push(b'\n');
        let after = self.plugin.spent();
        let spent = after.fuel + after.operations - before.fuel - before.operations;
        summary.lines += 1;
        summary.completions += n;
        done.spent.push((spent.checked_div(n).unwrap_or(0), n));
        Ok(())
    }
}

/// An output line of a verifier.
#[derive(Serialize)]
struct Verdicts<'a> {
    verdicts: Vec<Written<'a>>,
}

/// A verdict as it is written.
#[derive(Serialize)]
#[serde(untagged)]
enum Written<'a> {
    Decided {
        score: f64,
        #[serde(skip_serializing_if = "Option::is_none")]
        answer: Option<&'a str>,
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        metrics: BTreeMap<&'a str, f64>,
        note: Option<&'a str>,
    },
    Undecided {
        undecided: &'a str,
    },
    NotApplicable {
        not_applicable: bool,
    },
}

impl<'a> From<&'a Verdict> for Written<'a> {
    fn from(verdict: &'a Verdict) -> Self {
        match verdict {
            Verdict::Decided(finding) => Self::Decided {
                score: finding.score,
                answer: finding.answer.as_deref(),
                metrics: finding.metrics.iter().map(|(name, value)| (name.as_str(), *value)).collect(),
                note: finding.note.as_deref(),
            },
            Verdict::Undecided(undecided) => Self::Undecided { undecided },
            Verdict::NotApplicable => Self::NotApplicable { not_applicable: true },
        }
    }
}

/// An output line of a rewarder; `undecided` is the reason why there are no rewards.
#[derive(Serialize)]
struct Rewards<'a> {
    rewards: Vec<Option<f64>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    undecided: Option<&'a str>,
}
