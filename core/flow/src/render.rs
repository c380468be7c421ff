//! Conversations become the text and the tokens that a model is given.

use std::sync::Arc;

use base::{Message, Prompt, Row};
use model::{ChatTemplate, Model, Tokenizer};
use spec::Shape;

use crate::error::Error;

/// Turns a conversation into the text that a model is given.
pub(crate) struct Renderer {
    template: Option<ChatTemplate>,
    system: Option<String>,
    specials: (String, String),
}

impl Renderer {
    /// `template` is the name of a known template or the path of a Jinja file; the model's own if absent.
    pub fn new(template: Option<&str>, system: Option<&str>, model: &Model) -> Result<Self, Error> {
        let source = match template {
            None => model.chat_template().map(str::to_owned),
            Some(name) => Some(match ChatTemplate::named(name) {
                Some(source) => source.to_owned(),
                None => std::fs::read_to_string(name).map_err(|error| {
                    Error::Model(format!(
                        "failed to read the chat template `{name}`: {error}; give the path of a Jinja file or one of {}",
                        ChatTemplate::names().join(", ")
                    ))
                })?,
            }),
        };
        let template = source.map(|source| ChatTemplate::new(&source)).transpose().map_err(Error::model)?;
        Ok(Self { template, system: system.map(str::to_owned), specials: model.special_texts() })
    }

    /// A row of some shape.
    pub fn shaped(
        &self,
        tokenizer: &Tokenizer,
        id: u64,
        source: Arc<str>,
        row: Row,
        shape: Shape,
    ) -> Result<Arc<Prompt>, Error> {
        match shape {
            Shape::Prompt | Shape::Template => self.prompt(tokenizer, id, source, row),
            Shape::Conversation => self.conversation(tokenizer, id, source, row),
            Shape::Text => self.text(tokenizer, id, source, row),
        }
    }

    /// A row to answer, or with a response to imitate.
    pub fn prompt(&self, tokenizer: &Tokenizer, id: u64, source: Arc<str>, row: Row) -> Result<Arc<Prompt>, Error> {
        let messages = self.messages(row.prompt);
        let text = self.render(&messages, true)?;
        let tokens = tokenizer.encode(&text).map_err(Error::model)?;
        if tokens.is_empty() {
            return Err(Error::Finding(format!(
                "row {id} of `{source}` makes an empty prompt: a model needs at least one token to go on from"
            )));
        }
        let mut fields = row.fields;
        let response = fields.iter().position(|(name, _)| name == "response").map(|i| fields.remove(i).1);
        let (reference, learned) = (row.reference, Vec::new());
        Ok(Arc::new(Prompt { id, source, messages, text, tokens, reference, response, learned, fields }))
    }

    /// A whole conversation: what the assistant says is learned, each turn after the very tokens that a model would be given
    /// to answer there.
    fn conversation(&self, tokenizer: &Tokenizer, id: u64, source: Arc<str>, row: Row) -> Result<Arc<Prompt>, Error> {
        let unusable = |why: &str| Error::Finding(format!("row {id} of `{source}` {why}"));
        let messages = self.messages(row.prompt);
        let text = self.render(&messages, false)?;
        let (mut tokens, mut learned, mut at) = (Vec::new(), Vec::new(), 0);
        for (i, message) in messages.iter().enumerate().filter(|(_, message)| message.role == "assistant") {
            let (before, after) = (self.render(&messages[..i], true)?, self.render(&messages[..=i], false)?);
            let pieces = text.get(at..before.len()).zip(text.get(before.len()..after.len()));
            let Some((asked, said)) = pieces.filter(|_| text.starts_with(&before) && text.starts_with(&after)) else {
                return Err(unusable(
                    "can't be learned turn by turn: the chat template writes earlier turns otherwise than the last; give \
                     each turn a row of its own, or another `template`",
                ));
            };
            tokens.extend(tokenizer.encode(asked).map_err(Error::model)?);
            let start = tokens.len();
            let mut turn = tokenizer.encode(said).map_err(Error::model)?;
            if !turn.iter().any(|token| tokenizer.eos_ids().contains(token)) {
                turn.push(end(tokenizer)?);
            }
            if start == 0 {
                return Err(unusable("begins with the assistant: a model needs at least one token to go on from"));
            }
            tokens.extend(turn);
            learned.push(start..tokens.len());
            at = after.len();
            if message.content.is_empty() {
                return Err(unusable("has an empty turn of the assistant"));
            }
        }
        if learned.is_empty() {
            return Err(unusable("has no turn of the assistant to learn"));
        }
        let (reference, response, fields) = (row.reference, None, row.fields);
        Ok(Arc::new(Prompt { id, source, messages, text, tokens, reference, response, learned, fields }))
    }

    /// A text, learned as a whole but for its first token, which nothing stands before.
    fn text(&self, tokenizer: &Tokenizer, id: u64, source: Arc<str>, row: Row) -> Result<Arc<Prompt>, Error> {
        let text: String = row.prompt.iter().map(|message| message.content.as_str()).collect();
        let (bos, _) = &self.specials;
        let mut tokens = tokenizer.encode(&format!("{bos}{text}")).map_err(Error::model)?;
        tokens.push(end(tokenizer)?);
        if tokens.len() < 2 {
            return Err(Error::Finding(format!("row {id} of `{source}` is an empty text")));
        }
        let all = 1..tokens.len();
        let learned = vec![all];
        let (messages, reference, response, fields) = (row.prompt, row.reference, None, row.fields);
        Ok(Arc::new(Prompt { id, source, messages, text, tokens, reference, response, learned, fields }))
    }

    fn messages(&self, mut messages: Vec<Message>) -> Vec<Message> {
        if let Some(system) = &self.system {
            messages.insert(0, Message { role: "system".into(), content: system.clone() });
        }
        messages
    }

    /// The messages by the template; without one their contents as they are.
    fn render(&self, messages: &[Message], to_answer: bool) -> Result<String, Error> {
        match &self.template {
            Some(template) => {
                let (bos, eos) = &self.specials;
                template.render(messages, to_answer, bos, eos).map_err(Error::model)
            }
            None => Ok(messages.iter().map(|message| message.content.as_str()).collect()),
        }
    }
}

/// The token that ends what a model says.
pub(crate) fn end(tokenizer: &Tokenizer) -> Result<u32, Error> {
    tokenizer.eos_ids().first().copied().ok_or_else(|| {
        Error::Model("the model has no end-of-sequence token: set `eos_token_id` in its config.json".into())
    })
}

/// The names of the fields that hold what a judge is trained on.
pub(crate) const CHOSEN: &str = "chosen";
pub(crate) const REJECTED: &str = "rejected";
pub(crate) const LABEL: &str = "label";

/// A field of a prompt.
pub(crate) fn field<'a>(prompt: &'a Prompt, name: &str) -> Option<&'a str> {
    prompt.fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
}

/// The tokens of a prompt with a response to it, and the model's end where it ended.
pub(crate) fn answered(model: &Model, prompt: &[u32], response: &str, ended: bool) -> Result<Vec<u32>, Error> {
    let mut tokens = prompt.to_vec();
    tokens.extend(model.tokenizer.encode(response).map_err(Error::model)?);
    if ended {
        tokens.push(end(&model.tokenizer)?);
    }
    Ok(tokens)
}

/// Whether a model can read a row's prompt, and each response that it has, with room for a token more.
pub(crate) fn fits(renderer: &Renderer, model: &Model, row: &Row, shape: Shape) -> Result<(), Error> {
    let prompt = renderer.shaped(&model.tokenizer, 0, "".into(), row.clone(), shape)?;
    let responses = [prompt.response.as_deref(), field(&prompt, CHOSEN), field(&prompt, REJECTED)];
    let lengths = responses.into_iter().flatten().map(|text| model.tokenizer.encode(text).map(|tokens| tokens.len()));
    let longest = lengths.collect::<Result<Vec<_>, _>>().map_err(Error::model)?.into_iter().max();
    let (length, context) = (prompt.tokens.len() + longest.unwrap_or(0), model.context());
    if length < context {
        return Ok(());
    }
    let what = if longest.is_some() { "prompt and response have" } else { "prompt has" };
    Err(Error::Finding(format!("its {what} {length} tokens, and the model reads at most {context}, an end included")))
}
