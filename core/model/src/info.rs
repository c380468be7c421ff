//! What a model folder holds, told without its weights being read.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

use crate::chat_template::ChatTemplate;
use crate::config::{Config, Head};
use crate::error::Result;
use crate::memory;
use crate::model::folder::Folder;
use crate::model::{misfits, parameter_count};
use crate::tokenizer::Tokenizer;

/// A model folder, described.
#[derive(Clone, Debug, Serialize)]
pub struct Info {
    /// What the model is.
    #[serde(skip)]
    pub config: Config,
    /// `model_type` of the config.
    pub architecture: String,
    /// Whether it is a reward model: its head gives scores, and no tokens.
    pub gives_scores: bool,
    /// The layers.
    pub layers: usize,
    /// The layers that are mixtures of experts.
    pub expert_layers: usize,
    /// Routed experts of such a layer and how many of them a token takes.
    pub experts: Option<(usize, usize)>,
    /// The width of the residual stream.
    pub hidden: usize,
    /// The most tokens of a sequence.
    pub context: usize,
    /// The rows of the embedding.
    pub vocab: usize,
    /// All parameters.
    pub parameters: usize,
    /// Those that one token is multiplied with.
    pub active_parameters: usize,
    /// Files with weights.
    pub files: usize,
    /// Bytes of the tensors of each dtype.
    pub bytes: BTreeMap<String, u64>,
    /// The tokens of the tokenizer; `None` if it can't be used.
    pub tokens: Option<usize>,
    /// The token that begins a sequence: id and text.
    pub bos: Option<(u32, String)>,
    /// The tokens that end one.
    pub eos: Vec<(u32, String)>,
    /// Whether there is a chat template.
    pub chat_template: bool,
    /// What the weights take in memory.
    pub memory: memory::Weights,
    /// What a user should know of how the weights are taken.
    pub notes: Vec<String>,
    /// What keeps the model from being loaded.
    pub findings: Vec<String>,
}

impl Info {
    /// Reads the small files of a model folder and the headers of its weights.
    ///
    /// # Errors
    /// A file that is missing, truncated or of another kind, an architecture that is not known. What does not fit
    /// together is a finding and no error.
    pub fn read(folder: &Path) -> Result<Self> {
        let opened = Folder::open(folder)?;
        let (mut findings, notes) = (opened.findings(), opened.notes());
        let Folder { config, extras, entries, checkpoint, .. } = opened;
        let tokenizer = match Tokenizer::from_file(&folder.join("tokenizer.json")) {
            Ok(tokenizer) => {
                findings.extend(misfits(&config, &tokenizer, &extras)?);
                Some(tokenizer)
            }
            Err(error) => {
                findings.push(error.to_string());
                None
            }
        };
        if let Some(Err(error)) = extras.template.as_deref().map(ChatTemplate::new) {
            findings.push(error.to_string());
        }
        let named = |id: u32| (id, tokenizer.as_ref().map(|tokenizer| tokenizer.decode(&[id])).unwrap_or_default());
        let (parameters, active_parameters) = parameter_count(&config, &entries);
        let first = config.expert_layers().next();
        Ok(Self {
            architecture: config.architecture().to_owned(),
            gives_scores: config.head == Head::Score,
            layers: config.feed_forward.len(),
            expert_layers: config.expert_layers().count(),
            experts: first.map(|experts| (experts.router.experts, experts.router.chosen)),
            hidden: config.hidden,
            context: config.context,
            vocab: config.vocab,
            parameters,
            active_parameters,
            files: checkpoint.shard_count(),
            bytes: checkpoint.bytes_by_dtype(),
            tokens: tokenizer.as_ref().map(Tokenizer::vocab_size),
            bos: config.bos.map(named),
            eos: extras.eos(&config)?.into_iter().map(named).collect(),
            chat_template: extras.template.is_some(),
            memory: memory::Weights::of_entries(&config, &entries),
            notes,
            findings,
            config,
        })
    }
}
