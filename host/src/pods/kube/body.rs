//! Bounds on what the API server can make this process hold.
//!
//! kube-rs collects a whole response before it looks at it, and a whole line of a watch. So the bounds are here, below
//! kube-rs, where a response comes in piece by piece.

use hyper::body::{Body, Bytes, Frame, SizeHint};
use hyper::{StatusCode, Uri};
use std::pin::Pin;
use std::task::{Context, Poll};
use tower::BoxError;

/// The most bytes of a response, or of one event of a watch. The API server stores objects of at most 1.5 MiB, and JSON
/// writes some characters with six, so every real object fits.
const MOST_BYTES: usize = 16 << 20;

/// The most bytes of a text that comes from the cluster: a message, or a termination message. Kubernetes allows 4 KiB of
/// the latter.
const MOST_TEXT: usize = 16 << 10;

/// A response is larger than this process is willing to hold.
#[derive(Debug, thiserror::Error)]
#[error("the answer has more than {MOST_BYTES} bytes")]
pub(super) struct TooLarge;

/// How much of a response may come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bound {
    /// All of it together is bounded.
    Whole,
    /// Each line is bounded: a watch sends one event a line, and has no end.
    Line,
    /// Nothing is bounded: a log that is followed has no end, and its reader keeps no more than a buffer.
    Nothing,
}

impl Bound {
    /// The bound of a request that succeeds.
    pub(super) fn of(uri: &Uri) -> Self {
        let has = |pair: &str| uri.query().is_some_and(|query| query.split('&').any(|found| found == pair));
        if has("watch=true") {
            Bound::Line
        } else if has("follow=true") {
            Bound::Nothing
        } else {
            Bound::Whole
        }
    }

    /// The bound of a request that got this status: the body of an error is an object, whatever was asked for.
    pub(super) fn with(self, status: StatusCode) -> Self {
        if status.is_success() { self } else { Bound::Whole }
    }
}

/// A response's body that ends in an error as soon as it exceeds its bound.
pub(super) struct Bounded {
    body: kube::client::Body,
    bound: Bound,
    /// The bytes since the beginning of what is bounded.
    size: usize,
}

impl Bounded {
    pub(super) fn new(body: kube::client::Body, bound: Bound) -> Self {
        Bounded { body, bound, size: 0 }
    }

    fn count(&mut self, data: &[u8]) -> Result<(), TooLarge> {
        let is_new_line = |byte: &u8| *byte == b'\n';
        let end = match self.bound {
            Bound::Nothing => return Ok(()),
            Bound::Whole => None,
            Bound::Line => data.iter().rposition(is_new_line),
        };
        // Within one piece, lines need not be told apart: a piece is as large as a connection's buffer at most.
        self.size = match end {
            Some(end) => data.len() - end,
            None => self.size.saturating_add(data.len()),
        };
        if self.size > MOST_BYTES { Err(TooLarge) } else { Ok(()) }
    }
}

impl Body for Bounded {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.body).poll_frame(context).map(|frame| {
            Some(match frame? {
                Ok(frame) => match frame.data_ref().map_or(Ok(()), |data| self.count(data)) {
                    Ok(()) => Ok(frame),
                    Err(error) => Err(error.into()),
                },
                // What kube-rs will wrap again.
                Err(kube::Error::Service(error)) => Err(error),
                Err(error) => Err(error.into()),
            })
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A text of the cluster, cut off if it is too long.
pub(super) fn bounded(text: &str) -> String {
    let end = text.floor_char_boundary(MOST_TEXT);
    match text.get(..end) {
        Some(beginning) if end < text.len() => format!("{beginning}…"),
        _ => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("/api/v1/pods?limit=500", StatusCode::OK, Bound::Whole)]
    #[case("/api/v1/pods?&watch=true&resourceVersion=1", StatusCode::OK, Bound::Line)]
    #[case("/api/v1/pods?&watch=true", StatusCode::GONE, Bound::Whole)]
    #[case("/api/v1/namespaces/a/pods/b/log?&follow=true", StatusCode::OK, Bound::Nothing)]
    #[case("/api/v1/namespaces/a/pods/b/log?&follow=true", StatusCode::BAD_GATEWAY, Bound::Whole)]
    #[case("/api/v1/namespaces/a/pods/watch=true", StatusCode::OK, Bound::Whole)]
    fn a_request_determines_what_is_bounded(#[case] uri: Uri, #[case] status: StatusCode, #[case] expected: Bound) {
        assert_eq!(Bound::of(&uri).with(status), expected);
    }

    #[test]
    fn events_without_number_are_not_one_large_event() {
        let mut body = Bounded::new(kube::client::Body::empty(), Bound::Line);
        let event = [&[b'a'; 999_999][..], b"\n"].concat();
        assert!((0..100).all(|_| body.count(&event).is_ok()));
        let unfinished = [b'a'; 1_000_000];
        assert_eq!((0..100).take_while(|_| body.count(&unfinished).is_ok()).count(), 16);
    }

    #[rstest]
    #[case(16 << 10, false)]
    #[case((16 << 10) + 1, true)]
    fn a_text_is_cut_off_between_characters(#[case] size: usize, #[case] is_cut_off: bool) {
        for text in ["a".repeat(size), format!("a{}", "ä".repeat(size / 2))] {
            let bounded = bounded(&text);
            assert!(bounded.len() <= MOST_TEXT + "…".len());
            assert_eq!(bounded.ends_with('…'), text.len() > MOST_TEXT);
        }
        assert_eq!(bounded(&"a".repeat(size)).ends_with('…'), is_cut_off);
    }
}
