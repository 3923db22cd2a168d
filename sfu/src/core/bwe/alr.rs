//! Whether the source sends less than it may (application-limited region): then what arrives tells
//! nothing of how much the link carries.

/// Below this share of the target the source is limited by itself, above the other it is not.
const BEGIN: f64 = 0.65;
const END: f64 = 0.8;
/// It takes so long to begin; a pause between two pictures is none.
const PATIENCE_US: u64 = 500_000;

/// Watches the rate sent against the target.
#[derive(Default, Debug)]
pub(super) struct Limited {
    since_us: Option<u64>,
    limited: bool,
}

impl Limited {
    /// Looks at the rate sent lately.
    pub(super) fn update(&mut self, at_us: u64, sending: f64, target: f64) {
        if sending >= END * target {
            *self = Self::default();
        } else if sending < BEGIN * target {
            let since = *self.since_us.get_or_insert(at_us);
            self.limited |= at_us.saturating_sub(since) >= PATIENCE_US;
        }
    }

    /// Whether the source limits itself.
    pub(super) const fn is_limited(&self) -> bool {
        self.limited
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn begins_late_and_ends_at_once() {
        let mut limited = Limited::default();
        limited.update(0, 50.0, 100.0);
        limited.update(400_000, 50.0, 100.0);
        assert!(!limited.is_limited());
        limited.update(500_000, 50.0, 100.0);
        assert!(limited.is_limited());
        limited.update(600_000, 70.0, 100.0);
        assert!(limited.is_limited());
        limited.update(700_000, 81.0, 100.0);
        assert!(!limited.is_limited());
    }
}
