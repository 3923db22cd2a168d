//! The two signals that end the process, what the first and the second one mean, and the one that
//! asks to look at files again.

use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGTERM and SIGINT of this process.
#[derive(Debug)]
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Takes the signals over; from here on they no longer end the process by themselves.
    pub(crate) fn listen() -> anyhow::Result<Self> {
        let terminate = signal(SignalKind::terminate()).context("SIGTERM cannot be watched")?;
        let interrupt = signal(SignalKind::interrupt()).context("SIGINT cannot be watched")?;
        Ok(Self { terminate, interrupt })
    }

    /// The next one.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// Runs `ending` to its end, but no longer than `limit` and not past a further signal.
    pub(crate) async fn bound(
        &mut self,
        limit: Duration,
        ending: impl Future<Output = ()>,
    ) -> Ending {
        tokio::select! {
            () = ending => Ending::Whole,
            () = tokio::time::sleep(limit) => {
                tracing::warn!("not everything had ended in time");
                Ending::Late
            }
            () = self.next() => {
                tracing::warn!("second signal: stopping at once");
                Ending::Signal
            }
        }
    }
}

/// SIGHUP, by which operators say that files have changed.
#[derive(Debug)]
pub(crate) struct Hangup(Signal);

impl Hangup {
    /// Takes the signal over; from here on it no longer ends the process.
    pub(crate) fn listen() -> anyhow::Result<Self> {
        Ok(Self(signal(SignalKind::hangup()).context("SIGHUP cannot be watched")?))
    }

    /// The next one.
    pub(crate) async fn next(&mut self) {
        // Ends only with the runtime.
        if self.0.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
    }
}

/// How something that was waited for ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// By itself.
    Whole,
    /// It had not, when its time was over.
    Late,
    /// It had not, when a further signal came.
    Signal,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_ending_has_a_limit() {
        let mut signals = Signals::listen().unwrap();
        let start = std::time::Instant::now();
        let late = signals.bound(Duration::from_millis(20), std::future::pending()).await;
        assert_eq!(late, Ending::Late);
        assert!(start.elapsed() >= Duration::from_millis(20));
        let whole = signals.bound(Duration::from_secs(60), std::future::ready(())).await;
        assert_eq!(whole, Ending::Whole);
        assert!(start.elapsed() < Duration::from_secs(30));
    }
}
