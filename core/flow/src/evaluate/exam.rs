//! The questions of an evaluation, and how answers to them are judged and counted. It knows no model: who answers is
//! another's business.

use std::sync::Arc;

use base::{Completion, Context, Finish, Group, Prompt, RngKey, Row, Verdict};
use host::World;
use record::Answered;
use serde_json::{Value, json};
use spec::{Pipeline, PluginConfig, Questions, Schedule, StageKind};

use super::consensus::{Ballot, classes};
use super::rating::{Attempts, Bound, Others, likeliest};
use super::statistics::{over_questions, pass_at};
use crate::environment::read_rows;
use crate::error::Error;
use crate::feed::rows_between;
use crate::metrics::mean;
use crate::plugins::Plugins;
use crate::stages::verify::{Score, VerifyStage, score};

/// The questions of an evaluation and its judges.
pub(crate) struct Exam {
    pub name: String,
    pub spec: spec::Evaluation,
    pub questions: Vec<Arc<Prompt>>,
    /// The first decides what is right; the others are logged.
    verifiers: Vec<VerifyStage>,
    /// The ratings that a rating is compared with.
    others: Option<Others>,
    pub key: RngKey,
    pub threads: usize,
}

/// What an evaluation found.
pub(crate) struct Evaluated {
    pub metrics: Vec<(String, f64)>,
    /// All questions with all completions, for the record.
    pub answered: Vec<Answered>,
    /// The first questions with what the model wrote, for people to read.
    pub examples: Value,
    /// What the user should know though the run goes on, each with a word for what it is about.
    pub warnings: Vec<(&'static str, String)>,
}

/// What the random numbers of an evaluation depend on: its questions are the same in every phase of a recipe.
pub(crate) fn key(pipeline: &Pipeline, name: &str) -> RngKey {
    RngKey::new(pipeline.seed, "evaluation").derive(name)
}

/// How many threads judge.
pub(crate) fn threads(pipeline: &Pipeline) -> usize {
    pipeline.run.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
}

/// The rows that an evaluation's questions are made of, with their numbers. `fits` may refuse a row.
pub(crate) fn rows(
    evaluation: &spec::Evaluation,
    plugins: &Plugins,
    key: RngKey,
    fits: &dyn Fn(&Row) -> Result<(), Error>,
) -> Result<Vec<(u64, Row)>, Error> {
    let (first, rows) = match &evaluation.questions {
        Questions::File { path, columns, skip, limit, span } => {
            let rows = read_rows(path, columns, part(*skip, *limit), span, fits).map_err(Error::Environment)?;
            (*skip as u64, rows)
        }
        Questions::Plugin { plugin, config, count } => {
            let plugin = plugins.configure(plugin, World::Generator, config).map_err(Error::Environment)?;
            (0, rows_between(&plugin, 0, key, 0..*count)?)
        }
    };
    Ok((first..).zip(rows).collect())
}

/// The rows of a file that are questions.
pub(crate) fn part(skip: usize, limit: Option<usize>) -> std::ops::Range<usize> {
    skip..limit.map_or(usize::MAX, |limit| skip.saturating_add(limit))
}

/// Where an evaluation's questions come from, for findings about them.
pub(crate) fn span(evaluation: &spec::Evaluation) -> &base::Span {
    match &evaluation.questions {
        Questions::File { span, .. } | Questions::Plugin { config: PluginConfig { span, .. }, .. } => span,
    }
}

impl Exam {
    pub fn new(
        pipeline: &Pipeline,
        phase: RngKey,
        plugins: &Plugins,
        name: &str,
        questions: Vec<Arc<Prompt>>,
    ) -> Result<Self, Error> {
        let spec = pipeline.evaluations.get(name).cloned();
        let spec = spec.ok_or_else(|| Error::Defect(format!("there is no evaluation `{name}`")))?;
        let verifiers = spec.verify.iter().filter_map(|stage| match &pipeline.stages.get(stage)?.kind {
            StageKind::Verify(verify) => Some((stage, verify)),
            _ => None,
        });
        let threads = threads(pipeline);
        let verifier = |(stage, verify): (&String, &spec::Verify)| -> Result<VerifyStage, Error> {
            let plugin = plugins.configure(&verify.plugin, World::Verifier, &verify.config);
            Ok(VerifyStage {
                name: stage.clone(),
                // An evaluation's rows belong to no source: the stage judges all of them.
                spec: spec::Verify { sources: None, ..verify.clone() },
                plugin: plugin.map_err(Error::Environment)?,
                key: phase.derive(stage),
                max_tokens: Schedule { points: vec![(0, spec.max_tokens as f64)] },
                threads,
            })
        };
        let verifiers = verifiers.map(verifier).collect::<Result<_, _>>()?;
        let table = spec.rating.as_ref().and_then(|rating| rating.table.as_deref());
        let others = table.map(Others::read).transpose().map_err(Error::Finding)?;
        let exam =
            Self { name: name.to_owned(), key: key(pipeline, name), spec, questions, verifiers, others, threads };
        // What has no rating is found before anything is sampled.
        exam.questions.iter().try_for_each(|question| exam.problem(question).map(drop))?;
        Ok(exam)
    }

    /// What verifiers are told of the completions after `step` steps.
    pub fn context(&self, step: u64) -> Context {
        Context { step, seed: self.key.seed(), max_tokens: self.spec.max_tokens as u32, evaluating: true }
    }

    /// Judges the completions of a question, and finds which of them give the same answer.
    pub fn judge(&self, mut group: Group, context: &Context, greedy: bool) -> Result<Answered, Error> {
        for verifier in &self.verifiers {
            let judgement = verifier.judge(&group, context)?;
            group.judgements.push(Arc::new(judgement));
        }
        let right: Vec<Option<bool>> =
            self.scores(&group, 0).into_iter().map(|score| score.map(|score| score >= 1.0)).collect();
        let first = group.judgements.first().map(|judgement| judgement.verdicts.as_slice()).unwrap_or_default();
        let answers = first.iter().map(|verdict| match verdict {
            Verdict::Decided(finding) => finding.answer.as_deref(),
            _ => None,
        });
        let answers: Vec<Option<&str>> = answers.collect();
        let ballots: Vec<Ballot<'_>> = answers
            .iter()
            .zip(&right)
            .map(|(answer, right)| Ballot { answer: *answer, right: *right == Some(true) })
            .collect();
        let classes = classes(&ballots, |reference, others| self.equal(&group, &answers, reference, others, context))?;
        Ok(Answered { group: Arc::new(group), right, classes: classes.of, majority: classes.majority, greedy })
    }

    /// Whether the answers of some completions equal that of another: the verifier judges them with it as the reference.
    fn equal(
        &self,
        group: &Group,
        answers: &[Option<&str>],
        reference: usize,
        others: &[usize],
        context: &Context,
    ) -> Result<Vec<bool>, Error> {
        let Some(verifier) = self.verifiers.first() else { return Ok(vec![false; others.len()]) };
        let reference = answers.get(reference).copied().flatten().map(str::to_owned);
        let asked = Group {
            prompt: Arc::new(Prompt { reference, ..Prompt::clone(&group.prompt) }),
            completions: others.iter().map(|other| Arc::clone(&group.completions[*other])).collect(),
            judgements: Vec::new(),
            rewards: Vec::new(),
            decisions: Vec::new(),
            ..*group
        };
        // What the verifier can't tell to be equal stays apart.
        let verdicts = verifier.plugin.verify(context, &asked)?;
        Ok(verdicts
            .iter()
            .map(|verdict| matches!(verdict, Verdict::Decided(finding) if finding.score >= 1.0))
            .collect())
    }

    /// The numbers of what was answered: all samples, and the completions at temperature 0 if there are any.
    pub fn evaluated(&self, samples: Vec<Answered>, greedy: Vec<Answered>) -> Result<Evaluated, Error> {
        let mut metrics = Vec::new();
        let mut put = |name: &str, value: f64| metrics.push((format!("eval/{}/{name}", self.name), value));
        if let Some(pass) = over_questions(&shares(&samples)) {
            put("pass@1", pass.mean);
            put("pass@1_low", pass.low);
            put("pass@1_high", pass.high);
        }
        let most = samples.iter().map(|one| one.group.completions.len()).max().unwrap_or(0);
        let decided = |one: &Answered| one.right.iter().flatten().count();
        let rights = |one: &Answered| one.right.iter().filter(|right| **right == Some(true)).count();
        for &k in self.spec.pass_at.iter().filter(|k| **k <= most) {
            // A question with fewer than k decided completions says nothing of pass@k.
            let passed: Vec<f64> = samples.iter().filter_map(|one| pass_at(decided(one), rights(one), k)).collect();
            if !passed.is_empty() {
                put(&format!("pass@{k}"), mean(&passed));
            }
        }
        // A verifier that finds no answer in anything has none to vote on: tests of programs, say.
        if most > 1 && samples.iter().any(|one| one.majority.is_some()) {
            let agreed: Vec<f64> = samples.iter().map(|one| f64::from(u8::from(majority_is_right(one)))).collect();
            put(&format!("cons@{most}"), mean(&agreed));
        }
        if let Some(pass) = over_questions(&shares(&greedy)) {
            put("greedy", pass.mean);
        }
        for (i, verifier) in self.verifiers.iter().enumerate() {
            let scores: Vec<f64> = samples.iter().flat_map(|one| self.scores(&one.group, i)).flatten().collect();
            if i > 0 && !scores.is_empty() {
                put(&verifier.name, mean(&scores));
            }
            for (metric, value) in measured(&samples, i) {
                put(&format!("{}/{metric}", verifier.name), value);
            }
        }
        let completions: Vec<&Arc<Completion>> = samples.iter().flat_map(|one| &one.group.completions).collect();
        let count = completions.len().max(1) as f64;
        put("mean_length", completions.iter().map(|completion| completion.tokens.len()).sum::<usize>() as f64 / count);
        let cut = completions.iter().filter(|completion| completion.finish == Finish::Length).count();
        put("truncated", cut as f64 / count);
        let first = samples.iter().filter_map(|one| one.group.judgements.first());
        let reasons: Vec<&String> = first
            .flat_map(|judgement| &judgement.verdicts)
            .filter_map(|verdict| match verdict {
                Verdict::Undecided(reason) => Some(reason),
                _ => None,
            })
            .collect();
        put("undecided", reasons.len() as f64 / count);
        let mut warnings = Vec::new();
        if let Some(reason) = reasons.first() {
            let (some, name) = (reasons.len(), &self.name);
            let text =
                format!("{some} of {count} completions of the evaluation `{name}` are undecided, the first: {reason}");
            warnings.push(("undecided", text));
        }
        let attempts = samples.iter().map(|one| {
            let problem = self.problem(&one.group.prompt)?;
            Ok(problem.map(|problem| Attempts { problem, tried: decided(one), solved: rights(one) }))
        });
        let attempts = attempts.filter_map(Result::transpose).collect::<Result<Vec<_>, Error>>()?;
        if let Some(found) = likeliest(&attempts) {
            put("rating", found.rating);
            if let Some(others) = &self.others {
                put("rating_percentile", others.percentile(found.rating));
            }
            warnings.extend(found.bound.map(|bound| ("rating", unbounded(&self.name, bound, found.rating))));
        }
        let examples = samples.iter().take(3).map(|one| {
            json!({
                "prompt": one.group.prompt.text,
                "reference": one.group.prompt.reference,
                "text": one.group.completions.first().map(|completion| &completion.text),
                "right": one.right.first(),
            })
        });
        let examples = examples.collect();
        let answered = samples.into_iter().chain(greedy).collect();
        Ok(Evaluated { metrics, answered, examples, warnings })
    }

    /// The rating of a problem, where ratings are asked for.
    fn problem(&self, question: &Prompt) -> Result<Option<f64>, Error> {
        let Some(rating) = &self.spec.rating else { return Ok(None) };
        let text = question.fields.iter().find(|(name, _)| *name == rating.column).map(|(_, value)| value.as_str());
        let number = text.and_then(|text| text.trim().parse::<f64>().ok()).filter(|number| number.is_finite());
        number.map(Some).ok_or_else(|| {
            let found = text.map_or("there is none".to_owned(), |text| format!("`{text}` is no number"));
            let finding = base::Diagnostic::error(
                "bad-rating",
                format!(
                    "question {} of the evaluation `{}` has no rating in `{}`",
                    question.id, self.name, rating.column
                ),
            );
            Error::Environment(vec![finding.at(rating.span.clone(), found)])
        })
    }

    /// The scores of one verify stage; `None` where it could not decide.
    fn scores(&self, group: &Group, verifier: usize) -> Vec<Option<f64>> {
        let (Some(judgement), Some(verifier)) = (group.judgements.get(verifier), self.verifiers.get(verifier)) else {
            return Vec::new();
        };
        let score = |verdict| match score(verdict, verifier.spec.on_undecided) {
            Score::Decided(score) => Some(score),
            Score::Undecided(_) | Score::NotApplicable => None,
        };
        judgement.verdicts.iter().map(score).collect()
    }
}

/// For each question with decided completions the share of them that is right.
fn shares(answered: &[Answered]) -> Vec<f64> {
    let share = |one: &Answered| {
        let decided: Vec<f64> = one.right.iter().flatten().map(|right| f64::from(u8::from(*right))).collect();
        (!decided.is_empty()).then(|| mean(&decided))
    };
    answered.iter().filter_map(share).collect()
}

/// Whether what most completions answer is right; of a class all members are, or none.
fn majority_is_right(answered: &Answered) -> bool {
    let mut members = answered.classes.iter().zip(&answered.right);
    answered.majority.is_some() && members.any(|(class, right)| *class == answered.majority && *right == Some(true))
}

/// The means of what a verifier measured beside its scores, in the order in which it first said them.
fn measured(answered: &[Answered], verifier: usize) -> Vec<(String, f64)> {
    let mut found: indexmap::IndexMap<&str, Vec<f64>> = indexmap::IndexMap::new();
    for judgement in answered.iter().filter_map(|one| one.group.judgements.get(verifier)) {
        for verdict in &judgement.verdicts {
            let Verdict::Decided(finding) = verdict else { continue };
            for (name, number) in &finding.metrics {
                found.entry(name).or_default().push(*number);
            }
        }
    }
    found.into_iter().map(|(name, numbers)| (name.to_owned(), mean(&numbers))).collect()
}

fn unbounded(name: &str, bound: Bound, rating: f64) -> String {
    let (how_many, direction) = match bound {
        Bound::AtLeast => ("every", "at least"),
        Bound::AtMost => ("no", "at most"),
    };
    format!(
        "{how_many} attempt of the evaluation `{name}` was right, so no rating is likeliest: take {rating:.0} as {direction}"
    )
}
