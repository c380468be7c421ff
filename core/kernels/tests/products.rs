//! Products with a parameter against their composed twins.

mod common;

use std::sync::Arc;

use common::{check, check_empty, param, tensor};
use kernels::distribution::{Distribution, Scratch};
use kernels::ops::{self, Experts, slow};

/// Rows, inner width, outer width: around the sizes of tiles (12), lanes (16), panels (32) and blocks of k (256).
const SHAPES: [(usize, usize, usize); 7] =
    [(1, 1, 1), (3, 17, 33), (13, 257, 48), (65, 300, 31), (12, 16, 32), (200, 31, 100), (1, 520, 65)];

#[test]
fn linear_is_its_twin() {
    for (m, k, n) in SHAPES {
        let (x, w, bias) = (tensor(1, (m, k)), param(2, (n, k)), param(3, n));
        let what = format!("linear {m} {k} {n}");
        check(
            &what,
            std::slice::from_ref(&x),
            std::slice::from_ref(&w),
            &|x, p| ops::linear(&x[0], &p[0], None),
            &|x, p| slow::linear(&x[0], &p[0], None),
        );
        check(
            &format!("{what} with a bias"),
            &[x],
            &[w, bias],
            &|x, p| ops::linear(&x[0], &p[0], Some(&p[1])),
            &|x, p| slow::linear(&x[0], &p[0], Some(&p[1])),
        );
    }
    check_empty(
        "linear of no rows",
        &[tensor(1, (0, 5))],
        &[param(2, (7, 5)), param(3, 7)],
        &|x, p| ops::linear(&x[0], &p[0], Some(&p[1])),
        &[0, 7],
    );
}

#[test]
fn head_linear_is_its_twin() {
    for (m, k, n) in SHAPES {
        for transposed in [false, true] {
            let shape = if transposed { (3, k, n) } else { (3, n, k) };
            check(
                &format!("head_linear {m} {k} {n}, transposed: {transposed}"),
                &[tensor(1, (m, 3, k))],
                &[param(2, shape)],
                &|x, p| ops::head_linear(&x[0], &p[0], transposed),
                &|x, p| slow::head_linear(&x[0], &p[0], transposed),
            );
        }
    }
    check_empty(
        "head_linear of no rows",
        &[tensor(1, (0, 3, 5))],
        &[param(2, (3, 7, 5))],
        &|x, p| ops::head_linear(&x[0], &p[0], false),
        &[0, 3, 7],
    );
}

#[test]
fn grouped_linear_is_its_twin() {
    // Experts with all tokens, with one and with none.
    let choices: [&[u32]; 4] = [&[0], &[4, 4, 4, 4], &[3, 1, 1, 3, 3, 0, 3], &[2; 70]];
    for chosen in choices {
        let experts = Arc::new(Experts::new(chosen, 1, 5));
        for (k, n) in [(17, 33), (257, 31), (64, 96)] {
            check(
                &format!("grouped_linear {chosen:?} {k} {n}"),
                &[tensor(1, (chosen.len(), k))],
                &[param(2, (5, n, k))],
                &|x, p| ops::grouped_linear(&x[0], &p[0], &experts),
                &|x, p| slow::grouped_linear(&x[0], &p[0], &experts),
            );
        }
    }
    let experts = Arc::new(Experts::new(&[], 1, 5));
    check_empty(
        "grouped_linear of no pairs",
        &[tensor(1, (0, 17))],
        &[param(2, (5, 33, 17))],
        &|x, p| ops::grouped_linear(&x[0], &p[0], &experts),
        &[0, 33],
    );
}

#[test]
fn a_changed_parameter_is_packed_again() {
    let (x, w) = (tensor(1, (3, 17)), param(2, (33, 17)));
    let product = |w: &kernels::Param| common::values(&ops::linear(&x, w, None).unwrap());
    let before = product(&w);
    w.set(&(w.value().detach() * 2.0).unwrap()).unwrap();
    assert_eq!(product(&w), before.iter().map(|y| 2.0 * y).collect::<Vec<_>>());
    ops::linear(&x, &w, None).unwrap().sum_all().unwrap().backward().unwrap();
    w.update(|value, gradient| {
        assert!(gradient.iter().any(|g| *g != 0.0));
        value.iter_mut().for_each(|value| *value *= 0.5);
    })
    .unwrap();
    assert_eq!(product(&w.detached()), before);
}

#[test]
fn token_logprobs_is_its_twin() {
    for (rows, d, vocab) in [(1, 1, 2), (3, 17, 25), (50, 270, 33), (7, 40, 1000)] {
        let targets: Vec<u32> = (0..rows).map(|row| (row * 7 % vocab) as u32).collect();
        for temperature in [1.0, 0.6] {
            check(
                &format!("token_logprobs {rows} {d} {vocab} at {temperature}"),
                &[tensor(1, (rows, d))],
                &[param(2, (vocab, d))],
                &|x, p| ops::token_logprobs(&x[0], &p[0], &targets, temperature),
                &|x, p| slow::token_logprobs(&x[0], &p[0], &targets, temperature),
            );
        }
    }
    check_empty(
        "token_logprobs of no rows",
        &[tensor(1, (0, 5))],
        &[param(2, (7, 5))],
        &|x, p| ops::token_logprobs(&x[0], &p[0], &[], 1.0),
        &[0, 2],
    );
}

/// The gradients of log-probability and entropy against differences, in f64 from the formulas.
#[test]
fn gradients_of_log_probability_and_entropy_are_their_slopes() {
    let (d, vocab, target, temperature) = (6, 9, 4, 0.7);
    let (x, head) = (tensor(1, (1, d)), param(2, (vocab, d)));
    let weights: Vec<f64> = common::values(&head.value()).into_iter().map(f64::from).collect();
    let of = |x: &[f64]| {
        let logit = |row: &[f64]| row.iter().zip(x).map(|(w, x)| w * x).sum::<f64>() / temperature;
        let logits: Vec<f64> = weights.chunks(d).map(logit).collect();
        let sum: f64 = logits.iter().map(|z| z.exp()).sum();
        let logps: Vec<f64> = logits.iter().map(|z| z - sum.ln()).collect();
        [logps[target], -logps.iter().map(|l| l.exp() * l).sum::<f64>()]
    };
    let start: Vec<f64> = common::values(&x).into_iter().map(f64::from).collect();
    for what in [0, 1] {
        let variable = candle_core::Var::from_tensor(&x).unwrap();
        let out = ops::token_logprobs(&variable, &head, &[target as u32], temperature).unwrap();
        assert!((f64::from(common::values(&out)[what]) - of(&start)[what]).abs() < 1e-6);
        let scalar = ops::known(&ops::column(&out, what).unwrap(), 0.0, vec![1.0]).unwrap();
        let gradient = common::values(kernels::backward(&scalar).unwrap().get(&variable).unwrap());
        for (i, found) in gradient.into_iter().enumerate() {
            let moved = |by: f64| {
                let mut x = start.clone();
                x[i] += by;
                of(&x)[what]
            };
            let slope = (moved(1e-5) - moved(-1e-5)) / 2e-5;
            assert!(slope.abs() > 1e-3, "a slope of nothing proves nothing");
            assert!((f64::from(found) - slope).abs() < 1e-5, "{what}, {i}: {found} instead of {slope}");
        }
    }
}

#[test]
fn a_recorded_log_probability_is_the_learned_one_bit_by_bit() {
    let mut scratch = Scratch::default();
    for (vocab, temperature) in [(1, 1.0), (41, 0.7), (256, 1.3), (1003, 0.6)] {
        let (x, head) = (tensor(1, (9, 70)), param(2, (vocab, 70)));
        let targets: Vec<u32> = (0..9).map(|row| row * 119 % vocab as u32).collect();
        let logits = ops::linear(&x, &head, None).unwrap().to_vec2::<f32>().unwrap();
        let learned = ops::token_logprobs(&x, &head, &targets, temperature).unwrap().to_vec2::<f32>().unwrap();
        for ((logits, learned), &target) in logits.iter().zip(&learned).zip(&targets) {
            let normaliser = Distribution::new(logits, temperature, &mut scratch).unwrap().normaliser();
            assert_eq!(normaliser.logprob(logits[target as usize]).to_bits(), learned[0].to_bits());
        }
    }
}
