//! Attention against its composed twin, with and without a cache.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::sync::Arc;

use candle_core::{Result, Tensor};
use common::{bits, check, check_empty, tensor, values};
use kernels::ops::{self, LayerCache, Segment, slow};

/// Heads of queries and of keys, widths of keys and of values.
const HEADS: [(usize, usize, usize, usize); 5] =
    [(1, 1, 1, 1), (3, 3, 17, 5), (4, 2, 16, 33), (6, 1, 40, 32), (70, 1, 8, 4)];

/// Lengths around the sizes of panels (32) and blocks (64) of keys.
const LENGTHS: [&[usize]; 4] = [&[2], &[5, 1, 0, 40], &[64, 65, 31], &[200]];

fn segments(lengths: &[usize]) -> Arc<[Segment]> {
    let mut start = 0;
    let segment = |(slot, &len): (usize, &usize)| {
        start += len;
        Segment { start: start - len, len, slot }
    };
    lengths.iter().enumerate().map(segment).collect()
}

#[test]
fn attention_is_its_twin() {
    for (heads, groups, dk, dv) in HEADS {
        for lengths in LENGTHS {
            let (rows, segments) = (lengths.iter().sum::<usize>(), segments(lengths));
            // Steep enough for maxima to move from block to block.
            check(
                &format!("attention {lengths:?}, {heads} of {groups}, {dk} {dv}"),
                &[tensor(1, (rows, heads, dk)), tensor(2, (rows, groups, dk)), tensor(3, (rows, groups, dv))],
                &[],
                &|x, _| ops::attention(&x[0], &x[1], &x[2], &segments, 1.3, None),
                &|x, _| slow::attention(&x[0], &x[1], &x[2], &segments, 1.3, None),
            );
        }
    }
    check_empty(
        "attention of no rows",
        &[tensor(1, (0, 4, 3)), tensor(2, (0, 2, 3)), tensor(3, (0, 2, 5))],
        &[],
        &|x, _| ops::attention(&x[0], &x[1], &x[2], &segments(&[]), 1.0, None),
        &[0, 4, 5],
    );
}

#[test]
fn latent_attention_is_its_twin() {
    for (heads, groups, dk, dv) in HEADS {
        for lengths in LENGTHS {
            let (rows, segments, latent) = (lengths.iter().sum::<usize>(), segments(lengths), dv.min(dk));
            check(
                &format!("latent_attention {lengths:?}, {heads} of {groups}, {dk} {latent}"),
                &[tensor(1, (rows, heads, dk)), tensor(2, (rows, groups, dk))],
                &[],
                &|x, _| ops::latent_attention(&x[0], &x[1], latent, &segments, 1.3, None),
                &|x, _| slow::latent_attention(&x[0], &x[1], latent, &segments, 1.3, None),
            );
        }
    }
}

/// Queries, keys, values.
type Parts = [Tensor; 3];
type Attend = fn(&Tensor, &Tensor, &Tensor, &Arc<[Segment]>, f32, Option<&mut LayerCache>) -> Result<Tensor>;

/// Appends some tokens to slots, and attends.
fn append(attend: Attend, cache: &mut LayerCache, whole: &Parts, parts: &[(usize, usize, usize)]) -> Tensor {
    let mut segments = segments(&parts.iter().map(|(_, from, to)| to - from).collect::<Vec<_>>()).to_vec();
    segments.iter_mut().zip(parts).for_each(|(segment, part)| segment.slot = part.0);
    let [q, k, v] = whole.each_ref().map(|x| {
        let rows: Vec<_> = parts.iter().map(|(_, from, to)| x.narrow(0, *from, to - from).unwrap()).collect();
        Tensor::cat(&rows, 0).unwrap()
    });
    attend(&q, &k, &v, &segments.into(), 0.7, Some(cache)).unwrap()
}

#[test]
fn a_cache_serves_both_twins_alike() {
    let (heads, groups, dk, dv) = (4, 2, 13, 9);
    let whole = [tensor(1, (90, heads, dk)), tensor(2, (90, groups, dk)), tensor(3, (90, groups, dv))];
    // Slots that grow side by side, a fork, a rewind, and a slot that begins anew.
    let steps = |attend: Attend| -> Vec<Tensor> {
        let mut cache = LayerCache::new(3, 80, groups, dk, dv);
        let mut out = vec![append(attend, &mut cache, &whole, &[(0, 0, 40), (1, 50, 51)])];
        out.push(append(attend, &mut cache, &whole, &[(0, 40, 70), (1, 51, 55)]));
        cache.fork(0, 2);
        cache.truncate(2, 33).unwrap();
        assert_eq!([0, 1, 2].map(|slot| cache.len(slot)), [70, 5, 33]);
        out.push(append(attend, &mut cache, &whole, &[(2, 80, 85), (0, 70, 71)]));
        cache.clear(1);
        assert!(cache.is_empty(1) && !cache.is_empty(0));
        out.push(append(attend, &mut cache, &whole, &[(1, 60, 90)]));
        cache.fork(1, 0);
        out.push(append(attend, &mut cache, &whole, &[(0, 10, 12)]));
        out
    };
    for (i, (fused, slow)) in steps(ops::attention).iter().zip(&steps(slow::attention)).enumerate() {
        let difference = values(&(fused - slow).unwrap()).iter().fold(0.0f32, |max, x| max.max(x.abs()));
        assert!(difference < 1e-5, "step {i}: {difference:e}");
        assert!(values(slow).iter().any(|x| x.abs() > 0.1), "step {i}");
    }
}

#[test]
fn a_rewound_slot_keeps_nothing_of_what_it_held() {
    let whole = [tensor(1, (50, 2, 8)), tensor(2, (50, 2, 8)), tensor(3, (50, 2, 8))];
    let mut fresh = LayerCache::new(1, 50, 2, 8, 8);
    let expected = append(ops::attention, &mut fresh, &whole, &[(0, 0, 10)]);
    let mut used = LayerCache::new(1, 50, 2, 8, 8);
    append(ops::attention, &mut used, &whole, &[(0, 10, 50)]);
    used.clear(0);
    assert_eq!(bits(&append(ops::attention, &mut used, &whole, &[(0, 0, 10)])), bits(&expected));
}

#[test]
fn a_full_or_missing_slot_and_other_widths_are_errors() {
    let [q, k, v] = [tensor(1, (5, 4, 8)), tensor(2, (5, 2, 8)), tensor(3, (5, 2, 6))];
    let error = |cache: &mut LayerCache, slot: usize| {
        let segments: Arc<[Segment]> = [Segment { start: 0, len: 5, slot }].into();
        ops::attention(&q, &k, &v, &segments, 1.0, Some(cache)).err().map(|error| error.to_string())
    };
    assert_eq!(error(&mut LayerCache::new(1, 5, 2, 8, 6), 0), None);
    assert!(error(&mut LayerCache::new(1, 4, 2, 8, 6), 0).unwrap().contains("grown beyond"));
    assert!(error(&mut LayerCache::new(1, 5, 2, 8, 6), 1).unwrap().contains("slot 1"));
    for (groups, dk, dv) in [(1, 8, 6), (2, 4, 6), (2, 8, 7), (2, 8, 5), (4, 4, 3), (0, 0, 0)] {
        let error = error(&mut LayerCache::new(1, 5, groups, dk, dv), 0);
        assert!(error.unwrap().contains("the cache is for"), "{groups} {dk} {dv}");
    }
}

#[test]
fn there_is_no_gradient_through_a_cache() {
    let q = candle_core::Var::from_tensor(&tensor(1, (5, 2, 8))).unwrap();
    let mut cache = LayerCache::new(1, 5, 2, 8, 8);
    let error = ops::latent_attention(&q, &tensor(2, (5, 2, 8)), 8, &segments(&[5]), 1.0, Some(&mut cache));
    assert!(error.unwrap_err().to_string().contains("no gradient"));
}
