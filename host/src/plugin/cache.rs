//! Compiled components on disk, so that only the first run of a version waits for the compiler.

use super::hex;
use sha2::{Digest, Sha256};
use std::fs;
use std::hash::{Hash, Hasher};
use std::io::{self, Write};
use std::path::Path;
use wasmtime::component::Component;
use wasmtime::{Engine, Result};

/// Takes the component from the cache, or compiles it. Without a usable cache it is compiled each time.
pub(super) fn load(engine: &Engine, dir: &Path, component: &[u8], sha256: &str) -> Result<Component> {
    let mut settings = KeyHasher(Sha256::new());
    engine.precompile_compatibility_hash().hash(&mut settings);
    let entry = dir.join(format!("{sha256}-{}.cwasm", hex(&settings.0.finalize())));
    if let Some(cached) = read(engine, &entry) {
        return Ok(cached);
    }
    let compiled = Component::new(engine, component)?;
    if let Err(error) = compiled.serialize().map_err(io::Error::other).and_then(|code| write(dir, &entry, &code)) {
        tracing::debug!(entry = %entry.display(), %error, "compiled component not cached");
    }
    Ok(compiled)
}

/// An entry is the SHA-256 of the code, then the code. An entry is ignored if it is damaged, or if another user could
/// have written it.
#[allow(unsafe_code, reason = "see SAFETY")]
fn read(engine: &Engine, entry: &Path) -> Option<Component> {
    if !is_private(entry.parent()?) || !is_private(entry) {
        return None;
    }
    let bytes = fs::read(entry).ok()?;
    let (digest, code) = bytes.split_first_chunk::<32>()?;
    if Sha256::digest(code).as_slice() != digest {
        return None;
    }
    // SAFETY: the bytes must be what `serialize` of this wasmtime made. Only this user can write to the directory and
    // the file, the digest shows them to be whole, the name holds the component and the engine's version and settings,
    // and wasmtime checks the latter two again.
    unsafe { Component::deserialize(engine, code) }.ok()
}

fn write(dir: &Path, entry: &Path, code: &[u8]) -> io::Result<()> {
    create_private_dir(dir)?;
    // Readers see the whole entry or none.
    let mut file = tempfile::NamedTempFile::new_in(dir)?;
    file.write_all(&Sha256::digest(code))?;
    file.write_all(code)?;
    file.persist(entry)?;
    Ok(())
}

#[cfg(unix)]
fn create_private_dir(dir: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

#[cfg(not(unix))]
fn create_private_dir(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)
}

/// Whether only this user can write there.
#[cfg(unix)]
fn is_private(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    fs::symlink_metadata(path).is_ok_and(|meta| {
        !meta.is_symlink() && meta.mode() & 0o022 == 0 && meta.uid() == rustix::process::geteuid().as_raw()
    })
}

#[cfg(not(unix))]
fn is_private(_: &Path) -> bool {
    true
}

/// Makes a stable key from what wasmtime hashes.
struct KeyHasher(Sha256);

impl Hasher for KeyHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        0
    }
}
