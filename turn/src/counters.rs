//! What a node counts.

/// Totals since the start, and how much there is now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Allocations now.
    pub allocations: u64,
    /// Streams now.
    pub streams: u64,
}
