//! The header of a safetensors file, of which nothing is believed: every size is checked before anything is allocated for it.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use safetensors::Dtype;
use safetensors::tensor::TensorInfo;
use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};

use crate::error::{Error, Result};

/// The longest header that is read; the format's own limit.
const LONGEST_HEADER: u64 = 100_000_000;

/// An open safetensors file. Deleting or renaming it takes nothing from whoever holds it open.
pub(super) struct Shard {
    pub path: PathBuf,
    file: Mutex<File>,
    /// Where the tensors begin.
    data: u64,
    /// Length and time of the last change when it was opened.
    state: (u64, Option<SystemTime>),
}

/// The tensors of a file, by name.
pub(super) type Infos = BTreeMap<String, TensorInfo>;

impl Shard {
    /// Opens a file and reads its header.
    pub fn open(path: &Path) -> Result<(Self, Infos)> {
        let mut file = File::open(path).map_err(Error::io("read", path))?;
        let state = state(&file).map_err(Error::io("read", path))?;
        let size = state.0;
        let damaged = |message: String| Error::file(path, message);
        if size < 8 {
            return Err(damaged(format!("it is truncated: {size} bytes are no safetensors file")));
        }
        let mut length = [0; 8];
        file.read_exact(&mut length).map_err(Error::io("read", path))?;
        let header = u64::from_le_bytes(length);
        if header > LONGEST_HEADER {
            return Err(damaged(format!("its header claims {header} bytes; at most {LONGEST_HEADER} are allowed")));
        }
        let data = 8 + header;
        if data > size {
            return Err(damaged(format!(
                "it is truncated: the header needs {data} bytes and the file has {size}; fetch it again"
            )));
        }
        let mut text = vec![0; header as usize];
        file.read_exact(&mut text).map_err(Error::io("read", path))?;
        let infos = parse(&text).map_err(|error| damaged(format!("its header is damaged: {error}")))?;
        let needed = check(&infos).map_err(damaged)?.saturating_add(data);
        if needed > size {
            return Err(damaged(format!(
                "it is truncated: its tensors need {needed} bytes and the file has {size}; fetch it again"
            )));
        }
        if needed < size {
            return Err(damaged(format!("it has {} bytes after its tensors", size - needed)));
        }
        Ok((Self { path: path.to_path_buf(), file: Mutex::new(file), data, state }, infos))
    }

    /// Reads bytes from `offset` on, counted from where the tensors begin.
    pub fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<()> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let read = file.seek(SeekFrom::Start(self.data + offset)).and_then(|_| file.read_exact(bytes));
        read.map_err(Error::io("read", &self.path))
    }

    /// Refuses a file that was written to since it was opened.
    pub fn require_unchanged(&self) -> Result<()> {
        let now = state(&self.file.lock().unwrap_or_else(PoisonError::into_inner));
        match now.map_err(Error::io("read", &self.path))? == self.state {
            true => Ok(()),
            false => Err(Error::file(&self.path, "it was changed after the model was loaded from it; restore it")),
        }
    }
}

fn state(file: &File) -> std::io::Result<(u64, Option<SystemTime>)> {
    let metadata = file.metadata()?;
    Ok((metadata.len(), metadata.modified().ok()))
}

/// The tensors that a header lists. A name that comes twice is an error here, where serde's maps would keep the last.
fn parse(text: &[u8]) -> serde_json::Result<Infos> {
    struct Header;
    impl<'de> Visitor<'de> for Header {
        type Value = Infos;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object of tensors")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Infos, A::Error> {
            let mut infos = Infos::new();
            while let Some(name) = map.next_key::<String>()? {
                if name == "__metadata__" {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
                let info = map.next_value()?;
                match infos.entry(name) {
                    Entry::Vacant(free) => drop(free.insert(info)),
                    Entry::Occupied(taken) => {
                        return Err(A::Error::custom(format!("it lists the tensor `{}` twice", taken.key())));
                    }
                }
            }
            Ok(infos)
        }
    }
    let mut json = serde_json::Deserializer::from_slice(text);
    let infos = json.deserialize_map(Header)?;
    json.end()?;
    Ok(infos)
}

/// Whether the tensors fill a run of bytes, each the bytes that its shape needs; the length of that run.
fn check(infos: &Infos) -> Result<u64, String> {
    let mut places: Vec<_> = infos.iter().map(|(name, info)| (info.data_offsets, name, info)).collect();
    places.sort_by_key(|&(offsets, name, _)| (offsets, name));
    let mut end = 0;
    let mut before = None;
    for ((first, last), name, info) in places {
        let wanted = bytes_of(info.dtype, &info.shape);
        if last < first || wanted != Some(last - first) {
            return Err(format!(
                "tensor `{name}` lies at {first}..{last}, which does not fit its shape {:?} of {}",
                info.shape, info.dtype
            ));
        }
        if first < end {
            let before = before.map_or("another", |name: &String| name);
            return Err(format!("the tensors `{before}` and `{name}` overlap in bytes {first}..{end}"));
        }
        if first > end {
            return Err(format!("no tensor lies in bytes {end}..{first}, before `{name}`"));
        }
        (end, before) = (last, Some(name));
    }
    Ok(end as u64)
}

/// The bytes of a tensor; `None` if they are no whole number or too many to count.
fn bytes_of(dtype: Dtype, shape: &[usize]) -> Option<usize> {
    let elements = shape.iter().try_fold(1usize, |product, &size| product.checked_mul(size))?;
    let bits = elements.checked_mul(dtype.bitsize())?;
    bits.is_multiple_of(8).then_some(bits / 8)
}
