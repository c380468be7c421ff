//! The arithmetic held against PyTorch's, transformers' and TRL's numbers (`tests/parity`, with how they were made).

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;

use candle_core::{DType, Device, Tensor};
use kernels::Param;
use learn::{
    AdamW, GrpoSettings, GrpoStats, PassInput, Scale, Schedule, ScheduleKind, group_advantages, grpo_loss, sft_loss,
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

#[test]
fn advantages_are_trls() {
    let fixture = Fixture::open("grpo");
    let by_group = |rewards: &[f64], scale| -> Vec<f64> {
        let decided: Vec<Option<f64>> = rewards.iter().map(|reward| Some(*reward).filter(|r| !r.is_nan())).collect();
        decided.chunks(4).flat_map(|group| group_advantages(group, scale)).collect()
    };
    let check = |name: &str, rewards: &str, scale| {
        let found = by_group(&fixture.values(rewards), scale);
        assert_close(name, &found, &fixture.values(name), 1e-12, 1e-9);
    };
    check("adv.trl_group", "in.rewards", Scale::Group);
    check("adv.ddof1_eps1e-4", "in.rewards", Scale::Group);
    check("adv.trl_none", "in.rewards", Scale::None);
    check("adv.trl_group_nan", "in.rewards_with_nan", Scale::Group);
    // What DAPO keeps is what has an advantage.
    let kept: Vec<f64> = by_group(&fixture.values("in.rewards"), Scale::Group)
        .chunks(4)
        .map(|group| f64::from(u8::from(group.iter().any(|advantage| *advantage != 0.0))))
        .collect();
    assert_eq!(kept, fixture.values("dapo.keep_group"));
}

/// A loss of the fixture in terms of [`grpo_loss`].
struct Case {
    name: &'static str,
    clip_high: f64,
    kl: Option<f64>,
    advantages: &'static str,
    on_policy: bool,
    /// Weights of the sampler's correction: they multiply the surrogate, so they multiply the advantage.
    correction: Option<&'static str>,
    mean: Mean,
}

enum Mean {
    Sequences,
    Tokens,
    /// Dr. GRPO's sum over a constant.
    Constant,
}

impl Case {
    const fn new(name: &'static str, mean: Mean) -> Self {
        Self { name, clip_high: 0.2, kl: None, advantages: "in.advantages", on_policy: false, correction: None, mean }
    }
}

const BETA: Option<f64> = Some(0.04);

fn cases() -> Vec<Case> {
    use Mean::{Constant, Sequences, Tokens};
    let corrected = |name, correction| Case { correction: Some(correction), ..Case::new(name, Sequences) };
    vec![
        Case::new("grpo", Sequences),
        Case { on_policy: true, ..Case::new("grpo_on_policy", Sequences) },
        Case { kl: BETA, ..Case::new("grpo_beta", Sequences) },
        Case { kl: BETA, on_policy: true, ..Case::new("grpo_on_policy_beta", Sequences) },
        Case { clip_high: 0.28, ..Case::new("grpo_clip_higher", Sequences) },
        Case::new("bnpo", Tokens),
        Case { kl: BETA, ..Case::new("bnpo_beta", Tokens) },
        Case { clip_high: 0.28, ..Case::new("dapo", Tokens) },
        Case { clip_high: 0.28, kl: BETA, ..Case::new("dapo_beta", Tokens) },
        Case { advantages: "in.advantages_no_std", ..Case::new("dr_grpo", Constant) },
        Case { advantages: "in.advantages_no_std", kl: BETA, ..Case::new("dr_grpo_beta", Constant) },
        corrected("grpo_tis_token", "is.token_truncate.max3"),
        corrected("grpo_tis_sequence", "is.sequence_truncate.max3"),
        corrected("grpo_mis_token", "is.token_mask.min0.5_max2"),
        corrected("grpo_mis_sequence", "is.sequence_mask.max3"),
        Case {
            clip_high: 0.28,
            kl: BETA,
            correction: Some("is.token_truncate.min0.5_max2"),
            ..Case::new("dapo_tis_token_beta", Tokens)
        },
    ]
}

/// What a case feeds into the loss.
struct Inputs {
    settings: GrpoSettings,
    old: Vec<f32>,
    reference: Vec<f32>,
    advantages: Vec<f64>,
    weights: Vec<f64>,
}

impl Inputs {
    fn new(case: &Case, fixture: &Fixture) -> Self {
        let settings = GrpoSettings { clip_low: 0.2, clip_high: case.clip_high, kl: case.kl };
        let old = fixture.values(if case.on_policy { "in.policy_logps" } else { "in.old_logps" });
        let mask = fixture.values("in.mask");
        let all: f64 = mask.iter().sum();
        let by_row = fixture.values(case.advantages);
        let correction = case.correction.map(|name| fixture.values(name));
        let (mut advantages, mut weights) = (Vec::new(), Vec::new());
        for (i, row) in mask.chunks(COLUMNS).enumerate() {
            let tokens: f64 = row.iter().sum();
            for (j, counts) in row.iter().enumerate() {
                let factor = correction.as_ref().map_or(1.0, |correction| match correction.len() {
                    ROWS => correction[i],
                    _ => correction[i * COLUMNS + j],
                });
                advantages.push(by_row[i] * factor);
                weights.push(match case.mean {
                    Mean::Sequences => counts / (tokens.max(1.0) * ROWS as f64),
                    Mean::Tokens => counts / all,
                    Mean::Constant => counts / (ROWS as f64 * 16.0),
                });
            }
        }
        let reference = narrow(&fixture.values("in.ref_logps"));
        Self { settings, old: narrow(&old), reference, advantages, weights }
    }

    fn pass<'a>(&'a self, policy: &'a Tensor, range: std::ops::Range<usize>) -> PassInput<'a> {
        PassInput {
            policy,
            old: &self.old[range.clone()],
            reference: self.settings.kl.map(|_| &self.reference[range.clone()]),
            advantages: &self.advantages[range.clone()],
            weights: &self.weights[range],
        }
    }

    /// The same loss of candle's own operations.
    fn composed(&self, policy: &Tensor) -> candle_core::Result<Tensor> {
        let tensor = |values: &[f64]| Tensor::from_slice(values, values.len(), &Device::Cpu);
        let wide = |values: &[f32]| tensor(&values.iter().map(|&value| f64::from(value)).collect::<Vec<_>>());
        let advantages = tensor(&self.advantages)?;
        let ratio = (policy - wide(&self.old)?)?.exp()?;
        let held = ratio.clamp(1.0 - self.settings.clip_low, 1.0 + self.settings.clip_high)?;
        let mut loss = (&ratio * &advantages)?.minimum(&(&held * &advantages)?)?.neg()?;
        if let Some(kl) = self.settings.kl {
            let d = (wide(&self.reference)? - policy)?;
            loss = (loss + (((d.exp()? - &d)? - 1.0)? * kl)?)?;
        }
        (loss * tensor(&self.weights)?)?.sum_all()
    }
}

fn variable(values: &[f64], dtype: DType) -> candle_core::Var {
    let tensor = Tensor::from_slice(values, values.len(), &Device::Cpu).and_then(|tensor| tensor.to_dtype(dtype));
    tensor.and_then(|tensor| candle_core::Var::from_tensor(&tensor)).expect("a variable")
}

/// A loss, its gradient and its statistics, computed in as many passes as there are ranges.
fn run(
    inputs: &Inputs,
    policy: &[f64],
    dtype: DType,
    passes: &[std::ops::Range<usize>],
) -> candle_core::Result<(f64, Vec<f64>, GrpoStats)> {
    let variable = variable(policy, dtype);
    let (mut total, mut gradient, mut stats) = (0.0, vec![0.0; policy.len()], GrpoStats::default());
    for range in passes {
        let policy = variable.as_tensor().narrow(0, range.start, range.len())?;
        let (loss, found) = grpo_loss(&inputs.pass(&policy, range.clone()), &inputs.settings)?;
        total += flat(&loss)[0];
        let store = loss.backward()?;
        let part = flat(store.get(variable.as_tensor()).expect("a gradient"));
        gradient.iter_mut().zip(part).for_each(|(sum, x)| *sum += x);
        stats.add(&found);
    }
    Ok((total, gradient, stats))
}

#[test]
fn losses_and_gradients_are_trls() {
    let fixture = Fixture::open("grpo");
    let policy = fixture.values("in.policy_logps");
    let whole = 0..policy.len();
    for case in cases() {
        let name = case.name;
        let inputs = Inputs::new(&case, &fixture);
        let (loss, gradient, stats) = run(&inputs, &policy, DType::F64, std::slice::from_ref(&whole)).unwrap();
        let expected = fixture.values(&format!("loss.{name}.grad"));
        assert_close(&format!("{name} loss"), &[loss], &fixture.values(&format!("loss.{name}.loss")), 1e-12, 1e-9);
        assert_close(&format!("{name} gradient"), &gradient, &expected, 1e-12, 1e-9);
        assert!(expected.iter().any(|x| x.abs() > 1e-4), "the tolerance lies below what it guards");

        // The twin of candle's own operations agrees, forward and backward.
        let variable = variable(&policy, DType::F64);
        let composed = inputs.composed(variable.as_tensor()).unwrap();
        assert_close(name, &[loss], &flat(&composed), 1e-15, 1e-12);
        let store = composed.backward().unwrap();
        assert_close(name, &gradient, &flat(store.get(variable.as_tensor()).unwrap()), 1e-15, 1e-12);

        // Passes add up: their gradients to the bit, as no token is in two of them.
        let parts = [0..30, 30..40, 40..120];
        let (in_parts, gradient_in_parts, stats_in_parts) = run(&inputs, &policy, DType::F64, &parts).unwrap();
        assert_close(name, &[in_parts], &[loss], 1e-15, 1e-12);
        assert_eq!(gradient_in_parts, gradient, "{name}");
        assert_eq!((stats_in_parts.tokens, stats_in_parts.difference_max), (stats.tokens, stats.difference_max));

        // In f32 only the input and the results are rounded.
        let (loss32, gradient32, _) = run(&inputs, &policy, DType::F32, std::slice::from_ref(&whole)).unwrap();
        assert_close(name, &[loss32], &[loss], 1e-12, 1e-7);
        assert_close(name, &gradient32, &gradient, 1e-12, 1e-7);

        let record = &fixture.json["losses"][name];
        let clipped = (stats.clipped_low + stats.clipped_high) as f64 / stats.tokens as f64;
        let fraction = record["clipped_fraction_of_masked_tokens"].as_f64().unwrap();
        // Correction weights of 0 take a token's advantage away, and with it the direction of clipping.
        if case.correction.is_none() {
            assert_close(&format!("{name} clipped"), &[clipped], &[fraction], 1e-12, 0.0);
        }
    }
}

#[test]
fn divergence_is_the_k3_estimate() {
    let fixture = Fixture::open("grpo");
    let policy = fixture.values("in.policy_logps");
    let mask = fixture.values("in.mask");
    let inputs = Inputs {
        settings: GrpoSettings { clip_low: 0.2, clip_high: 0.2, kl: Some(1.0) },
        old: narrow(&fixture.values("in.old_logps")),
        reference: narrow(&fixture.values("in.ref_logps")),
        advantages: vec![0.0; policy.len()],
        weights: mask.clone(),
    };
    let whole = 0..policy.len();
    let (loss, gradient, stats) = run(&inputs, &policy, DType::F64, std::slice::from_ref(&whole)).unwrap();
    let expected: f64 = fixture.values("kl.k3").iter().zip(&mask).map(|(kl, counts)| kl * counts).sum();
    assert_close("k3", &[loss, stats.kl], &[expected, expected], 1e-12, 1e-9);
    assert_close("k3 gradient", &gradient, &fixture.values("kl.k3.grad"), 1e-12, 1e-9);
    let old = fixture.values("in.old_logps");
    let masked = || (0..policy.len()).filter(|&i| mask[i] > 0.0).map(|i| policy[i] - old[i]);
    assert_eq!(stats.tokens, masked().count());
    assert_close("ratio", &[stats.ratio], &[masked().map(f64::exp).sum()], 0.0, 1e-12);
    assert_close("difference", &[stats.difference], &[masked().map(f64::abs).sum()], 0.0, 1e-12);
    assert_eq!(stats.difference_max, masked().map(f64::abs).fold(0.0, f64::max));
}

/// Far from the reference k3 is large, and still what the formula says: nothing is clamped in silence.
#[test]
fn extreme_divergence_is_not_clamped() {
    let fixture = Fixture::open("grpo");
    let d = fixture.values("kl.extreme_ref_minus_logp");
    let expected = fixture.values("kl.extreme_k3");
    for (d, expected) in d.into_iter().zip(expected) {
        let policy = variable(&[-d], DType::F64);
        let input = PassInput {
            policy: policy.as_tensor(),
            old: &[0.0],
            reference: Some(&[0.0]),
            advantages: &[0.0],
            weights: &[1.0],
        };
        let settings = GrpoSettings { clip_low: 0.2, clip_high: 0.2, kl: Some(1.0) };
        let (loss, _) = grpo_loss(&input, &settings).unwrap();
        assert_close("k3", &flat(&loss), &[expected], 1e-12, 1e-9);
    }
}

#[test]
fn a_token_outside_the_loss_may_hold_anything_and_one_inside_may_not() {
    let settings = GrpoSettings { clip_low: 0.2, clip_high: 0.2, kl: None };
    let policy = variable(&[f64::NEG_INFINITY, -1.0], DType::F32);
    let input = PassInput {
        policy: policy.as_tensor(),
        old: &[f32::NAN, -1.0],
        reference: None,
        advantages: &[f64::NAN, 2.0],
        weights: &[0.0, 1.0],
    };
    let (loss, stats) = grpo_loss(&input, &settings).unwrap();
    assert_eq!((flat(&loss), stats.tokens, stats.ratio), (vec![-2.0], 1, 1.0));
    let gradient = loss.backward().unwrap();
    assert_eq!(flat(gradient.get(policy.as_tensor()).unwrap()), [0.0, -2.0]);
    let (loss, _) = grpo_loss(&PassInput { weights: &[1.0, 1.0], ..input }, &settings).unwrap();
    assert!(flat(&loss)[0].is_nan(), "what is no number does not hide");

    assert!(grpo_loss(&PassInput { weights: &[1.0], ..input }, &settings).is_err());
    assert!(grpo_loss(&input, &GrpoSettings { kl: Some(0.1), ..settings }).is_err());
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
