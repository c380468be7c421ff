//! The arithmetic of other trainers' tests: every row of `numerics.jsonl` is computed here, by the part that computes it in a
//! run, or named as one that is not.

#![allow(clippy::print_stdout, reason = "a count of agreeing rows is what the test is for")]

mod support;

use std::sync::Arc;

use base::{Completion, Context, Finding, Finish, Grants, Group, Judgement, Limits, Prompt, RoutedExperts, Verdict};
use candle_core::{DType, Device, Tensor};
use host::{Code, Configured, Host, Options};
use kernels::{Param, ops};
use learn::{
    AdvantageSettings, Aggregation, Baseline, Bounding, Clip, Correction, Divergence, Estimator, Level, LossSettings,
    LossStats, PassInput, Penalty, Scale, Scored, Surrogate, advantages, policy_loss, returns, sft_loss,
};
use serde_json::{Value, json};
use support::{Folder, root, shared};

/// What there is no setting for: a critic (GAE), and two losses of single trainers.
const EXEMPT: [&str; 3] = ["gae_returns", "maxrl_advantage", "dppo_binary_tv_mask"];

/// Numbers row after row, and `null` is none; a number alone is a row of one.
fn numbers(value: &Value) -> Vec<f64> {
    match value {
        Value::Array(items) => items.iter().flat_map(numbers).collect(),
        Value::Bool(truth) => vec![f64::from(u8::from(*truth))],
        Value::Null => vec![f64::NAN],
        number => vec![number.as_f64().expect("a number")],
    }
}

fn narrow(values: &[f64]) -> Vec<f32> {
    values.iter().map(|value| *value as f32).collect()
}

fn vector(values: &[f64]) -> Tensor {
    Tensor::from_slice(values, values.len(), &Device::Cpu).expect("a vector")
}

/// The rows of a function's inputs.
struct Row<'a>(&'a Value);

impl Row<'_> {
    fn of(&self, key: &str) -> Vec<f64> {
        self.0.get(key).map(numbers).unwrap_or_default()
    }

    fn number(&self, key: &str) -> f64 {
        self.0[key].as_f64().unwrap_or_else(|| panic!("`{key}` is no number"))
    }

    fn text(&self, key: &str) -> &str {
        self.0[key].as_str().unwrap_or_default()
    }

    /// The lengths of the rows of a matrix.
    fn lengths(&self, key: &str) -> Vec<usize> {
        self.0[key].as_array().into_iter().flatten().map(|row| row.as_array().map_or(1, Vec::len)).collect()
    }

    /// The mask, or ones for each element of `like`.
    fn mask(&self, like: &str) -> Vec<f64> {
        let mask = self.of("mask");
        if mask.is_empty() { vec![1.0; self.of(like).len()] } else { mask }
    }

    fn clip(&self) -> Clip {
        Clip { low: Some(self.number("eps_low")), high: Some(self.number("eps_high")) }
    }

    /// Rewards by group, those that are not valid left out, each with its place in the row.
    fn scored(&self) -> Vec<Vec<(usize, Scored<'static>)>> {
        let (groups, valid) = (self.of("group"), self.of("valid_mask"));
        let mut scored: Vec<Vec<(usize, Scored<'static>)>> = Vec::new();
        for (i, reward) in self.of("rewards").into_iter().enumerate() {
            let group = groups[i] as usize;
            scored.resize_with(scored.len().max(group + 1), Vec::new);
            let reward = Some(reward).filter(|_| valid.get(i).is_none_or(|valid| *valid > 0.0));
            scored[group].push((i, Scored { reward, tokens: 1, penalties: &[] }));
        }
        scored
    }

    /// The advantages of rewards, in the order of the row; `None` where the reward is not valid.
    fn advantages(&self, settings: &AdvantageSettings) -> Vec<Option<f64>> {
        let scored = self.scored();
        let groups: Vec<Vec<Scored<'_>>> =
            scored.iter().map(|group| group.iter().map(|(_, scored)| *scored).collect()).collect();
        let mut found = vec![None; self.of("rewards").len()];
        for (group, advantages) in scored.iter().zip(advantages(&groups, settings)) {
            for ((place, scored), advantage) in group.iter().zip(advantages) {
                found[*place] = scored.reward.map(|_| advantage.mean());
            }
        }
        found
    }
}

/// What a loss is computed from.
struct Case {
    settings: LossSettings,
    lengths: Vec<usize>,
    policy: Vec<f64>,
    old: Vec<f64>,
    sampler: Vec<f64>,
    reference: Option<Vec<f64>>,
    advantages: Vec<f64>,
}

impl Case {
    /// The loss, its gradient and its statistics for the given weights of tokens.
    fn run(&self, weights: &[f64]) -> (f64, Vec<f64>, LossStats) {
        let policy = candle_core::Var::from_tensor(&vector(&self.policy)).expect("a variable");
        let (old, sampler) = (narrow(&self.old), narrow(&self.sampler));
        let reference = self.reference.as_deref().map(narrow);
        let input = PassInput {
            sequences: &self.lengths,
            policy: policy.as_tensor(),
            entropy: &policy.zeros_like().expect("zeros"),
            old: &old,
            sampler: &sampler,
            reference: reference.as_deref(),
            advantages: &self.advantages,
            weights,
        };
        let (loss, stats) = policy_loss(&input, &self.settings).expect("a loss");
        let gradients = loss.backward().expect("a gradient");
        let gradient = gradients.get(policy.as_tensor()).expect("it reaches the policy").to_vec1().expect("numbers");
        (loss.to_scalar().expect("a scalar"), gradient, stats)
    }

    /// The loss and the statistics of each token alone, times its weight.
    fn each(&self, weights: &[f64]) -> Vec<(f64, LossStats)> {
        let alone = |i: usize| {
            let mut one = vec![0.0; weights.len()];
            one[i] = weights[i];
            let (loss, _, stats) = self.run(&one);
            (loss, stats)
        };
        (0..weights.len()).map(alone).collect()
    }
}

fn policy_case(row: &Row<'_>, surrogate: Surrogate) -> Case {
    let (policy, mut old) = (row.of("logprobs"), row.of("old_logprobs"));
    if old.is_empty() {
        old = policy.iter().zip(row.of("ratios")).map(|(policy, ratio)| policy - ratio.ln()).collect();
    }
    Case {
        settings: LossSettings { surrogate, ..LossSettings::default() },
        lengths: row.lengths("logprobs"),
        sampler: old.clone(),
        reference: None,
        advantages: row.of("advantages"),
        policy,
        old,
    }
}

fn correction(row: &Row<'_>, level: Level, bounding: Bounding, bounds: (f64, f64)) -> Vec<f64> {
    let counts: Vec<bool> = row.mask("old_logprobs").iter().map(|mask| *mask > 0.0).collect();
    let (old, sampler) = (narrow(&row.of("old_logprobs")), narrow(&row.of("rollout_logprobs")));
    let correction = Correction { level, bounding, at_least: bounds.0, at_most: bounds.1 };
    let weights = correction.weights(&old, &sampler, &counts);
    if level == Level::Token { weights } else { vec![weights[0]] }
}

/// The computed numbers and those of the row, both without what is in no loss; `None` for a function that is unknown.
fn compute(function: &str, row: &Row<'_>, expected: Vec<f64>, bench: &Bench) -> Option<(Vec<f64>, Vec<f64>)> {
    let group = AdvantageSettings { epsilon: 1e-6, ..AdvantageSettings::default() };
    let others = AdvantageSettings { baseline: Baseline::LeaveOneOut, scale: Scale::None, ..group };
    let bounds = || (row.number("low"), row.number("high"));
    let found = match function {
        "approx_kl" => {
            let estimator = match row.text("estimator") {
                "k1" => Estimator::K1,
                "abs" => Estimator::Abs,
                "k2" => Estimator::K2,
                "k3" => Estimator::K3,
                _ => return None,
            };
            let divergence = Divergence { estimator, clamp: row.0.get("input_clamp").is_some() };
            let penalty = Some(Penalty { coefficient: 1.0, divergence, unbiased: false });
            let policy = row.of("logprobs");
            let case = Case {
                settings: LossSettings { penalty, ..LossSettings::default() },
                lengths: row.lengths("logprobs"),
                old: policy.clone(),
                sampler: policy.clone(),
                reference: Some(row.of("ref_logprobs")),
                advantages: vec![0.0; policy.len()],
                policy,
            };
            case.each(&row.mask("logprobs")).into_iter().map(|(loss, _)| loss).collect()
        }
        // A token outside the mask is in no loss; trainers differ in what they leave there.
        "reinforce_pp_returns" => {
            let mask = row.of("mask");
            let inside = |values: &[f64]| -> Vec<f64> {
                values.iter().zip(&mask).filter(|(_, mask)| **mask > 0.0).map(|(value, _)| *value).collect()
            };
            return Some((returns(&inside(&row.of("token_level_rewards"))), inside(&expected)));
        }
        "reinforce_whitened_advantage" => {
            let (mask, rewards) = (row.of("mask"), row.of("token_level_rewards"));
            let reward = rewards.iter().zip(&mask).map(|(reward, mask)| reward * mask).sum();
            let tokens = mask.iter().sum::<f64>() as usize;
            let settings =
                AdvantageSettings { baseline: Baseline::None, scale: Scale::WhitenTokens, ddof: 1, epsilon: 1e-8 };
            let scored = Scored { reward: Some(reward), tokens, penalties: &vec![0.0; tokens] };
            let advantage = advantages(&[vec![scored]], &settings).concat().remove(0);
            let mut places = 0..;
            let mut of_token =
                |mask: &f64| if *mask > 0.0 { advantage.of_token(places.next().unwrap_or(0)) } else { 0.0 };
            mask.iter().map(&mut of_token).collect()
        }
        "grpo_advantage" => {
            let scale = if row.0["norm_by_std"] == json!(true) { Scale::Group } else { Scale::None };
            let ddof = if row.0["ddof"] == json!(0) { 0 } else { 1 };
            row.advantages(&AdvantageSettings { scale, ddof, ..group })
                .into_iter()
                .map(|it| it.unwrap_or(0.0))
                .collect()
        }
        "leave_one_out_baseline" => {
            let found = row.advantages(&others);
            let rows = row.of("rewards").into_iter().zip(&found).zip(expected);
            // What has no reward has no baseline either.
            let valid = rows.filter_map(|((reward, advantage), expected)| Some((reward - (*advantage)?, expected)));
            return Some(valid.unzip());
        }
        "leave_one_out_std" => {
            let scaled = row.advantages(&AdvantageSettings { scale: Scale::LeaveOneOut, epsilon: 1e-300, ..others });
            let pairs = row.advantages(&others).into_iter().zip(scaled).zip(expected);
            // Where the others are equal nothing is divided, and where the advantage is 0 a quotient tells nothing.
            let told = pairs.filter_map(|((plain, scaled), expected)| {
                let (plain, scaled) = (plain?, scaled?);
                (plain != 0.0).then(|| (if expected == 0.0 { plain - scaled } else { plain / scaled }, expected))
            });
            return Some(told.unzip());
        }
        "broadcast_advantage" => {
            let mask = row.of("trainable_mask");
            let policy = vec![-1.0; mask.len()];
            let case = Case {
                settings: LossSettings { surrogate: Surrogate::Reinforce, ..LossSettings::default() },
                lengths: vec![mask.len()],
                old: policy.clone(),
                sampler: policy.clone(),
                reference: None,
                advantages: vec![row.number("advantage"); mask.len()],
                policy,
            };
            case.run(&mask).1.into_iter().map(|slope| -slope).collect()
        }
        "aggregate_loss" => {
            let (losses, mask, lengths) = (row.of("loss"), row.of("mask"), row.lengths("loss"));
            let mut start = 0;
            let rows: Vec<Vec<f64>> = lengths
                .iter()
                .map(|length| {
                    let row = start..start + length;
                    start = row.end;
                    row.filter(|&i| mask[i] > 0.0).map(|i| losses[i]).collect()
                })
                .collect();
            let aggregate = |aggregation: Aggregation, rows: &[Vec<f64>]| -> f64 {
                let weights = aggregation.weights(&rows.iter().map(Vec::len).collect::<Vec<_>>());
                rows.iter().zip(weights).map(|(row, weight)| weight * row.iter().sum::<f64>()).sum()
            };
            let constant = || row.0.get("max_seq_len").and_then(Value::as_f64).unwrap_or(lengths[0] as f64);
            vec![match row.text("mode") {
                "token-mean" => aggregate(Aggregation::TokenMean, &rows),
                "seq-mean-token-mean" => aggregate(Aggregation::SequenceMean, &rows),
                "seq-mean-token-sum" => aggregate(Aggregation::SequenceSum, &rows),
                "seq-mean-token-sum-norm" => aggregate(Aggregation::Constant(constant()), &rows),
                // A mean of sums over a batch, times the batch.
                "token-sum" => aggregate(Aggregation::SequenceSum, &rows) * rows.len() as f64,
                // Each micro-batch as an update of its own.
                "microbatch-token-mean-mean" => {
                    let parts = rows.chunks(row.number("micro_batch_size") as usize);
                    let count = parts.len() as f64;
                    parts.map(|part| aggregate(Aggregation::TokenMean, part)).sum::<f64>() / count
                }
                _ => return None,
            }]
        }
        "policy_loss_ppo_clip" => {
            let surrogate = Surrogate::Clip { clip: row.clip(), dual: None, delta: None };
            vec![policy_case(row, surrogate).run(&row.mask("logprobs")).0]
        }
        "policy_loss_cispo" => {
            vec![policy_case(row, Surrogate::Cispo(row.clip())).run(&row.mask("logprobs")).0]
        }
        "policy_loss_cispo_per_token" => {
            let case = policy_case(row, Surrogate::Cispo(row.clip()));
            case.each(&row.mask("logprobs")).into_iter().map(|(loss, _)| loss).collect()
        }
        "cispo_clip_indicator" => {
            let case = policy_case(row, Surrogate::Cispo(row.clip()));
            let is_clipped = |(_, stats): (f64, LossStats)| (stats.clipped_low + stats.clipped_high) as f64;
            case.each(&row.mask("logprobs")).into_iter().map(is_clipped).collect()
        }
        "tis_ratio_sequence" => correction(row, Level::Sequence, Bounding::Truncate, (0.0, row.number("clip_high"))),
        "tis_ratio_token" => correction(row, Level::Token, Bounding::Truncate, (0.0, row.number("clip_high"))),
        "sequence_mask_geometric" => correction(row, Level::SequenceMean, Bounding::Mask, bounds()),
        "outlier_sequence_mask" => correction(row, Level::WorstToken, Bounding::Mask, bounds()),
        "token_is_mask" => correction(row, Level::Token, Bounding::Mask, bounds()),
        "off_policy_sequence_mask" => {
            let (lengths, of_row) = (row.lengths("logprobs"), row.of("advantages"));
            let each = lengths.iter().zip(&of_row);
            let case = Case {
                settings: LossSettings { off_policy_mask: Some(row.number("threshold")), ..LossSettings::default() },
                advantages: each.flat_map(|(length, advantage)| vec![*advantage; *length]).collect(),
                policy: row.of("logprobs"),
                old: row.of("logprobs"),
                sampler: row.of("rollout_logprobs"),
                reference: None,
                lengths: lengths.clone(),
            };
            let gradient = case.run(&row.mask("logprobs")).1;
            let starts = lengths.iter().scan(0, |end, length| {
                *end += length;
                Some(*end - length)
            });
            starts.map(|start| f64::from(u8::from(gradient[start] != 0.0))).collect()
        }
        "high_entropy_mask" => {
            let (entropies, mask) = (row.of("entropies"), row.of("mask"));
            let inside = entropies.iter().zip(&mask).filter(|(_, mask)| **mask > 0.0).map(|(entropy, _)| *entropy);
            let least = learn::quantile(inside.collect(), row.number("quantile"));
            let keeps = |(entropy, mask): (&f64, &f64)| *mask > 0.0 && least.is_some_and(|least| *entropy >= least);
            entropies.iter().zip(&mask).map(|pair| f64::from(u8::from(keeps(pair)))).collect()
        }
        "entropy_from_logits" => {
            let logits = row.of("logits");
            let hidden = vector(&logits).to_dtype(DType::F32).and_then(|it| it.unsqueeze(0)).expect("logits");
            let identity = Tensor::eye(logits.len(), DType::F32, &Device::Cpu).expect("a matrix");
            let head = Param::new("head", identity).expect("a parameter");
            let out = ops::token_logprobs(&hidden, &head, &[0], 1.0).and_then(|out| out.to_vec2::<f32>());
            vec![f64::from(out.expect("an entropy")[0][1])]
        }
        "sft_ce_component" => {
            let weights: Vec<f64> = row.of("weights").iter().map(|weight| weight / row.number("scale")).collect();
            vec![sft_loss(&vector(&row.of("logprobs")), &weights).and_then(|it| it.to_scalar()).expect("a loss")]
        }
        "scale_rewards" => {
            let [from, to] = ["source", "target"].map(|end| (format!("{end}_min"), format!("{end}_max")));
            let [(a, b), (c, d)] = [from, to].map(|(low, high)| (row.number(&low), row.number(&high)));
            let body = format!(
                "judgements[0].verdicts.map(|v| {c:?} + (min(max(v.score, {a:?}), {b:?}) - {a:?}) / ({b:?} - {a:?}) * ({d:?} - {c:?}))"
            );
            bench.reward(&body, row)
        }
        "overlong_shaping" => {
            let (start, buffer) = (row.number("max_length") - row.number("buffer"), row.number("buffer"));
            let body = format!(
                "let rewards = []; for i in 0..group.completions.len() {{ \
                   let beyond = group.completions[i].tokens.to_float() - {start:?}; \
                   rewards.push(judgements[0].verdicts[i].score - max(beyond, 0.0) / {buffer:?} * {:?}); }} rewards",
                row.number("penalty")
            );
            bench.reward(&body, row)
        }
        "stop_properly_penalty" => {
            let body = format!(
                "let rewards = []; for i in 0..group.completions.len() {{ \
                   let share = if group.completions[i].finish == \"length\" {{ {:?} }} else {{ 1.0 }}; \
                   rewards.push(judgements[0].verdicts[i].score * share); }} rewards",
                row.number("coef")
            );
            bench.reward(&body, row)
        }
        _ => return None,
    };
    Some((found, expected))
}

/// What runs plugins: rewards are reshaped by scripts.
struct Bench {
    host: Host,
    folder: Folder,
}

impl Bench {
    fn new() -> Self {
        let folder = Folder::new();
        let options = Options { cache: Some(folder.path("compiled")), ..Options::default() };
        Self { host: Host::new(options).expect("a host"), folder }
    }

    fn context() -> Context {
        Context { step: 0, seed: 0, max_tokens: 1024, evaluating: false }
    }

    /// Completions with the scores, the lengths and the ends that the row has.
    fn group(row: &Row<'_>) -> Group {
        let (scores, lengths, cut) = (row.of("rewards"), row.of("lengths"), row.of("truncated"));
        let completion = |i: usize| {
            let tokens = lengths.get(i).map_or(1, |length| *length as usize);
            let is_cut = cut.get(i).is_some_and(|cut| *cut > 0.0);
            Arc::new(Completion {
                tokens: vec![0; tokens],
                loss_mask: vec![true; tokens],
                text: String::new(),
                finish: if is_cut { Finish::Length } else { Finish::Stop },
                logprobs: vec![0.0; tokens],
                weights_version: 0,
                experts: RoutedExperts::default(),
            })
        };
        let verdicts = scores.iter().map(|score| Verdict::Decided(Finding { score: *score, ..Finding::default() }));
        Group {
            step: 0,
            index: 0,
            prompt: Arc::new(Prompt {
                id: 0,
                source: "rows".into(),
                messages: Vec::new(),
                text: String::new(),
                tokens: Vec::new(),
                reference: None,
                response: None,
                learned: Vec::new(),
                fields: Vec::new(),
            }),
            completions: (0..scores.len()).map(completion).collect(),
            judgements: vec![Arc::new(Judgement { stage: "accuracy".into(), verdicts: verdicts.collect() })],
            rewards: Vec::new(),
            decisions: Vec::new(),
        }
    }

    /// What a script makes of scores.
    fn reward(&self, body: &str, row: &Row<'_>) -> Vec<f64> {
        let text = format!("fn reward(ctx, group, judgements) {{ {body} }}");
        let path = self.folder.write("shape.rhai", text);
        let limits = Limits { operations: Some(50_000), ..Limits::default() };
        let plugin = self.host.load("shape", Code::Rhai(&path), &limits, &Grants::default()).expect("a script");
        let plugin = plugin.configure(&json!({})).expect("it takes no config");
        let rewards = plugin.reward(&Self::context(), &Self::group(row)).expect("rewards");
        rewards.into_iter().map(|reward| reward.expect("it runs").expect("it decides")).collect()
    }

    fn overlong(&self, config: &Value) -> Configured {
        let limits = Limits { fuel: Some(20_000_000), memory: Some(16 << 20), ..Limits::default() };
        let plugin = self.host.load("overlong", Code::Builtin("overlong"), &limits, &Grants::default());
        plugin.expect("it comes with the tool").configure(config).expect("a config")
    }
}

#[test]
fn the_arithmetic_is_that_of_other_trainers() {
    let Some(path) = shared("data/cases/numerics.jsonl") else { return };
    let text = std::fs::read_to_string(path).expect("the rows can be read");
    let bench = Bench::new();
    let (mut agreed, mut exempt, mut differing) = (0, 0, Vec::new());
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let row: Value = serde_json::from_str(line).expect("a row is JSON");
        let function = row["function"].as_str().expect("a row names its function");
        if EXEMPT.contains(&function) {
            println!("exempt: {function}, {}", row["source"]);
            exempt += 1;
            continue;
        }
        let computed = compute(function, &Row(&row["inputs"]), numbers(&row["expected"]), &bench);
        let (found, expected) = computed.unwrap_or_else(|| panic!("nothing computes {function}: {row}"));
        let tolerance = row["tolerance"].as_f64().expect("a row has a tolerance");
        let is_relative = row["note"].as_str().is_some_and(|note| note.contains("relative tolerance"));
        let near = |(a, b): (&f64, &f64)| (a - b).abs() <= if is_relative { tolerance * b.abs() } else { tolerance };
        match found.len() == expected.len() && found.iter().zip(&expected).all(near) {
            true => agreed += 1,
            false => differing.push(format!("{row}\n  gives {found:?}")),
        }
    }
    println!("numerics.jsonl: {agreed} rows agree, {exempt} exempt, {} differ", differing.len());
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}

/// The one number of the policy losses' fixture that a plugin computes: DAPO's soft overlong punishment.
#[test]
fn the_overlong_punishment_is_trls() {
    let path = root().join("tests/parity/grpo.safetensors");
    let tensors = candle_core::safetensors::load(path, &Device::Cpu).expect("the fixture");
    let of = |name: &str| tensors[name].to_vec1::<f64>().expect("numbers");
    let (lengths, expected) = (of("dapo.overlong_lengths"), of("dapo.overlong_reward"));
    let inputs = json!({ "lengths": lengths, "rewards": vec![0.0; lengths.len()] });
    let plugin = Bench::new().overlong(&json!({ "max_length": 16, "cache": 4 }));
    let verdicts = plugin.verify(&Bench::context(), &Bench::group(&Row(&inputs))).expect("verdicts");
    for ((verdict, length), expected) in verdicts.iter().zip(&lengths).zip(&expected) {
        let Verdict::Decided(Finding { score, .. }) = verdict else { panic!("{length}: {verdict:?}") };
        assert!((score - expected).abs() < 1e-12, "{length}: {score} instead of {expected}");
    }
}
