//! The pods that there are at a time, and the calls that wait for a place among them.

use super::Policy;
use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Who has a pod at present. It outlives a change of policy, so that the pods from before it count.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    most: Option<NonZeroUsize>,
    most_per_namespace: Option<NonZeroUsize>,
    by_namespace: HashMap<String, usize>,
}

impl InFlight {
    /// From now on the limits of this policy hold, also for those who wait already.
    pub fn limit(&self, policy: &Policy) {
        let mut state = self.state();
        (state.most, state.most_per_namespace) = (policy.max_calls, policy.max_calls_per_namespace);
        drop(state);
        self.changed.notify_waiters();
    }

    /// Takes a place as soon as there is one.
    pub async fn enter(self: &Arc<Self>, namespace: &str) -> Place {
        loop {
            // It is told of whatever happens after this line.
            let changed = self.changed.notified();
            if self.state().enter(namespace) {
                return Place { of: self.clone(), namespace: namespace.into() };
            }
            tracing::debug!(namespace, "as many calls run as the policy allows; waiting");
            changed.await;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn enter(&mut self, namespace: &str) -> bool {
        let here = self.by_namespace.get(namespace).copied().unwrap_or_default();
        let is_free = self.most.is_none_or(|most| self.by_namespace.values().sum::<usize>() < most.get())
            && self.most_per_namespace.is_none_or(|most| here < most.get());
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

/// The place of one pod. Dropping it makes room for another.
#[derive(Debug)]
pub(crate) struct Place {
    of: Arc<InFlight>,
    namespace: String,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.of.state().leave(&self.namespace);
        self.of.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[tokio::test]
    async fn who_finds_no_place_waits_until_somebody_leaves_or_the_limits_change() {
        let in_flight = Arc::new(InFlight::default());
        let most = |all, here| Policy {
            max_calls: NonZeroUsize::new(all),
            max_calls_per_namespace: NonZeroUsize::new(here),
            ..Policy::default()
        };
        in_flight.limit(&most(2, 1));
        let a = in_flight.enter("a").await;
        let mut another_a = Box::pin(in_flight.enter("a"));
        assert!(another_a.as_mut().now_or_never().is_none());
        let _b = in_flight.enter("b").await;
        let mut c = Box::pin(in_flight.enter("c"));
        assert!(c.as_mut().now_or_never().is_none());
        drop(a);
        let _a = another_a.await;
        assert!(c.as_mut().now_or_never().is_none());
        in_flight.limit(&most(3, 1));
        drop(c.await);
        assert_eq!(in_flight.state().by_namespace.len(), 2);
    }
}
