//! Reading the tensors of any safetensors file, one at a time.

use std::path::Path;

use half::{bf16, f16};
use safetensors::Dtype;

use super::header::{Infos, Shard};
use crate::error::{Error, Result};

/// An open file of numbers to compare with.
pub(crate) struct Reference {
    shard: Shard,
    infos: Infos,
}

impl Reference {
    /// Opens a file and reads its header.
    pub fn open(path: &Path) -> Result<Self> {
        let (shard, infos) = Shard::open(path)?;
        Ok(Self { shard, infos })
    }

    /// The names of its tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.infos.keys().map(String::as_str)
    }

    /// Shape and numbers of a tensor; `None` if it is not there.
    pub fn get(&self, name: &str) -> Result<Option<(Vec<usize>, Vec<f64>)>> {
        let Some(info) = self.infos.get(name) else { return Ok(None) };
        let (start, end) = info.data_offsets;
        let mut bytes = vec![0; end - start];
        self.shard.read(start as u64, &mut bytes)?;
        let values: Vec<f64> = match info.dtype {
            Dtype::I64 => bytes.as_chunks().0.iter().map(|&b| i64::from_le_bytes(b) as f64).collect(),
            Dtype::I32 => bytes.as_chunks().0.iter().map(|&b| f64::from(i32::from_le_bytes(b))).collect(),
            Dtype::F64 => bytes.as_chunks().0.iter().map(|&b| f64::from_le_bytes(b)).collect(),
            Dtype::F32 => bytes.as_chunks().0.iter().map(|&b| f64::from(f32::from_le_bytes(b))).collect(),
            Dtype::BF16 => bytes.as_chunks().0.iter().map(|&b| bf16::from_le_bytes(b).to_f64()).collect(),
            Dtype::F16 => bytes.as_chunks().0.iter().map(|&b| f16::from_le_bytes(b).to_f64()).collect(),
            Dtype::BOOL => bytes.iter().map(|&b| f64::from(b)).collect(),
            other => return Err(self.damaged(format!("`{name}` is {other}, which is not compared"))),
        };
        Ok(Some((info.shape.clone(), values)))
    }

    /// An error about what the file says.
    pub fn damaged(&self, message: String) -> Error {
        Error::file(&self.shard.path, message)
    }
}
