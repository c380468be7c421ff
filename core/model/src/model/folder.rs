//! Model folders in and out: the small files beside the weights, and the order in which all of them are believed.

use std::path::Path;

use base::RngKey;
use candle_core::{DType, Device};
use kernels::Param;
use serde_json::{Map, Value, json};

use super::Model;
use crate::config::{Config, Head, OneOrMany};
use crate::error::{Error, Result};
use crate::lora;
use crate::memory;
use crate::tokenizer::Tokenizer;
use crate::transformer::{SCORE, Transformer};
use crate::weights::{self, Blocks, Checkpoint, Entry, Random, SHARD_BYTES};

/// What a parameter that was read is put behind.
pub(crate) type Behind<'a> = dyn FnMut(&Entry, Param) -> Result<Param> + 'a;

/// A model folder of which everything has been read but the tokenizer and the weights themselves.
pub(crate) struct Folder {
    pub config: Config,
    pub extras: Extras,
    /// Every parameter that the config asks for.
    pub entries: Vec<Entry>,
    pub checkpoint: Checkpoint,
}

/// Files of a model folder that are kept as they were.
#[derive(Clone, Default)]
pub(crate) struct Extras {
    pub generation: Option<Map<String, Value>>,
    pub tokenizer: Option<Map<String, Value>>,
    pub template: Option<String>,
}

impl Folder {
    /// Reads the small files and the headers of the weights.
    pub fn open(path: &Path) -> Result<Self> {
        let config_json = path.join("config.json");
        let config = Config::from_json(&read(&config_json)?).map_err(about(&config_json))?;
        let extras = Extras::read(path)?;
        let entries = Transformer::entries(&config)?;
        let checkpoint = Checkpoint::open(path, config.blocks)?;
        Ok(Self { config, extras, entries, checkpoint })
    }

    /// All that keeps the tensors of the checkpoint from being those of the config.
    pub fn findings(&self) -> Vec<String> {
        self.checkpoint
            .findings(&self.entries, |name| self.predicts_further(name) || name.ends_with("rotary_emb.inv_freq"))
    }

    /// What a user should know of how the weights are taken.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if let Some(Blocks { rows, columns }) = self.config.blocks {
            notes.push(format!(
                "the weights are FP8 in blocks of {rows} x {columns}: they are computed with, and saved, in float32"
            ));
        }
        let kept = self.checkpoint.kept(|name| self.predicts_further(name)).len();
        if kept > 0 {
            notes.push(format!(
                "{kept} tensors of multi-token prediction (`num_nextn_predict_layers` is {}) are kept and saved as \
                 they are: they are neither trained nor sampled from, and fit the trained layers less and less",
                self.config.further_layers()
            ));
        }
        notes
    }

    /// Whether a tensor belongs to a layer for multi-token prediction, behind the model's own.
    fn predicts_further(&self, name: &str) -> bool {
        let layers = self.config.feed_forward.len();
        let layer = name.strip_prefix("model.layers.").and_then(|rest| rest.split('.').next()?.parse().ok());
        layer.is_some_and(|layer: usize| (layers..layers + self.config.further_layers()).contains(&layer))
    }

    /// Reads the weights onto a device.
    pub fn load(self, tokenizer: Tokenizer, device: &Device, dtype: DType) -> Result<Model> {
        self.load_behind(tokenizer, device, dtype, &mut |_, param| Ok(param))
    }

    /// Reads the weights onto a device, each parameter as `behind` makes it.
    fn load_behind(
        self,
        tokenizer: Tokenizer,
        device: &Device,
        dtype: DType,
        behind: &mut Behind<'_>,
    ) -> Result<Model> {
        self.load_from(tokenizer, (device, dtype), None, behind)
    }

    /// The same; a `head` that is given makes a language model a reward model.
    fn load_from(
        mut self,
        tokenizer: Tokenizer,
        (device, dtype): (&Device, DType),
        head: Option<&Random>,
        behind: &mut Behind<'_>,
    ) -> Result<Model> {
        let findings = self.findings();
        if !findings.is_empty() {
            return Err(self.checkpoint.refusal(&findings));
        }
        memory::require_for_loading(&self.config, &self.entries, device)?;
        let notes = self.notes();
        let kept = self.checkpoint.kept(|name| self.predicts_further(name));
        let checkpoint = &mut self.checkpoint;
        if head.is_some() {
            self.config = self.config.with_score();
        }
        let mut source = |entry: &Entry| {
            let values = match head.filter(|_| entry.name == SCORE) {
                Some(random) => random.gather(entry)?,
                None => checkpoint.gather(entry)?,
            };
            behind(entry, entry.param(values, device, dtype)?)
        };
        let mut model = Model::assemble(self.config, tokenizer, self.extras, (device, dtype), &mut source)?;
        checkpoint.finish()?;
        (model.kept, model.notes) = (kept, notes);
        Ok(model)
    }
}

impl Model {
    /// Reads a Hugging Face model folder onto a device, weights in f32. `dtype` is what its products are
    /// computed in: F32 or BF16. Each tensor is read into its parameter's own
    /// memory: beside the parameters, loading takes a few MiB.
    ///
    /// # Errors
    /// A file that is missing, truncated or of another kind, an architecture that is not known, tensors that are missing,
    /// extra or misshapen, by name, weights that are not finite, and a machine without the memory for them.
    pub fn load(folder: &Path, device: &Device, dtype: DType) -> Result<Self> {
        match lora::Folder::read(folder)? {
            Some(adapters) => Self::load_merged(adapters.base()?, folder, device, dtype),
            None => Self::load_behind(folder, device, dtype, &mut |_, param| Ok(param)),
        }
    }

    /// Reads a model folder, each parameter as `behind` makes it.
    pub(crate) fn load_behind(folder: &Path, device: &Device, dtype: DType, behind: &mut Behind<'_>) -> Result<Self> {
        let opened = Folder::open(folder)?;
        let tokenizer = Tokenizer::from_file(&folder.join("tokenizer.json"))?;
        opened.load_behind(tokenizer, device, dtype, behind)
    }

    /// Reads a folder as a reward model. If it is a language model's, the head that gives scores is random, its numbers
    /// normal with the config's `initializer_range` and drawn from `key`, and the head of the language model is left out.
    ///
    /// # Errors
    /// As for [`Self::load`]; a folder of adapters.
    pub fn load_with_score(folder: &Path, key: RngKey, device: &Device, dtype: DType) -> Result<Self> {
        if lora::Folder::read(folder)?.is_some() {
            return Err(Error::file(folder, "it holds adapters; merge them first: `pipeline model merge`"));
        }
        let opened = Folder::open(folder)?;
        let tokenizer = Tokenizer::from_file(&folder.join("tokenizer.json"))?;
        let random = Random { key, deviation: opened.config.initializer_range };
        let head = Some(&random).filter(|_| opened.config.head != Head::Score);
        opened.load_from(tokenizer, (device, dtype), head, &mut |_, param| Ok(param))
    }

    /// A reward model with random weights, as [`Self::init`] makes a language model.
    ///
    /// # Errors
    /// As for [`Self::init`].
    pub fn init_with_score(
        config_json: &Path,
        tokenizer_json: &Path,
        chat_template: Option<&Path>,
        key: RngKey,
        device: &Device,
        dtype: DType,
    ) -> Result<Self> {
        let config = Config::from_json(&read(config_json)?).map_err(about(config_json))?.with_score();
        Self::init_of(config, tokenizer_json, chat_template, key, (device, dtype))
    }

    fn init_of(
        config: Config,
        tokenizer_json: &Path,
        chat_template: Option<&Path>,
        key: RngKey,
        place: (&Device, DType),
    ) -> Result<Self> {
        let tokenizer = Tokenizer::from_file(tokenizer_json)?;
        let extras = Extras { template: chat_template.map(read).transpose()?, ..Extras::default() };
        Self::with_random_weights(config, tokenizer, extras, key, place)
    }

    /// A model with random weights: matrices normal with the config's `initializer_range`, norms one. A tensor's numbers
    /// depend on `key` and its name alone. `dtype` as for [`Self::load`].
    ///
    /// # Errors
    /// A config, tokenizer or template that can't be read, and a machine without the memory for the weights.
    pub fn init(
        config_json: &Path,
        tokenizer_json: &Path,
        chat_template: Option<&Path>,
        key: RngKey,
        device: &Device,
        dtype: DType,
    ) -> Result<Self> {
        let config = Config::from_json(&read(config_json)?).map_err(about(config_json))?;
        Self::init_of(config, tokenizer_json, chat_template, key, (device, dtype))
    }

    /// A model with random weights, as [`Model::init`] makes it, of a config and a tokenizer that need no files.
    ///
    /// # Errors
    /// A tokenizer with more tokens than the config has, and a machine without the memory for the weights.
    pub fn random(config: Config, tokenizer: Tokenizer, key: RngKey, device: &Device, dtype: DType) -> Result<Self> {
        Self::with_random_weights(config, tokenizer, Extras::default(), key, (device, dtype))
    }

    fn with_random_weights(
        config: Config,
        tokenizer: Tokenizer,
        extras: Extras,
        key: RngKey,
        (device, dtype): (&Device, DType),
    ) -> Result<Self> {
        memory::require_for_loading(&config, &Transformer::entries(&config)?, device)?;
        let random = Random { key, deviation: config.initializer_range };
        let mut source = |entry: &Entry| entry.param(random.gather(entry)?, device, dtype);
        Self::assemble(config, tokenizer, extras, (device, dtype), &mut source)
    }

    /// Writes a Hugging Face model folder, weights in f32: the same bytes for the same model. Of a model behind adapters it
    /// is the folder of these, in PEFT's layout, which names the model's own. Nothing is synced to the disk here. Weights beyond
    /// 5 GB are spread over shards with an index.
    ///
    /// # Errors
    /// A file that can't be written; tensors that are kept as they were (see [`Self::notes`]) and whose file has been
    /// written to since. That file is held open, so deleting or renaming it does no harm.
    pub fn save(&self, folder: &Path) -> Result<()> {
        self.save_in_shards(folder, SHARD_BYTES)
    }

    /// As [`Self::save`], with shards of up to `most` bytes of tensors.
    pub(crate) fn save_in_shards(&self, folder: &Path, most: u64) -> Result<()> {
        let write = |name: &str, text: &str| {
            let path = folder.join(name);
            std::fs::write(&path, text).map_err(Error::io("write", &path))
        };
        let object = |map: Map<String, Value>| format!("{:#}\n", Value::Object(map));
        std::fs::create_dir_all(folder).map_err(Error::io("write", folder))?;
        write("config.json", &self.config.to_json())?;
        write("generation_config.json", &object(self.generation_config()))?;
        write("tokenizer_config.json", &object(self.tokenizer_config()))?;
        if let Some(template) = &self.extras.template {
            write("chat_template.jinja", template)?;
        }
        self.tokenizer.save(&folder.join("tokenizer.json"))?;
        match &self.adapters {
            Some(adapters) => adapters.save(folder),
            None => weights::save(folder, &self.weights, &self.kept, most),
        }
    }

    fn generation_config(&self) -> Map<String, Value> {
        self.extras.generation.clone().unwrap_or_else(|| {
            let mut map = Map::new();
            map.insert("_from_model_config".into(), true.into());
            if let Some(bos) = self.config.bos {
                map.insert("bos_token_id".into(), bos.into());
            }
            match self.tokenizer.eos_ids() {
                [] => {}
                [one] => drop(map.insert("eos_token_id".into(), json!(one))),
                many => drop(map.insert("eos_token_id".into(), json!(many))),
            }
            map
        })
    }

    fn tokenizer_config(&self) -> Map<String, Value> {
        self.extras.tokenizer.clone().unwrap_or_else(|| {
            let mut map = Map::new();
            map.insert("tokenizer_class".into(), "PreTrainedTokenizerFast".into());
            for (key, token) in [("bos_token", self.tokenizer.bos_token()), ("eos_token", self.tokenizer.eos_token())] {
                if !token.is_empty() {
                    map.insert(key.into(), token.into());
                }
            }
            map.insert("clean_up_tokenization_spaces".into(), false.into());
            map.insert("model_max_length".into(), self.config.context.into());
            map
        })
    }
}

impl Extras {
    fn read(folder: &Path) -> Result<Self> {
        let optional = |name: &str| {
            let path = folder.join(name);
            path.is_file().then(|| read(&path)).transpose()
        };
        let object = |name: &str| -> Result<Option<Map<String, Value>>> {
            let parse = |text: String| serde_json::from_str(&text);
            optional(name)?.map(parse).transpose().map_err(|error| Error::file(&folder.join(name), error.to_string()))
        };
        let mut extras = Self {
            generation: object("generation_config.json")?,
            tokenizer: object("tokenizer_config.json")?,
            template: optional("chat_template.jinja")?,
        };
        if extras.template.is_none() {
            extras.template = extras.template_of_tokenizer();
        }
        Ok(extras)
    }

    /// The tokens that end a sequence: those of `generation_config.json` before the config's.
    pub fn eos(&self, config: &Config) -> Result<Vec<u32>> {
        match self.generation.as_ref().and_then(|map| map.get("eos_token_id")) {
            None | Some(Value::Null) => Ok(config.eos.clone()),
            Some(value) => serde_json::from_value::<OneOrMany>(value.clone()).map(OneOrMany::into_vec).map_err(|_| {
                Error::Config("`eos_token_id` in generation_config.json is neither a token id nor a list".into())
            }),
        }
    }

    /// A special token as `tokenizer_config.json` writes it: text, or an object with its text.
    pub fn special_token(&self, key: &str) -> Option<String> {
        let value = self.tokenizer.as_ref()?.get(key)?;
        value.as_str().or_else(|| value.get("content")?.as_str()).map(String::from)
    }

    /// The template inside `tokenizer_config.json`, where older folders keep it: text, or a list of named ones.
    fn template_of_tokenizer(&self) -> Option<String> {
        let value = self.tokenizer.as_ref()?.get("chat_template")?;
        let default = || value.as_array()?.iter().find(|named| named["name"] == "default")?["template"].as_str();
        value.as_str().or_else(default).map(String::from)
    }
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(Error::io("read", path))
}

/// Turns an error about what a file says into one that names the file.
fn about(path: &Path) -> impl FnOnce(Error) -> Error {
    move |error| Error::file(path, error.to_string())
}
