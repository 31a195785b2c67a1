//! The output volume of a container, read in the file system where this process may do so.
//!
//! It saves the archives. Each costs the engine a process, which in older versions takes half as long as a container's
//! start.

use crate::pods::{Error, Excess};
use bollard::models::MountPoint;
use std::fs::{self, File, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The directory of a volume.
#[derive(Clone)]
pub(super) struct Volume(PathBuf);

impl Volume {
    /// The directory of a mounted volume, opened for every user of the container to write to, as in a pod. `None` if the
    /// engine has another file system, or this process no rights there.
    pub(super) fn find(mount: &MountPoint) -> Option<Self> {
        let (name, source) = (mount.name.as_deref()?, Path::new(mount.source.as_deref()?));
        // The engine chose a random name: a directory of that name in this file system is the volume.
        let is_same = name.len() >= 32 && source.iter().any(|part| part == name);
        (is_same && fs::set_permissions(source, Permissions::from_mode(0o777)).is_ok()).then(|| Volume(source.into()))
    }

    /// The bytes of a file. `None` if it is not a file, or this process may not read it: an archive says more then.
    pub(super) fn read(&self, path: &str, limit: u64) -> Option<Result<Option<Vec<u8>>, Error>> {
        let file = match open(&self.0, path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.0.is_dir() => return Some(Ok(None)),
            Err(_) => return None,
        };
        let size = file.metadata().ok().filter(fs::Metadata::is_file)?.len();
        if size > limit {
            return Some(Err(Error::TooLarge(Excess { size, limit })));
        }
        let mut bytes = vec![];
        file.take(limit.saturating_add(1)).read_to_end(&mut bytes).ok()?;
        Some(Ok(Some(bytes)))
    }
}

/// Opens a file below a directory, without following links or waiting for a FIFO's writer.
#[cfg(target_os = "linux")]
fn open(dir: &Path, path: &str) -> io::Result<File> {
    use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    Ok(openat2(File::open(dir)?, path, flags, Mode::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS)?.into())
}

/// On other systems, engines run in virtual machines: there is no volume to find.
#[cfg(not(target_os = "linux"))]
fn open(_: &Path, _: &str) -> io::Result<File> {
    Err(io::ErrorKind::Unsupported.into())
}
