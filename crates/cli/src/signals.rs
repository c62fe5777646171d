//! Turns SIGTERM and SIGINT into cancellation.

use std::io;

use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

/// What the operator asked for by signals. Dropping it ends the watch.
#[derive(Debug)]
pub(crate) struct Signals {
    /// Cancelled by the first signal: finish what is in hand, then end.
    pub(crate) terminate: CancellationToken,
    /// Cancelled by the second signal: end now. Whatever is unsettled is handed back to the broker.
    pub(crate) abort: CancellationToken,
    _watch: JoinSet<()>,
}

impl Signals {
    /// Starts to watch. From here on a signal no longer kills the process by itself.
    pub(crate) fn watch() -> io::Result<Self> {
        let mut interrupts = signal(SignalKind::interrupt())?;
        let mut terminations = signal(SignalKind::terminate())?;
        let (terminate, abort) = (CancellationToken::new(), CancellationToken::new());
        let in_order = [terminate.clone(), abort.clone()];
        let mut watch = JoinSet::new();
        watch.spawn(async move {
            for token in in_order {
                tokio::select! {
                    _ = interrupts.recv() => {}
                    _ = terminations.recv() => {}
                }
                token.cancel();
            }
        });
        Ok(Self {
            terminate,
            abort,
            _watch: watch,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::process::{self, Command};

    use super::*;

    fn signal_this_process(name: &str) {
        let id = process::id().to_string();
        let status = Command::new("kill").args(["-s", name, &id]).status();
        assert!(status.unwrap().success());
    }

    #[tokio::test]
    async fn the_first_signal_terminates_and_the_second_aborts() {
        let signals = Signals::watch().unwrap();
        assert!(!signals.terminate.is_cancelled());
        signal_this_process("TERM");
        signals.terminate.cancelled().await;
        assert!(!signals.abort.is_cancelled());
        signal_this_process("INT");
        signals.abort.cancelled().await;
    }
}
