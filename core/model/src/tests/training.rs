//! What learning can be asked for: recomputed layers, the balance loss.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use base::{Completion, RngKey, RoutedExperts};
use candle_core::{Device, Tensor};
use kernels::Param;
use kernels::ops::{self, Router, Segment};
use serde_json::Value;

use super::{Numbers, load, quickstart, reference, values};
use crate::sampler::sample;
use crate::transformer::{Batch, Watch};
use crate::{Learning, LogProbs, Model, Sequence, Walk};

fn bits(tensor: &Tensor) -> Vec<u32> {
    values(tensor).iter().map(|x| x.to_bits()).collect()
}

/// Sequences of several lengths.
fn rows() -> Vec<Vec<u32>> {
    let row = |i: usize| (0..20 + i * 13).map(|t| 2 + ((t * 7 + i * 3) % 20) as u32).collect();
    (0..5).map(row).collect()
}

/// What is learned with, and the bits of the gradients of all parameters, after passes of so many sequences.
fn gradients(model: &Model, passes: &[usize], how: Learning) -> (Vec<LogProbs>, Vec<Vec<u32>>) {
    let rows = rows();
    let mut rest = rows.as_slice();
    model.params().iter().for_each(Param::zero_grad);
    let mut targets = 0..usize::MAX;
    let mut walks = Vec::new();
    for &count in passes {
        let (pass, others) = rest.split_at(count);
        rest = others;
        let sequences: Vec<Sequence<'_>> = pass.iter().map(|tokens| Sequence::new(tokens, 4)).collect();
        let walk = model.learn(&sequences, 0.9, how).unwrap();
        // A target's slope is the same in whatever pass it comes.
        let slopes = targets.by_ref().take(walk.values.elem_count()).map(|i| (i % 7) as f64 - 2.5).collect();
        kernels::backward(&ops::known(&walk.values, 0.0, slopes).unwrap()).unwrap();
        walks.push(walk);
    }
    (walks, model.params().iter().map(|param| bits(&param.grad().unwrap())).collect())
}

/// Values and the bits of all gradients of one walk over sequences.
fn walked(model: &Model, sequences: &[Sequence<'_>], how: Learning) -> (LogProbs, Vec<Vec<u32>>) {
    model.params().iter().for_each(Param::zero_grad);
    let walk = model.learn(sequences, 0.9, how).unwrap();
    let slopes = (0..walk.values.elem_count()).map(|i| (i % 7) as f64 - 2.5).collect();
    kernels::backward(&ops::known(&walk.values, 0.0, slopes).unwrap()).unwrap();
    (walk, model.params().iter().map(|param| bits(&param.grad().unwrap())).collect())
}

/// Experts for all tokens of the rows but the last of each, as `of` gives them for a layer.
fn all_to(rows: &[Vec<u32>], layers: usize, of: impl Fn(usize) -> Vec<u16>) -> Vec<RoutedExperts> {
    let each: Vec<u16> = (0..layers).flat_map(of).collect();
    let of_row =
        |row: &Vec<u32>| RoutedExperts { layers, per_token: each.len() / layers, ids: each.repeat(row.len() - 1) };
    rows.iter().map(of_row).collect()
}

#[test]
fn replaying_the_routers_own_choice_changes_no_bit() {
    let model = quickstart(5);
    let requests = super::sampling::requests(&model, 3);
    let (key, never) = (RngKey::new(17, "sample"), AtomicBool::new(false));
    let mut sampled = Vec::new();
    let settings = super::sampling::settings(7);
    sample(&model, &requests, &settings, key, 3, &never, &mut |i, completions| {
        let text = |one: Completion| ([&*requests[i].prompt.tokens, &one.tokens].concat(), i, one.experts);
        sampled.extend(completions.into_iter().map(text));
    })
    .unwrap();
    let of = |replayed: bool| -> Vec<Sequence<'_>> {
        sampled
            .iter()
            .map(|(tokens, i, experts)| Sequence {
                experts: Some(experts).filter(|_| replayed),
                ..Sequence::new(tokens, requests[*i].prompt.tokens.len())
            })
            .collect()
    };
    for recompute in [false, true] {
        let how = Learning { recompute, balance: Some(0.01) };
        let (own, replayed) = (walked(&model, &of(false), how), walked(&model, &of(true), how));
        assert_eq!(bits(&own.0.values), bits(&replayed.0.values));
        assert_eq!(bits(&own.0.entropy), bits(&replayed.0.entropy));
        assert_eq!((own.0.expert_load, own.0.balance), (replayed.0.expert_load, replayed.0.balance));
        assert!(own.1 == replayed.1, "a gradient differs");
        let frozen = model.logprobs(&of(true), 0.9, Walk::Frozen).unwrap();
        assert_eq!(bits(&frozen.values), bits(&replayed.0.values));
    }
}

/// A selection bias that leaves no choice is a choice by hand.
#[test]
fn a_replayed_choice_is_that_of_a_router_without_a_choice() {
    let (model, rows) = (quickstart(5), rows());
    let layers = model.config.expert_layers().count();
    let experts = all_to(&rows, layers, |layer| vec![layer as u16, 6]);
    let free: Vec<Sequence<'_>> = rows.iter().map(|tokens| Sequence::new(tokens, 4)).collect();
    let replayed: Vec<Sequence<'_>> = rows
        .iter()
        .zip(&experts)
        .map(|(tokens, experts)| Sequence { experts: Some(experts), ..Sequence::new(tokens, 4) })
        .collect();
    let how = Learning::default();
    let (own, found) = (walked(&model, &free, how), walked(&model, &replayed, how));
    assert_ne!(bits(&own.0.values), bits(&found.0.values), "the routers would choose others");
    let biases = model.weights().iter().filter(|(entry, _)| entry.name.ends_with("e_score_correction_bias"));
    for (layer, (_, bias)) in biases.enumerate() {
        let by_hand: Vec<f32> = (0..8).map(|expert| if [layer, 6].contains(&expert) { 10.0 } else { 0.0 }).collect();
        bias.set(&Tensor::new(by_hand, &Device::Cpu).unwrap()).unwrap();
    }
    let expected = walked(&model, &free, how);
    assert_eq!(bits(&found.0.values), bits(&expected.0.values));
    assert_eq!(found.0.expert_load, expected.0.expert_load);
    assert!(found.1 == expected.1, "a gradient differs");
    let router = model.params().iter().position(|param| param.name().ends_with("gate.weight")).unwrap();
    assert!(found.1[router].iter().any(|bits| f32::from_bits(*bits) != 0.0), "the router learns");
}

#[test]
fn experts_of_another_model_are_refused() {
    let (model, rows) = (quickstart(5), rows());
    let layers = model.config.expert_layers().count();
    let refused = |experts: &RoutedExperts, says: &str| {
        let sequence = Sequence { experts: Some(experts), ..Sequence::new(&rows[0], 4) };
        let error = model.learn(&[sequence], 0.9, Learning::default()).err().unwrap().to_string();
        assert!(error.contains(says), "{error}");
        let mixed = [Sequence::new(&rows[0], 4), sequence];
        assert!(model.learn(&mixed, 0.9, Learning::default()).is_err(), "all sequences or none");
    };
    refused(&all_to(&rows, layers + 1, |_| vec![0, 1])[0], "3 layers, 2 each");
    refused(&all_to(&rows, layers, |_| vec![0])[0], "2 layers, 1 each");
    refused(&all_to(&rows[1..], layers, |_| vec![0, 1])[0], "the model has 2 layers");
    refused(&all_to(&rows, layers, |_| vec![0, 8])[0], "expert 8 of 8");
    refused(&RoutedExperts::default(), "0 experts");
}

#[test]
fn recomputed_layers_change_no_bit() {
    let model = quickstart(5);
    for balance in [None, Some(0.01)] {
        let (kept, expected) = gradients(&model, &[5], Learning { recompute: false, balance });
        let (again, found) = gradients(&model, &[5], Learning { recompute: true, balance });
        assert_eq!(bits(&again[0].values), bits(&kept[0].values));
        assert_eq!(bits(&again[0].entropy), bits(&kept[0].entropy));
        assert_eq!((&again[0].expert_load, again[0].balance), (&kept[0].expert_load, kept[0].balance));
        for (param, (found, expected)) in model.params().iter().zip(found.iter().zip(&expected)) {
            assert!(found == expected, "{}", param.name());
        }
    }
}

#[test]
fn the_balance_loss_reaches_the_router_only_backwards_and_whatever_the_passes() {
    let model = quickstart(5);
    let (without, plain) = gradients(&model, &[5], Learning::default());
    let how = Learning { recompute: false, balance: Some(0.01) };
    let (with, balanced) = gradients(&model, &[5], how);
    assert_eq!(bits(&with[0].values), bits(&without[0].values));
    assert_eq!(without[0].balance, 0.0);
    let differs = |name: &str| {
        let at = model.params().iter().position(|param| param.name().ends_with(name)).unwrap();
        plain[at] != balanced[at]
    };
    assert!(differs("layers.1.mlp.gate.weight") && differs("layers.0.self_attn.o_proj.weight"));
    assert!(!differs("lm_head.weight"), "nothing flows to what comes after the last router");
    for passes in [&[2, 3][..], &[1; 5]] {
        let (walks, found) = gradients(&model, passes, how);
        assert!(found == balanced, "{} passes", passes.len());
        let sum: f64 = walks.iter().map(|walk| walk.balance).sum();
        assert!((sum / with[0].balance - 1.0).abs() < 1e-12);
    }
}

#[test]
fn the_balance_loss_is_the_papers() {
    let (folder, model) = (reference("deepseek_v3"), load("deepseek_v3"));
    let meta: Value = serde_json::from_str(&std::fs::read_to_string(folder.join("meta.json")).unwrap()).unwrap();
    let rows = Numbers::read(&folder.join("reference.safetensors")).rows();
    for (i, tokens) in rows.iter().enumerate() {
        let positions: Vec<u32> = (0..tokens.len() as u32).collect();
        let segments: Arc<[Segment]> = Arc::new([Segment { start: 0, len: tokens.len(), slot: 0 }]);
        let batch = Batch { tokens, positions: &positions, segments: &segments, replayed: None };
        let mut watch = Watch::default();
        let how = Learning { recompute: false, balance: Some(1.0) };
        model.sampling().learn(&batch, how, &mut watch).unwrap();
        assert_eq!(watch.routing.len(), 2);
        for (layer, routed) in watch.routing.iter().enumerate() {
            let losses = &meta["deepseek_router_info"][format!("layer{}", layer + 1)];
            let expected = losses["seq_balance_loss_per_sequence_alpha1"][i].as_f64().unwrap();
            let difference = (routed.balance - expected).abs();
            assert!(difference < 1e-5, "row {i}, layer {layer}: {} instead of {expected}", routed.balance);
        }
    }
}

/// Transformers counts the tokens of all layers as one sequence and doesn't divide by the number of chosen experts. Taken
/// over a batch the loss would depend on how that is split, so learning takes it by sequence for all routers.
#[test]
fn over_all_layers_at_once_the_balance_loss_is_that_of_switch_transformers() {
    for name in ["qwen3_moe", "mixtral"] {
        let folder = reference(name);
        let numbers = Numbers::read(&folder.join("reference.safetensors"));
        let meta: Value = serde_json::from_str(&std::fs::read_to_string(folder.join("meta.json")).unwrap()).unwrap();
        let (mut logits, mut chosen, mut width) = (Vec::new(), Vec::new(), 0);
        for layer in 0..3 {
            let mask = numbers.get("attention_mask").1;
            for (part, all) in [("logits", &mut logits), ("experts", &mut chosen)] {
                let (shape, values) = numbers.get(&format!("router.{layer}.{part}"));
                width = shape[2];
                let rows = values.chunks(width).zip(&mask).filter(|(_, mask)| **mask == 1.0);
                all.extend(rows.flat_map(|(row, _)| row.to_vec()));
            }
        }
        let router = Router {
            experts: 8,
            chosen: width,
            groups: 1,
            groups_kept: 1,
            sigmoid: false,
            normalize: true,
            scale: 1.0,
        };
        let tokens = logits.len() / 8;
        let logits = Tensor::from_iter(logits.iter().map(|&x| x as f32), &Device::Cpu).unwrap();
        let chosen: Vec<u32> = chosen.iter().map(|&expert| expert as u32).collect();
        let weights = Tensor::zeros((tokens, width), candle_core::DType::F32, &Device::Cpu).unwrap();
        let all: Arc<[Segment]> = Arc::new([Segment { start: 0, len: tokens, slot: 0 }]);
        let logits = logits.reshape((tokens, 8)).unwrap();
        let (_, loss) = ops::balance(&weights, &logits, &chosen, &router, &all, 1.0).unwrap();
        let expected = meta["aux_loss_load_balancing"].as_f64().unwrap();
        assert!((loss * width as f64 - expected).abs() < 1e-5, "{name}: {loss} x {width} instead of {expected}");
    }
}

#[test]
fn plain_learning_is_the_walk_of_log_probabilities() {
    let model = quickstart(5);
    let rows = rows();
    let sequences: Vec<Sequence<'_>> = rows.iter().map(|tokens| Sequence::new(tokens, 4)).collect();
    let walk = model.logprobs(&sequences, 1.0, Walk::Learn).unwrap();
    assert!(walk.values.track_op());
    let plain = model.learn(&sequences, 1.0, Learning::default()).unwrap();
    assert_eq!(bits(&plain.values), bits(&walk.values));
}
