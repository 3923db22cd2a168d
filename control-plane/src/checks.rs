//! Connection checks: a stranger's browser tries this server, and the clinic looks up what it found.
//!
//! A check needs no account, so it is bounded on every side: how many begin from one address, how
//! many run at once, how long its room is open (its name carries the end, and the doorkeeper reads
//! it), who is in it (two tokens, both the same browser's), and what may be stored (words of a fixed
//! list, once, for some days). The ticket that lets a page store its report is signed, so that
//! nothing is kept of checks that are only begun, and any server of a clinic can take the report.

pub(crate) mod code;
pub(crate) mod report;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SecureRandom as _;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bedside_signaling::rooms::{DoorRefusal, RoomPlan};
use bedside_signaling::token::{RoomToken, VideoGrant};
use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::control::{ChangeError, Control};
use crate::sessions::socket_url;
use crate::store::{self, Check};
use crate::{KeyPair, Private, text};
use report::CheckReport;

/// The room of a check is open for so long.
pub(crate) const ROOM_LIFE: Duration = Duration::from_secs(180);

/// So long after the room has closed its report is still taken: people are slow to say what they hear.
const REPORT_GRACE: i64 = 1_800;

/// An empty room of a check closes after this.
const EMPTY_TIMEOUT: Duration = Duration::from_secs(15);

/// Every check's room is named so, and no other room may be.
pub(crate) const ROOM_PREFIX: &str = "check-";

/// Attempts at a code that nobody has. There are 10^10 of them.
const CODES: usize = 4;

/// How checks are taken.
#[derive(Clone, Debug)]
pub struct ChecksConfig {
    /// Are they taken at all?
    pub enabled: bool,
    /// How long what they found is kept.
    pub retention: Duration,
    /// How many run at once.
    pub concurrent: usize,
    /// How many begin from one address in a minute, in the long run; 0 = no limit.
    pub address_per_minute: u32,
    /// How many begin from one address at once.
    pub address_burst: u32,
    /// Are all addresses that media comes from those of a local network? Browsers may then have to be
    /// allowed to reach it.
    pub local_network: bool,
}

impl Default for ChecksConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            retention: Duration::from_secs(7 * 86_400),
            concurrent: 20,
            address_per_minute: 6,
            address_burst: 12,
            local_network: false,
        }
    }
}

/// What a page needs to check.
#[derive(Clone, Debug)]
pub(crate) struct Begun {
    /// Who sends.
    pub(crate) probe: Private<String>,
    /// Who receives.
    pub(crate) echo: Private<String>,
    /// Where both connect.
    pub(crate) url: String,
    pub(crate) ends_at: DateTime<Utc>,
    /// Lets the page store its report.
    pub(crate) ticket: Private<String>,
}

/// Why a check was not begun or its report not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CheckError {
    /// They are turned off.
    #[error("connection checks are turned off")]
    Off,
    /// As many as may are running.
    #[error("too many connection checks are running; try again in a moment")]
    Full,
    /// The ticket is none of ours, or too old.
    #[error("the ticket is not valid; begin a new check")]
    Ticket,
    /// The report or the clinic's name is not as it should be.
    #[error("{0}")]
    Invalid(&'static str),
    /// The database does not answer.
    #[error("the database does not answer")]
    Database,
}

impl From<ChangeError> for CheckError {
    fn from(_counted_and_logged: ChangeError) -> Self {
        Self::Database
    }
}

/// When the checks that run here end at the latest.
#[derive(Debug, Default)]
pub(crate) struct Running(Mutex<VecDeque<Instant>>);

impl Running {
    /// Takes a place; `false` = there is none.
    fn take(&self, now: Instant, places: usize) -> bool {
        let mut ends = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while ends.front().is_some_and(|end| *end <= now) {
            ends.pop_front();
        }
        let free = ends.len() < places;
        if free {
            ends.push_back(now + ROOM_LIFE);
        }
        free
    }

    /// A check whose report is stored has ended; which one makes no difference.
    fn give_back(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    }
}

/// The room of a check, as its name says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct CheckRoom {
    id: Uuid,
    /// Unix seconds.
    ends: i64,
}

impl CheckRoom {
    fn name(self) -> String {
        format!("{ROOM_PREFIX}{:x}-{}", self.ends, self.id.simple())
    }

    fn read(name: &str) -> Option<Self> {
        let (ends, id) = name.strip_prefix(ROOM_PREFIX)?.split_once('-')?;
        let room =
            Self { id: Uuid::try_parse(id).ok()?, ends: i64::from_str_radix(ends, 16).ok()? };
        // One spelling for each, so that one check has one room.
        (room.name() == name).then_some(room)
    }
}

/// Is a room of this name a check's?
pub(crate) fn is_room(room: &str) -> bool {
    room.starts_with(ROOM_PREFIX)
}

/// Is a room of this name a check's? Then: may its people come in?
pub(crate) fn open_door(room: &str, now: DateTime<Utc>) -> Option<Result<RoomPlan, DoorRefusal>> {
    if !is_room(room) {
        return None;
    }
    let open = CheckRoom::read(room).is_some_and(|room| room.ends > now.timestamp());
    Some(if open {
        Ok(RoomPlan {
            max_participants: 2,
            empty_timeout: Some(EMPTY_TIMEOUT),
            departure_timeout: Some(EMPTY_TIMEOUT),
            fixed: true,
            ..RoomPlan::default()
        })
    } else {
        Err(DoorRefusal::NoRoom)
    })
}

impl Control {
    /// Begins a check: a room of its own for a short time.
    pub(crate) fn begin_check(self: &Arc<Self>) -> Result<Begun, CheckError> {
        let config = &self.config.checks;
        let keys = self.config.keys.first().filter(|_| config.enabled).ok_or(CheckError::Off)?;
        if !self.checks.take(Instant::now(), config.concurrent) {
            return Err(CheckError::Full);
        }
        let ends_at = Self::ends_in(ROOM_LIFE);
        let room = CheckRoom { id: Uuid::new_v4(), ends: ends_at.timestamp() };
        let name = room.name();
        let shut = Arc::downgrade(self);
        let shut_room = name.clone();
        tokio::spawn(async move {
            tokio::time::sleep(ROOM_LIFE).await;
            if let Some(control) = shut.upgrade() {
                control.rooms.close(&shut_room);
            }
        });
        self.counters.checks.add();
        Ok(Begun {
            probe: token(keys, &name, "probe"),
            echo: token(keys, &name, "echo"),
            url: socket_url(&self.config.public_url),
            ends_at,
            ticket: Private::new(format!("{name}.{}", signature(keys, &name))),
        })
    }

    /// Stores what a check found; the code under which it is looked up, and until when.
    pub(crate) async fn store_check(
        &self,
        ticket: &str,
        clinic: &str,
        report: CheckReport,
    ) -> Result<(String, DateTime<Utc>), CheckError> {
        if !clinic.is_empty() && !text::is_id(clinic) {
            return Err(CheckError::Invalid("clinic is too long or not text"));
        }
        if !report.fits() {
            return Err(CheckError::Invalid("the report says something that no check says"));
        }
        let now = store::now();
        let room = self.verified(ticket).filter(|room| room.ends + REPORT_GRACE > now.timestamp());
        let room = room.ok_or(CheckError::Ticket)?;
        let kept = chrono::Duration::from_std(self.config.checks.retention)
            .unwrap_or(chrono::Duration::days(7));
        let mut check = Check {
            code: String::new(),
            check_id: room.id,
            clinic: clinic.to_owned(),
            report,
            created_at: now,
            expires_at: now + kept,
        };
        for _ in 0..CODES {
            check.code = new_code();
            if let Some(stored) = self.within(self.db.insert_check(&check)).await? {
                self.rooms.close(&room.name());
                if stored.0 == check.code && room.ends > now.timestamp() {
                    self.checks.give_back();
                }
                return Ok(stored);
            }
        }
        Err(CheckError::Database)
    }

    /// What a check found, for a clinic that was told its code.
    pub(crate) async fn check(
        &self,
        clinic: &str,
        typed: &str,
    ) -> Result<Option<Check>, ChangeError> {
        let Some(code) = code::read(typed) else { return Ok(None) };
        self.within(self.db.check(clinic, &code, store::now())).await
    }

    /// Forgets checks that are past their time.
    pub(crate) async fn expire_checks(&self) {
        // It is tried again; `within` has counted and logged it.
        let _later = self.within(self.db.expire_checks(store::now())).await;
    }

    /// The room of a ticket that one of our keys has signed.
    fn verified(&self, ticket: &str) -> Option<CheckRoom> {
        let (name, mac) = ticket.split_once('.')?;
        let mac = URL_SAFE_NO_PAD.decode(mac).ok()?;
        let ours = |keys: &KeyPair| hmac::verify(&signing_key(keys), &signed(name), &mac).is_ok();
        if self.config.keys.iter().any(ours) { CheckRoom::read(name) } else { None }
    }
}

/// A token for one of a check's two sides.
fn token(keys: &KeyPair, room: &str, identity: &str) -> Private<String> {
    let token = RoomToken {
        identity: Private::new(identity.to_owned()),
        name: Private::new(String::new()),
        metadata: Private::new(String::new()),
        attributes: Private::new(BTreeMap::new()),
        kind: String::new(),
        grant: VideoGrant::join(room.to_owned()),
    };
    Private::new(bedside_signaling::token::issue(keys, &token, ROOM_LIFE, SystemTime::now()))
}

fn signing_key(keys: &KeyPair) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, keys.secret.reveal().as_bytes())
}

/// What the signature is over: good for nothing else that this key signs.
fn signed(name: &str) -> Vec<u8> {
    [b"bedside check ticket\0", name.as_bytes()].concat()
}

fn signature(keys: &KeyPair, name: &str) -> String {
    URL_SAFE_NO_PAD.encode(hmac::sign(&signing_key(keys), &signed(name)))
}

fn new_code() -> String {
    let mut bytes = [0; 64];
    loop {
        aws_lc_rs::rand::SystemRandom::new()
            .fill(&mut bytes)
            .expect("the operating system's random numbers do not fail after the start");
        if let Some(code) = code::from_random(&bytes) {
            return code;
        }
    }
}
