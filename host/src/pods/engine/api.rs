//! The requests that an engine understands, as far as pods need them.

use super::endpoint::Endpoint;
use super::log::Log;
use super::request::{self, Answer, RequestError, request};
use hyper::Method;
use hyper::body::Bytes;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::Value;
use std::collections::HashMap;

const QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// An engine, by its requests.
pub(super) struct Api {
    endpoint: Endpoint,
    /// What paths begin with: the newest version of the API that the engine has.
    version: String,
}

/// What an engine is.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Version {
    #[serde(default)]
    pub version: String,
    #[serde(default)]
    api_version: String,
    components: Option<Vec<Component>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Component {
    #[serde(default)]
    name: String,
}

impl Version {
    pub fn is_podman(&self) -> bool {
        self.components.iter().flatten().any(|component| component.name.starts_with("Podman"))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Info {
    #[serde(default)]
    logging_driver: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Created {
    warnings: Option<Vec<String>>,
}

/// A container as it is now.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Container {
    #[serde(default)]
    pub state: State,
    mounts: Option<Vec<Mount>>,
}

impl Container {
    pub fn mounts(self) -> Vec<Mount> {
        self.mounts.unwrap_or_default()
    }
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct State {
    /// `running`, `exited`, `removing` and so on.
    pub status: String,
    pub running: bool,
    #[serde(rename = "OOMKilled")]
    pub oom_killed: bool,
    pub exit_code: i64,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Mount {
    /// The name of the volume.
    pub name: Option<String>,
    /// The path in the engine's file system.
    pub source: String,
    /// The path in the container.
    pub destination: String,
}

/// A container in a list.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Listed {
    pub id: String,
    labels: Option<HashMap<String, String>>,
}

impl Listed {
    pub fn label(&self, name: &str) -> Option<&str> {
        self.labels.as_ref()?.get(name).map(String::as_str)
    }
}

impl Api {
    /// Asks what the engine is, and from then on speaks the newest version that it has.
    pub async fn connect(endpoint: Endpoint) -> Result<(Self, Version), RequestError> {
        let version: Version = request::json(&endpoint, request(Method::GET, "/version"), "").await?;
        let is_number = version.api_version.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        let prefix = match &*version.api_version {
            number if is_number && !number.is_empty() => format!("/v{number}"),
            _ => String::new(),
        };
        Ok((Api { endpoint, version: prefix }, version))
    }

    /// The driver of containers' logs.
    pub async fn logging_driver(&self) -> Result<String, RequestError> {
        let info: Info = request::json(&self.endpoint, self.request(Method::GET, "/info", &[]), "").await?;
        Ok(info.logging_driver)
    }

    /// Creates a container, and returns what the engine warns of.
    pub async fn create(&self, name: &str, body: &Value) -> Result<Vec<String>, RequestError> {
        let request = self.request(Method::POST, "/containers/create", &[("name", name)]);
        let created: Created = request::json(&self.endpoint, request, body.to_string()).await?;
        Ok(created.warnings.unwrap_or_default())
    }

    pub async fn inspect(&self, container: &str) -> Result<Container, RequestError> {
        request::json(&self.endpoint, self.of(Method::GET, container, "/json", &[]), "").await
    }

    /// Unpacks an archive in the root of a container.
    pub async fn upload(&self, container: &str, archive: Vec<u8>) -> Result<(), RequestError> {
        request::done(&self.endpoint, self.of(Method::PUT, container, "/archive", &[("path", "/")]), archive).await
    }

    /// An archive of a file or directory of a container.
    pub async fn download(&self, container: &str, path: &str) -> Result<Answer, RequestError> {
        request::open(&self.endpoint, self.of(Method::GET, container, "/archive", &[("path", path)]), "").await
    }

    pub async fn start(&self, container: &str) -> Result<(), RequestError> {
        request::done(&self.endpoint, self.of(Method::POST, container, "/start", &[]), "").await
    }

    /// Returns when the container does not run, or when the wait broke off.
    pub async fn wait(&self, container: &str) -> Result<(), RequestError> {
        let request = self.of(Method::POST, container, "/wait", &[("condition", "not-running")]);
        let mut answer = request::send(&self.endpoint, request, Bytes::new()).await?;
        // Engines send the headers at once, and the rest when it does not run.
        futures::TryStreamExt::try_next(&mut answer).await.map(drop)
    }

    pub async fn kill(&self, container: &str) -> Result<(), RequestError> {
        request::done(&self.endpoint, self.of(Method::POST, container, "/kill", &[]), "").await
    }

    /// Ends and removes a container with its anonymous volumes.
    pub async fn remove(&self, container: &str) -> Result<(), RequestError> {
        let query = [("force", "true"), ("v", "true")];
        request::done(&self.endpoint, self.of(Method::DELETE, container, "", &query), "").await
    }

    pub async fn remove_volume(&self, volume: &str) -> Result<(), RequestError> {
        let path = format!("/volumes/{}", encoded(volume));
        request::done(&self.endpoint, self.request(Method::DELETE, &path, &[]), "").await
    }

    /// The last lines of a log.
    pub async fn tail_logs(&self, container: &str, lines: u32) -> Result<Log, RequestError> {
        self.logs(container, ("tail", &lines.to_string())).await
    }

    /// A log from its beginning, until the container ends.
    pub async fn follow_logs(&self, container: &str) -> Result<Log, RequestError> {
        self.logs(container, ("follow", "true")).await
    }

    async fn logs(&self, container: &str, query: (&str, &str)) -> Result<Log, RequestError> {
        let query = [("stdout", "true"), ("stderr", "true"), query];
        let request = self.of(Method::GET, container, "/logs", &query);
        Ok(Log::new(request::open(&self.endpoint, request, "").await?))
    }

    /// The events of a pull.
    pub async fn pull(&self, image: &str, credentials: Option<String>) -> Result<Answer, RequestError> {
        let mut request = self.request(Method::POST, "/images/create", &[("fromImage", image)]);
        if let Some(credentials) = credentials {
            request = request.header("X-Registry-Auth", credentials);
        }
        request::open(&self.endpoint, request, "").await
    }

    /// The containers with a label, those that have ended among them.
    pub async fn containers(&self, label: &str) -> Result<Vec<Listed>, RequestError> {
        let filters = serde_json::json!({"label": [label]}).to_string();
        let query = [("all", "true"), ("filters", &*filters)];
        request::json(&self.endpoint, self.request(Method::GET, "/containers/json", &query), "").await
    }

    fn of(&self, method: Method, container: &str, path: &str, query: &[(&str, &str)]) -> hyper::http::request::Builder {
        self.request(method, &format!("/containers/{}{path}", encoded(container)), query)
    }

    fn request(&self, method: Method, path: &str, query: &[(&str, &str)]) -> hyper::http::request::Builder {
        let query: Vec<String> = query.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect();
        let mark = if query.is_empty() { "" } else { "?" };
        request(method, &format!("{}{path}{mark}{}", self.version, query.join("&")))
    }
}

fn encoded(text: &str) -> percent_encoding::PercentEncode<'_> {
    utf8_percent_encode(text, QUERY)
}
