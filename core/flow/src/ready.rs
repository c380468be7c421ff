//! From a validated file to things that can run: data, plugins and models are loaded, each finding with its place.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use base::{Diagnostic, RngKey, Row, Span};
use candle_core::Device;
use host::{Configured, Host, World};
use indexmap::IndexMap;
use model::Model;
use spec::{Origin, Questions, RewardRule, Schedule, StageKind};

use crate::environment::{Plugins, read_rows};
use crate::error::Error;
use crate::evaluate::Evaluation;
use crate::executor::Work;
use crate::feed::{Dealer, Feed, Renderer, Source, fits, rows_between};
use crate::phase::Phase;
use crate::plan::{Plan, initialised_model, trained_model};
use crate::stages::collect::CollectStage;
use crate::stages::filter::FilterStage;
use crate::stages::grpo::{GrpoStage, Reference};
use crate::stages::learning::Learner;
use crate::stages::reward::{RewardStage, Rule};
use crate::stages::sample::SampleStage;
use crate::stages::sft::SftStage;
use crate::stages::source::SourceStage;
use crate::stages::verify::VerifyStage;

/// Where a phase takes things from that its file does not say.
#[derive(Clone, Default)]
pub(crate) struct Takeover {
    /// The folder whose weights its trained model starts from.
    pub model: Option<PathBuf>,
    /// The file of a dataset stage, by stage.
    pub data: IndexMap<String, PathBuf>,
}

impl Takeover {
    /// What a phase takes over that no other phase makes.
    pub fn of_files(phase: &Phase<'_>) -> Self {
        let path = |origin: &Origin| match origin {
            Origin::Path(path) => Some(path.clone()),
            Origin::Phase(_) => None,
        };
        let data = phase.data.iter().filter_map(|(stage, origin)| Some((stage.clone(), path(origin)?)));
        Self { model: phase.init.and_then(path), data: data.collect() }
    }
}

/// A pipeline with everything it needs.
pub(crate) struct Ready<'a> {
    pub plan: Plan<'a>,
    /// One entry for each stage, in the plan's order.
    pub work: Vec<Box<dyn Work>>,
    pub evaluations: Vec<Evaluation>,
    /// The model that learns, if one does.
    pub trained: Option<Arc<Model>>,
    /// How many threads compute, and how many judge.
    pub threads: usize,
}

/// Builds what runs.
pub(crate) fn prepare<'a>(phase: &Phase<'a>, takeover: &Takeover, host: &Host) -> Result<Ready<'a>, Error> {
    let pipeline = phase.pipeline;
    let mut findings = Vec::new();
    let plugins = Plugins::load(pipeline, host, &mut findings);
    if !findings.is_empty() {
        return Err(Error::Environment(findings));
    }
    let seeds = RngKey::new(pipeline.seed, phase.name);
    let threads = pipeline.run.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let plan = Plan::new(pipeline)?;
    let trained_name = trained_model(pipeline);
    let mut models: IndexMap<&str, Arc<Model>> = IndexMap::new();
    for (name, model) in &pipeline.models {
        let device = device(model.device)?;
        let folder = takeover.model.as_ref().filter(|_| initialised_model(pipeline) == Some(name));
        let loaded = match (folder, &model.source) {
            (Some(folder), _) | (None, spec::ModelSource::Path(folder)) => Model::load(folder, &device),
            (None, spec::ModelSource::Init { config, tokenizer, chat_template }) => {
                let key = RngKey::new(pipeline.seed, "init").derive(name);
                Model::init(config, tokenizer, chat_template.as_deref(), key, &device)
            }
        };
        models.insert(name, Arc::new(loaded.map_err(|error| Error::Model(format!("model `{name}`: {error}")))?));
    }
    let model = |name: &str| -> Result<Arc<Model>, Error> {
        models
            .get(name)
            .cloned()
            .ok_or_else(|| Error::Defect(format!("model `{name}` passed validation but does not exist")))
    };
    let refused = || Error::Defect("a plugin's configuration passed the checks and was then refused".to_owned());
    let max_tokens = |name: &str| match plan.sample_before(name) {
        Some((_, sample)) => sample.max_tokens.clone(),
        None => Schedule { points: vec![(0, 0.0)] },
    };
    let verify_stage = |name: &str, verify: &spec::Verify, findings: &mut Vec<Diagnostic>| -> Option<VerifyStage> {
        let plugin =
            plugins.configure(&verify.plugin, World::Verifier, &verify.config, &verify.config_span, findings)?;
        Some(VerifyStage {
            name: name.to_owned(),
            spec: verify.clone(),
            plugin,
            key: seeds.derive(name),
            max_tokens: max_tokens(name),
            threads,
        })
    };

    let mut work: Vec<Box<dyn Work>> = Vec::new();
    for (_, node) in plan.order() {
        let (name, key) = (node.name, seeds.derive(node.name));
        let source_model = || {
            plan.model_after(name)
                .ok_or_else(|| Error::Defect(format!("no model takes the rows of `{name}`")))
                .and_then(&model)
        };
        let stage: Option<Box<dyn Work>> = match &node.stage.kind {
            StageKind::Dataset(dataset) => {
                let mut sources = Vec::new();
                let model = source_model()?;
                let renderer = Renderer::new(dataset.feed.template.as_deref(), dataset.feed.system.as_deref(), &model)?;
                let fits = |row: &Row| fits(&renderer, &model, row);
                for source in &dataset.sources {
                    let path = takeover.data.get(name).unwrap_or(&source.path);
                    if let Some(rows) = read_rows(path, &source.columns, None, &source.span, &fits, &mut findings) {
                        sources.push(Source { name: source.name.as_str().into(), weight: source.weight, rows });
                    }
                }
                if findings.is_empty() {
                    let feed = Feed::new(key, name, &dataset.feed, Dealer::Rows(sources), &model)?;
                    Some(Box::new(SourceStage { feed }))
                } else {
                    None
                }
            }
            StageKind::Generate(generate) => {
                match plugins.configure(
                    &generate.plugin,
                    World::Generator,
                    &generate.config,
                    &generate.config_span,
                    &mut findings,
                ) {
                    Some(plugin) => {
                        let dealer = match generate.count {
                            Some(count) => Dealer::Rows(vec![Source {
                                name: name.into(),
                                weight: 1.0,
                                rows: generated(&plugin, key, count)?,
                            }]),
                            None => Dealer::Endless(plugin),
                        };
                        Some(Box::new(SourceStage {
                            feed: Feed::new(key, name, &generate.feed, dealer, &*source_model()?)?,
                        }))
                    }
                    None => None,
                }
            }
            StageKind::Sample(sample) => {
                let longest = sample.max_tokens.points.iter().fold(0.0, |most: f64, (_, tokens)| most.max(*tokens));
                let model = model(&sample.model)?;
                room(name, longest as usize, &model, &node.stage.span, &mut findings);
                Some(Box::new(SampleStage { spec: sample.clone(), model, key }))
            }
            StageKind::Verify(verify) => match verify_stage(name, verify, &mut findings) {
                Some(stage) => Some(Box::new(stage)),
                None => None,
            },
            StageKind::Reward(reward) => {
                let rule = match &reward.rule {
                    RewardRule::Weights(weights) => Some(Rule::Weights(weights.clone())),
                    RewardRule::Plugin { plugin, config, config_span } => {
                        plugins.configure(plugin, World::Rewarder, config, config_span, &mut findings).map(Rule::Plugin)
                    }
                };
                let on_undecided = pipeline.stages.iter().filter_map(|(name, stage)| match &stage.kind {
                    StageKind::Verify(verify) => Some((name.clone(), verify.on_undecided)),
                    _ => None,
                });
                match rule {
                    Some(rule) => Some(Box::new(RewardStage {
                        name: name.to_owned(),
                        inputs: node.stage.inputs.len(),
                        rule,
                        on_undecided: on_undecided.collect(),
                        key,
                        max_tokens: max_tokens(name),
                    })),
                    None => None,
                }
            }
            StageKind::Filter(filter) => {
                let plugin = match &filter.plugin {
                    Some((plugin, config)) => Some(
                        plugins
                            .configure(plugin, World::Filterer, config, &filter.config_span, &mut findings)
                            .ok_or_else(refused)?,
                    ),
                    None => None,
                };
                let rules = filter.drop.clone();
                Some(Box::new(FilterStage { name: name.to_owned(), rules, plugin, key, max_tokens: max_tokens(name) }))
            }
            StageKind::Sft(sft) => {
                let learner = Learner::new(name, model(&sft.learning.model)?, &sft.learning, pipeline.run.steps)?;
                Some(Box::new(SftStage { learner, key }))
            }
            StageKind::Grpo(grpo) => {
                let policy = model(&grpo.learning.model)?;
                let reference = match &grpo.kl {
                    Some(kl) => {
                        let saved = kl.model == grpo.learning.model;
                        let frozen = model(&kl.model)?.frozen_copy().map_err(Error::model)?;
                        Some(Reference {
                            model: Mutex::new(frozen),
                            coefficient: kl.coefficient,
                            refresh_every: kl.refresh_every,
                            saved,
                        })
                    }
                    None => None,
                };
                let temperature = plan
                    .sample_before(name)
                    .map(|(_, sample)| sample.temperature.clone())
                    .ok_or_else(|| Error::Defect(format!("no sample stage comes before `{name}`")))?;
                let learner = Learner::new(name, policy, &grpo.learning, pipeline.run.steps)?;
                Some(Box::new(GrpoStage { learner, spec: grpo.clone(), key, temperature, reference }))
            }
            StageKind::Collect(_) => {
                Some(Box::new(CollectStage { name: name.to_owned(), rows: Mutex::new(Vec::new()) }))
            }
        };
        work.extend(stage);
    }

    let mut evaluations = Vec::new();
    for (name, evaluation) in &pipeline.evaluations {
        // The questions of an evaluation are the same in every phase of a recipe.
        let key = RngKey::new(pipeline.seed, "evaluation").derive(name);
        let model = model(&evaluation.model)?;
        let renderer = Renderer::new(evaluation.template.as_deref(), evaluation.system.as_deref(), &model)?;
        let (Questions::File { span, .. } | Questions::Plugin { config_span: span, .. }) = &evaluation.questions;
        room(name, evaluation.max_tokens, &model, span, &mut findings);
        let rows = match &evaluation.questions {
            Questions::File { path, columns, limit, span } => {
                read_rows(path, columns, *limit, span, &|row| fits(&renderer, &model, row), &mut findings)
            }
            Questions::Plugin { plugin, config, count, config_span } => {
                match plugins.configure(plugin, World::Generator, config, config_span, &mut findings) {
                    Some(plugin) => Some(generated(&plugin, key, *count)?),
                    None => None,
                }
            }
        };
        let questions = rows
            .unwrap_or_default()
            .into_iter()
            .enumerate()
            .map(|(i, row)| renderer.prompt(&model.tokenizer, i as u64, name.as_str().into(), row))
            .collect::<Result<Vec<_>, _>>()?;
        let verifiers = evaluation
            .verify
            .iter()
            .filter_map(|stage| match pipeline.stages.get(stage).map(|stage| &stage.kind) {
                // An evaluation's rows belong to no source: the stage judges all of them.
                Some(StageKind::Verify(verify)) => {
                    verify_stage(stage, &spec::Verify { sources: None, ..verify.clone() }, &mut findings)
                }
                _ => None,
            })
            .collect();
        evaluations.push(Evaluation {
            name: name.clone(),
            spec: evaluation.clone(),
            model,
            questions,
            verifiers,
            key,
            threads,
        });
    }
    if !findings.is_empty() {
        return Err(Error::Environment(findings));
    }
    let trained = trained_name.map(&model).transpose()?;
    Ok(Ready { plan, work, evaluations, trained, threads })
}

/// Whether a completion of that many tokens can follow a prompt at all.
fn room(owner: &str, max_tokens: usize, model: &Model, span: &Span, findings: &mut Vec<Diagnostic>) {
    if max_tokens >= model.context() {
        let message = format!("`max_tokens` of `{owner}` is {max_tokens}, which leaves no room for a prompt");
        let context = format!("the model reads at most {} tokens, prompt and completion together", model.context());
        findings.push(Diagnostic::error("max-tokens", message).at(span.clone(), context));
    }
}

/// Rows `0..count` of a generator.
fn generated(plugin: &Configured, key: RngKey, count: u64) -> Result<Vec<Row>, Error> {
    rows_between(plugin, 0, key, 0..count)
}

fn device(device: spec::Device) -> Result<Device, Error> {
    match device {
        spec::Device::Cpu => Ok(Device::Cpu),
        spec::Device::Auto => Ok(Device::cuda_if_available(0).unwrap_or(Device::Cpu)),
        spec::Device::Cuda => Device::new_cuda(0).map_err(|error| {
            Error::Model(format!(
                "no CUDA device can be used: {error}; build with `--features cuda`, or say `device = \"cpu\"`"
            ))
        }),
    }
}
