//! What the engine itself costs, without a kernel: packets through `handle_input` and
//! `poll_output` with real keys, one room in one process. For finding waste with a profiler.

#![allow(clippy::print_stdout, reason = "a program that prints its figures")]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use bedside_benches::bot::{Bot, Role};
use bedside_benches::load::Packet;
use bedside_benches::server::{add_track, join, no_data, open};
use bedside_sfu::core::Rng;
use bedside_sfu::core::api::{
    Command, Event, Input, Output, Path, Request, SessionEvent, SessionKey,
};
use bedside_sfu::core::engine::{Core, CoreConfig, Limits, WallClock};
use bedside_sfu::core::peer::{Crypto, Identity};
use bedside_sfu::node::Datagram;
use clap::Parser;
use rand_chacha::rand_core::SeedableRng as _;

#[derive(Debug, Parser)]
#[command(about = "CPU time of the engine per forwarded packet, without sockets")]
struct Arguments {
    /// Subscribers of the one publisher.
    #[arg(long, default_value_t = 50)]
    subscribers: usize,
    /// Packets of one turn.
    #[arg(long, default_value_t = 4)]
    burst: usize,
    /// Packets in all.
    #[arg(long, default_value_t = 40_000)]
    packets: usize,
}

const SERVER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7_882);

struct Bench {
    core: Core,
    now: Instant,
    bots: Vec<Bot>,
    /// Datagrams that came out, and their trains.
    datagrams: u64,
    trains: u64,
}

impl Bench {
    fn new(subscribers: usize) -> Result<Self> {
        let now = Instant::now();
        let identity = Arc::new(Identity::generate()?);
        let config = CoreConfig {
            shard: 0,
            candidates: vec![SERVER],
            tcp_candidates: Vec::new(),
            identity: Arc::clone(&identity),
            relay: no_data,
            wall: WallClock { at: now, unix_micros: 0 },
            limits: Limits::default(),
            crypto: Crypto::Real,
        };
        let mut rng = Rng::from_seed([9; 32]);
        let role = |index: usize| Role {
            room: 0,
            session: index as u64,
            publishes: index == 0,
            receives: usize::from(index > 0),
            address: SocketAddr::new(SERVER.ip(), 20_000 + u16::try_from(index).unwrap_or(0)),
            server: SERVER,
        };
        let bots = (0..=subscribers)
            .map(|index| Bot::new(role(index), now, Arc::clone(&identity), &mut rng))
            .collect();
        let core = Core::new(now, config, [1; 32]);
        Ok(Self { core, now, bots, datagrams: 0, trains: 0 })
    }

    fn join(&mut self) -> Result<()> {
        self.command(Command::OpenRoom(Box::new(open(0))))?;
        for index in 0..self.bots.len() {
            self.command(Command::Join(Box::new(join(0, index as u64))))?;
            for _ in 0..2_000 {
                self.now += Duration::from_millis(1);
                self.exchange()?;
                if self.bots.get(index).is_some_and(|bot| bot.connected) {
                    break;
                }
            }
        }
        let missing = self.bots.iter().filter(|bot| !bot.connected).count();
        if missing > 0 {
            bail!("{missing} bots never connected");
        }
        Ok(())
    }

    fn command(&mut self, command: Command) -> Result<()> {
        self.core.handle_input(self.now, Input::Command(command));
        self.take_outputs(true)
    }

    /// What bots and engine want to say besides media.
    fn exchange(&mut self) -> Result<()> {
        let mut said = Vec::new();
        for bot in &mut self.bots {
            let address = bot.role.address;
            bot.maintain(self.now, |datagram| said.push((address, datagram.to_vec())));
        }
        for (remote, mut data) in said {
            self.datagram(remote, &mut data);
        }
        self.core.handle_input(self.now, Input::Timeout);
        self.take_outputs(true)
    }

    fn datagram(&mut self, remote: SocketAddr, data: &mut [u8]) {
        let path = Path::Udp { local: SERVER, remote };
        self.core.handle_input(self.now, Input::Datagram { path, received: self.now, data });
    }

    /// Polls until there is no more; delivers if asked, else only counts.
    fn take_outputs(&mut self, deliver: bool) -> Result<()> {
        let mut requests = Vec::new();
        loop {
            match self.core.poll_output() {
                Output::Transmit(transmit) => {
                    let trains = transmit.contents.chunks(transmit.segment_size.max(1));
                    self.datagrams += trains.len() as u64;
                    self.trains += 1;
                    let Path::Udp { local, remote } = transmit.path else { continue };
                    let bot = usize::from(remote.port()).checked_sub(20_000);
                    let bot = bot.and_then(|bot| self.bots.get_mut(bot));
                    let Some(bot) = bot.filter(|_| deliver) else { continue };
                    for datagram in trains {
                        let (data, received) = (&mut datagram.to_vec(), self.now);
                        let datagram = Datagram { local: remote, remote: local, received, data };
                        bot.receive(self.now, datagram);
                    }
                }
                Output::Event(Event::Session { session, event }) => {
                    requests.extend(self.told(session, event)?);
                }
                Output::Event(Event::Node { .. } | Event::Resync { .. }) => {}
                Output::Timeout(_) => break,
            }
        }
        for (session, request) in requests {
            self.command(Command::Request { session, request })?;
        }
        Ok(())
    }

    fn told(
        &mut self,
        session: SessionKey,
        event: SessionEvent,
    ) -> Result<Vec<(SessionKey, Request)>> {
        let bot = usize::try_from(session.0)?;
        let bot = self.bots.get_mut(bot).context("events go to bots")?;
        let mut requests = Vec::new();
        let mut offer = |(id, sdp)| requests.push((session, Request::Offer { id, sdp }));
        match event {
            SessionEvent::Joined { .. } => {
                offer(bot.offer(0, 0));
                if bot.role.publishes {
                    let tracks = bot.tracks().into_iter().zip([true, false]);
                    let tracks = tracks.map(|(cid, audio)| add_track(audio, cid));
                    requests.splice(0..0, tracks.map(|request| (session, request)));
                }
            }
            SessionEvent::SectionsNeeded { audio, video } => offer(bot.offer(audio, video)),
            SessionEvent::Answer { sdp, .. } => bot.answered(self.now, &sdp)?,
            SessionEvent::Refused(refusal) => bail!("refused: {refusal}"),
            SessionEvent::Left { reason, .. } => bail!("put out: {reason:?}"),
            _ => {}
        }
        Ok(requests)
    }

    /// Sends bursts through; gives the time spent in the engine.
    fn forward(&mut self, burst: usize, packets: usize, deliver: bool) -> Result<Duration> {
        let mut spent = Duration::ZERO;
        for turn in 0..packets / burst.max(1) {
            self.now += Duration::from_millis(5);
            let mut sealed = Vec::new();
            for index in 0..burst {
                let first = turn.is_multiple_of(3) && index == 0;
                let keyframe = turn < 3;
                let packet = Packet { audio: false, payload: 1_150, first, last: false, keyframe };
                let bot = self.bots.first_mut().context("the publisher is there")?;
                let mut datagram = Vec::new();
                if bot.pack(self.now, packet, &mut datagram) {
                    sealed.push((bot.role.address, datagram));
                }
            }
            let start = Instant::now();
            for (remote, data) in &mut sealed {
                self.datagram(*remote, data);
            }
            if turn.is_multiple_of(4) {
                self.core.handle_input(self.now, Input::Timeout);
            }
            self.take_outputs(deliver)?;
            spent += start.elapsed();
            if turn.is_multiple_of(100) {
                self.exchange()?;
            }
        }
        Ok(spent)
    }
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let mut bench = Bench::new(arguments.subscribers)?;
    bench.join()?;
    bench.forward(arguments.burst, 600, true)?;
    let heard = bench.bots.iter().skip(1).filter(|bot| bot.seen.received > 0).count();
    if heard < arguments.subscribers {
        bail!("only {heard} subscribers receive media");
    }
    (bench.datagrams, bench.trains) = (0, 0);
    let before = bench.core.counters().rtp_packets_out;
    let spent = bench.forward(arguments.burst, arguments.packets, false)?;
    let forwarded = bench.core.counters().rtp_packets_out - before;
    println!(
        "{} packets in, {forwarded} forwarded to {} subscribers: {:.0} ns each, {:.1} per train",
        arguments.packets,
        arguments.subscribers,
        spent.as_nanos() as f64 / forwarded.max(1) as f64,
        bench.datagrams as f64 / bench.trains.max(1) as f64,
    );
    Ok(())
}
