//! Room in the cluster: how much of it this process uses, and which calls wait for it.
//!
//! While the scheduler finds no room for pods of this process, only a few more are created, and the other calls wait
//! here in the order in which they came. Waiting here costs the cluster nothing and keeps the scheduler's queue short.
//! Pods with equal requirements form a line. Each line creates pods of its own, so that a small pod that fits into a gap
//! does not wait behind large ones.

use super::status::Placement;
use crate::pods::PodSpec;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

/// How many pods of a line may wait for the scheduler's first look at the same time.
const UNSEEN_AT_ONCE: usize = 32;
/// While a line has pods without room, it may have one pod waiting for every so many pods that hold room. About as many
/// pods are then ready as may find room at once. More would overtake each other, because the scheduler rests a pod for
/// longer after each failed try.
const HOLDING_FOR_ONE: usize = 8;
/// How long a quota may take to notice that a pod is gone.
const QUOTA_LAG: Duration = Duration::from_secs(10);

/// What this process knows about the room in a cluster. Clones share it.
#[derive(Clone, Default)]
pub(super) struct Room {
    state: Arc<Mutex<State>>,
    /// How many pods of this process hold room on a node.
    holding: watch::Sender<usize>,
}

#[derive(Default)]
struct State {
    lines: HashMap<Shape, Line>,
    namespaces: HashMap<String, Namespace>,
}

/// What a pod requires of the cluster. Pods of one shape fit, or do not fit, on the same nodes.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Shape {
    namespace: String,
    cpu: String,
    memory: String,
    node_selector: Vec<(String, String)>,
}

#[derive(Default)]
struct Line {
    unseen: usize,
    without_room: usize,
    waiting: VecDeque<oneshot::Sender<Claim>>,
}

/// What counts against the quota of a namespace.
#[derive(Default)]
struct Namespace {
    pods: usize,
    last_ended: Option<Instant>,
}

/// The right to create a pod. It counts as that pod until it is dropped.
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

    /// Follows the number of pods that hold room on a node.
    pub(super) fn holding(&self) -> watch::Receiver<usize> {
        self.holding.subscribe()
    }

    /// A claim, if a pod may be created now.
    pub(super) fn try_claim(&self, spec: &PodSpec) -> Option<Claim> {
        let shape = Shape::of(spec);
        let mut state = self.state();
        let line = state.lines.entry(shape.clone()).or_default();
        let may_create = line.waiting.is_empty() && line.has_place(*self.holding.borrow());
        may_create.then(|| self.enter(line, shape))
    }

    /// A claim as soon as a pod may be created, and at `until` in any case.
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

    /// A claim, even if a pod should wait.
    pub(super) fn claim_at_once(&self, spec: &PodSpec) -> Claim {
        let shape = Shape::of(spec);
        self.enter(self.state().lines.entry(shape.clone()).or_default(), shape)
    }

    fn enter(&self, line: &mut Line, shape: Shape) -> Claim {
        line.unseen += 1;
        Claim { room: self.clone(), shape, placement: Placement::Unseen, is_created: false }
    }

    /// Gives claims to the calls at the front of a line, for as long as the line has places.
    fn admit(&self, shape: &Shape) {
        while let Some((call, claim)) = self.next_admitted(shape) {
            // A call that has just gone away drops the claim, and dropping needs the lock. So the lock is not held here.
            drop(call.send(claim));
        }
    }

    /// The first call in a line that still waits, with a claim, if the line has a place. Removes a line that is empty.
    fn next_admitted(&self, shape: &Shape) -> Option<(oneshot::Sender<Claim>, Claim)> {
        let mut state = self.state();
        let line = state.lines.get_mut(shape)?;
        line.waiting.retain(|call| !call.is_closed());
        if line.is_empty() {
            state.lines.remove(shape);
            return None;
        }
        if !line.has_place(*self.holding.borrow()) {
            return None;
        }
        let call = line.waiting.pop_front()?;
        Some((call, self.enter(line, shape.clone())))
    }
}

impl Line {
    /// The count of this line that includes pods of this placement.
    fn count(&mut self, placement: Placement) -> Option<&mut usize> {
        match placement {
            Placement::Unseen => Some(&mut self.unseen),
            Placement::NoRoom => Some(&mut self.without_room),
            Placement::OnNode | Placement::Uncounted => None,
        }
    }

    fn has_place(&self, holding: usize) -> bool {
        let places = if self.without_room == 0 { UNSEEN_AT_ONCE } else { (holding / HOLDING_FOR_ONE).max(1) };
        self.unseen + self.without_room < places
    }

    fn is_empty(&self) -> bool {
        self.unseen == 0 && self.without_room == 0 && self.waiting.is_empty()
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
        self.placement == Placement::OnNode
    }

    /// Notes that the pod exists.
    pub(super) fn created(&mut self) {
        if !std::mem::replace(&mut self.is_created, true) {
            self.room.state().namespaces.entry(self.shape.namespace.clone()).or_default().pods += 1;
        }
    }

    /// Whether pods of this process may be what uses up the quota of the namespace, so that waiting can help. From then
    /// on the claim counts as a pod without room.
    pub(super) fn awaits_quota(&mut self) -> bool {
        self.place(Placement::NoRoom);
        let state = self.room.state();
        let namespace = state.namespaces.get(&self.shape.namespace);
        namespace.is_some_and(|ours| ours.pods > 0 || ours.last_ended.is_some_and(|end| end.elapsed() < QUOTA_LAG))
    }

    /// Notes how far the scheduler has come with the pod.
    pub(super) fn place(&mut self, placement: Placement) {
        let last = std::mem::replace(&mut self.placement, placement);
        if last == placement {
            return;
        }
        let is_first_without_room = {
            let mut state = self.room.state();
            let line = state.lines.entry(self.shape.clone()).or_default();
            if let Some(count) = line.count(last) {
                *count -= 1;
            }
            if let Some(count) = line.count(placement) {
                *count += 1;
            }
            placement == Placement::NoRoom && line.without_room == 1
        };
        if is_first_without_room {
            let Shape { namespace, cpu, memory, .. } = &self.shape;
            tracing::info!(namespace, cpu, memory, "no room for such pods; only a few more are created until there is");
        }
        if last == Placement::OnNode {
            self.room.holding.send_modify(|count| *count -= 1);
        }
        if placement == Placement::OnNode {
            self.room.holding.send_modify(|count| *count += 1);
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
        self.place(Placement::Uncounted);
    }
}
