//! Files into a container and out of it, as tar archives: they need no file system in common with the engine.

use super::request::{Answer, RequestError};
use super::{Inner, explain, is_gone};
use crate::pods::reference::excerpt;
use crate::pods::{Error, Excess, PodSpec};
use futures::{Stream, StreamExt};
use hyper::body::Bytes;
use std::collections::VecDeque;
use std::io;
use std::time::{Duration, SystemTime};
use tar::{Archive, Builder, EntryType, Header};
use tokio::time::Instant;

/// How long a download may go without progress.
const STALL: Duration = Duration::from_secs(10);
/// How long it may take to find a file. Its content may take as long again, and a second for each so many bytes: a slow
/// line to the engine delivers a large file, and who sends a byte now and then does not hold a call for long.
const PATIENCE: Duration = Duration::from_secs(30);
const LEAST_BYTES_PER_SECOND: u64 = 64 << 10;
/// The longest description of a file that is read: names and attributes.
const MOST_DESCRIPTION: usize = 64 << 10;
/// How much room is made at once for a content whose size is announced, in bytes.
const MOST_RESERVED: usize = 16 << 20;
/// What the length of a description is a multiple of.
const BLOCK: usize = 512;
/// The most symbolic links that a path may lead through.
const MOST_LINKS: usize = 8;
const TOO_MANY_LINKS: &str = "it is a symbolic link that leads from link to link; write a file";
const DIRECTORY: &str = "it is a directory; write a file";
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

/// What is at a path, and the file if it is one.
enum Entry<F> {
    File(F),
    Directory,
    /// A symbolic link, and its target.
    Link(String),
    /// A device, a socket and the like.
    Special,
}

/// What paths are looked up in.
trait Tree {
    type File;

    /// What is at an absolute path. A link is not followed. `None` if there is nothing.
    fn look(&self, path: String) -> impl Future<Output = Result<Option<Entry<Self::File>>, Error>> + Send;
}

/// A container, for the time that it may take to find a file in it.
struct Container<'a> {
    inner: &'a Inner,
    name: &'a str,
    deadline: Instant,
}

impl<'a> Tree for Container<'a> {
    type File = FileAhead<'a>;

    async fn look(&self, path: String) -> Result<Option<Entry<Self::File>>, Error> {
        let address = &self.inner.address;
        let answer = tokio::time::timeout_at(self.deadline, self.inner.api.download(self.name, &path)).await;
        match answer.map_err(|_| late(address))? {
            Ok(pieces) => Download { pieces, address, deadline: self.deadline }.entry().await.map(Some),
            Err(error) => no_entry(address, error),
        }
    }
}

/// Reads a file below `dir`. `None` if it does not exist.
pub(super) async fn read(
    inner: &Inner,
    container: &str,
    dir: &str,
    path: &str,
    limit: u64,
) -> Result<Option<Vec<u8>>, Error> {
    let container = Container { inner, name: container, deadline: Instant::now() + PATIENCE };
    match find(&container, dir, path).await? {
        None => Ok(None),
        Some(file) => file.content(limit).await.map(Some),
    }
}

/// Finds a file below `dir`, a step for each part of its path, and never outside of `dir`: an engine would follow links to
/// wherever they lead in the container.
async fn find<T: Tree>(tree: &T, dir: &str, path: &str) -> Result<Option<T::File>, Error> {
    let dir = dir.trim_end_matches('/');
    let mut here: Vec<String> = Vec::new();
    let mut rest: VecDeque<String> = segments(path).map(str::to_owned).collect();
    let mut links = 0;
    let mut outside = String::from("it is outside its directory; write a file");
    while let Some(segment) = rest.pop_front() {
        if segment == ".." {
            // `here` has no links in it, so that its parent is the part before.
            if here.pop().is_none() {
                return Err(Error::Other(outside));
            }
            continue;
        }
        here.push(segment);
        match tree.look(format!("{dir}/{}", here.join("/"))).await? {
            None => return Ok(None),
            Some(Entry::Directory) => {}
            Some(Entry::File(file)) if rest.is_empty() => return Ok(Some(file)),
            Some(Entry::Special) if rest.is_empty() => return Err(Error::Other(NO_FILE.into())),
            // It has no files below it.
            Some(Entry::File(_) | Entry::Special) => return Ok(None),
            Some(Entry::Link(target)) => {
                links += 1;
                if links > MOST_LINKS {
                    return Err(Error::Other(TOO_MANY_LINKS.into()));
                }
                let what = if rest.is_empty() { "it is" } else { "its directory is" };
                outside = format!("{what} a symbolic link to {:?}, outside {dir}; write a file", excerpt(&target));
                here.pop();
                let mut target = target.as_str();
                if target.starts_with('/') {
                    here.clear();
                    target = match below(dir, target) {
                        Some(target) => target,
                        None => return Err(Error::Other(outside)),
                    };
                }
                for segment in segments(target).rev() {
                    rest.push_front(segment.to_owned());
                }
            }
        }
    }
    Err(Error::Other(DIRECTORY.into()))
}

/// What an absolute path is relative to a directory. `None` if it does not begin with it.
fn below<'a>(dir: &str, path: &'a str) -> Option<&'a str> {
    let mut path = path.trim_start_matches('/');
    for parent in segments(dir) {
        let rest = path.strip_prefix(parent)?;
        if !rest.is_empty() && !rest.starts_with('/') {
            return None;
        }
        path = rest.trim_start_matches('/');
    }
    Some(path)
}

fn segments(path: &str) -> impl DoubleEndedIterator<Item = &str> {
    path.split('/').filter(|segment| !matches!(*segment, "" | "."))
}

/// An archive, while it arrives.
struct Download<'a, S = Answer> {
    pieces: S,
    address: &'a str,
    deadline: Instant,
}

/// A file whose content is still to be read, behind what has been read already.
struct FileAhead<'a, S = Answer> {
    download: Download<'a, S>,
    size: u64,
    beginning: Vec<u8>,
}

impl<'a, S: Stream<Item = Result<Bytes, RequestError>> + Unpin> Download<'a, S> {
    /// Reads the description of the archive's first entry.
    async fn entry(mut self) -> Result<Entry<FileAhead<'a, S>>, Error> {
        let mut archive = Vec::new();
        let head = loop {
            let blocks = archive.len() / BLOCK;
            let Some(piece) = self.next().await? else {
                // An archive leaves out what it cannot hold, such as a socket.
                return if archive.is_empty() { Err(self.failed("the archive is empty")) } else { Ok(Entry::Special) };
            };
            archive.extend_from_slice(&piece);
            if archive.len() / BLOCK == blocks {
                continue;
            }
            if let Some(head) = Head::parse(&archive) {
                break head;
            }
            if archive.len() > MOST_DESCRIPTION {
                let why = format!("the description of the file is longer than {MOST_DESCRIPTION} bytes");
                return Err(self.failed(&why));
            }
        };
        Ok(match head.kind {
            EntryType::Regular | EntryType::Continuous => {
                let beginning = archive.split_off(head.length);
                Entry::File(FileAhead { download: self, size: head.size, beginning })
            }
            EntryType::Symlink => Entry::Link(head.link),
            EntryType::Directory => Entry::Directory,
            _ => Entry::Special,
        })
    }

    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        let piece = tokio::time::timeout(STALL, self.pieces.next());
        match tokio::time::timeout_at(self.deadline, piece).await {
            Err(_) => Err(late(self.address)),
            Ok(Err(_)) => Err(self.failed("it sends nothing")),
            Ok(Ok(piece)) => piece.transpose().map_err(|error| explain(self.address, error)),
        }
    }

    fn failed(&self, why: &str) -> Error {
        failed(self.address, why)
    }
}

impl<S: Stream<Item = Result<Bytes, RequestError>> + Unpin> FileAhead<'_, S> {
    /// The whole content, if that is within the limit.
    async fn content(mut self, limit: u64) -> Result<Vec<u8>, Error> {
        let too_large = Error::TooLarge(Excess { size: self.size, limit });
        let Some(size) = usize::try_from(self.size).ok().filter(|_| self.size <= limit) else { return Err(too_large) };
        self.download.deadline = Instant::now() + PATIENCE + Duration::from_secs(self.size / LEAST_BYTES_PER_SECOND);
        let mut content = self.beginning;
        // Only as far as it is likely to be true.
        content.reserve_exact(size.saturating_sub(content.len()).min(MOST_RESERVED));
        while content.len() < size {
            let Some(piece) = self.download.next().await? else {
                return Err(self.download.failed("the archive ends too early"));
            };
            let missing = size - content.len();
            content.extend_from_slice(piece.get(..missing).unwrap_or(&piece));
        }
        content.truncate(size);
        Ok(content)
    }
}

fn late(address: &str) -> Error {
    failed(address, "it takes too long")
}

fn failed(address: &str, why: &str) -> Error {
    Error::Unavailable(format!("the engine at {address} does not deliver the file: {why}"))
}

/// Why there is no archive. `None` if there is nothing at the path.
fn no_entry<F>(address: &str, error: RequestError) -> Result<Option<Entry<F>>, Error> {
    match error {
        error if is_gone(&error) => {
            Err(Error::Gone("somebody removed the container before its result was read".into()))
        }
        RequestError::Refused { status: 404, .. } => Ok(None),
        // A parent of the path is a file.
        RequestError::Refused { message, .. } if message.contains("not a directory") => Ok(None),
        RequestError::Refused { message, .. } if message.contains("too many links") => {
            Err(Error::Other(TOO_MANY_LINKS.into()))
        }
        error => Err(explain(address, error)),
    }
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

    /// Paths, each with what is there: a file, a directory, or a link and its target.
    struct Paths(&'static [(&'static str, &'static str)]);

    impl Tree for Paths {
        type File = &'static str;

        async fn look(&self, path: String) -> Result<Option<Entry<&'static str>>, Error> {
            let path = path.strip_prefix("/out/dir/").unwrap();
            let found = self.0.iter().find(|(name, _)| *name == path);
            Ok(found.map(|(name, what)| match *what {
                "file" => Entry::File(*name),
                "directory" => Entry::Directory,
                "special" => Entry::Special,
                link => Entry::Link(link.strip_prefix("-> ").unwrap().to_owned()),
            }))
        }
    }

    const TREE: Paths = Paths(&[
        ("file", "file"),
        ("a", "directory"),
        ("a/b", "directory"),
        ("a/b/file", "file"),
        ("a/up", "-> ../file"),
        ("a/b/up", "-> ../../a/./b/file"),
        ("absolute", "-> /out/dir/a/b/file"),
        ("directory", "-> a/b"),
        ("deep", "-> directory/file"),
        ("dot", "-> ."),
        ("dangling", "-> nowhere"),
        ("loop", "-> loop"),
        ("passwd", "-> /etc/passwd"),
        ("etc", "-> /etc"),
        ("sibling", "-> /out/directory/x"),
        ("parent", "-> .."),
        ("a/parent", "-> ../../x"),
        ("around", "-> a/../file"),
        ("device", "special"),
    ]);

    #[rstest]
    #[case("file", Ok(Some("file")))]
    #[case("a/b/file", Ok(Some("a/b/file")))]
    #[case("a/up", Ok(Some("file")))]
    #[case("a/b/up", Ok(Some("a/b/file")))]
    #[case("absolute", Ok(Some("a/b/file")))]
    #[case("directory/file", Ok(Some("a/b/file")))]
    #[case("directory/up", Ok(Some("a/b/file")))]
    #[case("deep", Ok(Some("a/b/file")))]
    #[case("dot/dot/file", Ok(Some("file")))]
    #[case("nothing", Ok(None))]
    #[case("a/nothing", Ok(None))]
    #[case("dangling", Ok(None))]
    #[case("file/a", Ok(None))]
    #[case("device/a", Ok(None))]
    #[case("a", Err("it is a directory; write a file"))]
    #[case("dot", Err("it is a directory; write a file"))]
    #[case("device", Err("it is neither a file nor a link to one; write a file"))]
    #[case("loop", Err("it is a symbolic link that leads from link to link; write a file"))]
    #[case("loop/a", Err("it is a symbolic link that leads from link to link; write a file"))]
    #[case("passwd", Err("it is a symbolic link to \"/etc/passwd\", outside /out/dir; write a file"))]
    #[case("etc/passwd", Err("its directory is a symbolic link to \"/etc\", outside /out/dir; write a file"))]
    #[case("sibling", Err("it is a symbolic link to \"/out/directory/x\", outside /out/dir; write a file"))]
    #[case("parent/x", Err("its directory is a symbolic link to \"..\", outside /out/dir; write a file"))]
    #[case("a/parent", Err("it is a symbolic link to \"../../x\", outside /out/dir; write a file"))]
    #[case("around", Ok(Some("file")))]
    #[case("directory/../../../x", Err("its directory is a symbolic link to \"a/b\", outside /out/dir; write a file"))]
    #[case("../x", Err("it is outside its directory; write a file"))]
    #[tokio::test]
    async fn links_lead_nowhere_outside(#[case] path: &str, #[case] expected: Result<Option<&str>, &str>) {
        let found = find(&TREE, "/out/dir/", path).await;
        assert_eq!(found.map_err(|error| error.to_string()), expected.map_err(str::to_owned));
    }

    /// The beginning of an archive with a file of this size.
    fn header(size: u64) -> Vec<u8> {
        let mut header = Header::new_gnu();
        header.set_size(size);
        header.set_cksum();
        header.as_bytes().to_vec()
    }

    /// Reads a file from an archive of which a piece comes every so often.
    async fn download(
        archive: impl Iterator<Item = Vec<u8>>,
        pause: Duration,
        limit: u64,
    ) -> (Result<Vec<u8>, Error>, Duration) {
        let start = Instant::now();
        let pieces = futures::stream::iter(archive).then(async |piece| {
            tokio::time::sleep(pause).await;
            Ok(Bytes::from(piece))
        });
        let download = Download { pieces: Box::pin(pieces), address: "a", deadline: start + PATIENCE };
        let read = async {
            match download.entry().await? {
                Entry::File(file) => file.content(limit).await,
                _ => panic!("it is a file"),
            }
        };
        (read.await, start.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_comes_in_drops_is_given_up() {
        let drops = |size: u64| header(size).into_iter().map(|byte| vec![byte]).chain(std::iter::repeat(vec![0]));
        let (read, took) = download(drops(1), Duration::from_secs(5), 1 << 20).await;
        assert_eq!(read, Err(late("a")));
        assert_eq!(took, PATIENCE);
        let (read, took) = download(drops(1 << 20), Duration::from_millis(50), 1 << 20).await;
        assert_eq!(read, Err(late("a")));
        // 25.6 s for the description, 30 s and 16 more for the content.
        assert_eq!(took.as_secs(), 25 + 30 + 16);
    }

    #[tokio::test(start_paused = true)]
    async fn a_large_file_over_a_slow_line_arrives() {
        let pieces = std::iter::once(header(8 << 20)).chain(std::iter::repeat_n(vec![1; 8 << 10], 1 << 10));
        let (read, took) = download(pieces, Duration::from_millis(120), 8 << 20).await;
        assert_eq!(read, Ok(vec![1; 8 << 20]));
        assert_eq!(took.as_secs(), 123);
    }

    #[tokio::test(start_paused = true)]
    async fn who_sends_nothing_is_given_up_soon() {
        let (read, took) = download([header(1)].into_iter().cycle(), Duration::from_secs(11), 1).await;
        assert_eq!(read, Err(failed("a", "it sends nothing")));
        assert_eq!(took, STALL);
    }

    #[rstest]
    #[case::over_the_limit(1 << 40, 8)]
    #[case::more_than_memory(u64::MAX >> 1, u64::MAX)]
    #[tokio::test(start_paused = true)]
    async fn a_file_is_too_large_before_it_is_read(#[case] size: u64, #[case] limit: u64) {
        let (read, took) = download([header(size)].into_iter(), Duration::ZERO, limit).await;
        if size > limit {
            assert_eq!(read, Err(Error::TooLarge(Excess { size, limit })));
        } else {
            assert_eq!(read, Err(failed("a", "the archive ends too early")));
        }
        assert_eq!(took, Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_piece_may_hold_more_than_the_file() {
        for size in [0, 1, 511, 512, 513] {
            let archive = [header(size), vec![7; 2000]].concat();
            for cut in [1, 511, 512, 513, 2000] {
                let pieces: Vec<_> = archive.chunks(cut).map(<[u8]>::to_vec).collect();
                let (read, _) = download(pieces.into_iter(), Duration::ZERO, 600).await;
                assert_eq!(read.unwrap(), vec![7; usize::try_from(size).unwrap()], "{cut}");
            }
        }
    }
}
