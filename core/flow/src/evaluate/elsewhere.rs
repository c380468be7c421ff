//! Completions that were made elsewhere, judged as an evaluation judges its own.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use base::{Completion, Decision, Group, Message, Prompt, RngKey};
use host::{Host, Options};
use record::Answered;
use spec::Pipeline;

use super::exam::{self, Exam};
use crate::error::Error;
use crate::executor::spawn;
use crate::plugins::Plugins;

/// A file of completions.
#[derive(Debug)]
pub struct Completions {
    /// Its name, for messages.
    pub file: String,
    /// One group a line, or several lines for one question: the messages of the prompt, the completions, and as `id` of
    /// the prompt the number of the line from 0.
    pub groups: Vec<Group>,
    /// The column that says which question a line answers; `None`: the prompt's text does.
    pub id: Option<String>,
}

/// What an evaluation says of completions that were made elsewhere.
#[derive(Debug)]
pub struct Judged {
    /// The evaluation.
    pub evaluation: String,
    /// How many questions were answered.
    pub questions: usize,
    /// How often each of them was.
    pub samples: usize,
    /// What was measured.
    pub metrics: Vec<(String, f64)>,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// Judges a file of completions with the verify stages of an evaluation: the only one of the pipeline, if none is named. No
/// model is loaded. The number of completions a question is the file's.
///
/// # Errors
/// There is no such evaluation, its data or plugins don't fit, a line answers no question, or questions are not answered, or
/// not equally often.
pub fn judge(pipeline: &Pipeline, evaluation: Option<&str>, completions: Completions) -> Result<Judged, Error> {
    let name = chosen(pipeline, evaluation)?;
    let host = Host::new(Options::default())?;
    let mut findings = Vec::new();
    let plugins = Plugins::load(pipeline, &host, &mut findings);
    if !findings.is_empty() {
        return Err(Error::Environment(findings));
    }
    let key = exam::key(pipeline, name);
    let spec = pipeline.evaluations.get(name).ok_or_else(|| Error::Defect(format!("there is no `{name}`")))?;
    let rows = exam::rows(spec, &plugins, key, &|_| Ok(()))?;
    let question = |(id, row): (u64, base::Row)| {
        Arc::new(Prompt {
            id,
            source: name.into(),
            text: row.prompt.iter().map(|message| message.content.as_str()).collect(),
            messages: row.prompt,
            tokens: Vec::new(),
            reference: row.reference,
            response: None,
            learned: Vec::new(),
            fields: row.fields,
        })
    };
    let questions: Vec<Arc<Prompt>> = rows.into_iter().map(question).collect();
    let phase = RngKey::new(pipeline.seed, &pipeline.name);
    let mut exam = Exam::new(pipeline, phase, &plugins, name, questions)?;
    let groups = matched(&exam, completions)?;
    let samples = groups.first().map_or(0, |group| group.completions.len());
    let given = &pipeline.evaluations[name];
    if given.pass_at == [given.samples] || given.samples == 1 {
        exam.spec.pass_at = vec![samples];
    }
    exam.spec.pass_at.retain(|k| *k > 1);
    if let Some(k) = exam.spec.pass_at.iter().find(|k| **k > samples) {
        return Err(Error::Finding(format!(
            "the evaluation `{name}` wants pass@{k}, and the file has {samples} completions a question"
        )));
    }
    let answered = all_judged(&exam, groups)?;
    let questions = answered.len();
    let told = answered.iter().flat_map(|one| &one.group.completions).any(|completion| !completion.tokens.is_empty());
    let evaluated = exam.evaluated(answered, Vec::new())?;
    let mut metrics = evaluated.metrics;
    // A file need not say how long its completions are.
    metrics.retain(|(metric, _)| told || !metric.ends_with("/mean_length"));
    let warnings = evaluated.warnings.into_iter().map(|(_, warning)| warning).collect();
    Ok(Judged { evaluation: name.to_owned(), questions, samples, metrics, warnings })
}

/// The evaluation that is meant.
fn chosen<'p>(pipeline: &'p Pipeline, evaluation: Option<&str>) -> Result<&'p str, Error> {
    let names: Vec<&str> = pipeline.evaluations.keys().map(String::as_str).collect();
    let file = pipeline.file.display();
    match (evaluation, names.as_slice()) {
        (_, []) => Err(Error::Finding(format!("{file} has no evaluation"))),
        (None, [only]) => Ok(only),
        (None, several) => Err(Error::Finding(format!(
            "{file} has several evaluations: say which with --evaluation, one of {}",
            several.join(", ")
        ))),
        (Some(name), names) => {
            names.iter().copied().find(|known| *known == name).ok_or_else(|| {
                Error::Finding(format!("{file} has no evaluation `{name}`; it has {}", names.join(", ")))
            })
        }
    }
}

/// What a question is recognised by: its text, without what a system message says.
fn text(messages: &[Message]) -> String {
    let said = messages.iter().filter(|message| message.role != "system").map(|message| message.content.trim());
    said.collect::<Vec<_>>().join("\n")
}

fn field<'a>(prompt: &'a Prompt, name: &str) -> Option<&'a str> {
    prompt.fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
}

/// The questions in order, each with its completions.
fn matched(exam: &Exam, completions: Completions) -> Result<Vec<Group>, Error> {
    let Completions { file, groups, id } = completions;
    let key = |prompt: &Prompt| match &id {
        Some(id) => field(prompt, id).map(str::to_owned),
        None => Some(text(&prompt.messages)),
    };
    let by = id.as_ref().map_or("prompt".to_owned(), |id| format!("`{id}`"));
    let mut at: BTreeMap<String, usize> = BTreeMap::new();
    for (i, question) in exam.questions.iter().enumerate() {
        let Some(key) = key(question) else {
            let help = "name the column in the `fields` of the evaluation's `columns`";
            return Err(Error::Finding(format!("the questions of `{}` have no column {by}: {help}", exam.name)));
        };
        if let Some(other) = at.insert(key, i) {
            let help = if id.is_none() { "tell them apart with --id COLUMN" } else { "choose another column" };
            return Err(Error::Finding(format!(
                "questions {} and {} of `{}` have the same {by}: {help}",
                exam.questions[other].id, question.id, exam.name
            )));
        }
    }
    let mut given: Vec<Vec<Arc<Completion>>> = vec![Vec::new(); exam.questions.len()];
    for group in groups {
        let line = group.prompt.id + 1;
        let Some(key) = key(&group.prompt) else {
            return Err(Error::Finding(format!("{file}:{line}: the line has no {by}")));
        };
        let Some(place) = at.get(&key) else {
            let shown: String = key.chars().take(60).collect();
            return Err(Error::Finding(format!(
                "{file}:{line}: no question of `{}` has this {by}: {shown:?}",
                exam.name
            )));
        };
        given[*place].extend(group.completions);
    }
    let samples = given.first().map_or(0, Vec::len);
    for (question, given) in exam.questions.iter().zip(&given) {
        if given.is_empty() || given.len() != samples {
            let (id, count) = (question.id, given.len());
            let why = if count == 0 {
                "has no completion".to_owned()
            } else {
                format!("has {count} completions, and the first question {samples}")
            };
            return Err(Error::Finding(format!("{file}: question {id} of `{}` {why}", exam.name)));
        }
    }
    let group = |(index, (question, completions)): (usize, (&Arc<Prompt>, Vec<Arc<Completion>>))| Group {
        step: 0,
        index,
        prompt: Arc::clone(question),
        decisions: vec![Decision::Keep; completions.len()],
        completions,
        judgements: Vec::new(),
        rewards: Vec::new(),
    };
    Ok(exam.questions.iter().zip(given).enumerate().map(group).collect())
}

/// Judges all groups, on all threads; in their order.
fn all_judged(exam: &Exam, groups: Vec<Group>) -> Result<Vec<Answered>, Error> {
    let context = exam.context(0);
    let next = AtomicUsize::new(0);
    let answered: Mutex<Vec<Answered>> = Mutex::new(Vec::with_capacity(groups.len()));
    let work = || -> Result<(), Error> {
        while let Some(group) = groups.get(next.fetch_add(1, Ordering::Relaxed)) {
            let judged = exam
                .judge(group.clone(), &context, false)
                .inspect_err(|_| next.store(groups.len(), Ordering::Relaxed))?;
            answered.lock().unwrap_or_else(PoisonError::into_inner).push(judged);
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..exam.threads).map(|_| spawn(scope, work)).collect();
        workers
            .into_iter()
            .try_for_each(|worker| worker?.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })?;
    let mut answered = answered.into_inner().unwrap_or_else(PoisonError::into_inner);
    answered.sort_by_key(|one| one.group.index);
    Ok(answered)
}
