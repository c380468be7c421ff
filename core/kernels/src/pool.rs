//! The compute threads: persistent workers that join a caller for the length of one call.
//!
//! A call hands out task numbers in order from one counter; caller and workers take the next until none is left. Which
//! thread runs a task never shows in a result. If another caller has the workers, or a task calls again, the call runs
//! on its own thread: nobody waits for anybody else's work.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, OnceLock, PoisonError, TryLockError};

/// How many threads compute, the caller included; 0 until someone asks.
static THREADS: AtomicUsize = AtomicUsize::new(0);

/// Sets how many threads compute, the caller included. Results don't depend on it.
pub fn set_threads(n: usize) {
    THREADS.store(n.max(1), Ordering::Relaxed);
}

/// How many threads compute, the caller included: all processors unless [`set_threads`] said otherwise.
pub fn threads() -> usize {
    match THREADS.load(Ordering::Relaxed) {
        0 => {
            let n = std::thread::available_parallelism().map_or(1, usize::from);
            THREADS.store(n, Ordering::Relaxed);
            n
        }
        n => n,
    }
}

/// Calls `task` with each number below `tasks`, on as many threads as there are, and returns when all are done.
///
/// # Panics
/// If a task panics, after the others have ended.
pub fn run<F: Fn(usize) + Sync>(tasks: usize, task: F) {
    let workers = threads().min(tasks).saturating_sub(1);
    if workers > 0 {
        let pool = pool();
        match pool.caller.try_lock() {
            Ok(mut started) => return pool.run(&mut started, workers, tasks, &task),
            Err(TryLockError::Poisoned(started)) => return pool.run(&mut started.into_inner(), workers, tasks, &task),
            Err(TryLockError::WouldBlock) => {}
        }
    }
    (0..tasks).for_each(task);
}

/// Calls `task` with ranges that cover `0..n`, each of at least `grain` elements but the last.
pub(crate) fn run_ranges<F: Fn(std::ops::Range<usize>) + Sync>(n: usize, grain: usize, task: F) {
    let parts = (n / grain.max(1)).clamp(1, 4 * threads());
    let parts = if threads() == 1 { 1 } else { parts };
    let width = n.div_ceil(parts).max(1);
    run(n.div_ceil(width), |part| task(part * width..n.min((part + 1) * width)));
}

/// Calls `task` with each of the items, `grain` of them together, on as many threads as there are.
///
/// # Panics
/// If a task panics, after the others have ended.
pub fn each<T: Send>(items: &mut [T], grain: usize, task: impl Fn(&mut T) + Sync) {
    let parts: Vec<Mutex<&mut [T]>> = items.chunks_mut(grain.max(1)).map(Mutex::new).collect();
    run(parts.len(), |part| {
        let mut items = parts[part].lock().unwrap_or_else(PoisonError::into_inner);
        items.iter_mut().for_each(&task);
    });
}

/// How often an idle worker looks for work before it sleeps, and a caller for the end before it yields.
const SPINS: u32 = 4000;

/// The state word: bit 0 says that a call is open, bits 1..32 count the workers inside it, the upper half numbers calls.
const OPEN: u64 = 1;
const WORKER: u64 = 2;
const INSIDE: u64 = (1 << 32) - 2;
const CALL: u64 = 1 << 32;

struct Pool {
    /// Held by the caller that has the workers; the number of workers started so far.
    caller: Mutex<usize>,
    state: AtomicU64,
    /// What the open call does. Only valid for a worker that is counted in `state`.
    job: Mutex<Option<Job>>,
    sleepers: AtomicUsize,
    asleep: Mutex<()>,
    wake: Condvar,
}

/// A call, with the lifetimes of its references erased.
#[derive(Clone, Copy)]
struct Job {
    task: *const (dyn Fn(usize) + Sync),
    next: *const AtomicUsize,
    panicked: *const AtomicBool,
    tasks: usize,
    workers: usize,
}

// SAFETY: all that is pointed to is Sync, and lives until the caller has seen every worker leave.
unsafe impl Send for Job {}

fn pool() -> &'static Pool {
    static POOL: OnceLock<Pool> = OnceLock::new();
    POOL.get_or_init(|| Pool {
        caller: Mutex::new(0),
        state: AtomicU64::new(0),
        job: Mutex::new(None),
        sleepers: AtomicUsize::new(0),
        asleep: Mutex::new(()),
        wake: Condvar::new(),
    })
}

/// Takes task numbers until none is left. A panic is kept for later, so that the borrowed job outlives all its workers.
fn work(task: &(dyn Fn(usize) + Sync), next: &AtomicUsize, tasks: usize) -> std::thread::Result<()> {
    catch_unwind(AssertUnwindSafe(|| {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= tasks {
                break;
            }
            task(number);
        }
    }))
}

impl Pool {
    fn run(&'static self, started: &mut usize, workers: usize, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        while *started < workers {
            let worker = *started;
            let spawned =
                std::thread::Builder::new().name(format!("compute-{}", worker + 1)).spawn(move || self.serve(worker));
            if spawned.is_err() {
                break; // The system has no thread to give: those that are there do the work.
            }
            *started += 1;
        }
        let (next, panicked) = (AtomicUsize::new(0), AtomicBool::new(false));
        // SAFETY: only the lifetime changes; the job is withdrawn below, before `task` ends.
        let erased = unsafe { std::mem::transmute::<&(dyn Fn(usize) + Sync), &'static (dyn Fn(usize) + Sync)>(task) };
        *self.job.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(Job { task: erased, next: &next, panicked: &panicked, tasks, workers });
        self.state.fetch_add(CALL | OPEN, Ordering::SeqCst);
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            drop(self.asleep.lock().unwrap_or_else(PoisonError::into_inner));
            self.wake.notify_all();
        }

        let mine = work(task, &next, tasks);
        self.state.fetch_and(!OPEN, Ordering::SeqCst);
        let mut spins = 0;
        while self.state.load(Ordering::Acquire) & INSIDE != 0 {
            spins += 1;
            if spins < SPINS { std::hint::spin_loop() } else { std::thread::yield_now() }
        }
        *self.job.lock().unwrap_or_else(PoisonError::into_inner) = None;
        if let Err(panic) = mine {
            resume_unwind(panic);
        }
        assert!(!panicked.load(Ordering::Relaxed), "a compute task panicked");
    }

    /// A worker's life: wait for a call that is open and not yet seen, enter, work, leave.
    fn serve(&self, worker: usize) {
        let mut seen = 0;
        loop {
            let state = self.wait(seen);
            let entered = state + WORKER;
            if self.state.compare_exchange(state, entered, Ordering::SeqCst, Ordering::Relaxed).is_err() {
                continue;
            }
            seen = state / CALL;
            let job = *self.job.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(job) = job.filter(|job| worker < job.workers) {
                // SAFETY: this worker is counted in `state`, and the caller does not return before it has left.
                let (task, next, panicked) = unsafe { (&*job.task, &*job.next, &*job.panicked) };
                if work(task, next, job.tasks).is_err() {
                    panicked.store(true, Ordering::Relaxed);
                }
            }
            self.state.fetch_sub(WORKER, Ordering::Release);
        }
    }

    /// The state, once it shows an open call other than `seen`: spins for a while, then sleeps.
    fn wait(&self, seen: u64) -> u64 {
        let open = |state: u64| state & OPEN != 0 && state / CALL != seen;
        for _ in 0..SPINS {
            let state = self.state.load(Ordering::Acquire);
            if open(state) {
                return state;
            }
            std::hint::spin_loop();
        }
        let mut guard = self.asleep.lock().unwrap_or_else(PoisonError::into_inner);
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        loop {
            let state = self.state.load(Ordering::SeqCst);
            if open(state) {
                self.sleepers.fetch_sub(1, Ordering::SeqCst);
                return state;
            }
            guard = self.wake.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sums(tasks: usize) -> usize {
        let sum = AtomicUsize::new(0);
        run(tasks, |task| {
            sum.fetch_add(task + 1, Ordering::Relaxed);
        });
        sum.into_inner()
    }

    #[test]
    fn every_task_runs_once_from_many_callers() {
        set_threads(3);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for tasks in 0..500 {
                        assert_eq!(sums(tasks % 40), (tasks % 40) * (tasks % 40 + 1) / 2);
                    }
                });
            }
        });
    }

    #[test]
    fn each_item_is_reached_once() {
        for (len, grain) in [(0, 3), (1, 3), (7, 3), (9, 3), (40, 1), (40, 0)] {
            let mut items: Vec<usize> = (0..len).collect();
            each(&mut items, grain, |item| *item += 100);
            assert!(items.iter().enumerate().all(|(i, &item)| item == i + 100), "{items:?}");
        }
    }

    #[test]
    fn a_task_may_call_again() {
        let sum = AtomicUsize::new(0);
        run(8, |_| {
            sum.fetch_add(sums(5), Ordering::Relaxed);
        });
        assert_eq!(sum.into_inner(), 8 * 15);
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_lives_on() {
        let caught = catch_unwind(|| run(16, |task| assert!(task != 11, "eleven")));
        assert!(caught.is_err());
        assert_eq!(sums(16), 136);
    }
}
