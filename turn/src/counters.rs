//! What a node counts.
//!
//! Each listener counts for itself in plain numbers and publishes them once per turn; a stream adds
//! what is new. Readers add everything up.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Totals since the start, and how much there is now.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Counters {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Counters {
            const COUNT: usize = [$(stringify!($name)),*].len();

            const fn values(&self) -> [u64; Self::COUNT] {
                [$(self.$name),*]
            }

            const fn from_values(values: [u64; Self::COUNT]) -> Self {
                let [$($name),*] = values;
                Self { $($name),* }
            }

            /// The sum, number by number.
            #[must_use]
            pub const fn plus(&self, other: &Self) -> Self {
                Self { $($name: self.$name.wrapping_add(other.$name)),* }
            }
        }
    };
}

counters! {
    /// Allocations now.
    allocations,
    /// Streams now.
    streams,
    /// Allocations made.
    allocated,
    /// Datagrams from clients to media.
    to_media,
    /// Their bytes.
    to_media_bytes,
    /// Datagrams from media to clients.
    to_clients,
    /// Their bytes.
    to_clients_bytes,
    /// 401 and 438: not signed, or not so that we believe it.
    unauthorized,
    /// 403: peers that are none of our media addresses.
    forbidden,
    /// 486 and 508: more than there is for them.
    quota,
    /// Every other error answer.
    errors,
    /// Answers that a stranger did not get: too many, or much larger than its question.
    withheld,
    /// What is no message, or none that we know.
    malformed,
    /// From clients, without allocation, permission, channel, or to no peer of ours.
    no_permission,
    /// From media, to allocations that are gone or without permission.
    no_way_back,
    /// From media, gone because newer ones came.
    dropped,
    /// Datagrams that the kernel would not take.
    send_failures,
    /// Streams that were turned away or broke the rules.
    streams_refused,
    /// Turns of a listener that did not end well: bugs.
    panics,
}

impl Counters {
    /// What is new since `before`.
    pub(crate) fn since(&self, before: &Self) -> Self {
        let mut values = self.values();
        for (value, before) in values.iter_mut().zip(before.values()) {
            *value = value.wrapping_sub(before);
        }
        Self::from_values(values)
    }
}

/// Counters that others may read.
#[derive(Debug)]
pub(crate) struct Published([AtomicU64; Counters::COUNT]);

impl Published {
    pub(crate) fn new() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }

    /// By the only writer.
    pub(crate) fn set(&self, counters: &Counters) {
        for (to, value) in self.0.iter().zip(counters.values()) {
            to.store(value, Ordering::Relaxed);
        }
    }

    /// By one of many writers; what went down is a number that wraps.
    pub(crate) fn add(&self, more: &Counters) {
        for (to, value) in self.0.iter().zip(more.values()) {
            if value != 0 {
                to.fetch_add(value, Ordering::Relaxed);
            }
        }
    }

    pub(crate) fn get(&self) -> Counters {
        let mut values = [0; Counters::COUNT];
        for (to, from) in values.iter_mut().zip(&self.0) {
            *to = from.load(Ordering::Relaxed);
        }
        Counters::from_values(values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_goes_down_is_added_right() {
        let published = Published::new();
        published.set(&Counters { allocations: 2, to_media: 5, ..Counters::default() });
        let before = Counters { allocations: 1, to_media: 7, ..Counters::default() };
        let after = Counters { allocations: 0, to_media: 9, ..Counters::default() };
        published.add(&after.since(&before));
        let sum = published.get();
        assert_eq!((sum.allocations, sum.to_media), (1, 7));
    }
}
