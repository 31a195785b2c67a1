//! A small HTTP client, which shows what was answered and nothing else.

use serde_json::Value;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// An answer.
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its body.
    pub body: String,
    head: String,
}

impl Answer {
    /// The header of this name, in small letters; empty if there is none.
    pub fn header(&self, name: &str) -> &str {
        let mut headers = self.head.lines().filter_map(|line| line.split_once(": "));
        headers.find(|(found, _)| found.eq_ignore_ascii_case(name)).map_or("", |(_, value)| value)
    }

    /// The body.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// The sentence of a refusal.
    pub fn error(&self) -> String {
        self.json()["error"].as_str().expect("a refusal says why").to_owned()
    }
}

/// Sends a request on a connection of its own.
pub async fn send(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: impl AsRef<[u8]>,
) -> Answer {
    let body = body.as_ref();
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    let head = format!("{head}Content-Length: {}\r\n\r\n", body.len());
    exchange(address, &[head.as_bytes(), body].concat()).await
}

/// Sends these bytes, and reads one answer.
pub async fn exchange(address: SocketAddr, request: &[u8]) -> Answer {
    let reading = async {
        let (mut from, mut to) = TcpStream::connect(address).await.unwrap().into_split();
        let mut received = vec![];
        let mut buffer = vec![0; 64 * 1024];
        // A server that refuses a request need not read it all.
        let writing = async {
            drop(to.write_all(request).await);
            std::future::pending().await
        };
        let reading = async {
            while !is_whole(&received) {
                match from.read(&mut buffer).await {
                    Ok(read @ 1..) => received.extend_from_slice(&buffer[..read]),
                    _ => break,
                }
            }
        };
        tokio::select! {
            () = writing => {}
            () = reading => {}
        }
        received
    };
    let received = tokio::time::timeout(Duration::from_secs(30), reading).await.expect("an answer within 30 s");
    let text = String::from_utf8(received).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    Answer { status, body: body.to_owned(), head: head.to_owned() }
}

fn is_whole(received: &[u8]) -> bool {
    let text = String::from_utf8_lossy(received);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
    length.is_some_and(|length: usize| body.len() >= length)
}
