//! Data messages between participants: who may send, who gets what, and what is kept for those whose
//! channel is not open yet.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::api::{DataChannelKind, DataSender, ParticipantSid, Private, Relayed};
use super::context::Context;
use super::participant::Participant;
use super::room::Room;

/// Reliable messages are kept so long …
const KEEP: Duration = Duration::from_secs(2);
/// … and no more than so many bytes of them in a room.
const KEEP_BYTES: usize = 100_000;
/// What a kept message takes beside its payload.
const KEEP_EACH: usize = 200;
/// The participant kind of agents, which may speak for others.
const AGENT: i32 = 4;

/// The reliable messages of a room that are still kept, oldest first.
#[derive(Debug, Default)]
pub(super) struct Mailbox {
    letters: VecDeque<Letter>,
    bytes: usize,
    next: u64,
}

#[derive(Debug)]
struct Letter {
    number: u64,
    at: Instant,
    /// `None`: the server itself.
    from: Option<ParticipantSid>,
    message: Arc<Relayed>,
}

impl Mailbox {
    /// The number of the next message.
    pub(super) const fn next(&self) -> u64 {
        self.next
    }

    fn put(&mut self, now: Instant, from: Option<ParticipantSid>, message: Arc<Relayed>) {
        self.bytes += message.payload.len() + KEEP_EACH;
        self.letters.push_back(Letter { number: self.next, at: now, from, message });
        self.next += 1;
        while let Some(oldest) = self.letters.front() {
            let old = now.saturating_duration_since(oldest.at) > KEEP;
            if !old && self.bytes <= KEEP_BYTES {
                break;
            }
            self.bytes -= oldest.message.payload.len() + KEEP_EACH;
            self.letters.pop_front();
        }
    }

    fn fresh(&self, now: Instant) -> impl Iterator<Item = &Letter> {
        self.letters.iter().filter(move |letter| now.saturating_duration_since(letter.at) <= KEEP)
    }
}

impl Room {
    /// A message came on one of a participant's channels.
    pub(super) fn data(
        &mut self,
        ctx: &mut Context<'_>,
        key: usize,
        kind: DataChannelKind,
        payload: &[u8],
    ) {
        ctx.counters.data_in += 1;
        let Some(sender) = self.participants.get_mut(key) else { return };
        let shown = !sender.grant.hidden;
        let who = DataSender {
            sid: if shown { &sender.sid.0 } else { "" },
            identity: if shown { sender.profile.identity.reveal() } else { "" },
            agent: sender.profile.kind == AGENT,
        };
        let relayed =
            if sender.grant.publish_data { (ctx.config.relay)(&who, kind, payload) } else { None };
        let Some(relayed) = relayed else {
            ctx.counters.data_dropped += 1;
            return;
        };
        if kind == DataChannelKind::Reliable && relayed.sequence > 0 {
            if relayed.sequence <= sender.data.last_sequence {
                ctx.counters.data_dropped += 1;
                return;
            }
            sender.data.last_sequence = relayed.sequence;
        }
        let from = sender.sid.clone();
        self.deliver(ctx, Some((key, from)), kind, relayed);
    }

    /// The server itself sends a message.
    pub(super) fn send_server_data(
        &mut self,
        ctx: &mut Context<'_>,
        kind: DataChannelKind,
        payload: Bytes,
        to: Vec<Private<String>>,
        to_sids: &[ParticipantSid],
    ) {
        let to_identities = to.into_iter().map(|identity| identity.0).collect();
        let to_sids = to_sids.iter().map(|sid| sid.0.to_string()).collect();
        let relayed = Relayed { payload, to_identities, to_sids, sequence: 0 };
        self.deliver(ctx, None, kind, relayed);
    }

    fn deliver(
        &mut self,
        ctx: &mut Context<'_>,
        from: Option<(usize, ParticipantSid)>,
        kind: DataChannelKind,
        relayed: Relayed,
    ) {
        let (sender, from) = from.map_or((None, None), |(key, sid)| (Some(key), Some(sid)));
        let everyone: Vec<usize> = self
            .participants
            .iter()
            .filter(|(key, other)| Some(*key) != sender && is_addressed(&relayed, other))
            .map(|(key, _)| key)
            .collect();
        let message = Arc::new(relayed);
        for key in everyone {
            let open = self.participants.get(key).is_some_and(|other| other.data.open);
            // Who has no channel yet gets it from the mailbox.
            if open || kind == DataChannelKind::Lossy {
                self.send_data(ctx, key, kind, &message.payload);
            }
        }
        if kind == DataChannelKind::Reliable {
            self.mailbox.put(ctx.now, from, message);
        }
    }

    fn send_data(
        &mut self,
        ctx: &mut Context<'_>,
        key: usize,
        kind: DataChannelKind,
        payload: &Bytes,
    ) {
        let link = self.participants.get_mut(key).and_then(|other| other.links.down.as_mut());
        let Some(link) = link else { return };
        match link.peer.send_data(ctx.now, kind, payload) {
            Ok(()) => ctx.counters.data_out += 1,
            Err(_) => ctx.counters.data_dropped += 1,
        }
        link.flush(ctx.departures, ctx.counters);
        if let Some(at) = link.peer.poll_timeout() {
            self.wake(at);
        }
    }

    /// A participant's channel is open: it gets what was sent since it joined.
    pub(super) fn channel_open(
        &mut self,
        ctx: &mut Context<'_>,
        key: usize,
        kind: DataChannelKind,
    ) {
        let Some(participant) = self.participants.get_mut(key) else { return };
        if kind != DataChannelKind::Reliable || participant.data.open {
            return;
        }
        participant.data.open = true;
        self.send_kept(ctx, key, |_| true);
    }

    /// Sends a resuming client what it has missed of each sender.
    pub(super) fn replay(
        &mut self,
        ctx: &mut Context<'_>,
        key: usize,
        received: &[(ParticipantSid, u32)],
    ) {
        self.send_kept(ctx, key, |letter| {
            let known = received.iter().find(|(sid, _)| Some(sid) == letter.from.as_ref());
            known.is_some_and(|(_, last)| letter.message.sequence > *last)
        });
    }

    fn send_kept(&mut self, ctx: &mut Context<'_>, key: usize, wanted: impl Fn(&Letter) -> bool) {
        let Some(participant) = self.participants.get(key) else { return };
        let letters = self.mailbox.fresh(ctx.now).filter(|letter| {
            letter.number >= participant.data.waiting_from
                && letter.from.as_ref() != Some(&participant.sid)
                && is_addressed(&letter.message, participant)
                && wanted(letter)
        });
        let payloads: Vec<Bytes> = letters.map(|letter| letter.message.payload.clone()).collect();
        for payload in payloads {
            self.send_data(ctx, key, DataChannelKind::Reliable, &payload);
        }
    }
}

fn is_addressed(message: &Relayed, to: &Participant) -> bool {
    let everyone = message.to_identities.is_empty() && message.to_sids.is_empty();
    everyone
        || message.to_identities.iter().any(|identity| identity == to.profile.identity.reveal())
        || message.to_sids.iter().any(|sid| **sid == *to.sid.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(len: usize) -> Arc<Relayed> {
        let payload = Bytes::from(vec![0; len]);
        Arc::new(Relayed { payload, to_identities: vec![], to_sids: vec![], sequence: 1 })
    }

    #[test]
    fn messages_are_kept_by_age_and_size() {
        let mut mailbox = Mailbox::default();
        let start = Instant::now();
        for at in 0..10 {
            mailbox.put(start, None, message(30_000));
            assert!(mailbox.bytes <= KEEP_BYTES, "after {at}");
        }
        assert_eq!(mailbox.fresh(start).count(), 3);
        assert_eq!(mailbox.next(), 10);
        assert_eq!(mailbox.fresh(start + KEEP * 2).count(), 0);
        mailbox.put(start + KEEP * 2, None, message(1));
        assert_eq!(mailbox.letters.len(), 1);
        assert_eq!(mailbox.bytes, 1 + KEEP_EACH);
    }

    #[test]
    fn empty_messages_take_room_too() {
        let mut mailbox = Mailbox::default();
        let start = Instant::now();
        (0..10_000).for_each(|_| mailbox.put(start, None, message(0)));
        assert_eq!(mailbox.letters.len(), KEEP_BYTES / KEEP_EACH);
    }
}
