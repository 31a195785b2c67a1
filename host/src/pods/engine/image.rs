//! Pulling images.

use super::Inner;
use crate::pods::causes::chain;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bollard::auth::DockerCredentials;
use bollard::errors::Error as RequestError;
use bollard::models::CreateImageInfo;
use bollard::query_parameters::CreateImageOptions;
use futures::StreamExt;
use serde::Deserialize;
use std::collections::HashMap;
use std::env;
use std::path::PathBuf;
use std::pin::pin;
use std::time::{Duration, Instant};

/// The least time between two reports of progress.
const REPORT: Duration = Duration::from_millis(300);
/// The pause after the first try, and the longest: each pause is twice the one before.
const PAUSES: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(30));
/// The key of Docker Hub in Docker's configuration.
const HUB: &str = "https://index.docker.io/v1/";

/// Pulls an image. After an error that may pass, `trouble` is called and the pull is tried again for ever. Any other error
/// is returned.
pub(super) async fn pull(
    inner: &Inner,
    image: &str,
    progress: impl Fn(String),
    trouble: impl Fn(String),
) -> Result<(), String> {
    let (mut pause, longest) = PAUSES;
    // Only before the first try: whoever waits for an error to last would otherwise see it end with each try.
    progress(image.to_owned());
    loop {
        match pull_once(inner, image, &progress).await {
            Ok(()) => return Ok(()),
            Err(error) => {
                let (why, is_final) = judge(&error);
                if is_final {
                    return Err(why);
                }
                trouble(why);
            }
        }
        tokio::time::sleep(pause).await;
        pause = longest.min(pause * 2);
    }
}

/// The message of an error, and whether it is final: there is no such image, or this user may not have it.
fn judge(error: &RequestError) -> (String, bool) {
    let (code, message) = match error {
        RequestError::DockerResponseServerError { status_code, message } => (*status_code, message.clone()),
        RequestError::DockerStreamError { error } => (0, error.clone()),
        error => return (chain(error), false),
    };
    let words = ["not found", "denied", "unauthorized", "manifest unknown", "no matching manifest"];
    let is_final = (400..=404).contains(&code) || words.iter().any(|word| message.contains(word));
    (message, is_final)
}

async fn pull_once(inner: &Inner, image: &str, progress: impl Fn(String)) -> Result<(), RequestError> {
    // Without a tag, the engine would pull every tag of the repository.
    let name = image.rsplit('/').next().unwrap_or(image);
    let reference = if name.contains([':', '@']) { image.to_owned() } else { format!("{image}:latest") };
    let options = CreateImageOptions { from_image: Some(reference), ..CreateImageOptions::default() };
    let mut events = pin!(inner.docker.create_image(Some(options), None, credentials(image)));
    let mut layers: HashMap<String, (i64, i64)> = HashMap::new();
    let mut reported = Instant::now();
    while let Some(event) = events.next().await {
        let CreateImageInfo { id: Some(id), status, progress_detail, .. } = event? else { continue };
        let detail = progress_detail.unwrap_or_default();
        match (status.as_deref(), detail.current, detail.total) {
            (Some("Downloading"), Some(current), Some(total)) => {
                layers.insert(id, (current, total));
            }
            (Some("Download complete"), ..) => {
                layers.entry(id).and_modify(|(current, total)| *current = *total);
            }
            _ => {}
        }
        if reported.elapsed() >= REPORT && !layers.is_empty() {
            reported = Instant::now();
            let (current, total) = layers.values().fold((0, 0), |sum, layer| (sum.0 + layer.0, sum.1 + layer.1));
            progress(format!("{image} {} of {} MB", current / 1_000_000, total / 1_000_000));
        }
    }
    Ok(())
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

/// The credentials that `docker login` wrote for the image's registry.
fn credentials(image: &str) -> Option<DockerCredentials> {
    let dir = env::var_os("DOCKER_CONFIG").map(PathBuf::from).or_else(|| Some(env::home_dir()?.join(".docker")))?;
    let config = std::fs::read(dir.join("config.json")).ok()?;
    credentials_in(&config, registry(image))
}

fn credentials_in(config: &[u8], registry: &str) -> Option<DockerCredentials> {
    let config: Config = serde_json::from_slice(config).ok()?;
    let auth = config.auths.get(registry)?;
    let plain = String::from_utf8(BASE64_STANDARD.decode(&auth.auth).ok()?).ok()?;
    let (username, password) = plain.split_once(':')?;
    Some(DockerCredentials {
        username: Some(username.to_owned()),
        password: Some(password.to_owned()),
        identitytoken: auth.identitytoken.clone(),
        serveraddress: Some(registry.to_owned()),
        ..DockerCredentials::default()
    })
}

/// The key of an image's registry in Docker's configuration.
fn registry(image: &str) -> &str {
    match image.split_once('/') {
        Some((host, _)) if host == "localhost" || host.contains(['.', ':']) => match host {
            "docker.io" | "index.docker.io" => HUB,
            host => host,
        },
        _ => HUB,
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
        assert_eq!(registry(image), expected);
    }

    #[test]
    fn credentials_are_read_as_docker_login_writes_them() {
        let config = br#"{"auths":{"ghcr.io":{"auth":"bWU6cGFzczp3b3Jk"},"other":{}},"credsStore":"desktop"}"#;
        let found = credentials_in(config, "ghcr.io").unwrap();
        assert_eq!((found.username.as_deref(), found.password.as_deref()), (Some("me"), Some("pass:word")));
        assert_eq!(credentials_in(config, "other"), None);
        assert_eq!(credentials_in(config, HUB), None);
    }
}
