//! What the control plane counts. No label ever holds a name, an id or a room.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::consultation::Status;
use crate::events::Sink;

/// One number.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more.
    pub fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// One fewer; never below zero.
    pub fn take(&self) {
        let _ = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| Some(n.saturating_sub(1)));
    }

    /// The number now.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// The number now is this one.
    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }
}

/// What is counted of the events that go to one sink.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SinkCounts {
    /// Those that it has not taken yet (gauge).
    pub backlog: u64,
    /// Those that it has taken.
    pub sent: u64,
    /// Attempts that it refused.
    pub refused: u64,
    /// Those that were given up.
    pub parked: u64,
}

/// Declares the counters once: the doc comment of a field is what `/metrics` says of it, and `(gauge)`
/// in it marks a number that falls, too.
macro_rules! counters {
    ($($(#[doc = $help:literal])+ pub $name:ident: Counter,)+) => {
        /// Everything that is counted.
        #[derive(Debug, Default)]
        pub struct ControlCounters {
            /// Consultations by status, in the order of [`Status::ALL`] (gauge).
            pub sessions: [Counter; 8],
            $($(#[doc = $help])+ pub $name: Counter,)+
            /// Events, by where they go.
            pub(crate) outbox: Mutex<BTreeMap<String, SinkCounts>>,
        }

        impl ControlCounters {
            /// Every number but those by status, with its name and what it means.
            pub fn values(&self) -> Vec<(&'static str, String, u64)> {
                vec![$((stringify!($name), [$($help),+].concat(), self.$name.value())),+]
            }
        }
    };
}

counters! {
    /// Joins that were answered with a room token.
    pub joins: Counter,
    /// Joins that were answered with a place in the waiting room.
    pub waits: Counter,
    /// People let in.
    pub admissions: Counter,
    /// Chat messages stored.
    pub chat_messages: Counter,
    /// Chat messages refused because their sender wrote too many.
    pub refused_messages: Counter,
    /// Open channels (gauge).
    pub channels: Counter,
    /// Channels cut because their client did not read.
    pub slow_channels: Counter,
    /// Frames refused: malformed, unknown, too many.
    pub refused_frames: Counter,
    /// Requests and channels refused for their token.
    pub refused_auth: Counter,
    /// People that the door of a room refused.
    pub refused_doors: Counter,
    /// Requests refused because their caller or address sent too many.
    pub rate_limited: Counter,
    /// Connection checks begun.
    pub checks: Counter,
    /// Requests that were answered as the first time, by their Idempotency-Key.
    pub idempotent_replays: Counter,
    /// Events that their sinks have not taken yet (gauge).
    pub outbox_backlog: Counter,
    /// Events of rooms that could not be kept for those who listen to rooms.
    pub room_events_lost: Counter,
    /// Events of given tokens that were not told: more came than the database takes.
    pub events_lost: Counter,
    /// Requests that failed because the database did not answer.
    pub database_failures: Counter,
    /// Connections to the message broker (gauge).
    pub amqp_connections: Counter,
    /// Connections from which the message broker takes nothing: it is short of memory or disk (gauge).
    pub amqp_blocked: Counter,
    /// Messages that the message broker delivered.
    pub amqp_consumed: Counter,
    /// Messages of the broker that went to the dead letters.
    pub amqp_poison: Counter,
    /// Messages of the broker that were put aside to come back later.
    pub amqp_retried: Counter,
    /// Messages that the broker has confirmed.
    pub amqp_published: Counter,
    /// Messages that the broker gave back because no queue takes them.
    pub amqp_returned: Counter,
}

impl ControlCounters {
    /// The consultations of each status.
    pub fn sessions_by_status(&self) -> [(Status, u64); 8] {
        Status::ALL
            .map(|status| (status, self.sessions.get(status.index()).map_or(0, Counter::value)))
    }

    /// Events by the names of their sinks, which are the operator's words.
    pub fn outbox(&self) -> Vec<(String, SinkCounts)> {
        let outbox = self.outbox.lock().unwrap_or_else(PoisonError::into_inner);
        outbox.iter().map(|(sink, counts)| (sink.clone(), *counts)).collect()
    }

    pub(crate) fn of_sink(&self, sink: &Sink, count: impl FnOnce(&mut SinkCounts)) {
        let mut outbox = self.outbox.lock().unwrap_or_else(PoisonError::into_inner);
        count(outbox.entry(sink.word()).or_default());
    }

    pub(crate) fn start_with(&self, sessions: [u64; 8]) {
        for (counter, value) in self.sessions.iter().zip(sessions) {
            counter.set(value);
        }
    }

    pub(crate) fn moved(&self, from: Option<Status>, to: Status) {
        if from == Some(to) {
            return;
        }
        if let Some(counter) = from.and_then(|status| self.sessions.get(status.index())) {
            counter.take();
        }
        if let Some(counter) = self.sessions.get(to.index()) {
            counter.add();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_is_named_and_explained() {
        let counters = ControlCounters::default();
        counters.joins.add();
        counters.channels.add();
        let values = counters.values();
        let of = |name| values.iter().find(|(found, ..)| *found == name).expect("it is there");
        assert_eq!(of("joins").2, 1);
        assert!(of("channels").1.contains("(gauge)"));
        for (name, help, _) in &values {
            assert!(help.trim().ends_with('.'), "{name}: {help}");
        }
    }
}
