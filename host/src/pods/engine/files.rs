//! Files into a container and out of it, as tar archives: they need no file system in common with the engine.

use super::{Inner, is_gone};
use crate::pods::{Error, Excess, PodSpec};
use bollard::errors::Error as RequestError;
use bollard::query_parameters::DownloadFromContainerOptions;
use futures::{Stream, StreamExt};
use hyper::body::Bytes;
use std::io;
use std::pin::pin;
use std::time::{Duration, SystemTime};
use tar::{Archive, Builder, EntryType, Header};

/// How long a download may go without progress.
const STALL: Duration = Duration::from_secs(10);
/// The most symbolic links that may follow one another.
const MOST_LINKS: usize = 8;
const TOO_MANY_LINKS: &str = "it is a symbolic link that leads from link to link; write a file";
const NO_FILE: &str = "it is neither a file nor a link to one; write a file";

/// The archive that lets every user write to the output directory and creates the input files, relative to the root.
///
/// The input directory has these files alone, whatever the image has there, like a volume in a pod. Unlike there, a
/// process of root can write to it.
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
    // Every user of the image may write, as to a pod's volume.
    tar.append_data(&mut header(EntryType::Directory, 0o777, 0), relative(&spec.output_dir), io::empty())?;
    if !spec.input_files.is_empty() {
        let path = relative(&spec.input_dir);
        // A file replaces the image's directory and all that is in it, and then an empty directory replaces the file.
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

/// What is at a path.
enum Entry {
    File(Vec<u8>),
    /// A symbolic link, and its target.
    Link(String),
}

/// Reads a file below `dir`. `None` if it does not exist.
pub(super) async fn read(
    inner: &Inner,
    container: &str,
    dir: &str,
    path: &str,
    limit: u64,
) -> Result<Option<Vec<u8>>, Error> {
    let mut target = path.to_owned();
    for _ in 0..=MOST_LINKS {
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
    Err(Error::Other(TOO_MANY_LINKS.into()))
}

/// The target of a link in `dir`, relative to `dir`. `None` if it is outside.
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

/// Downloads what is at a path. `None` if nothing is there.
async fn entry(inner: &Inner, container: &str, dir: &str, path: &str, limit: u64) -> Result<Option<Entry>, Error> {
    let options = DownloadFromContainerOptions { path: format!("{}/{path}", dir.trim_end_matches('/')) };
    let mut chunks = pin!(inner.docker.download_from_container(container, Some(options)));
    let mut archive = Vec::new();
    let head = loop {
        if let Some(head) = Head::parse(&archive) {
            break head;
        }
        match next(inner, &mut chunks).await? {
            Next::Bytes(bytes) => archive.extend_from_slice(&bytes),
            Next::Nothing => return Ok(None),
            Next::End if archive.is_empty() => return Err(broken(inner, "the archive is empty")),
            // An archive leaves out what it cannot hold, such as a socket.
            Next::End => return Err(Error::Other(NO_FILE.into())),
        }
    };
    match head.kind {
        EntryType::Regular | EntryType::Continuous => {}
        EntryType::Symlink => return Ok(Some(Entry::Link(head.link))),
        EntryType::Directory => return Err(Error::Other("it is a directory; write a file".into())),
        _ => return Err(Error::Other(NO_FILE.into())),
    }
    if head.size > limit {
        return Err(Error::TooLarge(Excess { size: head.size, limit }));
    }
    let size = usize::try_from(head.size).unwrap_or(usize::MAX);
    let mut content = archive.split_off(head.length);
    while content.len() < size {
        match next(inner, &mut chunks).await? {
            Next::Bytes(bytes) => content.extend_from_slice(&bytes),
            Next::Nothing | Next::End => return Err(broken(inner, "the archive ends too early")),
        }
    }
    content.truncate(size);
    Ok(Some(Entry::File(content)))
}

/// The next part of an archive.
enum Next {
    Bytes(Bytes),
    End,
    /// Nothing is at the path.
    Nothing,
}

async fn next(
    inner: &Inner,
    chunks: &mut (impl Stream<Item = Result<Bytes, RequestError>> + Unpin),
) -> Result<Next, Error> {
    let chunk = tokio::time::timeout(STALL, chunks.next()).await;
    match chunk.map_err(|_| broken(inner, "it sends nothing"))? {
        None => Ok(Next::End),
        Some(Ok(bytes)) => Ok(Next::Bytes(bytes)),
        Some(Err(error)) if is_gone(&error) => {
            Err(Error::Gone("somebody removed the container before its result was read".into()))
        }
        Some(Err(RequestError::DockerResponseServerError { status_code: 404, .. })) => Ok(Next::Nothing),
        // A parent of the path is a file.
        Some(Err(RequestError::DockerResponseServerError { message, .. })) if message.contains("not a directory") => {
            Ok(Next::Nothing)
        }
        Some(Err(RequestError::DockerResponseServerError { message, .. })) if message.contains("too many links") => {
            Err(Error::Other(TOO_MANY_LINKS.into()))
        }
        Some(Err(error)) => Err(inner.explain(error)),
    }
}

fn broken(inner: &Inner, why: &str) -> Error {
    Error::Unavailable(format!("the engine at {} broke off the file: {why}", inner.address))
}

/// The description of an archive's first entry.
struct Head {
    kind: EntryType,
    /// The size of the content.
    size: u64,
    /// The target of a link.
    link: String,
    /// The length of this description: the content begins behind it.
    length: usize,
}

impl Head {
    /// Reads the beginning of an archive. `None` if that is too little.
    fn parse(beginning: &[u8]) -> Option<Self> {
        let mut archive = Archive::new(beginning);
        let entry = archive.entries().ok()?.next()?.ok()?;
        let link = entry.link_name_bytes().unwrap_or_default();
        Some(Head {
            kind: entry.header().entry_type(),
            size: entry.size(),
            link: String::from_utf8_lossy(&link).into_owned(),
            length: usize::try_from(entry.raw_file_position()).ok()?,
        })
    }
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
    fn a_link_to_outside_has_no_target(#[case] path: &str, #[case] link: &str, #[case] expected: Option<&str>) {
        assert_eq!(resolve("/out/dir", path, link).as_deref(), expected);
    }
}
