//! One watch for all calls: events come in once and go to the call whose pod they are about.

use super::api::{Action, ApiServer, Failure, backoff};
use super::manifest::SELECTOR;
use super::status::Snapshot;
use crate::pods::{ContainerState, Error, PodStatus};
use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::watcher::{self, Event, ExponentialBackoff};
use kube::runtime::{WatchStreamExt, watcher as watch_pods};
use kube::{Api, Client};
use std::collections::{HashMap, HashSet};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

/// How long calls go on without hearing of their pods before they give up.
const OUTAGE: Duration = Duration::from_secs(5 * 60);
/// How long the API server keeps a watch open. A connection that died in silence is found out after as long.
const WATCH_SECONDS: u32 = 60;

/// The watch of a cluster. It starts with the first subscription and ends with the value.
pub(super) struct Watch {
    shared: Arc<Shared>,
    _end: DropGuard,
}

struct Shared {
    client: Client,
    server: Arc<ApiServer>,
    end: CancellationToken,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    pods: HashMap<PodKey, Entry>,
    watched: Watched,
}

/// What is watched at present.
#[derive(Default)]
enum Watched {
    #[default]
    Nothing,
    Cluster,
    /// We may not watch the cluster, so these namespaces are watched, because calls use them.
    Namespaces(HashSet<String>),
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct PodKey {
    namespace: String,
    name: String,
}

/// A pod that a call waits for.
struct Entry {
    sender: watch::Sender<Option<Result<Snapshot, Error>>>,
    /// Since when the pod is known to exist.
    exists: Option<Instant>,
}

/// What a call hears of its pod.
pub(super) struct Subscription {
    shared: Arc<Shared>,
    key: PodKey,
    receiver: watch::Receiver<Option<Result<Snapshot, Error>>>,
}

impl Watch {
    pub(super) fn new(client: Client, server: Arc<ApiServer>) -> Self {
        let end = CancellationToken::new();
        Watch {
            shared: Arc::new(Shared { client, server, end: end.clone(), state: Mutex::default() }),
            _end: end.drop_guard(),
        }
    }

    /// Listens for a pod that may not exist yet.
    pub(super) fn subscribe(&self, namespace: &str, name: &str) -> Subscription {
        let key = PodKey { namespace: namespace.into(), name: name.into() };
        let (sender, receiver) = watch::channel(None);
        let mut state = self.shared.state();
        state.pods.insert(key.clone(), Entry { sender, exists: None });
        match &mut state.watched {
            Watched::Cluster => {}
            Watched::Nothing => {
                state.watched = Watched::Cluster;
                self.shared.start(None);
            }
            Watched::Namespaces(namespaces) => {
                if namespaces.insert(namespace.into()) {
                    self.shared.start(Some(namespace.into()));
                }
            }
        }
        Subscription { shared: self.shared.clone(), key, receiver }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Watches a namespace, or with none the cluster, in the background.
    fn start(self: &Arc<Self>, namespace: Option<String>) {
        let shared = self.clone();
        let end = self.end.clone();
        tokio::spawn(async move { end.run_until_cancelled_owned(shared.run(namespace)).await });
    }

    async fn run(self: Arc<Self>, namespace: Option<String>) {
        let pods: Api<Pod> = match &namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        };
        let config = watcher::Config::default().labels(SELECTOR).timeout(WATCH_SECONDS);
        let mut events = pin!(watch_pods(pods, config).backoff(ExponentialBackoff::from(backoff())));
        let mut listing = Listing::default();
        let mut outage: Option<Instant> = None;
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => {
                    outage = None;
                    self.apply(event, &mut listing, namespace.as_deref());
                }
                Err(error) => {
                    let failure = failure(error);
                    tracing::debug!(?namespace, %failure, "watch interrupted");
                    if failure.is("Forbidden") {
                        return self.forbidden(failure, namespace);
                    }
                    if outage.get_or_insert_with(Instant::now).elapsed() > OUTAGE {
                        self.fail(failure, namespace.as_deref());
                    }
                }
            }
        }
    }

    fn apply(&self, event: Event<Pod>, listing: &mut Listing, namespace: Option<&str>) {
        let mut state = self.state();
        match event {
            Event::Init => *listing = Listing { since: Some(Instant::now()), seen: HashSet::new() },
            Event::InitApply(pod) => {
                if let Some(key) = state.tell(&pod, false) {
                    listing.seen.insert(key);
                }
            }
            Event::InitDone => {
                // Pods that existed when the list was asked for and are not in it are gone.
                for (key, entry) in &state.pods {
                    let covered = namespace.is_none_or(|namespace| namespace == key.namespace);
                    let existed = entry.exists.zip(listing.since).is_some_and(|(exists, since)| exists < since);
                    if covered && existed && !listing.seen.contains(key) {
                        entry.sender.send_modify(|last| match last {
                            Some(Ok(snapshot)) => snapshot.status.deleted = true,
                            _ => *last = Some(Ok(Snapshot::of(&Pod::default(), true))),
                        });
                    }
                }
                *listing = Listing::default();
            }
            Event::Apply(pod) => {
                state.tell(&pod, false);
            }
            Event::Delete(pod) => {
                state.tell(&pod, true);
            }
        }
    }

    /// We may not watch: the cluster, then the namespaces in use are tried; a namespace, then its calls fail.
    fn forbidden(self: &Arc<Self>, failure: Failure, namespace: Option<String>) {
        match namespace {
            None => {
                let mut state = self.state();
                let namespaces: HashSet<String> = state.pods.keys().map(|key| key.namespace.clone()).collect();
                for namespace in &namespaces {
                    self.start(Some(namespace.clone()));
                }
                state.watched = Watched::Namespaces(namespaces);
            }
            Some(namespace) => {
                if let Watched::Namespaces(namespaces) = &mut self.state().watched {
                    namespaces.remove(&namespace);
                }
                self.fail(failure, Some(&namespace));
            }
        }
    }

    /// Tells the calls in a namespace, or with none all calls, that nothing will be heard of their pods.
    fn fail(&self, failure: Failure, namespace: Option<&str>) {
        // The API server's sentence names the verb: of a watcher's two, it fails at the list first.
        let verb = if failure.to_string().contains("cannot watch") { "watch" } else { "list" };
        let action = Action { verb, resource: "pods", namespace: namespace.unwrap_or_default().into() };
        let error = self.server.explain(failure, &action);
        for (key, entry) in &self.state().pods {
            if namespace.is_none_or(|namespace| namespace == key.namespace) {
                entry.sender.send_replace(Some(Err(error.clone())));
            }
        }
    }
}

impl State {
    /// Tells the call that waits for this pod. Gives the pod's key if there is one.
    fn tell(&mut self, pod: &Pod, deleted: bool) -> Option<PodKey> {
        let key = PodKey { namespace: pod.metadata.namespace.clone()?, name: pod.metadata.name.clone()? };
        let entry = self.pods.get_mut(&key)?;
        entry.exists.get_or_insert_with(Instant::now);
        entry.sender.send_replace(Some(Ok(Snapshot::of(pod, deleted))));
        Some(key)
    }
}

/// A list of pods that is being received.
#[derive(Default)]
struct Listing {
    since: Option<Instant>,
    seen: HashSet<PodKey>,
}

fn failure(error: watcher::Error) -> Failure {
    match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => error.into(),
        watcher::Error::WatchError(status) => Failure::Status(status),
        error @ watcher::Error::NoResourceVersion => {
            Failure::Unreachable { why: error.to_string(), may_have_arrived: true }
        }
    }
}

impl Subscription {
    /// To be told when the pod was created.
    pub(super) fn created(&self) {
        if let Some(entry) = self.shared.state().pods.get_mut(&self.key) {
            entry.exists.get_or_insert_with(Instant::now);
        }
    }

    /// The latest status that was not returned yet, as soon as there is one.
    pub(super) async fn changed(&mut self) -> Result<PodStatus, Error> {
        let ended = || Error::Other("the watch has ended".into());
        loop {
            self.receiver.changed().await.map_err(|_| ended())?;
            if let Some(news) = self.receiver.borrow_and_update().clone() {
                return news.map(|snapshot| snapshot.status);
            }
        }
    }

    /// The pod's address, once it has one.
    pub(super) fn ip(&self) -> Option<String> {
        self.receiver.borrow().as_ref()?.as_ref().ok()?.ip.clone()
    }

    /// Whether the user's container has ended.
    pub(super) fn has_ended(&self) -> bool {
        matches!(&*self.receiver.borrow(), Some(Ok(snapshot)) if matches!(snapshot.status.main, ContainerState::Terminated(_)))
    }

    /// Whether the pod, or the container in it that serves files, is no more.
    pub(super) fn is_out_of_reach(&self) -> bool {
        matches!(&*self.receiver.borrow(), Some(Ok(snapshot))
            if matches!(snapshot.status.sidecar, Some(ContainerState::Terminated(_))))
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.shared.state().pods.remove(&self.key);
    }
}
