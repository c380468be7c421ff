//! What a `config.json` says, described as data: a new architecture is a new reading of its file, not a new module.
//!
//! Both spellings are read: that of transformers 5 (`rope_parameters`, `dtype`) and that of older hub checkpoints
//! (`rope_theta`, `rope_scaling`, `torch_dtype`).

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// The architectures that can be built, as `model_type` names them.
const KNOWN: [&str; 1] = ["deepseek_v3"];

/// The longest context for which position tables are made: 16 million tokens.
const LONGEST_CONTEXT: usize = 1 << 24;

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
    /// Whether the head is the embedding's table.
    pub tied: bool,
    /// The number of positions.
    pub context: usize,
    /// The standard deviation of random initial weights.
    pub initializer_range: f64,
    /// The tokens that end a sequence.
    pub eos: Vec<u32>,
    /// The token that begins a sequence.
    pub bos: Option<u32>,
    /// The file as it was read, so that saving keeps what only others understand.
    json: Map<String, Value>,
}

/// How tokens look at earlier ones.
#[derive(Clone, Debug)]
pub enum Attention {
    /// Multi-head latent attention (DeepSeek-V2 report, section 2.1).
    Latent(Latent),
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

/// Rotary position embedding.
#[derive(Clone, Debug)]
pub struct Rotary {
    /// The base of the frequencies.
    pub theta: f64,
    /// Whether the pairs are `(0, 1), (2, 3), ..` and not `(0, R/2), (1, R/2 + 1), ..`.
    pub interleaved: bool,
    /// How a model of short contexts was stretched to longer ones.
    pub yarn: Option<Yarn>,
}

/// YaRN (Peng et al., arXiv 2309.00071), with DeepSeek's two factors for the attention's temperature.
#[derive(Clone, Debug, Deserialize)]
pub struct Yarn {
    /// How many times longer the context became.
    pub factor: f64,
    /// The context before.
    #[serde(rename = "original_max_position_embeddings")]
    pub original: f64,
    /// Dimensions that rotate more often than this within the original context keep their frequency.
    #[serde(default = "thirty_two")]
    pub beta_fast: f64,
    /// Dimensions that rotate less often than this are fully stretched.
    #[serde(default = "one")]
    pub beta_slow: f64,
    /// The temperature's coefficient on the rotated part.
    #[serde(default)]
    pub mscale: Option<f64>,
    /// The temperature's coefficient on all dimensions.
    #[serde(default)]
    pub mscale_all_dim: Option<f64>,
}

/// The feed-forward part of one layer.
#[derive(Clone, Debug)]
pub enum FeedForward {
    /// A gated MLP of this width.
    Dense(usize),
    /// A mixture of experts.
    Experts(Experts),
}

/// DeepSeekMoE: routed experts of which a token takes a few, and shared ones that every token takes.
#[derive(Clone, Debug)]
pub struct Experts {
    /// The width of one expert.
    pub width: usize,
    /// The width of all shared experts together.
    pub shared: usize,
    /// How a token's experts are chosen and weighed.
    pub router: kernels::ops::Router,
}

/// `config.json` of DeepSeek-V3, either spelling.
#[derive(Deserialize)]
struct DeepseekV3 {
    vocab_size: usize,
    hidden_size: usize,
    num_hidden_layers: usize,
    first_k_dense_replace: usize,
    intermediate_size: usize,
    moe_intermediate_size: usize,
    num_attention_heads: usize,
    q_lora_rank: Option<usize>,
    kv_lora_rank: usize,
    qk_nope_head_dim: usize,
    qk_rope_head_dim: usize,
    v_head_dim: usize,
    n_routed_experts: usize,
    n_shared_experts: Option<usize>,
    num_experts_per_tok: usize,
    n_group: usize,
    topk_group: usize,
    norm_topk_prob: bool,
    routed_scaling_factor: f64,
    rms_norm_eps: f64,
    max_position_embeddings: usize,
    #[serde(default = "yes")]
    rope_interleave: bool,
    rope_parameters: Option<Map<String, Value>>,
    rope_theta: Option<f64>,
    rope_scaling: Option<Map<String, Value>>,
    #[serde(default)]
    tie_word_embeddings: bool,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default = "initializer_range")]
    initializer_range: f64,
    hidden_act: Option<String>,
    scoring_func: Option<String>,
    topk_method: Option<String>,
    moe_layer_freq: Option<usize>,
    eos_token_id: Option<OneOrMany>,
    bos_token_id: Option<u32>,
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

fn yes() -> bool {
    true
}

fn one() -> f64 {
    1.0
}

fn thirty_two() -> f64 {
    32.0
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
        let architecture = json.get("architectures").and_then(|list| list.get(0)).and_then(Value::as_str);
        match json.get("model_type").and_then(Value::as_str) {
            Some("deepseek_v3") => Self::from_deepseek_v3(json),
            Some(other) => Err(Error::Config(format!(
                "`model_type` is \"{other}\"{}, which is not known; known are: {}",
                architecture.map(|name| format!(" ({name})")).unwrap_or_default(),
                KNOWN.join(", ")
            ))),
            None => Err(Error::Config(format!("it has no `model_type`; known are: {}", KNOWN.join(", ")))),
        }
    }

    fn from_deepseek_v3(json: Map<String, Value>) -> Result<Self> {
        let raw: DeepseekV3 = serde_json::from_value(Value::Object(json.clone()))
            .map_err(|error| Error::Config(format!("deepseek_v3: {error}")))?;
        raw.refuse_what_is_not_implemented()?;
        let rotary = raw.rotary()?;
        let router = kernels::ops::Router {
            experts: raw.n_routed_experts,
            chosen: raw.num_experts_per_tok,
            groups: raw.n_group,
            groups_kept: raw.topk_group,
            sigmoid: true,
            normalize: raw.norm_topk_prob,
            scale: raw.routed_scaling_factor,
        };
        let experts = Experts {
            width: raw.moe_intermediate_size,
            shared: raw.moe_intermediate_size * raw.n_shared_experts.unwrap_or(0),
            router,
        };
        let feed_forward = (0..raw.num_hidden_layers)
            .map(|layer| match layer < raw.first_k_dense_replace {
                true => FeedForward::Dense(raw.intermediate_size),
                false => FeedForward::Experts(experts.clone()),
            })
            .collect();
        Ok(Self {
            vocab: raw.vocab_size,
            hidden: raw.hidden_size,
            norm_eps: raw.rms_norm_eps,
            attention: Attention::Latent(Latent {
                heads: raw.num_attention_heads,
                q_lora: raw.q_lora_rank,
                kv_lora: raw.kv_lora_rank,
                nope: raw.qk_nope_head_dim,
                rope: raw.qk_rope_head_dim,
                value: raw.v_head_dim,
                rotary,
            }),
            feed_forward,
            tied: raw.tie_word_embeddings,
            context: raw.max_position_embeddings,
            initializer_range: raw.initializer_range,
            eos: raw.eos_token_id.map(OneOrMany::into_vec).unwrap_or_default(),
            bos: raw.bos_token_id,
            json,
        })
    }

    /// The `config.json` of this model with its weights in f32, as this crate saves them.
    pub fn to_json(&self) -> String {
        let mut json = self.json.clone();
        let key = if json.contains_key("torch_dtype") { "torch_dtype" } else { "dtype" };
        json.insert(key.into(), "float32".into());
        format!("{:#}\n", Value::Object(json))
    }

    /// The number of layers whose weights a checkpoint may hold beyond the model's own: multi-token prediction, which is
    /// neither trained nor sampled from here.
    pub(crate) fn further_layers(&self) -> usize {
        self.json.get("num_nextn_predict_layers").and_then(Value::as_u64).unwrap_or(0) as usize
    }

    /// The mixture-of-experts layers.
    pub fn expert_layers(&self) -> impl Iterator<Item = &Experts> {
        self.feed_forward.iter().filter_map(|part| match part {
            FeedForward::Experts(experts) => Some(experts),
            FeedForward::Dense(_) => None,
        })
    }
}

impl DeepseekV3 {
    fn refuse_what_is_not_implemented(&self) -> Result<()> {
        let refuse = |message: String| Err(Error::Config(format!("deepseek_v3: {message}")));
        let sizes = [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("intermediate_size", self.intermediate_size),
            ("moe_intermediate_size", self.moe_intermediate_size),
            ("num_attention_heads", self.num_attention_heads),
            ("q_lora_rank", self.q_lora_rank.unwrap_or(1)),
            ("kv_lora_rank", self.kv_lora_rank),
            ("qk_nope_head_dim", self.qk_nope_head_dim),
            ("qk_rope_head_dim", self.qk_rope_head_dim),
            ("v_head_dim", self.v_head_dim),
            ("n_routed_experts", self.n_routed_experts),
            ("num_experts_per_tok", self.num_experts_per_tok),
            ("n_group", self.n_group),
            ("topk_group", self.topk_group),
            ("max_position_embeddings", self.max_position_embeddings),
        ];
        for (name, size) in sizes {
            if size == 0 || size > u32::MAX as usize {
                return refuse(format!("`{name}` is {size}; it must be between 1 and {}", u32::MAX));
            }
        }
        if self.max_position_embeddings > LONGEST_CONTEXT {
            return refuse(format!(
                "`max_position_embeddings` is {}; at most {LONGEST_CONTEXT} are served",
                self.max_position_embeddings
            ));
        }
        if !self.qk_rope_head_dim.is_multiple_of(2) {
            return refuse(format!(
                "`qk_rope_head_dim` is {}; pairs are rotated, so it must be even",
                self.qk_rope_head_dim
            ));
        }
        if self.n_routed_experts > usize::from(u16::MAX) {
            return refuse(format!(
                "`n_routed_experts` is {}; at most {} are recorded",
                self.n_routed_experts,
                u16::MAX
            ));
        }
        if !self.n_routed_experts.is_multiple_of(self.n_group) || self.topk_group > self.n_group {
            return refuse(format!(
                "{} experts in {} groups of which {} are kept: the groups must be equal and not fewer than those kept",
                self.n_routed_experts, self.n_group, self.topk_group
            ));
        }
        if self.num_experts_per_tok > self.n_routed_experts / self.n_group * self.topk_group {
            return refuse(format!(
                "a token takes {} experts, but {} kept groups hold only {}",
                self.num_experts_per_tok,
                self.topk_group,
                self.n_routed_experts / self.n_group * self.topk_group
            ));
        }
        if self.quantization_config.is_some() {
            return refuse("`quantization_config` is set; convert the weights to bfloat16 and remove it".into());
        }
        if self.attention_bias {
            return refuse("`attention_bias` is true; attention with biases is not implemented".into());
        }
        let expected = [
            ("hidden_act", &self.hidden_act, "silu"),
            ("scoring_func", &self.scoring_func, "sigmoid"),
            ("topk_method", &self.topk_method, "noaux_tc"),
        ];
        for (name, value, only) in expected {
            if value.as_deref().is_some_and(|value| value != only) {
                return refuse(format!(
                    "`{name}` is \"{}\"; only \"{only}\" is implemented",
                    value.as_deref().unwrap_or_default()
                ));
            }
        }
        if self.moe_layer_freq.is_some_and(|frequency| frequency != 1) {
            return refuse("`moe_layer_freq` must be 1".into());
        }
        if !(self.rms_norm_eps > 0.0 && self.initializer_range >= 0.0 && self.routed_scaling_factor.is_finite()) {
            return refuse(
                "`rms_norm_eps` must be above 0, `initializer_range` not below, `routed_scaling_factor` finite".into(),
            );
        }
        Ok(())
    }

    fn rotary(&self) -> Result<Rotary> {
        let (parameters, theta) = match &self.rope_parameters {
            Some(parameters) => (Some(parameters), parameters.get("rope_theta").and_then(Value::as_f64)),
            None => (self.rope_scaling.as_ref(), None),
        };
        let theta = theta.or(self.rope_theta).unwrap_or(10_000.0);
        if !(theta > 1.0 && theta.is_finite()) {
            return Err(Error::Config(format!("`rope_theta` is {theta}; it must be above 1")));
        }
        let kind = |map: &Map<String, Value>| {
            map.get("rope_type").or_else(|| map.get("type")).and_then(Value::as_str).unwrap_or("default").to_string()
        };
        let yarn = match parameters.map(|map| (kind(map), map)) {
            None => None,
            Some((kind, _)) if kind == "default" => None,
            Some((kind, map)) if kind == "yarn" => {
                let yarn: Yarn = serde_json::from_value(Value::Object(map.clone()))
                    .map_err(|error| Error::Config(format!("deepseek_v3: YaRN's parameters: {error}")))?;
                if !(yarn.factor >= 1.0 && yarn.factor.is_finite() && yarn.original >= 1.0) {
                    return Err(Error::Config(
                        "deepseek_v3: YaRN's factor and original context must be at least 1".into(),
                    ));
                }
                Some(yarn)
            }
            Some((kind, _)) => {
                return Err(Error::Config(format!(
                    "deepseek_v3: rope type \"{kind}\" is not implemented; \"default\" and \"yarn\" are"
                )));
            }
        };
        Ok(Rotary { theta, interleaved: self.rope_interleave, yarn })
    }
}

impl Latent {
    /// What scores are multiplied by: the inverse root of a key's width, times YaRN's temperature squared.
    pub fn score_scale(&self) -> f64 {
        let scale = 1.0 / ((self.nope + self.rope) as f64).sqrt();
        match &self.rotary.yarn {
            Some(Yarn { factor, mscale_all_dim: Some(coefficient), .. }) => {
                scale * mscale(*factor, *coefficient).powi(2)
            }
            _ => scale,
        }
    }
}

impl Rotary {
    /// The angular frequency of each pair of a head of width `dim`, in radians a position.
    pub fn frequencies(&self, dim: usize) -> Vec<f64> {
        let plain = |i: usize| libm::pow(self.theta, -((2 * i) as f64) / dim as f64);
        let Some(yarn) = &self.yarn else { return (0..dim / 2).map(plain).collect() };
        // The dimension that turns `rotations` times within the original context.
        let dimension = |rotations: f64| {
            dim as f64 * libm::log(yarn.original / (rotations * std::f64::consts::TAU)) / (2.0 * libm::log(self.theta))
        };
        let low = dimension(yarn.beta_fast).floor().max(0.0);
        let high = dimension(yarn.beta_slow).ceil().min(dim as f64 - 1.0);
        let width = if high > low { high - low } else { 0.001 };
        (0..dim / 2)
            .map(|i| {
                let stretched = ((i as f64 - low) / width).clamp(0.0, 1.0);
                plain(i) / yarn.factor * stretched + plain(i) * (1.0 - stretched)
            })
            .collect()
    }

    /// What cosines and sines are multiplied by.
    pub fn table_scale(&self) -> f64 {
        match &self.yarn {
            None => 1.0,
            Some(Yarn { factor, mscale: Some(rotated), mscale_all_dim: Some(all), .. }) => {
                mscale(*factor, *rotated) / mscale(*factor, *all)
            }
            Some(yarn) => mscale(yarn.factor, 1.0),
        }
    }
}

/// YaRN's temperature: `0.1 * coefficient * ln(factor) + 1`.
fn mscale(factor: f64, coefficient: f64) -> f64 {
    if factor > 1.0 { 0.1 * coefficient * libm::log(factor) + 1.0 } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUICKSTART: &str = include_str!("../../../pipelines/quickstart/model.json");

    #[track_caller]
    fn refused(change: &[(&str, Value)], expected: &str) {
        let mut json: Map<String, Value> = serde_json::from_str(QUICKSTART).unwrap();
        for (key, value) in change {
            match value {
                Value::Null => json.remove(*key),
                value => json.insert((*key).into(), value.clone()),
            };
        }
        let error = Config::from_json(&Value::Object(json).to_string()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }

    #[test]
    fn what_cannot_be_built_is_refused_in_words() {
        refused(
            &[("model_type", "gpt_bigcode".into())],
            "\"gpt_bigcode\" (DeepseekV3ForCausalLM), which is not known; known are: deepseek_v3",
        );
        refused(&[("model_type", Value::Null)], "no `model_type`");
        refused(&[("hidden_size", Value::Null)], "missing field `hidden_size`");
        refused(&[("hidden_size", "many".into())], "invalid type: string \"many\"");
        refused(&[("num_hidden_layers", 0.into())], "`num_hidden_layers` is 0");
        refused(&[("max_position_embeddings", (1u64 << 31).into())], "at most 16777216");
        refused(&[("qk_rope_head_dim", 15.into())], "must be even");
        refused(&[("n_group", 3.into())], "8 experts in 3 groups");
        refused(&[("num_experts_per_tok", 9.into())], "takes 9 experts");
        refused(&[("hidden_act", "gelu".into())], "only \"silu\"");
        refused(&[("attention_bias", true.into())], "attention_bias");
        refused(&[("quantization_config", serde_json::json!({"quant_method": "fp8"}))], "convert the weights");
        refused(&[("rope_parameters", serde_json::json!({"rope_type": "dynamic"}))], "rope type \"dynamic\"");
        refused(&[("rope_parameters", serde_json::json!({"rope_type": "yarn"}))], "missing field `factor`");
        assert!(Config::from_json("[1").unwrap_err().to_string().contains("no JSON object"));
    }

    #[test]
    fn saving_keeps_unknown_keys_in_their_order() {
        let config = Config::from_json(QUICKSTART).unwrap();
        assert_eq!(config.to_json(), QUICKSTART);
    }
}
