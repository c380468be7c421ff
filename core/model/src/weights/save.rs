//! Writing one safetensors file with hub names, the same bytes for the same numbers.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use candle_core::Device;
use kernels::Param;
use safetensors::Dtype;
use safetensors::tensor::TensorView;

use super::{Entry, Source};
use crate::error::{Error, Result};

/// Writes `weights` in f32.
pub(crate) fn save(path: &Path, weights: &[(Entry, Param)]) -> Result<()> {
    let mut tensors: BTreeMap<&str, (&[usize], Vec<u8>)> = BTreeMap::new();
    for (entry, param) in weights {
        let values = param.value().to_device(&Device::Cpu)?.flatten_all()?.to_vec1::<f32>()?;
        match &entry.source {
            Source::Joined(parts) => {
                let mut rest = values.as_slice();
                for part in parts {
                    let (now, later) = rest.split_at(part.shape.iter().product());
                    tensors.insert(&part.name, (&part.shape, bytes(now).collect()));
                    rest = later;
                }
            }
            Source::HeadRows { tensor, stride, first, rows } => {
                let width = 4 * tensor.shape[1];
                let whole = || (tensor.shape.as_slice(), vec![0; width * tensor.shape[0]]);
                let (_, whole) = tensors.entry(&tensor.name).or_insert_with(whole);
                let heads = whole.chunks_mut(stride * width).zip(values.chunks(rows * tensor.shape[1]));
                for (head, values) in heads {
                    let half = &mut head[first * width..(first + rows) * width];
                    half.iter_mut().zip(bytes(values)).for_each(|(slot, byte)| *slot = byte);
                }
            }
        }
    }
    let damaged = |error: safetensors::SafeTensorError| match error {
        safetensors::SafeTensorError::IoError(source) => Error::io("write", path)(source),
        other => Error::file(path, other.to_string()),
    };
    let views = tensors
        .iter()
        .map(|(name, (shape, bytes))| Ok((*name, TensorView::new(Dtype::F32, shape.to_vec(), bytes)?)))
        .collect::<Result<Vec<_>, _>>()
        .map_err(damaged)?;
    // One key only: the map's order would otherwise differ from run to run.
    let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
    safetensors::serialize_to_file(views, Some(metadata), path).map_err(damaged)
}

fn bytes(values: &[f32]) -> impl Iterator<Item = u8> {
    values.iter().flat_map(|value| value.to_le_bytes())
}
