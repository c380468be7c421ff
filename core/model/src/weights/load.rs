//! Reading safetensors, whole or sharded: the headers first, then each tensor straight into the memory of its parameter.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use half::{bf16, f16};
use safetensors::Dtype;
use serde::Deserialize;

use super::header::Shard;
use super::{Blocks, Entry, Piece};
use crate::error::{Error, Result};

/// How many findings an error lists.
const LISTED: usize = 8;

/// How many tensors a finding names of those that went with a shard.
const NAMED: usize = 3;

/// The bytes that are read at once: with the parameters themselves, all the memory that loading takes.
const CHUNK: usize = 1 << 20;

/// An opened checkpoint: where each tensor lies.
pub(crate) struct Checkpoint {
    folder: PathBuf,
    shards: Vec<Arc<Shard>>,
    tensors: BTreeMap<String, Place>,
    /// How FP8 weights are scaled.
    blocks: Option<Blocks>,
    /// Tensors that the index places where they are not.
    misplaced: BTreeMap<String, PathBuf>,
    /// The tensors with numbers that are not finite, and how many.
    broken: BTreeMap<String, usize>,
    /// The factors of the FP8 weight that was read last.
    scales: (String, Vec<f32>),
    buffer: Vec<u8>,
}

/// Where a tensor lies.
struct Place {
    shard: usize,
    dtype: Dtype,
    shape: Vec<usize>,
    /// Its first byte, counted from where the file's tensors begin.
    start: u64,
    len: usize,
}

/// A tensor that is no parameter and is saved as it was found. Its bytes stay in its file, which is held open.
#[derive(Clone)]
pub(crate) struct Kept {
    pub name: String,
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    pub len: usize,
    start: u64,
    shard: Arc<Shard>,
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, PathBuf>,
}

impl Checkpoint {
    /// Opens `model.safetensors`, or the shards that `model.safetensors.index.json` names. `blocks` says how FP8 weights
    /// are scaled, if the config does.
    pub fn open(folder: &Path, blocks: Option<Blocks>) -> Result<Self> {
        let mut checkpoint = Self {
            folder: folder.to_path_buf(),
            shards: Vec::new(),
            tensors: BTreeMap::new(),
            blocks,
            misplaced: BTreeMap::new(),
            broken: BTreeMap::new(),
            scales: Default::default(),
            buffer: Vec::new(),
        };
        let single = folder.join("model.safetensors");
        let index = folder.join("model.safetensors.index.json");
        if single.is_file() {
            checkpoint.add(&single)?;
        } else if index.is_file() {
            checkpoint.add_shards(&index)?;
        } else {
            return Err(Error::file(
                folder,
                "it holds neither model.safetensors nor model.safetensors.index.json; \
                 give a Hugging Face model folder with its weights",
            ));
        }
        Ok(checkpoint)
    }

    fn add_shards(&mut self, path: &Path) -> Result<()> {
        let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
        let index: Index = serde_json::from_str(&text).map_err(|error| Error::file(path, error.to_string()))?;
        let mut shards: BTreeMap<&PathBuf, Vec<&str>> = BTreeMap::new();
        for (name, shard) in &index.weight_map {
            shards.entry(shard).or_default().push(name);
        }
        let mut missing = Vec::new();
        for (shard, names) in &shards {
            if !matches!(shard.components().collect::<Vec<_>>()[..], [Component::Normal(_)]) {
                return Err(Error::file(
                    path,
                    format!("shard `{}` is no plain file name; shards lie beside the index", shard.display()),
                ));
            }
            if !self.folder.join(shard).is_file() {
                missing.push(format!("`{}` is not there, with {}", shard.display(), listed(names)));
            }
        }
        if !missing.is_empty() {
            return Err(Error::file(path, format!("of the shards that it names, {}", missing.join(", "))));
        }
        for shard in shards.keys() {
            self.add(&self.folder.join(shard))?;
        }
        for (name, shard) in index.weight_map {
            let found = self.tensors.get(&name).map(|place| &self.shards[place.shard].path);
            if found.is_none_or(|path| path.file_name() != Some(shard.as_os_str())) {
                self.misplaced.insert(name, shard);
            }
        }
        Ok(())
    }

    /// Reads a file's header and remembers where its tensors lie.
    fn add(&mut self, path: &Path) -> Result<()> {
        let (shard, infos) = Shard::open(path)?;
        let number = self.shards.len();
        self.shards.push(Arc::new(shard));
        for (name, info) in infos {
            let (start, end) = info.data_offsets;
            let place =
                Place { shard: number, dtype: info.dtype, shape: info.shape, start: start as u64, len: end - start };
            if let Some(other) = self.tensors.get(&name) {
                let other = self.shards[other.shard].path.display();
                return Err(Error::file(path, format!("tensor `{name}` is also in {other}")));
            }
            self.tensors.insert(name, place);
        }
        Ok(())
    }

    /// All that keeps the tensors from being those of `entries`: what is missing, of another shape or dtype, and what
    /// nobody asks for and `spare` does not excuse. Nothing but the headers is looked at.
    pub fn findings(&self, entries: &[Entry], spare: impl Fn(&str) -> bool) -> Vec<String> {
        let mut asked = BTreeSet::new();
        let mut findings = Vec::new();
        for (name, shard) in &self.misplaced {
            asked.insert(name.clone());
            findings.push(format!("tensor `{name}` is not in `{}`, where the index says it is", shard.display()));
        }
        for wanted in entries.iter().flat_map(Entry::tensors) {
            if asked.insert(wanted.name.clone()) {
                findings.extend(self.finding(&wanted.name, &wanted.shape));
            }
            if self.tensors.get(&wanted.name).is_some_and(|place| place.dtype == Dtype::F8_E4M3) {
                asked.insert(Blocks::scale_name(&wanted.name));
            }
        }
        let extra = self.tensors.keys().filter(|name| !asked.contains(*name) && !spare(name));
        findings.extend(extra.map(|name| format!("tensor `{name}` is not part of this architecture")));
        findings
    }

    /// What is wrong with the tensor that is to have this name and shape.
    fn finding(&self, name: &str, shape: &[usize]) -> Option<String> {
        let Some(place) = self.tensors.get(name) else { return Some(format!("tensor `{name}` is missing")) };
        if place.shape != shape {
            return Some(format!("tensor `{name}` has shape {:?}, and the config asks for {shape:?}", place.shape));
        }
        let readable = "F32, BF16 and F16 are read, and F8_E4M3 with the `quantization_config` of an FP8 checkpoint";
        match (place.dtype, self.blocks.map(|blocks| blocks.scale_shape(shape))) {
            (Dtype::F32 | Dtype::BF16 | Dtype::F16, _) => None,
            (Dtype::F8_E4M3, Some(None)) => Some(format!("tensor `{name}` is F8_E4M3 and no matrix of blocks")),
            (Dtype::F8_E4M3, Some(Some(wanted))) => {
                let scale = Blocks::scale_name(name);
                match self.tensors.get(&scale) {
                    None => Some(format!("tensor `{scale}` is missing: the factors of F8_E4M3 `{name}`")),
                    Some(place) if place.shape != wanted => Some(format!(
                        "tensor `{scale}` has shape {:?}, and the blocks of `{name}` ask for {wanted:?}",
                        place.shape
                    )),
                    Some(place) if !matches!(place.dtype, Dtype::F32 | Dtype::BF16 | Dtype::F16) => {
                        Some(format!("tensor `{scale}` is {}; F32, BF16 and F16 are read", place.dtype))
                    }
                    Some(_) => None,
                }
            }
            (dtype, _) => Some(format!("tensor `{name}` is {dtype}; {readable}")),
        }
    }

    /// The error that lists findings.
    pub fn refusal(&self, findings: &[String]) -> Error {
        let (listed, more) = findings.split_at(findings.len().min(LISTED));
        let mut message = format!("its weights don't fit its config.json:\n  {}", listed.join("\n  "));
        if !more.is_empty() {
            message += &format!("\n  and {} more", more.len());
        }
        Error::file(&self.folder, message)
    }

    /// The numbers of a parameter, whose tensors have no finding.
    pub fn gather(&mut self, entry: &Entry) -> Result<Vec<f32>> {
        entry.filled(|piece, values| self.read(piece, values))
    }

    /// Ends the reading of all parameters.
    ///
    /// # Errors
    /// Tensors with numbers that are NaN or infinite, by name.
    pub fn finish(&self) -> Result<()> {
        if self.broken.is_empty() {
            return Ok(());
        }
        let finding = |(name, count): (&String, &usize)| {
            let numbers = if *count == 1 { "number that is" } else { "numbers that are" };
            format!("tensor `{name}` holds {count} {numbers} not finite (NaN or infinite)")
        };
        let findings: Vec<String> = self.broken.iter().map(finding).collect();
        let (listed, more) = findings.split_at(findings.len().min(LISTED));
        let more = if more.is_empty() { String::new() } else { format!("\n  and {} more", more.len()) };
        Err(Error::file(&self.folder, format!("its weights can't be computed with:\n  {}{more}", listed.join("\n  "))))
    }

    fn place(&self, name: &str) -> Result<&Place> {
        self.tensors.get(name).ok_or_else(|| Error::file(&self.folder, format!("tensor `{name}` is missing")))
    }

    fn read(&mut self, piece: &Piece<'_>, values: &mut [f32]) -> Result<()> {
        let name = &piece.tensor.name;
        let place = self.place(name)?;
        let (shard, dtype, start) = (self.shards[place.shard].clone(), place.dtype, place.start);
        let blocks = self.blocks.filter(|_| dtype == Dtype::F8_E4M3);
        if blocks.is_some() && self.scales.0 != *name {
            self.scales = (name.clone(), self.scales_of(name)?);
        }
        let size = dtype.bitsize() / 8;
        let mut buffer = std::mem::take(&mut self.buffer);
        let (mut at, mut broken) = (piece.from, 0);
        for part in values.chunks_mut(CHUNK / size) {
            buffer.resize(part.len() * size, 0);
            shard.read(start + (at * size) as u64, &mut buffer)?;
            match blocks {
                Some(blocks) => blocks.dequantise(&buffer, &self.scales.1, piece.tensor.shape[1], at, part),
                None => convert(dtype, &buffer, part),
            }
            broken += part.iter().filter(|value| !value.is_finite()).count();
            at += part.len();
        }
        self.buffer = buffer;
        if broken > 0 {
            *self.broken.entry(name.clone()).or_default() += broken;
        }
        Ok(())
    }

    fn scales_of(&self, weight: &str) -> Result<Vec<f32>> {
        let place = self.place(&Blocks::scale_name(weight))?;
        let mut bytes = vec![0; place.len];
        self.shards[place.shard].read(place.start, &mut bytes)?;
        let mut scales = vec![0.0; place.shape.iter().product()];
        convert(place.dtype, &bytes, &mut scales);
        Ok(scales)
    }

    /// The tensors that `spare` names, to be saved as they are.
    pub fn kept(&self, spare: impl Fn(&str) -> bool) -> Vec<Kept> {
        let kept = |(name, place): (&String, &Place)| Kept {
            name: name.clone(),
            dtype: place.dtype,
            shape: place.shape.clone(),
            len: place.len,
            start: place.start,
            shard: self.shards[place.shard].clone(),
        };
        self.tensors.iter().filter(|(name, _)| spare(name)).map(kept).collect()
    }

    /// The bytes of all tensors of each dtype, by the dtype's name.
    pub fn bytes_by_dtype(&self) -> BTreeMap<String, u64> {
        let mut bytes = BTreeMap::new();
        for place in self.tensors.values() {
            *bytes.entry(place.dtype.to_string()).or_default() += place.len as u64;
        }
        bytes
    }

    /// The number of files with weights.
    pub fn shard_count(&self) -> usize {
        self.shards.len()
    }
}

impl Kept {
    /// Hands the tensor's bytes to `write`, part by part.
    ///
    /// # Errors
    /// The file was changed since it was opened, or can't be read.
    pub fn read(&self, mut write: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        self.shard.require_unchanged()?;
        let mut buffer = vec![0; self.len.min(CHUNK)];
        let mut done = 0;
        while done < self.len {
            let part = &mut buffer[..CHUNK.min(self.len - done)];
            self.shard.read(self.start + done as u64, part)?;
            write(part)?;
            done += part.len();
        }
        Ok(())
    }
}

fn convert(dtype: Dtype, bytes: &[u8], values: &mut [f32]) {
    match dtype {
        Dtype::BF16 => {
            values.iter_mut().zip(bytes.as_chunks().0).for_each(|(value, &b)| *value = bf16::from_le_bytes(b).to_f32());
        }
        Dtype::F16 => {
            values.iter_mut().zip(bytes.as_chunks().0).for_each(|(value, &b)| *value = f16::from_le_bytes(b).to_f32());
        }
        _ => values.iter_mut().zip(bytes.as_chunks().0).for_each(|(value, &b)| *value = f32::from_le_bytes(b)),
    }
}

/// The first few names, and how many more there are.
fn listed(names: &[&str]) -> String {
    let (named, more) = names.split_at(names.len().min(NAMED));
    let named = named.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    let tensors = if names.len() == 1 { "tensor" } else { "tensors" };
    match more.len() {
        0 => format!("the {tensors} {named}"),
        more => format!("the {tensors} {named} and {more} more"),
    }
}
