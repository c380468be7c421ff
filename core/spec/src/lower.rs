//! A checked tree, typed. Each function returns `None` only where the check let something pass that it should not have.

mod judges;
mod policy;

use std::collections::BTreeMap;
use std::path::Path;

use base::{Grants, Limits, Runs, Span};
use indexmap::IndexMap;

use crate::check::bytes_from_text;
use crate::fields::{Fields, Kind, Need, stage_type};
use crate::files::SET;
use crate::presets;
use crate::tree::{Entry, Node, Table, Value, parse_value};
use crate::types::{
    Checkpoints, Collect, Columns, Condition, Dataset, Device, Distil, DropRule, Dtype, EarlyStop, Evaluation, Feed,
    Filter, Gate, Generate, Learning, LearningRate, Lora, Model, ModelSource, Moment, OnUndecided, Optimizer, Order,
    Origin, Over, Pipeline, Plugin, PluginConfig, PluginSource, Questions, Rating, Refill, Reward, RewardRule, Run,
    Sample, Sampling, Schedule, Sft, Shape, Source, Stage, StageKind, StopToken, TrainJudge, Verify,
};

/// Puts the default of each absent key into a checked document. Default paths are relative to the working folder, as if
/// the command line said them.
pub(crate) fn fill_defaults(root: &mut Node, fields: &'static Fields) {
    let file = root.span.file.clone();
    fill_table(root, fields, &file);
}

fn fill_table(node: &mut Node, fields: &'static Fields, file: &Path) {
    let at = Span { file: file.to_owned(), ..node.span.clone() };
    let Some(table) = node.as_table_mut() else { return };
    for field in fields.fields {
        if let Need::Default(toml) = field.need
            && !table.contains_key(field.name)
            && let Some(mut value) = parse_value(file, toml, 0)
        {
            let said = if matches!(field.kind, Kind::Path(_)) { Path::new(SET) } else { file };
            place(&mut value, &Span { file: said.to_owned(), ..at.clone() });
            table.insert(field.name.to_owned(), Entry { key: at.clone(), node: value });
        }
        if let Some(entry) = table.get_mut(field.name) {
            fill_value(&mut entry.node, &field.kind, file);
        }
    }
}

fn fill_value(node: &mut Node, kind: &'static Kind, file: &Path) {
    match (kind, &mut node.value) {
        (Kind::Table(fields), Value::Table(_)) => fill_table(node, fields, file),
        (Kind::List(kind, _) | Kind::OneOrMore(kind), Value::Array(items)) => {
            items.iter_mut().for_each(|item| fill_value(item, kind, file));
        }
        (Kind::Map(_, kind), Value::Table(table)) => {
            table.values_mut().for_each(|entry| fill_value(&mut entry.node, kind, file));
        }
        (Kind::Stage, _) => {
            if let Some(stage) = node.text("type").and_then(stage_type) {
                if stage.name == "grpo" {
                    presets::expand(node);
                }
                fill_table(node, stage.fields, file);
            }
        }
        _ => {}
    }
}

pub(crate) fn place(node: &mut Node, at: &Span) {
    node.span = at.clone();
    match &mut node.value {
        Value::Array(items) => items.iter_mut().for_each(|item| place(item, at)),
        Value::Table(table) => table.values_mut().for_each(|entry| {
            entry.key = at.clone();
            place(&mut entry.node, at);
        }),
        _ => {}
    }
}

/// A pipeline, from a tree with its defaults filled in.
pub(crate) fn pipeline(root: &Node) -> Option<Pipeline> {
    Some(Pipeline {
        file: root.span.file.clone(),
        name: string(root, "name")?,
        seed: natural(root, "seed")?,
        run: run(root.get("run")?)?,
        models: map(root, "models", |entry| model(&entry.node))?,
        plugins: map(root, "plugins", |entry| plugin(&entry.node))?,
        stages: map(root, "stages", stage)?,
        evaluations: map(root, "evaluations", |entry| evaluation(&entry.node))?,
        gates: gates(root)?,
    })
}

/// The gates of a pipeline or a recipe.
pub(crate) fn gates(root: &Node) -> Option<Vec<Gate>> {
    list(root, "gates", |node| {
        let metric = string(node, "metric")?;
        let over = match node.get("over") {
            Some(over) => Some(Over {
                phase: string(over, "phase").or(string(node, "phase")),
                metric: string(over, "metric").unwrap_or_else(|| metric.clone()),
                at: moment(over)?,
            }),
            None => None,
        };
        Some(Gate {
            claim: string(node, "claim"),
            phase: string(node, "phase"),
            metric,
            at: moment(node)?,
            over,
            at_least: number(node, "at_least"),
            at_most: number(node, "at_most"),
        })
    })
}

fn moment(node: &Node) -> Option<Moment> {
    Some(if node.text("at")? == "start" { Moment::Start } else { Moment::End })
}

/// What an `init` or an element of `data` names.
pub(crate) fn origin(node: &Node) -> Option<Origin> {
    Some(match node.as_text()?.strip_prefix("phase:") {
        Some(phase) => Origin::Phase(phase.to_owned()),
        None => Origin::Path(node.path()?),
    })
}

fn run(node: &Node) -> Option<Run> {
    let checkpoint = node.get("checkpoint")?;
    Some(Run {
        dir: node.get("dir")?.path()?,
        steps: natural(node, "steps").unwrap_or(0),
        threads: count(node, "threads"),
        checkpoint: Checkpoints { every: natural(checkpoint, "every")?, keep: count(checkpoint, "keep")? },
        early_stop: match node.get("early_stop") {
            Some(stop) => Some(EarlyStop {
                metric: string(stop, "metric")?,
                minimise: stop.text("goal")? == "min",
                margin: number(stop, "margin")?,
                patience: count(stop, "patience")?,
            }),
            None => None,
        },
    })
}

fn model(node: &Node) -> Option<Model> {
    let source = match node.get("init") {
        Some(init) => ModelSource::Init {
            config: init.get("config")?.path()?,
            tokenizer: init.get("tokenizer")?.path()?,
            chat_template: init.get("chat_template").and_then(Node::path),
        },
        None => ModelSource::Path(node.get("path")?.path()?),
    };
    let device = match node.text("device")? {
        "cpu" => Device::Cpu,
        "cuda" => Device::Cuda,
        _ => Device::Auto,
    };
    let dtype = match node.text("dtype")? {
        "bf16" => Dtype::Bf16,
        _ => Dtype::F32,
    };
    let lora = match node.get("lora") {
        Some(lora) => Some(Lora {
            rank: count(lora, "rank")?,
            alpha: number(lora, "alpha")?,
            targets: list(lora, "targets", |item| item.as_text().map(str::to_owned))?,
        }),
        None => None,
    };
    Some(Model { source, device, dtype, lora, span: node.span.clone() })
}

pub(crate) fn plugin(node: &Node) -> Option<Plugin> {
    let source = if let Some(name) = node.text("builtin") {
        PluginSource::Builtin(name.to_owned())
    } else if let Some(path) = node.get("wasm") {
        PluginSource::Wasm(path.path()?)
    } else {
        PluginSource::Rhai(node.get("rhai")?.path()?)
    };
    let limits = node.get("limits")?;
    let limits = Limits {
        fuel: natural(limits, "fuel"),
        memory: limits.get("memory").and_then(size),
        operations: natural(limits, "operations"),
        output: limits.get("output").and_then(size),
        log: limits.get("log").and_then(size),
    };
    let (grants, grant_spans) = grants(node)?;
    Some(Plugin { source, limits, grants, span: node.span.clone(), grant_spans })
}

/// What is granted, and the place of each grant.
fn grants(node: &Node) -> Option<(Grants, IndexMap<String, Span>)> {
    let (mut grants, mut spans) = (Grants::default(), IndexMap::new());
    for (name, entry) in node.get("grants")?.as_table()? {
        let grant = &entry.node;
        match grant.get("file") {
            Some(file) => {
                grants.assets.insert(name.clone(), file.path()?);
            }
            None => {
                let (fuel, runs) = (natural(grant, "fuel")?, natural(grant, "runs")?);
                let runs = Runs { fuel, memory: grant.get("memory").and_then(size)?, runs };
                grants.runtimes.insert(name.clone(), runs);
            }
        }
        spans.insert(name.clone(), entry.key.clone());
    }
    Some((grants, spans))
}

fn stage(entry: &Entry) -> Option<Stage> {
    let node = &entry.node;
    let kind = match node.text("type")? {
        "dataset" => StageKind::Dataset(Dataset { sources: list(node, "sources", source)?, feed: feed(node)? }),
        "generate" => StageKind::Generate(Generate {
            plugin: string(node, "plugin")?,
            config: config(node),
            count: natural(node, "count"),
            feed: feed(node)?,
        }),
        "sample" => StageKind::Sample(Sample {
            model: string(node, "model")?,
            group_size: count(node, "group_size")?,
            temperature: schedule(node.get("temperature")?)?,
            sampling: sampling(node)?,
            max_tokens: schedule(node.get("max_tokens")?)?,
            ahead: natural(node, "ahead")? > 0,
        }),
        "verify" => StageKind::Verify(Verify {
            plugin: string(node, "plugin")?,
            sources: sources(node)?,
            config: config(node),
            on_undecided: on_undecided(node)?,
            max_undecided: number(node, "max_undecided")?,
        }),
        "judge" => StageKind::Judge(judges::judge(node)?),
        "reward" => StageKind::Reward(Reward { rule: reward_rule(node)? }),
        "filter" => StageKind::Filter(Filter {
            drop: match node.get("drop") {
                Some(_) => list(node, "drop", drop_rule)?,
                None => Vec::new(),
            },
            condition: node
                .get("where")
                .and_then(|node| Some(Condition { text: node.as_text()?.to_owned(), span: node.span.clone() })),
            plugin: node.text("plugin").map(|plugin| (plugin.to_owned(), config(node))),
            refill: match node.get("refill") {
                Some(refill) => Some(Refill { until: count(refill, "until")?, at_most: natural(refill, "at_most")? }),
                None => None,
            },
        }),
        "pairs" => StageKind::Pairs(judges::pairs(node)?),
        "train-judge" => StageKind::TrainJudge(TrainJudge { learning: learning(node)? }),
        "sft" => StageKind::Sft(Sft { learning: learning(node)? }),
        "grpo" => StageKind::Grpo(policy::grpo(node)?),
        "distil" => StageKind::Distil(Distil {
            learning: learning(node)?,
            teacher: string(node, "teacher")?,
            span: node.get("teacher")?.span.clone(),
        }),
        "rewrite" => StageKind::Rewrite(Box::new(judges::rewrite(node)?)),
        "collect" => StageKind::Collect(Collect { path: node.text("path")?.into() }),
        _ => return None,
    };
    let inputs = node.items("inputs").iter().filter_map(|input| input.as_text().map(str::to_owned)).collect();
    Some(Stage { inputs, kind, span: entry.key.clone() })
}

fn sources(node: &Node) -> Option<Option<Vec<String>>> {
    Some(match node.get("sources") {
        Some(_) => Some(list(node, "sources", |item| item.as_text().map(str::to_owned))?),
        None => None,
    })
}

fn on_undecided(node: &Node) -> Option<OnUndecided> {
    Some(match node.text("on_undecided")? {
        "drop" => OnUndecided::Drop,
        "zero" => OnUndecided::Zero,
        _ => OnUndecided::Fail,
    })
}

fn feed(node: &Node) -> Option<Feed> {
    let order = match node.text("order")? {
        "sequential" => Order::Sequential,
        _ => Order::Shuffle,
    };
    let (template, system) = (template(node), string(node, "system"));
    Some(Feed { prompts_per_step: count(node, "prompts_per_step")?, template, system, order })
}

/// A template's name as it stands, its path joined to its file's folder.
fn template(node: &Node) -> Option<String> {
    let template = node.get("template")?;
    let text = template.as_text()?;
    Some(if text.ends_with(".jinja") { template.path()?.to_string_lossy().into_owned() } else { text.to_owned() })
}

fn source(node: &Node) -> Option<Source> {
    let path = node.get("path")?;
    Some(Source {
        name: string(node, "name")?,
        path: path.path()?,
        weight: number(node, "weight")?,
        columns: columns(node.get("columns")?)?,
        span: path.span.clone(),
    })
}

fn columns(node: &Node) -> Option<Columns> {
    let named = |key: &str, shape| string(node, key).map(|column| (column, shape));
    let (prompt, shape) = named("prompt", Shape::Prompt)
        .or_else(|| named("prompt_template", Shape::Template))
        .or_else(|| named("conversation", Shape::Conversation))
        .or_else(|| named("text", Shape::Text))?;
    Some(Columns {
        prompt,
        shape,
        reference: string(node, "reference"),
        response: string(node, "response"),
        chosen: string(node, "chosen"),
        rejected: string(node, "rejected"),
        label: string(node, "label"),
        fields: list(node, "fields", |item| item.as_text().map(str::to_owned))?,
    })
}

fn sampling(node: &Node) -> Option<Sampling> {
    let token = |node: &Node| match node.as_text() {
        Some(text) => Some(StopToken::Text(text.to_owned())),
        None => Some(StopToken::Id(u32::try_from(node.as_integer()?).ok()?)),
    };
    Some(Sampling {
        repetition_penalty: number(node, "repetition_penalty"),
        top_k: count(node, "top_k"),
        top_p: number(node, "top_p"),
        min_p: number(node, "min_p"),
        stop: list(node, "stop", |item| item.as_text().map(str::to_owned))?,
        stop_tokens: list(node, "stop_tokens", token)?,
        span: node.get("stop_tokens")?.span.clone(),
    })
}

fn reward_rule(node: &Node) -> Option<RewardRule> {
    if let Some(plugin) = node.text("plugin") {
        let plugin = plugin.to_owned();
        return Some(RewardRule::Plugin { plugin, config: config(node) });
    }
    Some(RewardRule::Weights(map(node, "weights", |entry| schedule(&entry.node))?))
}

fn drop_rule(node: &Node) -> Option<DropRule> {
    Some(match node.as_text()? {
        "equal_rewards" => DropRule::EqualRewards,
        "truncated" => DropRule::Truncated,
        "non_positive" => DropRule::NonPositive,
        _ => return None,
    })
}

fn learning(node: &Node) -> Option<Learning> {
    let adamw = node.get("optimizer")?;
    let betas = adamw.get("betas")?.as_array()?;
    let optimizer = Optimizer {
        learning_rate: number(adamw, "learning_rate")?,
        schedule: match adamw.text("schedule")? {
            "cosine" => LearningRate::Cosine,
            "linear" => LearningRate::Linear,
            _ => LearningRate::Constant,
        },
        warmup: natural(adamw, "warmup")?,
        min_ratio: number(adamw, "min_ratio")?,
        betas: [betas.first()?.as_number()?, betas.get(1)?.as_number()?],
        epsilon: number(adamw, "epsilon")?,
        weight_decay: number(adamw, "weight_decay")?,
        clip_norm: number(adamw, "clip_norm"),
    };
    Some(Learning {
        model: string(node, "model")?,
        minibatches: count(node, "minibatches")?,
        optimizer,
        router_bias_step: number(node, "router_bias_step")?,
        balance_loss: number(node, "balance_loss"),
        tokens_per_pass: count(node, "tokens_per_pass")?,
        recompute: node.get("recompute")?.as_boolean()?,
    })
}

fn evaluation(node: &Node) -> Option<Evaluation> {
    let questions = match node.get("data") {
        Some(data) => Questions::File {
            path: data.path()?,
            columns: columns(node.get("columns")?)?,
            skip: count(node, "skip").unwrap_or(0),
            limit: count(node, "limit"),
            span: data.span.clone(),
        },
        None => {
            Questions::Plugin { plugin: string(node, "plugin")?, config: config(node), count: natural(node, "count")? }
        }
    };
    let at = |word: &str| node.items("at").iter().any(|item| item.as_text() == Some(word));
    let samples = count(node, "samples")?;
    let mut pass_at: Vec<usize> = match node.get("pass_at") {
        Some(_) => list(node, "pass_at", |item| usize::try_from(item.as_integer()?).ok())?,
        None => vec![samples],
    };
    pass_at.retain(|k| *k > 1);
    pass_at.sort_unstable();
    pass_at.dedup();
    let rating = match node.get("rating") {
        Some(rating) => Some(Rating {
            column: string(rating, "column")?,
            table: rating.get("table").and_then(Node::path),
            span: rating.span.clone(),
        }),
        None => None,
    };
    Some(Evaluation {
        model: string(node, "model")?,
        questions,
        template: template(node),
        system: string(node, "system"),
        verify: node.items("verify").iter().filter_map(|item| item.as_text().map(str::to_owned)).collect(),
        samples,
        pass_at,
        rating,
        temperature: number(node, "temperature")?,
        sampling: sampling(node)?,
        max_tokens: count(node, "max_tokens")?,
        greedy: node.get("greedy")?.as_boolean()?,
        at_start: at("start"),
        at_end: at("end"),
        every: natural(node, "every"),
    })
}

fn schedule(node: &Node) -> Option<Schedule> {
    let points = match node.as_array() {
        Some(points) => points
            .iter()
            .map(|point| Some((natural(point, "from")?, point.get("value")?.as_number()?)))
            .collect::<Option<_>>()?,
        None => vec![(0, node.as_number()?)],
    };
    Some(Schedule { points })
}

fn size(node: &Node) -> Option<u64> {
    let bytes = node.as_integer().or_else(|| bytes_from_text(node.as_text()?))?;
    u64::try_from(bytes).ok()
}

fn config(node: &Node) -> PluginConfig {
    let Some(config) = node.get("config") else {
        let value = serde_json::Value::Object(serde_json::Map::new());
        return PluginConfig { value, span: node.span.clone(), places: BTreeMap::new() };
    };
    let mut places = BTreeMap::new();
    note_places(config, "", &mut places);
    PluginConfig { value: json(config), span: config.span.clone(), places }
}

/// Notes the place of each part of a config under its JSON pointer (RFC 6901).
fn note_places(node: &Node, pointer: &str, places: &mut BTreeMap<String, Span>) {
    match &node.value {
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                let pointer = format!("{pointer}/{index}");
                note_places(item, &pointer, places);
                places.insert(pointer, item.span.clone());
            }
        }
        Value::Table(table) => {
            for (key, entry) in table {
                let pointer = format!("{pointer}/{}", key.replace('~', "~0").replace('/', "~1"));
                note_places(&entry.node, &pointer, places);
                places.insert(pointer, entry.key.clone());
            }
        }
        _ => {}
    }
}

/// The JSON of a TOML value; a date becomes its text.
pub(crate) fn json(node: &Node) -> serde_json::Value {
    match &node.value {
        Value::Boolean(boolean) => (*boolean).into(),
        Value::Integer(integer) => (*integer).into(),
        Value::Float(float) => (*float).into(),
        Value::Text(text) | Value::Datetime(text) => text.as_str().into(),
        Value::Array(items) => items.iter().map(json).collect(),
        Value::Table(table) => {
            let members = table.iter().map(|(key, entry)| (key.clone(), json(&entry.node)));
            serde_json::Value::Object(members.collect())
        }
    }
}

pub(crate) fn string(node: &Node, key: &str) -> Option<String> {
    node.text(key).map(str::to_owned)
}

pub(crate) fn natural(node: &Node, key: &str) -> Option<u64> {
    u64::try_from(node.get(key)?.as_integer()?).ok()
}

fn count(node: &Node, key: &str) -> Option<usize> {
    usize::try_from(node.get(key)?.as_integer()?).ok()
}

pub(crate) fn number(node: &Node, key: &str) -> Option<f64> {
    node.get(key)?.as_number()
}

fn list<T>(node: &Node, key: &str, item: impl Fn(&Node) -> Option<T>) -> Option<Vec<T>> {
    node.get(key)?.as_array()?.iter().map(item).collect()
}

fn map<T>(node: &Node, key: &str, value: impl Fn(&Entry) -> Option<T>) -> Option<IndexMap<String, T>> {
    let table: &Table = node.get(key)?.as_table()?;
    table.iter().map(|(name, entry)| Some((name.clone(), value(entry)?))).collect()
}
