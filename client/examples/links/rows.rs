//! The rows of the table: a network each, what is done on it, and what is promised.

/// One measurement.
#[derive(Debug)]
pub(crate) struct Row {
    /// Its name.
    pub(crate) name: &'static str,
    /// Profile of `tests/netimp/profiles`.
    pub(crate) profile: &'static str,
    /// The network in words.
    pub(crate) words: &'static str,
    /// Seconds after the first frame that are left alone, and seconds measured.
    pub(crate) seconds: (u64, u64),
    pub(crate) course: Course,
    pub(crate) targets: Targets,
}

/// What happens in the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Course {
    /// A doctor and a patient, all the time alike.
    Steady,
    /// The patient has no camera, and repeats so many packets in each.
    Voice(u8),
    /// The link is worse between these seconds after the patient's join.
    Dip(u64, u64),
    /// The link is dead for two seconds, each thirty.
    Flap,
    /// The patient leaves for another network at this second.
    Move(u64),
    /// One who sends, three good receivers and a bad one.
    Four,
    /// As steady, to compare with browsers.
    Check,
}

/// What is promised; what is `None` is not.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Targets {
    /// Per cent of the audio that is made up.
    pub(crate) concealed: Option<f64>,
    /// Per cent of the source's frames.
    pub(crate) frames: Option<f64>,
    /// Per cent of the time in freezes.
    pub(crate) frozen: Option<f64>,
    /// Milliseconds from the join to the first frame.
    pub(crate) join: Option<f64>,
    /// Milliseconds in queues.
    pub(crate) queue: Option<f64>,
    /// Seconds until all is well after what happens.
    pub(crate) back: Option<f64>,
    /// Trend of the mean opinion score.
    pub(crate) mos: Option<f64>,
}

const NONE: Targets = Targets {
    concealed: None,
    frames: None,
    frozen: None,
    join: None,
    queue: None,
    back: None,
    mos: None,
};

const fn steady(
    name: &'static str,
    words: &'static str,
    concealed: f64,
    frames: f64,
    frozen: f64,
    join: f64,
) -> Row {
    Row {
        name,
        profile: name,
        words,
        seconds: (8, 60),
        course: Course::Steady,
        targets: Targets {
            concealed: Some(concealed),
            frames: Some(frames),
            frozen: Some(frozen),
            join: Some(join),
            ..NONE
        },
    }
}

/// Frames are promised of 30 a second; here is their share.
const fn of_30(frames: f64) -> f64 {
    frames / 30.0 * 100.0
}

/// What must be there whatever the source has: so many a second, of our 20.
const fn of_20(frames: f64) -> f64 {
    frames / 20.0 * 100.0
}

/// From the join to the first frame: eight round trips and 300 ms.
const fn start(round_trip: f64) -> f64 {
    8.0 * round_trip + 300.0
}

/// All of them.
pub(crate) const ROWS: [Row; 18] = [
    steady("good", "0 %, 20 ms", 0.1, of_30(28.0), 0.0, start(20.0)),
    with_mos(steady("l5", "5 %, 100 ms", 0.2, of_30(25.0), 1.0, start(100.0)), 4.1),
    with_mos(steady("l10", "10 %, 100 ms", 0.5, of_30(22.0), 3.0, start(100.0)), 4.0),
    with_mos(steady("l20", "20 %, 150 ms", 1.5, of_20(15.0), 8.0, start(150.0)), 3.7),
    Row {
        targets: Targets { concealed: Some(4.0), frames: Some(of_20(10.0)), ..NONE },
        ..steady("l30", "30 %, 200 ms", 4.0, 0.0, 0.0, 0.0)
    },
    Row {
        targets: Targets { concealed: Some(3.0), frozen: Some(10.0), ..NONE },
        ..steady("burst", "10 % in runs of 5 to 20, 100 ms", 0.0, 0.0, 0.0, 0.0)
    },
    Row {
        targets: Targets {
            concealed: Some(0.5),
            frames: Some(of_30(25.0)),
            join: Some(4500.0),
            ..NONE
        },
        ..steady("rtt500", "0 %, 500 ms", 0.0, 0.0, 0.0, 0.0)
    },
    Row {
        targets: Targets {
            concealed: Some(1.0),
            frames: Some(of_20(10.0)),
            queue: Some(250.0),
            ..NONE
        },
        ..steady("cap200", "200 kbit/s, 40 ms, queue 300 ms", 0.0, 0.0, 0.0, 0.0)
    },
    Row {
        seconds: (0, 100),
        course: Course::Dip(30, 60),
        targets: Targets { concealed: Some(1.0), back: Some(12.0), ..NONE },
        ..steady("cap-step", "2 Mbit/s, 200 kbit/s from 30 to 60 s", 0.0, 0.0, 0.0, 0.0)
    },
    Row {
        seconds: (0, 45),
        course: Course::Move(20),
        targets: Targets { back: Some(2.5), ..NONE },
        ..steady("wifi2cell", "another network after 20 s", 0.0, 0.0, 0.0, 0.0)
    },
    Row {
        seconds: (0, 110),
        course: Course::Flap,
        targets: Targets { back: Some(1.0), ..NONE },
        ..steady("flap", "dead for 2 s, each 30 s", 0.0, 0.0, 0.0, 0.0)
    },
    Row {
        targets: Targets { frames: Some(75.0), ..NONE },
        ..steady("rural", "3 %, 250 ms, 40 ms of jitter, 400 kbit/s up", 0.0, 0.0, 0.0, 0.0)
    },
    Row {
        profile: "l60-up",
        // The loss begins after ten seconds.
        seconds: (15, 60),
        course: Course::Voice(1),
        targets: Targets { concealed: Some(20.0), ..NONE },
        ..steady(
            "l60-up",
            "60 % up from 10 s on, 100 ms; voice, one copy as browsers have it",
            0.0,
            0.0,
            0.0,
            0.0,
        )
    },
    Row {
        profile: "l60-up",
        // The loss begins after ten seconds.
        seconds: (15, 60),
        course: Course::Voice(3),
        targets: Targets { concealed: Some(20.0), ..NONE },
        ..steady(
            "l60-up-3",
            "60 % up from 10 s on, 100 ms; voice, three copies",
            0.0,
            0.0,
            0.0,
            0.0,
        )
    },
    Row {
        profile: "cap200",
        seconds: (8, 40),
        course: Course::Four,
        targets: Targets { concealed: Some(0.1), frames: Some(95.0), frozen: Some(0.0), ..NONE },
        ..steady("one-of-four", "one of four receivers at 200 kbit/s", 0.0, 0.0, 0.0, 0.0)
    },
    check("link-l5"),
    check("link-l20"),
    check("link-500k"),
];

/// A link that two browsers were measured on, for as long: what does the model say there?
const fn check(name: &'static str) -> Row {
    Row {
        seconds: (8, 25),
        course: Course::Check,
        targets: NONE,
        ..steady(name, "", 0.0, 0.0, 0.0, 0.0)
    }
}

const fn with_mos(row: Row, mos: f64) -> Row {
    Row { targets: Targets { mos: Some(mos), ..row.targets }, ..row }
}
