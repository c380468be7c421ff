//! Every architecture against transformers' numbers: what it computes on the way to its logits, gradients, and greedy tokens.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use base::RngKey;
use kernels::ops::Router;
use serde_json::{Value, json};

use super::{Numbers, load, load_as, prompt_of, reference, relative, values, variant};
use crate::sampler::{Request, Settings, sample};
use crate::{Model, Sequence, Trace, Walk, weights};

/// A test for each architecture.
macro_rules! architectures {
    ($($name:ident),*) => {
        #[test]
        fn each_architecture_has_a_test() {
            assert_eq!(super::ARCHITECTURES, [$(stringify!($name)),*]);
        }
        $(
            #[test]
            fn $name() {
                check(stringify!($name));
            }
        )*
    };
}

architectures! {
    deepseek_v2, deepseek_v2_lite, deepseek_v3, deepseek_v3_moonlight, deepseek_v3_yarn, llama, mixtral, qwen2, qwen3,
    qwen3_moe
}

fn check(name: &str) {
    let folder = reference(name);
    let (numbers, meta) = (Numbers::read(&folder.join("reference.safetensors")), meta(&folder));
    for config in ["config.json", "config.legacy.json"] {
        let model = load_as(name, config);
        check_walk(&trace(&model, &numbers), &numbers, 1.0);
        check_constants(&model, &numbers, &meta);
    }
    let model = load(name);
    check_gradients(&model, &numbers, &meta, 1.0);
    check_greedy(&model, &numbers, 1.0);
}

pub(super) fn meta(folder: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(folder.join("meta.json")).unwrap()).unwrap()
}

pub(super) fn trace(model: &Model, numbers: &Numbers) -> Trace {
    let rows = numbers.rows();
    model.trace(&rows.iter().map(Vec::as_slice).collect::<Vec<_>>()).unwrap()
}

/// A tensor `[3, 16, ..]` of a left-padded batch without its padding.
pub(super) fn unpadded(numbers: &Numbers, name: &str) -> Vec<f64> {
    let (shape, all) = numbers.get(name);
    let width: usize = shape[2..].iter().product();
    let mask = numbers.get("attention_mask").1;
    all.chunks(width).zip(&mask).filter(|(_, mask)| **mask == 1.0).flat_map(|(row, _)| row.to_vec()).collect()
}

fn assert_logits(trace: &Trace, numbers: &Numbers, further: f64) {
    let (logits, expected) = (values(&trace.tensors["logits"]), unpadded(numbers, "logits"));
    assert_eq!(logits.len(), expected.len());
    let worst = logits.iter().zip(&expected).map(|(&a, &b)| (f64::from(a) - b).abs()).fold(0.0, f64::max);
    println!("largest difference of a logit: {worst:.2e}");
    // The peer differs from itself by up to 1.5e-5, and a mistake makes differences above 2.
    assert!(worst < 5e-5 * further, "{worst}");
}

/// Every tensor on the way to the logits; `further` multiplies the tolerances, here and below.
pub(super) fn check_walk(trace: &Trace, numbers: &Numbers, further: f64) {
    assert_logits(trace, numbers, further);
    let known = |name: &&String| ["embeddings", "hidden.", "router."].iter().any(|start| name.starts_with(start));
    let mut names: Vec<String> = numbers.names();
    names.retain(|name| known(&name) && !name.ends_with(".dense"));
    let traced: Vec<&String> = trace.tensors.keys().filter(|name| *name != "logits").collect();
    names.sort();
    assert_eq!(names.iter().collect::<Vec<_>>(), traced);
    for name in names {
        let (found, expected) = (values(&trace.tensors[&name]), unpadded(numbers, &name));
        let tolerance = if name.ends_with("experts") || name == "embeddings" { 0.0 } else { 5e-6 * further };
        let error = relative(&found, &expected);
        println!("{name}: {error:.2e}");
        assert!(error <= tolerance, "{name} is off by {error:.2e}");
    }
}

/// Frequencies, scales, and the number of parameters.
fn check_constants(model: &Model, numbers: &Numbers, meta: &Value) {
    let (rotary, width) = model.config.attention.rotary();
    let (found, expected) = (rotary.frequencies(width), numbers.get("rope.inv_freq").1);
    assert_eq!(found.len(), expected.len());
    for (got, expected) in found.iter().zip(expected) {
        assert!((got / expected - 1.0).abs() < 1e-6, "frequency {got} instead of {expected}");
    }
    let close = |got: f64, key: &str| assert!((got - meta[key].as_f64().unwrap()).abs() < 1e-7, "{key} {got}");
    close(model.config.attention.score_scale(), "softmax_scale");
    close(rotary.table_scale(), "attention_scaling_of_cos_sin");
    let biases: usize = model.sampling().mixtures().filter_map(|mixture| mixture.selection_bias().unwrap()).count();
    let experts = model.config.expert_layers().next().map_or(0, |experts| experts.router.experts);
    // The peer counts no buffers.
    let (all, _) = model.parameter_count();
    assert_eq!((all - biases * experts) as u64, meta["parameters"].as_u64().unwrap());
}

/// Log-probabilities, the loss, and the gradient of every tensor of the checkpoint.
pub(super) fn check_gradients(model: &Model, numbers: &Numbers, meta: &Value, further: f64) {
    let rows = numbers.rows();
    let sequences: Vec<Sequence<'_>> = rows.iter().map(|tokens| Sequence::new(tokens, 1)).collect();
    let walk = model.logprobs(&sequences, 1.0, Walk::Learn).unwrap();
    let valid = numbers.get("token_valid").1;
    let all = numbers.get("token_logprobs").1;
    let expected: Vec<f64> = all.iter().zip(&valid).filter(|(_, valid)| **valid == 1.0).map(|(x, _)| *x).collect();
    let got = values(&walk.values);
    assert_eq!(got.len(), 30);
    let error = relative(&got, &expected);
    assert!(error < 5e-6 * further, "log-probabilities are off by {error:.2e}");

    let loss = (walk.values.sum_all().unwrap() / -30.0).unwrap();
    let difference = f64::from(loss.to_scalar::<f32>().unwrap()) - meta["loss"].as_f64().unwrap();
    assert!(difference.abs() < 1e-5 * further, "the loss is off by {difference:.2e}");
    assert!((numbers.get("loss").1[0] - meta["loss"].as_f64().unwrap()).abs() < 1e-6);
    let mut store = loss.backward().unwrap();
    for param in model.params() {
        param.collect(&mut store).unwrap();
        assert!(param.grad().is_some(), "{} received no gradient", param.name());
    }
    let trained = model.weights().iter().filter(|(entry, _)| entry.trained);
    let grads = weights::scatter(trained.map(|(entry, param)| Ok((entry, values(&param.grad().unwrap()))))).unwrap();

    let mut worst = (0.0, String::new());
    for tensor in numbers.names().iter().filter_map(|name| name.strip_prefix("grad.")) {
        let error = relative(&grads[tensor].1, &numbers.get(&format!("grad.{tensor}")).1);
        assert!(error < 2e-5 * further, "the gradient of {tensor} is off by {error:.2e}");
        if error > worst.0 {
            worst = (error, tensor.to_owned());
        }
    }
    println!("largest relative error of a gradient: {:.2e} ({})", worst.0, worst.1);
    // Of every tensor the norm and the sum are known.
    let all = meta["all_gradients"].as_object().unwrap();
    assert_eq!(all.len(), grads.len());
    let mut squares = 0.0;
    let mut norm_error = 0.0f64;
    for (tensor, expected) in all {
        let grad: Vec<f64> = grads[tensor.as_str()].1.iter().map(|&x| f64::from(x)).collect();
        let square: f64 = grad.iter().map(|x| x * x).sum();
        squares += square;
        let l2 = expected["l2"].as_f64().unwrap();
        norm_error = norm_error.max((square.sqrt() - l2).abs() / l2.max(1e-6));
        assert!(
            (square.sqrt() - l2).abs() <= 2e-5 * further * l2 + 1e-9,
            "norm of {tensor}'s gradient: {}",
            square.sqrt()
        );
        let difference = (grad.iter().sum::<f64>() - expected["sum"].as_f64().unwrap()).abs();
        assert!(difference <= 2e-5 * further * l2 * (grad.len() as f64).sqrt() + 1e-9, "sum of {tensor}'s gradient");
    }
    let global = meta["global_grad_norm"].as_f64().unwrap();
    println!("largest relative error of a norm: {norm_error:.2e}");
    assert!(
        (squares.sqrt() / global - 1.0).abs() < 1e-5 * further,
        "global norm {} instead of {global}",
        squares.sqrt()
    );
}

/// Sixteen greedy tokens after each row, with their log-probabilities.
pub(super) fn check_greedy(model: &Model, numbers: &Numbers, further: f64) {
    let rows = numbers.rows().into_iter().enumerate();
    let request = |(i, tokens)| Request { prompt: prompt_of(i as u64, tokens), index: i as u64, completions: 1 };
    let requests: Vec<Request> = rows.map(request).collect();
    let settings = Settings { temperature: 0.0, ..Settings::new(16, 2) };
    let mut done = BTreeMap::new();
    let (key, stop) = (RngKey::new(1, "greedy"), AtomicBool::new(false));
    sample(model, &requests, &settings, key, 0, &stop, &mut |i, completions| {
        done.insert(i, completions);
    })
    .unwrap();
    let (tokens, logprobs) = (numbers.get("greedy_tokens").1, numbers.get("greedy_logprobs").1);
    for (i, completions) in &done {
        let expected: Vec<u32> = tokens[i * 16..][..16].iter().map(|&t| t as u32).collect();
        assert_eq!(completions[0].tokens, expected, "row {i}");
        let error = relative(&completions[0].logprobs, &logprobs[i * 16..][..16]);
        assert!(error < 2e-5 * further, "row {i}: {error}");
    }
    assert_eq!(done.len(), 3);
}

#[test]
fn shards_of_bf16_weights_are_read() {
    let (folder, model) = (reference("deepseek_v3_bf16_sharded"), load("deepseek_v3_bf16_sharded"));
    let numbers = Numbers::read(&folder.join("reference.safetensors"));
    assert_logits(&trace(&model, &numbers), &numbers, 1.0);
}

#[test]
fn a_bias_of_the_output_is_added_to_the_stream() {
    let model = variant("llama", json!({"attention_bias": true}));
    for param in model.params() {
        let value = param.value().detach();
        let silenced = ["o_proj.weight", "down_proj.weight"].iter().any(|end| param.name().ends_with(end));
        let constant = if silenced { value.zeros_like() } else { value.zeros_like().unwrap() + 0.5 };
        if silenced || param.name().ends_with("o_proj.bias") {
            param.set(&constant.unwrap()).unwrap();
        }
    }
    let trace = model.trace(&[&[5, 6, 7]]).unwrap();
    for layer in 0..3 {
        let added = (&trace.tensors[&format!("hidden.{layer}")] - &trace.tensors["embeddings"]).unwrap();
        let expected = 0.5 * (layer + 1) as f32;
        assert!(values(&added).iter().all(|x| (x - expected).abs() < 1e-6), "layer {layer}: {added}");
    }
}

#[test]
fn what_cannot_be_traced_is_refused_in_words() {
    let model = load("qwen3");
    let refused = |sequences: &[&[u32]], expected: &str| {
        let error = model.trace(sequences).err().unwrap().to_string();
        assert!(error.contains(expected), "{error}");
    };
    refused(&[], "no sequence");
    refused(&[&[1], &[]], "sequence 1 has no tokens");
    refused(&[&[320]], "sequence 0 holds token 320");
    refused(&[&[1; 257]], "sequence 0 has 257 tokens");
}

#[test]
fn the_bias_moves_towards_experts_with_less_than_their_share() {
    let (folder, model) = (reference("deepseek_v3"), load("deepseek_v3"));
    let info = &meta(&folder)["deepseek_router_info"];
    let layers = [&info["layer1"], &info["layer2"]];
    let list = |layer: &Value, key: &str| -> Vec<i64> { serde_json::from_value(layer[key].clone()).unwrap() };
    let load: Vec<Vec<usize>> =
        layers.iter().map(|layer| list(layer, "expert_load").iter().map(|&x| x as usize).collect()).collect();
    let bias = || -> Vec<Vec<f32>> {
        model.sampling().mixtures().map(|mixture| mixture.selection_bias().unwrap().unwrap()).collect()
    };
    let before = bias();
    model.balance(&load, 0.25).unwrap();
    for (layer, (before, after)) in layers.iter().zip(before.iter().zip(bias())) {
        let signs: Vec<i64> = before.iter().zip(&after).map(|(b, a)| ((a - b) * 4.0).round() as i64).collect();
        assert_eq!(signs, list(layer, "bias_update_sign"));
    }
    // The rows' own load is what the learning walk reports, less that of each row's last token.
    let numbers = Numbers::read(&folder.join("reference.safetensors"));
    let rows = numbers.rows();
    let sequences: Vec<Sequence<'_>> = rows.iter().map(|tokens| Sequence::new(tokens, 1)).collect();
    let walk = model.logprobs(&sequences, 1.0, Walk::Frozen).unwrap();
    assert_eq!(walk.expert_load.len(), 2);
    assert_eq!(walk.expert_load[0].iter().sum::<usize>(), 2 * 30);
    let router: Vec<Router> = model.config.expert_layers().map(|experts| experts.router).collect();
    assert_eq!((router[0].experts, router[0].chosen, router[0].groups), (8, 2, 2));
}

#[test]
fn routers_without_a_bias_are_left_alone() {
    let model = load("qwen3_moe");
    let before: Vec<Vec<f32>> = model.weights().iter().map(|(_, param)| values(&param.value())).collect();
    model.balance(&vec![vec![9, 0, 0, 0, 0, 0, 0, 0]; 3], 0.25).unwrap();
    let after: Vec<Vec<f32>> = model.weights().iter().map(|(_, param)| values(&param.value())).collect();
    assert_eq!(before, after);
}
