//! A look at DTLS datagrams before the library sees them (RFC 6347 §4.1, §4.2).
//!
//! Until the keys are there nothing is authenticated, and the library answers some malformed
//! records with a fatal alert, keeps others without a limit, and loses its retransmit timer to
//! repeated ones. This is the sieve in front of it.

use std::collections::BTreeSet;

/// Fragments remembered; a whole handshake has about fifteen.
const MAX_SEEN: usize = 256;
/// Encrypted records let through before the keys: the other side's Finished and early data.
const MAX_EARLY: u32 = 64;
/// Bytes and datagrams of a ClientHello that are put together.
const MAX_HELLO: usize = 8192;
const MAX_HELLO_DATAGRAMS: usize = 16;
const MAX_HELLO_DATAGRAM: usize = 4096;

const CHANGE_CIPHER_SPEC: u8 = 20;
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;

/// One record of a datagram.
struct Record<'d> {
    kind: u8,
    epoch: u16,
    body: &'d [u8],
}

/// The records of a datagram; `None` at the first that is malformed.
fn records(datagram: &[u8]) -> impl Iterator<Item = Option<Record<'_>>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let record = next_record(&mut rest);
        if record.is_none() {
            rest = &[];
        }
        Some(record)
    })
}

fn next_record<'d>(rest: &mut &'d [u8]) -> Option<Record<'d>> {
    let (header, tail) = rest.split_first_chunk::<13>()?;
    let &[kind, major, _, e0, e1, _, _, _, _, _, _, l0, l1] = header;
    let (body, tail) = tail.split_at_checked(usize::from(u16::from_be_bytes([l0, l1])))?;
    *rest = tail;
    // The library refuses empty records.
    (major == 254 && !body.is_empty()).then_some(Record {
        kind,
        epoch: u16::from_be_bytes([e0, e1]),
        body,
    })
}

/// A fragment of a handshake message.
struct Fragment<'d> {
    kind: u8,
    sequence: u16,
    /// Of the whole message.
    length: usize,
    offset: usize,
    bytes: &'d [u8],
}

impl<'d> Fragment<'d> {
    fn parse(body: &'d [u8]) -> Option<Self> {
        let (&[kind, n0, n1, n2, s0, s1, o0, o1, o2, f0, f1, f2], tail) =
            body.split_first_chunk()?;
        let number = |a, b, c| u32::from_be_bytes([0, a, b, c]) as usize;
        let fragment = Self {
            kind,
            sequence: u16::from_be_bytes([s0, s1]),
            length: number(n0, n1, n2),
            offset: number(o0, o1, o2),
            bytes: tail.get(..number(f0, f1, f2))?,
        };
        (fragment.offset + fragment.bytes.len() <= fragment.length).then_some(fragment)
    }
}

/// What to do with a datagram that comes before the keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sifted {
    /// The library has not seen all of it.
    Fresh,
    /// It only repeats what the library has, or comes before what the library must have first.
    Repeat,
    /// No sound DTLS, or more than a handshake can need.
    Bad,
}

/// Remembers the handshake fragments that the library was given.
#[derive(Debug, Default)]
pub(super) struct Sieve {
    seen: BTreeSet<(u8, u16, u32)>,
    early: u32,
    /// A client that does not have the whole of the server's first message; so much it has.
    awaits_hello: Option<usize>,
}

impl Sieve {
    /// For the side that says hello. rtc-dtls 0.21.1 ends the handshake when anything comes before
    /// the answer to it, which is so where that was lost and a server sends each message in a
    /// datagram of its own, as GnuTLS does. The server repeats all of them.
    pub(super) fn of_client() -> Self {
        Self { awaits_hello: Some(0), ..Self::default() }
    }

    /// rtc-dtls 0.21.1 stops its retransmit timer on any handshake record and does not start it
    /// again while the flight is incomplete, so one repeated flight of the other side (ours was
    /// lost) would end the handshake for good. Repeats are kept from it; its own timer then sends
    /// our flight again.
    pub(super) fn sift(&mut self, datagram: &[u8]) -> Sifted {
        let mut fragments = Vec::new();
        let mut fresh = false;
        for record in records(datagram) {
            let Some(record) = record else { return Sifted::Bad };
            match (record.epoch, record.kind) {
                (0, HANDSHAKE) => match Fragment::parse(record.body) {
                    Some(fragment) => fragments.push(fragment),
                    None => return Sifted::Bad,
                },
                (0, CHANGE_CIPHER_SPEC) if record.body == [1] => fresh = true,
                (0, ALERT) if record.body.len() == 2 => fresh = true,
                // The library queues these until it can decrypt them.
                (1, _) if self.early < MAX_EARLY => {
                    self.early += 1;
                    fresh = true;
                }
                (_, _) => return Sifted::Bad,
            }
        }
        let is_first = |fragment: &Fragment<'_>| fragment.sequence == 0;
        if self.awaits_hello.is_some() && !fragments.iter().any(is_first) && !fragments.is_empty() {
            return Sifted::Repeat;
        }
        for fragment in fragments {
            let is_new = self.is_fresh(&fragment);
            if let Some(has) = self.awaits_hello.filter(|_| is_new && is_first(&fragment)) {
                let has = has + fragment.bytes.len();
                self.awaits_hello = Some(has).filter(|has| *has < fragment.length);
            }
            fresh |= is_new;
        }
        if fresh { Sifted::Fresh } else { Sifted::Repeat }
    }

    fn is_fresh(&mut self, fragment: &Fragment<'_>) -> bool {
        let Ok(offset) = u32::try_from(fragment.offset) else { return false };
        if self.seen.len() >= MAX_SEEN {
            // Somebody makes fragments up. Better no sieve than a closed one.
            return true;
        }
        if self.seen.insert((fragment.kind, fragment.sequence, offset)) {
            return true;
        }
        // Only a repeated first ClientHello makes a server repeat its HelloVerifyRequest: that
        // flight has no timer. With the second ClientHello this is over.
        let first_hello = fragment.kind == CLIENT_HELLO && fragment.sequence == 0;
        first_hello && !self.seen.iter().any(|seen| seen.0 == CLIENT_HELLO && seen.1 > 0)
    }
}

/// Puts the first ClientHello together, to see what it offers before the library chooses.
#[derive(Debug, Default)]
pub(super) struct FirstHello {
    body: Vec<u8>,
    /// Which bytes are there: start and end, in order of arrival.
    parts: Vec<(usize, usize)>,
    /// The datagrams that brought them, for the library.
    pub(super) datagrams: Vec<Vec<u8>>,
}

impl FirstHello {
    /// Adds a datagram. `Some`: the hello is complete, and these are the SRTP profiles it offers,
    /// by number. Datagrams without a part of it are ignored.
    pub(super) fn add(&mut self, datagram: &[u8]) -> Option<Vec<u16>> {
        if datagram.len() > MAX_HELLO_DATAGRAM {
            return None;
        }
        if self.datagrams.len() >= MAX_HELLO_DATAGRAMS {
            // Somebody makes pieces up. The client will repeat its own.
            *self = Self::default();
        }
        let mut useful = false;
        for record in records(datagram) {
            let record = record.filter(|record| record.epoch == 0 && record.kind == HANDSHAKE)?;
            let fragment = Fragment::parse(record.body)?;
            if fragment.kind == CLIENT_HELLO && fragment.sequence == 0 {
                useful |= self.add_fragment(&fragment);
            }
        }
        if useful {
            self.datagrams.push(datagram.to_vec());
        }
        self.is_complete().then(|| srtp_profiles(&self.body).unwrap_or_default())
    }

    /// `false`: it brought nothing new.
    fn add_fragment(&mut self, fragment: &Fragment<'_>) -> bool {
        if fragment.length > MAX_HELLO {
            return false;
        }
        if self.body.len() != fragment.length {
            *self = Self { body: vec![0; fragment.length], ..Self::default() };
        }
        let part = (fragment.offset, fragment.offset + fragment.bytes.len());
        let Some(place) = self.body.get_mut(part.0..part.1) else { return false };
        if self.parts.contains(&part) {
            return false;
        }
        place.copy_from_slice(fragment.bytes);
        self.parts.push(part);
        true
    }

    fn is_complete(&self) -> bool {
        let mut reached = 0;
        while let Some(&(_, end)) =
            self.parts.iter().find(|(start, end)| *start <= reached && *end > reached)
        {
            reached = end;
        }
        !self.body.is_empty() && reached == self.body.len()
    }
}

/// The profiles of `use_srtp` (RFC 5764 §4.1.1) in the body of a ClientHello.
fn srtp_profiles(hello: &[u8]) -> Option<Vec<u16>> {
    const USE_SRTP: [u8; 2] = [0, 14];
    let rest = hello.get(34..)?;
    let rest = skip(rest, 1)?; // session id
    let rest = skip(rest, 1)?; // cookie
    let rest = skip(rest, 2)?; // cipher suites
    let rest = skip(rest, 1)?; // compression methods
    let (length, rest) = rest.split_first_chunk::<2>()?;
    let mut rest = rest.get(..usize::from(u16::from_be_bytes(*length)))?;
    while let Some((&[k0, k1, l0, l1], tail)) = rest.split_first_chunk() {
        let (value, tail) = tail.split_at_checked(usize::from(u16::from_be_bytes([l0, l1])))?;
        if [k0, k1] == USE_SRTP {
            let (length, list) = value.split_first_chunk::<2>()?;
            let list = list.get(..usize::from(u16::from_be_bytes(*length)))?;
            let (pairs, _) = list.as_chunks::<2>();
            return Some(pairs.iter().map(|pair| u16::from_be_bytes(*pair)).collect());
        }
        rest = tail;
    }
    None
}

/// Skips a vector whose length takes one or two bytes.
fn skip(bytes: &[u8], prefix: usize) -> Option<&[u8]> {
    let (length, rest) = bytes.split_at_checked(prefix)?;
    let length = length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
    rest.get(length..)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: u8, epoch: u8, body: &[u8]) -> Vec<u8> {
        let mut out = vec![kind, 254, 253, 0, epoch, 0, 0, 0, 0, 0, 0];
        out.extend((body.len() as u16).to_be_bytes());
        out.extend(body);
        out
    }

    fn fragment(kind: u8, sequence: u8, message: &[u8], from: usize, to: usize) -> Vec<u8> {
        let number = |n: usize| [0, (n >> 8) as u8, n as u8];
        let mut body = vec![kind];
        body.extend(number(message.len()));
        body.extend([0, sequence]);
        body.extend(number(from));
        body.extend(number(to - from));
        body.extend(&message[from..to]);
        record(HANDSHAKE, 0, &body)
    }

    fn hello(profiles: &[u8]) -> Vec<u8> {
        let mut out = vec![254, 253];
        out.extend([7; 32]);
        out.extend([0, 0, 0, 2, 0xC0, 0x2B, 1, 0]);
        let value = [&[0, profiles.len() as u8], profiles, &[0]].concat();
        let srtp = [&[0, 14, 0, value.len() as u8], &value[..]].concat();
        let other = [0, 23, 0, 0];
        out.extend(((other.len() + srtp.len()) as u16).to_be_bytes());
        out.extend(other);
        out.extend(srtp);
        out
    }

    #[test]
    fn only_what_is_new_is_fresh() {
        let mut sieve = Sieve::default();
        let message = [9; 40];
        let halves = [fragment(11, 1, &message, 0, 20), fragment(11, 1, &message, 20, 40)];
        assert_eq!(sieve.sift(&halves[0]), Sifted::Fresh);
        assert_eq!(sieve.sift(&halves[0]), Sifted::Repeat);
        assert_eq!(sieve.sift(&halves.concat()), Sifted::Fresh);
        assert_eq!(sieve.sift(&halves.concat()), Sifted::Repeat);
        // A repeat with a ChangeCipherSpec or an encrypted record is let through.
        let with_change = [&halves[0][..], &record(CHANGE_CIPHER_SPEC, 0, &[1])].concat();
        assert_eq!(sieve.sift(&with_change), Sifted::Fresh);
        assert_eq!(sieve.sift(&record(HANDSHAKE, 1, &[0; 40])), Sifted::Fresh);
    }

    #[test]
    fn a_client_has_the_hello_before_what_follows_it() {
        const SERVER_HELLO: u8 = 2;
        let (hello, message) = ([7; 60], [9; 40]);
        let certificate = fragment(11, 1, &message, 0, 40);
        let half = |from, to| fragment(SERVER_HELLO, 0, &hello, from, to);
        let mut sieve = Sieve::of_client();
        assert_eq!(sieve.sift(&certificate), Sifted::Repeat);
        assert_eq!(sieve.sift(&half(0, 30)), Sifted::Fresh);
        assert_eq!(sieve.sift(&half(0, 30)), Sifted::Repeat);
        assert_eq!(sieve.sift(&certificate), Sifted::Repeat);
        assert_eq!(sieve.sift(&half(30, 60)), Sifted::Fresh);
        assert_eq!(sieve.sift(&certificate), Sifted::Fresh);
        // All in one datagram, and an alert instead.
        let mut sieve = Sieve::of_client();
        assert_eq!(sieve.sift(&record(ALERT, 0, &[2, 40])), Sifted::Fresh);
        assert_eq!(sieve.sift(&[half(0, 60), certificate.clone()].concat()), Sifted::Fresh);
        assert_eq!(sieve.sift(&certificate), Sifted::Repeat);
    }

    #[test]
    fn the_first_hello_may_repeat_until_the_second() {
        let mut sieve = Sieve::default();
        let message = hello(&[0, 7]);
        let whole = |sequence| fragment(CLIENT_HELLO, sequence, &message, 0, message.len());
        assert_eq!(sieve.sift(&whole(0)), Sifted::Fresh);
        assert_eq!(sieve.sift(&whole(0)), Sifted::Fresh);
        assert_eq!(sieve.sift(&whole(1)), Sifted::Fresh);
        assert_eq!(sieve.sift(&whole(0)), Sifted::Repeat);
        assert_eq!(sieve.sift(&whole(1)), Sifted::Repeat);
    }

    #[test]
    fn what_a_handshake_does_not_need_is_bad() {
        let mut sieve = Sieve::default();
        let bad = [
            record(23, 0, b"application data in clear"),
            record(CHANGE_CIPHER_SPEC, 0, &[2]),
            record(ALERT, 0, &[2]),
            record(HANDSHAKE, 2, &[0; 40]),
            record(HANDSHAKE, 0, &[1, 0, 0, 9]),
            record(HANDSHAKE, 0, &[]),
            vec![HANDSHAKE, 254, 253],
            vec![HANDSHAKE, 3, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1],
        ];
        for datagram in bad {
            assert_eq!(sieve.sift(&datagram), Sifted::Bad, "{datagram:?}");
        }
        let early = record(23, 1, b"encrypted");
        let taken = (0..1000).filter(|_| sieve.sift(&early) == Sifted::Fresh).count();
        assert_eq!(taken, MAX_EARLY as usize);
    }

    #[test]
    fn a_hello_is_put_together_from_pieces_in_any_order() {
        let message = hello(&[0, 8, 0, 1]);
        let end = message.len();
        let piece = |from, to| fragment(CLIENT_HELLO, 0, &message, from, to);
        let mut first = FirstHello::default();
        assert_eq!(first.add(&piece(40, end)), None);
        assert_eq!(first.add(&piece(0, 20)), None);
        assert_eq!(first.add(&piece(0, 20)), None);
        assert_eq!(first.add(&piece(15, 45)), Some(vec![8, 1]));
        assert_eq!(first.datagrams.len(), 3);
    }

    #[test]
    fn made_up_pieces_do_not_keep_the_hello_out() {
        let message = hello(&[0, 7]);
        let (middle, end) = (30, message.len());
        let mut first = FirstHello::default();
        for length in 100..200 {
            let noise = vec![1; length];
            assert_eq!(first.add(&fragment(CLIENT_HELLO, 0, &noise, 3, 9)), None);
            assert!(first.datagrams.len() <= MAX_HELLO_DATAGRAMS);
        }
        assert_eq!(first.add(&fragment(CLIENT_HELLO, 0, &message, 0, middle)), None);
        let offered = first.add(&fragment(CLIENT_HELLO, 0, &message, middle, end));
        assert_eq!(offered, Some(vec![7]));
        assert_eq!(first.datagrams.len(), 2, "exactly its own pieces");
        for length in 0..end {
            let _ = srtp_profiles(&message[..length]);
        }
    }
}
