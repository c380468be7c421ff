//! The router and its experts. Which token went where stays on the device.

use std::fmt;
use std::sync::Arc;

use candle_core::cuda_backend::cudarc::driver::CudaSlice;
use candle_core::{Result, Tensor, bail};

use super::gpu::{Gpu, Weight, at, launch, on_gpu, start};
use super::node::node;
use crate::Param;
use crate::ops::{Experts, Router, slow};

/// Rows and columns of a tile of a product; the kernels' own.
const TILE: (usize, usize) = (32, 64);

/// The pairs of one step, sorted by expert, on the device; as [`Experts`] has them on the host.
pub(crate) struct Sorted {
    gpu: Gpu,
    slots: usize,
    experts: usize,
    chosen: CudaSlice<u32>,
    offsets: CudaSlice<u32>,
    rows: CudaSlice<u32>,
    pairs: CudaSlice<u32>,
}

impl fmt::Debug for Sorted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} slots of {} experts on the GPU", self.slots, self.experts)
    }
}

impl Sorted {
    /// Blocks for the tiles of rows, however the pairs fall.
    fn tiles(&self) -> usize {
        self.slots.div_ceil(TILE.0) + self.experts.min(self.slots)
    }
}

/// The choice on the device, if it was made there.
fn sorted(experts: &Experts) -> Option<&Arc<Sorted>> {
    experts.on_device.as_ref()
}

/// See [`crate::ops::route`].
///
/// # Errors
/// A router that contradicts itself or the shapes, a replayed choice that does not fit.
pub fn route(
    logits: &Tensor,
    bias: Option<&Tensor>,
    router: &Router,
    replayed: Option<&[u32]>,
) -> Result<(Arc<Experts>, Tensor)> {
    if !on_gpu(&[logits]) {
        return slow::route(logits, bias, router, replayed);
    }
    let (gpu, logits) = (Gpu::of(logits)?, &logits.contiguous()?);
    let (tokens, experts) = logits.dims2()?;
    router.check(experts, bias)?;
    router.check_replayed(tokens, replayed)?;
    let (router, k) = (*router, router.chosen);
    let slots = tokens * k;
    let affinities = gpu.memory::<f32>(tokens * experts)?;
    let weights = gpu.memory::<f32>(slots)?;
    let chosen = gpu.memory::<u32>(slots)?;
    let scale = router.scale as f32;
    let (sigmoids, normalize) = (u32::from(router.sigmoid), u32::from(router.normalize));
    let bias = bias.map_or(Ok(0), start)?;
    let replayed = replayed.map(|choice| gpu.upload(choice)).transpose()?;
    launch!(
        gpu, "route", tokens, 32, 4 * (experts + router.groups + k);
        start(logits)?, bias, replayed.as_ref().map_or(0, at), at(&affinities), at(&chosen), at(&weights),
        experts as u32, k as u32,
        router.groups as u32, router.groups_kept as u32, sigmoids, normalize, scale,
    );
    let (counts, offsets) = (gpu.memory::<u32>(experts)?, gpu.memory::<u32>(experts + 1)?);
    let (rows, pairs) = (gpu.memory::<u32>(slots)?, gpu.memory::<u32>(slots)?);
    launch!(gpu, "count_experts", experts, 256, 0; at(&chosen), at(&counts), slots as u32);
    launch!(
        gpu, "sort_by_expert", experts, 256, 0;
        at(&chosen), at(&counts), at(&offsets), at(&rows), at(&pairs), slots as u32, k as u32,
    );
    let sorted = Arc::new(Sorted { gpu: gpu.clone(), slots, experts, chosen, offsets, rows, pairs });
    let backward = {
        let (gpu, sorted) = (gpu.clone(), sorted.clone());
        move |_: &Tensor, grad: &Tensor| {
            let dx = gpu.memory::<f32>(tokens * experts)?;
            launch!(
                gpu, "route_backward", tokens, 32, 0;
                at(&affinities), at(&sorted.chosen), start(grad)?, at(&dx), experts as u32, k as u32, sigmoids,
                normalize, scale,
            );
            Ok([Some(gpu.tensor(dx, (tokens, experts)))])
        }
    };
    let weights = node(&gpu, "route", [logits], weights, (tokens, k), backward)?;
    Ok((Arc::new(Experts::on_device(sorted, k)), weights))
}

/// See [`crate::ops::chosen`]: one download for all layers.
///
/// # Errors
/// The device fails.
pub fn chosen(layers: &[Arc<Experts>]) -> Result<Vec<Vec<u32>>> {
    let sorted: Option<Vec<_>> = layers.iter().map(|layer| sorted(layer)).collect();
    let Some(sorted) = sorted.filter(|sorted| !sorted.is_empty()) else {
        return slow::chosen(layers);
    };
    let gpu = &sorted[0].gpu;
    let total = sorted.iter().map(|layer| layer.slots).sum();
    let all = gpu.memory::<u32>(total)?;
    let mut first = 0;
    for layer in &sorted {
        let blocks = layer.slots.div_ceil(256);
        launch!(gpu, "copy_numbers", blocks, 256, 0; at(&layer.chosen), at(&all) + 4 * first as u64, layer.slots as u32);
        first += layer.slots;
    }
    let all = gpu.download(&all)?;
    let mut rest = all.as_slice();
    Ok(sorted
        .iter()
        .map(|layer| {
            let (own, others) = rest.split_at(layer.slots);
            rest = others;
            own.to_vec()
        })
        .collect())
}

/// See [`crate::ops::to_experts`].
///
/// # Errors
/// Shapes that don't fit.
pub fn to_experts(x: &Tensor, experts: &Arc<Experts>) -> Result<Tensor> {
    let Some(sorted) = sorted(experts).filter(|_| on_gpu(&[x])) else {
        return slow::to_experts(x, experts);
    };
    let (gpu, x) = (Gpu::of(x)?, &x.contiguous()?);
    let ((tokens, d), k) = (x.dims2()?, experts.per_token);
    if tokens * k != sorted.slots {
        bail!("to_experts: {:?} for {} pairs, {k} of a token", x.shape(), sorted.slots);
    }
    let out = gpu.memory::<f32>(sorted.slots * d)?;
    launch!(gpu, "gather_f32", sorted.slots, 128, 0; start(x)?, at(&sorted.rows), at(&out), d as u32);
    let backward = {
        let (gpu, sorted) = (gpu.clone(), sorted.clone());
        move |_: &Tensor, grad: &Tensor| {
            let dx = gpu.memory::<f32>(tokens * d)?;
            launch!(gpu, "gather_pairs", tokens, 128, 0; start(grad)?, at(&sorted.pairs), at(&dx), k as u32, d as u32);
            Ok([Some(gpu.tensor(dx, (tokens, d)))])
        }
    };
    node(&gpu, "to_experts", [x], out, (sorted.slots, d), backward)
}

/// See [`crate::ops::grouped_linear`].
///
/// # Errors
/// Shapes that don't fit.
pub fn grouped_linear(x: &Tensor, w: &Param, experts: &Arc<Experts>) -> Result<Tensor> {
    let weight = w.value();
    let Some(sorted) = sorted(experts).filter(|_| on_gpu(&[x, &weight])) else {
        return slow::grouped_linear(x, w, experts);
    };
    let (gpu, x, sorted) = (Gpu::of(x)?, &x.contiguous()?, sorted.clone());
    let (m, k) = x.dims2()?;
    let (count, n, width) = w.shape().dims3()?;
    if width != k || m != sorted.slots || count != sorted.experts {
        bail!("grouped_linear: x is {:?}, `{}` {:?} for {m} pairs", x.shape(), w.name(), w.shape());
    }
    let out = gpu.memory::<f32>(m * n)?;
    let sizes = (count as u32, n as u32, k as u32);
    let read = Weight::of(w)?;
    launch!(
        gpu, read.kernel("grouped_f32", "grouped_bf16"), (n.div_ceil(TILE.1), sorted.tiles(), 1), 256, 0;
        start(x)?, read.at, at(&sorted.offsets), at(&out), sizes.0, sizes.1, sizes.2,
    );
    let backward = {
        let (gpu, x, w) = (gpu.clone(), x.clone(), w.clone());
        move |_: &Tensor, grad: &Tensor| {
            let dy = start(grad)?;
            if w.is_tracked() {
                w.accumulate_on_device(|sums| {
                    launch!(
                        gpu, "grouped_weight", (k.div_ceil(TILE.1), n.div_ceil(TILE.0), count), 256, 0;
                        dy, start(&x)?, at(&sorted.offsets), start(sums)?, sizes.1, sizes.2,
                    );
                    Ok(())
                })?;
            }
            if !x.track_op() {
                return Ok([None, None]);
            }
            let (dx, read) = (gpu.memory::<f32>(m * k)?, Weight::of(&w)?);
            launch!(
                gpu, read.kernel("grouped_input_f32", "grouped_input_bf16"),
                (k.div_ceil(TILE.1), sorted.tiles(), 1), 256, 0;
                dy, read.at, at(&sorted.offsets), at(&dx), sizes.0, sizes.1, sizes.2,
            );
            Ok([Some(gpu.tensor(dx, (m, k))), None])
        }
    };
    node(&gpu, "grouped_linear", [x, &weight], out, (m, n), backward)
}

/// See [`crate::ops::combine`].
///
/// # Errors
/// Shapes that don't fit.
pub fn combine(y: &Tensor, weights: &Tensor, experts: &Arc<Experts>) -> Result<Tensor> {
    let Some(sorted) = sorted(experts).filter(|_| on_gpu(&[y, weights])) else {
        return slow::combine(y, weights, experts);
    };
    let (gpu, y, weights, sorted) = (Gpu::of(y)?, &y.contiguous()?, &weights.contiguous()?, sorted.clone());
    let ((pairs, d), (tokens, k)) = (y.dims2()?, weights.dims2()?);
    if pairs != tokens * k || sorted.slots != pairs || experts.per_token != k {
        bail!("combine: {:?} weighed by {:?} for {} pairs", y.shape(), weights.shape(), sorted.slots);
    }
    let out = gpu.memory::<f32>(tokens * d)?;
    launch!(
        gpu, "combine", tokens, 128, 0;
        start(y)?, start(weights)?, at(&sorted.pairs), at(&out), k as u32, d as u32,
    );
    let backward = {
        let (gpu, y, weights) = (gpu.clone(), y.clone(), weights.clone());
        move |_: &Tensor, grad: &Tensor| {
            let (dy, dw) = (gpu.memory::<f32>(pairs * d)?, gpu.memory::<f32>(pairs)?);
            launch!(
                gpu, "combine_backward", pairs, 128, 0;
                start(&y)?, start(&weights)?, at(&sorted.pairs), start(grad)?, at(&dy), at(&dw), k as u32, d as u32,
            );
            Ok([Some(gpu.tensor(dy, (pairs, d))), Some(gpu.tensor(dw, (tokens, k)))])
        }
    };
    node(&gpu, "combine", [y, weights], out, (tokens, d), backward)
}
