//! Writing safetensors with hub names, the same bytes for the same numbers, without a second copy of them.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use candle_core::{CpuStorage, DType, Device, Storage};
use kernels::Param;
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use serde_json::json;

use super::{Entry, Kept, Piece};
use crate::error::{Error, Result};

/// The most bytes of tensors in a file before they are spread over several: what transformers takes.
pub(crate) const SHARD_BYTES: u64 = 5_000_000_000;

/// The numbers that are turned into bytes at once.
const CHUNK: usize = 1 << 16;

/// The numbers of hub tensors, by name.
pub(crate) type HubTensors<'a> = BTreeMap<&'a str, (&'a [usize], Vec<f32>)>;

/// Takes the numbers of parameters apart into the hub tensors that they are made of.
pub(crate) fn scatter<'a>(parts: impl Iterator<Item = Result<(&'a Entry, Vec<f32>)>>) -> Result<HubTensors<'a>> {
    let mut tensors = HubTensors::new();
    for part in parts {
        let (entry, values) = part?;
        for Piece { tensor, from, at, len } in entry.pieces() {
            let empty = || (tensor.shape.as_slice(), vec![0.0; tensor.elem_count()]);
            let (_, whole) = tensors.entry(&tensor.name).or_insert_with(empty);
            whole[from..from + len].copy_from_slice(&values[at..at + len]);
        }
    }
    Ok(tensors)
}

/// A tensor to be written.
struct Written<'a> {
    name: &'a str,
    dtype: Dtype,
    shape: &'a [usize],
    bytes: usize,
    content: Content<'a>,
}

/// Where a tensor's bytes come from.
enum Content<'a> {
    /// Runs of parameters, in the tensor's order.
    Numbers(Vec<(&'a Param, Piece<'a>)>),
    /// The file that they came from.
    Kept(&'a Kept),
}

/// Writes `weights` in f32 and `kept` as it was, into files of at most `most` bytes of tensors (or one tensor, if that is
/// longer) with an index, or into a single file if that is enough.
pub(crate) fn save(folder: &Path, weights: &[(Entry, Param)], kept: &[Kept], most: u64) -> Result<()> {
    let tensors = tensors(weights, kept);
    let total: u64 = tensors.iter().map(|tensor| tensor.bytes as u64).sum();
    let (single, index) = (folder.join("model.safetensors"), folder.join("model.safetensors.index.json"));
    if total <= most {
        write(&single, tensors)?;
        return remove(&index);
    }
    let parameters: usize = tensors.iter().map(|tensor| tensor.shape.iter().product::<usize>()).sum();
    let shards = shards(tensors, most);
    let mut map = BTreeMap::new();
    for (i, shard) in shards.iter().enumerate() {
        let file = format!("model-{:05}-of-{:05}.safetensors", i + 1, shards.len());
        map.extend(shard.iter().map(|tensor| (tensor.name, file.clone())));
    }
    let count = shards.len();
    let metadata = json!({ "total_parameters": parameters, "total_size": total });
    let text = format!("{:#}\n", json!({ "metadata": metadata, "weight_map": map }));
    for (i, shard) in shards.into_iter().enumerate() {
        write(&folder.join(format!("model-{:05}-of-{count:05}.safetensors", i + 1)), shard)?;
    }
    std::fs::write(&index, text).map_err(Error::io("write", &index))?;
    // A file from before would be read instead of the index.
    remove(&single)
}

fn remove(path: &Path) -> Result<()> {
    if path.exists() { std::fs::remove_file(path).map_err(Error::io("remove", path)) } else { Ok(()) }
}

/// All tensors, in the order of the entries.
fn tensors<'a>(weights: &'a [(Entry, Param)], kept: &'a [Kept]) -> Vec<Written<'a>> {
    let mut numbers: BTreeMap<&str, usize> = BTreeMap::new();
    let mut tensors: Vec<Written<'_>> = Vec::new();
    for (entry, param) in weights {
        for piece in entry.pieces() {
            let tensor = piece.tensor;
            let number = *numbers.entry(&tensor.name).or_insert_with(|| {
                tensors.push(Written {
                    name: &tensor.name,
                    dtype: Dtype::F32,
                    shape: &tensor.shape,
                    bytes: 4 * tensor.elem_count(),
                    content: Content::Numbers(Vec::new()),
                });
                tensors.len() - 1
            });
            if let Content::Numbers(pieces) = &mut tensors[number].content {
                pieces.push((param, piece));
            }
        }
    }
    for tensor in &mut tensors {
        if let Content::Numbers(pieces) = &mut tensor.content {
            pieces.sort_by_key(|(_, piece)| piece.from);
        }
    }
    tensors.extend(kept.iter().map(|kept| Written {
        name: &kept.name,
        dtype: kept.dtype,
        shape: &kept.shape,
        bytes: kept.len,
        content: Content::Kept(kept),
    }));
    tensors
}

/// Spreads tensors over files, in their order.
fn shards(tensors: Vec<Written<'_>>, most: u64) -> Vec<Vec<Written<'_>>> {
    let mut shards = vec![Vec::new()];
    let mut bytes = 0;
    for tensor in tensors {
        bytes += tensor.bytes as u64;
        match shards.last_mut().filter(|shard| shard.is_empty() || bytes <= most) {
            Some(shard) => shard.push(tensor),
            None => {
                bytes = tensor.bytes as u64;
                shards.push(vec![tensor]);
            }
        }
    }
    shards
}

/// Writes one file, under another name until it is whole: the folder may be the one that kept tensors are read from.
fn write(path: &Path, mut tensors: Vec<Written<'_>>) -> Result<()> {
    // The format's own order: by alignment, then by name.
    tensors.sort_by(|a, b| b.dtype.cmp(&a.dtype).then(a.name.cmp(b.name)));
    let mut end = 0;
    let info = |tensor: &Written<'_>| {
        let start = end;
        end += tensor.bytes;
        let info = TensorInfo { dtype: tensor.dtype, shape: tensor.shape.to_vec(), data_offsets: (start, end) };
        (tensor.name.to_owned(), info)
    };
    let infos = tensors.iter().map(info).collect();
    // One key only: the map's order would otherwise differ from run to run.
    let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
    let damaged = |error: &dyn std::fmt::Display| Error::file(path, error.to_string());
    let metadata = Metadata::new(Some(metadata), infos).map_err(|error| damaged(&error))?;
    let mut header = serde_json::to_string(&metadata).map_err(|error| damaged(&error))?.into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');

    let part = path.with_extension("safetensors.part");
    let failed = |error| Error::io("write", &part)(error);
    let mut file = BufWriter::with_capacity(1 << 20, File::create(&part).map_err(failed)?);
    file.write_all(&(header.len() as u64).to_le_bytes()).map_err(failed)?;
    file.write_all(&header).map_err(failed)?;
    for tensor in &tensors {
        match &tensor.content {
            Content::Kept(kept) => kept.read(|bytes| file.write_all(bytes).map_err(failed))?,
            Content::Numbers(pieces) => {
                for (param, piece) in pieces {
                    numbers(param, piece, |bytes| file.write_all(bytes).map_err(failed))?;
                }
            }
        }
    }
    file.into_inner().map_err(|error| failed(error.into_error()))?;
    std::fs::rename(&part, path).map_err(Error::io("write", path))
}

/// Hands a run of a parameter to `write` as bytes of f32, part by part. From a device only the run is copied.
fn numbers(param: &Param, piece: &Piece<'_>, mut write: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let mut bytes = Vec::new();
    let mut write_all = |values: &[f32]| {
        values.chunks(CHUNK).try_for_each(|chunk| {
            bytes.clear();
            bytes.extend(chunk.iter().flat_map(|value| value.to_le_bytes()));
            write(&bytes)
        })
    };
    let value = param.value();
    let (storage, layout) = value.storage_and_layout();
    if let (Storage::Cpu(CpuStorage::F32(values)), Some((start, _))) = (&*storage, layout.contiguous_offsets()) {
        return write_all(&values[start + piece.at..][..piece.len]);
    }
    drop(storage);
    let run = value.flatten_all()?.narrow(0, piece.at, piece.len)?.force_contiguous()?;
    write_all(&run.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.to_vec1::<f32>()?)
}
