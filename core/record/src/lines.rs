//! Append-only files of lines that can be cut back to a recorded length.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::folder::FileMark;

/// An open file of lines. It ends with a newline at every moment but during a write.
pub(crate) struct Lines {
    path: PathBuf,
    file: File,
    bytes: u64,
    hasher: blake3::Hasher,
}

impl Lines {
    /// Opens or creates the file, and cuts off a last line that a killed process left unfinished.
    pub fn open(path: &Path) -> Result<Self> {
        let mut options = OpenOptions::new();
        let file = options.create(true).truncate(false).read(true).write(true).open(path);
        let file = file.map_err(Error::io("open", path))?;
        let mut lines = Self { path: path.to_owned(), file, bytes: 0, hasher: blake3::Hasher::new() };
        let content = lines.read()?;
        let whole = content.iter().rposition(|&byte| byte == b'\n').map_or(0, |last| last + 1);
        lines.keep(&content[..whole])?;
        Ok(lines)
    }

    /// The whole content.
    pub fn read(&mut self) -> Result<Vec<u8>> {
        let mut content = Vec::new();
        self.file
            .seek(SeekFrom::Start(0))
            .and_then(|_| self.file.read_to_end(&mut content))
            .map_err(Error::io("read", &self.path))?;
        Ok(content)
    }

    /// Appends lines, each of which ends with a newline. After an error the file is as it was before.
    pub fn append(&mut self, lines: &str) -> Result<()> {
        let written = self.file.seek(SeekFrom::Start(self.bytes)).and_then(|_| self.file.write_all(lines.as_bytes()));
        if let Err(error) = written {
            // Half a line may be there. If it can't be cut off now, opening the file cuts it off.
            let _ = self.file.set_len(self.bytes);
            return Err(Error::io("write", &self.path)(error));
        }
        self.bytes += lines.len() as u64;
        self.hasher.update(lines.as_bytes());
        Ok(())
    }

    /// Makes what was appended durable and says how long the file is.
    pub fn mark(&mut self) -> Result<FileMark> {
        self.file.sync_all().map_err(Error::io("write", &self.path))?;
        Ok(FileMark { bytes: self.bytes, blake3: self.hasher.finalize().to_hex().to_string() })
    }

    /// Cuts the file back to what `mark` recorded; an error if that is not how the file begins.
    pub fn rewind(&mut self, mark: &FileMark) -> Result<()> {
        let content = self.read()?;
        let changed = |found: String| Error::Changed { path: self.path.clone(), found };
        let Some(kept) = usize::try_from(mark.bytes).ok().and_then(|bytes| content.get(..bytes)) else {
            return Err(changed(format!("it has {} bytes, and had {}", content.len(), mark.bytes)));
        };
        if blake3::hash(kept).to_hex().as_str() != mark.blake3 {
            return Err(changed(format!("its first {} bytes have changed", mark.bytes)));
        }
        self.keep(kept)
    }

    /// Cuts the file back to its first `count` lines; a shorter file stays as it is.
    pub fn rewind_to_line(&mut self, count: u64) -> Result<()> {
        let content = self.read()?;
        let mut ends = content.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1);
        let kept = match count {
            0 => 0,
            _ => ends.nth(count as usize - 1).unwrap_or(content.len()),
        };
        self.keep(&content[..kept])
    }

    /// How many lines there are.
    pub fn count(&mut self) -> Result<u64> {
        Ok(self.read()?.iter().filter(|&&byte| byte == b'\n').count() as u64)
    }

    /// Leaves only `start`, which is how the file begins.
    fn keep(&mut self, start: &[u8]) -> Result<()> {
        self.file.set_len(start.len() as u64).map_err(Error::io("cut back", &self.path))?;
        self.bytes = start.len() as u64;
        self.hasher = blake3::Hasher::new();
        self.hasher.update(start);
        Ok(())
    }
}
