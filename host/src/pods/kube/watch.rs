//! One watch for all calls: events come in once and go to the call whose pod they are about.

use super::api::{Action, ApiServer, Failure, REQUEST, backoff, within};
use super::manifest::SELECTOR;
use super::room::Claim;
use super::status::{Placement, Snapshot};
use crate::pods::{ContainerState, Error, PodStatus};
use backon::BackoffBuilder;
use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::{Api, Client};
use std::collections::{HashMap, HashSet};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

/// How long calls go on without hearing of their pods before they give up.
pub(super) const OUTAGE: Duration = Duration::from_secs(5 * 60);
/// How long the API server keeps a watch open.
const WATCH_SECONDS: u32 = 25;
/// A watch that says nothing for as long, not even that it has ended, is on a connection that died in silence.
const SILENCE: Duration = Duration::from_secs(30);
/// A watch that held for as long has not failed: the next one may follow at once.
const HELD: Duration = Duration::from_secs(5);
/// How many pods are listed at a time.
const PAGE: u32 = 500;

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
    /// What pods take up whose calls are over, until they are gone.
    leaving: HashMap<PodKey, Claim>,
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

impl PodKey {
    fn of(pod: &Pod) -> Option<Self> {
        Some(PodKey { namespace: pod.metadata.namespace.clone()?, name: pod.metadata.name.clone()? })
    }
}

/// A pod that a call waits for.
struct Entry {
    sender: watch::Sender<Option<Result<Snapshot, Error>>>,
    /// Since when the pod is known to exist.
    exists: Option<Instant>,
    /// Which pod it is, once that is known: its name may have been another's.
    uid: Option<String>,
    /// Which pod was heard of last, and how new that was.
    last: Option<(String, u64)>,
    claim: Claim,
    is_leaving: bool,
}

/// How far a watch has come.
struct Position {
    /// What came after this is not known yet; none if nothing is.
    version: Option<String>,
    /// When something was heard.
    heard: Instant,
}

/// What a call hears of its pod.
pub(super) struct Subscription {
    shared: Arc<Shared>,
    key: PodKey,
    receiver: watch::Receiver<Option<Result<Snapshot, Error>>>,
    /// The number of pods of ours that hold room.
    holding: watch::Receiver<usize>,
    /// Until when the pod may wait for theirs.
    wait_until: Instant,
}

impl Watch {
    pub(super) fn new(client: Client, server: Arc<ApiServer>) -> Self {
        let end = CancellationToken::new();
        Watch {
            shared: Arc::new(Shared { client, server, end: end.clone(), state: Mutex::default() }),
            _end: end.drop_guard(),
        }
    }

    /// Listens for a pod that may not exist yet. It may wait for the room of others of ours until `wait_until`.
    pub(super) fn subscribe(&self, namespace: &str, name: &str, claim: Claim, wait_until: Instant) -> Subscription {
        let key = PodKey { namespace: namespace.into(), name: name.into() };
        let (sender, receiver) = watch::channel(None);
        let holding = claim.room().holding();
        let mut state = self.shared.state();
        state.pods.insert(key.clone(), Entry { sender, exists: None, uid: None, last: None, claim, is_leaving: false });
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
        Subscription { shared: self.shared.clone(), key, receiver, holding, wait_until }
    }

    /// The namespaces that are watched one by one; none where the whole cluster is.
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
        let mut position = Position { version: None, heard: Instant::now() };
        let mut pauses = backoff().build();
        loop {
            let start = Instant::now();
            match self.follow(&pods, &mut position, namespace.as_deref()).await {
                Ok(()) => position.heard = Instant::now(),
                Err(failure) => {
                    tracing::debug!(?namespace, %failure, "watch interrupted");
                    if failure.has_code(403) {
                        return self.forbidden(failure, namespace);
                    }
                    // Credentials that were revoked do not come back.
                    let patience = if failure.has_code(401) { self.server.patience() } else { OUTAGE };
                    if position.heard.elapsed() > patience {
                        self.fail(failure, namespace.as_deref());
                    }
                }
            }
            if start.elapsed() > HELD {
                pauses = backoff().build();
                continue;
            }
            // Even if nothing went wrong: a server that ends each watch at once is not to be asked at full speed.
            sleep(self.server.pause(pauses.next().unwrap_or(HELD))).await;
        }
    }

    /// Goes on from a position, or with none from a list, to the end of one watch.
    async fn follow(&self, pods: &Api<Pod>, position: &mut Position, namespace: Option<&str>) -> Result<(), Failure> {
        let version = match &position.version {
            Some(version) => version.clone(),
            None => {
                let version = self.list(pods, namespace).await?;
                position.heard = Instant::now();
                position.version.insert(version).clone()
            }
        };
        let params = WatchParams::default().labels(SELECTOR).timeout(WATCH_SECONDS);
        let events = within(REQUEST, pods.watch(&params, &version)).await.inspect_err(|failure| {
            // The position is too old, or never was one.
            if failure.has_code(410) || failure.has_code(400) {
                position.version = None;
            }
        })?;
        let mut events = pin!(events);
        loop {
            position.heard = Instant::now();
            let silent = |_| Failure::unreachable(format!("the watch says nothing for {} s", SILENCE.as_secs()));
            let version = match timeout(SILENCE, events.next()).await.map_err(silent)? {
                None => return Ok(()),
                Some(Ok(WatchEvent::Added(pod) | WatchEvent::Modified(pod))) => {
                    self.state().tell(&pod, false);
                    pod.metadata.resource_version
                }
                Some(Ok(WatchEvent::Deleted(pod))) => {
                    self.state().tell(&pod, true);
                    pod.metadata.resource_version
                }
                Some(Ok(WatchEvent::Bookmark(bookmark))) => Some(bookmark.metadata.resource_version),
                // The connection broke, and what it had said is good.
                Some(Err(error @ kube::Error::ReadEvents(_))) => return Err(error.into()),
                Some(Ok(WatchEvent::Error(status))) => {
                    position.version = None;
                    return Err(status.into());
                }
                Some(Err(error)) => {
                    position.version = None;
                    return Err(error.into());
                }
            };
            position.version = version;
        }
    }

    /// Tells the calls how their pods are. Gives the position from which to watch on.
    async fn list(&self, pods: &Api<Pod>, namespace: Option<&str>) -> Result<String, Failure> {
        let since = Instant::now();
        let (mut seen, mut listed) = (HashSet::new(), HashSet::new());
        let mut params = ListParams::default().labels(SELECTOR).limit(PAGE);
        loop {
            let page = within(REQUEST, pods.list(&params)).await?;
            let mut state = self.state();
            seen.extend(page.items.iter().filter_map(|pod| state.tell(pod, false)));
            listed.extend(page.items.iter().filter_map(PodKey::of));
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => {
                    state.miss(namespace, since, &seen);
                    state.leaving.retain(|key, _| !covers(namespace, key) || listed.contains(key));
                    let version = page.metadata.resource_version;
                    return version.ok_or_else(|| Failure::unreachable("its list of pods has no version".into()));
                }
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

/// Whether a watch of this namespace, or with none of the cluster, tells of a pod.
fn covers(namespace: Option<&str>, key: &PodKey) -> bool {
    namespace.is_none_or(|namespace| namespace == key.namespace)
}

impl State {
    /// Tells the call that waits for this pod. Gives the pod's key if there is one.
    fn tell(&mut self, pod: &Pod, deleted: bool) -> Option<PodKey> {
        let key = PodKey::of(pod)?;
        if deleted {
            self.leaving.remove(&key);
        }
        let entry = self.pods.get_mut(&key)?;
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        if entry.uid.as_ref().is_some_and(|known| *known != uid) {
            return None;
        }
        let version = pod.metadata.resource_version.as_ref().and_then(|version| version.parse().ok());
        let last = entry.last.as_ref().filter(|(known, _)| *known == uid).map(|(_, version)| *version);
        // What comes a second time, or late, must not take a call back.
        let is_old = version.zip(last).is_some_and(|(version, last)| version <= last);
        if deleted || !is_old {
            entry.exists.get_or_insert_with(Instant::now);
            entry.last = version.map(|version| (uid, version));
            let snapshot = Snapshot::of(pod, deleted);
            entry.claim.created();
            entry.claim.place(snapshot.placement);
            entry.sender.send_replace(Some(Ok(snapshot)));
        }
        Some(key)
    }

    /// Tells the calls of which the pods existed at a time and are not in the list of after it that they are gone.
    fn miss(&mut self, namespace: Option<&str>, since: Instant, seen: &HashSet<PodKey>) {
        for (key, entry) in &self.pods {
            let existed = entry.exists.is_some_and(|exists| exists < since);
            if covers(namespace, key) && existed && !seen.contains(key) {
                entry.sender.send_modify(|last| match last {
                    Some(Ok(snapshot)) => snapshot.status.deleted = true,
                    _ => *last = Some(Ok(Snapshot::of(&Pod::default(), true))),
                });
            }
        }
    }
}

impl Subscription {
    /// To be told that the pod is being deleted, for it takes up room until it is gone.
    pub(super) fn leaves(&self) {
        if let Some(entry) = self.entry(&mut self.shared.state()) {
            entry.is_leaving = true;
        }
    }

    /// Whether the namespace's quota may be used up by pods of ours, so that it is worth waiting.
    pub(super) fn awaits_quota(&self) -> bool {
        self.entry(&mut self.shared.state()).is_some_and(|entry| entry.claim.awaits_quota())
    }

    /// To be told which pod it is. Of one that has come to rest before, the watch says nothing any more.
    pub(super) fn found(&self, pod: &Pod) {
        let mut state = self.shared.state();
        let Some(entry) = self.entry(&mut state) else { return };
        entry.uid = pod.metadata.uid.clone();
        // That nothing will be heard of it is the later news.
        if !matches!(&*entry.sender.borrow(), Some(Err(_))) {
            state.tell(pod, false);
        }
    }

    /// None if a later call of the same pod has taken its place.
    fn entry<'a>(&self, state: &'a mut State) -> Option<&'a mut Entry> {
        let entry = state.pods.get_mut(&self.key)?;
        entry.sender.subscribe().same_channel(&self.receiver).then_some(entry)
    }

    /// The latest status that was not returned yet, as soon as there is one.
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

    fn lacks_room(&self) -> bool {
        matches!(&*self.receiver.borrow(), Some(Ok(snapshot)) if snapshot.placement == Placement::NoRoom)
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
