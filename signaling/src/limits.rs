//! What one client may ask for. Above these it is refused, slowed or cut; below them it is served.

use std::time::{Duration, Instant};

/// Request line of the room door: a gzipped join with an offer is about 3 KiB.
pub const REQUEST_LINE: usize = 32 * 1024;
/// A join request after inflation.
pub const JOIN_REQUEST: usize = 1024 * 1024;
/// One WebSocket message.
pub const MESSAGE: usize = 1024 * 1024;
/// One SDP text. An offer of 31 sections is 86 kB.
pub const SDP: usize = 512 * 1024;
/// One offer over HTTP: a browser's of two sections is 8 kB.
pub const OFFER: usize = 128 * 1024;
/// One fragment of candidates over HTTP.
pub const FRAGMENT: usize = 16 * 1024;
/// Announced tracks that wait for their answer.
pub const PENDING_TRACKS: usize = 20;
/// Identity and display name, bytes.
pub const NAME: usize = 256;
/// Participant metadata, bytes.
pub const METADATA: usize = 512 * 1024;
/// Participant attributes, bytes of keys and values together.
pub const ATTRIBUTES: usize = 64 * 1024;
/// Body of an administrator's call: metadata at its longest, and the letters that JSON doubles.
pub const ADMIN_BODY: usize = 2 * 1024 * 1024;
/// Data that an administrator sends: with its envelope it fits a message of a data channel.
pub const DATA: usize = 60_000;
/// Track ids in one request.
pub const TRACK_IDS: usize = 1_000;
/// Layers or codecs of one announced track.
pub const RUNGS: usize = 16;
/// What a data track says of its frames, bytes.
pub const DATA_FORMAT: usize = 4 * 1024;
/// Messages that are no protobuf before the session ends.
pub const MALFORMED: u32 = 50;
/// Events that wait for one session.
pub const SESSION_EVENTS: usize = 256;
/// Messages that wait for one client to read …
pub const QUEUED_MESSAGES: usize = 256;
/// … and their bytes.
pub const QUEUED_BYTES: usize = 1024 * 1024;
/// Participants in one `update`.
pub const UPDATE_CHUNK: usize = 100;

/// Sustained messages per second of one client …
const RATE: u32 = 50;
/// … and how many may come at once. (Firefox repeats a dozen candidates after every offer.)
const BURST: u32 = 200;

/// A token bucket. An empty one does not refuse: it says when to read on, so that a flood waits in
/// the sender's own buffers.
#[derive(Debug)]
pub struct Pace {
    /// When the bucket will be full again.
    full_at: Instant,
}

impl Pace {
    /// A full bucket.
    pub const fn new(now: Instant) -> Self {
        Self { full_at: now }
    }

    /// Takes one token.
    pub fn take(&mut self, now: Instant) {
        let each = Duration::from_secs(1) / RATE;
        self.full_at = self.full_at.max(now) + each;
    }

    /// `None`: there is a token. Else: when there will be one.
    pub fn wait_until(&self, now: Instant) -> Option<Instant> {
        let each = Duration::from_secs(1) / RATE;
        let empty = each * (BURST - 1);
        let until = self.full_at.checked_sub(empty)?;
        (until > now).then_some(until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_the_rate_holds() {
        let start = Instant::now() + Duration::from_secs(100);
        let mut pace = Pace::new(start);
        let mut now = start;
        let mut passed = 0_u32;
        while now < start + Duration::from_secs(2) {
            while pace.wait_until(now).is_none() {
                pace.take(now);
                passed += 1;
                assert!(passed < 10_000);
            }
            now += Duration::from_millis(1);
        }
        assert!((BURST + 2 * RATE - 2..=BURST + 2 * RATE + 2).contains(&passed), "{passed}");
    }

    #[test]
    fn a_rest_fills_the_bucket_again() {
        let now = Instant::now() + Duration::from_secs(100);
        let mut pace = Pace::new(now);
        for _ in 0..BURST {
            assert_eq!(pace.wait_until(now), None);
            pace.take(now);
        }
        let until = pace.wait_until(now).unwrap();
        assert!(until > now && until <= now + Duration::from_millis(21));
        assert_eq!(pace.wait_until(until), None);
    }
}
