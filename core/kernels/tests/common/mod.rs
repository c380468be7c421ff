//! Numbers, and the comparison of a fused operation with its composed twin.

#![allow(dead_code, reason = "each test uses a part of it")]
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

pub mod network;

use candle_core::{Device, Result, Shape, Tensor, Var};
use kernels::Param;

/// Numbers in [-1, 1) that depend on the seed alone (Steele et al., SplitMix64).
pub fn numbers(seed: u64, n: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0xD134_2543_DE82_EF95);
    let mut next = || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

pub fn tensor(seed: u64, shape: impl Into<Shape>) -> Tensor {
    let shape = shape.into();
    Tensor::from_vec(numbers(seed, shape.elem_count()), shape, &Device::Cpu).unwrap()
}

pub fn param(seed: u64, shape: impl Into<Shape>) -> Param {
    Param::new(&format!("p{seed}"), tensor(seed, shape)).unwrap()
}

pub fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// Bits, in which NaNs are all the same one.
pub fn bits(tensor: &Tensor) -> Vec<u32> {
    values(tensor).iter().map(|x| if x.is_nan() { f32::NAN.to_bits() } else { x.to_bits() }).collect()
}

/// What an operation gives: its output, and the gradients of inputs and parameters, where there are any.
struct Given {
    out: Tensor,
    gradients: Vec<Option<Tensor>>,
}

/// An operation of some tensors and parameters.
pub type Operation<'a> = &'a dyn Fn(&[Tensor], &[Param]) -> Result<Tensor>;

fn run(operation: Operation<'_>, inputs: &[Tensor], params: &[Param], tracked: (bool, bool)) -> Result<Given> {
    let vars: Vec<Var> = inputs.iter().map(Var::from_tensor).collect::<Result<_>>()?;
    let of = |var: &Var| if tracked.0 { var.as_tensor().clone() } else { var.as_detached_tensor() };
    let inputs: Vec<Tensor> = vars.iter().map(of).collect();
    let used: Vec<Param> = params.iter().map(|p| if tracked.1 { p.clone() } else { p.detached() }).collect();
    params.iter().for_each(Param::zero_grad);
    let out = operation(&inputs, &used)?;
    if !out.track_op() {
        return Ok(Given { out, gradients: vec![None; vars.len() + params.len()] });
    }
    let mut store = kernels::backward(&(&out * tensor(99, out.shape()))?.sum_all()?)?;
    params.iter().try_for_each(|param| param.collect(&mut store))?;
    let own = vars.iter().map(|var| store.get(var.as_tensor()).cloned());
    let gradients = own.chain(params.iter().map(Param::grad)).collect();
    Ok(Given { out, gradients })
}

#[track_caller]
fn assert_close(what: &str, found: &Tensor, expected: &Tensor) {
    assert_eq!(found.shape(), expected.shape(), "{what}");
    let (found, expected) = (values(found), values(expected));
    let greatest = expected.iter().fold(0.0f32, |max, x| max.max(x.abs()));
    assert!(greatest > 0.0 || expected.is_empty(), "{what}: nothing but zeros proves nothing");
    for (i, (a, b)) in found.iter().zip(&expected).enumerate() {
        assert!((a - b).abs() <= 1e-5 * greatest, "{what}[{i}] is {a:e}, expected {b:e} among up to {greatest:e}");
    }
}

/// Holds a fused operation against its twin: the output, and the gradient of the sum of its elements by fixed weights
/// towards every input and parameter. What takes no gradient changes no bit of the rest.
#[track_caller]
pub fn check(what: &str, inputs: &[Tensor], params: &[Param], fused: Operation<'_>, slow: Operation<'_>) {
    let found = run(fused, inputs, params, (true, true)).unwrap();
    let expected = run(slow, inputs, params, (true, true)).unwrap();
    assert_close(&format!("{what}: output"), &found.out, &expected.out);
    for (i, (found, expected)) in found.gradients.iter().zip(&expected.gradients).enumerate() {
        assert_eq!(found.is_some(), expected.is_some(), "{what}: gradient {i}");
        if let (Some(found), Some(expected)) = (found, expected) {
            assert_close(&format!("{what}: gradient {i}"), found, expected);
        }
    }
    for tracked in [(true, false), (false, true), (false, false)] {
        let partly = run(fused, inputs, params, tracked).unwrap();
        assert_eq!(bits(&partly.out), bits(&found.out), "{what}: output, tracked {tracked:?}");
        for (i, (partly, whole)) in partly.gradients.iter().zip(&found.gradients).enumerate() {
            let wanted = if i < inputs.len() { tracked.0 } else { tracked.1 };
            let whole = whole.as_ref().filter(|_| wanted).map(bits);
            assert_eq!(partly.as_ref().map(bits), whole, "{what}: gradient {i}, tracked {tracked:?}");
        }
    }
}

/// Where there are no rows, the output has none either, and gradients are zero.
#[track_caller]
pub fn check_empty(what: &str, inputs: &[Tensor], params: &[Param], fused: Operation<'_>, shape: &[usize]) {
    let found = run(fused, inputs, params, (true, true)).unwrap();
    assert_eq!(found.out.dims(), shape, "{what}");
    for gradient in found.gradients.iter().flatten() {
        assert!(values(gradient).iter().all(|x| *x == 0.0), "{what}: {gradient}");
    }
}
