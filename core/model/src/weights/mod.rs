//! Weights: how the parameters that are computed with lie in a hub checkpoint.
//!
//! Three axes: what a parameter is made of ([`Entry`], here), where its numbers come from (a checkpoint in `load`, random
//! numbers in `init`) and where they go (`save`). Tensors that are used together are one parameter: the experts of a
//! layer, the gate and up halves of an MLP, queries, keys and values; `kv_b_proj` is two, because its halves are multiplied
//! at different places. All three read the places from [`Entry::pieces`], and none holds a second copy of the numbers.

mod fp8;
mod header;
mod init;
mod load;
mod reference;
mod save;

use candle_core::{DType, Device};
use kernels::Param;

pub(crate) use fp8::Blocks;
pub(crate) use init::Random;
pub(crate) use load::{Checkpoint, Kept};
pub(crate) use reference::Reference;
pub(crate) use save::{SHARD_BYTES, save, scatter};

use crate::error::Result;

/// One parameter and its place in a hub checkpoint.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// The parameter's own name.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// The hub tensors that it is made of.
    pub source: Source,
    /// What it starts as without a checkpoint.
    pub start: Start,
    /// Whether it learns.
    pub trained: bool,
    /// Whether its products are computed in f32, whatever the model's are.
    pub precise: bool,
}

/// A tensor of a hub checkpoint.
#[derive(Clone, Debug)]
pub(crate) struct HubTensor {
    pub name: String,
    pub shape: Vec<usize>,
}

/// The hub tensors that a parameter is made of.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// These, one after another.
    Joined(Vec<HubTensor>),
    /// Of each head's `stride` rows of one tensor the `rows` from `first` on.
    HeadRows { tensor: HubTensor, stride: usize, first: usize, rows: usize },
}

/// What a parameter starts as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// Normal random numbers of the config's standard deviation.
    Normal,
    /// Ones.
    Ones,
    /// Zeros.
    Zeros,
}

/// A run of elements that a parameter shares with one of its hub tensors.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece<'a> {
    /// The hub tensor.
    pub tensor: &'a HubTensor,
    /// Where the run begins in the hub tensor.
    pub from: usize,
    /// Where it begins in the parameter.
    pub at: usize,
    /// Its length.
    pub len: usize,
}

impl HubTensor {
    /// The number of elements.
    pub fn elem_count(&self) -> usize {
        self.shape.iter().product()
    }
}

impl Entry {
    /// A parameter that is one hub tensor.
    pub fn whole(name: String, shape: &[usize], start: Start) -> Self {
        let source = Source::Joined(vec![HubTensor { name: name.clone(), shape: shape.to_vec() }]);
        Self { name, shape: shape.to_vec(), source, start, trained: true, precise: false }
    }

    /// A parameter that is several hub tensors of equal shape, one after another.
    pub fn joined(name: String, shape: &[usize], parts: impl Iterator<Item = String>, part: &[usize]) -> Self {
        let tensors = parts.map(|name| HubTensor { name, shape: part.to_vec() }).collect();
        let (shape, source) = (shape.to_vec(), Source::Joined(tensors));
        Self { name, shape, source, start: Start::Normal, trained: true, precise: false }
    }

    /// A parameter that is the rows of several hub tensors, one after another.
    pub fn stacked(name: String, tensors: Vec<HubTensor>, start: Start) -> Self {
        let rows = tensors.iter().map(|tensor| tensor.shape[0]).sum();
        let columns = tensors.first().map_or(&[][..], |tensor| &tensor.shape[1..]);
        let shape = [&[rows], columns].concat();
        Self { name, shape, source: Source::Joined(tensors), start, trained: true, precise: false }
    }

    /// The hub tensors that it is made of.
    pub fn tensors(&self) -> &[HubTensor] {
        match &self.source {
            Source::Joined(tensors) => tensors,
            Source::HeadRows { tensor, .. } => std::slice::from_ref(tensor),
        }
    }

    /// The number of elements.
    pub fn elem_count(&self) -> usize {
        self.shape.iter().product()
    }

    /// Where its elements lie in its hub tensors, in its own order and without a gap.
    pub fn pieces(&self) -> Vec<Piece<'_>> {
        match &self.source {
            Source::Joined(tensors) => {
                let mut pieces = Vec::with_capacity(tensors.len());
                let mut at = 0;
                for tensor in tensors {
                    let len = tensor.elem_count();
                    pieces.push(Piece { tensor, from: 0, at, len });
                    at += len;
                }
                pieces
            }
            Source::HeadRows { tensor, stride, first, rows } => {
                let width = tensor.shape[1];
                let piece = |head| Piece {
                    tensor,
                    from: (head * stride + first) * width,
                    at: head * rows * width,
                    len: rows * width,
                };
                (0..tensor.shape[0] / stride).map(piece).collect()
            }
        }
    }

    /// The parameter's numbers. `fill` is given each piece and the memory for its elements, which holds zeros.
    pub fn filled(&self, mut fill: impl FnMut(&Piece<'_>, &mut [f32]) -> Result<()>) -> Result<Vec<f32>> {
        let mut values = vec![0.0; self.elem_count()];
        for piece in self.pieces() {
            fill(&piece, &mut values[piece.at..piece.at + piece.len])?;
        }
        Ok(values)
    }

    /// The parameter of this entry on `device`. Its products are computed in `dtype`, unless they are to be precise; a
    /// vector is in no product.
    pub fn param(&self, values: Vec<f32>, device: &Device, dtype: DType) -> Result<Param> {
        let param = Param::from_vec(&self.name, values, self.shape.as_slice(), device, self.trained)?;
        let product = self.shape.len() > 1 && !self.precise;
        Ok(if product { param.computing_in(dtype)? } else { param })
    }
}
