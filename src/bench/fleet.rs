//! The people of a load: they come in at an even pace, stay, and go.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bedside_client::{ConnectOptions, Participant, ParticipantEvent, Publish};
use bedside_sfu::core::api::Private;
use bedside_signaling::token::{self, KeyPair, RoomToken, VideoGrant};
use tokio::task::JoinSet;
use tokio::time::{interval, sleep, timeout};

use super::gauge::{Gauge, Tap, record, times};
use super::report::{Joins, Quantiles};
use super::scenario::{Place, Scenario};

/// A join that takes longer has failed.
const JOIN_LIMIT: Duration = Duration::from_secs(15);
/// How long the first sound of others is waited for.
const SOUND_LIMIT: Duration = Duration::from_secs(10);
/// Between two looks whether it is there.
const LOOK: Duration = Duration::from_millis(20);
/// How long a socket is left alone after a look at it.
const REST: Duration = Duration::from_millis(1);
/// Life of a room token.
const TOKEN: Duration = Duration::from_secs(6 * 3600);
/// How long somebody stays who only comes and goes.
pub(super) const STAY: Duration = Duration::from_secs(1);

/// Where people go in, and what they say at the door.
#[derive(Debug)]
pub(super) struct Door {
    /// Server.
    pub(super) url: String,
    /// Signs room tokens.
    pub(super) keys: KeyPair,
    /// In the names of rooms: two runs never meet.
    pub(super) run: String,
    /// What is seen of packets.
    pub(super) gauge: Arc<Gauge>,
    /// Joins in a second.
    pub(super) rate: u32,
}

/// Somebody who is there.
struct Person {
    participant: Participant,
    tap: Arc<Tap>,
    place: Place,
    /// When it set out, and how long it took.
    since: Instant,
    took: Duration,
}

/// Who is there all the time.
pub(super) struct Fleet {
    door: Arc<Door>,
    scenario: Scenario,
    people: Vec<Option<Person>>,
}

impl Fleet {
    /// Nobody yet.
    pub(super) const fn new(door: Arc<Door>, scenario: Scenario) -> Self {
        Self { door, scenario, people: Vec::new() }
    }

    /// Lets people come in, or sends the last ones home, until there are as many as the level has; then
    /// waits until everybody hears somebody. Tells of those who came in.
    pub(super) async fn become_level(&mut self, level: u64) -> anyhow::Result<Joins> {
        let wanted = usize::try_from(self.scenario.people(level))?;
        let before = self.people.len();
        if wanted < before {
            self.people.truncate(wanted);
            sleep(STAY).await;
        }
        self.people.resize_with(wanted.max(self.people.len()), || None);
        let mut joins = Joins::default();
        // Who comes first to a room is not to be waited for by a second one who is there already.
        for first in [true, false] {
            self.wave(before, first, &mut joins).await;
        }
        joins.deaf = self.listen().await;
        let news = || self.people.iter().skip(before).flatten();
        let (mut took, mut heard) = (times()?, times()?);
        for person in news() {
            record(&mut took, person.took);
            let later = person.place.hears && !person.place.first;
            if let Some(first) = person.tap.first().filter(|_| later) {
                record(&mut heard, first.saturating_duration_since(person.since));
            }
        }
        joins.connected_ms = Quantiles::of(&took);
        joins.first_packet_ms = Quantiles::of(&heard);
        Ok(joins)
    }

    async fn wave(&mut self, before: usize, first: bool, joins: &mut Joins) {
        let mut tasks = JoinSet::new();
        let mut pace = interval(Duration::from_secs(1) / self.door.rate.max(1));
        for index in before..self.people.len() {
            let number = index as u64;
            let place = self.scenario.place(number);
            if place.first != first {
                continue;
            }
            pace.tick().await;
            joins.tried += 1;
            let door = Arc::clone(&self.door);
            tasks.spawn(async move {
                let room = format!("bench-{}-{}", door.run, place.room);
                (index, come_in(&door, &room, number, place, true).await)
            });
        }
        while let Some(done) = tasks.join_next().await {
            let Ok((index, came)) = done else {
                joins.failed += 1;
                continue;
            };
            match came {
                Ok(person) => {
                    if let Some(slot) = self.people.get_mut(index) {
                        *slot = Some(person);
                    }
                }
                Err(why) => {
                    joins.failed += 1;
                    joins.why.get_or_insert(why);
                }
            }
        }
    }

    /// Waits until everybody hears somebody; gives how many do not.
    async fn listen(&self) -> u64 {
        let deaf = || {
            let people = self.people.iter().flatten();
            people.filter(|person| person.place.hears && person.tap.first().is_none()).count()
        };
        let all = timeout(SOUND_LIMIT, async {
            while deaf() > 0 {
                sleep(LOOK).await;
            }
        });
        match all.await {
            Ok(()) => 0,
            Err(_) => deaf() as u64,
        }
    }

    /// Connections that have broken and come back.
    pub(super) fn reconnections(&self) -> u64 {
        let stats = self.people.iter().flatten().map(|person| person.participant.stats());
        stats.map(|stats| stats.resumes + stats.rejoins).sum()
    }
}

/// Joins and waits until media can flow.
async fn come_in(
    door: &Door,
    room: &str,
    number: u64,
    place: Place,
    counted: bool,
) -> Result<Person, String> {
    let token = RoomToken {
        identity: Private::new(format!("person-{number}")),
        grant: VideoGrant::join(room),
        ..RoomToken::default()
    };
    let token = token::issue(&door.keys, &token, TOKEN, SystemTime::now());
    let tap = Arc::new(Tap::new(Arc::clone(&door.gauge), number, counted));
    let mut options = ConnectOptions::new(&door.url, token);
    options.publish = Publish {
        microphone: place.microphone,
        camera: place.camera,
        timed: true,
        ..Publish::default()
    };
    options.ear = Some(tap.clone());
    options.rest = REST;
    let since = Instant::now();
    let joined = timeout(JOIN_LIMIT, async {
        let joined = Participant::connect(options).await;
        let (participant, mut events) = joined.map_err(|error| chain(&error))?;
        loop {
            match events.recv().await {
                Some(ParticipantEvent::Connected) => return Ok(participant),
                Some(ParticipantEvent::Left(cause)) => return Err(format!("put out: {cause:?}")),
                Some(_) => {}
                None => return Err("gone".to_owned()),
            }
        }
    });
    let participant = joined.await.map_err(|_| "media never connected".to_owned())??;
    Ok(Person { participant, tap, place, since, took: since.elapsed() })
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// Lets `rate` people a second come, stay a moment and go, in rooms of two by voice. Tells of those who
/// set out between `from` and `until`, once all of them have gone.
pub(super) async fn come_and_go(
    door: Arc<Door>,
    rate: u64,
    from: Instant,
    until: Instant,
) -> anyhow::Result<Joins> {
    let mut tasks = JoinSet::new();
    let mut pace = interval(Duration::from_secs(1).div_f64(rate.max(1) as f64));
    let mut number = 0;
    loop {
        pace.tick().await;
        let now = Instant::now();
        if now >= until {
            break;
        }
        let (door, person) = (Arc::clone(&door), number);
        tasks.spawn(async move {
            let room = format!("bench-{}-churn-{rate}-{}", door.run, person / 2);
            let first = person % 2 == 0;
            let place = Place { room: 0, microphone: true, camera: false, first, hears: true };
            let came = come_in(&door, &room, person, place, false).await;
            if came.is_ok() {
                sleep(STAY).await;
            }
            (now >= from, came)
        });
        number += 1;
    }
    let (mut took, mut heard, mut joins) = (times()?, times()?, Joins::default());
    while let Some(done) = tasks.join_next().await {
        let Ok((counted, came)) = done else {
            joins.failed += 1;
            continue;
        };
        joins.tried += u64::from(counted);
        match came {
            Ok(person) if counted => {
                record(&mut took, person.took);
                let first = person.tap.first();
                if let Some(first) = first.filter(|_| !person.place.first) {
                    record(&mut heard, first.saturating_duration_since(person.since));
                }
            }
            Ok(_) => {}
            Err(why) => {
                joins.failed += u64::from(counted);
                joins.why.get_or_insert(why);
            }
        }
    }
    joins.connected_ms = Quantiles::of(&took);
    joins.first_packet_ms = Quantiles::of(&heard);
    Ok(joins)
}
