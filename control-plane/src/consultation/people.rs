//! Steps of single persons: they come, wait, are let in, connect, lose their connection, go.
//!
//! ```text
//! connected ──▶ reconnecting ──▶ connected      (the same presence, or a new one in its place)
//!                    └──▶ left, connection lost  (too long, or too many attempts)
//! ```
//!
//! Whose connection is lost may still come back by itself, as from any other absence.

use super::{
    Consultation, Device, Figures, Happening, Log, Person, PersonRole, Presence, Refusal, Sense,
    Status,
};
use crate::Private;

impl Person {
    /// Somebody of whom nothing is known but who it is.
    fn new(user_id: &str, name: Private<String>, role: PersonRole) -> Self {
        Self {
            user_id: user_id.to_owned(),
            name,
            role,
            presence: Presence::Left,
            admitted: role == PersonRole::Doctor,
            waiting_since: None,
            joined_at: None,
            left_at: None,
            rejoin_count: 0,
            device: Device::default(),
            lost_since: None,
            reconnect_attempts: 0,
            connection_lost: false,
            figures: Figures::default(),
        }
    }

    /// Its connection is a matter of the past: it is up, or the person has gone.
    const fn forget_loss(&mut self) {
        self.lost_since = None;
        self.reconnect_attempts = 0;
        self.connection_lost = false;
    }

    /// It is here no longer.
    pub(super) const fn go(&mut self, log: &Log<'_>) {
        self.presence = Presence::Left;
        self.left_at = Some(log.now);
        self.forget_loss();
    }
}

impl Consultation {
    pub(super) fn arrive(
        &mut self,
        log: &mut Log<'_>,
        user_id: &str,
        name: Option<&Private<String>>,
        device: &Device,
    ) -> Result<(), Refusal> {
        self.must_not_be_over()?;
        let role = self.role_of(user_id);
        let known_name = match role {
            PersonRole::Doctor => self.doctor_name.clone(),
            PersonRole::Patient => self.patient_name.clone(),
            PersonRole::Guest => Private::new(String::new()),
        };
        let seat_free = self.seats_taken() < self.max_participants;
        let index = match self.people.iter().position(|person| person.user_id == user_id) {
            Some(index) => index,
            None => {
                self.people.push(Person::new(user_id, known_name, role));
                self.people.len() - 1
            }
        };
        let Some(person) = self.people.get_mut(index) else { return Err(Refusal::NotHere) };
        let other_device = !device.is_unknown() && person.device != *device;
        if other_device {
            person.device = device.clone();
        }
        if person.presence != Presence::Left {
            if other_device {
                log.person(Happening::DeviceChanged, user_id, self.status);
            }
            return Ok(());
        }
        if let Some(name) = name.filter(|name| !name.reveal().is_empty()) {
            person.name = name.clone();
        }
        if role == PersonRole::Doctor {
            // Only the server's own `Remove` takes this away, and a new link gives it back.
            person.admitted = true;
        } else if !seat_free {
            // Somebody took the place meanwhile: wait again, like anybody else.
            person.admitted = false;
        }
        person.forget_loss();
        if person.admitted {
            person.presence = Presence::Admitted;
        } else {
            person.presence = Presence::Waiting;
            person.waiting_since.get_or_insert(log.now);
        }
        let (happening, first) = match role {
            PersonRole::Doctor => (Happening::DoctorJoined, Some(&mut self.doctor_joined_at)),
            PersonRole::Patient => (Happening::PatientJoined, Some(&mut self.patient_joined_at)),
            PersonRole::Guest => (Happening::GuestJoined, None),
        };
        if let Some(first) = first {
            first.get_or_insert(log.now);
        }
        if self.status == Status::Scheduled {
            self.status = Status::Waiting;
        }
        log.person(happening, user_id, self.status);
        Ok(())
    }

    pub(super) fn admit(&mut self, log: &mut Log<'_>, user_id: &str) -> Result<(), Refusal> {
        self.must_not_be_over()?;
        let full = self.seats_taken() >= self.max_participants;
        let person = self.person_mut(user_id)?;
        if person.role == PersonRole::Doctor || person.admitted {
            return Ok(());
        }
        if person.presence != Presence::Waiting {
            return Err(Refusal::NotHere);
        }
        if full {
            return Err(Refusal::Full);
        }
        person.admitted = true;
        person.presence = Presence::Admitted;
        person.waiting_since = None;
        log.person(Happening::Admitted, user_id, self.status);
        self.begin(log);
        Ok(())
    }

    pub(super) fn send_back(&mut self, log: &mut Log<'_>, user_id: &str) -> Result<(), Refusal> {
        self.must_not_be_over()?;
        let person = self.person_mut(user_id)?;
        if person.role == PersonRole::Doctor {
            return Err(Refusal::Doctor);
        }
        if !person.admitted {
            return Ok(());
        }
        person.admitted = false;
        person.presence = match person.presence {
            Presence::Left => Presence::Left,
            Presence::Waiting
            | Presence::Admitted
            | Presence::Connected
            | Presence::Reconnecting => Presence::Waiting,
        };
        person.waiting_since = Some(log.now);
        person.forget_loss();
        log.person(Happening::SentBack, user_id, self.status);
        Ok(())
    }

    pub(super) fn leave(&mut self, log: &mut Log<'_>, user_id: &str) -> Result<(), Refusal> {
        let person = self.person_mut(user_id)?;
        // Somebody who went away gives up its place in the queue.
        if person.presence == Presence::Left && person.waiting_since.is_none() {
            return Ok(());
        }
        person.waiting_since = None;
        person.go(log);
        log.person(Happening::Left, user_id, self.status);
        Ok(())
    }

    pub(super) fn go_away(&mut self, log: &mut Log<'_>, user_id: &str) -> Result<(), Refusal> {
        let person = self.person_mut(user_id)?;
        if person.presence != Presence::Waiting {
            return Ok(());
        }
        person.go(log);
        log.person(Happening::WentAway, user_id, self.status);
        Ok(())
    }

    pub(super) fn remove(&mut self, log: &mut Log<'_>, user_id: &str) -> Result<(), Refusal> {
        let person = self.person_mut(user_id)?;
        if !person.admitted && person.presence == Presence::Left {
            return Ok(());
        }
        person.admitted = false;
        person.waiting_since = None;
        person.go(log);
        log.person(Happening::Removed, user_id, self.status);
        Ok(())
    }

    pub(super) fn connect(&mut self, log: &mut Log<'_>, user_id: &str) -> Result<(), Refusal> {
        self.must_not_be_over()?;
        let person = self.person_mut(user_id)?;
        if !person.admitted {
            return Err(Refusal::NotHere);
        }
        let happening = match person.presence {
            Presence::Connected => return Ok(()),
            Presence::Reconnecting => Happening::Reconnected,
            Presence::Waiting | Presence::Admitted | Presence::Left => {
                if person.joined_at.is_some() {
                    person.rejoin_count += 1;
                }
                Happening::Connected
            }
        };
        person.presence = Presence::Connected;
        person.joined_at.get_or_insert(log.now);
        person.forget_loss();
        log.person(happening, user_id, self.status);
        self.meet(log);
        Ok(())
    }

    /// Doctor and patient both have media: it has begun, if it had not, and they have met.
    fn meet(&mut self, log: &mut Log<'_>) {
        let connected = |user_id: &str| {
            self.person(user_id).is_some_and(|person| person.presence == Presence::Connected)
        };
        if !connected(&self.doctor_id) || !connected(&self.patient_id) {
            return;
        }
        self.begin(log);
        if self.both_connected_at.is_none() {
            self.both_connected_at = Some(log.now);
            log.all(Happening::BothConnected, self.status, None);
        }
    }

    pub(super) fn lose(&mut self, log: &mut Log<'_>, user_id: &str) -> Result<(), Refusal> {
        let person = self.person_mut(user_id)?;
        if person.presence == Presence::Connected {
            person.presence = Presence::Reconnecting;
            person.lost_since = Some(log.now);
            person.reconnect_attempts = 0;
            log.person(Happening::Reconnecting, user_id, self.status);
        }
        Ok(())
    }

    /// It tries to come back.
    pub(super) fn attempt(&mut self, log: &mut Log<'_>, user_id: &str) -> Result<(), Refusal> {
        let person = self.person_mut(user_id)?;
        if person.presence == Presence::Reconnecting {
            person.reconnect_attempts += 1;
            log.person(Happening::ReconnectAttempt, user_id, self.status);
        }
        Ok(())
    }

    /// Nobody waits for its connection any more. Coming back is still allowed.
    pub(super) fn give_up(&mut self, log: &mut Log<'_>, user_id: &str) -> Result<(), Refusal> {
        let person = self.person_mut(user_id)?;
        if person.presence == Presence::Reconnecting {
            person.go(log);
            person.connection_lost = true;
            log.person(Happening::Disconnected, user_id, self.status);
            log.person(Happening::ConnectionLost, user_id, self.status);
        }
        Ok(())
    }

    pub(super) fn disconnect(&mut self, log: &mut Log<'_>, user_id: &str) -> Result<(), Refusal> {
        let person = self.person_mut(user_id)?;
        match person.presence {
            Presence::Connected | Presence::Reconnecting => {
                person.go(log);
                log.person(Happening::Disconnected, user_id, self.status);
            }
            // Sent back, or the fact is older than what we know.
            Presence::Waiting | Presence::Admitted | Presence::Left => {}
        }
        Ok(())
    }

    /// The room tells of changes only.
    pub(super) fn mute(
        &mut self,
        log: &mut Log<'_>,
        user_id: &str,
        sense: Sense,
        muted: bool,
    ) -> Result<(), Refusal> {
        self.must_not_be_over()?;
        let person = self.person_mut(user_id)?;
        if person.presence != Presence::Left {
            log.person(Happening::Muted(sense, muted), user_id, self.status);
        }
        Ok(())
    }

    /// What was measured comes after the person has gone, and even after the end.
    pub(super) fn measure(
        &mut self,
        log: &mut Log<'_>,
        user_id: &str,
        figures: &Figures,
    ) -> Result<(), Refusal> {
        let person = self.person_mut(user_id)?;
        let together = person.figures.with(figures);
        if together != person.figures {
            person.figures = together;
            log.person(Happening::Measured, user_id, self.status);
        }
        Ok(())
    }
}
