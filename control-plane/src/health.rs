//! How the server is: its parts, as readiness and the health pages tell them.
//!
//! Who knows a part says so here when it changes; nobody is asked over a network for it, but the
//! database, whose answer is what counts.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use crate::ControlPlane;
use crate::control::Control;

/// How a part is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// It does what it should.
    Up,
    /// It does not.
    Down,
    /// It was not asked for in the settings.
    NotConfigured,
}

impl Part {
    /// As the health pages write it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::NotConfigured => "not_configured",
        }
    }
}

/// How the parts are, at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Health {
    /// What is acknowledged is stored there.
    pub database: Part,
    /// Where appointments come from and events go to.
    pub broker: Part,
    /// Picture and sound.
    pub media: Part,
    /// The server is about to stop and takes nothing new.
    pub draining: bool,
}

impl Health {
    /// Can people be served? Without a broker they can: what it should hear waits for it.
    pub fn is_ready(&self) -> bool {
        self.missing().is_empty()
    }

    /// What keeps people from being served, by name.
    pub fn missing(&self) -> Vec<&'static str> {
        let reasons = [
            (self.draining, "draining"),
            (self.media == Part::Down, "media"),
            (self.database == Part::Down, "database"),
        ];
        reasons.into_iter().filter(|(missing, _)| *missing).map(|(_, name)| name).collect()
    }

    /// One word for all of it.
    pub fn word(&self) -> &'static str {
        match (self.is_ready(), self.broker) {
            (false, _) => "unhealthy",
            (true, Part::Down) => "degraded",
            (true, Part::Up | Part::NotConfigured) => "healthy",
        }
    }
}

/// What the parts have said of themselves.
#[derive(Default)]
pub(crate) struct Pulse {
    draining: AtomicBool,
    broker: AtomicU8,
    media: OnceLock<Box<dyn Fn() -> bool + Send + Sync>>,
}

impl Pulse {
    /// The broker is connected, or is not. Before the first word there is none.
    pub(crate) fn broker(&self, up: bool) {
        self.broker.store(if up { 2 } else { 1 }, Ordering::Relaxed);
    }

    fn broker_part(&self) -> Part {
        match self.broker.load(Ordering::Relaxed) {
            0 => Part::NotConfigured,
            1 => Part::Down,
            2.. => Part::Up,
        }
    }
}

impl std::fmt::Debug for Pulse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pulse").field("broker", &self.broker_part()).finish_non_exhaustive()
    }
}

impl Control {
    /// Counts what waits for the sinks; without an answer the last figure stays.
    pub(crate) async fn measure_backlog(&self) {
        let mut waiting = 0;
        for sink in self.sinks.iter().chain(&self.room_sinks) {
            let Ok(rows) = self.within(self.db.backlog(sink)).await else { return };
            waiting += u64::try_from(rows).unwrap_or_default();
        }
        self.counters.outbox_backlog.set(waiting);
    }
}

impl ControlPlane {
    /// Makes known whom to ask whether picture and sound work; the first one stays.
    pub fn watch_media(&self, is_running: impl Fn() -> bool + Send + Sync + 'static) {
        let _first = self.control.pulse.media.set(Box::new(is_running));
    }

    /// The broker is connected, or is not.
    pub fn tell_broker(&self, up: bool) {
        self.control.pulse.broker(up);
    }

    /// The server is about to stop.
    pub fn drain(&self) {
        self.control.pulse.draining.store(true, Ordering::Relaxed);
    }

    /// How the parts are now.
    pub async fn health(&self) -> Health {
        let pulse = &self.control.pulse;
        Health {
            database: if self.is_ready().await { Part::Up } else { Part::Down },
            broker: pulse.broker_part(),
            media: match pulse.media.get() {
                Some(is_running) if is_running() => Part::Up,
                Some(_) => Part::Down,
                None => Part::NotConfigured,
            },
            draining: pulse.draining.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Database, World};

    #[test]
    fn a_broker_that_is_away_keeps_nobody_out() {
        let mut health =
            Health { database: Part::Up, broker: Part::Up, media: Part::Up, draining: false };
        assert_eq!(health.word(), "healthy");
        health.broker = Part::Down;
        assert_eq!((health.word(), health.is_ready()), ("degraded", true));
        health.media = Part::Down;
        assert_eq!((health.word(), health.missing()), ("unhealthy", vec!["media"]));
        health = Health { media: Part::Up, database: Part::Down, draining: true, ..health };
        assert_eq!(health.missing(), ["draining", "database"]);
    }

    #[tokio::test]
    async fn parts_say_how_they_are() {
        let world = World::new(Database::sqlite()).await;
        let plane = &world.plane;
        let health = plane.health().await;
        assert_eq!((health.database, health.broker), (Part::Up, Part::NotConfigured));
        plane.tell_broker(false);
        plane.watch_media(|| false);
        let health = plane.health().await;
        assert_eq!((health.broker, health.media), (Part::Down, Part::Down));
        plane.tell_broker(true);
        plane.drain();
        plane.close().await;
        let health = plane.health().await;
        assert_eq!((health.broker, health.database), (Part::Up, Part::Down));
        assert!(health.draining);
    }
}
