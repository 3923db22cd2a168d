//! How slow the other end may be.
//!
//! Waiting costs credit, and what moves earns it back, up to what there was at first. So a slow line
//! is served for as long as it takes, and one that gives or takes a byte now and then is not.

use std::error::Error;
use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep, sleep};

/// Credit for waiting.
#[derive(Debug)]
pub(super) struct Pace {
    most: Duration,
    bytes_per_second: u32,
    credit: Duration,
    waiting: Option<(Instant, Pin<Box<Sleep>>)>,
}

impl Pace {
    /// May wait for `most`, and for a second more after each `bytes_per_second` that moved.
    pub(super) const fn new(most: Duration, bytes_per_second: u32) -> Self {
        Self { most, bytes_per_second, credit: most, waiting: None }
    }

    /// Nothing moves: ready when that has lasted too long.
    pub(super) fn poll_waiting(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let credit = self.credit;
        let (_, alarm) =
            self.waiting.get_or_insert_with(|| (Instant::now(), Box::pin(sleep(credit))));
        alarm.as_mut().poll(cx)
    }

    /// So much has moved.
    pub(super) fn moved(&mut self, bytes: usize) {
        // Who was never waited for has all of its credit.
        if self.waiting.is_none() && self.credit == self.most {
            return;
        }
        if let Some((since, _)) = self.waiting.take() {
            self.credit = self.credit.saturating_sub(since.elapsed());
        }
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let earned = Duration::from_secs(1).saturating_mul(bytes) / self.bytes_per_second;
        self.credit = (self.credit + earned).min(self.most);
    }
}

/// A request's body that must arrive at a pace.
#[derive(Debug)]
pub(super) struct PacedBody {
    body: Incoming,
    pace: Pace,
}

impl PacedBody {
    /// Bounds how slowly `body` may come.
    pub(super) const fn new(body: Incoming, pace: Pace) -> Self {
        Self { body, pace }
    }
}

impl Body for PacedBody {
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(frame) => {
                let data = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref());
                let len = data.map_or(0, Bytes::len);
                self.pace.moved(len);
                Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
            }
            Poll::Pending => {
                ready!(self.pace.poll_waiting(cx));
                Poll::Ready(Some(Err("the body comes too slowly".into())))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    /// Waits for `pause`, then `bytes` move; says whether it was too long.
    async fn wait(pace: &mut Pace, pause: Duration, bytes: usize) -> bool {
        tokio::select! {
            biased;
            () = poll_fn(|cx| pace.poll_waiting(cx)) => return true,
            () = sleep(pause) => {}
        }
        pace.moved(bytes);
        false
    }

    #[tokio::test(start_paused = true)]
    async fn a_trickle_is_cut_and_a_slow_line_is_not() {
        let (most, second) = (Duration::from_secs(20), Duration::from_secs(1));
        let mut line = Pace::new(most, 1000);
        for _ in 0..1000 {
            assert!(!wait(&mut line, second, 1000).await);
        }
        let mut trickle = Pace::new(most, 1000);
        let start = Instant::now();
        while !wait(&mut trickle, 5 * second, 10).await {}
        assert!((most..2 * most).contains(&start.elapsed()), "{:?}", start.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_earned_is_bounded() {
        let most = Duration::from_secs(20);
        let mut pace = Pace::new(most, 1000);
        assert!(!wait(&mut pace, Duration::from_secs(19), 1 << 30).await);
        pace.moved(usize::MAX);
        assert!(!wait(&mut pace, Duration::from_secs(19), 0).await);
        assert!(wait(&mut pace, Duration::from_secs(2), 0).await);
    }
}
