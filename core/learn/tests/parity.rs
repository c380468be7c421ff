//! The arithmetic held against PyTorch's, transformers' and TRL's numbers (`tests/parity`, with how they were made).
#![allow(clippy::unwrap_used, clippy::single_range_in_vec_init, reason = "helpers of tests; one sequence is a range")]

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;

use candle_core::{DType, Device, Tensor};
use kernels::Param;
use learn::{
    AdamW, AdvantageSettings, Aggregation, Baseline, Bounding, Clip, Correction, Divergence, Estimator, Level,
    LossSettings, LossStats, PassInput, Penalty, Ratio, Scale, Schedule, ScheduleKind, Scored, Surrogate, advantages,
    policy_loss, returns, sft_loss,
};
use serde_json::Value;

struct Fixture {
    tensors: HashMap<String, Tensor>,
    json: Value,
}

impl Fixture {
    fn open(name: &str) -> Self {
        let path = |end: &str| -> PathBuf {
            [env!("CARGO_MANIFEST_DIR"), "../../tests/parity", &format!("{name}.{end}")].iter().collect()
        };
        let tensors = candle_core::safetensors::load(path("safetensors"), &Device::Cpu).expect("a fixture");
        let json = fs::read(path("json")).expect("a fixture");
        Self { tensors, json: serde_json::from_slice(&json).expect("json") }
    }

    fn tensor(&self, name: &str) -> &Tensor {
        self.tensors.get(name).unwrap_or_else(|| panic!("no `{name}` in the fixture"))
    }

    fn values(&self, name: &str) -> Vec<f64> {
        flat(self.tensor(name))
    }
}

fn flat(tensor: &Tensor) -> Vec<f64> {
    tensor.to_dtype(DType::F64).and_then(|t| t.flatten_all()?.to_vec1()).expect("numbers")
}

/// Values that stand for their f32 forms exactly.
fn narrow(values: &[f64]) -> Vec<f32> {
    values.iter().map(|&value| value as f32).inspect(|value| assert!(value.is_finite())).collect()
}

#[track_caller]
fn assert_close(what: &str, found: &[f64], expected: &[f64], absolute: f64, relative: f64) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, (a, b)) in found.iter().zip(expected).enumerate() {
        assert!((a - b).abs() <= absolute + relative * b.abs(), "{what}[{i}] is {a:e}, expected {b:e}");
    }
}

const ROWS: usize = 12;
const COLUMNS: usize = 10;

/// The state of an optimiser, by name.
fn tensors(adamw: &AdamW) -> Vec<(String, Tensor)> {
    adamw.state().into_iter().map(|part| (part.name.clone(), part.tensor().expect("tensors are on the CPU"))).collect()
}

/// A number of the fixture that is compared elsewhere.
const ELSEWHERE: [&str; 1] = ["dapo.overlong_reward"]; // of the plugin `overlong`: tests/numerics.rs

/// What the fixture's numbers are computed from.
const INPUTS: [&str; 4] = ["logp.logits", "logp.targets", "kl.extreme_ref_minus_logp", "dapo.overlong_lengths"];

/// Every number of the fixture, by its name.
#[test]
#[allow(clippy::print_stdout, reason = "a count of agreeing cases is what the test is for")]
fn all_numbers_of_the_fixture_agree() {
    let fixture = Fixture::open("grpo");
    let mut names: Vec<&str> = fixture.tensors.keys().map(String::as_str).collect();
    names.retain(|name| !name.starts_with("in.") && !INPUTS.contains(name));
    names.sort_unstable();
    let (mut agreed, mut differing) = (0, Vec::new());
    for name in names.iter().filter(|name| !ELSEWHERE.contains(name)) {
        let (kind, rest) = name.split_once('.').unwrap_or((name, ""));
        let found = match kind {
            "adv" => of_advantages(&fixture, rest),
            "is" => of_corrections(&fixture, rest),
            "kl" => of_divergence(&fixture, rest),
            "loss" => of_losses(&fixture, rest),
            "logp" => of_logits(&fixture, rest),
            "dapo" => kept_groups(&fixture, rest),
            _ => None,
        };
        let found = found.unwrap_or_else(|| panic!("`{name}` of the fixture is compared with nothing"));
        // Log-probabilities come from the model's own kernel, which computes in f32.
        let (absolute, relative) = if kind == "logp" { (2e-6, 2e-6) } else { (1e-12, 1e-9) };
        let expected = fixture.values(name);
        assert_eq!(found.len(), expected.len(), "{name}");
        let is_near = |(a, b): (&f64, &f64)| (a - b).abs() <= absolute + relative * b.abs();
        match found.iter().zip(&expected).all(is_near) {
            true => agreed += 1,
            false => differing.push(format!("{name}: {found:?} instead of {expected:?}")),
        }
    }
    println!("grpo.safetensors: {agreed} of {} cases agree, {} elsewhere", names.len(), ELSEWHERE.len());
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}

/// The tokens in the loss of each row.
fn lengths(fixture: &Fixture) -> Vec<usize> {
    fixture.values("in.mask").chunks(COLUMNS).map(|row| row.iter().sum::<f64>() as usize).collect()
}

/// Numbers of tokens in the loss, row by row, put where the mask has them.
fn spread(fixture: &Fixture, rows: impl IntoIterator<Item = Vec<f64>>) -> Vec<f64> {
    let rows = rows.into_iter().zip(lengths(fixture)).flat_map(|(row, length)| {
        assert_eq!(row.len(), length);
        row
    });
    let mut rows = rows;
    fixture.values("in.mask").iter().map(|mask| if *mask > 0.0 { rows.next().unwrap() } else { 0.0 }).collect()
}

fn of_advantages(fixture: &Fixture, name: &str) -> Option<Vec<f64>> {
    let of = |baseline, scale, ddof, epsilon| AdvantageSettings { baseline, scale, ddof, epsilon };
    let (group, others, none) = (Baseline::Group, Baseline::LeaveOneOut, Baseline::None);
    let settings = match name {
        "trl_group" | "trl_group_nan" | "ddof1_eps1e-4" => AdvantageSettings::default(),
        "ddof1_eps1e-6" => of(group, Scale::Group, 1, 1e-6),
        "ddof0_eps1e-4" => of(group, Scale::Group, 0, 1e-4),
        "ddof0_eps1e-6" => of(group, Scale::Group, 0, 1e-6),
        "trl_batch" => of(group, Scale::Batch, 1, 1e-4),
        "trl_none" => of(group, Scale::None, 1, 1e-4),
        "rloo" | "rloo_kl0.05" => of(others, Scale::None, 1, 1e-4),
        "rloo_normalized" => of(others, Scale::WhitenSequences, 1, 1e-4),
        "batch_whiten" => of(none, Scale::WhitenSequences, 1, 1e-8),
        "reinforce_pp" | "reinforce_pp_kl0.01" | "reinforce_pp_returns" | "reinforce_pp_kl0.01_returns" => {
            of(none, Scale::WhitenTokens, 1, 1e-8)
        }
        "reinforce_pp_baseline" => of(group, Scale::WhitenTokens, 1, 1e-8),
        _ => return None,
    };
    let coefficient = match name {
        "rloo_kl0.05" => 0.05,
        name if name.starts_with("reinforce_pp_kl0.01") => 0.01,
        _ => 0.0,
    };
    let k1 = Divergence { estimator: Estimator::K1, clamp: false };
    let (old, reference, mask) =
        (fixture.values("in.old_logps"), fixture.values("in.ref_logps"), fixture.values("in.mask"));
    let penalties: Vec<Vec<f64>> = (0..ROWS)
        .map(|row| (row * COLUMNS..(row + 1) * COLUMNS).filter(|&i| mask[i] > 0.0))
        .map(|tokens| tokens.map(|i| coefficient * k1.at(old[i], reference[i]).0).collect())
        .collect();
    let rewards = fixture.values(if name == "trl_group_nan" { "in.rewards_with_nan" } else { "in.rewards" });
    if name.ends_with("_returns") {
        let of_row = |(reward, penalties): (&f64, &Vec<f64>)| {
            let mut rewards: Vec<f64> = penalties.iter().map(|penalty| -penalty).collect();
            *rewards.last_mut().unwrap() += reward;
            returns(&rewards)
        };
        return Some(spread(fixture, rewards.iter().zip(&penalties).map(of_row)));
    }
    let scored: Vec<Scored<'_>> = rewards
        .iter()
        .zip(&penalties)
        .map(|(reward, penalties)| Scored {
            reward: Some(*reward).filter(|reward| !reward.is_nan()),
            tokens: penalties.len(),
            penalties: if coefficient > 0.0 { penalties } else { &[] },
        })
        .collect();
    let groups: Vec<Vec<Scored<'_>>> = scored.chunks(4).map(<[_]>::to_vec).collect();
    let found: Vec<_> = advantages(&groups, &settings).concat();
    Some(match name.starts_with("reinforce_pp") {
        true => {
            let rows = found.iter().zip(lengths(fixture));
            spread(fixture, rows.map(|(row, length)| (0..length).map(|i| row.of_token(i)).collect()))
        }
        false => found.iter().map(learn::Advantage::mean).collect(),
    })
}

/// What DAPO keeps is what has an advantage.
fn kept_groups(fixture: &Fixture, name: &str) -> Option<Vec<f64>> {
    let advantages = of_advantages(fixture, "trl_group")?;
    let kept = advantages.chunks(4).map(|group| f64::from(u8::from(group.iter().any(|advantage| *advantage != 0.0))));
    (name == "keep_group").then(|| kept.collect())
}

fn correction(name: &str) -> Option<Correction> {
    let (mode, bounds) = name.split_once('.')?;
    let (level, bounding) = mode.split_once('_')?;
    let (at_least, at_most) = if bounds == "max3" { (0.0, 3.0) } else { (0.5, 2.0) };
    let level = if level == "token" { Level::Token } else { Level::Sequence };
    let bounding = if bounding == "mask" { Bounding::Mask } else { Bounding::Truncate };
    Some(Correction { level, bounding, at_least, at_most })
}

fn of_corrections(fixture: &Fixture, name: &str) -> Option<Vec<f64>> {
    let correction = correction(name)?;
    let (old, sampler) = (narrow(&fixture.values("in.old_logps")), narrow(&fixture.values("in.sampler_logps")));
    let counts: Vec<bool> = fixture.values("in.mask").iter().map(|mask| *mask > 0.0).collect();
    let rows = (0..ROWS).map(|row| row * COLUMNS..(row + 1) * COLUMNS);
    let weights = rows.map(|row| correction.weights(&old[row.clone()], &sampler[row.clone()], &counts[row]));
    Some(match correction.level {
        Level::Token => weights.flatten().collect(),
        _ => weights.map(|weights| weights[0]).collect(),
    })
}

fn of_divergence(fixture: &Fixture, name: &str) -> Option<Vec<f64>> {
    let (name, is_gradient) = name.strip_suffix(".grad").map_or((name, false), |name| (name, true));
    let (estimator, clamp) = match name.strip_prefix("extreme_").unwrap_or(name) {
        "k1" => (Estimator::K1, false),
        "abs" => (Estimator::Abs, false),
        "k2" => (Estimator::K2, false),
        "k3" | "k3_times_ratio" => (Estimator::K3, false),
        "low_var_kl" => (Estimator::K3, true),
        _ => return None,
    };
    let divergence = Divergence { estimator, clamp };
    if name.starts_with("extreme_") {
        let differences = fixture.values("kl.extreme_ref_minus_logp");
        return Some(differences.iter().map(|d| divergence.at(0.0, *d).0).collect());
    }
    let penalty = Penalty { coefficient: 1.0, divergence, unbiased: name == "k3_times_ratio" };
    let policy = fixture.values("in.policy_logps");
    let inputs = Inputs {
        settings: LossSettings { penalty: Some(penalty), ..LossSettings::default() },
        old: narrow(&fixture.values("in.old_logps")),
        sampler: vec![0.0; policy.len()],
        reference: narrow(&fixture.values("in.ref_logps")),
        advantages: vec![0.0; policy.len()],
        // Gradients are of the tokens in the loss, values of all.
        weights: if is_gradient { fixture.values("in.mask") } else { vec![1.0; policy.len()] },
    };
    Some(match is_gradient {
        true => inputs.run(&policy, DType::F64, &[0..ROWS]).1,
        false => inputs.of_tokens(&policy),
    })
}

/// Log-probabilities and entropies by the kernel, with logits that are rows times the identity.
fn of_logits(fixture: &Fixture, name: &str) -> Option<Vec<f64>> {
    let (temperature, what) = name.strip_prefix('t')?.rsplit_once('.')?;
    let logits =
        fixture.tensor("logp.logits").to_dtype(DType::F32).and_then(|it| it.reshape((10, 40))).expect("logits");
    let head = Param::new("head", Tensor::eye(40, DType::F32, &Device::Cpu).expect("a matrix")).expect("a parameter");
    let targets: Vec<u32> = fixture.values("logp.targets").iter().map(|target| *target as u32).collect();
    let out = kernels::ops::token_logprobs(&logits, &head, &targets, temperature.parse().ok()?).expect("numbers");
    let column = if what == "entropy" { 1 } else { 0 };
    Some(flat(&out).chunks(2).map(|row| row[column]).collect())
}

/// What a case feeds into the loss.
#[derive(Clone)]
struct Inputs {
    settings: LossSettings,
    old: Vec<f32>,
    sampler: Vec<f32>,
    reference: Vec<f32>,
    advantages: Vec<f64>,
    weights: Vec<f64>,
}

/// A case of the fixture: the settings of the loss, and how it is aggregated.
fn case(name: &str) -> Option<(LossSettings, Aggregation)> {
    let clipped = |low, high| Surrogate::Clip { clip: clip(Some(low), Some(high)), dual: None, delta: None };
    let base = LossSettings::default();
    let beta =
        |settings, unbiased| LossSettings { penalty: Some(Penalty { unbiased, ..Penalty::k3(0.04) }), ..settings };
    let by_sequence = LossSettings { ratio: Ratio::Sequence, surrogate: clipped(3e-2, 4e-2), ..base };
    let with = |surrogate| LossSettings { surrogate, ..base };
    let corrected = |settings, name| LossSettings { correction: correction(name), ..settings };
    let (higher, cispo) = (with(clipped(0.2, 0.28)), with(Surrogate::Cispo(clip(None, Some(0.3)))));
    let standard = clip(Some(0.2), Some(0.2));
    let constant = Aggregation::Constant(16.0);
    Some(match name {
        "grpo" | "grpo_on_policy" => (base, Aggregation::SequenceMean),
        "grpo_beta" | "grpo_on_policy_beta" => (beta(base, false), Aggregation::SequenceMean),
        "grpo_beta_biascorr" | "grpo_on_policy_beta_biascorr" => (beta(base, true), Aggregation::SequenceMean),
        "grpo_beta_k2" => {
            let k2 = Divergence { estimator: Estimator::K2, clamp: false };
            let penalty = Some(Penalty { divergence: k2, ..Penalty::k3(0.04) });
            (LossSettings { penalty, ..base }, Aggregation::SequenceMean)
        }
        "grpo_clip_higher" => (higher, Aggregation::SequenceMean),
        "grpo_delta1.5" => {
            let surrogate = Surrogate::Clip { clip: standard, dual: None, delta: Some(1.5) };
            (with(surrogate), Aggregation::SequenceMean)
        }
        "bnpo" => (base, Aggregation::TokenMean),
        "bnpo_beta" => (beta(base, false), Aggregation::TokenMean),
        "dapo" => (higher, Aggregation::TokenMean),
        "dapo_beta" => (beta(higher, false), Aggregation::TokenMean),
        "dr_grpo" => (base, constant),
        "dr_grpo_beta" => (beta(base, false), constant),
        "gspo" => (by_sequence, Aggregation::SequenceMean),
        "gspo_beta" => (beta(by_sequence, false), Aggregation::SequenceMean),
        "gspo_token" => (LossSettings { ratio: Ratio::SequenceToken, ..by_sequence }, Aggregation::SequenceMean),
        "luspo" => (by_sequence, Aggregation::SequenceSum),
        "cispo" => (cispo, Aggregation::TokenMean),
        "cispo_beta" => (beta(cispo, false), Aggregation::TokenMean),
        "cispo_two_sided" => (with(Surrogate::Cispo(clip(Some(0.2), Some(0.28)))), Aggregation::TokenMean),
        "sapo" => (with(Surrogate::Sapo { positive: 1.0, negative: 1.05 }), Aggregation::SequenceMean),
        "ppo_dual_clip_c1.3" => {
            let surrogate = Surrogate::Clip { clip: standard, dual: Some(1.3), delta: None };
            (with(surrogate), Aggregation::TokenMean)
        }
        "reinforce" => (with(Surrogate::Reinforce), Aggregation::TokenMean),
        "grpo_tis_token" => (corrected(base, "token_truncate.max3"), Aggregation::SequenceMean),
        "grpo_tis_sequence" => (corrected(base, "sequence_truncate.max3"), Aggregation::SequenceMean),
        "grpo_mis_token" => (corrected(base, "token_mask.min0.5_max2"), Aggregation::SequenceMean),
        "grpo_mis_sequence" => (corrected(base, "sequence_mask.max3"), Aggregation::SequenceMean),
        "dapo_tis_token_beta" => (corrected(beta(higher, false), "token_truncate.min0.5_max2"), Aggregation::TokenMean),
        "gspo_tis_sequence" => (corrected(by_sequence, "sequence_truncate.max3"), Aggregation::SequenceMean),
        "cispo_tis_token" => (corrected(cispo, "token_truncate.max3"), Aggregation::TokenMean),
        _ => return None,
    })
}

fn clip(low: Option<f64>, high: Option<f64>) -> Clip {
    Clip { low, high }
}

impl Inputs {
    fn of_case(name: &str, fixture: &Fixture) -> Option<Self> {
        let (settings, aggregation) = case(name)?;
        let advantages = if name.starts_with("dr_grpo") { "in.advantages_no_std" } else { "in.advantages" };
        let old = if name.starts_with("grpo_on_policy") { "in.policy_logps" } else { "in.old_logps" };
        let by_token = |rows: Vec<f64>| rows.into_iter().flat_map(|row| [row; COLUMNS]).collect::<Vec<f64>>();
        let weights = by_token(aggregation.weights(&lengths(fixture)));
        Some(Self {
            settings,
            old: narrow(&fixture.values(old)),
            sampler: narrow(&fixture.values("in.sampler_logps")),
            reference: narrow(&fixture.values("in.ref_logps")),
            advantages: by_token(fixture.values(advantages)),
            weights: weights.iter().zip(fixture.values("in.mask")).map(|(weight, mask)| weight * mask).collect(),
        })
    }

    /// A loss, its gradient and its statistics, computed in as many passes as there are ranges of rows.
    fn run(&self, policy: &[f64], dtype: DType, passes: &[std::ops::Range<usize>]) -> (f64, Vec<f64>, LossStats) {
        let variable = variable(policy, dtype);
        let (mut total, mut gradient, mut stats) = (0.0, vec![0.0; policy.len()], LossStats::default());
        for rows in passes {
            let range = rows.start * COLUMNS..rows.end * COLUMNS;
            let policy = variable.as_tensor().narrow(0, range.start, range.len()).unwrap();
            let input = PassInput {
                sequences: &vec![COLUMNS; rows.len()],
                policy: &policy,
                entropy: &policy.zeros_like().unwrap(),
                old: &self.old[range.clone()],
                sampler: &self.sampler[range.clone()],
                reference: self.settings.penalty.map(|_| &self.reference[range.clone()]),
                advantages: &self.advantages[range.clone()],
                weights: &self.weights[range],
            };
            let (loss, found) = policy_loss(&input, &self.settings).unwrap();
            total += flat(&loss)[0];
            let store = loss.backward().unwrap();
            let part = flat(store.get(variable.as_tensor()).expect("a gradient"));
            gradient.iter_mut().zip(part).for_each(|(sum, x)| *sum += x);
            stats.add(&found);
        }
        (total, gradient, stats)
    }

    /// The loss of each token in the loss: what a weight that is greater by one adds.
    fn of_tokens(&self, policy: &[f64]) -> Vec<f64> {
        let ones: Vec<f64> = self.weights.iter().map(|weight| f64::from(u8::from(*weight != 0.0))).collect();
        let total = |weights: Vec<f64>| {
            let inputs = Self { weights, ..self.clone() };
            inputs.run(policy, DType::F64, &[0..ROWS]).0
        };
        let all = total(ones.clone());
        let without = |i: usize| {
            let mut more = ones.clone();
            more[i] *= 2.0;
            total(more) - all
        };
        (0..ones.len()).map(without).collect()
    }
}

fn variable(values: &[f64], dtype: DType) -> candle_core::Var {
    let tensor = Tensor::from_slice(values, values.len(), &Device::Cpu).and_then(|tensor| tensor.to_dtype(dtype));
    tensor.and_then(|tensor| candle_core::Var::from_tensor(&tensor)).expect("a variable")
}

fn of_losses(fixture: &Fixture, name: &str) -> Option<Vec<f64>> {
    let (name, what) = name.rsplit_once('.')?;
    let inputs = Inputs::of_case(name, fixture)?;
    let policy = fixture.values("in.policy_logps");
    let (loss, gradient, _) = inputs.run(&policy, DType::F64, &[0..ROWS]);
    match what {
        "loss" => Some(vec![loss]),
        "grad" => Some(gradient),
        "per_token_loss" => Some(inputs.of_tokens(&policy)),
        _ => None,
    }
}

/// The names of the fixture's losses.
fn loss_names(fixture: &Fixture) -> Vec<String> {
    fixture.json["losses"].as_object().unwrap().keys().cloned().collect()
}

#[test]
fn passes_add_up_and_f32_rounds_only_what_goes_in_and_comes_out() {
    let fixture = Fixture::open("grpo");
    let policy = fixture.values("in.policy_logps");
    for name in loss_names(&fixture) {
        let inputs = Inputs::of_case(&name, &fixture).unwrap();
        let (loss, gradient, stats) = inputs.run(&policy, DType::F64, &[0..ROWS]);
        assert!(gradient.iter().any(|x| x.abs() > 1e-4), "{name}: the tolerance lies below what it guards");
        // No token is in two passes: their gradients add up to the bit.
        let (in_parts, gradient_in_parts, stats_in_parts) = inputs.run(&policy, DType::F64, &[0..3, 3..4, 4..12]);
        assert_close(&name, &[in_parts], &[loss], 1e-15, 1e-12);
        assert_eq!(gradient_in_parts, gradient, "{name}");
        assert_eq!((stats_in_parts.tokens, stats_in_parts.masked), (stats.tokens, stats.masked));

        let (loss32, gradient32, _) = inputs.run(&policy, DType::F32, &[0..ROWS]);
        assert_close(&name, &[loss32], &[loss], 1e-12, 1e-6);
        assert_close(&name, &gradient32, &gradient, 1e-9, 1e-6);

        if let Some(fraction) = fixture.json["losses"][&name]["clipped_fraction_of_masked_tokens"].as_f64() {
            let clipped = (stats.clipped_low + stats.clipped_high) as f64 / stats.tokens as f64;
            assert_close(&format!("{name} clipped"), &[clipped], &[fraction], 1e-12, 0.0);
        }
    }
}

/// A correction where sampler and learner agree changes no bit.
#[test]
fn a_correction_of_what_agrees_is_none() {
    let fixture = Fixture::open("grpo");
    let policy = fixture.values("in.policy_logps");
    for level in [Level::Token, Level::Sequence, Level::SequenceMean, Level::WorstToken] {
        for bounding in [Bounding::Truncate, Bounding::Mask] {
            let inputs = Inputs::of_case("dapo_beta", &fixture).unwrap();
            let inputs = Inputs { sampler: inputs.old.clone(), ..inputs };
            let correction = Some(Correction { level, bounding, at_least: 0.5, at_most: 2.0 });
            let settings = LossSettings { correction, off_policy_mask: Some(10.0), ..inputs.settings };
            let corrected = Inputs { settings, ..inputs.clone() };
            let [plain, corrected] = [inputs, corrected].map(|inputs| inputs.run(&policy, DType::F32, &[0..ROWS]));
            assert_eq!(corrected, plain, "{level:?} {bounding:?}");
        }
    }
}

#[test]
fn sequences_left_behind_are_masked_where_their_advantage_is_negative() {
    let fixture = Fixture::open("grpo");
    let policy = fixture.values("in.policy_logps");
    let inputs = Inputs::of_case("dapo", &fixture).unwrap();
    let distances: Vec<f64> = (0..ROWS)
        .map(|row| {
            let tokens = || (row * COLUMNS..(row + 1) * COLUMNS).filter(|&i| inputs.weights[i] != 0.0);
            tokens().map(|i| f64::from(inputs.sampler[i]) - policy[i]).sum::<f64>() / tokens().count() as f64
        })
        .collect();
    let settings = LossSettings { off_policy_mask: Some(0.1), ..inputs.settings };
    let masked = Inputs { settings, ..inputs.clone() }.run(&policy, DType::F64, &[0..ROWS]);
    let plain = inputs.run(&policy, DType::F64, &[0..ROWS]);
    let mut seen = [0, 0];
    for (row, distance) in distances.iter().enumerate() {
        let range = row * COLUMNS..(row + 1) * COLUMNS;
        let is_masked = *distance > 0.1 && inputs.advantages[range.start] < 0.0;
        seen[usize::from(is_masked)] += 1;
        for i in range {
            assert_eq!(masked.1[i], if is_masked { 0.0 } else { plain.1[i] });
        }
    }
    assert!(seen[0] > 0 && seen[1] > 0, "{seen:?}");
}

#[test]
fn the_entropy_bonus_flows_into_the_entropy_alone() {
    let policy = variable(&[-1.0, -2.0, -0.5], DType::F64);
    let entropy = variable(&[0.7, 1.1, f64::NAN], DType::F64);
    let input = PassInput {
        sequences: &[3],
        policy: policy.as_tensor(),
        entropy: entropy.as_tensor(),
        old: &[-1.0, -2.0, -0.5],
        sampler: &[0.0; 3],
        reference: None,
        advantages: &[2.0; 3],
        weights: &[0.25, 0.5, 0.0],
    };
    let (plain, _) = policy_loss(&input, &LossSettings::default()).unwrap();
    let (loss, stats) = policy_loss(&input, &LossSettings { entropy: 0.1, ..LossSettings::default() }).unwrap();
    assert_close("loss", &flat(&loss), &[flat(&plain)[0] - 0.1 * (0.25 * 0.7 + 0.5 * 1.1)], 1e-15, 0.0);
    assert_close("entropy", &[stats.entropy], &[1.8], 1e-15, 0.0);
    let gradients = loss.backward().unwrap();
    assert_close("to the entropy", &flat(gradients.get(&entropy).unwrap()), &[-0.025, -0.05, 0.0], 1e-15, 0.0);
    assert_eq!(flat(gradients.get(&policy).unwrap()), [-0.5, -1.0, 0.0]);
}

#[test]
fn a_token_outside_the_loss_may_hold_anything_and_one_inside_may_not() {
    let settings = LossSettings::default();
    let policy = variable(&[f64::NEG_INFINITY, -1.0], DType::F32);
    let input = PassInput {
        sequences: &[2],
        policy: policy.as_tensor(),
        entropy: &policy.zeros_like().unwrap(),
        old: &[f32::NAN, -1.0],
        sampler: &[f32::NAN, -1.0],
        reference: None,
        advantages: &[f64::NAN, 2.0],
        weights: &[0.0, 1.0],
    };
    for ratio in [Ratio::Token, Ratio::Sequence, Ratio::SequenceToken] {
        let (loss, stats) = policy_loss(&input, &LossSettings { ratio, ..settings }).unwrap();
        assert_eq!((flat(&loss), stats.tokens), (vec![-2.0], 1));
        let gradient = loss.backward().unwrap();
        assert_eq!(flat(gradient.get(policy.as_tensor()).unwrap()), [0.0, -2.0]);
        let (loss, _) = policy_loss(&PassInput { weights: &[1.0, 1.0], ..input }, &settings).unwrap();
        assert!(flat(&loss)[0].is_nan(), "what is no number does not hide");
    }
    for clamp in [false, true] {
        let divergence = Divergence { estimator: Estimator::K3, clamp };
        let (value, slope) = divergence.at(f64::NAN, -1.0);
        assert!(value.is_nan() && slope.is_nan());
    }

    assert!(policy_loss(&PassInput { weights: &[1.0], ..input }, &settings).is_err());
    assert!(policy_loss(&PassInput { sequences: &[1], ..input }, &settings).is_err());
    let penalty = Some(Penalty::k3(0.1));
    assert!(policy_loss(&input, &LossSettings { penalty, ..settings }).is_err());
}

#[test]
fn supervised_loss_is_the_weighted_sum() {
    let policy = variable(&[-0.5, -2.0, f64::NEG_INFINITY], DType::F32);
    let loss = sft_loss(policy.as_tensor(), &[0.25, 0.5, 0.0]).unwrap();
    assert_eq!(flat(&loss), [1.125]);
    // A gradient from outside is passed on.
    let gradient = (loss * 2.0).unwrap().backward().unwrap();
    assert_eq!(flat(gradient.get(policy.as_tensor()).unwrap()), [-0.5, -1.0, 0.0]);
    assert!(sft_loss(policy.as_tensor(), &[1.0]).is_err());
}

#[test]
fn learning_rates_are_transformers() {
    let fixture = Fixture::open("adamw");
    let check = |name: &str, kind, min_ratio| {
        let schedule = Schedule { kind, peak: 1.0, warmup: 3, total: 10, min_ratio };
        let expected: Vec<f64> = fixture.json["schedules_lr1_step0_to_11"][name]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(Value::as_f64)
            .collect();
        let found: Vec<f64> = (0..=10).map(|step| schedule.at(step)).collect();
        assert_close(name, &found, &expected[..=10], 1e-15, 1e-14);
        // Past the end transformers' cosine rises again; ours stays.
        assert_eq!(schedule.at(11), schedule.at(10));
        assert_eq!(Schedule { peak: 3e-6, ..schedule }.at(3), 3e-6);
    };
    check("cosine_warmup3_total10", ScheduleKind::Cosine, 0.0);
    check("cosine_min_lr_rate0.1_warmup3_total10", ScheduleKind::Cosine, 0.1);
    check("linear_warmup3_total10", ScheduleKind::Linear, 0.0);
    check("constant_warmup3", ScheduleKind::Constant, 0.0);
    let none = Schedule { kind: ScheduleKind::Linear, peak: 2.0, warmup: 0, total: 4, min_ratio: 0.5 };
    assert_eq!([0, 2, 4].map(|step| none.at(step)), [2.0, 1.5, 1.0]);
    let only_warmup = Schedule { kind: ScheduleKind::Cosine, peak: 1.0, warmup: 5, total: 5, min_ratio: 0.0 };
    assert_eq!(only_warmup.at(5), 1.0);
}

fn decays(name: &str) -> bool {
    name == "W"
}

fn optimizer(params: &[Param]) -> AdamW {
    AdamW::new(params, (0.9, 0.95), 1e-8, 0.1, decays).expect("an optimiser")
}

/// Lets `gradient` arrive at a parameter, as a composed operation would.
fn send(param: &Param, gradient: &Tensor) {
    param.zero_grad();
    let gradient = gradient.to_dtype(DType::F32).expect("f32");
    let loss = (param.value() * gradient).and_then(|product| product.sum_all()).expect("a product");
    let mut store = loss.backward().expect("a gradient");
    param.collect(&mut store).expect("collected");
}

fn params(fixture: &Fixture, run: &str) -> Vec<Param> {
    let param = |name: &str| {
        let start = fixture.tensor(&format!("{run}.{name}.0")).to_dtype(DType::F32).expect("f32");
        Param::new(name, start).expect("a parameter")
    };
    vec![param("W"), param("b")]
}

#[test]
fn adamw_is_torchs() {
    let fixture = Fixture::open("adamw");
    // A moment of the f64 run that nearly cancels is held to the roundings of its terms.
    for (run, cancelled) in [("f32", 1e-12), ("f64", 1e-8)] {
        let params = params(&fixture, run);
        let mut adamw = optimizer(&params);
        let schedule = Schedule { kind: ScheduleKind::Cosine, peak: 1e-2, warmup: 2, total: 5, min_ratio: 0.0 };
        for step in 1..=5_usize {
            for param in &params {
                send(param, fixture.tensor(&format!("{run}.g{}.{step}", param.name())));
            }
            let record = &fixture.json["runs"][run][step - 1];
            let lr = schedule.at(step as u64 - 1);
            assert_close("lr", &[lr], &[record["lr_used"].as_f64().unwrap()], 1e-18, 1e-14);
            let stats = adamw.step(&params, lr, Some(1.0)).unwrap();
            assert_close("norm", &[stats.grad_norm], &[record["grad_norm_before_clip"].as_f64().unwrap()], 0.0, 1e-6);
            for param in &params {
                let name = param.name();
                let what = format!("{run}.{name}.{step}");
                assert_close(&what, &flat(&param.value()), &fixture.values(&what), 1e-9, 1e-6);
            }
            let state = tensors(&adamw);
            for (part, letter) in [("mean", "m"), ("square", "v")] {
                for name in ["W", "b"] {
                    let (_, found) = state.iter().find(|(found, _)| *found == format!("{part}.{name}")).unwrap();
                    let what = format!("{run}.{letter}_{name}.{step}");
                    assert_close(&what, &flat(found), &fixture.values(&what), cancelled, 1e-6);
                }
            }
        }
        let moved = fixture.values("f32.W.5").iter().zip(fixture.values("f32.W.0")).any(|(a, b)| (a - b).abs() > 1e-2);
        assert!(moved && adamw.steps() == 5);
    }
}

#[test]
fn a_restored_optimiser_continues_to_the_bit() {
    let fixture = Fixture::open("adamw");
    let send_all = |params: &[Param], step: usize| {
        params.iter().for_each(|param| send(param, fixture.tensor(&format!("f32.g{}.{step}", param.name()))));
    };
    let first = params(&fixture, "f32");
    let mut adamw = optimizer(&first);
    for step in 1..=2 {
        send_all(&first, step);
        adamw.step(&first, 1e-2, Some(1.0)).unwrap();
    }
    let second: Vec<Param> = first.iter().map(|param| Param::new(param.name(), param.value()).unwrap()).collect();
    let mut restored = optimizer(&second);
    let state: std::collections::BTreeMap<String, Tensor> = tensors(&adamw).into_iter().collect();
    restored.load_state(state.clone()).unwrap();
    for (adamw, params) in [(&mut adamw, &first), (&mut restored, &second)] {
        send_all(params, 3);
        adamw.step(params, 1e-2, None).unwrap();
    }
    for (a, b) in first.iter().zip(&second) {
        assert_eq!(flat(&a.value()), flat(&b.value()));
    }

    let without =
        |name: &str| state.iter().filter(|(key, _)| *key != name).map(|(k, t)| (k.clone(), t.clone())).collect();
    let message = restored.load_state(without("mean.b")).unwrap_err().to_string();
    assert!(message.contains("has no `mean.b`"), "{message}");
    let mut wrong = state.clone();
    wrong.insert("square.W".to_owned(), state["square.b"].clone());
    let message = restored.load_state(wrong).unwrap_err().to_string();
    assert!(message.contains("`square.W` is F32 [4] in the checkpoint and F32 [3, 4] here"), "{message}");
    let mut more = state.clone();
    more.insert("mean.c".to_owned(), state["mean.b"].clone());
    assert!(restored.load_state(more).unwrap_err().to_string().contains("`mean.c`"));
}

#[test]
fn a_step_without_a_whole_gradient_changes_nothing() {
    let fixture = Fixture::open("adamw");
    let params = params(&fixture, "f32");
    let mut adamw = optimizer(&params);
    let before = flat(&params[0].value());
    params.iter().for_each(Param::zero_grad);
    send(&params[0], fixture.tensor("f32.gW.1"));
    assert_eq!(adamw.step(&params, 1e-2, Some(1.0)).unwrap().missing, ["b"]);
    send(&params[1], &fixture.tensor("f32.gb.1").affine(f64::NAN, 0.0).unwrap());
    assert!(adamw.step(&params, 1e-2, Some(1.0)).unwrap().grad_norm.is_nan());
    assert_eq!((adamw.steps(), flat(&params[0].value())), (0, before));
    assert!(adamw.step(&params[..1], 1e-2, None).is_err());
    // What is frozen takes no part.
    let frozen = Param::frozen("F", params[1].value()).unwrap();
    let mut adamw = AdamW::new(&[params[0].clone(), frozen.clone()], (0.9, 0.95), 1e-8, 0.0, decays).unwrap();
    assert!(adamw.step(&[params[0].clone(), frozen], 1e-2, None).unwrap().missing.is_empty());
    assert!(AdamW::new(&[params[0].clone(), params[0].clone()], (0.9, 0.95), 1e-8, 0.0, decays).is_err());
}
