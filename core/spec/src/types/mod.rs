//! What a valid pipeline file says, typed. Numbers and names are as the file has them; paths are joined to the folder of
//! the file that says them.

use std::path::PathBuf;

use base::{Grants, Limits, Span};
use indexmap::IndexMap;
use serde::Serialize;

mod config;
mod judges;
mod manifest;
mod policy;
mod stages;

pub use config::PluginConfig;
pub use judges::*;
pub use manifest::*;
pub use policy::*;
pub use stages::*;

/// A file that `pipeline run` takes.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum Document {
    /// One DAG.
    Pipeline(Box<Pipeline>),
    /// Pipelines in order.
    Recipe(Recipe),
}

/// A recipe: pipelines that run one after the other, each as a phase.
#[derive(Clone, Debug, Serialize)]
pub struct Recipe {
    /// The file.
    pub file: PathBuf,
    /// The recipe's name.
    pub name: String,
    /// Replaces the seed of each phase; random numbers depend on it and on the names of the phase and the stage.
    pub seed: u64,
    /// Where run folders are made; `runs` in the working folder if the file does not say it.
    pub dir: PathBuf,
    /// The phases in order.
    pub phases: Vec<Phase>,
    /// What its metrics must come to, once all phases have ended.
    pub gates: Vec<Gate>,
}

/// One phase of a recipe.
#[derive(Clone, Debug, Serialize)]
pub struct Phase {
    /// The phase's name, unique in the recipe. Its random numbers depend on it.
    pub name: String,
    /// What it runs, with `set` already applied.
    pub pipeline: Pipeline,
    /// Where the weights of its trained model come from, if not from the file itself.
    pub init: Option<Origin>,
    /// Where the weights of its other models come from, by model, if not from the file itself.
    pub models: IndexMap<String, Origin>,
    /// Where the rows of each dataset stage come from, by stage or by `STAGE.SOURCE`, if not from the file itself.
    pub data: IndexMap<String, Origin>,
}

/// Something that a phase takes over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// A file or a folder.
    Path(PathBuf),
    /// What an earlier phase made: its final model, or what it collected.
    Phase(String),
}

/// One pipeline: a DAG of stages over models and plugins.
#[derive(Clone, Debug, Serialize)]
pub struct Pipeline {
    /// The file.
    pub file: PathBuf,
    /// The pipeline's name. Random numbers depend on it where no recipe gives a phase's.
    pub name: String,
    /// All random numbers depend on it and on the names of the phase (else the pipeline) and the stage.
    pub seed: u64,
    /// How long, and where to.
    pub run: Run,
    /// Models by name.
    pub models: IndexMap<String, Model>,
    /// Plugins by name.
    pub plugins: IndexMap<String, Plugin>,
    /// Stages by name, in the order of the file.
    pub stages: IndexMap<String, Stage>,
    /// Evaluations by name, in the order of the file.
    pub evaluations: IndexMap<String, Evaluation>,
    /// What its metrics must come to, once its last step is done.
    pub gates: Vec<Gate>,
}

/// One of `[[gates]]`: a bound on a metric. A run that misses one has ended, and its exit code is 1.
#[derive(Clone, Debug, Serialize)]
pub struct Gate {
    /// What it shows, in words.
    pub claim: Option<String>,
    /// The phase of a recipe.
    pub phase: Option<String>,
    /// The metric.
    pub metric: String,
    /// Its last value, or its first.
    pub at: Moment,
    /// Another metric, which is subtracted.
    pub over: Option<Over>,
    /// The least that it may be.
    pub at_least: Option<f64>,
    /// The most that it may be.
    pub at_most: Option<f64>,
}

/// `over = { phase, metric, at }`: each is the gate's own if absent.
#[derive(Clone, Debug, Serialize)]
pub struct Over {
    /// The phase of a recipe.
    pub phase: Option<String>,
    /// The metric.
    pub metric: String,
    /// Its last value, or its first.
    pub at: Moment,
}

/// When a metric is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Moment {
    /// The first time that it was logged.
    Start,
    /// The last time.
    End,
}

/// `early_stop = { metric, goal, margin, patience }`.
#[derive(Clone, Debug, Serialize)]
pub struct EarlyStop {
    /// The metric, looked at whenever it is logged.
    pub metric: String,
    /// Whether less of it is better.
    pub minimise: bool,
    /// By how much it must be better than the best before to count.
    pub margin: f64,
    /// Values in a row that are no better, after which the run ends.
    pub patience: usize,
}

impl Pipeline {
    /// The same file with nothing to do but its evaluations, each once.
    #[must_use]
    pub fn only_evaluations(mut self) -> Self {
        self.run.steps = 0;
        self.gates.clear();
        let used = |evaluation: &Evaluation, stage: &String| evaluation.verify.contains(stage);
        self.stages.retain(|name, _| self.evaluations.values().any(|evaluation| used(evaluation, name)));
        for stage in self.stages.values_mut() {
            stage.inputs.clear();
        }
        self.models.retain(|name, _| self.evaluations.values().any(|evaluation| evaluation.model == *name));
        for evaluation in self.evaluations.values_mut() {
            (evaluation.at_start, evaluation.at_end, evaluation.every) = (true, false, None);
        }
        let plugins: Vec<&String> = self
            .stages
            .values()
            .filter_map(|stage| match &stage.kind {
                StageKind::Verify(verify) => Some(&verify.plugin),
                _ => None,
            })
            .chain(self.evaluations.values().filter_map(|evaluation| match &evaluation.questions {
                Questions::Plugin { plugin, .. } => Some(plugin),
                Questions::File { .. } => None,
            }))
            .collect();
        self.plugins.retain(|name, _| plugins.contains(&name));
        self
    }
}

/// `[run]`.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    /// Where the run's folder is made; `runs` in the working folder if the file does not say it.
    pub dir: PathBuf,
    /// Passes of the DAG.
    pub steps: u64,
    /// Threads of the compute pool; the number of processors if absent. Changes no number.
    pub threads: Option<usize>,
    /// When state becomes durable. The last step always does.
    pub checkpoint: Checkpoints,
    /// When the run ends before its last step.
    pub early_stop: Option<EarlyStop>,
}

/// `checkpoint = { every, keep }`.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Checkpoints {
    /// Steps between checkpoints. Default 10.
    pub every: u64,
    /// How many are kept. Default 3.
    pub keep: usize,
}

/// `[models.NAME]`: exactly one of `path` and `init`.
#[derive(Clone, Debug, Serialize)]
pub struct Model {
    /// Where the weights come from.
    pub source: ModelSource,
    /// Where it is computed.
    pub device: Device,
    /// What its products are computed in.
    pub dtype: Dtype,
    /// Adapters that learn in place of the weights.
    pub lora: Option<Lora>,
    /// The place of the table, for later checks.
    #[serde(skip)]
    pub span: Span,
}

/// `lora = { rank, alpha, targets }` (arXiv 2106.09685).
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Lora {
    /// The rank of an adapter.
    pub rank: usize,
    /// An adapter counts `alpha / rank` times.
    pub alpha: f64,
    /// The last parts of the names of the modules that have one.
    pub targets: Vec<String>,
}

/// Where a model's weights come from.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ModelSource {
    /// A Hugging Face folder.
    Path(PathBuf),
    /// Random weights.
    Init {
        /// A `config.json`.
        config: PathBuf,
        /// A `tokenizer.json`.
        tokenizer: PathBuf,
        /// A Jinja chat template to store beside the weights.
        chat_template: Option<PathBuf>,
    },
}

/// Where a model is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Device {
    /// CUDA where the build and the machine have it, else the CPU.
    Auto,
    /// The CPU.
    Cpu,
    /// The first NVIDIA GPU.
    Cuda,
}

/// What the matrices of a model are multiplied in. Weights are kept, updated and saved in f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// Single precision.
    F32,
    /// Weights rounded to bfloat16.
    Bf16,
}

/// `[plugins.NAME]`: exactly one of `builtin`, `wasm`, `rhai`.
#[derive(Clone, Debug, Serialize)]
pub struct Plugin {
    /// The code.
    pub source: PluginSource,
    /// What it may spend.
    pub limits: Limits,
    /// What it may use beyond its input.
    #[serde(skip_serializing_if = "Grants::is_empty")]
    pub grants: Grants,
    /// The place of the table.
    #[serde(skip)]
    pub span: Span,
    /// The place of each grant, by its name.
    #[serde(skip)]
    pub grant_spans: IndexMap<String, Span>,
}

/// Where a plugin's code comes from.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PluginSource {
    /// One that the tool carries.
    Builtin(String),
    /// A WebAssembly component.
    Wasm(PathBuf),
    /// A Rhai script.
    Rhai(PathBuf),
}

/// `[evaluations.NAME]`.
#[derive(Clone, Debug, Serialize)]
pub struct Evaluation {
    /// The model.
    pub model: String,
    /// Where the questions come from.
    pub questions: Questions,
    /// As in a feed.
    pub template: Option<String>,
    /// As in a feed.
    pub system: Option<String>,
    /// The verify stages that judge: right means a score of at least 1 from the first.
    pub verify: Vec<String>,
    /// Completions a question.
    pub samples: usize,
    /// For which k pass@k is estimated beside pass@1: ascending, none above `samples`.
    pub pass_at: Vec<usize>,
    /// Whether and from what a rating is estimated.
    pub rating: Option<Rating>,
    /// As in a sample stage.
    pub temperature: f64,
    /// As in a sample stage.
    #[serde(flatten)]
    pub sampling: Sampling,
    /// As in a sample stage.
    pub max_tokens: usize,
    /// Also one completion a question at temperature 0: `eval/NAME/greedy`.
    pub greedy: bool,
    /// At the start of the pipeline.
    pub at_start: bool,
    /// At its end.
    pub at_end: bool,
    /// Every so many steps between.
    pub every: Option<u64>,
}

/// `rating = { column, table }`.
#[derive(Clone, Debug, Serialize)]
pub struct Rating {
    /// The field with a problem's rating.
    pub column: String,
    /// The ratings of others: a CSV file.
    pub table: Option<PathBuf>,
    /// The place of the table.
    #[serde(skip)]
    pub span: Span,
}

/// Where the questions of an evaluation come from.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Questions {
    /// A file.
    File {
        /// `.jsonl` or `.parquet`.
        path: PathBuf,
        /// Which column is what.
        columns: Columns,
        /// So many rows are left out, from the first.
        skip: usize,
        /// At most so many rows.
        limit: Option<usize>,
        /// The place of the path.
        #[serde(skip)]
        span: Span,
    },
    /// A plugin (world `generator`).
    Plugin {
        /// Its name.
        plugin: String,
        /// Its configuration.
        config: PluginConfig,
        /// Rows `0..count`.
        count: u64,
    },
}
