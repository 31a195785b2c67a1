//! What a command writes to its standard streams.

use std::collections::VecDeque;
use std::io::{self, Cursor};
use std::pin::Pin;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::watch;
use tokio_util::io::StreamReader;

/// How many bytes are kept.
const KEPT: usize = 1 << 20;

/// The end of a log.
#[derive(Default)]
pub(super) struct Log {
    bytes: VecDeque<u8>,
    /// How many bytes came before those.
    dropped: u64,
}

impl Log {
    fn append(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
        let excess = self.bytes.len().saturating_sub(KEPT);
        self.bytes.drain(..excess);
        self.dropped += excess as u64;
    }

    /// What is kept of the bytes from a position on.
    fn after(&self, position: u64) -> Vec<u8> {
        let skipped = usize::try_from(position.saturating_sub(self.dropped)).unwrap_or(usize::MAX);
        let (front, back) = self.bytes.as_slices();
        let rest = |slice: &[u8], skipped: usize| slice.get(skipped..).unwrap_or_default().to_vec();
        [rest(front, skipped), rest(back, skipped.saturating_sub(front.len()))].concat()
    }

    /// The last lines, or less if they have more than so many bytes.
    pub fn tail(&self, lines: usize, bytes: usize) -> String {
        let start = self.bytes.len().saturating_sub(bytes);
        let within_a_character = |byte: &&u8| start > 0 && **byte & 0b1100_0000 == 0b1000_0000;
        let end: Vec<u8> = self.bytes.range(start..).skip_while(within_a_character).copied().collect();
        let text = String::from_utf8_lossy(&end);
        let all = text.trim_end_matches('\n');
        let first = match lines.checked_sub(1) {
            None => all.len(),
            Some(before) => all.rmatch_indices('\n').nth(before).map_or(0, |(at, _)| at + 1),
        };
        all.get(first..).unwrap_or_default().to_owned()
    }
}

/// Reads the output to its end, and never waits for readers of the log.
pub(super) async fn copy(mut output: impl AsyncRead + Unpin, log: &watch::Sender<Log>) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(read @ 1..) = output.read(&mut buffer).await {
        log.send_modify(|log| log.append(buffer.get(..read).unwrap_or_default()));
        tokio::task::yield_now().await; // so that followers that keep up miss nothing
    }
}

/// The log from its beginning. A line tells a reader how many bytes it has missed because they were not kept for it.
pub(super) fn follow(log: watch::Receiver<Log>) -> Pin<Box<dyn AsyncRead + Send>> {
    let chunks = futures::stream::unfold((log, 0), |(mut log, position)| async move {
        loop {
            let (mut chunk, dropped) = {
                let log = log.borrow_and_update();
                (log.after(position), log.dropped)
            };
            let missed = dropped.saturating_sub(position);
            let next = position + missed + chunk.len() as u64;
            if missed > 0 {
                chunk.splice(..0, format!("\n[{missed} bytes of the log are left out]\n").into_bytes());
            }
            if !chunk.is_empty() {
                return Some((io::Result::Ok(Cursor::new(chunk)), (log, next)));
            }
            log.changed().await.ok()?;
        }
    });
    Box::pin(StreamReader::new(chunks))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn followers_get_everything_and_are_told_what_they_miss() {
        let (sender, receiver) = watch::channel(Log::default());
        sender.send_modify(|log| log.append(b"first\n"));
        let (mut prompt, mut late) = (follow(receiver.clone()), follow(receiver));
        let mut start = [0; 6];
        prompt.read_exact(&mut start).await.unwrap();
        assert_eq!(&start, b"first\n");
        sender.send_modify(|log| log.append(&vec![b'x'; KEPT]));
        drop(sender);
        let (mut rest, mut all) = (String::new(), String::new());
        prompt.read_to_string(&mut rest).await.unwrap();
        late.read_to_string(&mut all).await.unwrap();
        assert_eq!(rest.len(), KEPT);
        assert!(all.starts_with("\n[6 bytes of the log are left out]\nxxx"), "{}", &all[..50]);
    }

    #[test]
    fn the_tail_is_whole_lines_and_whole_characters() {
        let mut log = Log::default();
        log.append("ä\nb\nc\n".as_bytes());
        assert_eq!(log.tail(2, 100), "b\nc");
        assert_eq!(log.tail(9, 100), "ä\nb\nc");
        assert_eq!(log.tail(9, 6), "\nb\nc");
        assert_eq!(log.tail(0, 100), "");
    }
}
