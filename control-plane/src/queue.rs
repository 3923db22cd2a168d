//! The queue of a doctor's day: everyone who waits for the same doctor, in whatever consultation.
//!
//! First come, first served, by the time since which a person waits (kept over a reload): nobody
//! who comes later moves anybody back. The doctor still admits whom it wants.
//!
//! Pure: it is told how consultations stand, and answers whose place has changed.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::consultation::{Consultation, Presence};

/// One waiting person.
#[derive(Debug)]
struct Waiter {
    since: Option<DateTime<Utc>>,
    session: Uuid,
    user_id: String,
    /// The place that it was told last.
    told: usize,
}

/// A place to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) session: Uuid,
    pub(crate) user_id: String,
    /// From 1.
    pub(crate) position: usize,
}

/// The queues of all doctors, by clinic and doctor.
#[derive(Debug, Default)]
pub(crate) struct Queues(HashMap<(String, String), Vec<Waiter>>);

impl Queues {
    /// Takes in how a consultation stands now; gives the places that have changed.
    pub(crate) fn update(&mut self, consultation: &Consultation) -> Vec<Place> {
        let key = (consultation.clinic.clone(), consultation.doctor_id.clone());
        let people = consultation.people.iter();
        let mut waiting: Vec<Waiter> = people
            .filter(|p| p.presence == Presence::Waiting && !consultation.status.is_over())
            .map(|person| Waiter {
                since: person.waiting_since,
                session: consultation.id,
                user_id: person.user_id.clone(),
                told: 0,
            })
            .collect();
        if waiting.is_empty() && !self.0.contains_key(&key) {
            return Vec::new();
        }
        let queue = self.0.entry(key.clone()).or_default();
        for waiter in &mut waiting {
            let known = queue
                .iter()
                .find(|known| known.session == waiter.session && known.user_id == waiter.user_id);
            waiter.told = known.map_or(0, |known| known.told);
        }
        queue.retain(|waiter| waiter.session != consultation.id);
        queue.append(&mut waiting);
        queue.sort_by_key(|waiter| (waiter.since, waiter.session));
        let mut moved = Vec::new();
        for (position, waiter) in (1..).zip(queue.iter_mut()) {
            if waiter.told != position {
                waiter.told = position;
                let user_id = waiter.user_id.clone();
                moved.push(Place { session: waiter.session, user_id, position });
            }
        }
        if queue.is_empty() {
            self.0.remove(&key);
        }
        moved
    }

    /// A person's place, from 1; none if it does not wait.
    pub(crate) fn place(&self, consultation: &Consultation, user_id: &str) -> Option<usize> {
        let key = (consultation.clinic.clone(), consultation.doctor_id.clone());
        let mut queue = self.0.get(&key)?.iter();
        let here = |w: &Waiter| w.session == consultation.id && w.user_id == user_id;
        queue.position(here).map(|index| index + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consultation::{Actor, Device, Step};
    use crate::testing::planned;

    fn step(consultation: &mut Consultation, minute: i64, step: &Step) {
        let now = DateTime::UNIX_EPOCH + chrono::Duration::minutes(minute);
        consultation.apply(now, &Actor::Server, step).expect("it fits");
    }

    fn arrive(user_id: &str) -> Step {
        Step::Arrive { user_id: user_id.to_owned(), name: None, device: Device::default() }
    }

    #[test]
    fn people_of_several_consultations_stand_in_one_queue() {
        let mut queues = Queues::default();
        let mut first = planned("north", "doc", "ann");
        let mut second = planned("north", "doc", "ben");
        let mut other = planned("south", "doc", "cid");
        step(&mut first, 1, &arrive("ann"));
        step(&mut second, 2, &arrive("ben"));
        step(&mut other, 0, &arrive("cid"));
        let places = |moved: Vec<Place>| {
            moved.into_iter().map(|p| (p.user_id, p.position)).collect::<Vec<_>>()
        };
        assert_eq!(places(queues.update(&second)), [("ben".to_owned(), 1)]);
        // Ann came before, though we heard of it later.
        assert_eq!(places(queues.update(&first)), [("ann".to_owned(), 1), ("ben".to_owned(), 2)]);
        assert_eq!(places(queues.update(&other)), [("cid".to_owned(), 1)]);
        assert_eq!(queues.place(&second, "ben"), Some(2));
        assert_eq!(queues.place(&second, "ann"), None);
        assert!(queues.update(&first).is_empty(), "nothing has changed");
        step(&mut first, 3, &Step::Admit("ann".to_owned()));
        assert_eq!(places(queues.update(&first)), [("ben".to_owned(), 1)]);
        // Sent back, Ann waits since now: a place further back.
        step(&mut first, 4, &Step::SendBack("ann".to_owned()));
        assert_eq!(places(queues.update(&first)), [("ann".to_owned(), 2)]);
        step(&mut second, 5, &Step::Cancel(None));
        assert_eq!(places(queues.update(&second)), [("ann".to_owned(), 1)]);
        step(&mut first, 6, &Step::End(None));
        assert!(queues.update(&first).is_empty());
        queues.update(&other);
        assert_eq!(queues.place(&first, "ann"), None);
        assert_eq!(queues.0.len(), 1, "only the south still waits");
    }
}
