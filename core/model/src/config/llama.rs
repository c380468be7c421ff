//! Llama and those that follow it: grouped-query attention, and an MLP or softmax-routed experts.

use kernels::ops::Router;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{
    Attention, Common, ExpertNames, Experts, FeedForward, Grouped, Reading, Rotary, check_router, keys, only, sizes,
};

/// What the family adds to the keys that all share.
#[derive(Deserialize)]
struct Keys {
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    #[serde(default)]
    use_sliding_window: bool,
    sliding_window: Option<usize>,
    max_window_layers: Option<usize>,
    layer_types: Option<Vec<String>>,
}

/// What mixtures of experts add.
#[derive(Deserialize)]
struct Sparse {
    #[serde(alias = "num_experts")]
    num_local_experts: usize,
    num_experts_per_tok: usize,
    moe_intermediate_size: Option<usize>,
    #[serde(default)]
    norm_topk_prob: bool,
    #[serde(default = "one")]
    decoder_sparse_step: usize,
    #[serde(default)]
    mlp_only_layers: Vec<usize>,
}

fn one() -> usize {
    1
}

/// The attention and the feed-forward part of each layer.
pub(super) fn read(common: &Common, json: &Map<String, Value>) -> Reading<(Attention, Vec<FeedForward>)> {
    let raw: Keys = keys(json)?;
    raw.refuse_windows(common)?;
    let family = common.model_type.as_str();
    let (heads, hidden) = (common.num_attention_heads, common.hidden_size);
    let groups = match raw.num_key_value_heads {
        Some(groups) => groups,
        None if family == "llama" => heads,
        None => return Err("missing field `num_key_value_heads`".into()),
    };
    let width = match raw.head_dim {
        Some(width) => width,
        None if family == "qwen3" => 128,
        None if hidden.is_multiple_of(heads) => hidden / heads,
        None => return Err(format!("`hidden_size` is {hidden}, no multiple of {heads} heads; say `head_dim`")),
    };
    sizes(&[("num_key_value_heads", groups), ("head_dim", width)])?;
    if !heads.is_multiple_of(groups) {
        return Err(format!("{heads} heads don't share {groups} heads of keys evenly"));
    }
    if !width.is_multiple_of(2) {
        return Err(format!("a head is {width} wide; pairs are rotated, so it must be even"));
    }
    let (input_bias, output_bias) = match family {
        "qwen2" => (true, false),
        "mixtral" => (false, false),
        _ => (common.attention_bias, common.attention_bias),
    };
    let norm = matches!(family, "qwen3" | "qwen3_moe");
    let theta = if family == "mixtral" { 1e6 } else { 1e4 };
    let rotary = Rotary::read(common, theta, false)?;
    let attention = Attention::Grouped(Grouped { heads, groups, width, input_bias, output_bias, norm, rotary });
    let layers = 0..common.num_hidden_layers;
    let dense = FeedForward::Dense(common.intermediate_size);
    let feed_forward = match family {
        "mixtral" | "qwen3_moe" => {
            let sparse: Sparse = keys(json)?;
            let experts = FeedForward::Experts(sparse.experts(common)?);
            let part = |layer| if sparse.is_sparse(layer) { experts.clone() } else { dense.clone() };
            layers.map(part).collect()
        }
        _ => layers.map(|_| dense.clone()).collect(),
    };
    Ok((attention, feed_forward))
}

impl Keys {
    /// Refuses a sliding window that would hide something from some layer.
    fn refuse_windows(&self, common: &Common) -> Reading<()> {
        let family = common.model_type.as_str();
        for kind in self.layer_types.iter().flatten() {
            only("layer_types", Some(kind), &["full_attention", "sliding_attention"])?;
        }
        let narrow = self.sliding_window.filter(|window| *window < common.max_position_embeddings);
        let Some(window) = narrow.filter(|_| self.use_sliding_window || family == "mixtral") else { return Ok(()) };
        let used = match (&self.layer_types, self.max_window_layers) {
            (Some(kinds), _) => kinds.iter().any(|kind| kind == "sliding_attention"),
            // Mixtures of experts use their window in every layer.
            (None, Some(first)) if matches!(family, "qwen2" | "qwen3") => first < common.num_hidden_layers,
            (None, _) => true,
        };
        match used {
            true => Err(format!("layers look through a window of {window} tokens, which is not implemented")),
            false => Ok(()),
        }
    }
}

impl Sparse {
    fn experts(&self, common: &Common) -> Reading<Experts> {
        let mixtral = common.model_type == "mixtral";
        let width = match self.moe_intermediate_size {
            _ if mixtral => common.intermediate_size,
            Some(width) => width,
            None => return Err("missing field `moe_intermediate_size`".into()),
        };
        sizes(&[
            ("moe_intermediate_size", width),
            ("num_local_experts", self.num_local_experts),
            ("num_experts_per_tok", self.num_experts_per_tok),
            ("decoder_sparse_step", self.decoder_sparse_step),
        ])?;
        let router = Router {
            experts: self.num_local_experts,
            chosen: self.num_experts_per_tok,
            groups: 1,
            groups_kept: 1,
            sigmoid: false,
            normalize: mixtral || self.norm_topk_prob,
            scale: 1.0,
        };
        check_router(&router)?;
        let names = if mixtral { ExpertNames::BlockSparse } else { ExpertNames::Mlp };
        Ok(Experts { width, shared: 0, router, selection_bias: false, names })
    }

    fn is_sparse(&self, layer: usize) -> bool {
        !self.mlp_only_layers.contains(&layer) && (layer + 1).is_multiple_of(self.decoder_sparse_step)
    }
}
