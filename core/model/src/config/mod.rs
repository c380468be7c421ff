//! What a `config.json` says, described as data: a new architecture is a new reading of its file, not a new module.
//!
//! Both spellings are read: that of transformers 5 (`rope_parameters`, `dtype`) and that of older hub checkpoints
//! (`rope_theta`, `rope_scaling`, `torch_dtype`). The keys that all architectures share are read here, those of a family
//! in `llama` and `deepseek`, the rotation in `rotary`. A reading refuses what it can't do: its message is a fragment that
//! [`Config::from_json`] puts the architecture before.

mod deepseek;
mod llama;
mod rotary;

use kernels::ops::Router;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::error::{Error, Result};
use crate::weights::Blocks;

pub use rotary::{Llama3, Rotary, Stretch, Yarn};

/// The architectures that can be built, as `model_type` names them, and what reads their attention and feed-forward parts.
const KNOWN: [(&str, Read); 7] = [
    ("deepseek_v2", deepseek::read),
    ("deepseek_v3", deepseek::read),
    ("llama", llama::read),
    ("mixtral", llama::read),
    ("qwen2", llama::read),
    ("qwen3", llama::read),
    ("qwen3_moe", llama::read),
];

type Read = fn(&Common, &Map<String, Value>) -> Reading<(Attention, Vec<FeedForward>)>;

/// How transformers' classes of models end that have a head for labels.
const CLASSIFIES: &str = "ForSequenceClassification";

/// What was read, or why not.
type Reading<T> = std::result::Result<T, String>;

/// The greatest size of anything (positions, rows, layers): products of a few sizes are still numbers.
const LARGEST: usize = 1 << 24;

/// A transformer, as data.
#[derive(Clone, Debug)]
pub struct Config {
    /// The number of token ids.
    pub vocab: usize,
    /// The width of the residual stream.
    pub hidden: usize,
    /// What RMS norms of the residual stream add to the mean square.
    pub norm_eps: f64,
    /// How tokens look at earlier ones; the same in every layer.
    pub attention: Attention,
    /// The feed-forward part of each layer.
    pub feed_forward: Vec<FeedForward>,
    /// What the residual stream is projected to in the end.
    pub head: Head,
    /// The number of positions.
    pub context: usize,
    /// The standard deviation of random initial weights.
    pub initializer_range: f64,
    /// The tokens that end a sequence.
    pub eos: Vec<u32>,
    /// The token that begins a sequence.
    pub bos: Option<u32>,
    /// The token that batches of others are filled up with: a score is never read at it.
    pub pad: Option<u32>,
    /// How a checkpoint's FP8 weights are scaled.
    pub(crate) blocks: Option<Blocks>,
    /// The file as it was read, so that saving keeps what only others understand.
    json: Map<String, Value>,
}

/// What the residual stream is projected to in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head {
    /// The logits of the next token, by the table of the embedding.
    Tied,
    /// The logits of the next token, by a table of its own.
    Own,
    /// One number, the score of a reward model: the hub's `...ForSequenceClassification` with one label.
    Score,
}

/// How tokens look at earlier ones.
#[derive(Clone, Debug)]
pub enum Attention {
    /// Grouped-query attention (Ainslie et al., arXiv 2305.13245).
    Grouped(Grouped),
    /// Multi-head latent attention (DeepSeek-V2 report, section 2.1).
    Latent(Latent),
}

/// Grouped-query attention: several query heads share one head of keys and values.
#[derive(Clone, Debug)]
pub struct Grouped {
    /// The number of query heads.
    pub heads: usize,
    /// The number of heads of keys and values; query head `h` reads number `h / (heads / groups)`.
    pub groups: usize,
    /// The width of a head, in queries, keys and values.
    pub width: usize,
    /// Whether a bias is added to queries, keys and values.
    pub input_bias: bool,
    /// Whether a bias is added to the output.
    pub output_bias: bool,
    /// Whether each head of queries and keys is normalised before the rotation.
    pub norm: bool,
    /// The rotation.
    pub rotary: Rotary,
}

/// Multi-head latent attention: keys and values pass through one low-rank latent, which is all that the cache holds
/// besides a rotary key that the heads share.
#[derive(Clone, Debug)]
pub struct Latent {
    /// The number of heads.
    pub heads: usize,
    /// The width of the queries' latent; `None` projects them directly.
    pub q_lora: Option<usize>,
    /// The width of the latent of keys and values.
    pub kv_lora: usize,
    /// The part of a head's query and key without position.
    pub nope: usize,
    /// The part of a head's query and key that is rotated.
    pub rope: usize,
    /// The width of a head's value.
    pub value: usize,
    /// The rotation.
    pub rotary: Rotary,
}

/// The feed-forward part of one layer.
#[derive(Clone, Debug)]
pub enum FeedForward {
    /// A gated MLP of this width.
    Dense(usize),
    /// A mixture of experts.
    Experts(Experts),
}

/// A mixture of experts: routed ones, of which a token takes a few, and shared ones that every token takes.
#[derive(Clone, Debug)]
pub struct Experts {
    /// The width of one expert.
    pub width: usize,
    /// The width of all shared experts together.
    pub shared: usize,
    /// How a token's experts are chosen and weighed.
    pub router: Router,
    /// Whether a bias that no gradient reaches moves the choice (DeepSeek-V3 report, eq. 16).
    pub selection_bias: bool,
    /// How checkpoints name the parts.
    pub names: ExpertNames,
}

/// How checkpoints name the parts of a mixture of experts, below a layer's prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpertNames {
    /// `mlp.gate`, `mlp.experts.N.{gate,up,down}_proj`.
    Mlp,
    /// `block_sparse_moe.gate`, `block_sparse_moe.experts.N.{w1,w3,w2}`.
    BlockSparse,
}

/// The keys that all architectures share, in either spelling.
#[derive(Deserialize)]
struct Common {
    model_type: String,
    vocab_size: usize,
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    intermediate_size: usize,
    rms_norm_eps: f64,
    max_position_embeddings: usize,
    rope_parameters: Option<Map<String, Value>>,
    rope_theta: Option<f64>,
    rope_scaling: Option<Map<String, Value>>,
    partial_rotary_factor: Option<f64>,
    #[serde(default)]
    tie_word_embeddings: bool,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    mlp_bias: bool,
    #[serde(default = "initializer_range")]
    initializer_range: f64,
    hidden_act: Option<String>,
    eos_token_id: Option<OneOrMany>,
    bos_token_id: Option<u32>,
    pad_token_id: Option<i64>,
    architectures: Option<Vec<String>>,
    num_labels: Option<usize>,
    id2label: Option<Map<String, Value>>,
    quantization_config: Option<Value>,
}

/// One token id or several.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum OneOrMany {
    One(u32),
    Many(Vec<u32>),
}

impl OneOrMany {
    pub(crate) fn into_vec(self) -> Vec<u32> {
        match self {
            Self::One(id) => vec![id],
            Self::Many(ids) => ids,
        }
    }
}

fn initializer_range() -> f64 {
    0.02
}

impl Config {
    /// Reads the text of a `config.json`.
    ///
    /// # Errors
    /// An architecture that is not known (the message lists those that are), a key that is missing or of another type,
    /// sizes that contradict each other, and options of the architecture that are not implemented.
    pub fn from_json(text: &str) -> Result<Self> {
        let json: Map<String, Value> =
            serde_json::from_str(text).map_err(|error| Error::Config(format!("it is no JSON object: {error}")))?;
        let known = || KNOWN.map(|(name, _)| name).join(", ");
        let Some(family) = json.get("model_type").and_then(Value::as_str) else {
            return Err(Error::Config(format!("it has no `model_type`; known are: {}", known())));
        };
        let Some((_, read)) = KNOWN.iter().find(|(name, _)| *name == family) else {
            let class = json.get("architectures").and_then(|list| list.get(0)).and_then(Value::as_str);
            let class = class.map(|name| format!(" ({name})")).unwrap_or_default();
            return Err(Error::Config(format!(
                "`model_type` is \"{family}\"{class}, which is not known; known are: {}",
                known()
            )));
        };
        Self::read(&json, *read).map_err(|message| Error::Config(format!("{family}: {message}")))
    }

    fn read(json: &Map<String, Value>, read: Read) -> Reading<Self> {
        let common: Common = keys(json)?;
        common.refuse_what_is_not_implemented()?;
        let (attention, feed_forward) = read(&common, json)?;
        Ok(Self {
            vocab: common.vocab_size,
            hidden: common.hidden_size,
            norm_eps: common.rms_norm_eps,
            attention,
            feed_forward,
            head: common.head()?,
            context: common.max_position_embeddings,
            initializer_range: common.initializer_range,
            eos: common.eos_token_id.map(OneOrMany::into_vec).unwrap_or_default(),
            bos: common.bos_token_id,
            // Some hub checkpoints write -1 for none.
            pad: common.pad_token_id.and_then(|id| u32::try_from(id).ok()),
            blocks: common.quantization_config.as_ref().map(Blocks::from_json).transpose()?,
            json: json.clone(),
        })
    }

    /// `model_type`.
    pub(crate) fn architecture(&self) -> &str {
        self.json.get("model_type").and_then(Value::as_str).unwrap_or_default()
    }

    /// The `config.json` of this model with its weights in f32, as this crate saves them.
    pub fn to_json(&self) -> String {
        let mut json = self.json.clone();
        let key = if json.contains_key("torch_dtype") { "torch_dtype" } else { "dtype" };
        json.insert(key.into(), "float32".into());
        json.shift_remove("quantization_config");
        format!("{:#}\n", Value::Object(json))
    }

    /// The same model with the head of a reward model, as transformers names it. Without a padding token of its own it gets
    /// the token that ends a sequence, as TRL gives it: in batches of transformers the score is then read at the same token as
    /// here.
    #[must_use]
    pub(crate) fn with_score(mut self) -> Self {
        let capital =
            |word: &str| word.chars().take(1).flat_map(char::to_uppercase).chain(word.chars().skip(1)).collect();
        let family: String = self.architecture().split('_').map(|word| -> String { capital(word) }).collect();
        self.json.insert("architectures".into(), json!([format!("{family}{CLASSIFIES}")]));
        self.json.insert("id2label".into(), json!({ "0": "LABEL_0" }));
        self.json.insert("label2id".into(), json!({ "LABEL_0": 0 }));
        if let (None, Some(end)) = (self.pad, self.eos.first()) {
            self.json.insert("pad_token_id".into(), json!(end));
            self.pad = Some(*end);
        }
        self.head = Head::Score;
        self
    }

    /// The number of layers whose weights a checkpoint may hold beyond the model's own: multi-token prediction, which is
    /// neither trained nor sampled from here.
    pub(crate) fn further_layers(&self) -> usize {
        self.json.get("num_nextn_predict_layers").and_then(Value::as_u64).unwrap_or(0) as usize
    }

    /// The number of parameters that a token is not multiplied with: those of the experts that it does not take.
    pub fn idle_parameters(&self) -> usize {
        let idle = |experts: &Experts| experts.width * (experts.router.experts - experts.router.chosen);
        3 * self.hidden * self.expert_layers().map(idle).sum::<usize>()
    }

    /// The mixture-of-experts layers.
    pub fn expert_layers(&self) -> impl Iterator<Item = &Experts> {
        self.feed_forward.iter().filter_map(|part| match part {
            FeedForward::Experts(experts) => Some(experts),
            FeedForward::Dense(_) => None,
        })
    }
}

impl Common {
    fn head(&self) -> Reading<Head> {
        let class = self.architectures.iter().flatten().next();
        if class.is_none_or(|class| !class.ends_with(CLASSIFIES)) {
            return Ok(if self.tie_word_embeddings { Head::Tied } else { Head::Own });
        }
        // Without a word on labels there are two, as in transformers.
        match self.id2label.as_ref().map(Map::len).or(self.num_labels).unwrap_or(2) {
            1 => Ok(Head::Score),
            labels => {
                Err(format!("it tells {labels} labels apart; of classifiers only reward models are read, with one"))
            }
        }
    }

    fn refuse_what_is_not_implemented(&self) -> Reading<()> {
        sizes(&[
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("intermediate_size", self.intermediate_size),
            ("num_attention_heads", self.num_attention_heads),
            ("max_position_embeddings", self.max_position_embeddings),
        ])?;
        if self.mlp_bias {
            return Err("`mlp_bias` is true; a feed-forward part with biases is not implemented".into());
        }
        only("hidden_act", self.hidden_act.as_deref(), &["silu"])?;
        if !(self.rms_norm_eps > 0.0 && self.initializer_range >= 0.0) {
            return Err("`rms_norm_eps` must be above 0, `initializer_range` not below".into());
        }
        Ok(())
    }
}

impl Attention {
    /// The rotation, and the width of what is rotated of a head.
    pub fn rotary(&self) -> (&Rotary, usize) {
        match self {
            Self::Grouped(grouped) => (&grouped.rotary, grouped.width),
            Self::Latent(latent) => (&latent.rotary, latent.rope),
        }
    }

    /// What scores are multiplied by: the inverse root of a key's width; of a latent key also times the square of YaRN's
    /// temperature on all dimensions.
    pub fn score_scale(&self) -> f64 {
        match self {
            Self::Grouped(grouped) => 1.0 / (grouped.width as f64).sqrt(),
            Self::Latent(latent) => latent.rotary.temperature().powi(2) / ((latent.nope + latent.rope) as f64).sqrt(),
        }
    }
}

/// Reads a family's keys; others are of no interest.
fn keys<T: DeserializeOwned>(json: &Map<String, Value>) -> Reading<T> {
    serde_json::from_value(Value::Object(json.clone())).map_err(|error| error.to_string())
}

/// Refuses sizes that are none.
fn sizes(sizes: &[(&str, usize)]) -> Reading<()> {
    match sizes.iter().find(|(_, size)| *size == 0 || *size > LARGEST) {
        Some((name, size)) => Err(format!("`{name}` is {size}; it must be between 1 and {LARGEST}")),
        None => Ok(()),
    }
}

/// Refuses a word that is not one of those implemented.
fn only(name: &str, word: Option<&str>, implemented: &[&str]) -> Reading<()> {
    match word.filter(|word| !implemented.contains(word)) {
        Some(word) => Err(format!("`{name}` is \"{word}\"; only \"{}\" is implemented", implemented.join("\" or \""))),
        None => Ok(()),
    }
}

/// Refuses a router that contradicts itself.
fn check_router(router: &Router) -> Reading<()> {
    let Router { experts, chosen, groups, groups_kept, .. } = *router;
    if experts > usize::from(u16::MAX) {
        return Err(format!("the number of experts is {experts}; at most {} are recorded", u16::MAX));
    }
    if !experts.is_multiple_of(groups) || groups_kept > groups {
        return Err(format!(
            "{experts} experts in {groups} groups of which {groups_kept} are kept: the groups must be equal and not \
             fewer than those kept"
        ));
    }
    if chosen > experts / groups * groups_kept {
        return Err(format!(
            "a token takes {chosen} experts, but {groups_kept} kept groups hold only {}",
            experts / groups * groups_kept
        ));
    }
    if !router.scale.is_finite() {
        return Err("`routed_scaling_factor` must be finite".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {

    use super::*;

    const QUICKSTART: &str = include_str!("../../../../pipelines/quickstart/model.json");

    /// The least that each reading takes.
    fn least(family: &str) -> Map<String, Value> {
        let json = json!({
            "model_type": family, "vocab_size": 320, "hidden_size": 64, "num_hidden_layers": 3, "intermediate_size": 96,
            "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 24, "rms_norm_eps": 1e-6,
            "max_position_embeddings": 256, "moe_intermediate_size": 24, "num_local_experts": 8,
            "num_experts_per_tok": 2, "q_lora_rank": null, "kv_lora_rank": 24, "qk_nope_head_dim": 16,
            "qk_rope_head_dim": 8, "v_head_dim": 12, "n_routed_experts": 8, "norm_topk_prob": false,
            "routed_scaling_factor": 1.0, "first_k_dense_replace": 1, "topk_method": match family {
                "deepseek_v2" => "greedy",
                _ => "noaux_tc",
            },
            "n_group": 1, "topk_group": 1,
        });
        serde_json::from_value(json).unwrap()
    }

    fn changed(mut json: Map<String, Value>, change: &[(&str, Value)]) -> Result<Config> {
        for (key, value) in change {
            match value {
                Value::Null => json.remove(*key),
                value => json.insert((*key).into(), value.clone()),
            };
        }
        Config::from_json(&Value::Object(json).to_string())
    }

    #[track_caller]
    fn refused(change: &[(&str, Value)], expected: &str) {
        let error = changed(serde_json::from_str(QUICKSTART).unwrap(), change).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }

    #[track_caller]
    fn refused_by(family: &str, change: &[(&str, Value)], expected: &str) {
        let error = changed(least(family), change).unwrap_err().to_string();
        assert!(error.contains(&format!("config can't be used: {family}: ")) && error.contains(expected), "{error}");
    }

    fn read(family: &str, change: &[(&str, Value)]) -> Config {
        changed(least(family), change).unwrap()
    }

    #[test]
    fn what_cannot_be_built_is_refused_in_words() {
        refused(
            &[("model_type", "gpt_bigcode".into())],
            "\"gpt_bigcode\" (DeepseekV3ForCausalLM), which is not known; known are: deepseek_v2, deepseek_v3, llama",
        );
        refused(&[("model_type", Value::Null)], "no `model_type`");
        refused(&[("hidden_size", Value::Null)], "missing field `hidden_size`");
        refused(&[("hidden_size", "many".into())], "invalid type: string \"many\"");
        refused(&[("num_hidden_layers", 0.into())], "`num_hidden_layers` is 0");
        refused(&[("max_position_embeddings", (1u64 << 31).into())], "must be between 1 and 16777216");
        refused(&[("n_shared_experts", u64::MAX.into())], "`n_shared_experts` is 18446744073709551615");
        refused(&[("qk_rope_head_dim", 15.into())], "must be even");
        refused(&[("n_group", 3.into())], "8 experts in 3 groups");
        refused(&[("n_group", Value::Null)], "missing field `n_group`");
        refused(&[("num_experts_per_tok", 9.into())], "takes 9 experts");
        refused(&[("hidden_act", "gelu".into())], "only \"silu\"");
        refused(&[("attention_bias", true.into())], "attention_bias");
        refused(&[("mlp_bias", true.into())], "mlp_bias");
        refused(&[("scoring_func", "softmax".into())], "only \"sigmoid\"");
        refused(&[("moe_layer_freq", 2.into())], "moe_layer_freq");
        refused(&[("quantization_config", json!({"quant_method": "awq"}))], "`quant_method` \"awq\"");
        refused(&[("rope_parameters", json!({"rope_type": "dynamic"}))], "rope type \"dynamic\"");
        refused(&[("rope_parameters", json!({"rope_type": "yarn"}))], "missing field `factor`");
        assert!(Config::from_json("[1").unwrap_err().to_string().contains("no JSON object"));
    }

    #[test]
    fn each_family_refuses_what_it_does_not_implement() {
        refused_by("llama", &[("num_key_value_heads", 3.into())], "4 heads don't share 3 heads of keys");
        refused_by("llama", &[("head_dim", 23.into())], "must be even");
        refused_by("llama", &[("hidden_size", 66.into()), ("head_dim", Value::Null)], "no multiple of 4 heads");
        refused_by("llama", &[("mlp_bias", true.into())], "mlp_bias");
        let llama3 = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 4.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64});
        refused_by("llama", &[("rope_scaling", llama3)], "`high_freq_factor` above `low_freq_factor`");
        refused_by("llama", &[("rope_theta", 1.0.into())], "`rope_theta` is 1");
        refused_by("qwen2", &[("num_key_value_heads", Value::Null)], "missing field `num_key_value_heads`");
        let window = [("use_sliding_window", true.into()), ("sliding_window", 64.into())];
        refused_by("qwen2", &[window.as_slice(), &[("max_window_layers", 2.into())]].concat(), "window of 64 tokens");
        refused_by("qwen3_moe", &window, "window of 64 tokens");
        refused_by("mixtral", &window[1..], "window of 64 tokens");
        let types = json!(["full_attention", "sliding_attention", "full_attention"]);
        refused_by("qwen3", &[window.as_slice(), &[("layer_types", types)]].concat(), "window of 64 tokens");
        refused_by("qwen3", &[("layer_types", json!(["linear_attention"]))], "\"linear_attention\"");
        refused_by("qwen3", &[("rope_scaling", json!({"type": "linear", "factor": 2.0}))], "rope type \"linear\"");
        refused_by("qwen3", &[("partial_rotary_factor", 0.5.into())], "partial_rotary_factor");
        refused_by("qwen3_moe", &[("num_experts_per_tok", 9.into())], "takes 9 experts");
        refused_by("qwen3_moe", &[("num_local_experts", Value::Null)], "missing field `num_local_experts`");
        refused_by("qwen3_moe", &[("decoder_sparse_step", 0.into())], "decoder_sparse_step");
        refused_by("mixtral", &[("num_local_experts", 0.into())], "`num_local_experts` is 0");
        refused_by("deepseek_v2", &[("norm_topk_prob", true.into())], "norm_topk_prob");
        refused_by("deepseek_v2", &[("topk_method", "noaux_tc".into())], "only \"greedy\" or \"group_limited_greedy\"");
        refused_by("deepseek_v2", &[("attention_bias", true.into())], "attention_bias");
        refused_by("deepseek_v3", &[("kv_lora_rank", 0.into())], "`kv_lora_rank` is 0");
    }

    #[test]
    fn a_window_that_hides_nothing_is_no_window() {
        let window = |size: usize| [("use_sliding_window", true.into()), ("sliding_window", size.into())];
        read("qwen3", &window(256));
        read("qwen2", &[window(64).as_slice(), &[("max_window_layers", 3.into())]].concat());
        read("qwen2", &[("sliding_window", 64.into())]);
        let types = json!(["full_attention", "full_attention", "full_attention"]);
        read("qwen3", &[window(64).as_slice(), &[("layer_types", types)]].concat());
    }

    #[test]
    fn layers_are_dense_where_the_config_says_so() {
        let dense = |config: &Config| -> Vec<bool> {
            config.feed_forward.iter().map(|part| matches!(part, FeedForward::Dense(96))).collect()
        };
        assert_eq!(dense(&read("qwen3_moe", &[])), [false; 3]);
        assert_eq!(dense(&read("qwen3_moe", &[("mlp_only_layers", json!([1]))])), [false, true, false]);
        assert_eq!(dense(&read("qwen3_moe", &[("decoder_sparse_step", 2.into())])), [true, false, true]);
        assert_eq!(dense(&read("deepseek_v2", &[])), [true, false, false]);
        assert_eq!(dense(&read("qwen3", &[])), [true; 3]);
        let renamed = [("num_local_experts", Value::Null), ("num_experts", 6.into())];
        let experts = read("qwen3_moe", &renamed).expert_layers().map(|experts| experts.router.experts).sum::<usize>();
        assert_eq!(experts, 18, "hub checkpoints write `num_experts`");
    }

    #[test]
    fn families_differ_in_biases_norms_and_widths() {
        let grouped = |family: &str, change: &[(&str, Value)]| match read(family, change).attention {
            Attention::Grouped(Grouped { groups, width, input_bias, output_bias, norm, .. }) => {
                (groups, width, input_bias, output_bias, norm)
            }
            Attention::Latent(_) => panic!("{family} is no latent attention"),
        };
        let none = |key| (key, Value::Null);
        assert_eq!(grouped("llama", &[]), (2, 24, false, false, false));
        assert_eq!(grouped("llama", &[none("num_key_value_heads"), none("head_dim")]), (4, 16, false, false, false));
        assert_eq!(grouped("llama", &[("attention_bias", true.into())]), (2, 24, true, true, false));
        assert_eq!(grouped("qwen2", &[none("head_dim")]), (2, 16, true, false, false));
        assert_eq!(grouped("qwen3", &[none("head_dim")]), (2, 128, false, false, true));
        assert_eq!(grouped("qwen3_moe", &[("attention_bias", true.into())]), (2, 24, true, true, true));
        assert_eq!(grouped("mixtral", &[("attention_bias", true.into())]), (2, 24, false, false, false));
    }

    #[test]
    fn saving_keeps_unknown_keys_in_their_order() {
        let config = Config::from_json(QUICKSTART).unwrap();
        assert_eq!(config.to_json(), QUICKSTART);
    }
}
