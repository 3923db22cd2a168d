//! The datagrams that wait to leave towards one participant: an arena of bytes, cut into trains.
//!
//! Packets are written and sealed at the arena's end, so nothing is copied again. Neighbours of
//! equal size on one path form a train that the kernel takes in one call; a shorter one may end it.

use super::api::{Path, Transmit};

/// The kernel's limit of segments in a train.
const MAX_SEGMENTS: usize = 64;
/// A train must fit an IP packet.
const MAX_TRAIN: usize = 60_000;
/// An arena that once grew beyond this is cut back after it was emptied.
const KEEP: usize = 256 << 10;

/// The arena of one participant.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    bytes: Vec<u8>,
    trains: Vec<Train>,
    next: usize,
}

#[derive(Clone, Copy, Debug)]
struct Train {
    path: Path,
    start: usize,
    end: usize,
    segment: usize,
    closed: bool,
}

impl Outgoing {
    /// Where the next datagram is to be written, and at which offset it begins.
    pub(super) fn buffer(&mut self) -> (&mut Vec<u8>, usize) {
        let start = self.bytes.len();
        (&mut self.bytes, start)
    }

    /// Whether it never held anything.
    pub(super) const fn is_unused(&self) -> bool {
        self.bytes.capacity() == 0
    }

    /// Takes back what was written since `start`.
    pub(super) fn abandon(&mut self, start: usize) {
        self.bytes.truncate(start);
    }

    /// What was written since `start` is one datagram for `path`. Returns its length.
    pub(super) fn commit(&mut self, path: Path, start: usize) -> usize {
        let end = self.bytes.len();
        let len = end.saturating_sub(start);
        if len == 0 {
            return 0;
        }
        let waiting = self.trains.len() > self.next;
        match self.trains.last_mut().filter(|_| waiting) {
            Some(train) if train.takes(path, start, len) => {
                train.end = end;
                train.closed = len < train.segment;
            }
            _ => self.trains.push(Train { path, start, end, segment: len, closed: false }),
        }
        len
    }

    /// Appends a finished datagram.
    pub(super) fn push(&mut self, path: Path, datagram: &[u8]) -> usize {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(datagram);
        self.commit(path, start)
    }

    /// The datagram of this length that was committed last.
    pub(super) fn last(&self, len: usize) -> &[u8] {
        self.bytes.get(self.bytes.len().saturating_sub(len)..).unwrap_or_default()
    }

    /// Whether nothing waits. Empties the arena when the last train has been taken.
    pub(super) fn is_empty(&mut self) -> bool {
        if self.next < self.trains.len() {
            return false;
        }
        self.trains.clear();
        self.next = 0;
        self.bytes.clear();
        if self.bytes.capacity() > KEEP {
            self.bytes.shrink_to(KEEP);
        }
        true
    }

    /// The next train.
    pub(super) fn take(&mut self) -> Option<Transmit<'_>> {
        let train = self.trains.get(self.next)?;
        self.next += 1;
        let contents = self.bytes.get(train.start..train.end)?;
        Some(Transmit { path: train.path, segment_size: train.segment, contents })
    }
}

impl Train {
    fn takes(&self, path: Path, start: usize, len: usize) -> bool {
        let size = self.end - self.start;
        !self.closed
            && self.path == path
            && self.end == start
            && len <= self.segment
            && size + len <= MAX_TRAIN
            && size / self.segment < MAX_SEGMENTS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(connection: u64) -> Path {
        Path::Tcp { connection, remote: ([192, 0, 2, 1], 9).into() }
    }

    fn trains(out: &mut Outgoing) -> Vec<(u64, usize, usize)> {
        let mut found = Vec::new();
        while !out.is_empty() {
            let train = out.take().unwrap();
            let Path::Tcp { connection: path, .. } = train.path else { panic!("one kind of path") };
            found.push((path, train.segment_size, train.contents.len()));
        }
        found
    }

    #[test]
    fn equal_sizes_join_and_a_shorter_one_ends_the_train() {
        let mut out = Outgoing::default();
        for len in [100, 100, 60, 60, 100, 101] {
            out.push(path(1), &vec![0; len]);
        }
        let expected = [(1, 100, 260), (1, 60, 60), (1, 100, 100), (1, 101, 101)];
        assert_eq!(trains(&mut out), expected);
    }

    #[test]
    fn paths_and_limits_cut_trains() {
        let mut out = Outgoing::default();
        out.push(path(1), &[0; 10]);
        out.push(path(2), &[0; 10]);
        for _ in 0..65 {
            out.push(path(3), &[0; 1_200]);
        }
        let expected = [(1, 10, 10), (2, 10, 10), (3, 1_200, 60_000), (3, 1_200, 18_000)];
        assert_eq!(trains(&mut out), expected);
    }

    #[test]
    fn an_abandoned_datagram_leaves_no_trace() {
        let mut out = Outgoing::default();
        let (buffer, start) = out.buffer();
        buffer.extend_from_slice(&[1, 2, 3]);
        out.abandon(start);
        assert!(out.is_empty());
        out.push(path(1), &[0; 10]);
        assert_eq!(trains(&mut out), [(1, 10, 10)]);
    }

    #[test]
    fn a_taken_train_is_not_extended() {
        let mut out = Outgoing::default();
        out.push(path(1), &[0; 10]);
        assert_eq!(out.take().unwrap().contents.len(), 10);
        out.push(path(1), &[0; 10]);
        assert_eq!(trains(&mut out), [(1, 10, 10)]);
    }
}
