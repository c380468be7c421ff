//! Weights: how the parameters that are computed with lie in a hub checkpoint.
//!
//! Three axes: what a parameter is made of ([`Entry`], here), where its numbers come from (a checkpoint in `load`, random
//! numbers in `init`) and where they go (`save`). Tensors that are used together are one parameter: the experts of a
//! layer, the gate and up halves of an MLP, queries, keys and values; `kv_b_proj` is two, because its halves are multiplied at different places.

mod init;
mod load;
mod save;

use candle_core::{DType, Device, Tensor};
use kernels::Param;

pub(crate) use init::Random;
pub(crate) use load::Checkpoint;
pub(crate) use save::save;
#[cfg(test)]
pub(crate) use save::scatter;

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

    /// The parameter's numbers, from those of its hub tensors.
    pub fn gather(&self, mut read: impl FnMut(&HubTensor) -> Result<Vec<f32>>) -> Result<Vec<f32>> {
        match &self.source {
            Source::Joined(tensors) => {
                let mut values = Vec::with_capacity(self.shape.iter().product());
                for tensor in tensors {
                    values.extend(read(tensor)?);
                }
                Ok(values)
            }
            Source::HeadRows { tensor, stride, first, rows } => {
                let width = tensor.shape[1];
                let whole = read(tensor)?;
                let heads = whole.chunks(stride * width);
                Ok(heads.flat_map(|head| &head[first * width..(first + rows) * width]).copied().collect())
            }
        }
    }

    /// The parameter of this entry on `device`. Its products are computed in `dtype`, unless they are to be precise; a
    /// vector is in no product.
    pub fn param(&self, values: Vec<f32>, device: &Device, dtype: DType) -> Result<Param> {
        let values = Tensor::from_vec(values, self.shape.as_slice(), device)?;
        let param = match self.trained {
            true => Param::new(&self.name, values)?,
            false => Param::frozen(&self.name, values)?,
        };
        let product = self.shape.len() > 1 && !self.precise;
        Ok(if product { param.computing_in(dtype)? } else { param })
    }
}
