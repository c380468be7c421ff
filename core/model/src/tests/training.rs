//! What learning can be asked for: recomputed layers, the balance loss.

use std::sync::Arc;

use candle_core::{Device, Tensor};
use kernels::Param;
use kernels::ops::{self, Router, Segment};
use serde_json::Value;

use super::{Numbers, load, quickstart, reference, values};
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
        let sequences: Vec<Sequence<'_>> = pass.iter().map(|tokens| Sequence { tokens, from: 4 }).collect();
        let walk = model.learn(&sequences, 0.9, how).unwrap();
        // A target's slope is the same in whatever pass it comes.
        let slopes = targets.by_ref().take(walk.values.elem_count()).map(|i| (i % 7) as f64 - 2.5).collect();
        kernels::backward(&ops::known(&walk.values, 0.0, slopes).unwrap()).unwrap();
        walks.push(walk);
    }
    (walks, model.params().iter().map(|param| bits(&param.grad().unwrap())).collect())
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
        let batch = Batch { tokens, positions: &positions, segments: &segments };
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
    let sequences: Vec<Sequence<'_>> = rows.iter().map(|tokens| Sequence { tokens, from: 4 }).collect();
    let walk = model.logprobs(&sequences, 1.0, Walk::Learn).unwrap();
    assert!(walk.values.track_op());
    let plain = model.learn(&sequences, 1.0, Learning::default()).unwrap();
    assert_eq!(bits(&plain.values), bits(&walk.values));
}
