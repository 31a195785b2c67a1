//! Ctrl-C, and the signals of service managers.

use crate::exit::CommandError;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that ask the process to end.
pub(crate) struct Interrupt {
    interrupt: Signal,
    terminate: Signal,
}

impl Interrupt {
    /// From now on these signals do not end the process by themselves.
    pub(crate) fn listen() -> Result<Self, CommandError> {
        Ok(Interrupt { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    /// SIGHUP, on which services read their files again. From now on it does not end the process.
    pub(crate) fn hangups() -> Result<Signal, CommandError> {
        listen(SignalKind::hangup())
    }

    pub(crate) async fn next(&mut self) {
        self.next_is_terminate().await;
    }

    /// Waits for the next. Whether it is SIGTERM, after which the exit status of a service is 0.
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
