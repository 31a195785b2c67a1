//! The output volume of a container, read in the file system where this process may do so.
//!
//! It saves the archives. Each costs the engine a process, which in older versions takes half as long as a container's
//! start.

use super::api::Mount;
use crate::pods::{Error, Excess};
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
    pub(super) fn find(mount: &Mount) -> Option<Self> {
        let (name, source) = (mount.name.as_deref()?, Path::new(&mount.source));
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
        let size = file.metadata().ok()?.len();
        if size > limit {
            return Some(Err(Error::TooLarge(Excess { size, limit })));
        }
        // As it is now: what is added meanwhile is not part of it.
        let mut bytes = vec![];
        file.take(size).read_to_end(&mut bytes).ok()?;
        Some(Ok(Some(bytes)))
    }
}

/// Opens a regular file below a directory, without following links.
#[cfg(target_os = "linux")]
fn open(dir: &Path, path: &str) -> io::Result<File> {
    use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
    use std::os::fd::AsRawFd;
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let found: File = openat2(File::open(dir)?, path, flags, Mode::empty(), resolve)?.into();
    // Only now is it opened, and only if it is a file. To open a device can do things to the machine, and a container of
    // root can make any.
    if !found.metadata()?.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    File::open(format!("/proc/self/fd/{}", found.as_raw_fd()))
}

/// On other systems, engines run in virtual machines: there is no volume to find.
#[cfg(not(target_os = "linux"))]
fn open(_: &Path, _: &str) -> io::Result<File> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use rustix::fs::{CWD, FileType, Mode, inotify, mknodat};
    use std::mem::MaybeUninit;
    use std::os::unix::fs::symlink;

    #[test]
    fn what_is_not_a_file_is_not_opened() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "content").unwrap();
        symlink("file", dir.path().join("link")).unwrap();
        symlink("/etc", dir.path().join("etc")).unwrap();
        let fifo = dir.path().join("fifo");
        mknodat(CWD, &fifo, FileType::Fifo, Mode::RWXU, 0).unwrap();
        let events = inotify::init(inotify::CreateFlags::NONBLOCK).unwrap();
        inotify::add_watch(&events, &fifo, inotify::WatchFlags::OPEN).unwrap();

        let volume = Volume(dir.path().to_owned());
        assert_eq!(volume.read("file", 7), Some(Ok(Some(b"content".to_vec()))));
        assert_eq!(volume.read("nothing", 7), Some(Ok(None)));
        for path in ["fifo", "link", "etc/passwd", "..", ".", "../file"] {
            assert_eq!(volume.read(path, 7), None, "{path}");
        }
        let mut buffer = [MaybeUninit::uninit(); 512];
        let event = inotify::Reader::new(events, &mut buffer).next().map(|event| event.events());
        assert_eq!(event, Err(rustix::io::Errno::WOULDBLOCK), "the FIFO was opened");
    }

    #[test]
    fn a_sparse_file_is_too_large_before_it_is_read() {
        let dir = tempfile::tempdir().unwrap();
        File::create(dir.path().join("file")).unwrap().set_len(1 << 40).unwrap();
        let read = Volume(dir.path().to_owned()).read("file", 8);
        assert_eq!(read, Some(Err(Error::TooLarge(Excess { size: 1 << 40, limit: 8 }))));
    }
}
