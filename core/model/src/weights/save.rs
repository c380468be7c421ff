//! Writing one safetensors file with hub names, the same bytes for the same numbers.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use candle_core::Device;
use kernels::Param;
use safetensors::Dtype;
use safetensors::tensor::View;

use super::{Entry, Source};
use crate::error::{Error, Result};

/// The numbers of hub tensors, by name.
pub(crate) type HubTensors<'a> = BTreeMap<&'a str, (&'a [usize], Vec<f32>)>;

/// Takes parameters apart into the hub tensors that they are made of.
pub(crate) fn scatter<'a>(parts: impl Iterator<Item = Result<(&'a Entry, Vec<f32>)>>) -> Result<HubTensors<'a>> {
    let mut tensors = HubTensors::new();
    for part in parts {
        let (entry, values) = part?;
        match &entry.source {
            Source::Joined(parts) => {
                let mut rest = values.as_slice();
                for part in parts {
                    let (now, later) = rest.split_at(part.shape.iter().product());
                    tensors.insert(&part.name, (&part.shape, now.to_vec()));
                    rest = later;
                }
            }
            Source::HeadRows { tensor, stride, first, rows } => {
                let width = tensor.shape[1];
                let whole = || (tensor.shape.as_slice(), vec![0.0; width * tensor.shape[0]]);
                let (_, whole) = tensors.entry(&tensor.name).or_insert_with(whole);
                for (head, values) in whole.chunks_mut(stride * width).zip(values.chunks(rows * width)) {
                    head[first * width..(first + rows) * width].copy_from_slice(values);
                }
            }
        }
    }
    Ok(tensors)
}

/// Writes `weights` in f32.
pub(crate) fn save(path: &Path, weights: &[(Entry, Param)]) -> Result<()> {
    let tensors = scatter(weights.iter().map(|(entry, param)| {
        let value = param.value().to_device(&Device::Cpu)?;
        Ok((entry, value.flatten_all()?.to_vec1()?))
    }))?;
    let damaged = |error: safetensors::SafeTensorError| match error {
        safetensors::SafeTensorError::IoError(source) => Error::io("write", path)(source),
        other => Error::file(path, other.to_string()),
    };
    // One key only: the map's order would otherwise differ from run to run.
    let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
    let views = tensors.iter().map(|(name, (shape, values))| (*name, Values { shape, values }));
    safetensors::serialize_to_file(views, Some(metadata), path).map_err(damaged)
}

/// f32 numbers as safetensors writes them.
struct Values<'a> {
    shape: &'a [usize],
    values: &'a [f32],
}

impl View for Values<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        self.values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    fn data_len(&self) -> usize {
        4 * self.values.len()
    }
}
