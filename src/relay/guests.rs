//! Who may allocate: those in rooms, and those who are expected there. Pure: time is an argument.

use std::collections::{HashMap, HashSet};
use std::time::Instant;

/// Participants by their number in the room, and by the name that they had before they came.
#[derive(Debug, Default)]
pub(super) struct Guests {
    /// Each participant's name of before.
    present: HashMap<String, String>,
    /// Names, and until when they are kept while nobody of that name is present.
    expected: HashMap<String, Instant>,
}

impl Guests {
    /// Somebody got a credential by this name.
    pub(super) fn expect(&mut self, name: &str, until: Instant) {
        self.expected.insert(name.to_owned(), until);
    }

    /// Whether this participant is known.
    pub(super) fn is_present(&self, number: &str) -> bool {
        self.present.contains_key(number)
    }

    /// A participant comes in.
    pub(super) fn enter(&mut self, number: &str, name: String) {
        self.present.insert(number.to_owned(), name);
    }

    /// A participant has left; whose allocations are to be freed. What was made by the earlier name
    /// stays while the same person is here by another number.
    pub(super) fn leave(&mut self, number: &str) -> Vec<String> {
        let Some(name) = self.present.remove(number) else { return Vec::new() };
        let mut gone = vec![number.to_owned()];
        if !self.present.values().any(|other| *other == name)
            && self.expected.remove(&name).is_some()
        {
            gone.push(name);
        }
        gone
    }

    /// Everybody has left but these.
    pub(super) fn leave_but(&mut self, kept: &HashSet<String>) -> Vec<String> {
        let left: Vec<String> =
            self.present.keys().filter(|number| !kept.contains(*number)).cloned().collect();
        left.iter().flat_map(|number| self.leave(number)).collect()
    }

    /// Those who were expected and have not come in time.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<String> {
        let here: HashSet<&String> = self.present.values().collect();
        let late = |(name, until): &(&String, &Instant)| **until <= now && !here.contains(*name);
        let gone: Vec<String> =
            self.expected.iter().filter(late).map(|(name, _)| name.clone()).collect();
        for name in &gone {
            self.expected.remove(name);
        }
        gone
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn who_leaves_has_nothing_any_more_by_any_name() {
        let mut guests = Guests::default();
        let start = Instant::now();
        guests.expect("ann's", start);
        guests.enter("PA_1", "ann's".to_owned());
        guests.enter("PA_2", "bob's".to_owned());
        assert_eq!(guests.leave("PA_1"), ["PA_1", "ann's"]);
        assert_eq!(guests.leave("PA_2"), ["PA_2"], "never had another name");
        assert!(guests.leave("PA_1").is_empty());
        assert!(!guests.is_present("PA_1"));
    }

    #[test]
    fn who_comes_again_before_leaving_keeps_what_is_new() {
        let mut guests = Guests::default();
        let start = Instant::now();
        guests.expect("ann's", start);
        guests.enter("PA_1", "ann's".to_owned());
        guests.expect("ann's", start);
        guests.enter("PA_2", "ann's".to_owned());
        assert_eq!(guests.leave("PA_1"), ["PA_1"]);
        assert_eq!(guests.leave("PA_2"), ["PA_2", "ann's"]);
    }

    #[test]
    fn who_never_comes_is_forgotten_and_who_is_here_is_not() {
        let mut guests = Guests::default();
        let (start, later) = (Instant::now(), Instant::now() + Duration::from_secs(9));
        guests.expect("ann's", start);
        guests.expect("bob's", start);
        guests.expect("eve's", later);
        guests.enter("PA_2", "bob's".to_owned());
        assert_eq!(guests.expire(start), ["ann's"]);
        assert_eq!(guests.expire(later), ["eve's"]);
        assert_eq!(guests.leave("PA_2"), ["PA_2", "bob's"]);
    }

    #[test]
    fn after_lost_news_only_those_on_the_list_are_here() {
        let mut guests = Guests::default();
        guests.enter("PA_1", "ann's".to_owned());
        guests.enter("PA_2", "bob's".to_owned());
        let kept = HashSet::from(["PA_2".to_owned()]);
        assert_eq!(guests.leave_but(&kept), ["PA_1"]);
        assert!(guests.is_present("PA_2"));
    }
}
