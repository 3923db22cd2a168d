//! The load: many bots behind a few sockets, in one thread that never sleeps, so that its
//! wake-ups are not billed to the server.
//!
//! Each bot has an address of its own in 127/8. The sockets do not coalesce what they receive:
//! the cost of cutting a train into datagrams stays with the server that sent it, as it would with
//! most network cards.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use bedside_sfu::core::Rng;
use bedside_sfu::core::peer::Identity;
use bedside_sfu::node::{Batch, Socket};
use nix::sys::socket::{setsockopt, sockopt};
use rand_chacha::rand_core::SeedableRng as _;

use crate::bot::{Bot, Role, Seen};
use crate::load::{Load, Packet, Schedule};
use crate::process::{Ask, Cost, Process, Tell};

/// Who is where.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// What it is called.
    pub name: &'static str,
    /// Rooms.
    pub rooms: usize,
    /// Persons in each.
    pub people: usize,
    /// Of these, so many publish; everyone receives the tracks of the others.
    pub publishers: usize,
}

impl Shape {
    /// Subscribers of each publisher.
    pub const fn fan_out(&self) -> usize {
        self.people - 1
    }

    /// Publishers in all rooms.
    pub const fn senders(&self) -> usize {
        self.rooms * self.publishers
    }
}

/// What a measurement gave.
#[derive(Clone, Debug)]
pub struct Measured {
    /// What the process used meanwhile.
    pub cost: Cost,
    /// What all bots saw meanwhile.
    pub seen: Seen,
    /// How long it took.
    pub wall: Duration,
    /// Forwarded packets that should have come.
    pub expected: u64,
    /// Part of the time that the generator had work.
    pub generator: f64,
}

/// The load of one run.
pub struct Generator {
    shape: Shape,
    epoch: Instant,
    sockets: Vec<Socket>,
    batch: Batch,
    bots: Vec<Bot>,
    schedules: Vec<(usize, Schedule)>,
    due: Vec<Packet>,
    out: Vec<u8>,
    next_maintenance: Instant,
    next_report: (usize, Instant),
    worked: Duration,
}

const SOCKETS: usize = 4;
const MAINTENANCE: Duration = Duration::from_millis(5);

impl Generator {
    /// Bots for every place, none connected, nothing sent.
    pub fn new(shape: Shape, server: SocketAddr) -> Result<Self> {
        let sockets: Vec<Socket> = (0..SOCKETS).map(|_| receiver()).collect::<Result<_>>()?;
        let (epoch, identity) = (Instant::now(), Arc::new(Identity::generate()?));
        let mut rng = Rng::from_seed([7; 32]);
        let mut bots = Vec::new();
        for index in 0..shape.rooms * shape.people {
            let (room, seat) = (index / shape.people, index % shape.people);
            let publishes = seat < shape.publishers;
            let socket = sockets.get(index % SOCKETS).context("sockets are there")?;
            let role = Role {
                room: room as u64,
                session: index as u64,
                publishes,
                receives: shape.publishers - usize::from(publishes),
                address: SocketAddr::new(address(index), socket.local().port()),
                server,
            };
            bots.push(Bot::new(role, epoch, Arc::clone(&identity), &mut rng));
        }
        Ok(Self {
            shape,
            epoch,
            sockets,
            batch: Batch::new(),
            bots,
            schedules: Vec::new(),
            due: Vec::new(),
            out: Vec::new(),
            next_maintenance: epoch,
            next_report: (0, epoch),
            worked: Duration::ZERO,
        })
    }

    /// Who forwards to whom, for the floor.
    pub fn routes(&self) -> Vec<(SocketAddr, Vec<SocketAddr>)> {
        let publishers = self.bots.iter().filter(|bot| bot.role.publishes);
        publishers
            .map(|from| {
                let others = self
                    .bots
                    .iter()
                    .map(|bot| bot.role)
                    .filter(|to| to.room == from.role.room && to.session != from.role.session);
                (from.role.address, others.map(|to| to.address).collect())
            })
            .collect()
    }

    /// Brings everyone into their rooms, publishers first.
    pub fn join(&mut self, process: &mut Process) -> Result<()> {
        for room in 0..self.shape.rooms {
            process.ask(&Ask::Open { room: room as u64 })?;
        }
        // The first alone, so that there is something to subscribe to; then several at once, but
        // not so many that handshakes time out.
        let mut joined = 0;
        while joined < self.shape.people {
            let until = if joined == 0 { 1 } else { self.shape.people.min(joined + 10) };
            for seat in joined..until {
                for room in 0..self.shape.rooms {
                    let (room, session) = (room as u64, (room * self.shape.people + seat) as u64);
                    process.ask(&Ask::Join { room, session })?;
                }
            }
            self.until_connected(process, until)?;
            joined = until;
        }
        Ok(())
    }

    /// Waits for the first `seats` of all rooms.
    fn until_connected(&mut self, process: &mut Process, seats: usize) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            self.step()?;
            self.obey(process)?;
            let rooms = self.bots.chunks(self.shape.people);
            let wanted = rooms.flat_map(|room| room.iter().take(seats));
            match wanted.filter(|bot| !bot.connected).count() {
                0 => return Ok(()),
                missing if Instant::now() > deadline => bail!("{missing} bots never connected"),
                _ => {}
            }
        }
    }

    /// Does what the server told the bots to do.
    fn obey(&mut self, process: &mut Process) -> Result<()> {
        while let Some(told) = process.told()? {
            let now = Instant::now();
            match told {
                Tell::Joined { session } => {
                    let bot = self.bot(session)?;
                    let (room, tracks) = (bot.role.room, bot.tracks());
                    if bot.role.publishes {
                        for (cid, audio) in tracks.into_iter().zip([true, false]) {
                            process.ask(&Ask::AddTrack { room, session, audio, cid })?;
                        }
                    }
                    let (id, sdp) = self.bot(session)?.offer(0, 0);
                    process.ask(&Ask::Offer { room, session, id, sdp })?;
                }
                Tell::Answer { session, sdp } => self.bot(session)?.answered(now, &sdp)?,
                Tell::Sections { session, audio, video } => {
                    let bot = self.bot(session)?;
                    let (room, (id, sdp)) = (bot.role.room, bot.offer(audio, video));
                    process.ask(&Ask::Offer { room, session, id, sdp })?;
                }
                Tell::Refused { what } => bail!("refused: {what}"),
                Tell::Ready { .. } | Tell::Report(_) => bail!("unexpected {told:?}"),
            }
        }
        Ok(())
    }

    fn bot(&mut self, session: u64) -> Result<&mut Bot> {
        let index = usize::try_from(session)?;
        self.bots.get_mut(index).with_context(|| format!("no session {session}"))
    }

    /// Lets the publishers begin.
    pub fn begin(&mut self, load: Load) {
        let now = Instant::now();
        let publishers = self.bots.iter().enumerate().filter(|(_, bot)| bot.role.publishes);
        let numbered = publishers.map(|(index, _)| index).enumerate();
        self.schedules =
            numbered.map(|(number, bot)| (bot, Schedule::new(load, now, number))).collect();
    }

    /// Runs for a while without measuring.
    pub fn warm_up(&mut self, process: &mut Process, time: Duration) -> Result<()> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.step()?;
            self.obey(process)?;
        }
        Ok(())
    }

    /// Runs and measures.
    pub fn measure(&mut self, process: &mut Process, time: Duration) -> Result<Measured> {
        let before = self.cost(process)?;
        for bot in &mut self.bots {
            bot.reset();
        }
        self.worked = Duration::ZERO;
        let start = Instant::now();
        while start.elapsed() < time {
            self.step()?;
        }
        let (wall, generator) = (start.elapsed(), self.worked);
        let after = self.cost(process)?;
        let expected = self.bots.iter().map(|bot| bot.seen.sent).sum::<u64>();
        let mut seen = Seen::default();
        for bot in &self.bots {
            seen.sent += bot.seen.sent;
            seen.received += bot.seen.received;
            seen.audio += bot.seen.audio;
            seen.good += bot.seen.good;
            seen.bad += bot.seen.bad;
            seen.rtcp += bot.seen.rtcp;
            seen.delays.extend_from_slice(&bot.seen.delays);
        }
        seen.delays.sort_unstable();
        Ok(Measured {
            cost: after.since(&before),
            seen,
            wall,
            expected: expected * self.shape.fan_out() as u64,
            generator: generator.as_secs_f64() / wall.as_secs_f64(),
        })
    }

    /// Lets what is under way arrive, then asks for the bill.
    fn cost(&mut self, process: &mut Process) -> Result<Cost> {
        process.ask(&Ask::Report)?;
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            self.step()?;
            match process.told()? {
                Some(Tell::Report(cost)) => return Ok(cost),
                Some(Tell::Refused { what }) => bail!("refused: {what}"),
                Some(_) | None if Instant::now() < deadline => {}
                Some(_) | None => bail!("no report came"),
            }
        }
    }

    /// One round: send what is due, take what came.
    fn step(&mut self) -> Result<()> {
        let now = Instant::now();
        let sent = self.publish(now);
        let received = self.receive();
        if now >= self.next_maintenance {
            self.next_maintenance = now + MAINTENANCE;
            self.maintain(now);
        }
        self.report(now);
        if sent || received {
            self.worked += now.elapsed();
        }
        Ok(())
    }

    fn publish(&mut self, now: Instant) -> bool {
        let mut any = false;
        for (index, schedule) in &mut self.schedules {
            schedule.due(now, &mut self.due);
            if self.due.is_empty() {
                continue;
            }
            any = true;
            let Some(bot) = self.bots.get_mut(*index) else { continue };
            if std::mem::take(&mut bot.keyframe_wanted) {
                schedule.want_keyframe();
            }
            let socket = self.sockets.get_mut(*index % SOCKETS);
            let Some(socket) = socket else { continue };
            self.out.clear();
            let mut train = 0;
            for packet in self.due.drain(..) {
                let start = self.out.len();
                let packed = bot.pack(now, packet, &mut self.out);
                let size = self.out.len() - start;
                // Browsers send each packet by itself.
                if !(packed && schedule.is_train()) {
                    send(socket, now, &bot.role, size, &self.out);
                    self.out.clear();
                }
                train = size;
            }
            send(socket, now, &bot.role, train, &self.out);
        }
        any
    }

    fn receive(&mut self) -> bool {
        let mut any = false;
        for socket in &self.sockets {
            if socket.receive(&mut self.batch).is_err() {
                continue;
            }
            any = true;
            let now = self.batch.received_at();
            for datagram in self.batch.datagrams().flatten() {
                let bot = index(datagram.local.ip()).and_then(|index| self.bots.get_mut(index));
                if let Some(bot) = bot {
                    bot.receive(now, datagram);
                }
            }
        }
        any
    }

    fn maintain(&mut self, now: Instant) {
        for (index, bot) in self.bots.iter_mut().enumerate() {
            let Some(socket) = self.sockets.get_mut(index % SOCKETS) else { continue };
            let role = bot.role;
            bot.maintain(now, |datagram| send(socket, now, &role, datagram.len(), datagram));
        }
    }

    /// Reports of all bots spread over each second.
    fn report(&mut self, now: Instant) {
        let (index, at) = self.next_report;
        if now < at || self.bots.is_empty() {
            return;
        }
        let pause = Duration::from_secs(1) / u32::try_from(self.bots.len()).unwrap_or(1);
        self.next_report = ((index + 1) % self.bots.len(), now.max(self.epoch) + pause);
        self.out.clear();
        let socket = self.sockets.get_mut(index % SOCKETS);
        if let (Some(bot), Some(socket)) = (self.bots.get_mut(index), socket)
            && bot.report(now, &mut self.out)
        {
            send(socket, now, &bot.role, self.out.len(), &self.out);
        }
    }

    /// Bots that should receive media and have not.
    pub fn deaf(&self) -> usize {
        let listening = self.bots.iter().filter(|bot| bot.role.receives > 0);
        listening.filter(|bot| bot.seen.received == 0).count()
    }
}

fn send(socket: &mut Socket, now: Instant, role: &Role, size: usize, datagrams: &[u8]) {
    socket.send(now, role.address.ip(), role.server, size, datagrams);
}

/// A socket that gets every datagram by itself, with room for a burst of everybody.
fn receiver() -> Result<Socket> {
    let socket = Socket::bind(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0))?;
    setsockopt(&socket, sockopt::UdpGroSegment, &false)?;
    // Needs a privilege; without it the system's limit applies.
    let _ = setsockopt(&socket, sockopt::RcvBufForce, &(16 << 20));
    Ok(socket)
}

/// The address of a bot.
fn address(index: usize) -> IpAddr {
    let [.., high, low] = (index as u64 + 1).to_be_bytes();
    IpAddr::V4(Ipv4Addr::new(127, 9, high, low))
}

/// Whose address that is.
fn index(address: IpAddr) -> Option<usize> {
    let IpAddr::V4(v4) = address else { return None };
    let [127, 9, high, low] = v4.octets() else { return None };
    usize::from(u16::from_be_bytes([high, low])).checked_sub(1)
}
