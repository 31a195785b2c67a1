//! An API server whose faults a scenario chooses.

use crate::kubelet::{FLOOD, Script};
use crate::store::{Answer, Event, Key, Store, status};
use futures::StreamExt;
use http::{Method, Request, Response, Uri};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;

/// What goes wrong with a request.
#[derive(Clone)]
pub enum Fault {
    /// It gets this answer and has no effect.
    Answer(Answer),
    /// It gets this answer, after this time, and has no effect.
    SlowAnswer(Duration, Answer),
    /// It is refused with `Retry-After`, as the overload protection of a real API server does.
    Busy { seconds: u64 },
    /// It has no effect, and the connection is closed.
    Reset,
    /// It has its effect, and the connection is closed without an answer.
    Lost,
    /// It has its effect, but gets this answer.
    DoneBut(Answer),
    /// It has no effect and gets no answer.
    Hang,
    /// It has its effect, and is answered, after this time.
    Slow(Duration),
    /// It has its effect, but only half of the answer comes, and the connection stays open.
    Stall,
    /// It has its effect, and the answer with this status code is the first text, and then the second again and again
    /// while the client takes it, up to [`FLOOD`].
    Floods(u16, &'static str, &'static str),
    /// A watch that is accepted and says nothing.
    Silent,
    /// A watch that sends these events and ends.
    Says(Vec<Value>),
    /// A watch that sends the events that exist, and ends.
    Short,
    /// A watch whose connection breaks in the middle of its first event.
    Breaks,
    /// A watch that repeats all earlier events after each event.
    Repeats,
    /// A watch that waits this long before each event.
    Late(Duration),
    /// Nothing goes wrong.
    Nothing,
}

struct Rule {
    on: &'static str,
    times: usize,
    fault: Fault,
}

#[derive(Default)]
pub struct Server {
    store: Mutex<Store>,
    version: watch::Sender<u64>,
    rules: Mutex<Vec<Rule>>,
    script: Mutex<Script>,
    requests: Mutex<Vec<(String, Instant)>>,
    cut: Notify,
    /// Whether a watch with an outdated version is refused with a status. Otherwise it gets an error event.
    pub refuses_old: AtomicBool,
    /// How many connections there have been, and how many of the first of them are not listened to any more.
    accepted: AtomicUsize,
    deaf: AtomicUsize,
    pub connections: AtomicUsize,
    pub watches: AtomicUsize,
    /// The most that one request took of a flood.
    pub taken: AtomicUsize,
}

const TOO_OLD: &str = "too old resource version: 1 (2)";

/// How long the deletion of a pod takes.
const GRACE: Duration = Duration::from_millis(200);

pub type Body = BoxBody<Bytes, io::Error>;

impl Server {
    /// Lets the next `times` requests of a kind go wrong. Kinds are `create pods`, `watch all pods`, `*` for all.
    pub fn fault(&self, on: &'static str, times: usize, fault: Fault) {
        self.rules.lock().unwrap().push(Rule { on, times, fault });
    }

    /// From now on nothing goes wrong.
    pub fn heal(&self) {
        self.rules.lock().unwrap().clear();
    }

    /// Stops listening to the connections that are open.
    pub fn deafen(&self) {
        self.deaf.store(self.accepted.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// Sets the script of the pods that are created from now on.
    pub fn script(&self, script: Script) {
        *self.script.lock().unwrap() = script;
    }

    /// Ends the watches that are open. With `forget`, events until now are not replayed to later watches.
    pub fn cut(&self, forget: bool) {
        if forget {
            let mut store = self.store();
            store.version += 1;
            store.forgotten = store.version;
        }
        self.cut.notify_waiters();
    }

    pub fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap()
    }

    /// Changes the objects and lets the watches know.
    pub fn change<T>(&self, change: impl FnOnce(&mut Store) -> T) -> T {
        let mut store = self.store();
        let done = change(&mut store);
        self.version.send_replace(store.version);
        done
    }

    /// When requests of this kind came.
    pub fn requests(&self, kind: &str) -> Vec<Instant> {
        self.requests.lock().unwrap().iter().filter(|(what, _)| what == kind).map(|(_, when)| *when).collect()
    }

    pub async fn serve(self: Arc<Self>, listener: TcpListener, pods: SocketAddr) {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            // The milliseconds by which the system would delay sending are seconds of the fast clock.
            stream.set_nodelay(true).unwrap();
            let server = self.clone();
            tokio::spawn(async move {
                let _open = Count::of(&server.connections);
                let number = server.accepted.fetch_add(1, Ordering::Relaxed);
                let service = service_fn(async |request| {
                    if number < server.deaf.load(Ordering::Relaxed) {
                        std::future::pending::<()>().await;
                    }
                    server.clone().answer(request, pods).await
                });
                // Some scenarios want it to fail.
                let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades().await;
            });
        }
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>, pods: SocketAddr) -> io::Result<Response<Body>> {
        let (head, body) = request.into_parts();
        let asked = Asked::new(&head.method, &head.uri);
        self.requests.lock().unwrap().push((asked.what.clone(), Instant::now()));
        let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
        let body = serde_json::from_slice(&body).unwrap_or_default();
        let fault = self.next_fault(&asked.what);
        let broken = || Err(io::ErrorKind::ConnectionReset.into());
        match &fault {
            Some(Fault::Answer(answer)) => return Ok(whole(answer.clone())),
            Some(Fault::SlowAnswer(time, answer)) => {
                tokio::time::sleep(*time).await;
                return Ok(whole(answer.clone()));
            }
            Some(Fault::Busy { seconds }) => {
                let text = Full::from("Too many requests, please try again later.\n");
                let answer = Response::builder().status(429).header("retry-after", *seconds);
                return answer.body(text.map_err(|never| match never {}).boxed()).map_err(io::Error::other);
            }
            Some(Fault::Reset) => return broken(),
            Some(Fault::Hang) => return std::future::pending().await,
            Some(Fault::Slow(time)) => tokio::time::sleep(*time).await,
            _ => {}
        }
        if let Some(Fault::Floods(code, start, piece)) = fault {
            self.act(&asked, body);
            return Ok(self.flood(code, start, piece));
        }
        if asked.verb() == "watch" {
            if self.refuses_old.load(Ordering::Relaxed) && asked.version() < self.store().forgotten {
                return Ok(whole(status(410, "Expired", TOO_OLD)));
            }
            return Ok(self.watch(asked, fault));
        }
        if asked.what == "get pods/portforward" {
            return crate::forward::accept(&head.headers, head.extensions, pods);
        }
        let answer = self.act(&asked, body);
        match fault {
            Some(Fault::Lost) => broken(),
            Some(Fault::DoneBut(answer)) => Ok(whole(answer)),
            Some(Fault::Stall) => Ok(stalling(answer)),
            _ => Ok(whole(answer)),
        }
    }

    fn flood(self: Arc<Self>, code: u16, start: &'static str, piece: &'static str) -> Response<Body> {
        let piece = Bytes::from(piece.repeat((64 << 10) / piece.len() + 1));
        let pieces = futures::stream::unfold(0, move |sent| {
            let (server, piece) = (self.clone(), piece.clone());
            async move {
                server.taken.fetch_max(sent, Ordering::Relaxed);
                (sent < FLOOD).then(|| (Ok(Frame::data(piece.clone())), sent + piece.len()))
            }
        });
        let frames = futures::stream::iter([Ok(Frame::data(start.into()))]).chain(pieces);
        let mut response = Response::new(BodyExt::boxed(StreamBody::new(Box::pin(frames))));
        *response.status_mut() = code.try_into().unwrap();
        response
    }

    fn next_fault(&self, what: &str) -> Option<Fault> {
        let mut rules = self.rules.lock().unwrap();
        let rule = rules.iter_mut().find(|rule| rule.times > 0 && (rule.on == "*" || rule.on == what))?;
        rule.times -= 1;
        Some(rule.fault.clone())
    }

    fn act(self: &Arc<Self>, asked: &Asked, body: Value) -> Answer {
        let namespace = asked.namespace.clone().unwrap_or_default();
        let key: Key = (namespace.clone(), asked.name.clone());
        match &*asked.what {
            "create pods" => {
                let (code, pod) = self.change(|store| store.create_pod(&namespace, body));
                if code == 201 {
                    self.play(pod["metadata"]["uid"].as_str().unwrap().to_owned());
                }
                (code, pod)
            }
            "create configmaps" => self.change(|store| store.create_config_map(&namespace, body)),
            "get pods" => self.store().get_pod(&key),
            "get pods/log" => (200, "the end\n".into()),
            "list pods" | "list all pods" => {
                let limit = asked.query("limit").parse().unwrap_or(usize::MAX);
                self.store().list(asked.namespace.as_deref(), limit, &asked.query("continue"))
            }
            "delete pods" => {
                let answer = self.change(|store| store.delete_pod(&key, body["preconditions"]["uid"].as_str()));
                if let Some(uid) = answer.1["metadata"]["uid"].as_str().map(str::to_owned) {
                    let server = self.clone();
                    tokio::spawn(async move {
                        tokio::time::sleep(GRACE).await;
                        server.change(|store| store.remove_pod(&uid));
                    });
                }
                answer
            }
            what => status(404, "NotFound", &format!("nobody thought of {what}")),
        }
    }

    /// Plays the script of a pod.
    fn play(self: &Arc<Self>, uid: String) {
        let (server, script) = (self.clone(), self.script.lock().unwrap().clone());
        tokio::spawn(async move {
            for (millis, status) in script {
                tokio::time::sleep(Duration::from_millis(millis)).await;
                server.change(|store| store.set_status(&uid, status));
            }
        });
    }

    fn watch(self: Arc<Self>, asked: Asked, fault: Option<Fault>) -> Response<Body> {
        let (lines, receiver) = mpsc::channel::<io::Result<Frame<Bytes>>>(1024);
        let server = self.clone();
        tokio::spawn(async move {
            let _open = Count::of(&server.watches);
            let seconds = asked.query("timeoutSeconds").parse().unwrap_or(300);
            tokio::select! {
                () = lines.closed() => {}
                () = server.cut.notified() => {}
                () = server.send_events(&lines, &asked, fault) => {}
                () = tokio::time::sleep(Duration::from_secs(seconds)) => {}
            }
        });
        let frames = futures::stream::unfold(receiver, async |mut lines| Some((lines.recv().await?, lines)));
        Response::new(BodyExt::boxed(StreamBody::new(frames)))
    }

    async fn send_events(&self, lines: &mpsc::Sender<io::Result<Frame<Bytes>>>, asked: &Asked, fault: Option<Fault>) {
        let say = async |line: &Value| {
            // If nobody listens, the select above ends this.
            let _ = lines.send(Ok(Frame::data(format!("{line}\n").into()))).await;
        };
        match &fault {
            Some(Fault::Silent) => std::future::pending().await,
            Some(Fault::Says(all)) => {
                for line in all {
                    say(line).await;
                }
                return;
            }
            _ => {}
        }
        let mut cursor = asked.version();
        if cursor < self.store().forgotten {
            say(&json!({"type": "ERROR", "object": status(410, "Expired", TOO_OLD).1})).await;
            return;
        }
        let mut version = self.version.subscribe();
        loop {
            version.borrow_and_update();
            let of_namespace = |event: &&Event| {
                asked.namespace.as_ref().is_none_or(|namespace| event.pod["metadata"]["namespace"] == **namespace)
            };
            let all: Vec<Event> = self.store().events.iter().filter(of_namespace).cloned().collect();
            for (number, event) in all.iter().enumerate().filter(|(_, event)| event.version > cursor) {
                if matches!(fault, Some(Fault::Breaks)) {
                    let _ = lines.send(Ok(Frame::data(r#"{"type":"MODI"#.into()))).await;
                    // Otherwise the connection would break before the half was sent.
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    let _ = lines.send(Err(io::ErrorKind::ConnectionReset.into())).await;
                    return;
                }
                if let Some(Fault::Late(time)) = fault {
                    tokio::time::sleep(time).await;
                }
                say(&event.line()).await;
                if matches!(fault, Some(Fault::Repeats)) {
                    for earlier in &all[..number] {
                        say(&earlier.line()).await;
                    }
                }
            }
            cursor = cursor.max(all.last().map_or(0, |event| event.version));
            if matches!(fault, Some(Fault::Short)) {
                return;
            }
            if version.changed().await.is_err() {
                return;
            }
        }
    }
}

/// A request, in the words of a Role.
struct Asked {
    what: String,
    namespace: Option<String>,
    name: String,
    query: String,
}

impl Asked {
    fn new(method: &Method, uri: &Uri) -> Self {
        let query = uri.query().unwrap_or_default().to_owned();
        let path: Vec<&str> = uri.path().trim_start_matches("/api/v1/").split('/').collect();
        let (namespace, rest) = match &path[..] {
            ["namespaces", namespace, rest @ ..] => (Some((*namespace).to_owned()), rest),
            rest => (None, rest),
        };
        let (resource, name) = match rest {
            [resource, name, sub] => (format!("{resource}/{sub}"), *name),
            [resource, name] => ((*resource).to_owned(), *name),
            rest => (rest.join("/"), ""),
        };
        let all = if namespace.is_none() { "all " } else { "" };
        let verb = match *method {
            Method::POST => "create",
            Method::DELETE => "delete",
            _ if !name.is_empty() => "get",
            _ if query.contains("watch=true") => "watch",
            _ => "list",
        };
        Asked { what: format!("{verb} {all}{resource}"), namespace, name: name.into(), query }
    }

    fn verb(&self) -> &str {
        self.what.split(' ').next().unwrap_or_default()
    }

    fn version(&self) -> u64 {
        self.query("resourceVersion").parse().unwrap()
    }

    fn query(&self, name: &str) -> String {
        let values = self.query.split('&').filter_map(|pair| pair.split_once('='));
        values.into_iter().find(|(key, _)| *key == name).map_or_else(String::new, |(_, value)| value.to_owned())
    }
}

fn text((code, answer): Answer) -> (u16, String) {
    let text = answer.as_str().map_or_else(|| answer.to_string(), str::to_owned);
    (code, text)
}

fn whole(answer: Answer) -> Response<Body> {
    let (code, text) = text(answer);
    let body = Full::from(text).map_err(|never: Infallible| match never {}).boxed();
    let mut response = Response::new(body);
    *response.status_mut() = code.try_into().unwrap();
    response
}

/// Half of an answer.
fn stalling(answer: Answer) -> Response<Body> {
    let (code, text) = text(answer);
    let half = Bytes::from(text).slice(..10);
    let frames = futures::stream::iter([Ok(Frame::data(half))]).chain(futures::stream::pending());
    let mut response = Response::new(BodyExt::boxed(StreamBody::new(frames)));
    *response.status_mut() = code.try_into().unwrap();
    response
}

/// Counts one open thing until it is dropped.
struct Count<'a>(&'a AtomicUsize);

impl<'a> Count<'a> {
    fn of(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Count(count)
    }
}

impl Drop for Count<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
