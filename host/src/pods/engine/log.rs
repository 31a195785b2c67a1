//! A container's log, as engines send it: in pieces, each with a header that says how long it is.

use super::request::{Answer, RequestError};
use futures::{Stream, StreamExt};
use hyper::body::{Buf, Bytes};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// The length of a header: one byte for the stream, three zeros, and the length of the piece in four.
const HEADER: usize = 8;

/// What a container wrote. A piece is passed on as it arrives, however long it says it is.
pub(super) struct Log<S = Answer> {
    answer: S,
    received: Bytes,
    /// The beginning of the next header.
    header: Vec<u8>,
    /// What is left of the present piece.
    left: usize,
}

impl<S> Log<S> {
    pub fn new(answer: S) -> Self {
        Log { answer, received: Bytes::new(), header: Vec::with_capacity(HEADER), left: 0 }
    }

    /// The next bytes of the log in what has been received.
    fn next_received(&mut self) -> Option<Bytes> {
        while !self.received.is_empty() {
            if self.left > 0 {
                let length = self.left.min(self.received.len());
                self.left -= length;
                return Some(self.received.split_to(length));
            }
            self.header.push(self.received.get_u8());
            if let [_, _, _, _, a, b, c, d] = *self.header {
                self.left = u32::from_be_bytes([a, b, c, d]) as usize;
                self.header.clear();
            }
        }
        None
    }
}

impl<S: Stream<Item = Result<Bytes, RequestError>> + Unpin> Stream for Log<S> {
    type Item = Result<Bytes, RequestError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(bytes) = self.next_received() {
                return Poll::Ready(Some(Ok(bytes)));
            }
            match ready!(self.answer.poll_next_unpin(context)) {
                Some(Ok(bytes)) => self.received = bytes,
                end => return Poll::Ready(end),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::TryStreamExt;
    use rstest::rstest;

    #[rstest]
    #[tokio::test]
    async fn the_headers_are_left_out_wherever_it_is_cut(#[values(1, 2, 3, 7, 8, 9, 100)] size: usize) {
        let sent = b"\x01\0\0\0\0\0\0\x04out\n\x02\0\0\0\0\0\0\x00\x02\0\0\0\0\0\0\x03err\x01\0\0\0\xff\xff\xff\xffx";
        let pieces = sent.chunks(size).map(|piece| Ok(Bytes::copy_from_slice(piece)));
        let log = Log::new(futures::stream::iter(pieces.collect::<Vec<_>>()));
        let log: Vec<Bytes> = log.try_collect().await.unwrap();
        assert_eq!(log.concat(), b"out\nerrx");
    }
}
