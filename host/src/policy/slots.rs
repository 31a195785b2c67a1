//! The limits of calls: how many pods there are at a time, and the calls that wait for their turn.

use super::Policy;
use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// The pods that exist at present, counted by namespace. Cloning it shares the count.
#[derive(Clone, Debug, Default)]
pub(super) struct Slots(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// The limits of the policy that replaced the one whose count this was.
    replaced: Option<Most>,
    by_namespace: HashMap<String, usize>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Most {
    pub calls: Option<NonZeroUsize>,
    pub calls_per_namespace: Option<NonZeroUsize>,
}

impl Most {
    pub(super) fn of(policy: &Policy) -> Self {
        Most { calls: policy.max_calls, calls_per_namespace: policy.max_calls_per_namespace }
    }
}

impl Slots {
    /// From now on these limits hold for everybody who shares the count, also for those who wait already.
    pub(super) fn replace(&self, most: Most) {
        self.state().replaced = Some(most);
        self.0.changed.notify_waiters();
    }

    /// Takes a slot as soon as there is one. `most` holds unless it was replaced.
    pub(super) async fn enter(&self, namespace: &str, most: Most) -> Slot {
        loop {
            // A change after this line wakes it, so none is missed.
            let changed = self.0.changed.notified();
            if self.state().enter(namespace, most) {
                return Slot { of: self.clone(), namespace: namespace.into() };
            }
            tracing::debug!(namespace, "the policy's limit of calls is reached; waiting");
            changed.await;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn enter(&mut self, namespace: &str, most: Most) -> bool {
        let most = self.replaced.unwrap_or(most);
        let here = self.by_namespace.get(namespace).copied().unwrap_or_default();
        let is_free = most.calls.is_none_or(|most| self.by_namespace.values().sum::<usize>() < most.get())
            && most.calls_per_namespace.is_none_or(|most| here < most.get());
        if is_free {
            self.by_namespace.insert(namespace.into(), here + 1);
        }
        is_free
    }

    fn leave(&mut self, namespace: &str) {
        match self.by_namespace.get_mut(namespace) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(self.by_namespace.remove(namespace)),
        }
    }
}

/// A call's right to have a pod. Dropping it lets another call have one.
#[derive(Debug)]
pub(crate) struct Slot {
    of: Slots,
    namespace: String,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.of.state().leave(&self.namespace);
        self.of.0.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[tokio::test]
    async fn a_call_waits_until_another_ends_or_the_limits_are_raised() {
        let slots = Slots::default();
        let most = |calls, here| Most { calls: NonZeroUsize::new(calls), calls_per_namespace: NonZeroUsize::new(here) };
        let a = slots.enter("a", most(2, 1)).await;
        let mut another_a = Box::pin(slots.enter("a", most(2, 1)));
        assert!(another_a.as_mut().now_or_never().is_none());
        let _b = slots.enter("b", most(2, 1)).await;
        let mut c = Box::pin(slots.enter("c", most(2, 1)));
        assert!(c.as_mut().now_or_never().is_none());
        drop(a);
        let _a = another_a.await;
        assert!(c.as_mut().now_or_never().is_none());
        slots.replace(most(3, 1));
        drop(c.await);
        assert_eq!(slots.state().by_namespace.len(), 2);
    }
}
