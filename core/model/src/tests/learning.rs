//! The learning walk: optimiser steps against TRL's, and packing.

use learn::{AdamW, LossSettings, PassInput, Penalty, policy_loss};
use serde_json::Value;

use super::{Numbers, load, prompt, quickstart, reference, relative, values};
use crate::{Model, Sequence, Walk, weights};

#[test]
fn four_optimiser_steps_agree_with_trl() {
    ["deepseek_v3", "qwen3", "qwen3_moe"].into_iter().for_each(compare_steps);
}

fn compare_steps(name: &str) {
    let (folder, model) = (reference(name), load(name));
    let numbers = Numbers::read(&folder.join("train_steps.safetensors"));
    let text = std::fs::read_to_string(folder.join("train_steps.json")).unwrap();
    let json: Value = serde_json::from_str(&text).unwrap();
    let tensor = |name: &str| numbers.get(name).1;
    let part = |ids: &str, mask: &str, width: usize, row: usize| -> Vec<u32> {
        let (ids, mask) = (tensor(ids), tensor(mask));
        (row * width..(row + 1) * width).filter(|&i| mask[i] == 1.0).map(|i| ids[i] as u32).collect()
    };
    let rows: Vec<(Vec<u32>, usize)> = (0..8)
        .map(|row| {
            let prompt = part("prompt_ids", "prompt_mask", 6, row);
            let completion = part("completion_ids", "completion_mask", 8, row);
            let from = prompt.len();
            ([prompt, completion].concat(), from)
        })
        .collect();
    let sequences: Vec<Sequence<'_>> = rows.iter().map(|(tokens, from)| Sequence::new(tokens, *from)).collect();
    let lengths: Vec<usize> = rows.iter().map(|(tokens, from)| tokens.len() - from).collect();
    let mask = tensor("completion_mask");
    let kept = |name: &str| -> Vec<f64> {
        tensor(name).iter().zip(&mask).filter(|(_, mask)| **mask == 1.0).map(|(x, _)| *x).collect()
    };
    let as_f32 = |name: &str| -> Vec<f32> { kept(name).iter().map(|&x| x as f32).collect() };
    let (old, reference_logps) = (as_f32("old_logps"), as_f32("ref_logps"));
    // Sequence-mean of token-mean.
    let each = |f: &dyn Fn(usize) -> f64| -> Vec<f64> {
        lengths.iter().enumerate().flat_map(|(i, &length)| vec![f(i); length]).collect()
    };
    let all_advantages = tensor("advantages");
    let advantages = each(&|i| all_advantages[i]);
    let weights = each(&|i| 1.0 / (lengths[i] * lengths.len()) as f64);
    let settings = LossSettings { penalty: Some(Penalty::k3(0.04)), ..LossSettings::default() };
    let params = model.params();
    let mut optimizer = AdamW::new(&params, (0.9, 0.95), 1e-8, 0.1, Model::decays).unwrap();
    let mut worst = 0.0f64;
    let mut compare = |logps: &[f32], name: &str| {
        let difference = logps.iter().zip(kept(name)).map(|(&a, b)| (f64::from(a) - b).abs()).fold(0.0, f64::max);
        worst = worst.max(difference);
        assert!(difference < 1e-4, "{name}: {difference}");
    };
    for step in 0..4 {
        let walk = model.logprobs(&sequences, 1.0, Walk::Learn).unwrap();
        compare(&values(&walk.values), &format!("step{step}.logps"));
        let (loss, stats) = policy_loss(
            &PassInput {
                sequences: &lengths,
                policy: &walk.values,
                entropy: &walk.entropy,
                old: &old,
                sampler: &old,
                reference: Some(&reference_logps),
                advantages: &advantages,
                weights: &weights,
            },
            &settings,
        )
        .unwrap();
        let expected = &json["steps"][step];
        let difference = f64::from(loss.to_scalar::<f32>().unwrap()) - expected["loss"].as_f64().unwrap();
        assert!(difference.abs() < 1e-4, "loss of step {step} is off by {difference}");
        params.iter().for_each(kernels::Param::zero_grad);
        let mut store = loss.backward().unwrap();
        params.iter().for_each(|param| param.collect(&mut store).unwrap());
        let norm = optimizer.step(&params, 4e-5, Some(1.0)).unwrap().grad_norm;
        let expected_norm = expected["grad_norm"].as_f64().unwrap();
        assert!((norm / expected_norm - 1.0).abs() < 1e-4, "gradient norm {norm} instead of {expected_norm}");
        assert_eq!((stats.clipped_low + stats.clipped_high) as u64, expected["clipped_tokens"].as_u64().unwrap());
    }
    let walk = model.logprobs(&sequences, 1.0, Walk::Frozen).unwrap();
    compare(&values(&walk.values), "final.logps");
    println!("{name}: largest difference of a log-probability over four steps: {worst:.2e}");
    let parts = model.weights().iter().map(|(entry, param)| Ok((entry, values(&param.value()))));
    let weights = weights::scatter(parts).unwrap();
    for name in numbers.names() {
        if let Some(tensor) = name.strip_prefix("final.model.") {
            let error = relative(&weights[format!("model.{tensor}").as_str()].1, &numbers.get(&name).1);
            assert!(error < 1e-5, "{name}: {error}");
        }
    }
}

#[test]
fn a_sequence_has_the_same_bits_alone_and_packed() {
    let model = quickstart(5);
    let texts = [
        "<user>123+456=?<assistant><think>3+6=9",
        "<user>7+8=?",
        "<user>999+111=?<assistant><answer>1110</answer><eos>",
    ];
    let tokens: Vec<Vec<u32>> = texts.iter().map(|text| prompt(0, text, &model).tokens.clone()).collect();
    let sequences: Vec<Sequence<'_>> = tokens.iter().map(|tokens| Sequence::new(tokens, 2)).collect();
    for walk in [Walk::Learn, Walk::Frozen] {
        let packed = model.logprobs(&sequences, 0.8, walk).unwrap();
        let (mut logps, mut entropy) = (Vec::new(), Vec::new());
        for sequence in &sequences {
            let alone = model.logprobs(&[*sequence], 0.8, Walk::Learn).unwrap();
            logps.extend(values(&alone.values));
            entropy.extend(values(&alone.entropy));
        }
        assert_eq!(values(&packed.values), logps);
        assert_eq!(values(&packed.entropy), entropy);
        assert!(logps.iter().all(|&x| x < 0.0) && entropy.iter().all(|&x| x > 0.0 && x < 25f32.ln() + 1e-3));
    }
}

#[test]
fn judging_in_passes_gives_the_numbers_of_one_pass() {
    let model = quickstart(5);
    let row = |i: usize| -> Vec<u32> { (0..40 + i % 90).map(|t| 2 + ((t * 7 + i * 3) % 20) as u32).collect() };
    let rows: Vec<Vec<u32>> = (0..60).map(row).collect();
    let sequences: Vec<Sequence<'_>> = rows.iter().map(|tokens| Sequence::new(tokens, 5)).collect();
    let [frozen, learned] = [Walk::Frozen, Walk::Learn].map(|walk| model.logprobs(&sequences, 1.0, walk).unwrap());
    assert!(rows.concat().len() > 4000, "there are several passes");
    assert_eq!(values(&frozen.values), values(&learned.values));
    assert_eq!(values(&frozen.entropy), values(&learned.entropy));
    assert_eq!(frozen.expert_load, learned.expert_load);
}

#[test]
fn a_reference_keeps_its_weights_until_it_takes_them_over() {
    let model = quickstart(5);
    let copy = model.frozen_copy().unwrap();
    let tokens = prompt(0, "<user>1+2=?<assistant><answer>3</answer><eos>", &model).tokens.clone();
    let sequences = [Sequence::new(&tokens, 7)];
    let logps = |model: &Model| values(&model.logprobs(&sequences, 1.0, Walk::Frozen).unwrap().values);
    let before = logps(&model);
    assert_eq!(logps(&copy), before);
    for param in model.params() {
        param.set(&(param.value().detach() * 1.5).unwrap()).unwrap();
    }
    model.bump_version();
    assert_ne!(logps(&model), before);
    assert_eq!((logps(&copy), copy.version()), (before, 0));
    let old: Vec<Vec<f32>> = copy.weights().iter().map(|(_, param)| values(&param.value())).collect();
    copy.average_with(&model, 0.75).unwrap();
    for (((_, found), old), (_, new)) in copy.weights().iter().zip(&old).zip(model.weights()) {
        for ((found, old), new) in values(&found.value()).iter().zip(old).zip(values(&new.value())) {
            assert!((found - (0.75 * old + 0.25 * new)).abs() <= 1e-6 * new.abs(), "{found} of {old} and {new}");
        }
    }
    copy.copy_from(&model).unwrap();
    assert_eq!((logps(&copy), copy.version()), (logps(&model), 1));
    assert!(copy.logprobs(&sequences, 1.0, Walk::Learn).unwrap().values.sum_all().unwrap().backward().is_ok());
    assert!(copy.params().iter().all(|param| param.grad().is_none()), "a reference takes no gradient");
}

#[test]
fn the_quickstart_has_the_size_that_it_says() {
    let model = quickstart(5);
    assert_eq!(model.parameter_count(), (700_704, 700_704 - 2 * 6 * 3 * 128 * 64));
    assert!(Model::decays("lm_head.weight") && !Model::decays("model.norm.weight"));
    assert!(!Model::decays("model.layers.1.mlp.gate.e_score_correction_bias"));
}
