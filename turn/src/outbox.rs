//! What waits for one listener or one stream: trains of datagrams, bounded, the oldest given up
//! first.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use crossbeam_queue::ArrayQueue;

use crate::Relay;

/// Datagrams for one client.
#[derive(Debug)]
pub(crate) struct Train {
    pub(crate) relay: Relay,
    /// The media address that they come from.
    pub(crate) from: SocketAddr,
    /// Bytes of each but the last.
    pub(crate) segment: usize,
    pub(crate) contents: Bytes,
}

impl Train {
    pub(crate) fn datagrams(&self) -> u64 {
        self.contents.len().div_ceil(self.segment.max(1)) as u64
    }
}

/// A queue that never holds anybody up.
#[derive(Debug)]
pub(crate) struct Outbox {
    trains: ArrayQueue<Train>,
    most_bytes: usize,
    waiting: AtomicUsize,
}

impl Outbox {
    pub(crate) fn new(trains: usize, most_bytes: usize) -> Self {
        Self { trains: ArrayQueue::new(trains), most_bytes, waiting: AtomicUsize::new(0) }
    }

    /// Adds a train. Returns how many older datagrams had to go for it.
    pub(crate) fn push(&self, train: Train) -> u64 {
        let length = train.contents.len();
        let mut dropped = 0;
        while self.waiting.load(Ordering::Relaxed) + length > self.most_bytes
            && let Some(oldest) = self.pop()
        {
            dropped += oldest.datagrams();
        }
        self.waiting.fetch_add(length, Ordering::Relaxed);
        if let Some(oldest) = self.trains.force_push(train) {
            self.waiting.fetch_sub(oldest.contents.len(), Ordering::Relaxed);
            dropped += oldest.datagrams();
        }
        dropped
    }

    pub(crate) fn pop(&self) -> Option<Train> {
        let train = self.trains.pop()?;
        self.waiting.fetch_sub(train.contents.len(), Ordering::Relaxed);
        Some(train)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.trains.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_too_slow_loses_the_oldest() {
        let outbox = Outbox::new(4, 300);
        let train = |first: u8, bytes: usize| Train {
            relay: Relay(1),
            from: "127.0.0.1:1".parse().unwrap(),
            segment: 10,
            contents: vec![first; bytes].into(),
        };
        assert_eq!(outbox.push(train(1, 100)), 0);
        assert_eq!(outbox.push(train(2, 100)), 0);
        assert_eq!(outbox.push(train(3, 150)), 10, "bytes");
        for number in 4..=5 {
            assert_eq!(outbox.push(train(number, 5)), 0);
        }
        assert_eq!(outbox.push(train(6, 5)), 10, "trains");
        let left: Vec<u8> =
            std::iter::from_fn(|| outbox.pop()).map(|train| train.contents[0]).collect();
        assert_eq!(left, [3, 4, 5, 6]);
        assert_eq!(outbox.waiting.load(Ordering::Relaxed), 0);
        assert!(outbox.is_empty());
    }
}
