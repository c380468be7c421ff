//! A recomputed function against the function itself, bit by bit.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use candle_core::backprop::GradStore;
use candle_core::{Result, Tensor, Var};
use common::{bits, param, tensor};
use kernels::ops::{self, Router, slow};
use kernels::{Param, recompute};

const ROUTER: Router =
    Router { experts: 4, chosen: 2, groups: 1, groups_kept: 1, sigmoid: true, normalize: true, scale: 1.5 };
const WIDTH: usize = 40;

/// A block of a norm, a gated product, and experts, twice the residual; and which experts were chosen.
fn block(x: &Tensor, p: &[Param]) -> Result<(Tensor, Vec<u32>)> {
    let normed = ops::rms_norm(x, &p[0], 1e-6)?;
    let gated = ops::linear(&ops::silu_mul(&ops::linear(&normed, &p[1], None)?)?, &p[2], None)?;
    let x = ops::add(x, &gated)?;
    let (experts, weights) = ops::route(&ops::linear(&x, &p[3], None)?, None, &ROUTER, None)?;
    let outputs = ops::grouped_linear(&ops::to_experts(&x, &experts)?, &p[4], &experts)?;
    let chosen = ops::chosen(std::slice::from_ref(&experts))?.concat();
    Ok((ops::add(&x, &ops::combine(&outputs, &weights, &experts)?)?, chosen))
}

/// The same from candle's own operations.
fn composed(x: &Tensor, p: &[Param]) -> Result<(Tensor, Vec<u32>)> {
    let normed = slow::rms_norm(x, &p[0], 1e-6)?;
    let gated = slow::linear(&slow::silu_mul(&slow::linear(&normed, &p[1], None)?)?, &p[2], None)?;
    let x = slow::add(x, &gated)?;
    let (experts, weights) = slow::route(&slow::linear(&x, &p[3], None)?, None, &ROUTER, None)?;
    let outputs = slow::grouped_linear(&slow::to_experts(&x, &experts)?, &p[4], &experts)?;
    let chosen = slow::chosen(std::slice::from_ref(&experts))?.concat();
    Ok((slow::add(&x, &slow::combine(&outputs, &weights, &experts)?)?, chosen))
}

fn params() -> Vec<Param> {
    let shapes: [&[usize]; 5] =
        [&[WIDTH], &[2 * 24, WIDTH], &[WIDTH, 24], &[ROUTER.experts, WIDTH], &[ROUTER.experts, WIDTH, WIDTH]];
    shapes.iter().enumerate().map(|(i, shape)| param(i as u64 + 10, *shape)).collect()
}

type Block = fn(&Tensor, &[Param]) -> Result<(Tensor, Vec<u32>)>;
type Walk = fn(&Tensor) -> Result<GradStore>;

/// Bits of the output, of the gradient of x where it is tracked, and of those of the parameters, after two blocks over the
/// same parameters; and the choice of experts.
fn run(block: Block, walk: Walk, tracked: bool, recomputed: bool) -> (Vec<Vec<u32>>, Vec<u32>) {
    let params = params();
    let x = Var::from_tensor(&tensor(1, (50, WIDTH))).unwrap();
    let source = if tracked { x.as_tensor().clone() } else { x.as_detached_tensor() };
    let once = |x: &Tensor| {
        if !recomputed {
            return block(x, &params).unwrap();
        }
        let params = params.clone();
        recompute(x, move |x| block(x, &params)).unwrap()
    };
    let (y, mut chosen) = once(&source);
    let (y, others) = once(&y);
    chosen.extend(others);
    assert!(y.track_op());
    let mut store = walk(&(&y * tensor(2, y.shape())).unwrap().sum_all().unwrap()).unwrap();
    params.iter().for_each(|param| param.collect(&mut store).unwrap());
    let mut all = vec![bits(&y)];
    all.extend(store.get(&x).map(bits));
    assert_eq!(all.len(), 1 + usize::from(tracked));
    all.extend(params.iter().map(|param| bits(&param.grad().unwrap())));
    (all, chosen)
}

#[test]
fn no_bit_differs_from_what_is_not_recomputed() {
    for tracked in [true, false] {
        for (name, block, walk) in [
            ("fused", block as Block, kernels::backward as Walk),
            ("fused by candle", block, Tensor::backward),
            ("composed", composed, Tensor::backward),
        ] {
            let (whole, chosen) = run(block, walk, tracked, false);
            let (found, found_chosen) = run(block, walk, tracked, true);
            assert_eq!(chosen, found_chosen);
            for (i, (found, whole)) in found.iter().zip(&whole).enumerate() {
                assert!(found == whole, "{name}, tracked {tracked}: number {i}");
            }
        }
    }
}

#[test]
fn it_is_computed_once_more_and_only_for_a_gradient() {
    let calls = Arc::new(AtomicUsize::new(0));
    let count = |param: Param| {
        let calls = calls.clone();
        move |x: &Tensor| {
            calls.fetch_add(1, Ordering::Relaxed);
            Ok((ops::linear(x, &param, None)?, ()))
        }
    };
    let x = tensor(1, (3, 5));
    let (frozen, ()) = recompute(&x, count(param(2, (4, 5)).detached())).unwrap();
    assert!(!frozen.track_op(), "nothing that learns");
    let (y, ()) = recompute(&x, count(param(2, (4, 5)))).unwrap();
    assert_eq!((y.track_op(), calls.load(Ordering::Relaxed)), (true, 2));
    kernels::backward(&ops::known(&ops::reshape(&y, 12).unwrap(), 0.0, vec![1.0; 12]).unwrap()).unwrap();
    assert_eq!(calls.load(Ordering::Relaxed), 3);
}

#[test]
fn a_call_inside_a_call_builds_no_graph_of_its_own_at_first() {
    let gradient = |nested: bool| {
        let params = params();
        let inner = params.clone();
        let f = move |x: &Tensor| {
            let inner = inner.clone();
            if nested { recompute(x, move |x| block(x, &inner)) } else { block(x, &inner) }
        };
        let (y, _) = recompute(&tensor(1, (7, WIDTH)), f).unwrap();
        kernels::backward(&ops::known(&ops::reshape(&y, 7 * WIDTH).unwrap(), 0.0, vec![0.5; 7 * WIDTH]).unwrap())
            .unwrap();
        params.iter().map(|param| bits(&param.grad().unwrap())).collect::<Vec<_>>()
    };
    assert_eq!(gradient(true), gradient(false));
}

#[test]
fn an_error_inside_leaves_graphs_on() {
    let x = tensor(1, (3, 5));
    let failed = recompute(&x, |_| -> Result<(Tensor, ())> { candle_core::bail!("on purpose") });
    assert!(failed.unwrap_err().to_string().contains("on purpose"));
    assert!(ops::linear(&x, &param(2, (4, 5)), None).unwrap().track_op());
}
