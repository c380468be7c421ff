//! A small network of all fused operations, to be compared with itself bit by bit.

use std::sync::Arc;

use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Result, Tensor};
use kernels::Param;
use kernels::ops::{self, HeadRange, LayerCache, Rope, Router, Segment};

use super::{bits, numbers, tensor};

const VOCAB: usize = 37;
const WIDTH: usize = 271;
const HEADS: usize = 4;
const NOPE: usize = 13;
const ROTATED: usize = 10;
const LATENT: usize = 35;
const VALUE: usize = 19;
const GROUPS: usize = 2;
const DK: usize = 18;
const INNER: usize = 29;
const EPS: f64 = 1e-6;
const SCALE: f32 = 0.4;
const CONTEXT: usize = 160;
const ROUTER: Router =
    Router { experts: 8, chosen: 3, groups: 4, groups_kept: 2, sigmoid: true, normalize: true, scale: 1.5 };

/// Latent attention, grouped-query attention, and experts, each behind a norm, between an embedding and a head.
pub struct Network {
    params: Vec<Param>,
    latent_rope: Arc<Rope>,
    rope: Arc<Rope>,
}

/// Sequences, packed.
struct Batch {
    tokens: Vec<u32>,
    positions: Vec<u32>,
    segments: Arc<[Segment]>,
}

/// The shapes of the parameters.
const SHAPES: [&[usize]; 18] = [
    &[VOCAB, WIDTH],
    &[WIDTH],
    &[HEADS * (NOPE + ROTATED), WIDTH],
    &[HEADS, NOPE, LATENT],
    &[LATENT + ROTATED, WIDTH],
    &[LATENT],
    &[HEADS, VALUE, LATENT],
    &[WIDTH, HEADS * VALUE],
    &[WIDTH],
    &[WIDTH],
    &[(HEADS + 2 * GROUPS) * DK, WIDTH],
    &[DK],
    &[DK],
    &[WIDTH, HEADS * DK],
    &[ROUTER.experts, WIDTH],
    &[ROUTER.experts, 2 * INNER, WIDTH],
    &[ROUTER.experts, WIDTH, INNER],
    &[VOCAB, WIDTH],
];

impl Network {
    pub fn new() -> Self {
        Self::of(|_, param| param)
    }

    /// The network with products that read weights in bf16.
    pub fn in_bf16() -> Self {
        Self::of(|is_factor, param| if is_factor { param.computing_in(DType::BF16).unwrap() } else { param })
    }

    /// The network with weights in f32 that are what bf16 can hold.
    pub fn rounded_to_bf16() -> Self {
        Self::of(|is_factor, param| {
            if !is_factor {
                return param;
            }
            let rounded = param.value().detach().to_dtype(DType::BF16).unwrap().to_dtype(DType::F32).unwrap();
            Param::new(param.name(), rounded).unwrap()
        })
    }

    /// The network with its parameters as `change` makes them, which is told whether one is a factor of products.
    fn of(change: impl Fn(bool, Param) -> Param) -> Self {
        let param = |(i, shape): (usize, &&[usize])| {
            let value = (tensor(i as u64, *shape) * 0.3).unwrap();
            change(i > 0 && shape.len() > 1, Param::new(&format!("p{i}"), value).unwrap())
        };
        let rope = |width: usize, interleaved: bool| {
            let frequencies: Vec<f64> = (0..width / 2).map(|i| 0.7f64.powi(i as i32)).collect();
            Arc::new(Rope::new(&frequencies, 1.0, CONTEXT, interleaved, &Device::Cpu).unwrap())
        };
        let params = SHAPES.iter().enumerate().map(param).collect();
        Self { params, latent_rope: rope(ROTATED, true), rope: rope(DK, false) }
    }

    /// Sequences of which some fill blocks of attention and some don't.
    pub fn sequences() -> Vec<Vec<u32>> {
        let token = |x: f32| ((x + 1.0) * 0.5 * VOCAB as f32) as u32;
        let sequence = |(i, len): (usize, usize)| numbers(i as u64, len).into_iter().map(token).collect();
        [1, 70, 131, 33].into_iter().enumerate().map(sequence).collect()
    }

    /// Overwrites a row of the embedding.
    pub fn embed_as(&self, token: u32, value: f32) {
        let mut rows = self.params[0].value().to_vec2::<f32>().unwrap();
        rows[token as usize].fill(value);
        self.params[0].set(&Tensor::new(rows, &Device::Cpu).unwrap()).unwrap();
    }

    fn hidden(&self, p: &[Param], batch: &Batch, mut caches: Option<&mut [LayerCache; 2]>) -> Result<Tensor> {
        let segments = &batch.segments;
        let x = ops::embed(&p[0], &batch.tokens)?;

        let normed = ops::rms_norm(&x, &p[1], EPS)?;
        let q = ops::linear(&normed, &p[2], None)?;
        let q = ops::latent_query(&q, &p[3], &batch.positions, &self.latent_rope)?;
        let kv = ops::linear(&normed, &p[4], None)?;
        let k = ops::latent_key(&kv, &p[5], EPS, &batch.positions, &self.latent_rope)?;
        let cache = caches.as_deref_mut().map(|caches| &mut caches[0]);
        let mixed = ops::latent_attention(&q, &k, LATENT, segments, SCALE, cache)?;
        let mixed = ops::head_linear(&mixed, &p[6], false)?;
        let x = ops::add(&x, &ops::linear(&mixed, &p[7], Some(&p[8]))?)?;

        let normed = ops::rms_norm(&x, &p[9], EPS)?;
        let joined = ops::linear(&normed, &p[10], None)?;
        let range = |first, count| HeadRange { first, count, width: DK };
        let rotation = Some((batch.positions.as_slice(), &self.rope));
        let q = ops::heads(&joined, range(0, HEADS), Some((&p[11], EPS)), rotation)?;
        let k = ops::heads(&joined, range(HEADS, GROUPS), Some((&p[12], EPS)), rotation)?;
        let v = ops::heads(&joined, range(HEADS + GROUPS, GROUPS), None, None)?;
        let cache = caches.map(|caches| &mut caches[1]);
        let mixed = ops::attention(&q, &k, &v, segments, SCALE, cache)?;
        let x = ops::add(&x, &ops::linear(&mixed, &p[13], None)?)?;

        let bias = Tensor::full(0.1f32, ROUTER.experts, &Device::Cpu)?;
        let (experts, weights) = ops::route(&ops::linear(&x, &p[14], None)?, Some(&bias), &ROUTER, None)?;
        let inner = ops::grouped_linear(&ops::to_experts(&x, &experts)?, &p[15], &experts)?;
        let outputs = ops::grouped_linear(&ops::silu_mul(&inner)?, &p[16], &experts)?;
        ops::add(&x, &ops::combine(&outputs, &weights, &experts)?)
    }

    /// Bits of the last hidden states, and of log-probability and entropy of each token under the one after it.
    pub fn forward(&self, sequences: &[Vec<u32>]) -> [Vec<u32>; 2] {
        let batch = Batch::of(sequences);
        let hidden = self.hidden(&self.params, &batch, None).unwrap();
        let out = ops::token_logprobs(&hidden, &self.params[17], &batch.targets(), 0.8).unwrap();
        [bits(&hidden), bits(&out)]
    }

    /// Bits of the gradients of all parameters after one backward pass for each batch.
    pub fn gradients(&self, batches: &[&[Vec<u32>]]) -> Vec<Vec<u32>> {
        self.gradients_by(kernels::backward, batches)
    }

    /// The same by another walk through the graph.
    pub fn gradients_by(&self, walk: fn(&Tensor) -> Result<GradStore>, batches: &[&[Vec<u32>]]) -> Vec<Vec<u32>> {
        self.params.iter().for_each(Param::zero_grad);
        for sequences in batches {
            let batch = Batch::of(sequences);
            let hidden = self.hidden(&self.params, &batch, None).unwrap();
            let out = ops::token_logprobs(&hidden, &self.params[17], &batch.targets(), 0.8).unwrap();
            let parts = [0, 1].map(|part| {
                let weights = batch.positions.iter().map(|&p| [1.0 + f64::from(p) * 0.01, -0.3][part]).collect();
                ops::known(&ops::column(&out, part).unwrap(), 0.0, weights).unwrap()
            });
            let mut store = walk(&ops::add(&parts[0], &parts[1]).unwrap()).unwrap();
            self.params.iter().for_each(|param| param.collect(&mut store).unwrap());
        }
        self.params.iter().map(|param| bits(&param.grad().unwrap())).collect()
    }

    /// Bits of the last hidden states, computed with caches: the first tokens of each sequence at once, the others one by
    /// one, all sequences side by side. Each sequence continues in a copy of the slot in which it began.
    pub fn decode(&self, sequences: &[Vec<u32>], first: usize) -> Vec<u32> {
        let slots = 2 * sequences.len();
        let mut caches = [
            LayerCache::new(slots, CONTEXT, 1, LATENT + ROTATED, LATENT),
            LayerCache::new(slots, CONTEXT, GROUPS, DK, DK),
        ];
        let params: Vec<Param> = self.params.iter().map(Param::detached).collect();
        let longest = sequences.iter().map(Vec::len).max().unwrap();
        let mut rows = vec![Vec::new(); sequences.len()];
        let mut from = 0;
        while from < longest {
            let to = if from == 0 { first } else { from + 1 };
            let mut batch = Batch { tokens: Vec::new(), positions: Vec::new(), segments: Arc::new([]) };
            let mut segments = Vec::new();
            for (i, sequence) in sequences.iter().enumerate().filter(|(_, sequence)| sequence.len() > from) {
                let to = to.min(sequence.len());
                if from == first {
                    caches.iter_mut().for_each(|cache| cache.fork(2 * i, 2 * i + 1));
                }
                let slot = 2 * i + usize::from(from >= first);
                segments.push(Segment { start: batch.tokens.len(), len: to - from, slot });
                batch.tokens.extend(&sequence[from..to]);
                batch.positions.extend(from as u32..to as u32);
            }
            batch.segments = segments.into();
            let hidden = bits(&self.hidden(&params, &batch, Some(&mut caches)).unwrap());
            for segment in batch.segments.iter() {
                rows[segment.slot / 2].extend(&hidden[segment.start * WIDTH..(segment.start + segment.len) * WIDTH]);
            }
            from = to;
        }
        rows.concat()
    }
}

impl Batch {
    fn of(sequences: &[Vec<u32>]) -> Self {
        let mut segments = Vec::new();
        let mut start = 0;
        for (slot, sequence) in sequences.iter().enumerate() {
            segments.push(Segment { start, len: sequence.len(), slot });
            start += sequence.len();
        }
        let positions = sequences.iter().flat_map(|sequence| 0..sequence.len() as u32).collect();
        Self { tokens: sequences.concat(), positions, segments: segments.into() }
    }

    fn targets(&self) -> Vec<u32> {
        self.tokens.iter().map(|token| (token * 7 + 3) % VOCAB as u32).collect()
    }
}
