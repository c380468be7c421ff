//! The optimiser's arithmetic against the same in f64.

mod common;

use common::numbers;
use kernels::optim::{AdamW, adamw, sum_of_squares};
use kernels::pool;

/// Lengths that are whole lanes, odd ones, and one that threads share.
const LENGTHS: [usize; 7] = [0, 1, 15, 16, 33, 1000, 300_001];

/// Scales of gradients: at the second eps matters.
const SCALES: [f32; 3] = [1.0, 1e-8, 0.0];

fn constants(step: i32) -> AdamW {
    AdamW {
        lr: 3e-3,
        beta1: 0.9,
        beta2: 0.95,
        eps: 1e-8,
        weight_decay: 0.1,
        bias_correction1: 1.0 - 0.9f64.powi(step),
        bias_correction2: 1.0 - 0.95f64.powi(step),
        grad_scale: 0.7,
    }
}

/// Algorithm 2 of Loshchilov and Hutter, as it is written.
fn exact(value: &mut [f64], gradient: &[f32], m: &mut [f64], v: &mut [f64], c: &AdamW) {
    for i in 0..value.len() {
        let g = f64::from(gradient[i]) * c.grad_scale;
        m[i] = c.beta1 * m[i] + (1.0 - c.beta1) * g;
        v[i] = c.beta2 * v[i] + (1.0 - c.beta2) * g * g;
        let (mean, square) = (m[i] / c.bias_correction1, v[i] / c.bias_correction2);
        value[i] -= c.lr * c.weight_decay * value[i] + c.lr * mean / (square.sqrt() + c.eps);
    }
}

#[test]
fn adamw_is_the_algorithm() {
    for n in LENGTHS {
        let mut found = [numbers(1, n), vec![0.0; n], vec![0.0; n]];
        let mut expected = found.clone().map(|values| values.into_iter().map(f64::from).collect::<Vec<_>>());
        for step in 1..=5 {
            let scaled = |(i, x): (usize, f32)| x * SCALES[i % 3];
            let gradient: Vec<f32> = numbers(step as u64 + 1, n).into_iter().enumerate().map(scaled).collect();
            let [value, m, v] = &mut found;
            adamw(value, &gradient, m, v, &constants(step));
            let [value, m, v] = &mut expected;
            exact(value, &gradient, m, v, &constants(step));
        }
        // What gradients of both signs leave of a mean has the error of the gradients.
        let errors: [fn(f64) -> f64; 3] = [|_| 1e-7, |scale| 1e-7 * scale, |_| 0.0];
        for (what, error) in errors.iter().enumerate() {
            for (i, (&a, &b)) in found[what].iter().zip(&expected[what]).enumerate() {
                let error = error(f64::from(SCALES[i % 3])) + 1e-6 * b.abs();
                assert!((f64::from(a) - b).abs() <= error, "slice {what}[{i}] of {n}: {a:e}, expected {b:e}");
            }
        }
    }
}

#[test]
fn neither_threads_nor_places_change_a_bit() {
    let n = 300_001;
    let gradient = numbers(2, n);
    let step = |from: usize| {
        let mut values = [numbers(1, n), numbers(3, n), numbers(4, n).iter().map(|x| x * x).collect()];
        let [value, m, v] = &mut values;
        adamw(&mut value[from..], &gradient[from..], &mut m[from..], &mut v[from..], &constants(3));
        values.map(|values| values[from..].iter().map(|x| x.to_bits()).collect::<Vec<_>>())
    };
    pool::set_threads(1);
    let (whole, squares) = (step(0), sum_of_squares(&gradient).to_bits());
    for threads in [2, 3] {
        pool::set_threads(threads);
        assert!(step(0) == whole, "{threads} threads");
        assert_eq!(sum_of_squares(&gradient).to_bits(), squares);
    }
    for from in [1, 7, n - 5] {
        let part = step(from);
        assert!(part.iter().zip(&whole).all(|(part, whole)| *part == whole[from..]), "from {from}");
    }
}

#[test]
fn squares_add_up() {
    for n in LENGTHS {
        let x = numbers(1, n);
        let exact: f64 = x.iter().map(|x| f64::from(*x) * f64::from(*x)).sum();
        assert!((sum_of_squares(&x) - exact).abs() <= 1e-12 * exact);
    }
    assert!(sum_of_squares(&[1.0, f32::NAN]).is_nan());
    assert_eq!(sum_of_squares(&[1.0, f32::INFINITY]), f64::INFINITY);
}

#[test]
#[should_panic(expected = "different lengths")]
fn slices_of_different_lengths_are_refused() {
    adamw(&mut [0.0; 2], &[0.0; 2], &mut [0.0; 2], &mut [0.0; 1], &constants(1));
}
