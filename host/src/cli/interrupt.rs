//! Ctrl-C, and what service managers send instead.

use super::Failure;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that ask the process to end.
pub(super) struct Interrupt {
    interrupt: Signal,
    terminate: Signal,
}

impl Interrupt {
    /// From now on the signals end nothing by themselves.
    pub(super) fn listen() -> Result<Self, Failure> {
        Ok(Interrupt { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    /// From now on this signal, by which services are told to read their files again, does not end the process.
    pub(super) fn hangups() -> Result<Signal, Failure> {
        listen(SignalKind::hangup())
    }

    pub(super) async fn next(&mut self) {
        self.next_is_terminate().await;
    }

    /// Whether the next is that of a service manager, for which ending is no failure.
    pub(super) async fn next_is_terminate(&mut self) -> bool {
        tokio::select! {
            _ = self.interrupt.recv() => false,
            _ = self.terminate.recv() => true,
        }
    }
}

fn listen(kind: SignalKind) -> Result<Signal, Failure> {
    signal(kind).map_err(|error| Failure::usage(format!("cannot listen for signals: {error}")))
}
