//! The composed twins: the same operations from candle's own differentiable ones, on any device and in plain order.

use std::sync::Arc;

use candle_core::backend::BackendStorage;
use candle_core::{
    CpuStorage, CudaStorage, CustomOp1, CustomOp2, D, DType, Device, Layout, Result, Shape, Tensor, bail,
};

use super::{Adapter, Experts, HeadRange, LayerCache, Rope, Router, Segment};
use crate::Param;

/// See [`super::add()`].
///
/// # Errors
/// Shapes that differ.
pub fn add(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    a + b
}

/// See [`super::column`].
///
/// # Errors
/// A column that does not exist.
pub fn column(x: &Tensor, i: usize) -> Result<Tensor> {
    x.narrow(1, i, 1)?.contiguous()?.flatten_all()
}

/// See [`super::known`].
///
/// # Errors
/// A device other than the CPU.
pub fn known(x: &Tensor, value: f64, gradient: Vec<f64>) -> Result<Tensor> {
    x.apply_op1(Known { value, gradient })
}

/// A function of which the value and the gradient at its only argument have been computed.
struct Known {
    value: f64,
    gradient: Vec<f64>,
}

impl CustomOp1 for Known {
    fn name(&self) -> &'static str {
        "known"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        let value = match storage.dtype() {
            DType::F64 => CpuStorage::F64(vec![self.value]),
            _ => CpuStorage::F32(vec![self.value as f32]),
        };
        Ok((value, Shape::from(())))
    }

    fn bwd(&self, input: &Tensor, _: &Tensor, outer: &Tensor) -> Result<Option<Tensor>> {
        let gradient = Tensor::from_slice(&self.gradient, self.gradient.len(), &Device::Cpu)?;
        Ok(Some(gradient.to_dtype(input.dtype())?.broadcast_mul(outer)?))
    }
}

/// See [`super::linear`].
///
/// # Errors
/// Shapes that don't fit.
pub fn linear(x: &Tensor, w: &Param, bias: Option<&Param>) -> Result<Tensor> {
    let x = &x.flatten_from(1)?;
    let mut y = x.matmul(&w.value().t()?)?;
    for Adapter { a, b, first, scale } in w.adapters().iter() {
        let part = (x.matmul(&a.value().t()?)?.matmul(&b.value().t()?)? * f64::from(*scale))?;
        let (rows, n, after) = (y.dim(0)?, y.dim(1)?, first + part.dim(1)?);
        let zeros = |width: usize| Tensor::zeros((rows, width), y.dtype(), y.device());
        y = (&y + Tensor::cat(&[zeros(*first)?, part, zeros(n - after)?], 1)?)?;
    }
    match bias {
        Some(bias) => y.broadcast_add(&bias.value()),
        None => Ok(y),
    }
}

/// See [`super::head_linear`].
///
/// # Errors
/// Shapes that don't fit.
pub fn head_linear(x: &Tensor, w: &Param, transposed: bool) -> Result<Tensor> {
    let by_head = x.transpose(0, 1)?.contiguous()?;
    let matrix = if transposed { w.value() } else { w.value().transpose(1, 2)?.contiguous()? };
    let mut y = by_head.matmul(&matrix)?;
    for Adapter { a, b, scale, .. } in w.adapters().iter() {
        let part = match transposed {
            true => by_head.matmul(&b.value())?.broadcast_matmul(&a.value())?,
            false => by_head.broadcast_matmul(&a.value().t()?)?.matmul(&b.value().transpose(1, 2)?)?,
        };
        y = (y + (part * f64::from(*scale))?)?;
    }
    y.transpose(0, 1)?.contiguous()
}

/// See [`super::grouped_linear`].
///
/// # Errors
/// Shapes that don't fit.
pub fn grouped_linear(x: &Tensor, w: &Param, experts: &Arc<Experts>) -> Result<Tensor> {
    let w = w.value();
    let mut parts = Vec::new();
    for (expert, range) in experts.offsets.windows(2).enumerate().filter(|(_, range)| range[0] < range[1]) {
        parts.push(x.narrow(0, range[0], range[1] - range[0])?.matmul(&w.get(expert)?.t()?)?);
    }
    if parts.is_empty() {
        return Tensor::zeros((0, w.dim(1)?), x.dtype(), x.device());
    }
    Tensor::cat(&parts, 0)
}

/// See [`super::gather_rows`].
///
/// # Errors
/// A row that does not exist.
pub fn gather_rows(x: &Tensor, rows: &[u32]) -> Result<Tensor> {
    x.index_select(&Tensor::new(rows, x.device())?, 0)
}

/// See [`super::to_experts`].
///
/// # Errors
/// Shapes that don't fit.
pub fn to_experts(x: &Tensor, experts: &Arc<Experts>) -> Result<Tensor> {
    super::gather_rows(x, &experts.rows)
}

/// See [`super::chosen`].
///
/// # Errors
/// None: the host has chosen.
pub fn chosen(layers: &[Arc<Experts>]) -> Result<Vec<Vec<u32>>> {
    Ok(layers.iter().map(|layer| layer.on_host()).collect())
}

/// See [`super::embed`].
///
/// # Errors
/// An id beyond the table.
pub fn embed(table: &Param, ids: &[u32]) -> Result<Tensor> {
    gather_rows(&table.value(), ids)
}

/// See [`super::combine`].
///
/// # Errors
/// Shapes that don't fit.
pub fn combine(y: &Tensor, weights: &Tensor, experts: &Arc<Experts>) -> Result<Tensor> {
    let (tokens, k) = weights.dims2()?;
    let by_slot = gather_rows(y, &experts.pairs)?.reshape((tokens, k, y.dim(1)?))?;
    by_slot.broadcast_mul(&weights.unsqueeze(2)?)?.sum(1)
}

/// See [`super::rms_norm`].
///
/// # Errors
/// Shapes that don't fit.
pub fn rms_norm(x: &Tensor, w: &Param, eps: f64) -> Result<Tensor> {
    let root = (x.sqr()?.mean_keepdim(D::Minus1)? + eps)?.sqrt()?;
    x.broadcast_div(&root)?.broadcast_mul(&w.value())
}

/// See [`super::silu_mul`].
///
/// # Errors
/// An odd last dimension.
pub fn silu_mul(gate_up: &Tensor) -> Result<Tensor> {
    let width = gate_up.dim(1)? / 2;
    gate_up.narrow(1, 0, width)?.silu()? * gate_up.narrow(1, width, width)?
}

/// See [`super::rope`].
///
/// # Errors
/// A position beyond the table, or another width.
pub fn rope(x: &Tensor, positions: &[u32], table: &Arc<Rope>) -> Result<Tensor> {
    let (rows, heads, width) = x.dims3()?;
    table.check(width, positions, rows)?;
    let cos = gather_rows(&table.cos, positions)?.unsqueeze(1)?;
    let sin = gather_rows(&table.sin, positions)?.unsqueeze(1)?;
    let (a, b) = if table.interleaved {
        let pairs = x.reshape((rows, heads, width / 2, 2))?;
        (pairs.narrow(3, 0, 1)?.squeeze(3)?, pairs.narrow(3, 1, 1)?.squeeze(3)?)
    } else {
        (x.narrow(2, 0, width / 2)?, x.narrow(2, width / 2, width / 2)?)
    };
    let first = (a.broadcast_mul(&cos)? - b.broadcast_mul(&sin)?)?;
    let second = (b.broadcast_mul(&cos)? + a.broadcast_mul(&sin)?)?;
    if table.interleaved {
        Tensor::stack(&[first, second], 3)?.reshape((rows, heads, width))
    } else {
        Tensor::cat(&[first, second], 2)
    }
}

/// See [`super::heads()`].
///
/// # Errors
/// Shapes that don't fit.
pub fn heads(
    x: &Tensor,
    HeadRange { first, count, width }: HeadRange,
    norm: Option<(&Param, f64)>,
    rotation: Option<(&[u32], &Arc<Rope>)>,
) -> Result<Tensor> {
    let part = x.narrow(1, first * width, count * width)?.contiguous()?.reshape((x.dim(0)?, count, width))?;
    let normed = match norm {
        Some((weight, eps)) => rms_norm(&part, weight, eps)?,
        None => part,
    };
    match rotation {
        Some((positions, table)) => rope(&normed, positions, table),
        None => Ok(normed),
    }
}

/// See [`super::attention()`].
///
/// # Errors
/// Shapes that don't fit, or a full slot.
pub fn attention(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    segments: &Arc<[Segment]>,
    scale: f32,
    mut cache: Option<&mut LayerCache>,
) -> Result<Tensor> {
    let heads = q.dim(1)?;
    let mut outputs = Vec::with_capacity(segments.len());
    for segment in segments.iter().filter(|segment| segment.len > 0) {
        let rows = |x: &Tensor| x.narrow(0, segment.start, segment.len);
        let (keys, values) = match cache.as_deref_mut() {
            Some(cache) => cache.append(segment.slot, &rows(k)?, &rows(v)?)?,
            None => (rows(k)?, rows(v)?),
        };
        let by_head = |x: &Tensor| -> Result<Tensor> {
            let (len, groups, width) = x.dims3()?;
            let x = x.transpose(0, 1)?.unsqueeze(1)?.broadcast_as((groups, heads / groups, len, width))?;
            x.reshape((heads, len, width))
        };
        let queries = by_head(&rows(q)?)?;
        let scores = (queries.matmul(&by_head(&keys)?.transpose(1, 2)?.contiguous()?)? * f64::from(scale))?;
        let (len, total) = (segment.len, keys.dim(0)?);
        let mask: Vec<f32> = (0..len * total)
            .map(|i| if i % total <= total - len + i / total { 0.0 } else { f32::NEG_INFINITY })
            .collect();
        let scores = scores.broadcast_add(&Tensor::from_vec(mask, (len, total), q.device())?)?;
        let p = softmax(&scores)?;
        outputs.push(p.matmul(&by_head(&values)?)?.transpose(0, 1)?);
    }
    if outputs.is_empty() {
        return Tensor::zeros((0, heads, v.dim(2)?), q.dtype(), q.device());
    }
    Tensor::cat(&outputs, 0)?.contiguous()
}

/// Softmax over the last dimension, with a gradient.
fn softmax(x: &Tensor) -> Result<Tensor> {
    let e = x.broadcast_sub(&x.max_keepdim(D::Minus1)?.detach())?.exp()?;
    e.broadcast_div(&e.sum_keepdim(D::Minus1)?)
}

/// See [`super::route`].
///
/// # Errors
/// A router that contradicts itself or the shapes, a replayed choice that does not fit.
pub fn route(
    logits: &Tensor,
    bias: Option<&Tensor>,
    router: &Router,
    replayed: Option<&[u32]>,
) -> Result<(Arc<Experts>, Tensor)> {
    let (tokens, experts) = logits.dims2()?;
    router.check(experts, bias)?;
    router.check_replayed(tokens, replayed)?;
    let bias = bias.map(Tensor::to_vec1::<f32>).transpose()?;
    let affinities = if router.sigmoid { (logits.neg()?.exp()? + 1.0)?.recip()? } else { softmax(logits)? };
    let mut scratch = vec![0.0; experts + router.groups];
    let mut chosen = vec![0; tokens * router.chosen];
    for (row, chosen) in affinities.to_vec2::<f32>()?.iter().zip(chosen.chunks_mut(router.chosen)) {
        router.choose(row, bias.as_deref(), &mut scratch, chosen);
    }
    let chosen = replayed.map_or(chosen, <[u32]>::to_vec);
    let ids = Tensor::from_slice(&chosen, (tokens, router.chosen), logits.device())?;
    let mut weights = affinities.gather(&ids, 1)?;
    if router.normalize {
        weights = weights.broadcast_div(&(weights.sum_keepdim(1)? + 1e-20)?)?;
    }
    Ok((Arc::new(Experts::new(&chosen, router.chosen, experts)), (weights * router.scale)?))
}

/// See [`super::balance`].
///
/// # Errors
/// Shapes that don't fit.
pub fn balance(
    weights: &Tensor,
    logits: &Tensor,
    chosen: &[u32],
    router: &Router,
    segments: &Arc<[Segment]>,
    factor: f64,
) -> Result<(Tensor, f64)> {
    let affinities = if router.sigmoid { (logits.neg()?.exp()? + 1.0)?.recip()? } else { softmax(logits)? };
    let shares = affinities.broadcast_div(&affinities.sum_keepdim(1)?)?;
    let mut loss = Tensor::zeros((), logits.dtype(), logits.device())?;
    for &Segment { start, len, .. } in segments.iter().filter(|segment| segment.len > 0) {
        let mut fractions = vec![0.0; router.experts];
        let each = router.experts as f64 / (router.chosen * len) as f64;
        chosen[start * router.chosen..(start + len) * router.chosen]
            .iter()
            .for_each(|&expert| fractions[expert as usize] += each);
        let fractions = Tensor::new(fractions, logits.device())?.to_dtype(logits.dtype())?;
        loss = (loss + (shares.narrow(0, start, len)?.mean(0)? * fractions)?.sum_all()?)?;
    }
    let value = f64::from(loss.to_dtype(DType::F32)?.to_scalar::<f32>()?);
    Ok((weights.force_contiguous()?.apply_op2(&(loss * factor)?, Beside)?, value))
}

/// The first argument; the second, a scalar, counts as a part of whatever the backward pass starts from.
struct Beside;

impl CustomOp2 for Beside {
    fn name(&self) -> &'static str {
        "beside"
    }

    fn cpu_fwd(&self, a: &CpuStorage, layout: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        Ok((a.try_clone(layout)?, layout.shape().clone()))
    }

    fn cuda_fwd(&self, a: &CudaStorage, layout: &Layout, _: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
        Ok((a.try_clone(layout)?, layout.shape().clone()))
    }

    fn bwd(&self, _: &Tensor, b: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        Ok((Some(grad.clone()), Some(b.ones_like()?)))
    }
}

/// See [`super::token_logprobs`].
///
/// # Errors
/// Shapes that don't fit, or a temperature that is not above 0.
pub fn token_logprobs(hidden: &Tensor, head: &Param, targets: &[u32], temperature: f64) -> Result<Tensor> {
    if temperature <= 0.0 || hidden.dim(0)? != targets.len() {
        bail!("token_logprobs: a target for each row and a temperature above 0, not {temperature}");
    }
    let z = (hidden.matmul(&head.value().t()?)? / temperature)?;
    let z = z.broadcast_sub(&z.max_keepdim(1)?.detach())?;
    let e = z.exp()?;
    let sum = e.sum_keepdim(1)?;
    let ln = sum.log()?;
    let targets = Tensor::from_slice(targets, (targets.len(), 1), hidden.device())?;
    let logp = (z.gather(&targets, 1)? - &ln)?;
    let entropy = (ln - (e * z)?.sum_keepdim(1)?.div(&sum)?)?;
    Tensor::cat(&[logp, entropy], 1)
}

/// See [`super::latent_query`].
///
/// # Errors
/// Shapes that don't fit.
pub fn latent_query(q: &Tensor, key: &Param, positions: &[u32], table: &Arc<Rope>) -> Result<Tensor> {
    let (heads, nope, _) = key.shape().dims3()?;
    let q = q.reshape((positions.len(), heads, ()))?;
    let q_nope = head_linear(&q.narrow(2, 0, nope)?.contiguous()?, key, true)?;
    let q_rope = rope(&q.narrow(2, nope, q.dim(2)? - nope)?.contiguous()?, positions, table)?;
    Tensor::cat(&[q_nope, q_rope], D::Minus1)
}

/// See [`super::latent_key`].
///
/// # Errors
/// Shapes that don't fit.
pub fn latent_key(kv: &Tensor, norm: &Param, eps: f64, positions: &[u32], table: &Arc<Rope>) -> Result<Tensor> {
    let (rows, width) = kv.dims2()?;
    let latent = norm.elem_count();
    let normed = rms_norm(&kv.narrow(1, 0, latent)?.contiguous()?, norm, eps)?.unsqueeze(1)?;
    let rotated = kv.narrow(1, latent, width - latent)?.contiguous()?.reshape((rows, 1, width - latent))?;
    Tensor::cat(&[normed, rope(&rotated, positions, table)?], D::Minus1)
}

/// See [`super::latent_attention`].
///
/// # Errors
/// Shapes that don't fit, or a full slot.
pub fn latent_attention(
    q: &Tensor,
    k: &Tensor,
    latent: usize,
    segments: &Arc<[Segment]>,
    scale: f32,
    cache: Option<&mut LayerCache>,
) -> Result<Tensor> {
    attention(q, k, &k.narrow(2, 0, latent)?.contiguous()?, segments, scale, cache)
}
