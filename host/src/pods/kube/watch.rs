//! One watch for all calls: each event goes to the call whose pod it is about.

use super::api::{Action, ApiServer, REQUEST, RequestError, backoff, within};
use super::manifest::SELECTOR;
use super::pages::Pages;
use super::room::Claim;
use super::status::{Placement, Snapshot};
use crate::pods::{ContainerState, Error, Phase, PodStatus};
use backon::BackoffBuilder;
use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{WatchEvent, WatchParams};
use kube::{Api, Client};
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

/// How long calls go on without news of their pods before they fail.
pub(super) const OUTAGE: Duration = Duration::from_secs(5 * 60);
/// How long the API server keeps a watch open.
const WATCH_SECONDS: u32 = 25;
/// The connection of a watch has died unnoticed if nothing has come for this long, not even the end of the watch.
const SILENCE: Duration = Duration::from_secs(30);
/// After a watch that lasted this long, the next one begins without a pause.
const LASTING: Duration = Duration::from_secs(5);
/// How long a list may take with all its pages. One of 100,000 pods takes about a minute.
const LIST: Duration = Duration::from_secs(2 * 60);

/// The watch of a cluster. It begins with the first subscription and ends when it is dropped.
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
    /// The claims of pods whose calls are over. The pods hold room until they are gone.
    leaving: HashMap<PodKey, Claim>,
    watched: Watched,
}

#[derive(Default)]
enum Watched {
    #[default]
    Nothing,
    Cluster,
    /// The cluster may not be watched, so the namespaces that calls use are watched one by one.
    Namespaces(HashSet<String>),
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct PodKey {
    namespace: String,
    name: String,
}

/// The pods that one watch covers.
#[derive(Clone, Debug)]
enum Scope {
    Cluster,
    Namespace(String),
}

/// A pod that a call follows.
struct Entry {
    sender: watch::Sender<Option<Result<Snapshot, Error>>>,
    /// When the pod was first known to exist.
    exists_since: Option<Instant>,
    /// The uid of the call's pod, once it is known. Before that, the name may be an earlier pod's.
    uid: Option<String>,
    /// The uid and the resource version of the last object that was published.
    last: Option<(String, u64)>,
    claim: Claim,
    is_leaving: bool,
}

/// How far a watch has come.
struct Cursor {
    /// The resource version of the last event. `None`: the pods have to be listed first.
    version: Option<String>,
    /// When the API server was last heard.
    heard: Instant,
}

/// The news about one pod, for the call that follows it.
pub(super) struct Subscription {
    shared: Arc<Shared>,
    key: PodKey,
    receiver: watch::Receiver<Option<Result<Snapshot, Error>>>,
    /// How many pods of this process hold room.
    holding: watch::Receiver<usize>,
    /// How long the pod may wait for their room.
    wait_until: Instant,
}

/// What is known about a pod's result server.
pub(super) enum ServerState {
    Running,
    /// It will not run any more. The words complete `it has ended`.
    Ended(String),
    /// There will be no news of the pod.
    Unknown(Error),
}

impl ServerState {
    /// `None` if it may still start.
    fn of(news: &Result<Snapshot, Error>) -> Option<Self> {
        let status = match news {
            Ok(snapshot) => &snapshot.status,
            Err(error) => return Some(ServerState::Unknown(error.clone())),
        };
        let is_over = status.deleted || matches!(status.phase, Phase::Succeeded | Phase::Failed);
        match &status.sidecar {
            Some(ContainerState::Running) => Some(ServerState::Running),
            Some(ContainerState::Terminated(end)) => {
                Some(ServerState::Ended(format!("with exit code {}", end.exit_code)))
            }
            _ if is_over => Some(ServerState::Ended("with its pod".into())),
            _ => None,
        }
    }
}

impl PodKey {
    fn of(pod: &Pod) -> Option<Self> {
        Some(PodKey { namespace: pod.metadata.namespace.clone()?, name: pod.metadata.name.clone()? })
    }
}

impl Scope {
    fn covers(&self, key: &PodKey) -> bool {
        match self {
            Scope::Cluster => true,
            Scope::Namespace(namespace) => *namespace == key.namespace,
        }
    }

    fn pods(&self, client: Client) -> Api<Pod> {
        match self {
            Scope::Cluster => Api::all(client),
            Scope::Namespace(namespace) => Api::namespaced(client, namespace),
        }
    }
}

impl Watch {
    pub(super) fn new(client: Client, server: Arc<ApiServer>) -> Self {
        let end = CancellationToken::new();
        Watch {
            shared: Arc::new(Shared { client, server, end: end.clone(), state: Mutex::default() }),
            _end: end.drop_guard(),
        }
    }

    /// Follows a pod that need not exist yet. It may wait until `wait_until` for room that other pods of this process
    /// take up.
    pub(super) fn subscribe(&self, namespace: &str, name: &str, claim: Claim, wait_until: Instant) -> Subscription {
        let key = PodKey { namespace: namespace.into(), name: name.into() };
        let (sender, receiver) = watch::channel(None);
        let holding = claim.room().holding();
        let mut state = self.shared.state();
        let entry = Entry { sender, exists_since: None, uid: None, last: None, claim, is_leaving: false };
        state.pods.insert(key.clone(), entry);
        match &mut state.watched {
            Watched::Cluster => {}
            Watched::Nothing => {
                state.watched = Watched::Cluster;
                self.shared.start(Scope::Cluster);
            }
            Watched::Namespaces(namespaces) => {
                if namespaces.insert(namespace.into()) {
                    self.shared.start(Scope::Namespace(namespace.into()));
                }
            }
        }
        Subscription { shared: self.shared.clone(), key, receiver, holding, wait_until }
    }

    /// The namespaces that are watched one by one, if the cluster may not be watched.
    pub(super) fn namespaces(&self) -> Vec<String> {
        match &self.shared.state().watched {
            Watched::Namespaces(namespaces) => namespaces.iter().cloned().collect(),
            Watched::Nothing | Watched::Cluster => vec![],
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Watches in the background.
    fn start(self: &Arc<Self>, scope: Scope) {
        let shared = self.clone();
        let end = self.end.clone();
        tokio::spawn(async move { end.run_until_cancelled_owned(shared.run(scope)).await });
    }

    async fn run(self: Arc<Self>, scope: Scope) {
        let mut cursor = Cursor { version: None, heard: Instant::now() };
        let mut pauses = backoff().build();
        loop {
            let start = Instant::now();
            match self.follow(&scope, &mut cursor).await {
                Ok(()) => cursor.heard = Instant::now(),
                Err(error) => {
                    tracing::debug!(?scope, %error, "watch interrupted");
                    if error.has_code(403) {
                        return self.forbidden(error, scope);
                    }
                    // Credentials that were revoked do not come back.
                    let patience = if error.has_code(401) { self.server.patience() } else { OUTAGE };
                    if cursor.heard.elapsed() > patience {
                        self.fail(error, &scope);
                    }
                }
            }
            if start.elapsed() > LASTING {
                pauses = backoff().build();
                continue;
            }
            // Also without an error: a server that ends each watch at once must not be asked at full speed.
            sleep(self.server.pause(pauses.next().unwrap_or(LASTING))).await;
        }
    }

    /// Follows one watch to its end, from the cursor on, or from a list if the cursor has no version.
    async fn follow(&self, scope: &Scope, cursor: &mut Cursor) -> Result<(), RequestError> {
        let pods = scope.pods(self.client.clone());
        let version = match &cursor.version {
            Some(version) => version.clone(),
            None => {
                let late =
                    |_| RequestError::no_answer(format!("a list of pods has no end within {} s", LIST.as_secs()));
                let version = timeout(LIST, self.list(&pods, scope)).await.map_err(late)??;
                cursor.heard = Instant::now();
                cursor.version.insert(version).clone()
            }
        };
        let params = WatchParams::default().labels(SELECTOR).timeout(WATCH_SECONDS);
        let events = within(REQUEST, pods.watch(&params, &version)).await.inspect_err(|error| {
            // The version is too old, or not one at all.
            if error.has_code(410) || error.has_code(400) {
                cursor.version = None;
            }
        })?;
        let mut events = pin!(events);
        loop {
            cursor.heard = Instant::now();
            let silent = |_| RequestError::no_answer(format!("the watch says nothing for {} s", SILENCE.as_secs()));
            let event = match timeout(SILENCE, events.next()).await.map_err(silent)? {
                None => return Ok(()),
                Some(event) => event,
            };
            cursor.version = match event {
                Ok(WatchEvent::Added(pod) | WatchEvent::Modified(pod)) => {
                    self.state().publish(&pod, false);
                    pod.metadata.resource_version
                }
                Ok(WatchEvent::Deleted(pod)) => {
                    self.state().publish(&pod, true);
                    pod.metadata.resource_version
                }
                Ok(WatchEvent::Bookmark(bookmark)) => Some(bookmark.metadata.resource_version),
                // The connection broke. What came before is good, so the next watch goes on from there.
                Err(error @ kube::Error::ReadEvents(_)) => return Err(error.into()),
                Ok(WatchEvent::Error(status)) => {
                    cursor.version = None;
                    return Err(status.into());
                }
                Err(error) => {
                    cursor.version = None;
                    return Err(error.into());
                }
            };
        }
    }

    /// Publishes the present state of all pods. Returns the resource version from which to watch on.
    async fn list(&self, pods: &Api<Pod>, scope: &Scope) -> Result<String, RequestError> {
        let since = Instant::now();
        // Of the pods of this process, those that were listed; and those that are the very ones that calls follow.
        let (mut listed, mut followed) = (HashSet::new(), HashSet::new());
        let (mut pages, mut version) = (Pages::of(SELECTOR), None);
        while let Some(params) = pages.request() {
            let answer = within(REQUEST, pods.list(&params)).await;
            let Some(page) = pages.accept(answer)? else { continue };
            let mut state = self.state();
            listed.extend(page.items.iter().filter_map(PodKey::of).filter(|key| state.leaving.contains_key(key)));
            followed.extend(page.items.iter().filter_map(|pod| state.publish(pod, false)));
            version = page.metadata.resource_version;
        }
        let mut state = self.state();
        state.mark_missing(scope, since, &followed);
        state.leaving.retain(|key, _| !scope.covers(key) || listed.contains(key));
        version.ok_or_else(|| RequestError::no_answer("its list of pods has no version".into()))
    }

    /// Without the right to watch the cluster, the namespaces in use are watched. Without the right to watch one of
    /// these, its calls fail.
    fn forbidden(self: &Arc<Self>, error: RequestError, scope: Scope) {
        match &scope {
            Scope::Cluster => {
                let mut state = self.state();
                let namespaces: HashSet<String> = state.pods.keys().map(|key| key.namespace.clone()).collect();
                for namespace in &namespaces {
                    self.start(Scope::Namespace(namespace.clone()));
                }
                state.watched = Watched::Namespaces(namespaces);
            }
            Scope::Namespace(namespace) => {
                if let Watched::Namespaces(namespaces) = &mut self.state().watched {
                    namespaces.remove(namespace);
                }
                self.fail(error, &scope);
            }
        }
    }

    /// Ends the wait of all calls in the scope: there will be no news of their pods.
    fn fail(&self, error: RequestError, scope: &Scope) {
        // Listing comes first, so it is what fails unless the API server's sentence names the other verb.
        let verb = if error.to_string().contains("cannot watch") { "watch" } else { "list" };
        let namespace = match scope {
            Scope::Cluster => String::new(),
            Scope::Namespace(namespace) => namespace.clone(),
        };
        let error = self.server.explain(error, &Action { verb, resource: "pods", namespace });
        for (key, entry) in &self.state().pods {
            if scope.covers(key) {
                entry.sender.send_replace(Some(Err(error.clone())));
            }
        }
    }
}

impl State {
    /// Passes the state of a pod to the call that follows it. Returns the pod's key if there is such a call.
    fn publish(&mut self, pod: &Pod, deleted: bool) -> Option<PodKey> {
        let key = PodKey::of(pod)?;
        if deleted {
            self.leaving.remove(&key);
        }
        let entry = self.pods.get_mut(&key)?;
        entry.publish(pod, deleted).then_some(key)
    }

    /// Marks pods as deleted that existed before the list was taken and are missing from it.
    fn mark_missing(&self, scope: &Scope, list_began: Instant, listed: &HashSet<PodKey>) {
        for (key, entry) in &self.pods {
            let existed_before = entry.exists_since.is_some_and(|since| since < list_began);
            if scope.covers(key) && existed_before && !listed.contains(key) {
                entry.mark_deleted();
            }
        }
    }
}

impl Entry {
    /// Passes on the state of a pod, unless it is older than what was passed on before. Returns `false` if the pod is
    /// another one of the same name.
    fn publish(&mut self, pod: &Pod, deleted: bool) -> bool {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        if self.uid.as_ref().is_some_and(|known| *known != uid) {
            return false;
        }
        let version: Option<u64> = pod.metadata.resource_version.as_ref().and_then(|version| version.parse().ok());
        let last = self.last.as_ref().filter(|(known, _)| *known == uid).map(|(_, version)| *version);
        // An event that is repeated, or comes late, must not take a call back.
        let is_old = version.zip(last).is_some_and(|(version, last)| version <= last);
        if deleted || !is_old {
            self.exists_since.get_or_insert_with(Instant::now);
            self.last = version.map(|version| (uid, version));
            let snapshot = Snapshot::of(pod, deleted);
            self.claim.created();
            self.claim.place(snapshot.placement);
            self.sender.send_replace(Some(Ok(snapshot)));
        }
        true
    }

    fn mark_deleted(&self) {
        self.sender.send_modify(|last| match last {
            Some(Ok(snapshot)) => snapshot.status.deleted = true,
            _ => *last = Some(Ok(Snapshot::of(&Pod::default(), true))),
        });
    }
}

impl Subscription {
    /// Notes that the pod is about to be deleted. It holds room until it is gone.
    pub(super) fn expect_deletion(&self) {
        if let Some(entry) = self.entry(&mut self.shared.state()) {
            entry.is_leaving = true;
        }
    }

    /// Whether pods of this process may be what uses up the quota of the namespace, so that waiting can help.
    pub(super) fn awaits_quota(&self) -> bool {
        self.entry(&mut self.shared.state()).is_some_and(|entry| entry.claim.awaits_quota())
    }

    /// Notes which pod is the call's, and publishes its state: of a pod that has not changed since before the watch
    /// began, there is no event.
    pub(super) fn identify(&self, pod: &Pod) {
        let mut state = self.shared.state();
        let Some(entry) = self.entry(&mut state) else { return };
        entry.uid = pod.metadata.uid.clone();
        // An error is newer than this object: the watch has failed since.
        let has_failed = matches!(&*entry.sender.borrow(), Some(Err(_)));
        if !has_failed {
            entry.publish(pod, false);
        }
    }

    /// `None` if a later call follows the pod now.
    fn entry<'a>(&self, state: &'a mut State) -> Option<&'a mut Entry> {
        let entry = state.pods.get_mut(&self.key)?;
        entry.sender.subscribe().same_channel(&self.receiver).then_some(entry)
    }

    /// Waits for a status that was not returned yet, and returns the latest.
    pub(super) async fn changed(&mut self) -> Result<PodStatus, Error> {
        let ended = |_| Error::Other("the watch has ended".into());
        loop {
            let is_waiting = self.lacks_room() && Instant::now() < self.wait_until;
            tokio::select! {
                changed = self.receiver.changed() => changed.map_err(ended)?,
                changed = self.holding.changed(), if is_waiting => changed.map_err(ended)?,
                () = sleep_until(self.wait_until), if is_waiting => {}
            }
            let waits_for_room =
                self.lacks_room() && *self.holding.borrow_and_update() > 0 && Instant::now() < self.wait_until;
            if let Some(news) = self.receiver.borrow_and_update().clone() {
                return news.map(|snapshot| PodStatus { waits_for_room, ..snapshot.status });
            }
        }
    }

    /// Applies a test to the last snapshot. Without one, the answer is `false`.
    fn is(&self, test: impl Fn(&Snapshot) -> bool) -> bool {
        matches!(&*self.receiver.borrow(), Some(Ok(snapshot)) if test(snapshot))
    }

    fn lacks_room(&self) -> bool {
        self.is(|snapshot| snapshot.placement == Placement::NoRoom)
    }

    /// The pod's address, once it has one.
    pub(super) fn ip(&self) -> Option<IpAddr> {
        self.receiver.borrow().as_ref()?.as_ref().ok()?.ip
    }

    /// Waits until the result server runs, or never will.
    pub(super) async fn server(&self) -> ServerState {
        let mut news = self.receiver.clone();
        loop {
            if let Some(state) = news.borrow_and_update().as_ref().and_then(ServerState::of) {
                return state;
            }
            if news.changed().await.is_err() {
                return ServerState::Unknown(Error::Other("the watch has ended".into()));
            }
        }
    }

    /// Whether the user's container has ended.
    pub(super) fn has_ended(&self) -> bool {
        self.is(|snapshot| matches!(snapshot.status.main, ContainerState::Terminated(_)))
    }

    pub(super) fn server_has_ended(&self) -> bool {
        self.is(|snapshot| matches!(snapshot.status.sidecar, Some(ContainerState::Terminated(_))))
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        if self.entry(&mut state).is_some()
            && let Some(entry) = state.pods.remove(&self.key)
            && entry.is_leaving
            && entry.claim.holds_room()
        {
            state.leaving.insert(self.key.clone(), entry.claim);
        }
    }
}
