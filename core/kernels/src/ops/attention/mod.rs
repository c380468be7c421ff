//! Causal attention over packed sequences, with or without a cache.

mod cache;
mod kernel;

use std::sync::Arc;

use candle_core::{Result, Tensor, bail};

pub use cache::LayerCache;

use self::kernel::{Gradients, Keys, Sizes, backward, forward};
use super::elsewhere;
use super::node::{Shared, fill, fused, node, read};
use crate::pool;

/// One sequence's rows in the packed tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The first row.
    pub start: usize,
    /// The number of rows.
    pub len: usize,
    /// The cache slot that the rows are appended to; ignored without a cache.
    pub slot: usize,
}

/// Causal attention: q `[T, H, Dk]`, k `[T, G, Dk]`, v `[T, G, Dv]` to `[T, H, Dv]`, head `h` reading key group
/// `h / (H / G)`. Each segment attends within itself; with a cache its rows are first appended to their slot and then
/// attend to all of it. There is no gradient through a cache.
///
/// Keys are folded in blocks of 64 from the sequence's first on (Dao, FlashAttention-2, algorithm 1), so that the scores
/// of a block exist only, and a token gives the same bits whether it came alone or with all others.
///
/// # Errors
/// Shapes that contradict each other, segments that do not follow each other, a slot that is full.
pub fn attention(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    segments: &Arc<[Segment]>,
    scale: f32,
    cache: Option<&mut LayerCache>,
) -> Result<Tensor> {
    if !fused(&[q, k, v]) {
        return elsewhere::attention(q, k, v, segments, scale, cache);
    }
    let (q, k, v) = (&q.contiguous()?, &k.contiguous()?, &v.contiguous()?);
    let sizes = check(q, k, v.dims3()?, scale, segments)?;
    refuse_graph(cache.is_some(), &[q, k, v])?;
    let (out, state) = {
        let (q, k, v) = (read(q)?, read(k)?, read(v)?);
        run(&sizes, &q, &k, (&v, sizes.dv), segments, cache)?
    };
    let (queries, keys, values, segments) = (q.clone(), k.clone(), v.clone(), segments.clone());
    let shape = (sizes.tokens, sizes.heads, sizes.dv);
    node("attention", [q, k, v], out, shape, move |out, grad| {
        let (q, k, v, out) = (read(&queries)?, read(&keys)?, read(&values)?, read(out)?);
        let (mut dq, mut dk, mut dv) = (vec![0.0; q.len()], vec![0.0; k.len()], vec![0.0; v.len()]);
        let to = Gradients {
            q: Shared::new(dq.as_mut_ptr()),
            k: Shared::new(dk.as_mut_ptr()),
            v: Shared::new(dv.as_mut_ptr()),
        };
        run_backward(&sizes, (&q, &k, &v, sizes.dv), &segments, &out, grad, &state, to);
        Ok([Some(dq), Some(dk), Some(dv)])
    })
}

/// [`attention()`] whose values are the first `latent` elements of the keys, as in multi-head latent attention.
///
/// # Errors
/// As for [`attention()`].
pub fn latent_attention(
    q: &Tensor,
    k: &Tensor,
    latent: usize,
    segments: &Arc<[Segment]>,
    scale: f32,
    cache: Option<&mut LayerCache>,
) -> Result<Tensor> {
    if !fused(&[q, k]) {
        return elsewhere::latent_attention(q, k, latent, segments, scale, cache);
    }
    let (q, k) = (&q.contiguous()?, &k.contiguous()?);
    let (tokens, groups, dk) = k.dims3()?;
    if latent > dk {
        bail!("attention: values of {latent} in keys of {dk}");
    }
    let sizes = check(q, k, (tokens, groups, latent), scale, segments)?;
    refuse_graph(cache.is_some(), &[q, k])?;
    let (out, state) = {
        let (q, k) = (read(q)?, read(k)?);
        run(&sizes, &q, &k, (&k, dk), segments, cache)?
    };
    let (queries, keys, segments) = (q.clone(), k.clone(), segments.clone());
    node("latent_attention", [q, k], out, (tokens, sizes.heads, latent), move |out, grad| {
        let (q, k, out) = (read(&queries)?, read(&keys)?, read(out)?);
        let (mut dq, mut dk) = (vec![0.0; q.len()], vec![0.0; k.len()]);
        let to = Shared::new(dk.as_mut_ptr());
        let to = Gradients { q: Shared::new(dq.as_mut_ptr()), k: to, v: to };
        run_backward(&sizes, (&q, &k, &k, sizes.dk), &segments, &out, grad, &state, to);
        Ok([Some(dq), Some(dk)])
    })
}

fn check(
    q: &Tensor,
    k: &Tensor,
    (rows, value_groups, dv): (usize, usize, usize),
    scale: f32,
    segments: &[Segment],
) -> Result<Sizes> {
    let ((tokens, heads, dk), (key_rows, groups, key_width)) = (q.dims3()?, k.dims3()?);
    let fits = rows == tokens && key_rows == tokens && key_width == dk && value_groups == groups;
    if !fits || groups == 0 || heads == 0 || heads % groups != 0 || dk == 0 || dv == 0 {
        bail!("attention: q is {:?}, k {:?}, v {:?}", q.shape(), k.shape(), (rows, value_groups, dv));
    }
    let mut end = 0;
    for segment in segments {
        if segment.start != end {
            bail!("attention: a segment starts at row {}, where row {end} is due", segment.start);
        }
        end += segment.len;
    }
    if end != tokens {
        bail!("attention: segments of {end} rows for tensors of {tokens}");
    }
    Ok(Sizes { tokens, heads, groups, dk, dv, scale })
}

/// The tokens that a cache holds are in no graph, so a gradient would lack their part.
fn refuse_graph(cached: bool, inputs: &[&Tensor]) -> Result<()> {
    if cached && inputs.iter().any(|input| input.track_op()) {
        bail!("attention: there is no gradient through a cache");
    }
    Ok(())
}

/// Multiply-adds of attention that are worth a task of their own.
const GRAIN: usize = 1 << 16;

/// The output, and for each token and head the maximum of its scores and the inverse sum of their exponentials.
fn run(
    sizes: &Sizes,
    q: &[f32],
    k: &[f32],
    (v, value_width): (&[f32], usize),
    segments: &[Segment],
    mut cache: Option<&mut LayerCache>,
) -> Result<(Vec<f32>, Vec<f32>)> {
    let Sizes { tokens, heads, groups, dk, dv, .. } = *sizes;
    if let Some(cache) = cache.as_deref_mut() {
        cache.append_segments(sizes, segments, k, (v, value_width))?;
    }
    let cache = cache.as_deref();
    let mut state = vec![0.0; 2 * tokens * heads];
    let to_state = Shared::new(state.as_mut_ptr());
    let write = |out: *mut f32| {
        let out = Shared::new(out);
        let average = tokens.div_ceil(segments.len().max(1));
        let grain = GRAIN.div_ceil((average * heads * (dk + dv) * average).max(heads * (dk + dv) * 32));
        pool::run_ranges(segments.len() * groups, grain, |range| {
            for task in range {
                let (segment, group) = (&segments[task / groups], task % groups);
                let keys = match cache.map(|cache| (cache.slot(segment.slot), cache.len(segment.slot))) {
                    Some((slot, len)) => Keys::cached(sizes, group, &slot.keys, &slot.values, len - segment.len),
                    None => Keys::packed(sizes, group, segment, k, v, value_width),
                };
                // SAFETY: the sizes are those of the tensors; rows of one segment and heads of one group are this task's.
                unsafe { forward(sizes, segment, group, q.as_ptr(), &keys, out, to_state) };
            }
        });
    };
    // SAFETY: segments cover all rows, groups all heads.
    let out = unsafe { fill(tokens * heads * dv, write) };
    Ok((out, state))
}

fn run_backward(
    sizes: &Sizes,
    (q, k, v, value_width): (&[f32], &[f32], &[f32], usize),
    segments: &[Segment],
    out: &[f32],
    grad: &[f32],
    state: &[f32],
    to: Gradients,
) {
    let groups = sizes.groups;
    pool::run_ranges(segments.len() * groups, 1, |range| {
        for task in range {
            let (segment, group) = (&segments[task / groups], task % groups);
            let keys = Keys::packed(sizes, group, segment, k, v, value_width);
            // SAFETY: the sizes are those of the tensors; rows of one segment and heads of one group are this task's.
            unsafe { backward(sizes, segment, group, [q, k, out, grad, state], &keys, to) };
        }
    });
}
