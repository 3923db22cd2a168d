//! Participants meet in a room for a while and say what they sent and received:
//!
//! ```text
//! cargo run -p bedside-client --example meet -- ws://127.0.0.1:8000 10 TOKEN [TOKEN …]
//! ```
//!
//! The number is seconds; each token is one participant (`bedside token room` prints them). Every
//! one publishes and receives; after half the time the first one loses its signal connection.

#![allow(clippy::print_stdout, reason = "this is what a program to be run by hand is for")]

use std::time::Duration;

use bedside_client::{ConnectOptions, Participant, ParticipantEvent, Publish};
use bedside_sfu::core::api::{DataChannelKind, Private};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next().ok_or("usage: meet URL SECONDS TOKEN…")?;
    let half = Duration::from_secs(arguments.next().ok_or("how many seconds?")?.parse()?) / 2;
    let mut present = Vec::new();
    for token in arguments {
        let mut options = ConnectOptions::new(url.clone(), token);
        options.publish = Publish { microphone: true, camera: true, ..Publish::default() };
        let (participant, mut events) = Participant::connect(options).await?;
        let number = present.len();
        tokio::spawn(async move {
            while let Some(event) = events.recv().await {
                match event {
                    ParticipantEvent::Participants(_) => {}
                    ParticipantEvent::Joined { others, .. } => {
                        println!("{number}: joined, {} others", others.len());
                    }
                    ParticipantEvent::Data(message) => {
                        println!(
                            "{number}: {:?} data, {} bytes",
                            message.kind,
                            message.payload.len()
                        );
                    }
                    event => println!("{number}: {event:?}"),
                }
            }
        });
        present.push(participant);
    }
    tokio::time::sleep(half).await;
    if let Some(first) = present.first() {
        for kind in [DataChannelKind::Reliable, DataChannelKind::Lossy] {
            first
                .send_data(bedside_client::DataMessage {
                    kind,
                    topic: String::new(),
                    payload: "hello".into(),
                    from: Private::default(),
                    to: Vec::new(),
                })
                .await?;
        }
        first.cut_signal().await?;
    }
    tokio::time::sleep(half).await;
    for (number, participant) in present.iter().enumerate() {
        let stats = participant.stats();
        for track in &stats.sent {
            println!("{number} sent {track:?}");
        }
        for track in &stats.received {
            println!("{number} received {track:?}");
        }
        let (sent, received) = (stats.feedback_sent, stats.feedback_received);
        println!(
            "{number} feedback {sent} sent {received} received, {} resumes, {} rejoins, {} unsent, \
             {} unknown packets, {} missed events",
            stats.resumes, stats.rejoins, stats.unsent, stats.unknown_packets, stats.missed_events
        );
        participant.leave().await?;
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    Ok(())
}
