//! Shapes that contradict each other give errors, not panics and not numbers.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::sync::Arc;

use candle_core::{DType, Device, Result, Tensor};
use common::{param, tensor};
use kernels::Param;
use kernels::ops::{self, Experts, HeadRange, Rope, Router, Segment};

#[track_caller]
fn refuses<T>(what: &str, result: Result<T>) {
    assert!(result.is_err(), "{what} was accepted");
}

fn rope() -> Arc<Rope> {
    Arc::new(Rope::new(&[1.0, 0.5], 1.0, 10, true, &Device::Cpu).unwrap())
}

#[test]
fn products_refuse_what_does_not_fit() {
    let x = tensor(1, (3, 5));
    refuses("another k", ops::linear(&x, &param(2, (7, 4)), None));
    refuses("a vector as weight", ops::linear(&x, &param(2, 5), None));
    refuses("a vector as x", ops::linear(&tensor(1, 5), &param(2, (7, 5)), None));
    refuses("another bias", ops::linear(&x, &param(2, (7, 5)), Some(&param(3, 6))));

    let x = tensor(1, (3, 2, 5));
    refuses("other heads", ops::head_linear(&x, &param(2, (3, 7, 5)), false));
    refuses("another k", ops::head_linear(&x, &param(2, (2, 7, 4)), false));
    refuses("not transposed", ops::head_linear(&x, &param(2, (2, 5, 7)), false));
    refuses("transposed", ops::head_linear(&x, &param(2, (2, 7, 5)), true));
    refuses("a matrix as x", ops::head_linear(&tensor(1, (3, 5)), &param(2, (1, 7, 5)), false));

    let experts = Arc::new(Experts::new(&[0, 2, 1, 1], 2, 3));
    refuses("another k", ops::grouped_linear(&tensor(1, (4, 5)), &param(2, (3, 7, 4)), &experts));
    refuses("other pairs", ops::grouped_linear(&tensor(1, (3, 5)), &param(2, (3, 7, 5)), &experts));
    refuses("other experts", ops::grouped_linear(&tensor(1, (4, 5)), &param(2, (4, 7, 5)), &experts));
    refuses("a matrix as weight", ops::grouped_linear(&tensor(1, (4, 5)), &param(2, (7, 5)), &experts));

    let (hidden, head) = (tensor(1, (2, 5)), param(2, (7, 5)));
    refuses("too few targets", ops::token_logprobs(&hidden, &head, &[1], 1.0));
    refuses("a target beyond", ops::token_logprobs(&hidden, &head, &[1, 7], 1.0));
    refuses("another width", ops::token_logprobs(&hidden, &param(2, (7, 4)), &[1, 2], 1.0));
    refuses("no width", ops::token_logprobs(&tensor(1, (2, 0)), &param(2, (7, 0)), &[1, 2], 1.0));
    for temperature in [0.0, -1.0, f64::NAN] {
        refuses("a temperature", ops::token_logprobs(&hidden, &head, &[1, 2], temperature));
    }
}

#[test]
fn rows_refuse_what_does_not_fit() {
    refuses("another width", ops::rms_norm(&tensor(1, (3, 5)), &param(2, 4), 1e-6));
    refuses("no width", ops::rms_norm(&tensor(1, (3, 0)), &param(2, 0), 1e-6));
    refuses("an odd width", ops::silu_mul(&tensor(1, (3, 5))));
    refuses("no width", ops::silu_mul(&tensor(1, (3, 0))));
    refuses("three dimensions", ops::silu_mul(&tensor(1, (3, 2, 4))));
    refuses("a row beyond", ops::gather_rows(&tensor(1, (3, 5)), &[0, 3]));
    refuses("a row of nothing", ops::gather_rows(&tensor(1, (0, 5)), &[0]));
    refuses("an id beyond", ops::embed(&param(1, (3, 5)), &[3]));
    refuses("a vector as table", ops::embed(&param(1, 3), &[0]));

    let experts = Arc::new(Experts::new(&[0, 2, 1, 1], 2, 3));
    refuses("other slots", ops::combine(&tensor(1, (4, 5)), &tensor(2, (4, 2)), &experts));
    refuses("other pairs", ops::combine(&tensor(1, (6, 5)), &tensor(2, (3, 2)), &experts));
    refuses("another order", ops::combine(&tensor(1, (4, 5)), &tensor(2, (1, 4)), &experts));

    let x = tensor(1, (3, 2, 4));
    refuses("a position beyond", ops::rope(&x, &[0, 1, 10], &rope()));
    refuses("too few positions", ops::rope(&x, &[0, 1], &rope()));
    refuses("another width", ops::rope(&tensor(1, (3, 2, 6)), &[0, 1, 2], &rope()));
    let joined = |range, norm: Option<&Param>, positions: &[u32]| {
        ops::heads(&tensor(1, (3, 12)), range, norm.map(|norm| (norm, 1e-6)), Some((positions, &rope())))
    };
    let range = HeadRange { first: 1, count: 2, width: 4 };
    assert!(joined(range, Some(&param(2, 4)), &[0, 1, 2]).is_ok());
    refuses("heads beyond the row", joined(HeadRange { first: 2, ..range }, None, &[0, 1, 2]));
    refuses("no heads", joined(HeadRange { count: 0, ..range }, None, &[0, 1, 2]));
    refuses("no width", joined(HeadRange { width: 0, ..range }, None, &[0, 1, 2]));
    refuses("another norm", joined(range, Some(&param(2, 3)), &[0, 1, 2]));
    refuses("another rotated width", joined(HeadRange { width: 3, ..range }, None, &[0, 1, 2]));
    refuses("a position beyond", joined(range, None, &[0, 1, 10]));
    refuses("three dimensions", ops::heads(&tensor(1, (3, 2, 4)), range, None, None));
    let q = tensor(1, (3, 2, 9));
    refuses("other heads", ops::latent_query(&q, &param(2, (3, 5, 7)), &[0, 1, 2], &rope()));
    refuses("another rotated width", ops::latent_query(&q, &param(2, (2, 4, 7)), &[0, 1, 2], &rope()));
    refuses("a latent part wider than all", ops::latent_query(&q, &param(2, (2, 10, 7)), &[0, 1, 2], &rope()));
    let kv = tensor(1, (3, 9));
    refuses("another rotated width", ops::latent_key(&kv, &param(2, 4), 1e-6, &[0, 1, 2], &rope()));
    refuses("a latent part wider than all", ops::latent_key(&kv, &param(2, 10), 1e-6, &[0, 1, 2], &rope()));
    refuses("a position beyond", ops::latent_key(&kv, &param(2, 5), 1e-6, &[0, 1, 77], &rope()));
}

#[test]
fn route_refuses_a_router_that_contradicts_itself() {
    let fits = Router { experts: 6, chosen: 2, groups: 3, groups_kept: 2, sigmoid: true, normalize: true, scale: 1.0 };
    let logits = tensor(1, (4, 6));
    assert!(ops::route(&logits, Some(&tensor(2, 6)), &fits, None).is_ok());
    refuses("another bias", ops::route(&logits, Some(&tensor(2, 5)), &fits, None));
    refuses("other logits", ops::route(&tensor(1, (4, 7)), None, &fits, None));
    let replayed = vec![0; 4 * fits.chosen];
    assert!(ops::route(&logits, None, &fits, Some(&replayed)).is_ok());
    refuses("too few replayed", ops::route(&logits, None, &fits, Some(&replayed[1..])));
    let beyond = vec![6; replayed.len()];
    refuses("replayed experts that don't exist", ops::route(&logits, None, &fits, Some(&beyond)));
    let contradictions = [
        Router { groups: 0, ..fits },
        Router { groups: 4, ..fits },
        Router { groups_kept: 0, ..fits },
        Router { groups_kept: 4, ..fits },
        Router { chosen: 0, ..fits },
        Router { chosen: 5, ..fits },
    ];
    for router in contradictions {
        refuses(&format!("{router:?}"), ops::route(&logits, None, &router, None));
    }
}

#[test]
fn attention_refuses_what_does_not_fit() {
    let segments = |parts: &[(usize, usize)]| -> Arc<[Segment]> {
        parts.iter().map(|&(start, len)| Segment { start, len, slot: 0 }).collect()
    };
    let shapes = |q: (usize, usize, usize), k: (usize, usize, usize), v: (usize, usize, usize)| {
        ops::attention(&tensor(1, q), &tensor(2, k), &tensor(3, v), &segments(&[(0, 5)]), 1.0, None)
    };
    assert!(shapes((5, 4, 8), (5, 2, 8), (5, 2, 6)).is_ok());
    refuses("other rows of keys", shapes((5, 4, 8), (4, 2, 8), (5, 2, 6)));
    refuses("other rows of values", shapes((5, 4, 8), (5, 2, 8), (6, 2, 6)));
    refuses("another width of keys", shapes((5, 4, 8), (5, 2, 7), (5, 2, 6)));
    refuses("other groups of values", shapes((5, 4, 8), (5, 2, 8), (5, 4, 6)));
    refuses("heads that groups don't divide", shapes((5, 4, 8), (5, 3, 8), (5, 3, 6)));
    refuses("no groups", shapes((5, 4, 8), (5, 0, 8), (5, 0, 6)));
    refuses("no heads", shapes((5, 0, 8), (5, 2, 8), (5, 2, 6)));
    refuses("no width of keys", shapes((5, 4, 0), (5, 2, 0), (5, 2, 6)));
    refuses("no width of values", shapes((5, 4, 8), (5, 2, 8), (5, 2, 0)));

    let (q, k) = (tensor(1, (5, 4, 8)), tensor(2, (5, 1, 8)));
    for parts in [&[(0, 4)][..], &[(0, 6)], &[(1, 4)], &[(0, 2), (3, 2)], &[(0, 3), (2, 2)], &[(3, 2), (0, 3)], &[]] {
        refuses(&format!("segments {parts:?}"), ops::latent_attention(&q, &k, 6, &segments(parts), 1.0, None));
    }
    refuses("values wider than keys", ops::latent_attention(&q, &k, 9, &segments(&[(0, 5)]), 1.0, None));
    refuses("no latent", ops::latent_attention(&q, &k, 0, &segments(&[(0, 5)]), 1.0, None));
}

#[test]
fn a_parameter_refuses_what_it_is_not() {
    refuses("f64", Param::new("w", Tensor::zeros(3, DType::F64, &Device::Cpu).unwrap()));
    let w = param(1, (3, 5));
    refuses("another shape", w.set(&tensor(2, (5, 3))));
    refuses("an update without a gradient", w.update(|_, _| panic!("there is no gradient")));
    assert!(w.grad().is_none());
}
