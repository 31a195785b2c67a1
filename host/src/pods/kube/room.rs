//! Room in the cluster, as far as this process takes it up or waits for it.
//!
//! While pods of ours find none, only a few more are created; the other calls wait here, in the order in which they
//! came. That costs the cluster nothing, and pods that are not there yet take no place in the scheduler's queue. Pods
//! that ask for the same stand in one line, and each line has places of its own, so that a small pod that fits into a
//! gap does not wait for large ones.

use super::status::Placement;
use crate::pods::PodSpec;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

/// The pods of a line that may be on their way to a node at a time.
const ON_THEIR_WAY: usize = 32;
/// While some of them find no room, there is one for so many that do, so that as many are at hand as may find room at
/// once. More would overtake each other: the scheduler lets a pod rest for longer after each try.
const HOLDING_FOR_ONE: usize = 8;
/// How long a quota may take to notice that a pod of ours is gone.
const QUOTA_LAG: Duration = Duration::from_secs(10);

/// What this process knows of the room in a cluster. Cloning it shares everything.
#[derive(Clone, Default)]
pub(super) struct Room {
    state: Arc<Mutex<State>>,
    /// How many pods of ours have a node.
    holding: watch::Sender<usize>,
}

#[derive(Default)]
struct State {
    lines: HashMap<Shape, Line>,
    namespaces: HashMap<String, Namespace>,
}

/// What a pod needs of the cluster: pods of one shape fit, or do not fit, at the same places.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Shape {
    namespace: String,
    cpu: String,
    memory: String,
    node_selector: Vec<(String, String)>,
}

#[derive(Default)]
struct Line {
    on_their_way: usize,
    without_room: usize,
    waiting: VecDeque<oneshot::Sender<Claim>>,
}

/// What counts against the quota of a namespace.
#[derive(Default)]
struct Namespace {
    pods: usize,
    last_ended: Option<Instant>,
}

/// The right to create a pod, and then what the pod takes up, until it is dropped.
pub(super) struct Claim {
    room: Room,
    shape: Shape,
    placement: Placement,
    is_created: bool,
}

impl Room {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of pods of ours that hold room, and its changes.
    pub(super) fn holding(&self) -> watch::Receiver<usize> {
        self.holding.subscribe()
    }

    /// A claim for a pod, if one may be created now.
    pub(super) fn try_claim(&self, spec: &PodSpec) -> Option<Claim> {
        let shape = Shape::of(spec);
        let mut state = self.state();
        let line = state.lines.entry(shape.clone()).or_default();
        (line.waiting.is_empty() && line.has_place(*self.holding.borrow())).then(|| self.enter(line, shape))
    }

    /// A claim for a pod, as soon as one may be created, and at the latest at `until`.
    pub(super) async fn claim(&self, spec: &PodSpec, until: Instant) -> Claim {
        let (sender, admitted) = oneshot::channel();
        let shape = Shape::of(spec);
        self.state().lines.entry(shape.clone()).or_default().waiting.push_back(sender);
        self.admit(&shape);
        match tokio::time::timeout_at(until, admitted).await {
            Ok(Ok(claim)) => claim,
            Ok(Err(_)) | Err(_) => self.claim_at_once(spec),
        }
    }

    /// A claim for a pod, whatever others wait for.
    pub(super) fn claim_at_once(&self, spec: &PodSpec) -> Claim {
        let shape = Shape::of(spec);
        self.enter(self.state().lines.entry(shape.clone()).or_default(), shape)
    }

    fn enter(&self, line: &mut Line, shape: Shape) -> Claim {
        line.on_their_way += 1;
        Claim { room: self.clone(), shape, placement: Placement::Open, is_created: false }
    }

    /// Lets those in a line go who may, and forgets a line that has become empty.
    fn admit(&self, shape: &Shape) {
        let mut admitted = vec![];
        let mut state = self.state();
        if let Some(line) = state.lines.get_mut(shape) {
            let holding = *self.holding.borrow();
            line.waiting.retain(|sender| !sender.is_closed());
            while line.has_place(holding)
                && let Some(sender) = line.waiting.pop_front()
            {
                admitted.push((sender, self.enter(line, shape.clone())));
            }
            if line.on_their_way + line.without_room + line.waiting.len() == 0 {
                state.lines.remove(shape);
            }
        }
        drop(state);
        for (sender, claim) in admitted {
            // Who does not wait any more gives it back by dropping it.
            drop(sender.send(claim));
        }
    }
}

impl Line {
    /// The number of pods at such a place that this line counts.
    fn count(&mut self, placement: Placement) -> Option<&mut usize> {
        match placement {
            Placement::Open => Some(&mut self.on_their_way),
            Placement::NoRoom => Some(&mut self.without_room),
            Placement::Node | Placement::Apart => None,
        }
    }

    fn has_place(&self, holding: usize) -> bool {
        let places = if self.without_room == 0 { ON_THEIR_WAY } else { (holding / HOLDING_FOR_ONE).max(1) };
        self.on_their_way + self.without_room < places
    }
}

impl Shape {
    fn of(spec: &PodSpec) -> Self {
        Shape {
            namespace: spec.namespace.clone(),
            cpu: spec.cpu.clone(),
            memory: spec.memory.clone(),
            node_selector: spec.node_selector.clone(),
        }
    }
}

impl Claim {
    pub(super) fn room(&self) -> &Room {
        &self.room
    }

    pub(super) fn holds_room(&self) -> bool {
        self.placement == Placement::Node
    }

    /// The pod exists.
    pub(super) fn created(&mut self) {
        if !std::mem::replace(&mut self.is_created, true) {
            self.room.state().namespaces.entry(self.shape.namespace.clone()).or_default().pods += 1;
        }
    }

    /// Whether the quota of the namespace may be used up by pods of ours, so that it is worth waiting. Until it is
    /// dropped or placed, the claim counts as one that finds no room.
    pub(super) fn awaits_quota(&mut self) -> bool {
        self.place(Placement::NoRoom);
        let state = self.room.state();
        let namespace = state.namespaces.get(&self.shape.namespace);
        namespace.is_some_and(|ours| ours.pods > 0 || ours.last_ended.is_some_and(|end| end.elapsed() < QUOTA_LAG))
    }

    /// What the cluster says of the pod's place.
    pub(super) fn place(&mut self, placement: Placement) {
        let last = std::mem::replace(&mut self.placement, placement);
        if last == placement {
            return;
        }
        let mut state = self.room.state();
        let line = state.lines.entry(self.shape.clone()).or_default();
        if let Some(count) = line.count(last) {
            *count -= 1;
        }
        if let Some(count) = line.count(placement) {
            *count += 1;
        }
        let is_first = placement == Placement::NoRoom && line.without_room == 1;
        drop(state);
        if is_first {
            let Shape { namespace, cpu, memory, .. } = &self.shape;
            tracing::info!(namespace, cpu, memory, "such pods find no room; only a few more are created until they do");
        }
        match (last == Placement::Node, placement == Placement::Node) {
            (false, true) => self.room.holding.send_modify(|count| *count += 1),
            (true, false) => self.room.holding.send_modify(|count| *count -= 1),
            _ => {}
        }
        self.room.admit(&self.shape);
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if self.is_created {
            let mut state = self.room.state();
            if let Some(namespace) = state.namespaces.get_mut(&self.shape.namespace) {
                namespace.pods -= 1;
                namespace.last_ended = Some(Instant::now());
            }
        }
        self.place(Placement::Apart);
    }
}
