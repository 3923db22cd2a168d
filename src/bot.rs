//! The synthetic patient: waits like anybody, and comes in with a moving picture and a tone.

use std::time::Duration;

use bedside_client::{ConnectOptions, Participant, ParticipantEvent, Publish};
use bedside_control_plane::token::DEFAULT_CLINIC;
use bedside_control_plane::{ChangeError, ControlPlane, Joined, RoomAccess};
use uuid::Uuid;

/// Its user id.
pub(crate) const USER: &str = "patient-robin";

/// How often it asks whether it was let in.
const ASK: Duration = Duration::from_millis(300);

/// Stays in the waiting room or in the call until the consultation is over.
pub(crate) async fn stay(control: ControlPlane, session: Uuid) {
    loop {
        match control.join(DEFAULT_CLINIC, session, USER).await {
            Ok(Joined::Waiting { .. }) | Err(ChangeError::PaymentRequired) => {}
            Ok(Joined::Room(access)) => visit(&access).await,
            Err(ChangeError::Refused(_) | ChangeError::NotFound) => break,
            Err(error @ (ChangeError::Database(_) | ChangeError::Busy)) => {
                tracing::warn!(%error, "the synthetic patient cannot ask to come in");
            }
        }
        tokio::time::sleep(ASK).await;
    }
    tracing::info!("the synthetic patient has gone home");
}

async fn visit(access: &RoomAccess) {
    let mut options = ConnectOptions::new(&access.url, access.access_token.reveal().clone());
    options.publish = Publish { microphone: true, camera: true, ..Publish::default() };
    match Participant::connect(options).await {
        Ok((participant, mut events)) => {
            tracing::info!("the synthetic patient is in the room");
            while let Some(event) = events.recv().await {
                if matches!(event, ParticipantEvent::Left(_)) {
                    break;
                }
            }
            drop(participant);
        }
        Err(error) => tracing::warn!(%error, "the synthetic patient could not come in"),
    }
}
