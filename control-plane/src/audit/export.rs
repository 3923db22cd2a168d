//! Reads the sealed log, in order: for the export over the API, and for the verifier.

use std::collections::VecDeque;

use super::chain::{Line, Record, UNKNOWN};
use super::verify::{Report, Verifier};
use crate::KeyPair;
use crate::store::{AuditPage, Db};

/// How many rows the verifier reads at once.
const VERIFY_PAGE: i64 = 5_000;

/// A page of the log as lines, and the place of the last row of it. Rows that are not sealed yet
/// are not shown: they are a second old at the most.
pub(crate) async fn page(
    db: &Db,
    clinic: &str,
    page: &AuditPage,
) -> Result<(Vec<Line>, Option<i64>), sqlx::Error> {
    let mut rows = db.sealed(clinic, page).await?;
    let whole = page.session_id.is_none() && page.actor_id.is_none();
    follow_up(db, clinic, page.after, whole, &mut rows).await?;
    let last = rows.last().map(|row| row.sequence);
    let mut anchors: VecDeque<_> = match last {
        Some(last) if whole => db.anchors(clinic, page.after, last).await?.into(),
        Some(_) | None => VecDeque::new(),
    };
    let mut lines = Vec::with_capacity(rows.len() + anchors.len());
    for row in rows {
        let place = row.sequence;
        lines.push(Line::Row(Box::new(row)));
        while let Some(anchor) = anchors.pop_front_if(|anchor| anchor.sequence <= place) {
            lines.push(Line::Anchor(Box::new(anchor)));
        }
    }
    Ok((lines, last))
}

/// Reads a clinic's log, or everybody's, and says where it does not hold together.
pub(crate) async fn verify(
    db: &Db,
    keys: Vec<KeyPair>,
    clinic: Option<&str>,
) -> Result<Report, sqlx::Error> {
    let clinics = match clinic {
        Some(clinic) => vec![clinic.to_owned()],
        None => db.audited_clinics().await?,
    };
    let mut verifier = Verifier::new(keys);
    for clinic in clinics {
        // Asked first: what is sealed meanwhile is behind it.
        let head = db.chain_head(&clinic).await?;
        let mut after = 0;
        let limit = VERIFY_PAGE;
        loop {
            let asked = AuditPage { after, limit, ..AuditPage::default() };
            let (lines, last) = page(db, &clinic, &asked).await?;
            for line in &lines {
                match line {
                    Line::Row(row) => verifier.row(row),
                    Line::Anchor(anchor) => verifier.anchor(anchor),
                }
                if let (Line::Row(row), Some((sequence, hash))) = (line, head)
                    && row.sequence == sequence
                {
                    verifier.head(&clinic, sequence, hash);
                }
            }
            let Some(last) = last else { break };
            after = last;
        }
        for anchor in db.anchors(&clinic, after, i64::MAX).await? {
            verifier.anchor(&anchor);
        }
        if let Some((sequence, hash)) = head.filter(|(sequence, _)| *sequence > after) {
            verifier.head(&clinic, sequence, hash);
        }
    }
    Ok(verifier.finish())
}

/// Puts in the hash that each row follows. Where rows are left out it is asked for.
async fn follow_up(
    db: &Db,
    clinic: &str,
    after: i64,
    whole: bool,
    rows: &mut [Record],
) -> Result<(), sqlx::Error> {
    let mut before = None;
    for row in rows {
        row.previous = match before {
            Some((sequence, hash)) if sequence + 1 == row.sequence => hash,
            // The row before it is gone.
            Some(_) if whole => UNKNOWN,
            Some(_) | None => {
                let place = if whole { after } else { row.sequence - 1 };
                db.hash_at(clinic, place).await?.unwrap_or(UNKNOWN)
            }
        };
        before = Some((row.sequence, row.hash));
    }
    Ok(())
}
