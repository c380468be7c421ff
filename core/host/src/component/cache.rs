//! Compiled components on disk.
//!
//! Machine code that is read back runs as it is, so it must be ours: the folder has mode 0700 and our owner, and each file
//! begins with a keyed blake3 hash of the rest, under a key (mode 0600) that is kept elsewhere. A file is read, verified and
//! deserialized from those bytes. Whatever goes wrong, the component is compiled anew: the cache is never an error.

use std::fs::{self, File, OpenOptions};
use std::hash::{Hash, Hasher};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use wasmtime::Engine;
use wasmtime::component::Component;

use crate::folders;

/// Files that are kept; the oldest go first.
const KEPT: usize = 64;

/// A folder of compiled components.
pub(super) struct Cache {
    folder: PathBuf,
    key: [u8; 32],
}

impl Cache {
    /// Opens `folder`, or the user's own; `None` if it can't serve.
    pub(super) fn open(folder: Option<PathBuf>) -> Option<Self> {
        let folder = folder.or_else(|| Some(folders::cache()?.join("compiled")))?;
        let key_file = folders::state()?.join("compiled.key");
        Self::with_key(folder.clone(), &key_file)
            .inspect_err(|error| tracing::info!(folder = %folder.display(), %error, "no cache of compiled components"))
            .ok()
    }

    fn with_key(folder: PathBuf, key_file: &Path) -> io::Result<Self> {
        private_folder(&folder)?;
        if let Some(parent) = key_file.parent() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
        }
        Ok(Self { folder, key: read_or_make_key(key_file)? })
    }

    /// The component of `bytes`, compiled before or now.
    pub(super) fn component(&self, engine: &Engine, bytes: &[u8]) -> wasmtime::Result<Component> {
        let path = self.folder.join(format!("{}.cwasm", self.name(engine, bytes)));
        if let Some(component) = self.read(engine, &path) {
            return Ok(component);
        }
        let component = Component::new(engine, bytes)?;
        if let Err(error) = self.write(&path, &component.serialize()?) {
            tracing::info!(path = %path.display(), %error, "failed to keep a compiled component");
        }
        Ok(component)
    }

    /// Depends on the component and on all that compiling depends on.
    fn name(&self, engine: &Engine, bytes: &[u8]) -> blake3::Hash {
        struct Collected(blake3::Hasher);
        impl Hasher for Collected {
            fn finish(&self) -> u64 {
                0
            }
            fn write(&mut self, bytes: &[u8]) {
                self.0.update(bytes);
            }
        }
        let mut collected = Collected(blake3::Hasher::new());
        engine.precompile_compatibility_hash().hash(&mut collected);
        collected.0.update(blake3::hash(bytes).as_bytes());
        collected.0.finalize()
    }

    fn authenticate(&self, path: &Path, compiled: &[u8]) -> blake3::Hash {
        // The name takes part, so that one file can't stand in for another.
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(path.file_name().unwrap_or_default().as_encoded_bytes());
        hasher.update(&[0]);
        hasher.update(compiled);
        hasher.finalize()
    }

    fn read(&self, engine: &Engine, path: &Path) -> Option<Component> {
        let bytes = fs::read(path).ok()?;
        let (tag, compiled) = bytes.split_first_chunk::<32>()?;
        if self.authenticate(path, compiled) != *tag {
            tracing::warn!(path = %path.display(), "a compiled component is not as it was written; compiling it anew");
            return None;
        }
        // SAFETY: the bytes were made by `Component::serialize` of this program: their keyed hash was just verified, on the
        // very bytes that are deserialized. wasmtime itself refuses other versions and settings.
        unsafe { Component::deserialize(engine, compiled) }.ok()
    }

    fn write(&self, path: &Path, compiled: &[u8]) -> io::Result<()> {
        let temporary = self.folder.join(format!("{:016x}.new", u64::from_le_bytes(random()?)));
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        let written = file
            .write_all(self.authenticate(path, compiled).as_bytes())
            .and_then(|()| file.write_all(compiled))
            .and_then(|()| fs::rename(&temporary, path));
        if written.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        written?;
        self.prune()
    }

    fn prune(&self) -> io::Result<()> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            if entry.path().extension().is_some_and(|extension| extension == "cwasm") {
                files.push((entry.metadata()?.modified()?, entry.path()));
            }
        }
        files.sort();
        for (_, path) in files.iter().rev().skip(KEPT) {
            fs::remove_file(path)?;
        }
        Ok(())
    }
}

/// Makes the folder, or refuses one that others can write to or that is another's.
fn private_folder(folder: &Path) -> io::Result<()> {
    if let Some(parent) = folder.parent() {
        fs::create_dir_all(parent)?;
    }
    match fs::DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let found = fs::symlink_metadata(folder)?;
    // A folder of our own has the owner of a file that we make in it.
    let probe = folder.join(format!("{:016x}.new", u64::from_le_bytes(random()?)));
    let ours = File::create_new(&probe)?.metadata()?.uid();
    fs::remove_file(&probe)?;
    if !found.is_dir() || found.uid() != ours || found.permissions().mode() & 0o077 != 0 {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "the folder is not ours alone (mode 0700)"));
    }
    Ok(())
}

fn read_or_make_key(path: &Path) -> io::Result<[u8; 32]> {
    if !path.exists() {
        // Written whole under another name, then linked: nobody reads half a key, and the first of two processes wins.
        let temporary = path.with_extension(format!("{:016x}", u64::from_le_bytes(random()?)));
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        let linked = file
            .write_all(&random::<32>()?)
            .and_then(|()| file.sync_all())
            .and_then(|()| fs::hard_link(&temporary, path));
        fs::remove_file(&temporary)?;
        match linked {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    let mut file = File::open(path)?;
    if file.metadata()?.permissions().mode() & 0o077 != 0 {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "others can read the cache's key"));
    }
    let mut key = [0; 32];
    file.read_exact(&mut key)?;
    Ok(key)
}

fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "(component)";

    #[test]
    fn a_compiled_component_is_read_back_and_a_forged_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let (folder, key) = (dir.path().join("compiled"), dir.path().join("state/key"));
        let cache = Cache::with_key(folder.clone(), &key).unwrap();
        let engine = Engine::default();
        let bytes = wat::parse_str(EMPTY).unwrap();
        cache.component(&engine, &bytes).unwrap();
        let path = folder.join(format!("{}.cwasm", cache.name(&engine, &bytes)));
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(folder.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(key.metadata().unwrap().permissions().mode() & 0o777, 0o600);

        let again = Cache::with_key(folder.clone(), &key).unwrap();
        assert!(again.read(&engine, &path).is_some());
        let mut forged = fs::read(&path).unwrap();
        *forged.last_mut().unwrap() ^= 1;
        fs::write(&path, &forged).unwrap();
        assert!(again.read(&engine, &path).is_none());
        assert!(again.component(&engine, &bytes).is_ok());
        assert!(again.read(&engine, &path).is_some(), "written anew");

        let other = Cache::with_key(folder, &dir.path().join("state/other")).unwrap();
        assert!(other.read(&engine, &path).is_none(), "another key's");
    }

    #[test]
    fn a_folder_that_others_can_write_to_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("compiled");
        fs::create_dir(&folder).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(Cache::with_key(folder, &dir.path().join("key")).is_err());
    }
}
