//! What both kinds of sandbox promise, and what a call in one of them gives.

use std::ops::Range;
use std::sync::Arc;

use base::{Context, Decision, Group, Row, Verdict};

/// How often a call may be tried: the first time with the others, then once more, alone, with ten times the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// The usual time.
    Once,
    /// Ten times the time, while no other call runs.
    Alone,
}

impl Patience {
    /// What the usual time is multiplied by.
    pub(crate) fn factor(self) -> u64 {
        match self {
            Self::Once => 1,
            Self::Alone => 10,
        }
    }
}

/// Why a call gave nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The plugin's own doing: the reason, as it stands in a verdict.
    Guest(String),
    /// The budget of fuel or operations is spent.
    Exhausted,
    /// The watchdog rang before the budget was spent.
    Expired,
}

/// What a call cost; the same for the same call, however long it took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cost {
    /// Fuel or operations.
    pub(crate) units: u64,
    /// Programs that were run.
    pub(crate) runs: u64,
    /// The fuel of those programs.
    pub(crate) run_fuel: u64,
    /// Bytes of linear memory that the instance came to have.
    pub(crate) memory: u64,
}

/// What a call gave and what it cost.
pub(crate) struct Outcome<T> {
    /// What it gave.
    pub(crate) result: Result<T, Fault>,
    /// What it cost.
    pub(crate) cost: Cost,
}

/// A loaded plugin.
pub(crate) trait Code: Send + Sync {
    /// The JSON Schema of its config, as the plugin writes it; `None` if it takes no config.
    fn schema(&self, patience: Patience) -> Outcome<Option<String>>;

    /// The plugin's own objections to `config`.
    fn check(&self, config: &str, patience: Patience) -> Outcome<Vec<(String, String)>>;

    /// The plugin with a config that it has accepted.
    fn bind(&self, config: &serde_json::Value) -> Arc<dyn Sandbox>;

    /// The version of the interface that a component was built for, and what it imports; nothing of a script.
    fn interface(&self) -> Option<(&'static str, Vec<String>)>;

    /// The budget of one completion, with its unit, for messages.
    fn budget(&self) -> (u64, &'static str);
}

/// A configured plugin: every call is made in a fresh instance.
pub(crate) trait Sandbox: Send + Sync {
    /// Verdicts for the completions `which` of a group, with the budget of so many completions.
    fn verify(&self, ctx: &Context, group: &Group, which: Range<usize>, patience: Patience) -> Outcome<Vec<Verdict>>;

    /// Rewards for a group.
    fn reward(&self, ctx: &Context, group: &Group, patience: Patience) -> Outcome<Vec<Option<f64>>>;

    /// Decisions for the completions of each group.
    fn filter(&self, ctx: &Context, groups: &[Arc<Group>], patience: Patience) -> Outcome<Vec<Vec<Decision>>>;

    /// The rows `first .. first + count`.
    fn generate(&self, ctx: &Context, first: u64, count: u32, patience: Patience) -> Outcome<Vec<Row>>;
}

/// `n` with separators, as budgets are written.
pub(crate) fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// That a budget is spent.
pub(crate) fn exhausted(unit: &str, budget: u64) -> String {
    format!("{unit} exhausted: {0} spent, {0} allowed", grouped(budget))
}

/// "1 completion", "3 completions".
pub(crate) fn counted(n: u64, thing: &str) -> String {
    if n == 1 { format!("one {thing}") } else { format!("{} {thing}s", grouped(n)) }
}
