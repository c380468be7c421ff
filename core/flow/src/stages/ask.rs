//! Questions to a language model about completions: what it writes, and what a plugin reads from that.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use base::{Completion, Context, Decision, Finding, Group, Message, Prompt, RngKey, Row, Verdict};
use host::Configured;
use model::sampler::{self, Request, Settings};
use model::{ChatTemplate, Model};
use serde_json::{Map, Value, json};

use crate::error::Error;
use crate::executor::spawn;
use crate::render::Renderer;

/// What every question may name beside what it is about.
const NAMES: [&str; 5] = ["prompt", "messages", "reference", "source", "fields"];

/// The characters of the judge's own text that a note keeps.
const NOTED: usize = 300;

/// A language model that is asked about completions.
pub(crate) struct Writer {
    pub model: Arc<Model>,
    /// How a question becomes text for it.
    pub renderer: Renderer,
    /// The question.
    pub template: ChatTemplate,
    pub settings: Settings,
    pub key: RngKey,
}

/// A language model that judges.
pub(crate) struct Asker {
    pub writer: Writer,
    /// Reads a score from what it writes.
    pub plugin: Configured,
    /// How many threads read.
    pub threads: usize,
}

/// One question.
pub(crate) struct Question {
    /// What it is about, by the names that the template knows.
    pub about: Vec<(&'static str, String)>,
    /// The prompt that what it is about answers.
    pub prompt: Arc<Prompt>,
    /// Its part of the random counter.
    pub index: u64,
    /// How many texts are wanted.
    pub texts: usize,
}

/// Reads a question's template.
///
/// # Errors
/// A file that can't be read or is no template; one that names what there is not, or does not name what it is `about`.
pub(crate) fn template(path: &Path, about: &[&str]) -> Result<ChatTemplate, String> {
    let source = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    let template = ChatTemplate::new(&source).map_err(|error| error.to_string())?;
    let named = template.variables().map_err(|error| error.to_string())?;
    let known: Vec<&str> = about.iter().chain(&NAMES).copied().collect();
    if let Some(name) = named.iter().find(|name| !known.contains(&name.as_str())) {
        return Err(format!("it names `{name}`, which there is not; there are {}", known.join(", ")));
    }
    match about.iter().find(|name| !named.iter().any(|other| other == *name)) {
        Some(name) => Err(format!("it does not name `{name}`: the judge would not see what it judges")),
        None => Ok(template),
    }
}

/// The texts to a question; why it could not be asked, where it is too long or can't be written.
pub(crate) type Written = Result<Vec<Arc<Completion>>, String>;

impl Writer {
    /// The texts to each question, in order.
    pub fn write(&self, step: u64, questions: &[Question]) -> Result<Vec<Written>, Error> {
        let mut written: Vec<Written> = Vec::with_capacity(questions.len());
        let (mut places, mut requests) = (Vec::new(), Vec::new());
        for (i, question) in questions.iter().enumerate() {
            written.push(match self.request(question)? {
                Ok(request) => {
                    places.push(i);
                    requests.push(request);
                    Ok(Vec::new())
                }
                Err(reason) => Err(reason),
            });
        }
        let stop = AtomicBool::new(false);
        sampler::sample(&self.model, &requests, &self.settings, self.key, step as u32, &stop, &mut |i, completions| {
            written[places[i]] = Ok(completions.into_iter().map(Arc::new).collect());
        })
        .map_err(Error::model)?;
        Ok(written)
    }

    /// What the model is given; why it can't be asked, where the question is too long for it or can't be written.
    fn request(&self, question: &Question) -> Result<Result<Request, String>, Error> {
        let text = match self.template.render_with(&variables(question)) {
            Ok(text) => text,
            Err(error) => return Ok(Err(format!("the question can't be written: {error}"))),
        };
        let message = Message { role: "user".to_owned(), content: text };
        let row = Row { prompt: vec![message], reference: None, fields: Vec::new() };
        let Prompt { id, source, .. } = &*question.prompt;
        let prompt = self.renderer.prompt(&self.model.tokenizer, *id, source.clone(), row)?;
        let (length, context) = (prompt.tokens.len(), self.model.context());
        Ok(match length < context {
            true => Ok(Request { prompt, index: question.index, completions: question.texts }),
            false => Err(format!(
                "the question has {length} tokens, and the model reads at most {context}, its answer included"
            )),
        })
    }
}

impl Asker {
    /// The verdict on each text to each question, in order.
    pub fn ask(&self, step: u64, questions: &[Question]) -> Result<Vec<Vec<Verdict>>, Error> {
        let written = self.writer.write(step, questions)?;
        let texts = written.iter().map(|texts| texts.clone().unwrap_or_default()).collect();
        let found = self.read(step, questions, texts)?;
        let verdicts =
            written.into_iter().zip(questions).zip(found).map(|((written, question), found)| match written {
                Ok(_) => found,
                Err(reason) => vec![Verdict::Undecided(reason); question.texts],
            });
        Ok(verdicts.collect())
    }

    /// What the plugin reads, on threads of its own.
    fn read(
        &self,
        step: u64,
        questions: &[Question],
        texts: Vec<Vec<Arc<Completion>>>,
    ) -> Result<Vec<Vec<Verdict>>, Error> {
        let max_tokens = self.writer.settings.max_tokens as u32;
        let context = Context { step, seed: self.writer.key.seed(), max_tokens, evaluating: false };
        let found: Vec<Mutex<Vec<Verdict>>> = texts.iter().map(|_| Mutex::default()).collect();
        let next = AtomicUsize::new(0);
        let worker = || -> Result<(), Error> {
            loop {
                let i = next.fetch_add(1, Ordering::Relaxed);
                let Some(completions) = texts.get(i) else { return Ok(()) };
                if completions.is_empty() {
                    continue;
                }
                let group = Group {
                    step,
                    index: i,
                    prompt: questions[i].prompt.clone(),
                    completions: completions.clone(),
                    judgements: Vec::new(),
                    rewards: Vec::new(),
                    decisions: vec![Decision::Keep; completions.len()],
                };
                let mut verdicts = self.plugin.verify(&context, &group)?;
                verdicts.iter_mut().zip(completions).for_each(|(verdict, text)| note(verdict, text));
                *found[i].lock().unwrap_or_else(PoisonError::into_inner) = verdicts;
            }
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..self.threads).map(|_| spawn(scope, worker)).collect();
            threads
                .into_iter()
                .try_for_each(|thread| thread?.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        })?;
        Ok(found.into_iter().map(|found| found.into_inner().unwrap_or_else(PoisonError::into_inner)).collect())
    }
}

/// What a template is rendered with.
fn variables(question: &Question) -> Map<String, Value> {
    let Prompt { messages, reference, source, fields, text, .. } = &*question.prompt;
    let user = messages.iter().rev().find(|message| message.role == "user");
    let fields: Map<String, Value> = fields.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
    let mut variables = Map::new();
    variables.insert("prompt".to_owned(), json!(user.map_or(text, |message| &message.content)));
    variables.insert("messages".to_owned(), json!(messages));
    variables.insert("reference".to_owned(), json!(reference));
    variables.insert("source".to_owned(), json!(source));
    variables.insert("fields".to_owned(), Value::Object(fields));
    variables.extend(question.about.iter().map(|(name, text)| ((*name).to_owned(), json!(text))));
    variables
}

/// Adds the beginning of what the judge wrote to a finding's note.
fn note(verdict: &mut Verdict, text: &Completion) {
    if let Verdict::Decided(finding) = verdict {
        let begin: String = text.text.chars().take(NOTED).collect();
        finding.note = Some(match finding.note.take() {
            Some(note) => format!("{note}; the judge: {begin}"),
            None => format!("the judge: {begin}"),
        });
    }
}

/// The scores that were read, in words.
pub(crate) fn scores_in_words(verdicts: &[Verdict]) -> String {
    let word = |verdict: &Verdict| match verdict {
        Verdict::Decided(finding) => finding.score.to_string(),
        Verdict::Undecided(_) | Verdict::NotApplicable => "undecided".to_owned(),
    };
    verdicts.iter().map(word).collect::<Vec<_>>().join(", ")
}

/// The mean of the scores that could be read; undecided where none could be.
pub(crate) fn mean(verdicts: &[Verdict]) -> Verdict {
    let decided = verdicts.iter().filter_map(|verdict| match verdict {
        Verdict::Decided(finding) => Some(finding),
        _ => None,
    });
    let decided: Vec<&Finding> = decided.collect();
    let Some(first) = decided.first() else {
        let reason = verdicts.iter().find_map(|verdict| match verdict {
            Verdict::Undecided(reason) => Some(reason.clone()),
            _ => None,
        });
        return Verdict::Undecided(
            reason.unwrap_or_else(|| "the plugin reads nothing from the judge's text".to_owned()),
        );
    };
    let score = decided.iter().map(|finding| finding.score).sum::<f64>() / decided.len() as f64;
    let note = format!("scores: {}; {}", scores_in_words(verdicts), first.note.as_deref().unwrap_or_default());
    Verdict::Decided(Finding { score, note: Some(note), ..Finding::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_is_of_what_could_be_read() {
        let decided = |score| Verdict::Decided(Finding { score, ..Finding::default() });
        let lost = || Verdict::Undecided("no verdict".to_owned());
        let Verdict::Decided(finding) = mean(&[decided(1.0), lost(), decided(4.0)]) else { panic!("two are decided") };
        assert_eq!(finding.score, 2.5);
        assert!(finding.note.is_some_and(|note| note.starts_with("scores: 1, undecided, 4;")));
        assert_eq!(mean(&[lost(), lost()]), lost());
    }

    #[test]
    fn a_template_names_what_there_is_and_what_it_is_about() {
        let folder = std::env::temp_dir().join(format!("ask-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder can be made");
        let path = folder.join("ask.jinja");
        let read = |text: &str| {
            std::fs::write(&path, text).expect("it can be written");
            template(&path, &["response"]).map(drop)
        };
        assert_eq!(read("{% for m in messages %}{{ m.content }}{% endfor %} {{ response }}"), Ok(()));
        assert!(read("{{ respnse }}").is_err_and(|error| error.contains("`respnse`, which there is not")));
        assert!(read("{{ prompt }}").is_err_and(|error| error.contains("does not name `response`")));
        assert!(read("{{ response").is_err());
        std::fs::remove_dir_all(folder).expect("it can be removed");
    }
}
