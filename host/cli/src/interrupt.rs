//! Ctrl-C, and what service managers send instead.

use crate::exit::CommandError;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that ask the process to end.
pub(crate) struct Interrupt {
    interrupt: Signal,
    terminate: Signal,
}

impl Interrupt {
    /// From now on the signals end nothing by themselves.
    pub(crate) fn listen() -> Result<Self, CommandError> {
        Ok(Interrupt { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    /// From now on this signal, by which services are told to read their files again, does not end the process.
    pub(crate) fn hangups() -> Result<Signal, CommandError> {
        listen(SignalKind::hangup())
    }

    pub(crate) async fn next(&mut self) {
        self.next_is_terminate().await;
    }

    /// Whether the next is that of a service manager, for which ending is no failure.
    pub(crate) async fn next_is_terminate(&mut self) -> bool {
        tokio::select! {
            _ = self.interrupt.recv() => false,
            _ = self.terminate.recv() => true,
        }
    }
}

fn listen(kind: SignalKind) -> Result<Signal, CommandError> {
    signal(kind).map_err(|error| CommandError::usage(format!("cannot listen for signals: {error}")))
}
