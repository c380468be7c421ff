//! Logits, router choices, gradients and greedy tokens of transformers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use base::RngKey;
use candle_core::Device;
use kernels::ops::{Router, Segment};
use serde_json::Value;

use super::{Numbers, load, loadable, prompt_of, reference, relative, values};
use crate::sampler::{Request, Settings, sample};
use crate::transformer::Batch;
use crate::{Model, Sequence, Walk, weights};

const V3: [&str; 3] = ["deepseek_v3", "deepseek_v3_yarn", "deepseek_v3_moonlight"];

/// Packs the rows and gives logits `[T * V]` and the chosen experts of each MoE layer.
fn forward(model: &Model, rows: &[Vec<u32>]) -> (Vec<f32>, Vec<Vec<u32>>) {
    let mut segments = Vec::new();
    let (mut tokens, mut positions) = (Vec::new(), Vec::new());
    for row in rows {
        segments.push(Segment { start: tokens.len(), len: row.len(), slot: 0 });
        tokens.extend_from_slice(row);
        positions.extend(0..row.len() as u32);
    }
    let segments: Arc<[Segment]> = segments.into();
    let mut routing = Vec::new();
    let batch = Batch { tokens: &tokens, positions: &positions, segments: &segments };
    let hidden = model.sampling().forward(&batch, None, &mut routing).unwrap();
    (values(&model.sampling().logits(&hidden).unwrap()), routing)
}

/// A tensor `[3, 16, ..]` of a left-padded batch without its padding.
fn unpadded(numbers: &Numbers, name: &str) -> Vec<f64> {
    let (shape, all) = numbers.get(name);
    let width: usize = shape[2..].iter().product();
    let mask = numbers.get("attention_mask").1;
    all.chunks(width).zip(&mask).filter(|(_, mask)| **mask == 1.0).flat_map(|(row, _)| row.to_vec()).collect()
}

fn assert_logits(model: &Model, numbers: &Numbers) {
    let (logits, _) = forward(model, &numbers.rows());
    let expected = unpadded(numbers, "logits");
    assert_eq!(logits.len(), expected.len());
    let worst = logits.iter().zip(&expected).map(|(&a, &b)| (f64::from(a) - b).abs()).fold(0.0, f64::max);
    println!("largest difference of a logit: {worst:.2e}");
    assert!(worst < 2e-4, "{worst}");
}

#[test]
fn logits_agree_in_both_spellings_of_the_config() {
    for name in V3 {
        let Some(folder) = reference(name) else { continue };
        let numbers = Numbers::read(&folder.join("reference.safetensors"));
        for config in ["config.json", "config.legacy.json"] {
            let model = Model::load(loadable(&folder, config).path(), &Device::Cpu).unwrap();
            assert_logits(&model, &numbers);
        }
    }
}

#[test]
fn shards_of_bf16_weights_are_read() {
    let Some(folder) = reference("deepseek_v3_bf16_sharded") else { return };
    let model = load("deepseek_v3_bf16_sharded").unwrap();
    assert_logits(&model, &Numbers::read(&folder.join("reference.safetensors")));
}

#[test]
fn routers_choose_the_same_experts() {
    for name in V3 {
        let (Some(folder), Some(model)) = (reference(name), load(name)) else { continue };
        let numbers = Numbers::read(&folder.join("reference.safetensors"));
        let (_, routing) = forward(&model, &numbers.rows());
        assert_eq!(routing.len(), 2);
        for (layer, chosen) in routing.iter().enumerate() {
            let expected = unpadded(&numbers, &format!("router.{}.experts", layer + 1));
            let chosen: Vec<f64> = chosen.iter().map(|&expert| f64::from(expert)).collect();
            assert_eq!(chosen, expected, "{name}, MoE layer {layer}");
        }
    }
}

#[test]
fn frequencies_and_scale_agree() {
    for name in V3 {
        let (Some(folder), Some(model)) = (reference(name), load(name)) else { continue };
        let numbers = Numbers::read(&folder.join("reference.safetensors"));
        let meta: Value = serde_json::from_str(&std::fs::read_to_string(folder.join("meta.json")).unwrap()).unwrap();
        let crate::config::Attention::Latent(latent) = &model.config.attention;
        for (got, expected) in latent.rotary.frequencies(latent.rope).iter().zip(numbers.get("rope.inv_freq").1) {
            assert!((got / expected - 1.0).abs() < 1e-6, "{name}: {got} instead of {expected}");
        }
        let close =
            |got: f64, key: &str| assert!((got - meta[key].as_f64().unwrap()).abs() < 1e-7, "{name}: {key} {got}");
        close(latent.score_scale(), "softmax_scale");
        close(latent.rotary.table_scale(), "attention_scaling_of_cos_sin");
    }
}

#[test]
fn gradients_agree_and_reach_every_tensor() {
    for name in V3 {
        let (Some(folder), Some(model)) = (reference(name), load(name)) else { continue };
        let numbers = Numbers::read(&folder.join("reference.safetensors"));
        let meta: Value = serde_json::from_str(&std::fs::read_to_string(folder.join("meta.json")).unwrap()).unwrap();
        let rows = numbers.rows();
        let sequences: Vec<Sequence<'_>> = rows.iter().map(|tokens| Sequence { tokens, from: 1 }).collect();
        let walk = model.logprobs(&sequences, 1.0, Walk::Learn).unwrap();
        let valid = numbers.get("token_valid").1;
        let expected: Vec<f64> =
            numbers.get("token_logprobs").1.iter().zip(&valid).filter(|(_, v)| **v == 1.0).map(|(x, _)| *x).collect();
        let got = values(&walk.values);
        assert_eq!(got.len(), 30);
        assert!(relative(&got, &expected) < 1e-5, "{name}: {got:?} instead of {expected:?}");

        let loss = (walk.values.sum_all().unwrap() / -30.0).unwrap();
        assert!((f64::from(loss.to_scalar::<f32>().unwrap()) - meta["loss"].as_f64().unwrap()).abs() < 1e-5);
        let mut store = loss.backward().unwrap();
        for param in model.params() {
            param.collect(&mut store).unwrap();
            assert!(param.grad().is_some(), "{name}: {} received no gradient", param.name());
        }
        let trained = model.weights().iter().filter(|(entry, _)| entry.trained);
        let grads =
            weights::scatter(trained.map(|(entry, param)| Ok((entry, values(&param.grad().unwrap()))))).unwrap();

        let mut worst = (0.0, String::new());
        for tensor in numbers.names().iter().filter_map(|name| name.strip_prefix("grad.")) {
            let error = relative(&grads[tensor].1, &numbers.get(&format!("grad.{tensor}")).1);
            assert!(error < 1e-3, "{name}: gradient of {tensor} is off by {error:.2e}");
            if error > worst.0 {
                worst = (error, tensor.to_owned());
            }
        }
        println!("{name}: largest relative error of a gradient: {:.2e} ({})", worst.0, worst.1);
        // Of every other tensor the norm and the sum are known.
        let all = meta["all_gradients"].as_object().unwrap();
        assert_eq!(all.len(), grads.len());
        for (tensor, expected) in all {
            let grad: Vec<f64> = grads[tensor.as_str()].1.iter().map(|&x| f64::from(x)).collect();
            let l2 = grad.iter().map(|x| x * x).sum::<f64>().sqrt();
            let expected_l2 = expected["l2"].as_f64().unwrap();
            assert!((l2 - expected_l2).abs() <= 1e-3 * expected_l2 + 1e-9, "{name}: norm of {tensor}'s gradient {l2}");
            let difference = (grad.iter().sum::<f64>() - expected["sum"].as_f64().unwrap()).abs();
            assert!(difference <= 1e-3 * expected_l2 * (grad.len() as f64).sqrt() + 1e-9, "{name}: sum of {tensor}");
        }
    }
}

#[test]
fn greedy_sampling_continues_as_transformers_does() {
    for name in V3 {
        let (Some(folder), Some(model)) = (reference(name), load(name)) else { continue };
        let numbers = Numbers::read(&folder.join("reference.safetensors"));
        let requests: Vec<Request> = numbers
            .rows()
            .into_iter()
            .enumerate()
            .map(|(i, tokens)| Request { prompt: prompt_of(i as u64, tokens), index: i as u64, completions: 1 })
            .collect();
        let settings = Settings { temperature: 0.0, top_k: None, top_p: None, max_tokens: 16, slots: 2 };
        let mut done = BTreeMap::new();
        let (key, stop) = (RngKey::new(1, "greedy"), AtomicBool::new(false));
        sample(&model, &requests, &settings, key, 0, &stop, &mut |i, completions| {
            done.insert(i, completions);
        })
        .unwrap();
        let (tokens, logprobs) = (numbers.get("greedy_tokens").1, numbers.get("greedy_logprobs").1);
        for (i, completions) in &done {
            let expected: Vec<u32> = tokens[i * 16..][..16].iter().map(|&t| t as u32).collect();
            assert_eq!(completions[0].tokens, expected, "{name}, row {i}");
            let error = relative(&completions[0].logprobs, &logprobs[i * 16..][..16]);
            assert!(error < 1e-4, "{name}, row {i}: {error}");
        }
        assert_eq!(done.len(), 3);
    }
}

#[test]
fn the_bias_moves_towards_experts_with_less_than_their_share() {
    let (Some(folder), Some(model)) = (reference("deepseek_v3"), load("deepseek_v3")) else { return };
    let text = std::fs::read_to_string(folder.join("meta.json")).unwrap();
    let info = &serde_json::from_str::<Value>(&text).unwrap()["deepseek_router_info"];
    let layers = [&info["layer1"], &info["layer2"]];
    let list = |layer: &Value, key: &str| -> Vec<i64> { serde_json::from_value(layer[key].clone()).unwrap() };
    let load: Vec<Vec<usize>> =
        layers.iter().map(|layer| list(layer, "expert_load").iter().map(|&x| x as usize).collect()).collect();
    let bias =
        || -> Vec<Vec<f32>> { model.sampling().mixtures().map(|mixture| mixture.selection_bias().unwrap()).collect() };
    let before = bias();
    model.balance(&load, 0.25).unwrap();
    for (layer, (before, after)) in layers.iter().zip(before.iter().zip(bias())) {
        let signs: Vec<i64> = before.iter().zip(&after).map(|(b, a)| ((a - b) * 4.0).round() as i64).collect();
        assert_eq!(signs, list(layer, "bias_update_sign"));
    }
    // The rows' own load is what the learning walk reports, less that of each row's last token.
    let numbers = Numbers::read(&folder.join("reference.safetensors"));
    let rows = numbers.rows();
    let sequences: Vec<Sequence<'_>> = rows.iter().map(|tokens| Sequence { tokens, from: 1 }).collect();
    let walk = model.logprobs(&sequences, 1.0, Walk::Frozen).unwrap();
    assert_eq!(walk.expert_load.len(), 2);
    assert_eq!(walk.expert_load[0].iter().sum::<usize>(), 2 * 30);
    let router: Vec<Router> = model.config.expert_layers().map(|experts| experts.router).collect();
    assert_eq!((router[0].experts, router[0].chosen, router[0].groups), (8, 2, 2));
}
