//! Files into a container and out of it, as tar archives: the engine need not see our file system, nor we its.

use super::{Inner, is_gone};
use crate::pods::{Error, Excess, PodSpec};
use bollard::errors::Error as EngineError;
use bollard::query_parameters::DownloadFromContainerOptions;
use futures::StreamExt;
use std::io;
use std::ops::Range;
use std::pin::pin;
use std::time::{Duration, SystemTime};
use tar::{Archive, Builder, EntryType, Header};

/// The longest that a download may make no progress.
const STALL: Duration = Duration::from_secs(10);
/// The most symbolic links that lead from one to the next.
const LINKS: usize = 8;
const CIRCLE: &str = "it is a symbolic link that leads from link to link; write a file";

/// The archive that opens the output directory to all users and makes the input files, relative to the root.
///
/// The input starts empty, whatever the image has there, as a volume in a pod does. Unlike there, a process that is root
/// can write to it.
pub(super) fn pack(spec: &PodSpec) -> io::Result<Vec<u8>> {
    let mtime = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs();
    let header = |kind: EntryType, mode: u32, size: usize| {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_mtime(mtime);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(size as u64);
        header
    };
    let mut tar = Builder::new(Vec::new());
    // Any user of the image may write, as to a pod's volume.
    tar.append_data(&mut header(EntryType::Directory, 0o777, 0), relative(&spec.output_dir), io::empty())?;
    if !spec.input_files.is_empty() {
        let path = relative(&spec.input_dir);
        // A file takes the place of the image's directory with all that is in it, and then an empty one that of the file.
        tar.append_data(&mut header(EntryType::Regular, 0, 0), path, io::empty())?;
        tar.append_data(&mut header(EntryType::Directory, 0o755, 0), path, io::empty())?;
    }
    for file in &spec.input_files {
        let path = format!("{}/{}", relative(&spec.input_dir), file.path);
        let mut header = header(EntryType::Regular, 0o444, file.content.len());
        tar.append_data(&mut header, path, file.content.as_slice())?;
    }
    tar.into_inner()
}

fn relative(path: &str) -> &str {
    path.trim_matches('/')
}

/// What there is at a path.
enum Entry {
    File(Vec<u8>),
    Link(String),
}

/// Reads a file below `dir`; none if it does not exist.
pub(super) async fn read(
    inner: &Inner,
    container: &str,
    dir: &str,
    path: &str,
    limit: u64,
) -> Result<Option<Vec<u8>>, Error> {
    let mut target = path.to_owned();
    for _ in 0..=LINKS {
        match entry(inner, container, dir, &target, limit).await? {
            None => return Ok(None),
            Some(Entry::File(content)) => return Ok(Some(content)),
            Some(Entry::Link(link)) => {
                target = resolve(dir, &target, &link).ok_or_else(|| {
                    Error::Other(format!("it is a symbolic link to {link:?}, outside {dir}; write a file"))
                })?;
            }
        }
    }
    Err(Error::Other(CIRCLE.into()))
}

/// Where a link in `dir` leads to, relative to `dir`; none if that is outside.
fn resolve(dir: &str, path: &str, link: &str) -> Option<String> {
    let (start, rest) = match link.strip_prefix('/') {
        None => (path.rsplit_once('/').map_or("", |(parent, _)| parent), link),
        Some(rest) => ("", rest.strip_prefix(relative(dir))?.strip_prefix('/')?),
    };
    let mut segments = Vec::new();
    for segment in start.split('/').chain(rest.split('/')) {
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()?),
            segment => segments.push(segment),
        }
    }
    Some(segments.join("/"))
}

async fn entry(inner: &Inner, container: &str, dir: &str, path: &str, limit: u64) -> Result<Option<Entry>, Error> {
    let options = DownloadFromContainerOptions { path: format!("{}/{path}", dir.trim_end_matches('/')) };
    let mut archive = pin!(inner.docker.download_from_container(container, Some(options)));
    let mut bytes = Vec::new();
    let mut file: Option<Range<usize>> = None;
    let broken = |why: &str| Error::Unavailable(format!("the engine at {} broke the file off: {why}", inner.address));
    while let Some(chunk) = tokio::time::timeout(STALL, archive.next()).await.map_err(|_| broken("it sends nothing"))? {
        match chunk {
            Ok(chunk) => bytes.extend_from_slice(&chunk),
            Err(error) if is_gone(&error) => {
                return Err(Error::Gone("somebody removed the container before its result was read".into()));
            }
            Err(EngineError::DockerResponseServerError { status_code: 404, .. }) => return Ok(None),
            // A directory of that name is a file.
            Err(EngineError::DockerResponseServerError { message, .. }) if message.contains("not a directory") => {
                return Ok(None);
            }
            Err(EngineError::DockerResponseServerError { message, .. }) if message.contains("too many links") => {
                return Err(Error::Other(CIRCLE.into()));
            }
            Err(error) => return Err(inner.explain(error)),
        }
        if file.is_none() {
            let Some(head) = head(&bytes) else { continue };
            file = match head.kind {
                EntryType::Regular | EntryType::Continuous if head.size > limit => {
                    return Err(Error::TooLarge(Excess { size: head.size, limit }));
                }
                EntryType::Regular | EntryType::Continuous => {
                    let size = usize::try_from(head.size).unwrap_or(usize::MAX);
                    Some(head.start..head.start.saturating_add(size))
                }
                EntryType::Symlink => return Ok(Some(Entry::Link(head.link))),
                EntryType::Directory => return Err(Error::Other("it is a directory; write a file".into())),
                _ => return Err(Error::Other("it is neither a file nor a link to one; write a file".into())),
            };
        }
        if let Some(content) = file.clone().and_then(|range| bytes.get(range)) {
            return Ok(Some(Entry::File(content.to_vec())));
        }
    }
    Err(if bytes.is_empty() || file.is_some() {
        broken("the archive ends too early")
    } else {
        // What an archive has no word for, such as a socket, is left out of it.
        Error::Other("it is neither a file nor a link to one; write a file".into())
    })
}

/// What the first entry of an archive says of itself.
struct Head {
    kind: EntryType,
    size: u64,
    /// Where its content begins.
    start: usize,
    link: String,
}

/// The first entry of an archive of which this is the beginning; none if that is too little.
fn head(archive: &[u8]) -> Option<Head> {
    let mut archive = Archive::new(archive);
    let entry = archive.entries().ok()?.next()?.ok()?;
    let link = entry.link_name_bytes().unwrap_or_default();
    Some(Head {
        kind: entry.header().entry_type(),
        size: entry.size(),
        start: usize::try_from(entry.raw_file_position()).ok()?,
        link: String::from_utf8_lossy(&link).into_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("result.json", "other.json", Some("other.json"))]
    #[case("a/b/result.json", "../c/./d", Some("a/c/d"))]
    #[case("result.json", "/out/dir/x", Some("x"))]
    #[case("result.json", "/etc/passwd", None)]
    #[case("result.json", "/out/directory/x", None)]
    #[case("a/result.json", "../../x", None)]
    fn links_lead_nowhere_outside(#[case] path: &str, #[case] link: &str, #[case] expected: Option<&str>) {
        assert_eq!(resolve("/out/dir", path, link).as_deref(), expected);
    }
}
