//! Every architecture on a GPU: in f32 against transformers' numbers, and with products in bf16 against the same.

use candle_core::{DType, Device};

use super::parity::{check_gradients, check_greedy, check_walk, meta, trace, unpadded};
use super::{ARCHITECTURES, Numbers, load_on, reference, relative, values};
use crate::{Sequence, Walk};

/// How much further from the peer a GPU may be than the CPU: its sums have other orders, chosen by cuBLAS.
const FURTHER: f64 = 10.0;

/// The relative error of log-probabilities when both factors of each product have 8 bits; a mistake makes errors near 1.
/// A token whose router is undecided between two experts may take the other one.
const BF16: f64 = 5e-2;

/// The GPU, or a line that says that there is none.
fn gpu() -> Option<Device> {
    let device = kernels::gpu();
    if let Err(error) = &device {
        println!("skipped: there is no GPU here: {error}");
    }
    device.ok()
}

#[test]
fn f32_on_a_gpu_agrees() {
    let Some(gpu) = gpu() else { return };
    for name in ARCHITECTURES {
        println!("{name}");
        let folder = reference(name);
        let (numbers, meta) = (Numbers::read(&folder.join("reference.safetensors")), meta(&folder));
        let model = load_on(name, "config.json", &gpu, DType::F32);
        check_walk(&trace(&model, &numbers), &numbers, FURTHER);
        check_gradients(&model, &numbers, &meta, FURTHER);
        check_greedy(&model, &numbers, FURTHER);
    }
}

#[test]
fn bf16_on_a_gpu_stays_near() {
    let Some(gpu) = gpu() else { return };
    for name in ARCHITECTURES {
        let numbers = Numbers::read(&reference(name).join("reference.safetensors"));
        let model = load_on(name, "config.json", &gpu, DType::BF16);
        let logits = relative(&values(&trace(&model, &numbers).tensors["logits"]), &unpadded(&numbers, "logits"));
        let rows = numbers.rows();
        let sequences: Vec<Sequence<'_>> = rows.iter().map(|tokens| Sequence::new(tokens, 1)).collect();
        let learned = model.logprobs(&sequences, 1.0, Walk::Learn).unwrap();
        let valid = numbers.get("token_valid").1;
        let all = numbers.get("token_logprobs").1;
        let expected: Vec<f64> = all.iter().zip(&valid).filter(|(_, valid)| **valid == 1.0).map(|(x, _)| *x).collect();
        let error = relative(&values(&learned.values), &expected);
        println!("{name}: logits are off by {logits:.2e}, log-probabilities by {error:.2e}");
        assert!(error < BF16, "{name}: log-probabilities are off by {error:.2e}");
        // Masters and gradients are f32, and every parameter has one.
        let mut store = kernels::backward(&learned.values.sum_all().unwrap()).unwrap();
        for param in model.params() {
            param.collect(&mut store).unwrap();
            let gradient = param.grad().expect("every parameter has a gradient");
            assert_eq!((gradient.dtype(), param.value().dtype()), (DType::F32, DType::F32));
            assert!(values(&gradient).iter().all(|x| x.is_finite()), "{name}: {}", param.name());
        }
    }
}
