//! Causal attention over packed sequences, with or without a cache.

use std::sync::Arc;

use candle_core::cuda_backend::cudarc::driver::{CudaSlice, DeviceRepr};
use candle_core::{Result, Tensor, bail};

use super::gpu::{Gpu, at, blocks, launch, on_gpu, start};
use super::node::node;
use crate::ops::{LayerCache, Segment, slow};

/// Pairs of token and query head, or keys, of a tile; the kernels' own.
const TILE: usize = 16;

/// The dynamic shared memory that a block may have, in bytes: what Ampere and later cards grant beside the static.
const SHARED: usize = 150 << 10;

/// The sizes as the kernels read them.
#[derive(Clone, Copy)]
#[repr(C)]
struct Sizes {
    heads: u32,
    groups: u32,
    dk: u32,
    dv: u32,
    k_row: u32,
    v_row: u32,
    k_group: u32,
    v_group: u32,
    capacity: u32,
    scale: f32,
}

// SAFETY: plain numbers, laid out as the kernels' struct of the same name.
unsafe impl DeviceRepr for Sizes {}

/// The keys and values of all slots of one layer: `[slots, capacity, groups, dk]`, and of `dv` unless values are parts of
/// the keys.
pub(crate) struct Cached {
    gpu: Gpu,
    keys: CudaSlice<f32>,
    values: Option<CudaSlice<f32>>,
    /// Slots to copy before anything is appended: from, to, tokens.
    forks: Vec<(usize, usize, usize)>,
}

impl Cached {
    /// Room for `tokens` in all.
    pub fn new(gpu: &Gpu, tokens: usize, key: usize, value: Option<usize>) -> Result<Self> {
        let values = value.map(|width| gpu.memory(tokens * width)).transpose()?;
        Ok(Self { gpu: gpu.clone(), keys: gpu.memory(tokens * key)?, values, forks: Vec::new() })
    }

    /// Has slot `to` become a copy of the first `tokens` of slot `from` before the next tokens come.
    pub fn fork(&mut self, from: usize, to: usize, tokens: usize) {
        self.forks.push((from, to, tokens));
    }

    /// Makes the copies that are due, in the order in which they were asked for.
    fn settle(&mut self, capacity: usize, key: usize, value: usize) -> Result<()> {
        for (from, to, tokens) in self.forks.drain(..) {
            let gpu = &self.gpu;
            let copy = |memory: &CudaSlice<f32>, width: usize| -> Result<()> {
                let begin = |slot: usize| (slot * capacity * width) as u64;
                let count = tokens * width;
                launch!(gpu, "copy_within", blocks(count), 256, 0; at(memory), begin(from), begin(to), count as u64);
                Ok(())
            };
            copy(&self.keys, key)?;
            self.values.as_ref().map_or(Ok(()), |values| copy(values, value))?;
        }
        Ok(())
    }
}

/// See [`crate::ops::attention()`].
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
    if !on_gpu(&[q, k, v]) {
        return slow::attention(q, k, v, segments, scale, cache);
    }
    let (q, k, v) = (&q.contiguous()?, &k.contiguous()?, &v.contiguous()?);
    let sizes = check(q, k, v.dims3()?, scale, segments, cache.is_some())?;
    let sizes = Sizes { v_row: sizes.groups * sizes.dv, v_group: sizes.dv, ..sizes };
    let (out, state) = forward(q, k, Some(v), &sizes, segments, cache)?;
    let (gpu, tokens) = (Gpu::of(q)?, q.dim(0)?);
    let shape = (tokens, sizes.heads as usize, sizes.dv as usize);
    let backward = {
        let (gpu, q, k, v, segments) = (gpu.clone(), q.clone(), k.clone(), v.clone(), segments.clone());
        move |out: &Tensor, grad: &Tensor| {
            let (dk, dv) = (gpu.memory::<f32>(k.elem_count())?, gpu.memory::<f32>(v.elem_count())?);
            let inputs = [start(&q)?, start(&k)?, start(&v)?, start(out)?, start(grad)?, at(&state)];
            let dq = run_backward(&gpu, inputs, &sizes, &segments, at(&dk), at(&dv))?;
            Ok([(dq, &q), (dk, &k), (dv, &v)].map(|(memory, of)| Some(gpu.tensor(memory, of.shape()))))
        }
    };
    node(&gpu, "attention", [q, k, v], out, shape, backward)
}

/// See [`crate::ops::latent_attention`].
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
    if !on_gpu(&[q, k]) {
        return slow::latent_attention(q, k, latent, segments, scale, cache);
    }
    let (q, k) = (&q.contiguous()?, &k.contiguous()?);
    let (tokens, groups, width) = k.dims3()?;
    if latent > width {
        bail!("attention: values of {latent} in keys of {width}");
    }
    let sizes = check(q, k, (tokens, groups, latent), scale, segments, cache.is_some())?;
    let (out, state) = forward(q, k, None, &sizes, segments, cache)?;
    let gpu = Gpu::of(q)?;
    let backward = {
        let (gpu, q, k, segments) = (gpu.clone(), q.clone(), k.clone(), segments.clone());
        move |out: &Tensor, grad: &Tensor| {
            let dk = gpu.memory::<f32>(k.elem_count())?;
            let inputs = [start(&q)?, start(&k)?, start(&k)?, start(out)?, start(grad)?, at(&state)];
            let dq = run_backward(&gpu, inputs, &sizes, &segments, at(&dk), 0)?;
            Ok([(dq, &q), (dk, &k)].map(|(memory, of)| Some(gpu.tensor(memory, of.shape()))))
        }
    };
    node(&gpu, "latent_attention", [q, k], out, (tokens, sizes.heads as usize, latent), backward)
}

/// The sizes, with values that lie where the keys do.
fn check(
    q: &Tensor,
    k: &Tensor,
    (rows, value_groups, dv): (usize, usize, usize),
    scale: f32,
    segments: &[Segment],
    cached: bool,
) -> Result<Sizes> {
    let ((tokens, heads, dk), (key_rows, groups, key_width)) = (q.dims3()?, k.dims3()?);
    let fits = rows == tokens && key_rows == tokens && key_width == dk && value_groups == groups;
    if !fits || groups == 0 || heads == 0 || heads % groups != 0 || dk == 0 || dv == 0 {
        bail!("attention: q is {:?}, k {:?}, v {:?}", q.shape(), k.shape(), (rows, value_groups, dv));
    }
    if 4 * TILE * (dk + dv) > SHARED {
        bail!("attention: heads of {dk} and {dv} are too wide for the GPU's kernels");
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
    if cached && (q.track_op() || k.track_op()) {
        bail!("attention: there is no gradient through a cache");
    }
    let (heads, groups, dk, dv) = (heads as u32, groups as u32, dk as u32, dv as u32);
    let row = groups * dk;
    Ok(Sizes { heads, groups, dk, dv, k_row: row, v_row: row, k_group: dk, v_group: dk, capacity: 0, scale })
}

/// What the host says of tiles of `count(segment)` items each: of each its segment's first row and length, its own first
/// item, the tokens before the segment, and the slot.
fn works(segments: &[Segment], before: &[usize], count: impl Fn(&Segment) -> usize) -> Vec<u32> {
    let mut works = Vec::new();
    for (segment, before) in segments.iter().zip(before) {
        for first in (0..count(segment)).step_by(TILE) {
            works.extend([segment.start, segment.len, first, *before, segment.slot].map(|x| x as u32));
        }
    }
    works
}

/// The output, and of each of its rows the logarithm of the sum of the scores' exponentials.
fn forward(
    q: &Tensor,
    k: &Tensor,
    v: Option<&Tensor>,
    sizes: &Sizes,
    segments: &[Segment],
    mut cache: Option<&mut LayerCache>,
) -> Result<(CudaSlice<f32>, CudaSlice<f32>)> {
    let gpu = Gpu::of(q)?;
    let (mut sizes, tokens) = (*sizes, q.dim(0)?);
    let (heads, groups, dv) = (sizes.heads as usize, sizes.groups as usize, sizes.dv as usize);
    let (mut keys, mut values) = (start(k)?, v.map_or_else(|| start(k), start)?);
    let mut before = vec![0; segments.len()];
    if let Some(cache) = cache.as_deref_mut() {
        let (key_width, value_width) = (sizes.k_row as usize, v.map_or(0, |_| sizes.v_row as usize));
        let mut places = Vec::with_capacity(tokens);
        for (segment, before) in segments.iter().zip(&mut before) {
            *before = cache.grow(segment.slot, segment.len, (groups, sizes.dk as usize, dv))?;
            let first = segment.slot * cache.capacity() + *before;
            places.extend((first..first + segment.len).map(|place| place as u32));
        }
        let capacity = cache.capacity();
        let cached = cache.on_device(|tokens| Cached::new(&gpu, tokens, key_width, v.map(|_| value_width)))?;
        cached.settle(capacity, key_width, value_width)?;
        let places = gpu.told(&places)?;
        let to_keys = at(&cached.keys);
        let to_values = cached.values.as_ref().map_or(to_keys, at);
        launch!(
            gpu, "append", tokens, 128, 0;
            keys, values, to_keys, to_values, at(&places), key_width as u32, value_width as u32,
        );
        (keys, values) = (to_keys, to_values);
        sizes.capacity = capacity as u32;
    }
    let repeats = heads / groups;
    let works = works(segments, &before, |segment| segment.len * repeats);
    let (tiles, works) = (works.len() / 5, gpu.told(&works)?);
    let (out, state) = (gpu.memory::<f32>(tokens * heads * dv)?, gpu.memory::<f32>(tokens * heads)?);
    launch!(
        gpu, "attention_forward", (tiles, groups, 1), 256, 4 * TILE * dv;
        start(q)?, keys, values, at(&works), at(&out), at(&state), sizes,
    );
    Ok((out, state))
}

/// Writes the gradients of keys and values (the former holds both if the latter is nowhere), gives that of queries.
fn run_backward(
    gpu: &Gpu,
    [q, k, v, out, grad, state]: [u64; 6],
    sizes: &Sizes,
    segments: &[Segment],
    dk_to: u64,
    dv_to: u64,
) -> Result<CudaSlice<f32>> {
    let tokens: usize = segments.iter().map(|segment| segment.len).sum();
    let (heads, groups) = (sizes.heads as usize, sizes.groups as usize);
    let (dk, dv, repeats) = (sizes.dk as usize, sizes.dv as usize, heads / groups);
    let before = vec![0; segments.len()];
    let inner = gpu.memory::<f32>(tokens * heads)?;
    launch!(gpu, "attention_inner", tokens * heads, 32, 0; out, grad, at(&inner), sizes.dv);
    let dq = gpu.memory::<f32>(tokens * heads * dk)?;
    let queries = works(segments, &before, |segment| segment.len * repeats);
    let (tiles, queries) = (queries.len() / 5, gpu.told(&queries)?);
    launch!(
        gpu, "attention_backward_q", (tiles, groups, 1), 256, 4 * TILE * dk;
        q, k, v, grad, state, at(&inner), at(&queries), at(&dq), *sizes,
    );
    let keys = works(segments, &before, |segment| segment.len);
    let (tiles, keys) = (keys.len() / 5, gpu.told(&keys)?);
    let width = if dv_to == 0 { dk } else { dk + dv };
    launch!(
        gpu, "attention_backward_kv", (tiles, groups, 1), 256, 4 * TILE * width;
        q, k, v, grad, state, at(&inner), at(&keys), dk_to, dv_to, *sizes,
    );
    Ok(dq)
}
