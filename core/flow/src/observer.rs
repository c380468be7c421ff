//! What a run tells whoever watches it. `flow` itself never prints.

/// Receives what happens, on the run's own thread.
pub trait Observer: Sync {
    /// Something happened.
    fn notice(&self, event: &Event<'_>);
}

/// Something that happened in a run.
#[derive(Debug)]
pub enum Event<'a> {
    /// A run folder is in use.
    Folder {
        /// Where it is.
        path: &'a std::path::Path,
    },
    /// A phase begins, or goes on after a resume.
    PhaseStarted {
        /// The phase.
        phase: &'a str,
        /// Steps that are done.
        done: u64,
        /// Steps in all.
        steps: u64,
    },
    /// A phase had ended before the run was interrupted.
    PhaseSkipped {
        /// The phase.
        phase: &'a str,
    },
    /// A step ended.
    Step {
        /// The phase.
        phase: &'a str,
        /// Its number, from 1.
        step: u64,
        /// Steps in all.
        steps: u64,
        /// What was measured.
        metrics: &'a [(String, f64)],
        /// Seconds it took.
        seconds: f64,
    },
    /// A phase ends before its last step: the metric that it watches has not become better for a while.
    StoppedEarly {
        /// The phase.
        phase: &'a str,
        /// Steps that are done.
        step: u64,
        /// Steps that it would have had.
        steps: u64,
    },
    /// An evaluation ended.
    Evaluated {
        /// The phase.
        phase: &'a str,
        /// Steps that were done.
        step: u64,
        /// The evaluation.
        name: &'a str,
        /// What was measured.
        metrics: &'a [(String, f64)],
    },
    /// A checkpoint is durable.
    Committed {
        /// The phase.
        phase: &'a str,
        /// Steps that are done.
        step: u64,
    },
    /// A resume went back to the last commit.
    Rewound {
        /// The phase.
        phase: &'a str,
        /// The commit's step; 0 for the start of the phase.
        to: u64,
    },
    /// A gate was looked at.
    Gate {
        /// Whether it was passed.
        passed: bool,
        /// What it says, and what was found.
        text: &'a str,
    },
    /// Something deserves a look.
    Warning {
        /// What.
        message: &'a str,
    },
}
