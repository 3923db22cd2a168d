//! Notices: what concerns one person, wherever it listens for itself.
//!
//! They go to whoever subscribed to its own notifications, and to a doctor's list. Nothing of them
//! is stored: whoever connects hears how things stand.

use crate::consultation::{Consultation, Happening, Presence, Transition};
use crate::control::Control;
use crate::frames::{Notice, ServerFrame};

impl Control {
    /// Tells everyone whom a change concerns.
    pub(crate) fn notify_change(&self, after: &Consultation, made: &[Transition]) {
        for transition in made {
            let about = transition.user_id.as_deref();
            match transition.happening {
                Happening::Admitted => self.notice(after, about, &Notice::Admitted),
                Happening::SentBack => self.notice(after, about, &Notice::SentBack),
                Happening::PatientJoined | Happening::GuestJoined => {
                    let waits = |p: &&crate::consultation::Person| p.presence == Presence::Waiting;
                    let waiting = after.people.iter().filter(waits).count();
                    if waiting > 0 {
                        self.notice(after, Some(&after.doctor_id), &Notice::Waiting { waiting });
                    }
                }
                Happening::Ended | Happening::Failed => {
                    let status = after.status.as_str();
                    for person in &after.people {
                        self.notice(after, Some(&person.user_id), &Notice::Ended { status });
                    }
                }
                Happening::Created
                | Happening::DoctorJoined
                | Happening::WentAway
                | Happening::Left
                | Happening::Removed
                | Happening::Connected
                | Happening::Reconnected
                | Happening::Reconnecting
                | Happening::ReconnectAttempt
                | Happening::Disconnected
                | Happening::ConnectionLost
                | Happening::DeviceChanged
                | Happening::Measured
                | Happening::BothConnected
                | Happening::Reopened
                | Happening::Rescheduled
                | Happening::RoomOpened
                | Happening::Muted(..)
                | Happening::Started
                | Happening::Paused
                | Happening::Resumed => {}
            }
        }
    }

    fn notice(&self, consultation: &Consultation, user_id: Option<&str>, notice: &Notice) {
        let Some(user_id) = user_id else { return };
        self.live.notify(&consultation.clinic, user_id, || {
            let notice = notice.clone();
            ServerFrame::Notification { session_id: consultation.id, notice }.text()
        });
    }
}
