//! The handle to a participant, what it is made from, and what it tells.

use std::sync::Arc;
use std::time::Duration;

use bedside_sfu::core::api::{DataChannelKind, MediaKind, Private};
use bytes::Bytes;
use livekit_protocol as proto;
use tokio::sync::{mpsc, watch};

use crate::call::Call;
use crate::signal::SignalError;
use crate::stats::Stats;
use crate::timed::Ear;

/// Events that may wait; more are dropped and counted, media never waits.
const EVENTS: usize = 1024;
/// Commands that may wait.
const COMMANDS: usize = 64;

/// How to join.
#[derive(Clone, Debug)]
pub struct ConnectOptions {
    /// Base URL of the server, `ws://…` or `http://…`.
    pub url: String,
    /// Room token.
    pub token: Private<String>,
    /// What to publish.
    pub publish: Publish,
    /// Receive every track of the others.
    pub subscribe: bool,
    /// Is told of timed packets ([`Publish::timed`]). What such a participant receives is counted and
    /// repaired, but not played out.
    pub ear: Option<Arc<dyn Ear>>,
    /// How long the socket is left alone once it was looked at. Who plays hundreds of participants
    /// looks less often; what waits meanwhile keeps its time of arrival.
    pub rest: Duration,
}

impl ConnectOptions {
    /// Joins, receives everything and publishes nothing.
    #[must_use]
    pub fn new(url: impl Into<String>, token: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            token: Private::new(token.into()),
            publish: Publish::default(),
            subscribe: true,
            ear: None,
            rest: Duration::ZERO,
        }
    }
}

/// What a participant publishes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Publish {
    /// The tone: Opus, 49 kbit/s.
    pub microphone: bool,
    /// The picture: VP8, 640 × 360, 20 frames a second, about 300 kbit/s.
    pub camera: bool,
    /// Simulcast layers of the picture: 2 = 320 × 180 and 640 × 360, 3 = also 160 × 90, each with
    /// three temporal layers and keyframes on request. Fewer: none, and a keyframe each second.
    pub layers: u8,
    /// Earlier packets that each packet of the tone repeats (RFC 2198), up to 3. Browsers repeat one.
    pub redundancy: u8,
    /// Nothing to be heard or seen: packets of a browser's sizes (a picture of 1.2 Mbit/s and 30 frames
    /// a second in bursts, sounds of 80 to 100 bytes) that carry the time at which they left.
    pub timed: bool,
}

/// Why no participant came to be.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// No signal connection.
    #[error("cannot reach the room door")]
    Signal(#[from] SignalError),
    /// The server said no once the connection was open.
    #[error("server ended the join with reason {0}")]
    Refused(i32),
    /// The server did not answer the join.
    #[error("server did not answer the join")]
    TimedOut,
    /// No certificate could be made.
    #[error("cannot make a certificate")]
    Identity(#[from] bedside_sfu::core::peer::IdentityError),
}

/// What happens to a participant.
#[derive(Clone, Debug)]
pub enum ParticipantEvent {
    /// It is in the room (again, after a full rejoin).
    Joined {
        /// Its id.
        sid: String,
        /// Who else is there.
        others: Vec<proto::ParticipantInfo>,
    },
    /// Media can flow.
    Connected,
    /// One's own track has its id.
    Published {
        /// The track.
        sid: String,
        /// Audio or video.
        kind: MediaKind,
    },
    /// An answer brought this track.
    Subscribed {
        /// The track.
        sid: String,
    },
    /// Others (or oneself) came, changed or left.
    Participants(Vec<proto::ParticipantInfo>),
    /// A data message came.
    Data(DataMessage),
    /// The signal connection is gone; it is being opened again.
    Reconnecting,
    /// The same presence goes on with a new signal connection.
    Resumed,
    /// The end; nothing follows.
    Left(LeaveCause),
}

/// Why a participant left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaveCause {
    /// It was asked to.
    Asked,
    /// The server said so; the number is the protocol's `DisconnectReason`.
    Server(i32),
    /// The server could not be reached any more.
    Unreachable,
}

/// A data message, as it came or as it is to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataMessage {
    /// Which channel.
    pub kind: DataChannelKind,
    /// Topic; may be empty.
    pub topic: String,
    /// The message.
    pub payload: Bytes,
    /// Who sent it (on the way out: ignored).
    pub from: Private<String>,
    /// Receivers by identity; empty = everyone (on the way in: as sent).
    pub to: Vec<Private<String>>,
}

/// The participant has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("participant has left")]
pub struct Gone;

pub(crate) enum Command {
    Mute { kind: MediaKind, muted: bool },
    SendData(DataMessage),
    CutSignal,
    RestartIce,
    ChangeNetwork,
    Leave,
}

/// A participant in a room. It leaves when the handle is dropped.
#[derive(Debug)]
pub struct Participant {
    commands: mpsc::Sender<Command>,
    stats: watch::Receiver<Stats>,
}

impl Participant {
    /// Joins a room. Returns once the server has let the participant in; media connects later and is
    /// told by [`ParticipantEvent::Connected`].
    ///
    /// # Errors
    /// The server cannot be reached, or refuses.
    pub async fn connect(
        options: ConnectOptions,
    ) -> Result<(Self, mpsc::Receiver<ParticipantEvent>), ConnectError> {
        let (commands, command_receiver) = mpsc::channel(COMMANDS);
        let (events, event_receiver) = mpsc::channel(EVENTS);
        let (stats_sender, stats) = watch::channel(Stats::default());
        let mut call = Call::new(options, command_receiver, events, stats_sender)?;
        call.join().await?;
        tokio::spawn(call.run());
        Ok((Self { commands, stats }, event_receiver))
    }

    /// What was sent and received.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.stats.borrow().clone()
    }

    /// Mutes or unmutes the published track of a kind: it falls silent, and the others are told.
    ///
    /// # Errors
    /// The participant has left.
    pub async fn mute(&self, kind: MediaKind, muted: bool) -> Result<(), Gone> {
        self.command(Command::Mute { kind, muted }).await
    }

    /// Sends a data message. Before its channel is open it waits.
    ///
    /// # Errors
    /// The participant has left.
    pub async fn send_data(&self, message: DataMessage) -> Result<(), Gone> {
        self.command(Command::SendData(message)).await
    }

    /// Drops the signal connection without a word, as a failing network does. The participant
    /// resumes by itself; media goes on.
    ///
    /// # Errors
    /// The participant has left.
    pub async fn cut_signal(&self) -> Result<(), Gone> {
        self.command(Command::CutSignal).await
    }

    /// Restarts ICE: new credentials, new checks; media goes on.
    ///
    /// # Errors
    /// The participant has left.
    pub async fn restart_ice(&self) -> Result<(), Gone> {
        self.command(Command::RestartIce).await
    }

    /// Does what an application does when the system tells that another network carries it now (from
    /// Wi-Fi to mobile): a new socket for media, checked at once, and a new signal connection.
    ///
    /// # Errors
    /// The participant has left.
    pub async fn change_network(&self) -> Result<(), Gone> {
        self.command(Command::ChangeNetwork).await
    }

    /// Leaves the room. [`ParticipantEvent::Left`] follows.
    ///
    /// # Errors
    /// The participant has left already.
    pub async fn leave(&self) -> Result<(), Gone> {
        self.command(Command::Leave).await
    }

    async fn command(&self, command: Command) -> Result<(), Gone> {
        self.commands.send(command).await.map_err(|_| Gone)
    }
}
