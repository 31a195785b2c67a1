//! Pulling images.

use super::Inner;
use super::request::{Answer, RequestError, clipped};
use crate::pods::causes::chain;
use crate::pods::reference::{DEFAULT_DOMAIN, Reference};
use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE};
use futures::TryStreamExt;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::env;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// The least time between two reports of progress.
const REPORT: Duration = Duration::from_millis(300);
/// The pause after the first try, and the longest: each pause is twice the one before.
const PAUSES: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(30));
/// The key of Docker Hub in Docker's configuration.
const HUB: &str = "https://index.docker.io/v1/";

/// The longest event of a pull, in bytes.
const MOST_EVENT: usize = 64 << 10;
/// The most layers whose sizes are added up. Engines refuse images with more than 127.
const MOST_LAYERS: usize = 1000;

/// Why a try to pull an image failed.
#[derive(Debug, thiserror::Error)]
enum PullError {
    #[error(transparent)]
    Request(#[from] RequestError),
    /// What the engine or the registry reported.
    #[error("{0}")]
    Reported(String),
}

/// Pulls an image. After an error that may pass, `trouble` is called and the pull is tried again for ever. Any other error
/// is returned.
pub(super) async fn pull(
    inner: &Inner,
    image: &Reference<'_>,
    progress: impl Fn(String),
    trouble: impl Fn(String),
) -> Result<(), String> {
    let (mut pause, longest) = PAUSES;
    // Only before the first try: whoever waits for an error to last would otherwise see it end with each try.
    progress(image.to_string());
    loop {
        match pull_once(inner, image, &progress).await {
            Ok(()) => return Ok(()),
            Err(error) => {
                let why = chain(&error);
                if is_final(&error) {
                    return Err(why);
                }
                trouble(why);
            }
        }
        tokio::time::sleep(pause).await;
        pause = longest.min(pause * 2);
    }
}

/// Whether there is no such image, or this user may not have it.
fn is_final(error: &PullError) -> bool {
    let (status, message) = match error {
        PullError::Request(RequestError::Refused { status, message }) => (*status, message),
        PullError::Reported(message) => (0, message),
        PullError::Request(_) => return false,
    };
    let words = ["not found", "denied", "unauthorized", "manifest unknown", "no matching manifest"];
    (400..=404).contains(&status) || words.iter().any(|word| message.contains(word))
}

async fn pull_once(inner: &Inner, image: &Reference<'_>, progress: impl Fn(String)) -> Result<(), PullError> {
    let mut events = Events::new(inner.api.pull(&image.to_string(), credentials(image)).await?);
    let mut layers: HashMap<String, (u64, u64)> = HashMap::new();
    let mut reported = Instant::now();
    while let Some(event) = events.next().await? {
        if let Some(why) = event.error() {
            return Err(PullError::Reported(clipped(why)));
        }
        let Some(id) = event.id.filter(|id| layers.contains_key(id) || layers.len() < MOST_LAYERS) else { continue };
        let detail = event.progress_detail.unwrap_or_default();
        match (event.status.as_deref(), detail.current, detail.total) {
            (Some("Downloading"), Some(current), Some(total)) => {
                let number = |number: i64| u64::try_from(number).unwrap_or_default();
                layers.insert(id, (number(current), number(total)));
            }
            (Some("Download complete"), ..) => {
                layers.entry(id).and_modify(|(current, total)| *current = *total);
            }
            _ => {}
        }
        if reported.elapsed() >= REPORT && !layers.is_empty() {
            reported = Instant::now();
            let add =
                |sum: (u64, u64), layer: &(u64, u64)| (sum.0.saturating_add(layer.0), sum.1.saturating_add(layer.1));
            let (current, total) = layers.values().fold((0, 0), add);
            progress(format!("{image} {} of {} MB", current / 1_000_000, total / 1_000_000));
        }
    }
    Ok(())
}

/// An event of a pull.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Event {
    /// The layer.
    id: Option<String>,
    status: Option<String>,
    progress_detail: Option<Progress>,
    error: Option<String>,
    error_detail: Option<ErrorDetail>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Progress {
    current: Option<i64>,
    total: Option<i64>,
}

#[derive(Deserialize)]
struct ErrorDetail {
    message: Option<String>,
}

impl Event {
    fn error(&self) -> Option<String> {
        let detail = self.error_detail.as_ref().and_then(|detail| detail.message.clone());
        detail.or_else(|| self.error.clone())
    }
}

/// The events of a pull: a line of JSON each.
struct Events {
    answer: Answer,
    received: Vec<u8>,
}

impl Events {
    fn new(answer: Answer) -> Self {
        Events { answer, received: Vec::new() }
    }

    async fn next(&mut self) -> Result<Option<Event>, PullError> {
        loop {
            if let Some(end) = self.received.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.received.drain(..=end).collect();
                if line.trim_ascii().is_empty() {
                    continue;
                }
                return parse(&line).map(Some);
            }
            if self.received.len() > MOST_EVENT {
                let beginning = String::from_utf8_lossy(&self.received).into_owned();
                return Err(PullError::Reported(clipped(format!("an event of the pull is too long: {beginning}"))));
            }
            match self.answer.try_next().await? {
                Some(piece) => self.received.extend_from_slice(&piece),
                None if self.received.trim_ascii().is_empty() => return Ok(None),
                // The last line may have no end.
                None => return parse(&std::mem::take(&mut self.received)).map(Some),
            }
        }
    }
}

fn parse(line: &[u8]) -> Result<Event, PullError> {
    Ok(serde_json::from_slice(line).map_err(RequestError::Unreadable)?)
}

#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    auths: HashMap<String, Auth>,
}

#[derive(Deserialize)]
struct Auth {
    #[serde(default)]
    auth: String,
    identitytoken: Option<String>,
}

/// What an engine is told of credentials.
#[derive(Debug, PartialEq, Serialize)]
struct Credentials<'a> {
    username: String,
    password: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    identitytoken: Option<String>,
    serveraddress: &'a str,
}

/// The credentials that `docker login` wrote for the image's registry, as a header.
fn credentials(image: &Reference<'_>) -> Option<String> {
    let dir = env::var_os("DOCKER_CONFIG").map(PathBuf::from).or_else(|| Some(env::home_dir()?.join(".docker")))?;
    let config = std::fs::read(dir.join("config.json")).ok()?;
    let credentials = credentials_in(&config, registry(image))?;
    Some(BASE64_URL_SAFE.encode(serde_json::to_vec(&credentials).ok()?))
}

fn credentials_in<'a>(config: &[u8], registry: &'a str) -> Option<Credentials<'a>> {
    let config: Config = serde_json::from_slice(config).ok()?;
    let auth = config.auths.get(registry)?;
    let plain = String::from_utf8(BASE64_STANDARD.decode(&auth.auth).ok()?).ok()?;
    let (username, password) = plain.split_once(':')?;
    Some(Credentials {
        username: username.to_owned(),
        password: password.to_owned(),
        identitytoken: auth.identitytoken.clone(),
        serveraddress: registry,
    })
}

/// The key of an image's registry in Docker's configuration.
fn registry<'a>(image: &Reference<'a>) -> &'a str {
    match image.domain() {
        DEFAULT_DOMAIN => HUB,
        domain => domain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("bash:5", HUB)]
    #[case("library/bash", HUB)]
    #[case("docker.io/library/bash", HUB)]
    #[case("ghcr.io/a/b:1", "ghcr.io")]
    #[case("localhost:5000/a", "localhost:5000")]
    fn the_registry_of_an_image_is_its_key_in_the_configuration(#[case] image: &str, #[case] expected: &str) {
        assert_eq!(registry(&Reference::parse(image).unwrap()), expected);
    }

    #[test]
    fn credentials_are_read_as_docker_login_writes_them() {
        let config = br#"{"auths":{"ghcr.io":{"auth":"bWU6cGFzczp3b3Jk"},"other":{}},"credsStore":"desktop"}"#;
        let found = credentials_in(config, "ghcr.io").unwrap();
        assert_eq!((&*found.username, &*found.password), ("me", "pass:word"));
        assert_eq!(credentials_in(config, "other"), None);
        assert_eq!(credentials_in(config, HUB), None);
    }
}
