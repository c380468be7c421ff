//! Operations by row against their composed twins.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::sync::Arc;

use candle_core::{Device, Tensor};
use common::{check, check_empty, param, tensor, values};
use kernels::ops::{self, Experts, HeadRange, Rope, Router, Segment, slow};

#[test]
fn rms_norm_is_its_twin() {
    for (rows, d) in [(1, 2), (3, 17), (70, 33), (5, 300), (300, 130)] {
        check(
            &format!("rms_norm {rows} {d}"),
            &[tensor(1, (rows, d))],
            &[param(2, d)],
            &|x, p| ops::rms_norm(&x[0], &p[0], 1e-3),
            &|x, p| slow::rms_norm(&x[0], &p[0], 1e-3),
        );
    }
    check(
        "rms_norm by head",
        &[tensor(1, (5, 3, 20))],
        &[param(2, 20)],
        &|x, p| ops::rms_norm(&x[0], &p[0], 1e-6),
        &|x, p| slow::rms_norm(&x[0], &p[0], 1e-6),
    );
    check_empty(
        "rms_norm of no rows",
        &[tensor(1, (0, 5))],
        &[param(2, 5)],
        &|x, p| ops::rms_norm(&x[0], &p[0], 1e-6),
        &[0, 5],
    );
}

#[test]
fn silu_mul_is_its_twin() {
    for (rows, width) in [(1, 1), (3, 17), (300, 65)] {
        let x = (tensor(1, (rows, 2 * width)) * 9.0).unwrap();
        check(&format!("silu_mul {rows} {width}"), &[x], &[], &|x, _| ops::silu_mul(&x[0]), &|x, _| {
            slow::silu_mul(&x[0])
        });
    }
    check_empty("silu_mul of no rows", &[tensor(1, (0, 6))], &[], &|x, _| ops::silu_mul(&x[0]), &[0, 3]);
}

/// Segments of these lengths, one after another.
fn segments(lengths: &[usize]) -> Arc<[Segment]> {
    let mut start = 0;
    let mut next = |&len: &usize| {
        let segment = Segment { start, len, slot: 0 };
        start += len;
        segment
    };
    lengths.iter().map(&mut next).collect()
}

fn table(width: usize, interleaved: bool) -> Arc<Rope> {
    let frequencies: Vec<f64> = (0..width / 2).map(|i| 0.8f64.powi(i as i32)).collect();
    Arc::new(Rope::new(&frequencies, 1.25, 50, interleaved, &Device::Cpu).unwrap())
}

#[test]
fn rope_is_its_twin_in_both_layouts() {
    for (rows, heads, width) in [(1, 1, 2), (7, 3, 18), (210, 5, 34)] {
        for interleaved in [false, true] {
            let (table, positions) =
                (table(width, interleaved), (0..rows as u32).map(|i| i * 7 % 50).collect::<Vec<_>>());
            check(
                &format!("rope {rows} {heads} {width}, interleaved: {interleaved}"),
                &[tensor(1, (rows, heads, width))],
                &[],
                &|x, _| ops::rope(&x[0], &positions, &table),
                &|x, _| slow::rope(&x[0], &positions, &table),
            );
        }
    }
    let table = table(6, true);
    check_empty("rope of no rows", &[tensor(1, (0, 2, 6))], &[], &|x, _| ops::rope(&x[0], &[], &table), &[0, 2, 6]);
}

#[test]
fn heads_are_their_twin() {
    for (rows, count, width) in [(1, 1, 2), (7, 3, 18), (150, 5, 34)] {
        let positions: Vec<u32> = (0..rows as u32).map(|i| i * 7 % 50).collect();
        let x = tensor(1, (rows, (count + 3) * width + 1));
        let range = HeadRange { first: 2, count, width };
        for (normed, turned) in
            [(false, None), (true, None), (false, Some(false)), (true, Some(false)), (true, Some(true))]
        {
            let table = table(width, turned == Some(true));
            let rotation = turned.map(|_| (positions.as_slice(), &table));
            let norms = [param(2, width)];
            let norms = if normed { &norms[..] } else { &[] };
            check(
                &format!("heads {rows} {count} {width}, normed: {normed}, turned: {turned:?}"),
                std::slice::from_ref(&x),
                norms,
                &|x, p| ops::heads(&x[0], range, p.first().map(|p| (p, 1e-3)), rotation),
                &|x, p| slow::heads(&x[0], range, p.first().map(|p| (p, 1e-3)), rotation),
            );
        }
    }
    let (table, range) = (table(6, false), HeadRange { first: 1, count: 2, width: 6 });
    check_empty(
        "heads of no rows",
        &[tensor(1, (0, 18))],
        &[param(2, 6)],
        &|x, p| ops::heads(&x[0], range, Some((&p[0], 1e-6)), Some((&[], &table))),
        &[0, 2, 6],
    );
}

#[test]
fn latent_query_is_its_twin() {
    for (rows, heads, nope, rotated, latent) in [(1, 1, 1, 2, 1), (7, 3, 5, 6, 33), (130, 4, 17, 10, 40)] {
        let (table, positions) = (table(rotated, true), (0..rows as u32).map(|i| i * 3 % 50).collect::<Vec<_>>());
        check(
            &format!("latent_query {rows} {heads} {nope} {rotated} {latent}"),
            &[tensor(1, (rows, heads, nope + rotated))],
            &[param(2, (heads, nope, latent))],
            &|x, p| ops::latent_query(&x[0], &p[0], &positions, &table),
            &|x, p| slow::latent_query(&x[0], &p[0], &positions, &table),
        );
    }
    let table = table(6, true);
    check_empty(
        "latent_query of no rows",
        &[tensor(1, (0, 2, 9))],
        &[param(2, (2, 3, 4))],
        &|x, p| ops::latent_query(&x[0], &p[0], &[], &table),
        &[0, 2, 10],
    );
}

#[test]
fn latent_key_is_its_twin() {
    for (rows, latent, rotated) in [(1, 1, 2), (7, 33, 6), (400, 48, 10)] {
        let (table, positions) = (table(rotated, false), (0..rows as u32).map(|i| i * 3 % 50).collect::<Vec<_>>());
        check(
            &format!("latent_key {rows} {latent} {rotated}"),
            &[tensor(1, (rows, latent + rotated))],
            &[param(2, latent)],
            &|x, p| ops::latent_key(&x[0], &p[0], 1e-4, &positions, &table),
            &|x, p| slow::latent_key(&x[0], &p[0], 1e-4, &positions, &table),
        );
    }
    let table = table(6, true);
    check_empty(
        "latent_key of no rows",
        &[tensor(1, (0, 9))],
        &[param(2, 3)],
        &|x, p| ops::latent_key(&x[0], &p[0], 1e-6, &[], &table),
        &[0, 1, 9],
    );
}

#[test]
fn looking_rows_up_is_its_twin() {
    for (count, d, picked) in [(1, 1, 1), (5, 33, 9), (40, 130, 300)] {
        let rows: Vec<u32> = (0..picked).map(|i| (i * i % count) as u32).collect();
        check(
            &format!("gather_rows {count} {d}"),
            &[tensor(1, (count, d))],
            &[],
            &|x, _| ops::gather_rows(&x[0], &rows),
            &|x, _| slow::gather_rows(&x[0], &rows),
        );
        check(
            &format!("embed {count} {d}"),
            &[],
            &[param(1, (count, d))],
            &|_, p| ops::embed(&p[0], &rows),
            &|_, p| slow::embed(&p[0], &rows),
        );
    }
    check_empty("no rows", &[tensor(1, (3, 5))], &[], &|x, _| ops::gather_rows(&x[0], &[]), &[0, 5]);
    check_empty("no ids", &[], &[param(1, (3, 5))], &|_, p| ops::embed(&p[0], &[]), &[0, 5]);
}

#[test]
fn combine_is_its_twin() {
    for (tokens, k, d) in [(1, 1, 1), (9, 2, 33), (150, 3, 130)] {
        let chosen: Vec<u32> = (0..tokens * k).map(|slot| (slot % k * 2 + slot / k % 2) as u32).collect();
        let experts = Arc::new(Experts::new(&chosen, k, 2 * k));
        check(
            &format!("combine {tokens} {k} {d}"),
            &[tensor(1, (tokens * k, d)), tensor(2, (tokens, k))],
            &[],
            &|x, _| ops::combine(&x[0], &x[1], &experts),
            &|x, _| slow::combine(&x[0], &x[1], &experts),
        );
    }
    let experts = Arc::new(Experts::new(&[], 2, 4));
    check_empty(
        "combine no tokens",
        &[tensor(1, (0, 5)), tensor(2, (0, 2))],
        &[],
        &|x, _| ops::combine(&x[0], &x[1], &experts),
        &[0, 5],
    );
}

#[test]
fn route_is_its_twin() {
    let bias = (tensor(3, 12) * 0.4).unwrap();
    for sigmoid in [false, true] {
        for normalize in [false, true] {
            for (groups, groups_kept) in [(1, 1), (4, 2), (3, 2), (12, 5)] {
                for bias in [None, Some(&bias)] {
                    let router = Router { experts: 12, chosen: 4, groups, groups_kept, sigmoid, normalize, scale: 2.5 };
                    let logits = (tensor(1, (70, 12)) * 3.0).unwrap();
                    // Four experts that nobody would choose for all tokens.
                    let replayed: Vec<u32> =
                        (0..70u32).flat_map(|token| [0, 1, 2, 3].map(|i| i * 3 + token % 3)).collect();
                    for replayed in [None, Some(&*replayed)] {
                        check(
                            &format!("{router:?} {} {}", bias.is_some(), replayed.is_some()),
                            std::slice::from_ref(&logits),
                            &[],
                            &|x, _| Ok(ops::route(&x[0], bias, &router, replayed)?.1),
                            &|x, _| Ok(slow::route(&x[0], bias, &router, replayed)?.1),
                        );
                        let fused = ops::route(&logits, bias, &router, replayed).unwrap().0;
                        let slow = slow::route(&logits, bias, &router, replayed).unwrap().0;
                        let chosen = [fused, slow].map(|experts| ops::chosen(&[experts]).unwrap().remove(0));
                        assert_eq!(chosen[0], chosen[1], "{router:?}");
                        assert!(replayed.is_none_or(|replayed| replayed == chosen[0]));
                    }
                    // Its own choice replayed is no other.
                    let (experts, weights) = ops::route(&logits, bias, &router, None).unwrap();
                    let own = ops::chosen(&[experts]).unwrap().concat();
                    let (_, again) = ops::route(&logits, bias, &router, Some(&own)).unwrap();
                    assert_eq!(values(&weights), values(&again));
                }
            }
        }
    }
}

#[test]
fn balance_is_its_twin() {
    for (sigmoid, lengths) in [(true, vec![1, 30, 9]), (false, vec![40]), (true, vec![0, 40])] {
        let router = Router { experts: 8, chosen: 3, groups: 1, groups_kept: 1, sigmoid, normalize: true, scale: 1.0 };
        let logits = (tensor(1, (40, 8)) * 3.0).unwrap();
        let segments = segments(&lengths);
        // A few expert ids only, so that the load is uneven.
        let bias = Tensor::new(&[1.0f32, 0.8, 0.6, 0.0, 0.0, 0.0, 0.0, 0.0], &Device::Cpu).unwrap();
        let chosen = ops::chosen(&[ops::route(&logits, Some(&bias), &router, None).unwrap().0]).unwrap().concat();
        let weights = tensor(2, (40, 3));
        check(
            &format!("balance {sigmoid} {lengths:?}"),
            &[weights.clone(), logits.clone()],
            &[],
            &|x, _| Ok(ops::balance(&x[0], &x[1], &chosen, &router, &segments, 0.7)?.0),
            &|x, _| Ok(slow::balance(&x[0], &x[1], &chosen, &router, &segments, 0.7)?.0),
        );
        let value = |logits: &Tensor| ops::balance(&weights, logits, &chosen, &router, &segments, 0.7).unwrap();
        let (same, loss) = value(&logits);
        assert_eq!(values(&same), values(&weights), "the weights pass");
        let expected = slow::balance(&weights, &logits, &chosen, &router, &segments, 0.7).unwrap().1;
        assert!((loss / expected - 1.0).abs() < 1e-6, "{loss} instead of {expected}");
        // The gradient against differences of the loss.
        let tracked = candle_core::Var::from_tensor(&logits).unwrap();
        let (out, _) = value(&tracked);
        let nothing = ops::known(&ops::reshape(&out, 120).unwrap(), 0.0, vec![0.0; 120]).unwrap();
        let gradient = values(kernels::backward(&nothing).unwrap().get(&tracked).unwrap());
        let greatest = gradient.iter().fold(0.0f32, |max, x| max.max(x.abs()));
        for at in [0, 8 * 17 + 3, 8 * 39 + 7] {
            let moved = |by: f32| {
                let mut moved = values(&logits);
                moved[at] += by;
                value(&Tensor::from_vec(moved, (40, 8), &Device::Cpu).unwrap()).1
            };
            let slope = 0.7 * (moved(0.01) - moved(-0.01)) / 0.02;
            let difference = (slope - f64::from(gradient[at])).abs();
            assert!(difference < 1e-3 * f64::from(greatest), "{at}: {} instead of {slope}", gradient[at]);
        }
    }
}

#[test]
fn route_chooses_the_best_of_the_best_groups() {
    let chosen = |logits: &[f32], bias: Option<&[f32]>, router: Router| {
        let bias = bias.map(|bias| Tensor::new(bias, &Device::Cpu).unwrap());
        let logits = Tensor::new(logits, &Device::Cpu).unwrap().unsqueeze(0).unwrap();
        let (experts, weights) = ops::route(&logits, bias.as_ref(), &router, None).unwrap();
        (ops::chosen(&[experts]).unwrap().remove(0), values(&weights))
    };
    let router =
        Router { experts: 6, chosen: 2, groups: 1, groups_kept: 1, sigmoid: true, normalize: true, scale: 1.0 };
    let logits = [3.0, -4.0, 2.0, 2.0, 1.0, 1.9];
    // Ascending ids; of equals the lower; the bias moves the choice, not the weights.
    assert_eq!(chosen(&logits, None, router).0, [0, 2]);
    let (ids, weights) = chosen(&logits, Some(&[0.0, 0.0, 0.0, 0.5, 0.0, 0.5]), router);
    assert_eq!(ids, [3, 5]);
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    let expected = sigmoid(2.0) / (sigmoid(2.0) + sigmoid(1.9));
    assert!((f64::from(weights[0]) - expected).abs() < 1e-6);
    // By sums of two, the second and third of three groups win; by the best, the first and second.
    let grouped = Router { groups: 3, groups_kept: 2, chosen: 3, ..router };
    assert_eq!(chosen(&logits, None, grouped).0, [2, 3, 5]);
    assert_eq!(chosen(&logits, None, Router { sigmoid: false, ..grouped }).0, [0, 2, 3]);
    // No number at all still gives distinct experts.
    assert_eq!(chosen(&[f32::NAN; 6], None, grouped).0.len(), 3);
    assert_eq!(chosen(&[f32::NAN; 6], None, router).0, [0, 1]);
}
