//! Reads sealed rows and anchors in order and says where they do not hold together.

use std::collections::{BTreeMap, HashMap};

use super::chain::{self, Anchor, Hash, Line, Record};
use crate::KeyPair;

/// How many faults are told; a log that is broken in more places needs no longer list.
const MAX_FAULTS: usize = 1_000;

/// How many anchors may wait for their row in an export that is out of order.
const MAX_ANCHORS: usize = 100_000;

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FaultKind {
    /// The row is not what was sealed, or it does not follow the row before it.
    Changed,
    /// Rows are missing up to, and not with, the one that was found.
    Missing,
    /// A second row has the place of one that was there.
    Inserted,
    /// A row of an earlier place comes late.
    OutOfOrder,
    /// An anchor says that there was another row at this place, or more rows.
    Anchor,
    /// An anchor's signature is wrong.
    Forged,
    /// The line is no row and no anchor.
    Unreadable,
}

impl FaultKind {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Changed => "changed",
            Self::Missing => "missing",
            Self::Inserted => "inserted",
            Self::OutOfOrder => "out of order",
            Self::Anchor => "not as anchored",
            Self::Forged => "forged anchor",
            Self::Unreadable => "unreadable",
        }
    }
}

/// One thing that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Whose log.
    pub clinic: String,
    /// The place in the chain; of a line that cannot be read its number.
    pub sequence: i64,
    /// What is wrong.
    pub kind: FaultKind,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Rows looked at.
    pub rows: u64,
    /// Anchors looked at.
    pub anchors: u64,
    /// Anchors whose key is not known here: their signature was not checked.
    pub unsigned: u64,
    /// The end of each clinic's chain: its last place, and the hash there.
    pub heads: BTreeMap<String, (i64, Hash)>,
    /// Everything that does not hold, in the order of finding.
    pub faults: Vec<Fault>,
}

struct Chain {
    sequence: i64,
    hash: Hash,
}

/// Takes rows and anchors in the order of the chain.
pub struct Verifier {
    keys: Vec<KeyPair>,
    chains: HashMap<String, Chain>,
    ahead: HashMap<(String, i64), Hash>,
    report: Report,
    lines: i64,
}

impl Verifier {
    /// A verifier that checks the signatures of anchors with these keys.
    pub fn new(keys: Vec<KeyPair>) -> Self {
        Self {
            keys,
            chains: HashMap::new(),
            ahead: HashMap::new(),
            report: Report::default(),
            lines: 0,
        }
    }

    /// One line of an export. Empty ones do not count.
    pub fn line(&mut self, text: &str) {
        self.lines += 1;
        if text.trim().is_empty() {
            return;
        }
        match serde_json::from_str::<Line>(text) {
            Ok(Line::Row(row)) => self.row(&row),
            Ok(Line::Anchor(anchor)) => self.anchor(&anchor),
            Err(_) => self.fault("", self.lines, FaultKind::Unreadable),
        }
    }

    /// The next row.
    pub fn row(&mut self, row: &Record) {
        self.report.rows += 1;
        let known = self.chains.get(&row.clinic).map(|chain| (chain.sequence, chain.hash));
        // An export may begin anywhere; what stood before it is taken as told.
        let (last, before) = known.unwrap_or_else(|| match row.sequence {
            1 => (0, chain::genesis(&row.clinic)),
            sequence => (sequence.saturating_sub(1), row.previous),
        });
        let kind = if row.sequence == last {
            Some(FaultKind::Inserted)
        } else if row.sequence < last {
            Some(FaultKind::OutOfOrder)
        } else if row.sequence > last.saturating_add(1) {
            Some(FaultKind::Missing)
        } else if row.previous != before || chain::link(before, row) != row.hash {
            Some(FaultKind::Changed)
        } else {
            None
        };
        if let Some(kind) = kind {
            self.fault(&row.clinic, row.sequence, kind);
        }
        let own = row.previous == chain::UNKNOWN || chain::link(row.previous, row) == row.hash;
        if kind == Some(FaultKind::Missing) && !own {
            self.fault(&row.clinic, row.sequence, FaultKind::Changed);
        }
        if row.sequence > last {
            let chain = Chain { sequence: row.sequence, hash: row.hash };
            self.chains.insert(row.clinic.clone(), chain);
        }
        let anchored = self.ahead.remove(&(row.clinic.clone(), row.sequence));
        if anchored.is_some_and(|hash| hash != row.hash) {
            self.fault(&row.clinic, row.sequence, FaultKind::Anchor);
        }
    }

    /// An anchor: of a row that was taken in last, or of one that is to come.
    pub fn anchor(&mut self, anchor: &Anchor) {
        self.report.anchors += 1;
        match self.keys.iter().find(|pair| pair.key == anchor.key) {
            None => self.report.unsigned += 1,
            Some(pair) if chain::is_signed(pair, anchor) => {}
            Some(_) => {
                self.fault(&anchor.clinic, anchor.sequence, FaultKind::Forged);
                return;
            }
        }
        let last = self.chains.get(&anchor.clinic).map(|chain| (chain.sequence, chain.hash));
        match last {
            Some((sequence, hash)) if sequence == anchor.sequence => {
                if hash != anchor.hash {
                    self.fault(&anchor.clinic, anchor.sequence, FaultKind::Anchor);
                }
            }
            // Its row is gone, or comes out of order.
            Some((sequence, _)) if sequence > anchor.sequence => {}
            Some(_) | None => {
                if self.ahead.len() < MAX_ANCHORS {
                    self.ahead.insert((anchor.clinic.clone(), anchor.sequence), anchor.hash);
                }
            }
        }
    }

    /// Where the sealer left the chain of a clinic: all rows up to there must have come.
    pub fn head(&mut self, clinic: &str, sequence: i64, hash: Hash) {
        let last = self.chains.get(clinic).map(|chain| (chain.sequence, chain.hash));
        if sequence > 0 && last != Some((sequence, hash)) {
            self.fault(clinic, sequence, FaultKind::Missing);
        }
    }

    /// Nothing more comes. Anchors that are ahead of their chain say that its end is missing.
    pub fn finish(mut self) -> Report {
        let mut ahead: Vec<_> = std::mem::take(&mut self.ahead).into_keys().collect();
        ahead.sort();
        for (clinic, sequence) in ahead {
            self.fault(&clinic, sequence, FaultKind::Anchor);
        }
        self.report.heads = self
            .chains
            .into_iter()
            .map(|(clinic, chain)| (clinic, (chain.sequence, chain.hash)))
            .collect();
        self.report
    }

    fn fault(&mut self, clinic: &str, sequence: i64, kind: FaultKind) {
        if self.report.faults.len() < MAX_FAULTS {
            self.report.faults.push(Fault { clinic: clinic.to_owned(), sequence, kind });
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::Private;

    fn keys() -> Vec<KeyPair> {
        vec![KeyPair { key: "k".to_owned(), secret: Private::new("anchor secret".to_owned()) }]
    }

    fn rows(count: i64) -> Vec<Record> {
        let mut before = chain::genesis("north");
        (1..=count)
            .map(|sequence| {
                let mut row = Record {
                    sequence,
                    id: Uuid::from_u128(u128::try_from(sequence).unwrap()),
                    clinic: "north".to_owned(),
                    at: "2026-01-01T00:00:00.000000Z".to_owned(),
                    actor_id: "doc".to_owned(),
                    actor_kind: "doctor".to_owned(),
                    credential: Some("token:1".to_owned()),
                    action: "GET /x".to_owned(),
                    session_id: Some(Uuid::nil()),
                    subject: None,
                    listed: vec![Uuid::nil()],
                    outcome: "done".to_owned(),
                    address: Some("192.0.2.1".to_owned()),
                    request_id: Some("r".to_owned()),
                    previous: before,
                    hash: before,
                };
                row.hash = chain::link(before, &row);
                before = row.hash;
                row
            })
            .collect()
    }

    fn anchor(row: &Record) -> Anchor {
        let mut anchor = Anchor {
            clinic: row.clinic.clone(),
            sequence: row.sequence,
            hash: row.hash,
            at: row.at.clone(),
            key: "k".to_owned(),
            mac: chain::UNKNOWN,
        };
        anchor.mac = chain::sign(&keys()[0], &anchor);
        anchor
    }

    fn faults(rows: &[Record], anchors: &[Anchor]) -> Vec<(i64, FaultKind)> {
        let mut verifier = Verifier::new(keys());
        for row in rows {
            // As it is read back from a file.
            let text = serde_json::to_string(&Line::Row(Box::new(row.clone()))).unwrap();
            verifier.line(&text);
            for anchor in anchors.iter().filter(|anchor| anchor.sequence == row.sequence) {
                let text = serde_json::to_string(&Line::Anchor(Box::new(anchor.clone()))).unwrap();
                verifier.line(&text);
            }
        }
        for anchor in anchors.iter().filter(|a| !rows.iter().any(|r| r.sequence == a.sequence)) {
            verifier.anchor(anchor);
        }
        verifier.finish().faults.into_iter().map(|fault| (fault.sequence, fault.kind)).collect()
    }

    #[test]
    fn a_whole_chain_and_any_stretch_of_it_hold() {
        let rows = rows(20);
        let anchors = [anchor(&rows[4]), anchor(&rows[19])];
        assert_eq!(faults(&rows, &anchors), []);
        assert_eq!(faults(&rows[7..12], &[]), []);
        let report = {
            let mut verifier = Verifier::new(keys());
            rows.iter().for_each(|row| verifier.row(row));
            verifier.finish()
        };
        assert_eq!(report.rows, 20);
        assert_eq!(report.heads["north"], (20, rows[19].hash));
    }

    #[test]
    fn every_changed_field_is_found_at_its_row() {
        type Change = fn(&mut Record);
        let changes: [Change; 13] = [
            |row| row.id = Uuid::from_u128(99),
            |row| row.at = "2026-01-01T00:00:01.000000Z".to_owned(),
            |row| row.actor_id = "doe".to_owned(),
            |row| row.actor_kind = "patient".to_owned(),
            |row| row.credential = None,
            |row| row.action = "GET /y".to_owned(),
            |row| row.session_id = None,
            |row| row.subject = Some(String::new()),
            |row| row.listed = Vec::new(),
            |row| row.outcome = "refused".to_owned(),
            |row| row.address = None,
            |row| row.request_id = Some("s".to_owned()),
            |row| row.hash.0[31] ^= 1,
        ];
        for (index, change) in changes.into_iter().enumerate() {
            let mut rows = rows(9);
            change(&mut rows[4]);
            let found = faults(&rows, &[]);
            assert_eq!(found.first(), Some(&(5, FaultKind::Changed)), "change {index}");
        }
        // Chained anew from there on: the anchor at the end knows better.
        let anchored = anchor(&rows(9)[8]);
        let mut rows = rows(9);
        rows[4].actor_id = "somebody else".to_owned();
        let mut before = rows[4].previous;
        for row in &mut rows[4..] {
            row.previous = before;
            row.hash = chain::link(before, row);
            before = row.hash;
        }
        assert_eq!(faults(&rows, &[]), [], "that is what anchors are for");
        assert_eq!(faults(&rows, std::slice::from_ref(&anchored)), [(9, FaultKind::Anchor)]);
        let mut forged = anchor(&rows[8]);
        forged.mac.0[0] ^= 1;
        assert_eq!(faults(&rows, &[forged]), [(9, FaultKind::Forged)]);
    }

    #[test]
    fn a_removed_row_is_missed() {
        let mut gap = rows(9);
        gap.remove(4);
        assert_eq!(faults(&gap, &[]), [(6, FaultKind::Missing)]);
        // The last ones with their anchors gone look like a shorter log; one anchor is enough.
        let whole = rows(9);
        assert_eq!(faults(&whole[..6], &[anchor(&whole[8])]), [(9, FaultKind::Anchor)]);
        let mut first = rows(9);
        first.remove(0);
        assert_eq!(faults(&first, &[]), [], "an export may begin anywhere");
    }

    #[test]
    fn an_inserted_row_is_found() {
        let mut twice = rows(9);
        let mut extra = twice[4].clone();
        extra.id = Uuid::from_u128(77);
        twice.insert(5, extra);
        assert_eq!(faults(&twice, &[]), [(5, FaultKind::Inserted)]);
        // With the rows behind it moved up, the first of the moved ones does not fit.
        let mut moved = rows(9);
        let mut extra = moved[4].clone();
        extra.sequence = 6;
        extra.previous = moved[4].hash;
        extra.hash = chain::link(extra.previous, &extra);
        for row in &mut moved[5..] {
            row.sequence += 1;
        }
        moved.insert(5, extra);
        assert_eq!(faults(&moved, &[]).first(), Some(&(7, FaultKind::Changed)));
    }

    #[test]
    fn reordered_rows_are_found() {
        let mut swapped = rows(9);
        swapped.swap(3, 6);
        let found = faults(&swapped, &[]);
        assert!(found.contains(&(5, FaultKind::OutOfOrder)), "{found:?}");
        // Places exchanged, so that the order looks right.
        let mut exchanged = rows(9);
        exchanged.swap(3, 6);
        (exchanged[3].sequence, exchanged[6].sequence) = (4, 7);
        let found = faults(&exchanged, &[]);
        assert_eq!(found.first(), Some(&(4, FaultKind::Changed)), "{found:?}");
        assert!(found.contains(&(7, FaultKind::Changed)));
    }

    #[test]
    fn garbage_is_named_by_its_line_and_never_panics() {
        let whole: String = rows(3)
            .into_iter()
            .map(|row| serde_json::to_string(&Line::Row(Box::new(row))).unwrap() + "\n")
            .collect();
        for end in 0..whole.len() {
            let mut verifier = Verifier::new(keys());
            whole[..end].lines().for_each(|line| verifier.line(line));
            verifier.finish();
        }
        for at in 0..whole.len() {
            let mut bytes = whole.clone().into_bytes();
            bytes[at] ^= 0x01;
            let Ok(text) = String::from_utf8(bytes) else { continue };
            let mut verifier = Verifier::new(keys());
            text.lines().for_each(|line| verifier.line(line));
            let clean = verifier.finish();
            let same = text.lines().zip(whole.lines()).all(|(a, b)| {
                serde_json::from_str::<Line>(a).ok() == serde_json::from_str::<Line>(b).ok()
            });
            // A digit of a hash may be written large or small.
            assert!(!clean.faults.is_empty() || same, "byte {at} changed and nobody noticed");
        }
        let mut verifier = Verifier::new(keys());
        verifier.line("{");
        assert_eq!(verifier.finish().faults[0].kind, FaultKind::Unreadable);
    }
}
