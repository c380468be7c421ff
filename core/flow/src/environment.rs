//! The environment checks: does the file fit the plugins, data and models that it names? Each finding has its place.

use std::ops::Range;
use std::path::{Path, PathBuf};

use base::{Diagnostic, Row, Span};
use host::{Host, World};
use indexmap::IndexMap;
use model::{ChatTemplate, Config, Tokenizer};
use record::dataset::Rows;
use spec::{
    Asked, Asking, Columns, Feed, JudgeBy, ModelSource, Origin, Questions, RewardRule, Shape, Stage, StageKind,
};

use crate::error::Error;
use crate::evaluate::exam::part;
use crate::evaluate::rating::Others;
use crate::feed;
use crate::memory::config_of;
use crate::phase::Phase;
use crate::plan::{Role, pairs_before, role};
use crate::plugins::Plugins;
use crate::stages::ask;
use crate::stages::collect::{PROVENANCE, columns};

/// Reads rows; what is wrong with the file, or does not fit a model, is a finding at `span`.
pub(crate) fn read_rows(
    path: &Path,
    columns: &Columns,
    part: Range<usize>,
    span: &Span,
    fits: &dyn Fn(&Row) -> Result<(), Error>,
) -> Result<Vec<Row>, Vec<Diagnostic>> {
    let rows = Rows::read(path).and_then(|rows| feed::rows_from_file(&rows, columns, part, fits));
    rows.map_err(|error| vec![Diagnostic::error("dataset", error.to_string()).at(span.clone(), "read from here")])
}

/// Everything of a phase that can be checked before work starts and without models: plugins, their configurations, data
/// files that exist by now, model folders, templates. Gives the hashes of the plugins' code.
pub(crate) fn check(
    phase: &Phase<'_>,
    all: &[Phase<'_>],
    host: &Host,
    findings: &mut Vec<Diagnostic>,
) -> IndexMap<String, String> {
    let pipeline = phase.pipeline;
    let plugins = Plugins::load(pipeline, host, findings);
    for (name, stage) in &pipeline.stages {
        check_stage(phase, all, name, stage, &plugins, findings);
    }
    for (name, evaluation) in &pipeline.evaluations {
        let span = match &evaluation.questions {
            Questions::File { path, columns, skip, limit, span } => {
                let rows = read_rows(path, columns, part(*skip, *limit), span, &|_| Ok(()));
                findings.extend(rows.err().unwrap_or_default());
                span
            }
            Questions::Plugin { plugin, config, .. } => {
                findings.extend(plugins.configure(plugin, World::Generator, config).err().unwrap_or_default());
                &config.span
            }
        };
        check_template(name, evaluation.template.as_deref(), span, findings);
        if let Some(rating) = &evaluation.rating
            && let Some(problem) = rating.table.as_deref().and_then(|path| Others::read(path).err())
        {
            let message = format!("the ratings that `{name}` compares with can't be used");
            findings.push(Diagnostic::error("rating-table", message).at(rating.span.clone(), problem));
        }
    }
    for (name, model) in &pipeline.models {
        let folder = match phase.model(name) {
            Some(Origin::Phase(_)) => continue,
            Some(Origin::Path(folder)) => Some(folder),
            None => None,
        };
        if let Err(problem) = check_model(folder, &model.source, model.device, role(pipeline, name)) {
            let finding = Diagnostic::error("model", format!("model `{name}` can't be loaded"));
            findings.push(finding.at(model.span.clone(), problem));
        }
    }
    plugins.hashes()
}

fn check_stage(
    phase: &Phase<'_>,
    all: &[Phase<'_>],
    name: &str,
    stage: &Stage,
    plugins: &Plugins,
    findings: &mut Vec<Diagnostic>,
) {
    let template = |feed: &Feed, findings: &mut Vec<Diagnostic>| {
        check_template(name, feed.template.as_deref(), &stage.span, findings);
    };
    match &stage.kind {
        StageKind::Dataset(dataset) => {
            template(&dataset.feed, findings);
            for source in &dataset.sources {
                let path = match phase.rows(name, &source.name) {
                    Some(Origin::Phase(other)) => {
                        if let Some(other) = all.iter().find(|phase| phase.name == other) {
                            check_collected_columns(other, source, findings);
                        }
                        continue;
                    }
                    Some(Origin::Path(path)) => path,
                    None => &source.path,
                };
                findings.extend(
                    read_rows(path, &source.columns, 0..usize::MAX, &source.span, &|_| Ok(()))
                        .err()
                        .unwrap_or_default(),
                );
            }
        }
        StageKind::Generate(generate) => {
            template(&generate.feed, findings);
            let configured = plugins.configure(&generate.plugin, World::Generator, &generate.config);
            findings.extend(configured.err().unwrap_or_default());
        }
        StageKind::Verify(verify) => {
            let configured = plugins.configure(&verify.plugin, World::Verifier, &verify.config);
            findings.extend(configured.err().unwrap_or_default());
        }
        StageKind::Judge(judge) => {
            check_template(name, judge.template.as_deref(), &stage.span, findings);
            if let JudgeBy::Text { asked, .. } = &judge.by {
                check_asked(name, asked, RESPONSE, plugins, findings);
            }
        }
        StageKind::Rewrite(rewrite) => {
            check_template(name, rewrite.template.as_deref(), &stage.span, findings);
            check_asking(name, &rewrite.asking, RESPONSE, findings);
        }
        StageKind::Pairs(pairs) => {
            check_template(name, pairs.template.as_deref(), &stage.span, findings);
            check_asked(name, &pairs.asked, PAIR, plugins, findings);
        }
        StageKind::Reward(reward) => {
            if let RewardRule::Plugin { plugin, config } = &reward.rule {
                let configured = plugins.configure(plugin, World::Rewarder, config);
                findings.extend(configured.err().unwrap_or_default());
            }
        }
        StageKind::Filter(filter) => {
            findings
                .extend(filter.condition.as_ref().and_then(|text| condition(name, text).err()).map(|finding| *finding));
            if let Some((plugin, config)) = &filter.plugin {
                let configured = plugins.configure(plugin, World::Filterer, config);
                findings.extend(configured.err().unwrap_or_default());
            }
        }
        StageKind::Collect(_) => {
            // A collected row has columns of its own, which fields of the same name would overwrite.
            let fields = phase.pipeline.stages.values().filter_map(|stage| match &stage.kind {
                StageKind::Dataset(dataset) => Some(dataset.sources.iter().flat_map(|source| &source.columns.fields)),
                _ => None,
            });
            let own = columns(pairs_before(phase.pipeline, stage).is_some());
            if let Some(field) =
                fields.flatten().find(|field| own.iter().chain(&PROVENANCE).any(|column| column == field))
            {
                let message = format!("the dataset field `{field}` can't be collected by `{name}`");
                findings.push(
                    Diagnostic::error("reserved-column", message)
                        .at(stage.span.clone(), format!("has a column `{field}` of its own"))
                        .help("rename the column in the dataset, or leave it out of `fields`"),
                );
            }
        }
        StageKind::Grpo(grpo) => {
            let model = phase.pipeline.models.get(&grpo.learning.model);
            let config = model.and_then(|model| config_of(None, model));
            if grpo.replay_experts && config.is_some_and(|config| config.expert_layers().next().is_none()) {
                let message =
                    format!("`replay_experts` of `{name}`: the model `{}` has no experts", grpo.learning.model);
                let finding = Diagnostic::error("no-experts", message).at(stage.span.clone(), "has nothing to replay");
                findings.push(finding.help("leave it out: every token of a dense model takes the same way"));
            }
        }
        StageKind::Sample(_) | StageKind::Sft(_) | StageKind::TrainJudge(_) | StageKind::Distil(_) => {}
    }
}

/// What a question to a judge is about: a response, or the two of a pair.
pub(crate) const RESPONSE: &[&str] = &["response"];
pub(crate) const PAIR: &[&str] = &["first", "second"];

fn check_asked(name: &str, asked: &Asked, about: &[&str], plugins: &Plugins, findings: &mut Vec<Diagnostic>) {
    check_asking(name, &asked.asking, about, findings);
    findings.extend(plugins.configure(&asked.plugin, World::Verifier, &asked.config).err().unwrap_or_default());
}

fn check_asking(name: &str, asking: &Asking, about: &[&str], findings: &mut Vec<Diagnostic>) {
    if let Err(problem) = ask::template(&asking.prompt, about) {
        findings.push(bad_question(name, asking, problem));
    }
}

/// What is wrong with a question to a model.
pub(crate) fn bad_question(name: &str, asking: &Asking, problem: String) -> Diagnostic {
    Diagnostic::error("prompt", format!("the question of `{name}` can't be asked")).at(asking.span.clone(), problem)
}

/// The condition of a filter stage, compiled; the finding points into the string where it can.
pub(crate) fn condition(stage: &str, condition: &spec::Condition) -> Result<host::Condition, Box<Diagnostic>> {
    let spec::Condition { text, span } = condition;
    host::Condition::compile(text).map_err(|error| {
        let mut span = span.clone();
        // Between single quotation marks and without escapes, a byte of the string is a byte of the file.
        if let (Some(at), true) = (error.at, span.end - span.start == text.len() + 2) {
            let start = span.start + 1 + at.min(text.len());
            let rest = text.get(at..).unwrap_or_default();
            let word = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            let width = if word > 0 { word } else { rest.chars().next().map_or(1, char::len_utf8) };
            span = base::Span { start, end: start + width, ..span };
        }
        let finding = Diagnostic::error("condition", format!("`where` of `{stage}` is no condition"));
        Box::new(finding.at(span, error.message))
    })
}

/// Whether the columns that a source reads are among those that an earlier phase collects.
fn check_collected_columns(collecting: &Phase<'_>, source: &spec::Source, findings: &mut Vec<Diagnostic>) {
    let mut collecting_stages =
        collecting.pipeline.stages.values().filter(|stage| matches!(stage.kind, StageKind::Collect(_)));
    let pairs = collecting_stages.any(|stage| pairs_before(collecting.pipeline, stage).is_some());
    let mut known: Vec<&str> = columns(pairs).iter().chain(&PROVENANCE).copied().collect();
    for stage in collecting.pipeline.stages.values() {
        match &stage.kind {
            StageKind::Dataset(dataset) => {
                known.extend(dataset.sources.iter().flat_map(|source| &source.columns.fields).map(String::as_str));
            }
            // Which fields a generator's rows have is known once it has made some.
            StageKind::Generate(_) => return,
            _ => {}
        }
    }
    let Columns { prompt, shape, reference, response, chosen, rejected, label, fields } = &source.columns;
    let prompt: Vec<String> = match shape {
        Shape::Template => {
            let names = ChatTemplate::new(prompt).and_then(|template| template.variables());
            names.unwrap_or_default().into_iter().collect()
        }
        Shape::Prompt | Shape::Conversation | Shape::Text => vec![prompt.clone()],
    };
    let further = [reference, response, chosen, rejected, label].into_iter().flatten();
    let wanted = prompt.iter().chain(further).chain(fields);
    for column in wanted.filter(|column| !known.contains(&column.as_str())) {
        let message = format!("the phase `{}` collects no column `{column}`", collecting.name);
        findings.push(
            Diagnostic::error("dataset", message)
                .at(source.span.clone(), "read from what it collects")
                .help(format!("it collects {}", known.join(", "))),
        );
    }
}

fn check_template(owner: &str, template: Option<&str>, span: &Span, findings: &mut Vec<Diagnostic>) {
    let Some(name) = template else { return };
    let problem = match ChatTemplate::named(name) {
        Some(_) => return,
        None => match std::fs::read_to_string(name) {
            Ok(source) => ChatTemplate::new(&source).err().map(|error| error.to_string()),
            Err(error) => Some(error.to_string()),
        },
    };
    if let Some(problem) = problem {
        let finding = Diagnostic::error("chat-template", format!("the template `{name}` of `{owner}` can't be used"));
        let known = ChatTemplate::names().join(", ");
        findings
            .push(finding.at(span.clone(), problem).help(format!("give the path of a Jinja file, or one of {known}")));
    }
}

/// Whether a model's small files are there and say something known; its weights are read when the run begins.
fn check_model(folder: Option<&PathBuf>, source: &ModelSource, device: spec::Device, role: Role) -> Result<(), String> {
    if device == spec::Device::Cuda && !cfg!(feature = "cuda") {
        return Err(
            "this program was built without the feature `cuda`: say `device = \"cpu\"`, or build with it".to_owned()
        );
    }
    let (config, tokenizer, template) = match (folder, source) {
        (Some(folder), _) | (None, ModelSource::Path(folder)) => {
            (&folder.join("config.json"), &folder.join("tokenizer.json"), None)
        }
        (None, ModelSource::Init { config, tokenizer, chat_template }) => (config, tokenizer, chat_template.as_ref()),
    };
    let text =
        std::fs::read_to_string(config).map_err(|error| format!("failed to read {}: {error}", config.display()))?;
    let read = Config::from_json(&text).map_err(|error| format!("{}: {error}", config.display()))?;
    let vocab = read.vocab;
    let scores = read.head == model::config::Head::Score;
    // Random weights are of whatever kind is wanted.
    let found = folder.is_some() || matches!(source, ModelSource::Path(_));
    if let Some(refusal) = role.refusal(scores).filter(|_| found) {
        return Err(format!("{}: {refusal}", config.display()));
    }
    let ids = Tokenizer::from_file(tokenizer).map_err(|error| error.to_string())?.vocab_size();
    if ids > vocab {
        return Err(format!("`vocab_size` is {vocab}, and {} has {ids} ids", tokenizer.display()));
    }
    match template.filter(|path| !path.is_file()) {
        Some(path) => Err(format!("there is no {}", path.display())),
        None => Ok(()),
    }
}

/// The hash of each file that a phase reads, other than its own text and its plugins, by path: a run that goes on with
/// others would not be the same run.
pub(crate) fn inputs(phase: &Phase<'_>) -> Result<IndexMap<String, String>, Error> {
    let pipeline = phase.pipeline;
    let mut paths: Vec<PathBuf> = Vec::new();
    let mut template = |name: &Option<String>| {
        paths.extend(name.iter().filter(|name| ChatTemplate::named(name).is_none()).map(PathBuf::from));
    };
    for stage in pipeline.stages.values() {
        match &stage.kind {
            StageKind::Dataset(dataset) => template(&dataset.feed.template),
            StageKind::Generate(generate) => template(&generate.feed.template),
            StageKind::Judge(judge) => template(&judge.template),
            StageKind::Pairs(pairs) => template(&pairs.template),
            StageKind::Rewrite(rewrite) => template(&rewrite.template),
            _ => {}
        }
    }
    pipeline.evaluations.values().for_each(|evaluation| template(&evaluation.template));
    let asked = pipeline.stages.values().filter_map(|stage| match &stage.kind {
        StageKind::Judge(spec::Judge { by: JudgeBy::Text { asked, .. }, .. }) => Some(&asked.asking),
        StageKind::Pairs(pairs) => Some(&pairs.asked.asking),
        StageKind::Rewrite(rewrite) => Some(&rewrite.asking),
        _ => None,
    });
    paths.extend(asked.map(|asking| asking.prompt.clone()));
    for (name, stage) in &pipeline.stages {
        let StageKind::Dataset(dataset) = &stage.kind else { continue };
        for source in &dataset.sources {
            match phase.rows(name, &source.name) {
                Some(Origin::Phase(_)) => {}
                Some(Origin::Path(path)) => paths.push(path.clone()),
                None => paths.push(source.path.clone()),
            }
        }
    }
    for evaluation in pipeline.evaluations.values() {
        if let Questions::File { path, .. } = &evaluation.questions {
            paths.push(path.clone());
        }
        paths.extend(evaluation.rating.as_ref().and_then(|rating| rating.table.clone()));
    }
    for (name, model) in &pipeline.models {
        match (phase.model(name), &model.source) {
            (Some(Origin::Phase(_)), _) => {}
            (Some(Origin::Path(folder)), _) | (None, ModelSource::Path(folder)) => paths.extend(model_files(folder)),
            (None, ModelSource::Init { config, tokenizer, chat_template }) => {
                paths.extend([config, tokenizer].into_iter().chain(chat_template).cloned());
            }
        }
    }
    paths.sort();
    paths.dedup();
    let hash = |path: PathBuf| Ok((path.display().to_string(), record::hash_file(&path)?));
    paths.into_iter().map(hash).collect()
}

/// The files of a model folder that say what the model is.
fn model_files(folder: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let counts = |path: &PathBuf| {
        path.extension().is_some_and(|kind| ["json", "safetensors", "jinja"].iter().any(|known| kind == *known))
    };
    files.filter(|path| path.is_file()).filter(counts).collect()
}
