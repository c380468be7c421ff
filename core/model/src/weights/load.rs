//! Reading safetensors, whole or sharded, with every size checked before anything is allocated for it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};

use half::{bf16, f16};
use safetensors::Dtype;
use safetensors::tensor::Metadata;
use serde::Deserialize;

use super::{Entry, HubTensor};
use crate::error::{Error, Result};

/// The longest header that is read; the format's own limit.
const LONGEST_HEADER: u64 = 100_000_000;

/// How many findings an error lists.
const LISTED: usize = 8;

/// An opened checkpoint: where each tensor lies.
pub(crate) struct Checkpoint {
    folder: PathBuf,
    tensors: BTreeMap<String, Place>,
    /// What was asked for and can't be given, or was found and not asked for.
    findings: Vec<String>,
    asked: BTreeSet<String>,
}

struct Place {
    path: PathBuf,
    dtype: Dtype,
    shape: Vec<usize>,
    start: u64,
    len: usize,
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, PathBuf>,
}

impl Checkpoint {
    /// Opens `model.safetensors`, or the shards that `model.safetensors.index.json` names.
    pub fn open(folder: &Path) -> Result<Self> {
        let mut checkpoint = Self {
            folder: folder.to_path_buf(),
            tensors: BTreeMap::new(),
            findings: Vec::new(),
            asked: BTreeSet::new(),
        };
        let single = folder.join("model.safetensors");
        let index_path = folder.join("model.safetensors.index.json");
        if single.is_file() {
            checkpoint.add(&single)?;
        } else if index_path.is_file() {
            let text = std::fs::read_to_string(&index_path).map_err(Error::io("read", &index_path))?;
            let index: Index =
                serde_json::from_str(&text).map_err(|error| Error::file(&index_path, error.to_string()))?;
            let shards: BTreeSet<&PathBuf> = index.weight_map.values().collect();
            for shard in shards {
                if !matches!(shard.components().collect::<Vec<_>>()[..], [Component::Normal(_)]) {
                    return Err(Error::file(
                        &index_path,
                        format!("shard `{}` is no plain file name; shards lie beside the index", shard.display()),
                    ));
                }
                checkpoint.add(&folder.join(shard))?;
            }
            for (name, shard) in &index.weight_map {
                let found = checkpoint.tensors.get(name);
                if found.is_none_or(|place| place.path.file_name() != Some(shard.as_os_str())) {
                    checkpoint
                        .findings
                        .push(format!("tensor `{name}` is not in `{}`, where the index says it is", shard.display()));
                    checkpoint.asked.insert(name.clone());
                }
            }
        } else {
            return Err(Error::file(
                folder,
                "it holds neither model.safetensors nor model.safetensors.index.json; \
                 give a Hugging Face model folder with its weights",
            ));
        }
        Ok(checkpoint)
    }

    /// Reads a file's header and remembers where its tensors lie.
    fn add(&mut self, path: &Path) -> Result<()> {
        let mut file = File::open(path).map_err(Error::io("read", path))?;
        let size = file.metadata().map_err(Error::io("read", path))?.len();
        let mut buffer = vec![0; 8];
        if size < 8 {
            return Err(Error::file(path, format!("it is truncated: {size} bytes are no safetensors file")));
        }
        file.read_exact(&mut buffer).map_err(Error::io("read", path))?;
        let header = buffer.iter().rev().fold(0u64, |value, &byte| value << 8 | u64::from(byte));
        if header > LONGEST_HEADER {
            return Err(Error::file(
                path,
                format!("its header claims {header} bytes; at most {LONGEST_HEADER} are allowed"),
            ));
        }
        let start = 8 + header;
        if start > size {
            return Err(Error::file(
                path,
                format!("it is truncated: the header needs {start} bytes and the file has {size}; fetch it again"),
            ));
        }
        buffer.resize(start as usize, 0);
        file.read_exact(&mut buffer[8..]).map_err(Error::io("read", path))?;
        let metadata: Metadata = serde_json::from_slice(&buffer[8..])
            .map_err(|error| Error::file(path, format!("its header is damaged: {error}")))?;
        let needed = start.saturating_add(metadata.data_len() as u64);
        if needed != size {
            return Err(Error::file(
                path,
                match needed > size {
                    true => format!(
                        "it is truncated: its tensors need {needed} bytes and the file has {size}; fetch it again"
                    ),
                    false => format!("it has {} bytes after its tensors", size - needed),
                },
            ));
        }
        for name in metadata.offset_keys() {
            let Some(info) = metadata.info(&name) else { continue };
            let (first, end) = info.data_offsets;
            let place = Place {
                path: path.to_path_buf(),
                dtype: info.dtype,
                shape: info.shape.clone(),
                start: start + first as u64,
                len: end - first,
            };
            if let Some(other) = self.tensors.insert(name.clone(), place) {
                return Err(Error::file(path, format!("tensor `{name}` is also in {}", other.path.display())));
            }
        }
        Ok(())
    }

    /// The numbers of a parameter, or `None` (and a finding) if the checkpoint can't give them.
    pub fn gather(&mut self, entry: &Entry) -> Result<Option<Vec<f32>>> {
        let mut fits = true;
        for wanted in entry.tensors() {
            fits &= self.fits(wanted);
        }
        if !fits {
            return Ok(None);
        }
        entry.gather(|tensor| self.read(tensor)).map(Some)
    }

    fn fits(&mut self, wanted: &HubTensor) -> bool {
        let first = self.asked.insert(wanted.name.clone());
        let finding = match self.tensors.get(&wanted.name) {
            None => format!("tensor `{}` is missing", wanted.name),
            Some(place) if place.shape != wanted.shape => {
                format!(
                    "tensor `{}` has shape {:?}, and the config asks for {:?}",
                    wanted.name, place.shape, wanted.shape
                )
            }
            Some(place) if !matches!(place.dtype, Dtype::F32 | Dtype::BF16 | Dtype::F16) => {
                format!("tensor `{}` is {}; F32, BF16 and F16 are read", wanted.name, place.dtype)
            }
            Some(_) => return true,
        };
        if first {
            self.findings.push(finding);
        }
        false
    }

    fn read(&self, tensor: &HubTensor) -> Result<Vec<f32>> {
        let place = self.tensors.get(&tensor.name);
        let place = place.ok_or_else(|| Error::file(&self.folder, format!("tensor `{}` is missing", tensor.name)))?;
        let failed = |error| Error::io("read", &place.path)(error);
        let mut file = File::open(&place.path).map_err(failed)?;
        file.seek(SeekFrom::Start(place.start)).map_err(failed)?;
        let mut bytes = vec![0; place.len];
        file.read_exact(&mut bytes).map_err(failed)?;
        Ok(match place.dtype {
            Dtype::BF16 => bytes.as_chunks().0.iter().map(|&b| bf16::from_le_bytes(b).to_f32()).collect(),
            Dtype::F16 => bytes.as_chunks().0.iter().map(|&b| f16::from_le_bytes(b).to_f32()).collect(),
            _ => bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect(),
        })
    }

    /// Ends the reading: everything that did not fit, and every tensor that nobody asked for and that `ignored` does not
    /// excuse, is named.
    pub fn finish(mut self, ignored: impl Fn(&str) -> bool) -> Result<()> {
        let extra = self.tensors.keys().filter(|name| !self.asked.contains(*name) && !ignored(name));
        self.findings.extend(extra.map(|name| format!("tensor `{name}` is not part of this architecture")));
        if self.findings.is_empty() {
            return Ok(());
        }
        let more = self.findings.len().saturating_sub(LISTED);
        let mut message = format!(
            "its weights don't fit its config.json:\n  {}",
            self.findings[..self.findings.len() - more].join("\n  ")
        );
        if more > 0 {
            message += &format!("\n  and {more} more");
        }
        Err(Error::file(&self.folder, message))
    }
}
