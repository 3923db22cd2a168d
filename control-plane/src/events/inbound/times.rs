//! Times as Java, Python and JavaScript write them.
//!
//! ISO text with 0 to any number of fraction digits or without seconds, with `Z`, an offset or a
//! zone in brackets; Java's arrays `[2026,1,24,10,30]`; seconds, milliseconds, microseconds or
//! nanoseconds since 1970. A time without a zone is in the one that is configured; where clocks
//! were set forward it moves by as much, where they were set back the first of the two counts.

use chrono::{DateTime, Datelike as _, Days, MappedLocalTime, NaiveDate, NaiveDateTime, NaiveTime};
use chrono::{FixedOffset, Offset as _, SubsecRound as _, TimeDelta, TimeZone as _, Utc};
use chrono_tz::Tz;
use serde_json::Value;

/// One point in time, to the microsecond; None if it cannot be understood.
pub(super) fn read(value: &Value, zone: Tz) -> Option<DateTime<Utc>> {
    let time = match value {
        Value::String(text) => from_text(text, zone)?,
        Value::Array(parts) => {
            let (day, rest) = day_of(parts)?;
            in_zone(day.and_time(time_of(rest)?), zone)?
        }
        Value::Number(number) => match number.as_i64() {
            Some(whole) => from_epoch(whole)?,
            None => from_seconds(number.as_f64()?)?,
        },
        Value::Null | Value::Bool(_) | Value::Object(_) => return None,
    };
    (1970..=9999).contains(&time.year()).then(|| time.trunc_subsecs(6))
}

/// A day and a time of the day that come apart.
pub(super) fn on_day(day: &Value, time: &Value, zone: Tz) -> Option<DateTime<Utc>> {
    let day = match day {
        // A day may come as the midnight that begins it.
        Value::String(text) => text.trim().get(..10)?.parse().ok()?,
        Value::Array(parts) => day_of(parts)?.0,
        _ => return None,
    };
    let time = match time {
        Value::String(text) => naive_time(text.trim())?,
        Value::Array(parts) => time_of(parts)?,
        _ => return None,
    };
    in_zone(day.and_time(time), zone).map(|time| time.trunc_subsecs(6))
}

fn from_text(text: &str, zone: Tz) -> Option<DateTime<Utc>> {
    // Java's ZonedDateTime: `2026-01-24T10:30:00+05:30[Asia/Kolkata]`.
    let text = text.trim();
    let (text, named) = match text.strip_suffix(']').and_then(|text| text.split_once('[')) {
        Some((text, name)) => (text, Some(name.parse::<Tz>().ok()?)),
        None => (text, None),
    };
    if text.len() > 64 {
        return None;
    }
    if let Ok(number) = text.parse::<i64>() {
        return from_epoch(number);
    }
    let (day, rest) = text.split_at_checked(10)?;
    let day: NaiveDate = day.parse().ok()?;
    let rest = rest.strip_prefix(['T', 't', ' '])?;
    let (time, offset) = split_offset(rest)?;
    let local = day.and_time(naive_time(time.trim_end())?);
    match offset {
        Some(offset) => offset.from_local_datetime(&local).single().map(|time| time.to_utc()),
        None => in_zone(local, named.unwrap_or(zone)),
    }
}

/// `14:00:00.5+05:30` → time, offset.
fn split_offset(text: &str) -> Option<(&str, Option<FixedOffset>)> {
    if let Some(time) = text.strip_suffix(['Z', 'z']) {
        return Some((time, Some(Utc.fix())));
    }
    let Some(at) = text.find(['+', '-']) else { return Some((text, None)) };
    let (time, offset) = text.split_at_checked(at)?;
    let (sign, digits) = offset.split_at_checked(1)?;
    let digits: String = digits.chars().filter(|c| *c != ':').collect();
    if !digits.bytes().all(|b| b.is_ascii_digit()) || !matches!(digits.len(), 2 | 4 | 6) {
        return None;
    }
    let part = |from: usize| digits.get(from..from + 2).map_or(Some(0), |d| d.parse::<i32>().ok());
    let seconds = part(0)? * 3600 + part(2)? * 60 + part(4)?;
    let offset = FixedOffset::east_opt(if sign == "-" { -seconds } else { seconds })?;
    Some((time, Some(offset)))
}

/// `14:00`, `14:00:05`, `14:00:05.123456789`; what is finer than a nanosecond is cut off.
fn naive_time(text: &str) -> Option<NaiveTime> {
    let (whole, fraction) = match text.split_once(['.', ',']) {
        Some((whole, fraction)) => (whole, fraction),
        None => (text, ""),
    };
    if !fraction.bytes().all(|b| b.is_ascii_digit()) || (whole.len() == 5 && !fraction.is_empty()) {
        return None;
    }
    let mut parts = [0; 3];
    let mut pieces = whole.split(':');
    for (part, piece) in parts.iter_mut().zip(pieces.by_ref()) {
        *part = Some(piece)
            .filter(|p| p.len() == 2 && p.bytes().all(|b| b.is_ascii_digit()))?
            .parse::<u32>()
            .ok()?;
    }
    if pieces.next().is_some() || !whole.contains(':') {
        return None;
    }
    let [hour, minute, second] = parts;
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    NaiveTime::from_hms_nano_opt(hour, minute, second, digits.parse().ok()?)
}

/// `[year, month, day, …]` and what follows the day.
fn day_of(parts: &[Value]) -> Option<(NaiveDate, &[Value])> {
    let (day, rest) = parts.split_at_checked(3)?;
    let [year, month, day] = day else { return None };
    let year = i32::try_from(year.as_i64()?).ok()?;
    let day = NaiveDate::from_ymd_opt(year, small(month)?, small(day)?)?;
    Some((day, rest))
}

/// `[hour, minute]`, then seconds and nanoseconds unless they are zero.
fn time_of(parts: &[Value]) -> Option<NaiveTime> {
    let part = |at: usize| parts.get(at).map_or(Some(0), small);
    if !(2..=4).contains(&parts.len()) {
        return None;
    }
    NaiveTime::from_hms_nano_opt(part(0)?, part(1)?, part(2)?, part(3)?)
}

fn small(value: &Value) -> Option<u32> {
    u32::try_from(value.as_i64()?).ok()
}

/// The unit is told by the size: 10^11 seconds are the year 5138, as milliseconds 1973.
fn from_epoch(number: i64) -> Option<DateTime<Utc>> {
    match number {
        ..0 => None,
        0..100_000_000_000 => DateTime::from_timestamp(number, 0),
        100_000_000_000..100_000_000_000_000 => DateTime::from_timestamp_millis(number),
        100_000_000_000_000..100_000_000_000_000_000 => DateTime::from_timestamp_micros(number),
        100_000_000_000_000_000.. => Some(DateTime::from_timestamp_nanos(number)),
    }
}

/// Java's Instant is seconds with nine digits behind the point.
#[expect(clippy::cast_possible_truncation, reason = "checked to be in range")]
fn from_seconds(seconds: f64) -> Option<DateTime<Utc>> {
    match seconds {
        0.0..100_000_000_000.0 => DateTime::from_timestamp_micros((seconds * 1e6).round() as i64),
        100_000_000_000.0..1e18 => from_epoch(seconds as i64),
        _ => None,
    }
}

fn in_zone(local: NaiveDateTime, zone: Tz) -> Option<DateTime<Utc>> {
    match zone.from_local_datetime(&local) {
        MappedLocalTime::Single(time) => Some(time.to_utc()),
        MappedLocalTime::Ambiguous(first, _) => Some(first.to_utc()),
        // Clocks skipped it: read with the offset of before, which moves it behind the gap. Gaps
        // are of an hour or less, or of a whole day where a country changed sides of the date line.
        MappedLocalTime::None => {
            let before = [
                local.checked_sub_signed(TimeDelta::hours(3)),
                local.checked_sub_days(Days::new(2)),
            ];
            let offset = before
                .into_iter()
                .flatten()
                .find_map(|earlier| zone.offset_from_local_datetime(&earlier).earliest())?;
            let utc = local.checked_sub_offset(offset.fix())?;
            Some(utc.and_utc())
        }
    }
}
