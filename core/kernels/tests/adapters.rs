//! Products with a frozen parameter behind low-rank adapters, against their composed twins.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::sync::Arc;

use candle_core::{Device, Result, Tensor};
use common::{bits, check, param, tensor};
use kernels::Param;
use kernels::ops::{self, Adapter, Rope, slow};

/// The parameter `p[0]` behind adapters of `p[1..]`, pairs of A and B, from these rows on.
fn adapted(p: &[Param], first: &[usize]) -> Param {
    let parts = p[1..].chunks(2).zip(first);
    let adapters = parts.map(|(ab, &first)| Adapter { a: ab[0].clone(), b: ab[1].clone(), first, scale: 1.5 });
    p[0].adapted(adapters.collect())
}

#[test]
fn linear_is_its_twin() {
    for (rows, k, rank) in [(1, 1, 1), (7, 40, 3), (150, 70, 8)] {
        // Two of three parts have an adapter, as where several projections are joined.
        let params = [param(2, (3 * 33, k)), param(3, (rank, k)), param(4, (33, rank)), param(5, (rank, k))];
        let params = [params.to_vec(), vec![param(6, (33, rank))]].concat();
        for bias in [None, Some(param(7, 3 * 33).detached())] {
            check(
                &format!("linear {rows} {k} {rank}"),
                &[tensor(1, (rows, k))],
                &params,
                &|x, p| ops::linear(&x[0], &adapted(p, &[0, 66]), bias.as_ref()),
                &|x, p| slow::linear(&x[0], &adapted(p, &[0, 66]), bias.as_ref()),
            );
        }
    }
}

#[test]
fn products_by_head_are_their_twins() {
    for (rows, heads, n, k, rank) in [(1, 1, 1, 1, 1), (5, 3, 17, 40, 2), (90, 4, 35, 33, 8)] {
        let params = [param(2, (heads, n, k)), param(3, (rank, k)), param(4, (heads, n, rank))];
        for transposed in [false, true] {
            let width = if transposed { n } else { k };
            check(
                &format!("head_linear {rows} {heads} {n} {k} {rank} {transposed}"),
                &[tensor(1, (rows, heads, width))],
                &params,
                &|x, p| ops::head_linear(&x[0], &adapted(p, &[0]), transposed),
                &|x, p| slow::head_linear(&x[0], &adapted(p, &[0]), transposed),
            );
        }
        let frequencies = [1.0, 0.5, 0.2];
        let table = Arc::new(Rope::new(&frequencies, 1.25, 50, true, &Device::Cpu).unwrap());
        let positions: Vec<u32> = (0..rows as u32).map(|i| i * 3 % 50).collect();
        check(
            &format!("latent_query {rows} {heads} {n} {k} {rank}"),
            &[tensor(1, (rows, heads, n + 6))],
            &params,
            &|x, p| ops::latent_query(&x[0], &adapted(p, &[0]), &positions, &table),
            &|x, p| slow::latent_query(&x[0], &adapted(p, &[0]), &positions, &table),
        );
    }
}

#[test]
fn an_adapter_is_the_product_of_its_parts() {
    let (w, a, b) = (param(1, (9, 20)), param(2, (4, 20)), param(3, (6, 4)));
    let delta = (b.value().matmul(&a.value()).unwrap() * 0.5).unwrap();
    let padded = Tensor::cat(&[delta.zeros_like().unwrap().narrow(0, 0, 3).unwrap(), delta], 0).unwrap();
    let merged = Param::frozen("merged", (w.value().detach() + padded).unwrap().detach()).unwrap();
    let x = tensor(4, (8, 20));
    let expected = ops::linear(&x, &merged, None).unwrap();
    let adapted = w.adapted(vec![Adapter { a, b, first: 3, scale: 0.5 }]);
    let found = ops::linear(&x, &adapted, None).unwrap();
    assert!(found.track_op(), "the adapter learns, though neither x nor the parameter does");
    for (found, expected) in common::values(&found).iter().zip(common::values(&expected)) {
        assert!((found - expected).abs() < 1e-5, "{found} instead of {expected}");
    }
    assert!(!ops::linear(&x, &adapted.detached(), None).unwrap().track_op());
    assert_eq!(bits(&ops::linear(&x, &adapted.detached(), None).unwrap()), bits(&found));
}

#[test]
fn halves_that_share_a_have_the_gradient_of_the_whole_batch_in_passes() {
    let (heads, n, k, rank) = (3, 11, 20, 4);
    let [key, value] = [1, 2].map(|seed| param(seed, (heads, n, k)));
    let (a, [b, c]) = (param(3, (rank, k)), [4, 5].map(|seed| param(seed, (heads, n, rank))));
    let half = |w: &Param, b: &Param| w.adapted(vec![Adapter { a: a.clone(), b: b.clone(), first: 0, scale: 2.0 }]);
    let (key, value) = (half(&key, &b), half(&value, &c));
    let x = tensor(6, (12, heads, n));
    let run = |cuts: &[usize]| -> Result<Vec<Vec<u32>>> {
        let all = [&a, &b, &c];
        all.iter().for_each(|param| param.zero_grad());
        for cut in cuts.windows(2) {
            let x = x.narrow(0, cut[0], cut[1] - cut[0])?.contiguous()?;
            let y = ops::head_linear(&ops::head_linear(&x, &key, true)?, &value, false)?;
            let count = y.elem_count();
            kernels::backward(&ops::known(&ops::reshape(&y, count)?, 0.0, vec![0.5; count])?)?;
        }
        Ok(all.iter().map(|param| bits(&param.grad().unwrap())).collect())
    };
    let whole = run(&[0, 12]).unwrap();
    assert!(run(&[0, 5, 6, 12]).unwrap() == whole);
}

#[test]
fn adapters_that_do_not_fit_are_refused() {
    let x = tensor(1, (2, 20));
    for (a, b, first) in [((4, 19), (6, 4), 0), ((4, 20), (6, 3), 0), ((4, 20), (6, 4), 4)] {
        let adapter = Adapter { a: param(2, a), b: param(3, b), first, scale: 1.0 };
        assert!(ops::linear(&x, &param(1, (9, 20)).adapted(vec![adapter]), None).is_err());
    }
}
