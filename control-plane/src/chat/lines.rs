//! Lines that the server itself writes into the chat: who came in, who went, and the end.
//!
//! They are stored as messages of type `system`. Beside the English text they carry a word
//! (`event`), so that a page says it in its own language.

use crate::consultation::{Consultation, Happening, Status, Transition};
use crate::control::Control;
use crate::store::{MessageKind, NewMessage};

use super::writer::Job;

/// Who writes them.
const SENDER: &str = "system";

impl Control {
    /// Writes down what has happened, where people in the chat should see it.
    pub(crate) fn write_lines(&self, after: &Consultation, made: &[Transition]) {
        for transition in made {
            let Some(content) = line(after, transition) else { continue };
            let event = transition.happening.as_str();
            let about = transition.user_id.as_deref().unwrap_or_default();
            let message = NewMessage {
                session_id: after.id,
                sender_id: SENDER.to_owned(),
                sender_name: String::new(),
                sender_type: SENDER,
                kind: MessageKind::System,
                content,
                // An attempt whose answer was lost is not written twice.
                client_id: Some(format!("{event}:{}:{about}", transition.at.timestamp_micros())),
                system_event: Some(event),
                attachment: None,
                at: transition.at,
                audit: None,
            };
            let live = self.live.enter(after.id);
            let consultation = std::sync::Arc::new(after.clone());
            let message = Box::new(message);
            let job = Job::Post { live, consultation, message, reply: None };
            if self.chat.give(job).is_err() {
                tracing::warn!("too much waits for the chat's writer; a line is lost");
            }
        }
    }
}

fn line(after: &Consultation, transition: &Transition) -> Option<String> {
    let name = || {
        let person = transition.user_id.as_deref().and_then(|id| after.person(id));
        let name = person.map_or("", |person| person.name.reveal().as_str());
        if name.trim().is_empty() { "Somebody".to_owned() } else { name.to_owned() }
    };
    match transition.happening {
        Happening::Admitted => Some(format!("{} was let in.", name())),
        Happening::SentBack => Some(format!("{} is back in the waiting room.", name())),
        Happening::Left => Some(format!("{} has left.", name())),
        Happening::ConnectionLost => Some(format!("{} has lost the connection.", name())),
        Happening::Reopened => Some("The consultation is open again.".to_owned()),
        Happening::Paused => Some("The consultation is paused.".to_owned()),
        Happening::Resumed => Some("The consultation goes on.".to_owned()),
        Happening::Ended => match after.status {
            Status::Completed => Some("The consultation has ended.".to_owned()),
            Status::Cancelled => Some("The consultation was called off.".to_owned()),
            Status::Scheduled
            | Status::Waiting
            | Status::InProgress
            | Status::Paused
            | Status::Failed
            | Status::NoShow => None,
        },
        Happening::Failed => Some("The consultation ended: a technical failure.".to_owned()),
        Happening::Created
        | Happening::PatientJoined
        | Happening::DoctorJoined
        | Happening::GuestJoined
        | Happening::WentAway
        | Happening::Removed
        | Happening::Connected
        | Happening::Reconnected
        | Happening::Reconnecting
        | Happening::ReconnectAttempt
        | Happening::Disconnected
        | Happening::DeviceChanged
        | Happening::Measured
        | Happening::BothConnected
        | Happening::Rescheduled
        | Happening::RoomOpened
        | Happening::Muted(..)
        | Happening::Started => None,
    }
}
