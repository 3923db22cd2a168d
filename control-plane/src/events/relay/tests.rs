//! One relay against a sink that does what the test says.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use super::*;
use crate::events::{Event, News, samples};
use crate::store::outbox::Along;
use crate::testing::{Database, World, on_both_databases};

on_both_databases!(
    events_arrive_once_and_in_order,
    what_is_refused_holds_up_its_own_consultation_only,
    a_sink_that_is_away_loses_nothing,
    what_stays_refused_holds_up_nothing_for_ever,
    what_stays_refused_is_given_up,
    who_closes_gives_its_lease_back,
    one_of_two_relays_sends,
    a_long_delivery_keeps_the_lease,
    what_nobody_serves_is_given_up,
);

/// A sink: what it got, and what it says next.
#[derive(Default)]
struct Told {
    got: Mutex<Vec<Uuid>>,
    calls: Mutex<Vec<usize>>,
    /// By event: what it says to it, before it takes it.
    says: Mutex<BTreeMap<Uuid, VecDeque<Outcome>>>,
    slow: Duration,
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Told {
    fn deliver(self: &Arc<Self>) -> Deliver {
        let told = Arc::clone(self);
        Box::new(move |unsent| {
            let told = Arc::clone(&told);
            Box::pin(async move {
                tokio::time::sleep(told.slow).await;
                locked(&told.calls).push(unsent.len());
                unsent.iter().map(|unsent| told.answer(unsent.event.id)).collect()
            })
        })
    }

    fn answer(&self, id: Uuid) -> Outcome {
        let said = locked(&self.says).get_mut(&id).and_then(VecDeque::pop_front);
        let outcome = said.unwrap_or(Outcome::Taken);
        if outcome == Outcome::Taken {
            locked(&self.got).push(id);
        }
        outcome
    }

    fn says(&self, id: Uuid, outcomes: impl IntoIterator<Item = Outcome>) {
        locked(&self.says).insert(id, outcomes.into_iter().collect());
    }

    fn got(&self) -> Vec<Uuid> {
        locked(&self.got).clone()
    }
}

const QUICK: Manner = Manner {
    at_once: 256,
    pauses: &[Duration::from_millis(40)],
    give_up: None,
    in_order: i64::MAX,
};

fn relay(world: &World, manner: Manner, told: &Arc<Told>) -> Relay {
    Relay::new(Arc::clone(&world.plane.control), Sink::Kafka, manner, told.deliver())
}

/// Events of three consultations, two of each, as they would be stored.
async fn stored(world: &World) -> Vec<Event> {
    let sessions = [Uuid::new_v4(), Uuid::new_v4(), Uuid::new_v4()];
    let news = [News::PatientWaiting {}, News::BothConnected {}];
    let events: Vec<Event> = news
        .iter()
        .flat_map(|news| sessions.map(|session| (news.clone(), session)))
        .map(|(news, session_id)| {
            let about = crate::events::About { session_id, ..samples::about() };
            let event = samples::event(store::now(), Some(about), news);
            Event { id: Uuid::now_v7(), ..event }
        })
        .collect();
    let sinks = [Sink::Kafka];
    let along = Along { events: &events, sinks: &sinks, message: None };
    let db = &world.plane.control.db;
    assert!(db.append_events(&along, store::now()).await.expect("stores"));
    events
}

fn ids(events: &[Event]) -> Vec<Uuid> {
    events.iter().map(|event| event.id).collect()
}

async fn backlog(world: &World) -> i64 {
    world.plane.control.db.backlog(&Sink::Kafka).await.expect("counts")
}

async fn events_arrive_once_and_in_order(database: Database) {
    let world = World::new(database).await;
    let events = stored(&world).await;
    let told = Arc::new(Told::default());
    let mut relay = relay(&world, QUICK, &told);
    assert_eq!(relay.turn().await, Turn::Sent);
    assert_eq!(relay.turn().await, Turn::Idle);
    assert_eq!(told.got(), ids(&events));
    assert_eq!(*locked(&told.calls), [3, 3], "no two events of a consultation at once");
    assert_eq!(backlog(&world).await, 0);

    let told = Arc::new(Told::default());
    let events = stored(&world).await;
    relay.deliver = told.deliver();
    relay.manner.at_once = 1;
    assert_eq!(relay.turn().await, Turn::Sent);
    assert_eq!((told.got(), locked(&told.calls).len()), (ids(&events), 6));
}

async fn what_is_refused_holds_up_its_own_consultation_only(database: Database) {
    let world = World::new(database).await;
    let events = stored(&world).await;
    let all = ids(&events);
    let told = Arc::new(Told::default());
    told.says(all[1], [Outcome::Refused("no".to_owned()), Outcome::Refused("no".to_owned())]);
    // Long enough for a turn on a busy machine.
    const PAUSES: &[Duration] = &[Duration::from_secs(3)];
    let manner = Manner { pauses: PAUSES, ..QUICK };
    let mut relay = relay(&world, manner, &told);
    assert_eq!(relay.turn().await, Turn::Sent);
    assert_eq!(told.got(), [all[0], all[2], all[3], all[5]], "the second one's later event waits");
    assert_eq!(relay.turn().await, Turn::Idle, "it is not its time yet");
    assert_eq!(backlog(&world).await, 2);
    let late = tokio::time::Instant::now() + Duration::from_secs(60);
    while backlog(&world).await > 0 {
        assert!(tokio::time::Instant::now() < late, "{} are left", backlog(&world).await);
        tokio::time::sleep(Duration::from_millis(20)).await;
        relay.turn().await;
    }
    assert_eq!(told.got()[4..], [all[1], all[4]]);
    let counts = world.plane.control.counters.outbox();
    assert_eq!((counts[0].0.as_str(), counts[0].1.sent, counts[0].1.refused), ("kafka", 6, 2));
}

async fn a_sink_that_is_away_loses_nothing(database: Database) {
    let world = World::new(database).await;
    let events = stored(&world).await;
    let all = ids(&events);
    let told = Arc::new(Told::default());
    told.says(all[1], [Outcome::Away, Outcome::Away]);
    let mut relay = relay(&world, QUICK, &told);
    assert_eq!(relay.turn().await, Turn::Away);
    assert!(relay.pause_of_absence() <= Duration::from_millis(500));
    assert_eq!(relay.turn().await, Turn::Away);
    assert!(relay.pause_of_absence() > Duration::from_millis(500), "it waits longer each time");
    assert_eq!(relay.turn().await, Turn::Sent);
    assert_eq!(relay.absences, 0);
    let expected = [all[0], all[2], all[3], all[5], all[1], all[4]];
    let (mut got, mut expected) = (told.got(), expected.to_vec());
    // What was on its way together with the unanswered one does not arrive twice.
    let place = |got: &[Uuid], id| got.iter().position(|one| *one == id);
    assert!(place(&got, all[1]) < place(&got, all[4]));
    got.sort_unstable();
    expected.sort_unstable();
    assert_eq!(got, expected);
    assert_eq!(backlog(&world).await, 0);
}

async fn what_stays_refused_holds_up_nothing_for_ever(database: Database) {
    let world = World::new(database).await;
    let events = stored(&world).await;
    let told = Arc::new(Told::default());
    let stubborn = events[0].id;
    told.says(stubborn, std::iter::repeat_n(Outcome::Refused("no".to_owned()), 1_000));
    // Long enough for everything else to be looked at while it waits.
    let slow = [Duration::from_millis(1), Duration::from_millis(1), Duration::from_secs(3_600)];
    let manner = Manner { pauses: Box::leak(Box::new(slow)), in_order: 3, ..QUICK };
    let mut relay = relay(&world, manner, &told);
    let late = tokio::time::Instant::now() + Duration::from_secs(60);
    while told.got().len() < events.len() - 1 {
        assert!(tokio::time::Instant::now() < late, "{} arrived", told.got().len());
        relay.turn().await;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(!told.got().contains(&stubborn));
    let backlog = world.plane.control.db.backlog(&Sink::Kafka).await.expect("counts");
    assert_eq!(backlog, 1, "it is not lost");
}

async fn who_closes_gives_its_lease_back(database: Database) {
    // Nobody answers at the broker's place: the relay tries again and again.
    let world = World::with(database, |config| {
        config.rabbitmq = Some(crate::RabbitConfig { port: 1, ..Default::default() });
    })
    .await;
    let (_facts, heard) = tokio::sync::mpsc::channel(8);
    let running = tokio::spawn(world.plane.clone().run(heard));
    world.session().await;
    let other = world.beside().await;
    let lease = async || {
        let (db, now) = (&other.plane.control.db, store::now());
        // As if it was needed for no time at all.
        db.lease("rabbitmq", Uuid::nil(), now, now).await.expect("the database answers")
    };
    let late = tokio::time::Instant::now() + Duration::from_secs(60);
    while lease().await {
        assert!(tokio::time::Instant::now() < late, "nobody sends");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    world.plane.close().await;
    assert!(lease().await, "another one may send at once");
    tokio::time::timeout(Duration::from_secs(60), running).await.expect("it ends").expect("well");
}

async fn what_stays_refused_is_given_up(database: Database) {
    let world = World::new(database).await;
    let events = stored(&world).await;
    let all = ids(&events);
    let told = Arc::new(Told::default());
    told.says(all[0], vec![Outcome::Refused("no".to_owned()); 100]);
    let limit = Some(Duration::from_millis(300));
    let mut relay = relay(&world, Manner { give_up: limit, ..QUICK }, &told);
    let parked = || world.plane.control.counters.outbox()[0].1.parked;
    for _ in 0..200 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        relay.turn().await;
        if parked() > 0 {
            break;
        }
    }
    assert_eq!(parked(), 1);
    relay.turn().await;
    assert_eq!(told.got().last(), Some(&all[3]), "the consultation's next event goes on");
    assert_eq!(backlog(&world).await, 0);
    let db = &world.plane.control.db;
    let late = store::now() + chrono::Duration::seconds(1);
    assert_eq!(db.sweep_mailboxes(late, 10).await.expect("sweeps"), 6, "it is forgotten in time");
}

async fn one_of_two_relays_sends(database: Database) {
    let url = database.url.clone();
    let world = World::new(database).await;
    let config = crate::ControlConfig { database_url: url, ..world.plane.control.config.clone() };
    let other = crate::ControlPlane::open(config).await.expect("a second process");
    stored(&world).await;
    let (first, second) = (Arc::new(Told::default()), Arc::new(Told::default()));
    let mut one = relay(&world, QUICK, &first);
    let other = Arc::clone(&other.control);
    let mut two = Relay::new(Arc::clone(&other), Sink::Kafka, QUICK, second.deliver());
    assert_eq!(one.turn().await, Turn::Sent);
    stored(&world).await;
    assert_eq!(two.turn().await, Turn::Idle, "the lease is the first one's");
    assert_eq!((first.got().len(), second.got().len()), (6, 0));
    let db = &world.plane.control.db;
    db.release_leases(world.plane.control.instance).await.expect("releases");
    assert_eq!(two.turn().await, Turn::Sent, "nobody waits for a lease that was given back");
    assert_eq!(second.got().len(), 6);
    one.held_until = None;
    stored(&world).await;
    assert_eq!(one.turn().await, Turn::Idle);
}

async fn a_long_delivery_keeps_the_lease(database: Database) {
    let world = World::new(database).await;
    stored(&world).await;
    let told = Arc::new(Told { slow: RENEWAL + Duration::from_millis(300), ..Told::default() });
    let mut slow = relay(&world, QUICK, &told);
    // Nearly over when the delivery begins: only a renewal in the middle saves it.
    assert!(slow.renew().await.expect("the database answers"));
    slow.held_until = Some(store::now() + LEASE * 2 / 3);
    let control = &world.plane.control;
    let until = store::now() + LEASE * 2 / 3;
    let shortened = control.db.lease("kafka", control.instance, store::now(), until).await;
    assert!(shortened.expect("the database answers"));
    let before = slow.held_until;
    let unsent = slow.unsent().await.expect("reads");
    let (batch, _) = next_batch(unsent, 256, &HashSet::new());
    assert_eq!(slow.deliver(batch).await.map(|outcomes| outcomes.len()), Some(3));
    assert!(slow.held_until > before);

    // Somebody else took it: the delivery is given up.
    let other = Uuid::new_v4();
    control.db.release_leases(control.instance).await.expect("releases");
    let far = store::now() + LEASE * 9;
    assert!(control.db.lease("kafka", other, store::now(), far).await.expect("leases"));
    slow.held_until = None;
    let batch = slow.unsent().await.expect("reads");
    assert_eq!(slow.deliver(batch).await, None);
}

async fn what_nobody_serves_is_given_up(database: Database) {
    let world = World::new(database).await;
    stored(&world).await;
    let db = &world.plane.control.db;
    let now = store::now();
    let later = now + chrono::Duration::seconds(1);
    assert_eq!(db.park_orphans(&[Sink::Kafka], later, now).await.expect("parks"), 0);
    assert_eq!(db.park_orphans(&[Sink::RabbitMq], now - LEASE, now).await.expect("parks"), 0);
    assert_eq!(db.park_orphans(&[Sink::RabbitMq], later, now).await.expect("parks"), 6);
    assert_eq!(backlog(&world).await, 0);
}

#[test]
fn pauses_differ_and_end() {
    let manner = Manner::default();
    assert_eq!(manner.pause(0), Duration::from_millis(500));
    assert_eq!(manner.pause(7), manner.pause(i64::MAX));
    assert_eq!(manner.pause(-1), manner.pause(7), "a number that cannot be");
    for _ in 0..100 {
        let pause = spread(Duration::from_secs(4));
        assert!((3_000..=4_000).contains(&pause.as_millis()), "{pause:?}");
    }
}
