//! From a validated file to things that can run: data, plugins and models are loaded, each finding with its place.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use base::{Diagnostic, RngKey, Span};
use candle_core::{DType, Device};
use host::{Configured, Host, World};
use indexmap::IndexMap;
use model::Model;
use model::sampler::Settings;
use spec::{
    Asked, Asking, JudgeBy, ModelSource, Origin, Pipeline, PluginConfig, RewardRule, Schedule, Shape, StageKind,
};

use crate::environment::{PAIR, RESPONSE, bad_question, condition, read_rows};
use crate::error::Error;
use crate::evaluate::Evaluation;
use crate::evaluate::exam::{self, Exam};
use crate::executor::Work;
use crate::feed::{Dealer, Feed, Source, rows_between};
use crate::memory;
use crate::phase::Phase;
use crate::plan::{Node, Plan, Role, pairs_before, role, trained_model};
use crate::plugins::Plugins;
use crate::render::{Renderer, fits};
use crate::stages::ask::{self, Asker, Writer};
use crate::stages::collect::CollectStage;
use crate::stages::distil::DistilStage;
use crate::stages::filter::FilterStage;
use crate::stages::grpo::{GrpoStage, Reference};
use crate::stages::judge::{By, JudgeStage};
use crate::stages::learning::Learner;
use crate::stages::pairs::{Lengths, PairsStage};
use crate::stages::reward::{RewardStage, Rule};
use crate::stages::rewrite::RewriteStage;
use crate::stages::sample::{SampleStage, settings};
use crate::stages::sft::SftStage;
use crate::stages::source::SourceStage;
use crate::stages::train_judge::TrainJudgeStage;
use crate::stages::verify::VerifyStage;

/// Where a phase takes things from that its file does not say.
#[derive(Clone, Default)]
pub(crate) struct Takeover {
    /// The folders whose weights its models start from, by model.
    pub models: IndexMap<String, PathBuf>,
    /// The file of a dataset stage, by stage or by `STAGE.SOURCE`.
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
        let names = phase.pipeline.models.keys();
        let models = names.filter_map(|name| Some((name.clone(), phase.model(name).and_then(path)?)));
        Self { models: models.collect(), data: data.collect() }
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
    /// What the user should know of the models.
    pub notes: Vec<String>,
}

/// Builds what runs.
pub(crate) fn prepare<'a>(phase: &Phase<'a>, takeover: &Takeover, host: &Host) -> Result<Ready<'a>, Error> {
    let pipeline = phase.pipeline;
    let mut findings = Vec::new();
    let plugins = Plugins::load(pipeline, host, &mut findings);
    if !findings.is_empty() {
        return Err(Error::Environment(findings));
    }
    let plan = Plan::new(pipeline)?;
    let mut notes = memory::check(pipeline, takeover).map_err(Error::Environment)?;
    let builder = Builder {
        pipeline,
        takeover,
        plugins: &plugins,
        plan: &plan,
        models: models(pipeline, takeover)?,
        seeds: RngKey::new(pipeline.seed, phase.name),
        threads: exam::threads(pipeline),
    };
    let work = plan.order().map(|node| builder.stage(node)).collect::<Result<_, _>>()?;
    let evaluations =
        pipeline.evaluations.iter().map(|(name, one)| builder.evaluation(name, one)).collect::<Result<_, _>>()?;
    let trained = trained_model(pipeline).map(|name| builder.model(name)).transpose()?;
    let threads = builder.threads;
    for (name, model) in &builder.models {
        notes.extend(model.notes().iter().map(|note| format!("model `{name}`: {note}")));
    }
    Ok(Ready { work, evaluations, trained, threads, notes, plan })
}

/// The models of a pipeline, by name.
fn models(pipeline: &Pipeline, takeover: &Takeover) -> Result<IndexMap<String, Arc<Model>>, Error> {
    let load = |(name, model): (&String, &spec::Model)| {
        let (device, dtype) = (device(model.device)?, dtype(model.dtype));
        let folder = takeover.models.get(name);
        let role = role(pipeline, name);
        let loaded = match (folder, &model.source) {
            (Some(folder), _) | (None, ModelSource::Path(folder)) if role == Role::NewJudge => {
                let key = RngKey::new(pipeline.seed, "score").derive(name);
                Model::load_with_score(folder, key, &device, dtype)
            }
            (Some(folder), _) | (None, ModelSource::Path(folder)) => match &model.lora {
                None => Model::load(folder, &device, dtype),
                Some(spec::Lora { rank, alpha, targets }) => {
                    let lora = model::Lora { rank: *rank, alpha: *alpha, targets: targets.clone() };
                    let key = RngKey::new(pipeline.seed, "lora").derive(name);
                    Model::load_adapted(folder, &lora, key, &device, dtype)
                }
            },
            (None, ModelSource::Init { config, tokenizer, chat_template }) => {
                let key = RngKey::new(pipeline.seed, "init").derive(name);
                let init = if role == Role::Language { Model::init } else { Model::init_with_score };
                init(config, tokenizer, chat_template.as_deref(), key, &device, dtype)
            }
        };
        let model = loaded.map_err(|error| Error::Model(format!("model `{name}`: {error}")))?;
        if let Some(refusal) = role.refusal(model.gives_scores()) {
            return Err(Error::Model(format!("model `{name}` can't be used: {refusal}")));
        }
        Ok((name.clone(), Arc::new(model)))
    };
    pipeline.models.iter().map(load).collect()
}

/// What stages and evaluations are made of.
struct Builder<'a, 'p> {
    pipeline: &'p Pipeline,
    takeover: &'a Takeover,
    plugins: &'a Plugins,
    plan: &'a Plan<'p>,
    models: IndexMap<String, Arc<Model>>,
    seeds: RngKey,
    threads: usize,
}

impl Builder<'_, '_> {
    fn stage(&self, node: Node<'_>) -> Result<Box<dyn Work>, Error> {
        let (name, key) = (node.name, self.seeds.derive(node.name));
        Ok(match &node.stage.kind {
            StageKind::Dataset(dataset) => Box::new(self.dataset(name, key, dataset)?),
            StageKind::Generate(generate) => Box::new(self.generate(name, key, generate)?),
            StageKind::Sample(sample) => {
                let longest = sample.max_tokens.points.iter().fold(0.0, |most: f64, (_, tokens)| most.max(*tokens));
                let model = self.model(&sample.model)?;
                require_room(name, longest as usize, &model, &node.stage.span)?;
                let settings = settings(&sample.sampling, &model, name)?;
                let learns = sample.ahead && trained_model(self.pipeline) == Some(&sample.model);
                let (model, learner) = match learns {
                    true => (Arc::new(model.frozen_copy().map_err(Error::model)?), Some(model)),
                    false => (model, None),
                };
                Box::new(SampleStage { spec: sample.clone(), model, learner, settings, key })
            }
            StageKind::Verify(verify) => Box::new(self.verify(name, verify)?),
            StageKind::Judge(judge) => Box::new(self.judge(name, key, judge)?),
            StageKind::Pairs(pairs) => Box::new(PairsStage {
                name: name.to_owned(),
                spec: pairs.clone(),
                asker: self.asker(name, key, (&pairs.model, pairs.template.as_deref()), &pairs.asked, PAIR)?,
                key,
                lengths: Mutex::new(Lengths::default()),
            }),
            StageKind::Rewrite(rewrite) => {
                let model = (rewrite.model.as_str(), rewrite.template.as_deref());
                let writer = self.writer(name, key, model, &rewrite.asking, RESPONSE)?;
                Box::new(RewriteStage { name: name.to_owned(), writer })
            }
            StageKind::Reward(reward) => Box::new(self.reward(name, key, reward, node.stage.inputs.len())?),
            StageKind::Filter(filter) => {
                let plugin = filter.plugin.as_ref();
                let plugin =
                    plugin.map(|(plugin, config)| self.configure(plugin, World::Filterer, config)).transpose()?;
                let (rules, max_tokens) = (filter.drop.clone(), self.max_tokens(name));
                let condition = filter.condition.as_ref().map(|text| condition(name, text)).transpose();
                let condition = condition.map_err(|finding| Error::Environment(vec![*finding]))?;
                Box::new(FilterStage { name: name.to_owned(), rules, condition, plugin, key, max_tokens })
            }
            StageKind::Sft(sft) => Box::new(SftStage { learner: self.learner(name, &sft.learning)?, key }),
            StageKind::Grpo(grpo) => Box::new(self.grpo(name, key, grpo)?),
            StageKind::Distil(distil) => Box::new(self.distil(name, key, distil)?),
            StageKind::TrainJudge(train) => {
                Box::new(TrainJudgeStage { learner: self.learner(name, &train.learning)?, key })
            }
            StageKind::Collect(_) => {
                let model = self.plan.before(name, |node| match &node.stage.kind {
                    StageKind::Sample(sample) => Some(sample.model.clone()),
                    StageKind::Rewrite(rewrite) => Some(rewrite.model.clone()),
                    _ => None,
                });
                let model = model.unwrap_or_default();
                let pairs = pairs_before(self.pipeline, node.stage);
                let pairs = pairs.map(|(stage, pairs)| (stage.to_owned(), pairs.input));
                let seed = self.pipeline.seed;
                Box::new(CollectStage { name: name.to_owned(), model, seed, pairs, rows: Mutex::new(Vec::new()) })
            }
        })
    }

    fn model(&self, name: &str) -> Result<Arc<Model>, Error> {
        let missing = || Error::Defect(format!("model `{name}` passed validation but does not exist"));
        self.models.get(name).cloned().ok_or_else(missing)
    }

    fn configure(&self, plugin: &str, world: World, config: &PluginConfig) -> Result<Configured, Error> {
        self.plugins.configure(plugin, world, config).map_err(Error::Environment)
    }

    /// The limit on completions that reach a stage; 0 where none do.
    fn max_tokens(&self, name: &str) -> Schedule {
        let constant = |tokens: usize| Schedule { points: vec![(0, tokens as f64)] };
        let limit = self.plan.before(name, |node| match &node.stage.kind {
            StageKind::Sample(sample) => Some(sample.max_tokens.clone()),
            StageKind::Rewrite(rewrite) => Some(constant(rewrite.asking.max_tokens)),
            _ => None,
        });
        limit.unwrap_or_else(|| constant(0))
    }

    /// The model that takes the rows of a source stage.
    fn reader(&self, name: &str) -> Result<Arc<Model>, Error> {
        let reader = self.plan.model_after(name);
        self.model(reader.ok_or_else(|| Error::Defect(format!("no model takes the rows of `{name}`")))?)
    }

    fn dataset(&self, name: &str, key: RngKey, dataset: &spec::Dataset) -> Result<SourceStage, Error> {
        let model = self.reader(name)?;
        let renderer = Renderer::new(dataset.feed.template.as_deref(), dataset.feed.system.as_deref(), &model)?;
        let read = |source: &spec::Source| {
            let data = &self.takeover.data;
            let other = data.get(name).or_else(|| data.get(&format!("{name}.{}", source.name)));
            let path = other.unwrap_or(&source.path);
            let shape = source.columns.shape;
            let fits = |row: &base::Row| fits(&renderer, &model, row, shape);
            let rows = read_rows(path, &source.columns, 0..usize::MAX, &source.span, &fits);
            Ok(Source {
                name: source.name.as_str().into(),
                weight: source.weight,
                shape,
                rows: rows.map_err(Error::Environment)?,
            })
        };
        let sources = dataset.sources.iter().map(read).collect::<Result<_, Error>>()?;
        Ok(SourceStage::new(name, Feed::new(key, name, &dataset.feed, Dealer::Rows(sources), &model)?))
    }

    fn generate(&self, name: &str, key: RngKey, generate: &spec::Generate) -> Result<SourceStage, Error> {
        let plugin = self.configure(&generate.plugin, World::Generator, &generate.config)?;
        let dealer = match generate.count {
            Some(count) => {
                let rows = rows_between(&plugin, 0, key, 0..count)?;
                Dealer::Rows(vec![Source { name: name.into(), weight: 1.0, shape: Shape::Prompt, rows }])
            }
            None => Dealer::Endless(plugin),
        };
        Ok(SourceStage::new(name, Feed::new(key, name, &generate.feed, dealer, &*self.reader(name)?)?))
    }

    fn verify(&self, name: &str, verify: &spec::Verify) -> Result<VerifyStage, Error> {
        Ok(VerifyStage {
            name: name.to_owned(),
            spec: verify.clone(),
            plugin: self.configure(&verify.plugin, World::Verifier, &verify.config)?,
            key: self.seeds.derive(name),
            max_tokens: self.max_tokens(name),
            threads: self.threads,
        })
    }

    fn judge(&self, name: &str, key: RngKey, judge: &spec::Judge) -> Result<JudgeStage, Error> {
        let template = judge.template.as_deref();
        let by = match &judge.by {
            JudgeBy::Score(scale) => {
                let model = self.model(&judge.model)?;
                let renderer = Renderer::new(template, None, &model)?;
                By::Score { model, renderer: Box::new(renderer), scale: *scale }
            }
            JudgeBy::Text { asked, samples } => {
                let asker = self.asker(name, key, (&judge.model, template), asked, RESPONSE)?;
                By::Text { asker: Box::new(asker), samples: *samples }
            }
        };
        Ok(JudgeStage { name: name.to_owned(), spec: judge.clone(), by })
    }

    fn asker(
        &self,
        name: &str,
        key: RngKey,
        model: (&str, Option<&str>),
        asked: &Asked,
        about: &[&str],
    ) -> Result<Asker, Error> {
        let writer = self.writer(name, key, model, &asked.asking, about)?;
        let plugin = self.configure(&asked.plugin, World::Verifier, &asked.config)?;
        Ok(Asker { writer, plugin, threads: self.threads })
    }

    fn writer(
        &self,
        name: &str,
        key: RngKey,
        (model, template): (&str, Option<&str>),
        asking: &Asking,
        about: &[&str],
    ) -> Result<Writer, Error> {
        let model = self.model(model)?;
        require_room(name, asking.max_tokens, &model, &asking.span)?;
        let settings = settings(&asking.sampling, &model, name)?;
        let question = ask::template(&asking.prompt, about);
        Ok(Writer {
            renderer: Renderer::new(template, None, &model)?,
            template: question.map_err(|problem| Error::Environment(vec![bad_question(name, asking, problem)]))?,
            settings: Settings { temperature: asking.temperature, max_tokens: asking.max_tokens, ..settings },
            model,
            key,
        })
    }

    fn reward(&self, name: &str, key: RngKey, reward: &spec::Reward, inputs: usize) -> Result<RewardStage, Error> {
        let rule = match &reward.rule {
            RewardRule::Weights(weights) => Rule::Weights(weights.clone()),
            RewardRule::Plugin { plugin, config } => Rule::Plugin(self.configure(plugin, World::Rewarder, config)?),
        };
        let on_undecided = self.pipeline.stages.iter().filter_map(|(name, stage)| match &stage.kind {
            StageKind::Verify(verify) => Some((name.clone(), verify.on_undecided)),
            StageKind::Judge(judge) => Some((name.clone(), judge.on_undecided)),
            _ => None,
        });
        let (on_undecided, max_tokens) = (on_undecided.collect(), self.max_tokens(name));
        Ok(RewardStage { name: name.to_owned(), inputs, rule, on_undecided, key, max_tokens })
    }

    fn learner(&self, name: &str, learning: &spec::Learning) -> Result<Learner, Error> {
        Learner::new(name, self.model(&learning.model)?, learning, self.pipeline.run.steps)
    }

    fn distil(&self, name: &str, key: RngKey, distil: &spec::Distil) -> Result<DistilStage, Error> {
        let (student, teacher) = (self.model(&distil.learning.model)?, self.model(&distil.teacher)?);
        if let Err(problem) = teacher.tokenizer.same_vocabulary(&student.tokenizer) {
            let (student, teacher) = (&distil.learning.model, &distil.teacher);
            let message = format!("the teacher `{teacher}` and its student `{student}` have different vocabularies");
            let finding = Diagnostic::error("vocabulary", message).at(distil.span.clone(), problem);
            let help = "take a teacher of the same tokenizer, or let an sft stage imitate its texts";
            return Err(Error::Environment(vec![finding.help(help)]));
        }
        let sample = self.plan.sample_before(name);
        let (_, sample) = sample.ok_or_else(|| Error::Defect(format!("no sample stage comes before `{name}`")))?;
        let learner = self.learner(name, &distil.learning)?;
        Ok(DistilStage { learner, teacher, key, temperature: sample.temperature.clone() })
    }

    fn grpo(&self, name: &str, key: RngKey, grpo: &spec::Grpo) -> Result<GrpoStage, Error> {
        let reference = |kl: &spec::Kl| -> Result<Reference, Error> {
            Ok(Reference {
                model: Mutex::new(self.model(&kl.model)?.frozen_copy().map_err(Error::model)?),
                kl: kl.clone(),
                saved: kl.model == grpo.learning.model,
            })
        };
        let sample = self.plan.sample_before(name);
        let (_, sample) = sample.ok_or_else(|| Error::Defect(format!("no sample stage comes before `{name}`")))?;
        Ok(GrpoStage {
            learner: self.learner(name, &grpo.learning)?,
            spec: grpo.clone(),
            key,
            temperature: sample.temperature.clone(),
            max_tokens: sample.max_tokens.clone(),
            reference: grpo.kl.as_ref().map(reference).transpose()?,
        })
    }

    fn evaluation(&self, name: &str, evaluation: &spec::Evaluation) -> Result<Evaluation, Error> {
        let model = self.model(&evaluation.model)?;
        let renderer = Renderer::new(evaluation.template.as_deref(), evaluation.system.as_deref(), &model)?;
        require_room(name, evaluation.max_tokens, &model, exam::span(evaluation))?;
        let key = exam::key(self.pipeline, name);
        let rows = exam::rows(evaluation, self.plugins, key, &|row| fits(&renderer, &model, row, Shape::Prompt))?;
        let prompt = |(id, row)| renderer.prompt(&model.tokenizer, id, name.into(), row);
        let questions = rows.into_iter().map(prompt).collect::<Result<_, _>>()?;
        let exam = Exam::new(self.pipeline, self.seeds, self.plugins, name, questions)?;
        let settings = settings(&evaluation.sampling, &model, name)?;
        Ok(Evaluation { exam, model, settings })
    }
}

/// Whether a completion of that many tokens can follow a prompt at all.
fn require_room(owner: &str, max_tokens: usize, model: &Model, span: &Span) -> Result<(), Error> {
    if max_tokens < model.context() {
        return Ok(());
    }
    let message = format!("`max_tokens` of `{owner}` is {max_tokens}, which leaves no room for a prompt");
    let context = format!("the model reads at most {} tokens, prompt and completion together", model.context());
    Err(Error::Environment(vec![Diagnostic::error("max-tokens", message).at(span.clone(), context)]))
}

fn dtype(dtype: spec::Dtype) -> DType {
    match dtype {
        spec::Dtype::F32 => DType::F32,
        spec::Dtype::Bf16 => DType::BF16,
    }
}

fn device(device: spec::Device) -> Result<Device, Error> {
    match device {
        spec::Device::Cpu => Ok(Device::Cpu),
        spec::Device::Auto => Ok(kernels::gpu().unwrap_or(Device::Cpu)),
        spec::Device::Cuda => kernels::gpu().map_err(|error| {
            Error::Model(format!(
                "no CUDA device can be used: {error}; build with `--features cuda`, or say `device = \"cpu\"`"
            ))
        }),
    }
}
