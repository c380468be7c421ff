//! DeepSeek-V2 and -V3: latent attention and DeepSeekMoE.

use kernels::ops::Router;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{
    Attention, Common, ExpertNames, Experts, FeedForward, Latent, Reading, Rotary, check_router, keys, only, sizes,
};

/// What the family adds to the keys that all share.
#[derive(Deserialize)]
struct Keys {
    first_k_dense_replace: usize,
    moe_intermediate_size: usize,
    q_lora_rank: Option<usize>,
    kv_lora_rank: usize,
    qk_nope_head_dim: usize,
    qk_rope_head_dim: usize,
    v_head_dim: usize,
    n_routed_experts: usize,
    n_shared_experts: Option<usize>,
    num_experts_per_tok: usize,
    n_group: Option<usize>,
    topk_group: Option<usize>,
    norm_topk_prob: bool,
    routed_scaling_factor: f64,
    #[serde(default = "yes")]
    rope_interleave: bool,
    scoring_func: Option<String>,
    topk_method: Option<String>,
    moe_layer_freq: Option<usize>,
}

fn yes() -> bool {
    true
}

/// The attention and the feed-forward part of each layer.
pub(super) fn read(common: &Common, json: &Map<String, Value>) -> Reading<(Attention, Vec<FeedForward>)> {
    let raw: Keys = keys(json)?;
    let router = raw.router(common.model_type == "deepseek_v3")?;
    raw.refuse_what_is_not_implemented(common)?;
    check_router(&router)?;
    let attention = Attention::Latent(Latent {
        heads: common.num_attention_heads,
        q_lora: raw.q_lora_rank,
        kv_lora: raw.kv_lora_rank,
        nope: raw.qk_nope_head_dim,
        rope: raw.qk_rope_head_dim,
        value: raw.v_head_dim,
        rotary: Rotary::read(common, 1e4, raw.rope_interleave)?,
    });
    let experts = Experts {
        width: raw.moe_intermediate_size,
        shared: raw.moe_intermediate_size * raw.n_shared_experts.unwrap_or(0),
        router,
        selection_bias: router.sigmoid,
        names: ExpertNames::Mlp,
    };
    let part = |layer| match layer < raw.first_k_dense_replace {
        true => FeedForward::Dense(common.intermediate_size),
        false => FeedForward::Experts(experts.clone()),
    };
    Ok((attention, (0..common.num_hidden_layers).map(part).collect()))
}

impl Keys {
    /// V3 scores by sigmoids, with a bias for the choice; V2 by a softmax, and only if it says so by groups.
    fn router(&self, third: bool) -> Reading<Router> {
        let (scores, methods): (_, &[_]) = match third {
            true => ("sigmoid", &["noaux_tc"]),
            false => ("softmax", &["greedy", "group_limited_greedy"]),
        };
        only("scoring_func", self.scoring_func.as_deref(), &[scores])?;
        only("topk_method", self.topk_method.as_deref(), methods)?;
        if !third && self.norm_topk_prob {
            return Err(
                "`norm_topk_prob` is true; DeepSeek's code normalises then and transformers' does not, so it is \
                 not implemented"
                    .into(),
            );
        }
        let grouped = third || self.topk_method.as_deref() == Some("group_limited_greedy");
        let (groups, groups_kept) = match (grouped, self.n_group, self.topk_group) {
            (false, ..) => (1, 1),
            (true, Some(groups), Some(kept)) => (groups, kept),
            (true, None, _) => return Err("missing field `n_group`".into()),
            (true, _, None) => return Err("missing field `topk_group`".into()),
        };
        sizes(&[
            ("n_routed_experts", self.n_routed_experts),
            ("num_experts_per_tok", self.num_experts_per_tok),
            ("n_group", groups),
            ("topk_group", groups_kept),
        ])?;
        Ok(Router {
            experts: self.n_routed_experts,
            chosen: self.num_experts_per_tok,
            groups,
            groups_kept,
            sigmoid: third,
            normalize: self.norm_topk_prob,
            scale: self.routed_scaling_factor,
        })
    }

    fn refuse_what_is_not_implemented(&self, common: &Common) -> Reading<()> {
        sizes(&[
            ("moe_intermediate_size", self.moe_intermediate_size),
            ("n_shared_experts", self.n_shared_experts.unwrap_or(0).max(1)),
            ("q_lora_rank", self.q_lora_rank.unwrap_or(1)),
            ("kv_lora_rank", self.kv_lora_rank),
            ("qk_nope_head_dim", self.qk_nope_head_dim),
            ("qk_rope_head_dim", self.qk_rope_head_dim),
            ("v_head_dim", self.v_head_dim),
        ])?;
        if !self.qk_rope_head_dim.is_multiple_of(2) {
            return Err(format!(
                "`qk_rope_head_dim` is {}; pairs are rotated, so it must be even",
                self.qk_rope_head_dim
            ));
        }
        if common.attention_bias {
            return Err("`attention_bias` is true; latent attention with biases is not implemented".into());
        }
        if self.moe_layer_freq.is_some_and(|frequency| frequency != 1) {
            return Err("`moe_layer_freq` must be 1".into());
        }
        Ok(())
    }
}
