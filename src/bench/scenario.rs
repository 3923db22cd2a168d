//! What a scenario is made of: who is in which room, and who sends.

use serde::{Deserialize, Serialize};

/// Rooms that run beside the comings and goings of [`Scenario::Churn`].
const STEADY: u64 = 5;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Scenario {
    /// Rooms of two, sound and picture.
    Consultations,
    /// One sends to all.
    Fanout,
    /// All send to all.
    Meeting,
    /// Rooms of two, sound alone.
    Audio,
    /// People come and go.
    Churn,
}

/// One person's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Number of the room.
    pub(super) room: u64,
    /// Sends sound.
    pub(super) microphone: bool,
    /// Sends a picture.
    pub(super) camera: bool,
    /// Comes before the others of the room.
    pub(super) first: bool,
    /// Somebody else sends.
    pub(super) hears: bool,
}

impl Scenario {
    /// Its name on the command line.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Consultations => "consultations",
            Self::Fanout => "fanout",
            Self::Meeting => "meeting",
            Self::Audio => "audio",
            Self::Churn => "churn",
        }
    }

    /// What a level counts.
    pub(super) const fn unit(self) -> &'static str {
        match self {
            Self::Consultations => "consultations",
            Self::Fanout => "receivers",
            Self::Meeting => "people",
            Self::Audio => "consultations by voice",
            Self::Churn => "joins a second",
        }
    }

    /// People who are there at a level. Those of a lower one are the first of them.
    pub(super) const fn people(self, level: u64) -> u64 {
        match self {
            Self::Consultations | Self::Audio => level * 2,
            Self::Fanout => level + 1,
            Self::Meeting => level,
            Self::Churn => STEADY * 2,
        }
    }

    /// Who receives each packet that is sent.
    pub(super) const fn listeners(self, level: u64) -> u64 {
        match self {
            Self::Consultations | Self::Audio | Self::Churn => 1,
            Self::Fanout => level,
            Self::Meeting => level.saturating_sub(1),
        }
    }

    /// Where a person is.
    pub(super) const fn place(self, person: u64) -> Place {
        let first = person == 0;
        match self {
            Self::Consultations | Self::Audio | Self::Churn => Place {
                room: person / 2,
                microphone: true,
                camera: !matches!(self, Self::Audio),
                first: person.is_multiple_of(2),
                hears: true,
            },
            Self::Fanout => {
                Place { room: 0, microphone: first, camera: first, first, hears: !first }
            }
            Self::Meeting => Place { room: 0, microphone: true, camera: true, first, hears: true },
        }
    }

    /// The lowest level that means something.
    pub(super) const fn least(self) -> u64 {
        match self {
            Self::Meeting => 2,
            Self::Consultations | Self::Fanout | Self::Audio | Self::Churn => 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Scenario; 5] = [
        Scenario::Consultations,
        Scenario::Fanout,
        Scenario::Meeting,
        Scenario::Audio,
        Scenario::Churn,
    ];

    #[test]
    fn everybody_who_hears_has_somebody_to_hear() {
        for scenario in ALL {
            for level in scenario.least()..6 {
                let places: Vec<_> =
                    (0..scenario.people(level)).map(|person| scenario.place(person)).collect();
                let sends = |place: &&Place| place.microphone;
                let mut pairs = 0;
                for (at, place) in places.iter().enumerate() {
                    let others = places.iter().enumerate();
                    let others = others.filter(|(other, _)| *other != at).map(|(_, other)| other);
                    let heard =
                        others.filter(|other| other.room == place.room).filter(sends).count();
                    assert_eq!(heard > 0, place.hears, "{scenario:?} {level} {at}");
                    pairs += heard;
                }
                let senders = places.iter().filter(sends).count();
                let expected = senders * scenario.listeners(level) as usize;
                assert_eq!(pairs, expected, "{scenario:?} {level}");
                let rooms: std::collections::BTreeSet<_> = places.iter().map(|p| p.room).collect();
                assert_eq!(places.iter().filter(|place| place.first).count(), rooms.len());
            }
        }
    }
}
