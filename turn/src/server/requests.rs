//! Requests and their answers (RFC 8656 §7–§9, §12; RFC 8489 §6.3, §9.2).

use std::net::SocketAddr;
use std::time::Duration;

use super::{Allocation, CHANNEL, Channel, Now, Relayed, Server, Tuple, UNDERSTOOD, request};
use crate::auth::{ALGORITHMS, Refusal, Signer};
use crate::message::{CHANNELS, Class, Message, Method, Writer, attribute};
use crate::quota::{Claim, Denied, Family, Ledger, PerFamily, Wish};

/// How long an allocation lasts that says nothing, and at the least (RFC 8656 §3.2).
const LIFETIME: u32 = 600;
/// And at the most.
const MAX_LIFETIME: u32 = 3_600;
/// REQUESTED-TRANSPORT: UDP.
const UDP: u8 = 17;
/// Whoever has proved nothing gets no more than 5/2 of what it has sent.
const REFLECTION: (usize, usize) = (5, 2);

/// Bytes of that attribute.
const FINGERPRINT: usize = 8;

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    BadRequest,
    Unauthorized,
    Forbidden,
    UnknownAttribute,
    Mismatch,
    StaleNonce,
    FamilyNotSupported,
    WrongCredentials,
    TransportNotSupported,
    PeerFamilyMismatch,
    Quota,
    Capacity,
}

impl Fault {
    const fn code(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::Unauthorized => 401,
            Self::Forbidden => 403,
            Self::UnknownAttribute => 420,
            Self::Mismatch => 437,
            Self::StaleNonce => 438,
            Self::FamilyNotSupported => 440,
            Self::WrongCredentials => 441,
            Self::TransportNotSupported => 442,
            Self::PeerFamilyMismatch => 443,
            Self::Quota => 486,
            Self::Capacity => 508,
        }
    }

    /// RFC 8489 §14.8, RFC 8656 §19.
    const fn reason(self) -> &'static str {
        match self {
            Self::BadRequest => "Bad Request",
            Self::Unauthorized => "Unauthenticated",
            Self::Forbidden => "Forbidden",
            Self::UnknownAttribute => "Unknown Attribute",
            Self::Mismatch => "Allocation Mismatch",
            Self::StaleNonce => "Stale Nonce",
            Self::FamilyNotSupported => "Address Family not Supported",
            Self::WrongCredentials => "Wrong Credentials",
            Self::TransportNotSupported => "Unsupported Transport Protocol",
            Self::PeerFamilyMismatch => "Peer Address Family Mismatch",
            Self::Quota => "Allocation Quota Reached",
            Self::Capacity => "Insufficient Capacity",
        }
    }
}

impl From<Denied> for Fault {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::Quota => Self::Quota,
            Denied::Capacity => Self::Capacity,
        }
    }
}

/// A request whose signer is known.
struct Call<'m> {
    now: Now,
    tuple: Tuple,
    message: Message<'m>,
    signer: Signer<'m>,
}

impl Call<'_> {
    /// A value of exactly this length, if the attribute is there.
    fn value<const N: usize>(&self, kind: u16) -> Result<Option<[u8; N]>, Fault> {
        let value = self.message.attribute(kind);
        value.map(|value| value.try_into().map_err(|_| Fault::BadRequest)).transpose()
    }

    /// REQUESTED-ADDRESS-FAMILY or its like.
    fn family(&self, kind: u16) -> Result<Option<Option<Family>>, Fault> {
        let value: Option<[u8; 4]> = self.value(kind)?;
        Ok(value.map(|[number, ..]| Family::from_number(number)))
    }

    fn lifetime(&self) -> Result<Option<u32>, Fault> {
        Ok(self.value(attribute::LIFETIME)?.map(u32::from_be_bytes))
    }
}

/// What an Allocate asks for.
struct Wanted {
    families: PerFamily<bool>,
    wish: Wish,
    /// Asked for as the second one, and we have none.
    missing: Option<Family>,
}

impl Server {
    /// Answers a request into `out`; empty: no answer.
    pub fn answer(
        &mut self,
        now: Now,
        tuple: Tuple,
        data: &[u8],
        ledger: &mut Ledger,
        out: &mut Vec<u8>,
    ) {
        out.clear();
        let Some(message) = request(data) else {
            self.counters.malformed += 1;
            return;
        };
        if message.method == Method::Binding {
            self.answer_binding(now, tuple, &message, data.len(), out);
            return;
        }
        let signed = self.terms.checker.check(now.unix, tuple.client, &message);
        let signer = match signed {
            Ok(signer) if ledger.is_present(signer.participant) => signer,
            refused => {
                let fault = match refused {
                    Ok(_) | Err(Refusal::Unauthorized) => Fault::Unauthorized,
                    Err(Refusal::BadRequest) => Fault::BadRequest,
                    Err(Refusal::StaleNonce) => Fault::StaleNonce,
                };
                self.refuse_stranger(now, tuple, &message, data.len(), fault, out);
                return;
            }
        };
        let call = Call { now, tuple, message, signer };
        let done = self.carry_out(&call, ledger, out);
        if let Err(fault) = done {
            // A credential that was good and is no longer: a new nonce does not help, and yet
            // this is what the RFC has.
            if fault == Fault::Unauthorized {
                self.refuse_stranger(now, tuple, &call.message, data.len(), fault, out);
                return;
            }
            self.count(fault);
            let writer = error(&call.message, fault, std::mem::take(out), true);
            *out = finish(&call, writer);
        }
    }

    fn carry_out(
        &mut self,
        call: &Call<'_>,
        ledger: &mut Ledger,
        out: &mut Vec<u8>,
    ) -> Result<(), Fault> {
        if call.message.unknown(&UNDERSTOOD).next().is_some() {
            return Err(Fault::UnknownAttribute);
        }
        let begin = |out: &mut Vec<u8>| {
            let Message { method, transaction, .. } = call.message;
            Writer::reuse(std::mem::take(out), method, Class::Success, transaction)
        };
        let writer = match call.message.method {
            Method::Allocate => {
                let place = self.allocate(call, ledger)?;
                let Some(allocation) = self.allocations.get(place) else {
                    return Err(Fault::Capacity);
                };
                describe(begin(out), allocation)
            }
            Method::Refresh => {
                let lifetime = self.refresh(call, ledger)?;
                begin(out).attribute(attribute::LIFETIME, &lifetime.to_be_bytes())
            }
            Method::CreatePermission => {
                self.create_permission(call)?;
                begin(out)
            }
            Method::ChannelBind => {
                self.bind_channel(call)?;
                begin(out)
            }
            // `request` lets none of them in.
            Method::Binding | Method::Send | Method::Data => return Err(Fault::BadRequest),
        };
        *out = finish(call, writer);
        Ok(())
    }

    fn answer_binding(
        &mut self,
        now: Now,
        tuple: Tuple,
        message: &Message<'_>,
        asked: usize,
        out: &mut Vec<u8>,
    ) {
        if message.unknown(&UNDERSTOOD).next().is_some() {
            self.refuse_stranger(now, tuple, message, asked, Fault::UnknownAttribute, out);
            return;
        }
        let Message { method, transaction, .. } = *message;
        let memory = std::mem::take(out);
        let writer = Writer::reuse(memory, method, Class::Success, transaction)
            .address(attribute::XOR_MAPPED_ADDRESS, tuple.client);
        self.tell_stranger(now, tuple, asked, writer, message, out);
    }

    /// An error for somebody who has proved nothing: as small as it has to be.
    fn refuse_stranger(
        &mut self,
        now: Now,
        tuple: Tuple,
        message: &Message<'_>,
        asked: usize,
        fault: Fault,
        out: &mut Vec<u8>,
    ) {
        self.count(fault);
        let challenge = matches!(fault, Fault::Unauthorized | Fault::StaleNonce);
        let build = |full: bool, memory: Vec<u8>| {
            let writer = error(message, fault, memory, full);
            if !challenge {
                return writer;
            }
            let checker = &self.terms.checker;
            let nonce = checker.nonce(now.unix, tuple.client, full);
            let writer = writer
                .attribute(attribute::REALM, checker.realm.as_bytes())
                .attribute(attribute::NONCE, &nonce);
            if full {
                writer.attribute(attribute::PASSWORD_ALGORITHMS, &ALGORITHMS)
            } else {
                writer
            }
        };
        let mut writer = build(true, std::mem::take(out));
        let ending = if wants_fingerprint(message) { FINGERPRINT } else { 0 };
        if self.strangers.is_some() && exceeds(writer.length() + ending, asked) {
            // Without reasons, and without the choice of algorithms, which few clients know.
            writer = build(false, writer.finish());
        }
        self.tell_stranger(now, tuple, asked, writer, message, out);
    }

    /// Sends no more to an address than it may have asked for itself.
    fn tell_stranger(
        &mut self,
        now: Now,
        tuple: Tuple,
        asked: usize,
        writer: Writer,
        message: &Message<'_>,
        out: &mut Vec<u8>,
    ) {
        *out = if wants_fingerprint(message) { writer.fingerprint() } else { writer.finish() };
        let withheld = self.strangers.as_mut().is_some_and(|strangers| {
            exceeds(out.len(), asked) || !strangers.may_answer(now.at, tuple.client.ip())
        });
        if withheld {
            self.counters.withheld += 1;
            out.clear();
        }
    }

    fn count(&mut self, fault: Fault) {
        let counter = match fault {
            Fault::Unauthorized | Fault::StaleNonce => &mut self.counters.unauthorized,
            Fault::Forbidden => &mut self.counters.forbidden,
            Fault::Quota | Fault::Capacity => &mut self.counters.quota,
            Fault::BadRequest
            | Fault::UnknownAttribute
            | Fault::Mismatch
            | Fault::FamilyNotSupported
            | Fault::WrongCredentials
            | Fault::TransportNotSupported
            | Fault::PeerFamilyMismatch => &mut self.counters.errors,
        };
        *counter += 1;
    }

    /// RFC 8656 §7.2.
    fn allocate(&mut self, call: &Call<'_>, ledger: &mut Ledger) -> Result<usize, Fault> {
        if let Some(place) = self.places.get(&call.tuple).copied() {
            let there = self.allocations.get(place).filter(|a| !a.has_expired(call.now.at));
            match there {
                Some(allocation)
                    if allocation.transaction == call.message.transaction
                        && *allocation.lease.participant == *call.signer.participant =>
                {
                    return Ok(place);
                }
                Some(_) => return Err(Fault::Mismatch),
                None => self.remove(place, ledger),
            }
        }
        if call.signer.expires <= call.now.unix {
            return Err(Fault::Unauthorized);
        }
        let wanted = self.wanted(call)?;
        let lifetime = call.lifetime()?.unwrap_or(LIFETIME).clamp(LIFETIME, MAX_LIFETIME);
        let claim = Claim {
            participant: call.signer.participant,
            client: call.tuple.client,
            wanted: wanted.families,
            wish: wanted.wish,
        };
        let lease = ledger.open(call.now.at, self.listener, &claim)?;
        let expires = call.now.at + Duration::from_secs(u64::from(lifetime));
        let mut relayed = PerFamily::default();
        for family in Family::BOTH {
            let ip = *self.terms.relayed.get(family);
            let address = ip.zip(*lease.ports.get(family)).map(SocketAddr::from);
            *relayed.get_mut(family) = address.map(|address| Relayed { address, expires });
        }
        Ok(self.insert(Allocation {
            tuple: call.tuple,
            lease,
            relayed,
            transaction: call.message.transaction,
            lifetime,
            missing: wanted.missing,
            permissions: Vec::new(),
            channels: Vec::new(),
        }))
    }

    fn wanted(&self, call: &Call<'_>) -> Result<Wanted, Fault> {
        let transport = call.value::<4>(attribute::REQUESTED_TRANSPORT)?;
        match transport {
            Some([UDP, ..]) => {}
            Some(_) => return Err(Fault::TransportNotSupported),
            None => return Err(Fault::BadRequest),
        }
        let even = call.value::<1>(attribute::EVEN_PORT)?.map(|[bits]| bits & 0x80 != 0);
        let family = call.family(attribute::REQUESTED_ADDRESS_FAMILY)?;
        let second = call.family(attribute::ADDITIONAL_ADDRESS_FAMILY)?;
        let mut families = PerFamily::default();
        if let Some(token) = call.value::<8>(attribute::RESERVATION_TOKEN)? {
            // The reservation knows both already.
            if even.is_some() || family.is_some() || second.is_some() {
                return Err(Fault::BadRequest);
            }
            return Ok(Wanted { families, wish: Wish::Reserved(token), missing: None });
        }
        let has = |family: Family| self.terms.relayed.get(family).is_some();
        let mut missing = None;
        match (family, second) {
            (Some(_), Some(_)) | (None, Some(None | Some(Family::V4))) => {
                return Err(Fault::BadRequest);
            }
            (None, Some(Some(Family::V6))) => {
                if even == Some(true) {
                    return Err(Fault::BadRequest);
                }
                for family in Family::BOTH {
                    *families.get_mut(family) = has(family);
                }
                missing = Family::BOTH.into_iter().find(|family| !has(*family));
            }
            (Some(Some(family)), None) => *families.get_mut(family) = has(family),
            (Some(None), None) => return Err(Fault::FamilyNotSupported),
            (None, None) => *families.get_mut(Family::V4) = has(Family::V4),
        }
        if !Family::BOTH.into_iter().any(|family| *families.get(family)) {
            return Err(Fault::FamilyNotSupported);
        }
        let wish = match even {
            None => Wish::Any,
            Some(false) => Wish::Even,
            Some(true) => Wish::Pair,
        };
        Ok(Wanted { families, wish, missing })
    }

    /// The caller's own allocation.
    fn own(&self, call: &Call<'_>) -> Result<usize, Fault> {
        let place = *self.places.get(&call.tuple).ok_or(Fault::Mismatch)?;
        let allocation = self.allocations.get(place).ok_or(Fault::Mismatch)?;
        if allocation.has_expired(call.now.at) {
            return Err(Fault::Mismatch);
        }
        if *allocation.lease.participant != *call.signer.participant {
            return Err(Fault::WrongCredentials);
        }
        Ok(place)
    }

    /// RFC 8656 §8.2. Says for how long it is good now.
    fn refresh(&mut self, call: &Call<'_>, ledger: &mut Ledger) -> Result<u32, Fault> {
        let place = self.own(call)?;
        let Some(allocation) = self.allocations.get_mut(place) else {
            return Err(Fault::Mismatch);
        };
        let only = match call.family(attribute::REQUESTED_ADDRESS_FAMILY)? {
            None => None,
            Some(Some(family)) if allocation.relayed.get(family).is_some() => Some(family),
            Some(_) => return Err(Fault::PeerFamilyMismatch),
        };
        let wanted = call.lifetime()?.unwrap_or(LIFETIME);
        let lifetime = if wanted == 0 { 0 } else { wanted.clamp(LIFETIME, MAX_LIFETIME) };
        let expires = call.now.at + Duration::from_secs(u64::from(lifetime));
        for family in Family::BOTH.into_iter().filter(|f| only.is_none_or(|only| only == *f)) {
            if lifetime == 0 {
                ledger.close_family(&mut allocation.lease, family);
                *allocation.relayed.get_mut(family) = None;
            } else if let Some(relayed) = allocation.relayed.get_mut(family) {
                relayed.expires = expires;
            }
        }
        if allocation.has_expired(call.now.at) {
            self.remove(place, ledger);
        }
        Ok(lifetime)
    }

    /// Whether a peer is one that this allocation can have at all.
    fn check_peer(
        &self,
        call: &Call<'_>,
        place: usize,
        peer: SocketAddr,
        ours: impl Fn(&SocketAddr) -> bool,
    ) -> Result<(), Fault> {
        let allocation = self.allocations.get(place).ok_or(Fault::Mismatch)?;
        if allocation.relayed_for(call.now.at, peer.ip()).is_none() {
            return Err(Fault::PeerFamilyMismatch);
        }
        if self.terms.peers.iter().any(ours) { Ok(()) } else { Err(Fault::Forbidden) }
    }

    /// RFC 8656 §9.2: all of them or none.
    fn create_permission(&mut self, call: &Call<'_>) -> Result<(), Fault> {
        let place = self.own(call)?;
        let peers = || call.message.addresses(attribute::XOR_PEER_ADDRESS);
        if peers().next().is_none() {
            return Err(Fault::BadRequest);
        }
        for peer in peers() {
            let peer = peer.ok_or(Fault::BadRequest)?;
            // A permission is for an address, whatever its port; where data goes is checked
            // with the port.
            self.check_peer(call, place, peer, |ours| ours.ip() == peer.ip())?;
        }
        let Some(allocation) = self.allocations.get_mut(place) else {
            return Err(Fault::Mismatch);
        };
        for peer in peers().flatten() {
            allocation.permit(call.now.at, peer.ip());
        }
        Ok(())
    }

    /// RFC 8656 §12.2.
    fn bind_channel(&mut self, call: &Call<'_>) -> Result<(), Fault> {
        let place = self.own(call)?;
        let number = call.value::<4>(attribute::CHANNEL_NUMBER)?.ok_or(Fault::BadRequest)?;
        let number = u16::from_be_bytes([number[0], number[1]]);
        let peer = call.message.address(attribute::XOR_PEER_ADDRESS).ok_or(Fault::BadRequest)?;
        if !CHANNELS.contains(&number) {
            return Err(Fault::BadRequest);
        }
        self.check_peer(call, place, peer, |ours| *ours == peer)?;
        let Some(allocation) = self.allocations.get_mut(place) else {
            return Err(Fault::Mismatch);
        };
        let now = call.now.at;
        allocation.channels.retain(|channel| channel.expires > now);
        let same = |c: &Channel| c.number == number && c.peer == peer;
        let taken = |c: &Channel| c.number == number || c.peer == peer;
        if allocation.channels.iter().any(|channel| taken(channel) && !same(channel)) {
            return Err(Fault::BadRequest);
        }
        let expires = now + CHANNEL;
        match allocation.channels.iter_mut().find(|channel| same(channel)) {
            Some(channel) => channel.expires = expires,
            None => allocation.channels.push(Channel { number, peer, expires }),
        }
        allocation.permit(now, peer.ip());
        Ok(())
    }
}

/// Is it more than a stranger gets for `asked` bytes?
const fn exceeds(answered: usize, asked: usize) -> bool {
    let (most, of) = REFLECTION;
    answered * of > asked * most
}

/// The attributes of an answer to Allocate.
fn describe(mut writer: Writer, allocation: &Allocation) -> Writer {
    for family in Family::BOTH {
        if let Some(relayed) = allocation.relayed.get(family) {
            writer = writer.address(attribute::XOR_RELAYED_ADDRESS, relayed.address);
        }
    }
    writer = writer
        .attribute(attribute::LIFETIME, &allocation.lifetime.to_be_bytes())
        .address(attribute::XOR_MAPPED_ADDRESS, allocation.tuple.client);
    if let Some(token) = allocation.lease.token {
        writer = writer.attribute(attribute::RESERVATION_TOKEN, &token);
    }
    if let Some(family) = allocation.missing {
        writer = writer.attribute(attribute::ADDRESS_ERROR_CODE, &[family.number(), 0, 4, 40]);
    }
    writer
}

/// An error answer, with words or without.
fn error(message: &Message<'_>, fault: Fault, memory: Vec<u8>, words: bool) -> Writer {
    let Message { method, transaction, .. } = *message;
    let reason = if words { fault.reason() } else { "" };
    let writer = Writer::reuse(memory, method, Class::Error, transaction);
    let writer = writer.error(fault.code(), reason);
    if fault != Fault::UnknownAttribute {
        return writer;
    }
    let unknown = message.unknown(&UNDERSTOOD).flat_map(u16::to_be_bytes);
    writer.attribute(attribute::UNKNOWN_ATTRIBUTES, &unknown.collect::<Vec<u8>>())
}

fn wants_fingerprint(message: &Message<'_>) -> bool {
    message.attributes().any(|(kind, _)| kind == attribute::FINGERPRINT)
}

/// Signs an answer as its request was.
fn finish(call: &Call<'_>, writer: Writer) -> Vec<u8> {
    let writer = writer.integrity(call.signer.integrity, &call.signer.key);
    if wants_fingerprint(&call.message) { writer.fingerprint() } else { writer.finish() }
}
