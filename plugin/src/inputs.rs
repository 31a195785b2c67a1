//! The inputs of `k8s_run`: JSON text → checked inputs with defaults, or everything that is wrong with them.

mod json;

pub use crate::bindings::exports::hiphops::app::app::Problem;
use crate::shared::env;
use crate::shared::quantity::Amount;
use json::Json;
use serde_json::value::RawValue;
use std::time::Duration;

/// JSON Schema of the inputs object.
pub const SCHEMA: &str = include_str!("inputs/schema.json");

/// An object with more names is not meant as inputs: one message says so, instead of one for each name.
const MAX_NAMES: usize = 100;
const START_TIMEOUT: Duration = Duration::from_secs(120);
/// No container starts with less: a smaller limit is a mistake.
const MIN_MEMORY: Amount = Amount::of(1024 * 1024);

/// Checked inputs. Directories and paths have no `.` segment and no trailing slash.
#[derive(Debug, PartialEq)]
pub struct Inputs {
    /// The container's image.
    pub image: String,
    /// Replaces the image's entry point, unless empty.
    pub command: Vec<String>,
    /// Replaces the image's arguments, unless empty.
    pub args: Vec<String>,
    /// A DNS label.
    pub namespace: String,
    /// Absolute.
    pub in_dir: String,
    /// Paths relative to `in_dir`, with their contents.
    pub in_files: Vec<(String, String)>,
    /// Absolute.
    pub out_dir: String,
    /// Relative to `out_dir`.
    pub out_path: String,
    /// A Kubernetes quantity.
    pub cpu: String,
    /// A Kubernetes quantity.
    pub memory: String,
    /// Whether the pod is left in the cluster after the call.
    pub skip_cleanup: bool,
    /// Names and values.
    pub env: Vec<(String, String)>,
    /// How long the container may run.
    pub timeout: Option<Duration>,
    /// How long the container may take to start.
    pub start_timeout: Duration,
    /// The Kubernetes service account to run as.
    pub service_account: Option<String>,
    /// Secrets to pull the image with.
    pub image_pull_secrets: Vec<String>,
    /// Labels and values.
    pub node_selector: Vec<(String, String)>,
}

/// Checks the inputs of a call.
///
/// # Errors
/// All problems, in the order of the inputs in the text.
pub fn parse(text: &str) -> Result<Inputs, Vec<Problem>> {
    let mut fields = Fields::new(text)?;
    let inputs = Inputs {
        image: fields.required("image", image),
        command: fields.strings("command", no_nul),
        args: fields.strings("args", no_nul),
        namespace: fields.text("namespace", "default", dns_label),
        in_dir: fields.text("in_dir", "/input", directory),
        in_files: fields.in_files(),
        out_dir: fields.text("out_dir", "/output", directory),
        out_path: fields.text("out_path", "result.json", relative_path),
        cpu: fields.quantity("cpu", "250m", cpu),
        memory: fields.quantity("memory", "128Mi", memory),
        skip_cleanup: fields.bool("skip_cleanup"),
        env: fields.map("env", env_name, no_nul),
        timeout: fields.duration("timeout"),
        start_timeout: fields.duration("start_timeout").unwrap_or(START_TIMEOUT),
        service_account: fields.optional("service_account", object_name),
        image_pull_secrets: fields.strings("image_pull_secrets", object_name),
        node_selector: fields.map("node_selector", Ok, Ok),
    };
    fields.apart(&inputs.in_dir, &inputs.out_dir);
    fields.end().map(|()| inputs)
}

/// The fields of the inputs object while [`Inputs`] is made from them. A wrong field adds a problem and gives an empty
/// value, so that the other fields are checked too.
struct Fields<'a> {
    /// In the order of the text.
    given: Vec<Given<'a>>,
    /// The names that [`Inputs`] reads.
    known: Vec<&'static str>,
    /// Required names without a value.
    missing: Vec<&'static str>,
    /// Problems of names that are not given.
    problems: Vec<Problem>,
}

/// A field as it is given.
struct Given<'a> {
    name: String,
    /// `None` once it is read.
    value: Option<&'a RawValue>,
    problems: Vec<Problem>,
}

/// The result of a check: the text to use, or what is wrong with it.
type Checked = Result<String, String>;

impl<'a> Fields<'a> {
    fn new(text: &'a str) -> Result<Self, Vec<Problem>> {
        let whole = |message: String| vec![Problem { path: vec![], message }];
        match Json::parse(text) {
            Ok(Json::Object(given)) if given.len() > MAX_NAMES => {
                Err(whole(format!("inputs: expected at most {MAX_NAMES} names, found {}", given.len())))
            }
            Ok(Json::Object(given)) => Ok(Fields {
                given: given
                    .into_iter()
                    .map(|(name, value)| Given { name, value: Some(value), problems: vec![] })
                    .collect(),
                known: vec![],
                missing: vec![],
                problems: vec![],
            }),
            Ok(other) => Err(whole(format!("inputs: expected an object, found {}", other.kind()))),
            Err(error) => Err(whole(format!("inputs: not valid JSON: {error}"))),
        }
    }

    fn problem(&mut self, path: &[&str], what: impl AsRef<str>) {
        self.add(path, format!("{}: {}", display(path), what.as_ref()));
    }

    /// Keeps a problem with its field, because problems are reported in the order of the fields.
    fn add(&mut self, path: &[&str], message: String) {
        let problem = Problem { path: path.iter().map(|&s| s.into()).collect(), message };
        let given = self.given.iter_mut().find(|given| path.first() == Some(&given.name.as_str()));
        given.map_or(&mut self.problems, |given| &mut given.problems).push(problem);
    }

    fn mismatch(&mut self, path: &[&str], expected: &str, found: &Json) {
        self.problem(
            path,
            match found {
                Json::Invalid(error) => format!("not valid JSON: {error}"),
                _ => format!("expected {expected}, found {}", found.kind()),
            },
        );
    }

    fn checked(&mut self, path: &[&str], checked: Checked) -> String {
        checked.unwrap_or_else(|what| {
            self.problem(path, what);
            String::new()
        })
    }

    /// The value of a field; `None` if it is absent or null.
    fn take(&mut self, name: &'static str) -> Option<Json<'a>> {
        self.known.push(name);
        let given = self.given.iter_mut().find(|given| given.name == name)?;
        given.value.take().map(Json::part).filter(|value| !matches!(value, Json::Null))
    }

    fn optional(&mut self, name: &'static str, check: fn(String) -> Checked) -> Option<String> {
        match self.take(name)? {
            Json::String(text) if text.is_empty() => None,
            Json::String(text) => Some(self.checked(&[name], check(text))),
            other => {
                self.mismatch(&[name], "a string", &other);
                Some(String::new())
            }
        }
    }

    fn text(&mut self, name: &'static str, default: &str, check: fn(String) -> Checked) -> String {
        self.optional(name, check).unwrap_or_else(|| default.into())
    }

    fn required(&mut self, name: &'static str, check: fn(String) -> Checked) -> String {
        self.optional(name, check).unwrap_or_else(|| {
            self.missing.push(name);
            String::new()
        })
    }

    fn quantity(&mut self, name: &'static str, default: &str, check: fn(String) -> Checked) -> String {
        match self.take(name) {
            None => default.into(),
            Some(Json::String(text)) if text.is_empty() => default.into(),
            Some(Json::String(text)) => self.checked(&[name], check(text)),
            Some(Json::Number(text)) => self.checked(&[name], check(text.into())),
            Some(other) => {
                self.mismatch(&[name], "a string or a number", &other);
                String::new()
            }
        }
    }

    fn strings(&mut self, name: &'static str, check: fn(String) -> Checked) -> Vec<String> {
        let items = match self.take(name) {
            None => return vec![],
            Some(Json::Array(items)) => items,
            Some(other) => {
                self.mismatch(&[name], "an array of strings", &other);
                return vec![];
            }
        };
        let mut strings = Vec::with_capacity(items.len());
        for (index, item) in items.into_iter().enumerate() {
            let path = [name, &index.to_string()];
            match Json::part(item) {
                Json::String(text) => strings.push(self.checked(&path, check(text))),
                other => self.mismatch(&path, "a string", &other),
            }
        }
        strings
    }

    fn map(
        &mut self,
        name: &'static str,
        check_key: fn(String) -> Checked,
        check_value: fn(String) -> Checked,
    ) -> Vec<(String, String)> {
        let entries = match self.take(name) {
            None => return vec![],
            Some(Json::Object(entries)) => entries,
            Some(other) => {
                self.mismatch(&[name], "an object of strings", &other);
                return vec![];
            }
        };
        let mut map = Vec::with_capacity(entries.len());
        for (key, value) in entries {
            let checked_key = check_key(key.clone());
            let path = [name, key.as_str()];
            let checked_key = self.checked(&path, checked_key);
            match Json::part(value) {
                Json::Null => {}
                Json::String(text) => {
                    let value = self.checked(&path, check_value(text));
                    map.push((checked_key, value));
                }
                other => self.mismatch(&path, "a string", &other),
            }
        }
        map
    }

    /// File names with their contents. No two names may mean the same file, and no file may be the directory of another.
    fn in_files(&mut self) -> Vec<(String, String)> {
        const NAME: &str = "in_files";
        let files = self.map(NAME, file_name, Ok);
        let mut names: Vec<&str> = files.iter().map(|(name, _)| &**name).filter(|name| !name.is_empty()).collect();
        names.sort_unstable();
        let mut clashes = vec![];
        for (index, &name) in names.iter().enumerate() {
            if index > 0 && names.get(index - 1) == Some(&name) {
                clashes.push((name.to_owned(), "given twice".to_owned()));
            }
            for (at, _) in name.match_indices('/') {
                let parent = name.get(..at).unwrap_or_default();
                if names.binary_search(&parent).is_ok() {
                    clashes
                        .push((parent.to_owned(), format!("cannot be a file and the directory of {name:?} at once")));
                }
            }
        }
        for (name, what) in clashes {
            self.problem(&[NAME, &name], what);
        }
        files
    }

    fn bool(&mut self, name: &'static str) -> bool {
        match self.take(name) {
            None => false,
            Some(Json::Bool(value)) => value,
            Some(other) => {
                self.mismatch(&[name], "true or false", &other);
                false
            }
        }
    }

    fn duration(&mut self, name: &'static str) -> Option<Duration> {
        const EXPECTED: &str = r#"a duration such as "90s" or "10m""#;
        let text = match self.take(name)? {
            Json::String(text) if text.is_empty() => return None,
            Json::String(text) => text,
            other => {
                self.mismatch(&[name], EXPECTED, &other);
                return None;
            }
        };
        match humantime::parse_duration(&text) {
            Ok(Duration::ZERO) => self.problem(&[name], "must be longer than zero"),
            Ok(duration) => return Some(duration),
            Err(_) => self.problem(&[name], format!("expected {EXPECTED}, found {text:?}")),
        }
        None
    }

    /// Neither directory may contain the other.
    fn apart(&mut self, in_dir: &str, out_dir: &str) {
        let contains = |outer: &str, inner: &str| {
            let rest = inner.strip_prefix(outer.trim_end_matches('/'));
            !outer.is_empty() && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        if !in_dir.is_empty() && !out_dir.is_empty() && (contains(in_dir, out_dir) || contains(out_dir, in_dir)) {
            let path = if self.given.iter().any(|given| given.name == "out_dir") { "out_dir" } else { "in_dir" };
            let what = format!("in_dir {in_dir:?} and out_dir {out_dir:?} must not contain each other");
            self.problem(&[path], what);
        }
    }

    /// Ends the checks: names that [`Inputs`] does not read are unknown, and names that are given twice are ambiguous.
    fn end(mut self) -> Result<(), Vec<Problem>> {
        let names: Vec<String> = self.given.iter().map(|given| given.name.clone()).collect();
        for (index, name) in names.iter().enumerate() {
            if names.iter().take(index).any(|earlier| earlier == name) {
                self.problem(&[name], "given twice");
            } else if !self.known.contains(&name.as_str()) {
                let near = nearest(name, &self.known);
                let hint = near.map_or_else(
                    || format!("expected one of {}", self.known.join(", ")),
                    |near| format!("did you mean {near:?}?"),
                );
                // A required name that is only misspelt is not missing too: one mistake, one message.
                self.missing.retain(|&missing| Some(missing) != near);
                self.add(&[name], format!("unknown input {name:?}, {hint}"));
            }
        }
        for name in std::mem::take(&mut self.missing) {
            self.problem(&[name], "required, but missing or empty");
        }
        let of_given = self.given.into_iter().flat_map(|given| given.problems);
        let problems: Vec<Problem> = of_given.chain(self.problems).collect();
        if problems.is_empty() { Ok(()) } else { Err(problems) }
    }
}

/// `in_files["a.txt"]`, `command[0]`.
fn display(path: &[&str]) -> String {
    let Some((first, rest)) = path.split_first() else { return "inputs".into() };
    rest.iter().fold((*first).to_owned(), |shown, segment| {
        let index = segment.bytes().all(|byte| byte.is_ascii_digit())
            && matches!(*first, "command" | "args" | "image_pull_secrets");
        if index { format!("{shown}[{segment}]") } else { format!("{shown}[{segment:?}]") }
    })
}

fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let distance = |candidate: &&str| strsim::osa_distance(&name.to_ascii_lowercase().replace('-', "_"), candidate);
    known.iter().copied().min_by_key(distance).filter(|near| distance(near) <= (near.len() / 3).max(1))
}

fn image(text: String) -> Checked {
    if text.chars().any(char::is_whitespace) {
        return Err(format!("expected an image name without white space, found {text:?}"));
    }
    no_nul(text)
}

fn no_nul(text: String) -> Checked {
    if text.contains('\0') { Err("must not contain a NUL character".into()) } else { Ok(text) }
}

fn dns_label(text: String) -> Checked {
    if text.len() <= 63 && is_dns_label(&text) {
        return Ok(text);
    }
    Err(format!("expected a DNS label (at most 63 of a-z, 0-9 and -, not - at either end), found {text:?}"))
}

fn object_name(text: String) -> Checked {
    if text.len() <= 253 && text.split('.').all(is_dns_label) {
        return Ok(text);
    }
    Err(format!("expected the name of a Kubernetes object (a-z, 0-9, - and .), found {text:?}"))
}

fn is_dns_label(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !text.is_empty() && text.bytes().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}

fn env_name(text: String) -> Checked {
    if env::ALL.contains(&text.as_str()) {
        return Err("is set by the app and can't be changed".into());
    }
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    if !text.is_empty() && text.bytes().all(inner) && !text.starts_with(|first: char| first.is_ascii_digit()) {
        return Ok(text);
    }
    Err("expected a variable name of letters, digits, _, - and ., with no digit first".into())
}

fn directory(text: String) -> Checked {
    if !text.starts_with('/') {
        return Err(format!("expected an absolute path, found {text:?}"));
    }
    if text.contains(':') {
        return Err(format!("Kubernetes does not allow a colon in the path of a volume, found {text:?}"));
    }
    let segments: Vec<&str> = text.split('/').filter(|segment| !matches!(*segment, "" | ".")).collect();
    check_segments(&text, &segments)?;
    Ok(format!("/{}", segments.join("/")))
}

fn relative_path(text: String) -> Checked {
    if text.starts_with('/') {
        return Err(format!("expected a relative path, found {text:?}"));
    }
    let segments: Vec<&str> = text.split('/').filter(|segment| *segment != ".").collect();
    if segments.is_empty() || segments.contains(&"") {
        return Err(format!("expected a file's path without an empty segment, found {text:?}"));
    }
    check_segments(&text, &segments)?;
    Ok(segments.join("/"))
}

fn file_name(text: String) -> Checked {
    let path = relative_path(text)?;
    if path.starts_with("..") {
        return Err("Kubernetes reserves names that start with ..".into());
    }
    Ok(path)
}

fn check_segments(text: &str, segments: &[&str]) -> Result<(), String> {
    if segments.contains(&"..") {
        return Err(format!("must not have .. in it, found {text:?}"));
    }
    if segments.iter().any(|segment| segment.len() > 255) {
        return Err("has a name of more than 255 bytes, which Linux does not allow".into());
    }
    if text.len() > 1024 {
        return Err(format!("is {} bytes long, at most 1024 are allowed", text.len()));
    }
    if text.contains('\0') {
        return Err("must not contain a NUL character".into());
    }
    Ok(())
}

fn cpu(text: String) -> Checked {
    match Amount::parse(&text) {
        Some(cores) if cores > Amount::of(0) => Ok(text),
        Some(_) => Err(format!("must be more than zero, found {text:?}")),
        None => Err(format!(r#"expected a Kubernetes quantity such as "250m" or "0.5", found {text:?}"#)),
    }
}

fn memory(text: String) -> Checked {
    match Amount::parse(&text) {
        Some(bytes) if bytes >= MIN_MEMORY => Ok(text),
        Some(_) => {
            let near = format!("{}Mi", text.trim_end_matches(|c: char| !c.is_ascii_digit()));
            let meant = Amount::parse(&near).is_some_and(|bytes| bytes >= MIN_MEMORY);
            let hint = if meant { format!("; did you mean {near:?}?") } else { String::new() };
            Err(format!("{text:?} is less than 1 MiB, too little for any container{hint}"))
        }
        None => Err(format!(r#"expected a Kubernetes quantity such as "128Mi" or "1Gi", found {text:?}"#)),
    }
}

#[cfg(test)]
mod tests;
