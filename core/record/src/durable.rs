//! Files that appear whole or not at all.

use std::fs::{self, File};
use std::io::{BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::folder::FileMark;

/// Temporary names start so; what still has one when a run opens is the work of a process that was killed.
pub(crate) const WRITING: &str = ".writing-";

/// Makes a folder and its parents, each with a durable name.
pub(crate) fn create_dir_all(path: &Path) -> Result<()> {
    let missing = path.ancestors().take_while(|level| !level.as_os_str().is_empty() && !level.is_dir());
    let missing: Vec<&Path> = missing.collect();
    fs::create_dir_all(path).map_err(Error::io("create the folder", path))?;
    missing.into_iter().rev().try_for_each(|made| sync_dir(parent(made)))
}

/// The folder that holds `path`.
pub(crate) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Makes the names in a folder durable.
pub(crate) fn sync_dir(path: &Path) -> Result<()> {
    #[cfg(test)]
    tests::SYNCED.with_borrow_mut(|synced| synced.push(path.to_owned()));
    File::open(path).and_then(|dir| dir.sync_all()).map_err(Error::io("sync the folder", path))
}

/// Writes a file and syncs its bytes; its name is durable only after `sync_dir`.
pub(crate) fn write_synced(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = File::create(path).map_err(Error::io("create", path))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(Error::io("write", path))
}

/// The length and hash of a file.
pub(crate) fn sum(path: &Path) -> std::io::Result<FileMark> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(File::open(path)?)?;
    Ok(FileMark { bytes: hasher.count(), blake3: hasher.finalize().to_hex().to_string() })
}

/// The blake3 hash of a file's bytes, in hexadecimal. The file is read piece by piece, whatever its size.
pub fn hash_file(path: &Path) -> Result<String> {
    Ok(sum(path).map_err(Error::io("read", path))?.blake3)
}

/// A file that is being written, and the length and hash of what went into it.
pub(crate) struct Summed {
    file: BufWriter<File>,
    bytes: u64,
    hasher: blake3::Hasher,
}

impl Write for Summed {
    fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
        let count = self.file.write(buffer)?;
        self.bytes += count as u64;
        self.hasher.update(&buffer[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

/// Puts what `fill` writes at `path`, in place of what is there: written beside it, synced, renamed, the folder synced.
pub(crate) fn replace_with(path: &Path, fill: impl FnOnce(&mut Summed) -> Result<()>) -> Result<FileMark> {
    let temporary = temporary(path);
    let write = || -> Result<FileMark> {
        let file = File::create(&temporary).map_err(Error::io("create", &temporary))?;
        let mut file = Summed { file: BufWriter::new(file), bytes: 0, hasher: blake3::Hasher::new() };
        fill(&mut file)?;
        file.flush().and_then(|()| file.file.get_ref().sync_all()).map_err(Error::io("write", path))?;
        rename(&temporary, path)?;
        Ok(FileMark { bytes: file.bytes, blake3: file.hasher.finalize().to_hex().to_string() })
    };
    let written = write();
    if written.is_err() {
        // The space it takes may be what the user lacks. The first error is the one to report.
        let _ = fs::remove_file(&temporary);
    }
    let mark = written?;
    sync_dir(parent(path))?;
    Ok(mark)
}

/// Puts `bytes` at `path`, as [`replace_with`] does.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<FileMark> {
    replace_with(path, |file| file.write_all(bytes).map_err(Error::io("write", path)))
}

/// The temporary name of a file or folder that will be `path`.
pub(crate) fn temporary(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!("{WRITING}{name}"))
}

/// Renames within a folder; the new name is durable only after `sync_dir`.
pub(crate) fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).map_err(Error::io("rename a finished file to", to))
}

/// Removes a file or a folder with all in it; what is absent is no error.
pub(crate) fn remove(path: &Path) -> Result<()> {
    let result = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match result {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::io("remove", path)(error)),
        _ => Ok(()),
    }
}

/// The names in a folder, sorted; none if the folder is absent.
pub(crate) fn names(path: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io("list the folder", path)(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(Error::io("list the folder", path))?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// Removes what a killed process left under a temporary name.
pub(crate) fn remove_leftovers(dir: &Path) -> Result<()> {
    for name in names(dir)?.iter().filter(|name| name.starts_with(WRITING)) {
        remove(&dir.join(name))?;
    }
    Ok(())
}

/// Syncs every file and folder below `dir` and lists the files, as paths relative to `dir` with `/`, sorted.
pub(crate) fn sync_tree(dir: &Path) -> Result<Vec<String>> {
    let mut files = Vec::new();
    for name in names(dir)? {
        let path = dir.join(&name);
        if path.is_dir() {
            files.extend(sync_tree(&path)?.into_iter().map(|inner| format!("{name}/{inner}")));
        } else {
            File::open(&path).and_then(|file| file.sync_all()).map_err(Error::io("write", &path))?;
            files.push(name);
        }
    }
    sync_dir(dir)?;
    Ok(files)
}

/// Refuses a name that would be a path, hidden, or unwieldy in a shell.
pub(crate) fn check_name(what: &'static str, name: &str) -> Result<()> {
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > 200 || name.starts_with('.') || !name.chars().all(plain) {
        return Err(Error::Name { what, name: name.to_owned() });
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use std::cell::RefCell;

    use super::*;

    thread_local! {
        /// The folders that this thread has synced; only a loss of power would tell otherwise.
        pub(crate) static SYNCED: RefCell<Vec<PathBuf>> = const { RefCell::new(Vec::new()) };
    }

    #[test]
    fn every_new_folder_has_a_durable_name() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        create_dir_all(&at("a/b/c")).unwrap();
        assert_eq!(SYNCED.take(), [dir.path().to_owned(), at("a"), at("a/b")]);
        create_dir_all(&at("a/b/d")).unwrap();
        assert_eq!(SYNCED.take(), [at("a/b")]);
        create_dir_all(&at("a/b")).unwrap();
        assert_eq!(SYNCED.take(), Vec::<PathBuf>::new());
    }
}
