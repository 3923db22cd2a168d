//! The loop that carries the packets.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::time::TimeSpec;

use crate::channel::{Channel, Fate};
use crate::namespace::End;
use crate::profile::Directions;
use crate::record::{LinkSums, Log, Way};

/// Packets that are read from a device before the others have their turn.
const TURN: usize = 64;

/// A link: its two ends and what happens between them.
pub(crate) struct Link {
    pub(crate) near: End,
    pub(crate) far: End,
    up: Channel,
    down: Channel,
}

impl Link {
    /// `index` among the links of the run.
    pub(crate) fn new(near: End, far: End, ways: &Directions, seed: u64, index: u64) -> Self {
        let up = Channel::new(ways.up.clone(), seed, index * 2);
        let down = Channel::new(ways.down.clone(), seed, index * 2 + 1);
        Self { near, far, up, down }
    }

    const fn source(&self, way: Way) -> &End {
        match way {
            Way::Up => &self.near,
            Way::Down => &self.far,
        }
    }

    const fn target(&self, way: Way) -> &End {
        match way {
            Way::Up => &self.far,
            Way::Down => &self.near,
        }
    }

    const fn channel(&mut self, way: Way) -> &mut Channel {
        match way {
            Way::Up => &mut self.up,
            Way::Down => &mut self.down,
        }
    }
}

/// A packet on its way. The field order is the order of arrival.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Flight {
    due: Duration,
    number: u64,
    link: usize,
    way: Way,
    packet: Vec<u8>,
}

/// Blocks the signals that the loop answers. Must come before the first thread and before anything
/// is made that has to be removed again.
pub(crate) fn take_signals() -> Result<SignalFd> {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGUSR1] {
        signals.add(signal);
    }
    signals.thread_block()?;
    Ok(SignalFd::with_flags(&signals, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?)
}

/// A run of the network.
pub(crate) struct Run {
    links: Vec<Link>,
    sums: Vec<LinkSums>,
    flights: BinaryHeap<Reverse<Flight>>,
    number: u64,
    log: Option<Log>,
    start: Instant,
    /// Moment that the profile counts from.
    zero: Duration,
    swap_at: Option<Duration>,
}

impl Run {
    pub(crate) fn new(links: Vec<Link>, swap_at: Option<Duration>, log: Option<Log>) -> Self {
        Self {
            sums: vec![LinkSums::default(); links.len()],
            links,
            flights: BinaryHeap::new(),
            number: 0,
            log,
            start: Instant::now(),
            zero: Duration::ZERO,
            swap_at,
        }
    }

    /// Carries packets until a signal says that it is enough. Gives the sums and the length.
    pub(crate) fn go(mut self, signals: SignalFd) -> Result<(Vec<LinkSums>, Duration)> {
        loop {
            self.wait(&signals)?;
            while let Some(signal) = signals.read_signal()? {
                if signal.ssi_signo == Signal::SIGUSR1 as u32 {
                    self.restart();
                } else {
                    return self.finish();
                }
            }
            self.swap()?;
            for index in 0..self.links.len() {
                self.read(index, Way::Up)?;
                self.read(index, Way::Down)?;
            }
            self.deliver();
        }
    }

    fn finish(self) -> Result<(Vec<LinkSums>, Duration)> {
        if let Some(log) = self.log {
            log.finish().context("the packet log")?;
        }
        Ok((self.sums, self.start.elapsed()))
    }

    /// Sleeps until a packet or a signal comes, or something is due.
    fn wait(&self, signals: &SignalFd) -> Result<()> {
        let now = self.start.elapsed();
        let arrival = self.flights.peek().map(|Reverse(flight)| flight.due);
        let swap = self.swap_at.map(|at| self.zero + at);
        let due = arrival.into_iter().chain(swap).min();
        let timeout = due.map(|due| TimeSpec::from(due.saturating_sub(now)));
        let mut fds = vec![PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        for link in &self.links {
            fds.push(PollFd::new(link.near.device.as_fd(), PollFlags::POLLIN));
            fds.push(PollFd::new(link.far.device.as_fd(), PollFlags::POLLIN));
        }
        match ppoll(&mut fds, timeout, None) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(error) => Err(error).context("waiting for packets"),
        }
    }

    /// The profile begins anew.
    fn restart(&mut self) {
        self.zero = self.start.elapsed();
        for link in &mut self.links {
            link.up.restart(self.zero);
            link.down.restart(self.zero);
        }
    }

    /// The near side leaves the first link and takes the second.
    fn swap(&mut self) -> Result<()> {
        if self.swap_at.is_none_or(|at| self.start.elapsed() < self.zero + at) {
            return Ok(());
        }
        self.swap_at = None;
        if let [first, second, ..] = self.links.as_slice() {
            first.near.down()?;
            second.near.up(true)?;
        }
        Ok(())
    }

    fn read(&mut self, index: usize, way: Way) -> Result<()> {
        // A datagram of 64 KiB is the largest that IP knows.
        let mut buffer = [0; 65_536];
        for _ in 0..TURN {
            let Some(link) = self.links.get(index) else { return Ok(()) };
            // Nothing there, or the device is down.
            let Ok(length) = link.source(way).device.recv(&mut buffer) else { return Ok(()) };
            let packet = buffer.get(..length).unwrap_or_default();
            if is_multicast(packet) {
                continue;
            }
            self.offer(index, way, packet)?;
        }
        Ok(())
    }

    fn offer(&mut self, index: usize, way: Way, packet: &[u8]) -> Result<()> {
        let now = self.start.elapsed();
        let Some(link) = self.links.get_mut(index) else { return Ok(()) };
        let fate = link.channel(way).offer(now, packet.len());
        if let Some(sums) = self.sums.get_mut(index) {
            sums.way(way).count(now, packet.len(), fate);
        }
        if let Some(log) = &mut self.log {
            log.write(now, index, way, packet.len(), fate).context("the packet log")?;
        }
        let copies = match fate {
            Fate::Doubled(_) => 2,
            Fate::Passes(_) | Fate::Overtaken(_) => 1,
            Fate::Lost | Fate::QueueFull | Fate::Dark => 0,
        };
        for _ in 0..copies {
            let Some(due) = fate.due() else { break };
            let (number, link) = (self.number, index);
            self.number += 1;
            self.flights.push(Reverse(Flight { due, number, link, way, packet: packet.to_vec() }));
        }
        Ok(())
    }

    fn deliver(&mut self) {
        let now = self.start.elapsed();
        while self.flights.peek().is_some_and(|Reverse(flight)| flight.due <= now) {
            let Some(Reverse(flight)) = self.flights.pop() else { return };
            let (Some(link), Some(sums)) =
                (self.links.get(flight.link), self.sums.get_mut(flight.link))
            else {
                continue;
            };
            // A device that is down refuses: the packet is lost, as it would be.
            let sent = link.target(flight.way).device.send(&flight.packet);
            sums.way(flight.way).arrived(flight.packet.len(), sent.is_ok());
        }
    }
}

/// Neighbour and group chatter of the kernel: it comes when it likes, and would move the losses.
fn is_multicast(packet: &[u8]) -> bool {
    match packet.first().map(|byte| byte >> 4) {
        Some(4) => packet.get(16).is_some_and(|byte| (224..240).contains(byte)),
        Some(6) => packet.get(24) == Some(&0xff),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chatter_is_not_carried() {
        let mut four = [0_u8; 20];
        four[0] = 0x45;
        four[16] = 10;
        assert!(!is_multicast(&four));
        four[16] = 224;
        assert!(is_multicast(&four));
        let mut six = [0_u8; 40];
        six[0] = 0x60;
        six[24] = 0xfd;
        assert!(!is_multicast(&six));
        six[24] = 0xff;
        assert!(is_multicast(&six));
        assert!(is_multicast(&[]));
        assert!(is_multicast(&[0x13]));
    }

    #[test]
    fn what_is_due_first_arrives_first() {
        let flight = |due, number| {
            let due = Duration::from_millis(due);
            Reverse(Flight { due, number, link: 0, way: Way::Up, packet: vec![] })
        };
        let mut heap = BinaryHeap::from([flight(5, 0), flight(3, 1), flight(3, 2), flight(9, 3)]);
        let order: Vec<u64> =
            std::iter::from_fn(|| heap.pop()).map(|Reverse(flight)| flight.number).collect();
        assert_eq!(order, [1, 2, 0, 3]);
    }
}
