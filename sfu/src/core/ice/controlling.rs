//! The checks of the headless client: aggressive nomination of the server's candidates.
//!
//! Against a lite agent nothing more is needed. All candidates are checked until one answers; that
//! one is checked every 2.5 s (RFC 7675 asks for less than 5 s). When it falls silent, all are
//! checked again.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;

use super::super::api::Path;
use super::Credentials;
use super::stun::{self, Message, Transaction};

/// Between two checks of the path in use.
const KEEPALIVE: Duration = Duration::from_millis(2500);
/// Without an answer this long, all candidates are checked again.
const SILENCE: Duration = Duration::from_secs(6);
/// Between the first and the second check of a candidate; doubled up to the second value.
const FIRST_INTERVAL: Duration = Duration::from_millis(50);
const LAST_INTERVAL: Duration = Duration::from_secs(1);
/// Checks that an answer may still come to.
const MAX_OUTSTANDING: usize = 64;

/// The checking half of a controlling agent.
#[derive(Debug)]
pub(super) struct Checker {
    /// `remote:local`.
    username: String,
    local_ufrag: String,
    key: hmac::Key,
    tie_breaker: u64,
    candidates: Vec<Candidate>,
    /// The candidate that answered; `None` while all are being checked.
    settled: Option<Settled>,
    outstanding: VecDeque<(Transaction, Path)>,
    sent: u64,
}

#[derive(Debug)]
struct Candidate {
    path: Path,
    next_at: Instant,
    interval: Duration,
}

#[derive(Debug)]
struct Settled {
    path: Path,
    next_at: Instant,
    answered_at: Instant,
}

impl Checker {
    pub(super) fn new(
        now: Instant,
        local: &Credentials,
        remote: &Credentials,
        candidates: Vec<Path>,
    ) -> Self {
        let mut checker = Self {
            username: String::new(),
            local_ufrag: String::new(),
            key: stun::key(&remote.pwd),
            tie_breaker: 0,
            candidates: Vec::new(),
            settled: None,
            outstanding: VecDeque::new(),
            sent: 0,
        };
        checker.restart(now, local, remote, candidates);
        checker
    }

    /// Starts over with these credentials and candidates.
    pub(super) fn restart(
        &mut self,
        now: Instant,
        local: &Credentials,
        remote: &Credentials,
        candidates: Vec<Path>,
    ) {
        self.username = format!("{}:{}", remote.ufrag, local.ufrag);
        self.local_ufrag.clone_from(&local.ufrag);
        self.key = stun::key(&remote.pwd);
        self.tie_breaker = self.derive(u64::MAX).0;
        self.settled = None;
        // Answers to the old credentials would not verify any more.
        self.outstanding.clear();
        let fresh = |path| Candidate { path, next_at: now, interval: FIRST_INTERVAL };
        self.candidates = candidates.into_iter().map(fresh).collect();
    }

    /// Whether the checks of now are made for these local credentials.
    pub(super) fn is_for(&self, local_ufrag: &str) -> bool {
        self.local_ufrag == local_ufrag
    }

    /// Whether this answers, on the same path, a check that we sent.
    pub(super) fn take_answer(&mut self, now: Instant, path: Path, message: &Message<'_>) -> bool {
        let Some(number) =
            self.outstanding.iter().position(|sent| *sent == (message.transaction, path))
        else {
            return false;
        };
        if !message.verify(&self.key) {
            return false;
        }
        self.outstanding.remove(number);
        if let Some(settled) = &mut self.settled
            && settled.path == path
        {
            settled.answered_at = now;
        }
        true
    }

    /// A check succeeded: stay with this path. `false` when another one was first.
    pub(super) fn settle(&mut self, now: Instant, path: Path) -> bool {
        if let Some(settled) = &self.settled {
            return settled.path == path;
        }
        // One more check at once, so that this nomination is the newest when several crossed.
        let next_at = if self.candidates.len() > 1 { now } else { now + KEEPALIVE };
        self.settled = Some(Settled { path, next_at, answered_at: now });
        true
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        match &self.settled {
            Some(settled) => Some(settled.next_at.min(settled.answered_at + SILENCE)),
            None => self.candidates.iter().map(|candidate| candidate.next_at).min(),
        }
    }

    pub(super) fn handle_timeout(
        &mut self,
        now: Instant,
        transmits: &mut VecDeque<(Path, Vec<u8>)>,
    ) {
        if self.settled.as_ref().is_some_and(|settled| settled.answered_at + SILENCE <= now) {
            self.settled = None;
            for candidate in &mut self.candidates {
                candidate.next_at = now;
                candidate.interval = FIRST_INTERVAL;
            }
        }
        let mut due = Vec::new();
        match &mut self.settled {
            Some(settled) if settled.next_at <= now => {
                settled.next_at = now + KEEPALIVE;
                due.push(settled.path);
            }
            Some(_) => {}
            None => {
                for candidate in self.candidates.iter_mut().filter(|c| c.next_at <= now) {
                    candidate.next_at = now + candidate.interval;
                    candidate.interval = (candidate.interval * 2).min(LAST_INTERVAL);
                    due.push(candidate.path);
                }
            }
        }
        for path in due {
            transmits.push_back((path, self.check(path)));
        }
    }

    fn check(&mut self, path: Path) -> Vec<u8> {
        self.sent += 1;
        let transaction = self.derive(self.sent).1;
        if self.outstanding.len() == MAX_OUTSTANDING {
            self.outstanding.pop_front();
        }
        self.outstanding.push_back((transaction, path));
        stun::check(&transaction, &self.username, self.tie_breaker, &self.key)
    }

    /// Numbers that nobody without the password can foresee, without randomness of our own.
    fn derive(&self, number: u64) -> (u64, Transaction) {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(self.username.as_bytes());
        context.update(&number.to_be_bytes());
        let tag = context.sign();
        let (head, tail) = tag.as_ref().split_first_chunk::<8>().unwrap_or((&[0; 8], &[]));
        (u64::from_be_bytes(*head), tail.first_chunk().copied().unwrap_or_default())
    }
}
