//! What an embedder can hear of a call while it runs.

use crate::pods::PodStatus;
use tokio::sync::mpsc;

/// Something that happened in a call.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// The pod was created.
    Created {
        /// Its namespace.
        namespace: String,
        /// Its name.
        pod: String,
    },
    /// The pod that was created is one of an earlier run of the same call.
    Adopted,
    /// The pod's status has changed.
    Status(PodStatus),
    /// A file is being read from the pod.
    Reading {
        /// Relative to the output directory.
        path: String,
    },
    /// A piece of the container's log.
    Log(Vec<u8>),
    /// The pod is being deleted.
    Deleting,
}

/// Where the events of a call go. By default nowhere.
#[derive(Clone, Debug, Default)]
pub struct Events {
    sender: Option<mpsc::UnboundedSender<Event>>,
    logs: bool,
}

impl Events {
    /// A channel of events, with the container's log among them if `logs` is set.
    pub fn channel(logs: bool) -> (Self, mpsc::UnboundedReceiver<Event>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Events { sender: Some(sender), logs }, receiver)
    }

    pub(crate) fn wants_logs(&self) -> bool {
        self.logs
    }

    pub(crate) fn send(&self, event: impl FnOnce() -> Event) {
        if let Some(sender) = &self.sender {
            // Nobody listens any more: that is the listener's choice.
            let _ = sender.send(event());
        }
    }
}
