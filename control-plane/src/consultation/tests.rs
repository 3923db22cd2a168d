//! The state machine, step by step and at random.

use chrono::{DateTime, Duration, Utc};

use super::*;

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000 + seconds, 0).expect("a time")
}

fn consultation(max_participants: i64) -> Consultation {
    Consultation {
        id: Uuid::nil(),
        clinic: "demo".to_owned(),
        appointment_id: None,
        mode: Mode::Video,
        scheduled_start: at(0),
        scheduled_minutes: 15,
        room_name: "consultation-x".to_owned(),
        room_sid: None,
        status: Status::Scheduled,
        doctor_id: "doc".to_owned(),
        doctor_name: Private::new("Dr. Osei".to_owned()),
        patient_id: "pat".to_owned(),
        patient_name: Private::new("Ms. Lindqvist".to_owned()),
        max_participants,
        people: Vec::new(),
        patient_joined_at: None,
        doctor_joined_at: None,
        actual_start: None,
        started_by: None,
        both_connected_at: None,
        paused_at: None,
        paused_seconds: 0,
        actual_end: None,
        duration_seconds: None,
        end_reason: None,
        ended_by: None,
        ended_by_role: None,
        reopened_at: None,
        quiet_since: None,
        due_at: None,
        created_at: at(0),
        revision: 0,
    }
}

fn arrive(user_id: &str) -> Step {
    Step::Arrive { user_id: user_id.to_owned(), name: None, device: Device::default() }
}

/// Takes steps one second apart and gives what happened in the last one.
fn take(consultation: &mut Consultation, steps: &[Step]) -> Vec<Happening> {
    let mut last = Vec::new();
    for (second, step) in (1..).zip(steps) {
        let actor = Actor::Person("doc".to_owned());
        last = consultation.apply(at(second), &actor, step).expect("a possible step");
    }
    last.into_iter().map(|transition| transition.happening).collect()
}

fn who(user_id: &str) -> String {
    user_id.to_owned()
}

#[test]
fn a_visit_goes_from_scheduled_to_completed() {
    let mut visit = consultation(2);
    assert_eq!(take(&mut visit, &[arrive("pat")]), [Happening::PatientJoined]);
    assert_eq!(visit.status, Status::Waiting);
    assert_eq!(visit.position("pat"), Some(1));
    assert!(!visit.may_enter("pat"));
    assert_eq!(take(&mut visit, &[arrive("doc")]), [Happening::DoctorJoined]);
    assert!(visit.may_enter("doc"));
    assert_eq!(visit.status, Status::Waiting);
    let made = take(&mut visit, &[Step::Admit(who("pat"))]);
    assert_eq!(made, [Happening::Admitted, Happening::Started]);
    assert_eq!((visit.status, visit.actual_start), (Status::InProgress, Some(at(1))));
    assert!(visit.may_enter("pat"));
    take(&mut visit, &[Step::Connect(who("pat")), Step::Pause, Step::Resume]);
    let end = visit.apply(at(601), &Actor::Person(who("doc")), &Step::End(None)).expect("ends");
    assert_eq!(end.len(), 1);
    assert_eq!((end[0].from, end[0].to), (Status::InProgress, Status::Completed));
    assert_eq!(end[0].actor, Actor::Person(who("doc")));
    assert_eq!((end[0].at, end[0].reason.as_deref()), (at(601), Some("completed")));
    assert_eq!(visit.duration_seconds, Some(600));
    assert!(!visit.may_enter("pat") && !visit.may_enter("doc"));
    assert!(visit.people.iter().all(|person| person.presence == Presence::Left));
}

#[test]
fn the_actual_start_is_set_once() {
    let mut visit = consultation(2);
    take(&mut visit, &[arrive("pat"), Step::Admit(who("pat"))]);
    let start = visit.actual_start;
    let again = [Step::SendBack(who("pat")), Step::Admit(who("pat"))];
    for (second, step) in (50..).zip(&again) {
        visit.apply(at(second), &Actor::Server, step).expect("possible");
    }
    assert_eq!((visit.actual_start, start), (Some(at(2)), Some(at(2))));
}

#[test]
fn repeated_requests_change_nothing() {
    let mut visit = consultation(2);
    take(&mut visit, &[arrive("pat")]);
    assert!(take(&mut visit, &[arrive("pat")]).is_empty());
    take(&mut visit, &[Step::Admit(who("pat"))]);
    assert!(take(&mut visit, &[Step::Admit(who("pat"))]).is_empty());
    take(&mut visit, &[Step::Leave(who("pat"))]);
    assert!(take(&mut visit, &[Step::Leave(who("pat"))]).is_empty());
    take(&mut visit, &[Step::End(None)]);
    assert!(take(&mut visit, &[Step::End(Some(who("late")))]).is_empty());
    assert_eq!(visit.end_reason.as_deref(), Some("completed"));
}

#[test]
fn admission_outlives_a_reload_and_not_a_sending_back() {
    let mut visit = consultation(2);
    take(&mut visit, &[arrive("pat"), Step::Admit(who("pat")), Step::Connect(who("pat"))]);
    take(&mut visit, &[Step::Disconnect(who("pat")), arrive("pat")]);
    assert!(visit.may_enter("pat"));
    take(&mut visit, &[Step::Connect(who("pat"))]);
    assert_eq!(visit.person("pat").map(|p| p.rejoin_count), Some(1));
    take(&mut visit, &[Step::SendBack(who("pat"))]);
    assert!(!visit.may_enter("pat"));
    assert_eq!(visit.position("pat"), Some(1));
    // What the room tells afterwards does not bring it back in.
    assert_eq!(
        visit.apply(at(9), &Actor::Server, &Step::Connect(who("pat"))),
        Err(Refusal::NotHere)
    );
    assert!(take(&mut visit, &[Step::Disconnect(who("pat"))]).is_empty());
    assert_eq!(visit.person("pat").map(|p| p.presence), Some(Presence::Waiting));
}

#[test]
fn a_revoked_person_comes_back_only_through_the_waiting_room() {
    let mut visit = consultation(2);
    take(&mut visit, &[arrive("pat"), Step::Admit(who("pat")), Step::Remove(who("pat"))]);
    assert!(!visit.may_enter("pat"));
    assert_eq!(visit.position("pat"), None);
    take(&mut visit, &[arrive("pat")]);
    assert!(!visit.may_enter("pat"));
    assert_eq!(visit.position("pat"), Some(1));
}

#[test]
fn places_are_counted_in_persons_and_the_doctors_is_kept() {
    let mut visit = consultation(2);
    take(&mut visit, &[arrive("pat"), arrive("aunt"), Step::Admit(who("pat"))]);
    let full = visit.apply(at(5), &Actor::Server, &Step::Admit(who("aunt")));
    assert_eq!(full, Err(Refusal::Full));
    take(&mut visit, &[Step::Leave(who("pat")), Step::Admit(who("aunt"))]);
    // The place is taken now: the patient waits like anybody else.
    take(&mut visit, &[arrive("pat")]);
    assert!(!visit.may_enter("pat"));
    let mut visit = consultation(3);
    take(&mut visit, &[arrive("pat"), arrive("aunt")]);
    take(&mut visit, &[Step::Admit(who("pat")), Step::Admit(who("aunt"))]);
    assert!(visit.may_enter("aunt") && visit.may_enter("pat"));
}

#[test]
fn the_queue_is_first_come_first_and_keeps_the_place_of_a_reload() {
    let mut visit = consultation(4);
    take(&mut visit, &[arrive("pat"), arrive("aunt"), arrive("interpreter")]);
    let positions =
        |visit: &Consultation| ["pat", "aunt", "interpreter"].map(|person| visit.position(person));
    assert_eq!(positions(&visit), [Some(1), Some(2), Some(3)]);
    take(&mut visit, &[Step::GoAway(who("pat"))]);
    assert_eq!(positions(&visit), [None, Some(1), Some(2)]);
    visit.apply(at(100), &Actor::Server, &arrive("pat")).expect("comes back");
    assert_eq!(positions(&visit), [Some(1), Some(2), Some(3)]);
    // Leaving on purpose gives the place up.
    visit.apply(at(101), &Actor::Server, &Step::Leave(who("pat"))).expect("goes");
    visit.apply(at(102), &Actor::Server, &arrive("pat")).expect("comes back");
    assert_eq!(positions(&visit), [Some(3), Some(1), Some(2)]);
}

#[test]
fn silence_and_return_are_told_apart_from_leaving() {
    let mut visit = consultation(2);
    take(&mut visit, &[arrive("pat"), Step::Admit(who("pat")), Step::Connect(who("pat"))]);
    assert_eq!(take(&mut visit, &[Step::Lose(who("pat"))]), [Happening::Reconnecting]);
    assert_eq!(take(&mut visit, &[Step::Connect(who("pat"))]), [Happening::Reconnected]);
    assert_eq!(visit.person("pat").map(|p| p.rejoin_count), Some(0));
    take(&mut visit, &[Step::Lose(who("pat"))]);
    assert_eq!(take(&mut visit, &[Step::Disconnect(who("pat"))]), [Happening::Disconnected]);
}

#[test]
fn words_are_read_back() {
    for status in Status::ALL {
        assert_eq!(Status::parse(status.as_str()), Some(status));
        assert_eq!(Status::ALL[status.index()], status);
    }
    for presence in Presence::ALL {
        assert_eq!(Presence::parse(presence.as_str()), Some(presence));
    }
    assert_eq!(Status::parse("scheduled"), None);
}

/// Every step, about three people.
fn every_step() -> Vec<Step> {
    let about: [fn(String) -> Step; 8] = [
        |user_id| Step::Arrive { user_id, name: None, device: Device::default() },
        Step::Admit,
        Step::SendBack,
        Step::Leave,
        Step::GoAway,
        Step::Remove,
        Step::Connect,
        Step::Disconnect,
    ];
    let mut steps: Vec<Step> = about
        .iter()
        .flat_map(|step| ["doc", "pat", "aunt"].map(|user_id| step(who(user_id))))
        .collect();
    steps.extend([
        Step::Lose(who("pat")),
        Step::Attempt(who("pat")),
        Step::GiveUp(who("pat")),
        Step::Start,
        Step::Reopen,
        Step::Pause,
        Step::Resume,
        Step::DropAppointment(None),
        Step::End(None),
        Step::Cancel(None),
        Step::NoShow(None),
        Step::Fail(who("media")),
    ]);
    steps
}

fn allowed(from: Status, to: Status) -> bool {
    use Status::{Cancelled, Completed, Failed, InProgress, NoShow, Paused, Scheduled, Waiting};
    match from {
        Scheduled => true,
        Waiting => to != Scheduled,
        InProgress => matches!(to, InProgress | Paused | Completed | Failed),
        Paused => matches!(to, Paused | InProgress | Completed | Failed),
        Completed | Cancelled | NoShow | Failed => to == from,
    }
}

/// What must hold whatever happened before.
fn check(before: &Consultation, after: &Consultation, step: &Step, made: &[Transition]) {
    let reopened = matches!(before.status, Status::Completed | Status::NoShow)
        && *step == Step::Reopen
        && after.status == Status::Waiting;
    assert!(reopened || allowed(before.status, after.status), "{step:?}: {before:?}");
    check_times(before, after);
    assert_eq!(made.is_empty(), before.status == after.status && before.people == after.people);
    let mut status = before.status;
    for transition in made {
        assert_eq!(transition.from, status, "{step:?}");
        status = transition.to;
    }
    assert_eq!(status, after.status, "{step:?}");
    let begun = matches!(after.status, Status::InProgress | Status::Paused);
    assert!(!begun || after.actual_start.is_some());
    assert_eq!(after.status.is_over(), after.actual_end.is_some());
    assert!(before.actual_start.is_none() || after.actual_start == before.actual_start);
    let inside = |person: &&Person| {
        matches!(person.presence, Presence::Admitted | Presence::Connected | Presence::Reconnecting)
    };
    assert!(after.people.iter().filter(inside).all(|person| person.admitted), "{step:?}");
    let others = after.people.iter().filter(inside).filter(|p| p.role != PersonRole::Doctor);
    assert!(i64::try_from(others.count()).expect("few") < after.max_participants, "{step:?}");
    for person in &after.people {
        if person.presence == Presence::Waiting {
            assert!(!person.admitted && person.waiting_since.is_some(), "{step:?}");
        }
        let was = before.person(&person.user_id).is_some_and(|p| p.admitted);
        let let_in = matches!(step, Step::Admit(user_id) if *user_id == person.user_id);
        let doctor = person.role == PersonRole::Doctor;
        assert!(!person.admitted || was || let_in || doctor, "nobody else lets in: {step:?}");
    }
    if after.status.is_over() {
        assert!(after.people.iter().all(|person| !after.may_enter(&person.user_id)));
    }
}

fn check_times(before: &Consultation, after: &Consultation) {
    for (was, is) in [
        (before.actual_start, after.actual_start),
        (before.both_connected_at, after.both_connected_at),
        (before.patient_joined_at, after.patient_joined_at),
        (before.doctor_joined_at, after.doctor_joined_at),
    ] {
        assert!(was.is_none() || was == is, "set once");
    }
    if before.actual_start.is_some() {
        assert_eq!(before.started_by, after.started_by);
    }
    if let Some(end) = after.actual_end {
        let seconds = after.actual_start.map_or(0, |start| (end - start).num_seconds());
        assert!(seconds >= 0 && after.duration_seconds == Some(seconds));
        assert!(after.paused_seconds <= seconds);
    } else {
        let ended = (&after.duration_seconds, &after.end_reason, &after.ended_by);
        assert_eq!(ended, (&None, &None, &None));
    }
    assert_eq!(after.paused_at.is_some(), after.status == Status::Paused);
    let running = matches!(after.status, Status::InProgress | Status::Paused);
    let media = |p: &Person| matches!(p.presence, Presence::Connected | Presence::Reconnecting);
    assert_eq!(after.quiet_since.is_some(), running && !after.people.iter().any(media));
    for person in &after.people {
        assert_eq!(person.lost_since.is_some(), person.presence == Presence::Reconnecting);
        assert!(!person.connection_lost || person.presence == Presence::Left);
        let was = before.person(&person.user_id).map_or(0, |p| p.rejoin_count);
        assert!((was..=was + 1).contains(&person.rejoin_count));
    }
}

/// Walks every sequence of four steps, as long as each changes something.
#[test]
fn every_sequence_of_four_steps_keeps_the_rules() {
    fn walk(visit: &Consultation, steps: &[Step], second: i64, depth: u32) -> u64 {
        if depth == 0 {
            return 1;
        }
        let mut walks = 0;
        for step in steps {
            let mut after = visit.clone();
            match after.apply(at(second), &Actor::Server, step) {
                Ok(made) => check(visit, &after, step, &made),
                Err(_) => assert_eq!(&after, visit, "a refusal changes nothing: {step:?}"),
            }
            if after != *visit {
                walks += walk(&after, steps, second + 1, depth - 1);
            }
        }
        walks
    }
    let steps = every_step();
    assert!(walk(&consultation(2), &steps, 1, 4) > 500);
    assert!(walk(&consultation(3), &steps, 1, 4) > 500);
}

/// Long random walks with a fixed seed.
#[test]
fn long_walks_keep_the_rules() {
    let steps = every_step();
    let mut state: u64 = 0x9E37_79B9_7F4A_7C15;
    for _ in 0..400 {
        let mut visit = consultation(3);
        for second in 1..120 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let index = usize::try_from(state >> 33).expect("31 bits") % steps.len();
            // Endings are rare, or every walk is short.
            let ending = index + 5 >= steps.len() && !state.is_multiple_of(7);
            let Some(step) = steps.get(index).filter(|_| !ending) else { continue };
            let before = visit.clone();
            match visit.apply(at(second), &Actor::Server, step) {
                Ok(made) => check(&before, &visit, step, &made),
                Err(_) => assert_eq!(before, visit),
            }
        }
    }
}

#[test]
fn what_has_begun_is_not_called_off_and_what_is_over_stays_over() {
    let mut visit = consultation(2);
    take(&mut visit, &[arrive("pat"), Step::Admit(who("pat"))]);
    for step in [Step::Cancel(None), Step::NoShow(None)] {
        let refused = visit.apply(at(9), &Actor::Server, &step);
        assert_eq!(refused, Err(Refusal::WrongStatus(Status::InProgress)));
    }
    let mut visit = consultation(2);
    take(&mut visit, &[Step::Cancel(Some(who("holiday")))]);
    assert_eq!(visit.status, Status::Cancelled);
    for step in [arrive("pat"), Step::End(None), Step::Pause, Step::Fail(who("x"))] {
        let refused = visit.apply(at(9), &Actor::Server, &step);
        assert_eq!(refused, Err(Refusal::Over(Status::Cancelled)));
    }
    let later = at(0) + Duration::hours(1);
    assert!(visit.apply(later, &Actor::Server, &Step::Cancel(None)).expect("again").is_empty());
}

#[test]
fn a_start_begins_it_whoever_is_here_and_once() {
    let mut visit = consultation(2);
    let service = Actor::Reported { service: who("emr"), by: Some(who("doc")), role: None };
    let made = visit.apply(at(5), &service, &Step::Start).expect("starts");
    assert_eq!(made.len(), 1);
    assert_eq!((made[0].happening, made[0].actor.id()), (Happening::Started, Some("doc")));
    assert_eq!((visit.status, visit.actual_start), (Status::InProgress, Some(at(5))));
    assert_eq!(visit.started_by.as_deref(), Some("doc"));
    assert!(visit.apply(at(9), &service, &Step::Start).expect("again").is_empty());
    // The patient still waits to be let in, and that starts nothing again.
    take(&mut visit, &[arrive("pat")]);
    assert!(!visit.may_enter("pat"));
    assert_eq!(take(&mut visit, &[Step::Admit(who("pat"))]), [Happening::Admitted]);
    take(&mut visit, &[Step::Pause]);
    assert!(take(&mut visit, &[Step::Start]).is_empty(), "a pause is not a new start");
    assert_eq!(visit.actual_start, Some(at(5)));
}

#[test]
fn both_connected_is_told_once_and_starts_what_nobody_started() {
    let mut visit = consultation(2);
    take(&mut visit, &[arrive("pat"), Step::Admit(who("pat")), Step::End(None)]);
    assert_eq!(take(&mut visit, &[Step::Reopen]), [Happening::Reopened]);
    take(&mut visit, &[arrive("pat"), arrive("doc"), Step::Connect(who("pat"))]);
    assert_eq!(visit.status, Status::Waiting);
    let made = take(&mut visit, &[Step::Connect(who("doc"))]);
    assert_eq!(made, [Happening::Connected, Happening::Started, Happening::BothConnected]);
    assert_eq!(visit.status, Status::InProgress);
    take(&mut visit, &[Step::Disconnect(who("doc")), arrive("doc")]);
    assert_eq!(take(&mut visit, &[Step::Connect(who("doc"))]), [Happening::Connected]);
    assert_eq!(visit.person("doc").map(|p| p.rejoin_count), Some(1));
}

#[test]
fn interruptions_are_counted_and_not_subtracted() {
    let mut visit = consultation(2);
    for (second, step) in [
        (0, Step::Start),
        (10, Step::Pause),
        (40, Step::Resume),
        (100, Step::Pause),
        (125, Step::End(None)),
    ] {
        visit.apply(at(second), &Actor::Server, &step).expect("possible");
    }
    assert_eq!((visit.duration_seconds, visit.paused_seconds), (Some(125), 55));
    assert_eq!(visit.paused_at, None);
}

#[test]
fn an_end_keeps_who_ended_it_as_it_was_told() {
    let ended = |actor: &Actor, reason: Option<String>| {
        let mut visit = consultation(2);
        visit.apply(at(0), &Actor::Server, &Step::Start).expect("starts");
        visit.apply(at(60), actor, &Step::End(reason)).expect("ends");
        (visit.ended_by, visit.ended_by_role, visit.end_reason)
    };
    let told =
        |by: Option<&str>, role| Actor::Reported { service: who("emr"), by: by.map(who), role };
    let completed = Some(who("completed"));
    let doctor = Some(PersonRole::Doctor);
    assert_eq!(
        ended(&Actor::Person(who("doc")), None),
        (Some(who("doc")), doctor, completed.clone())
    );
    assert_eq!(
        ended(&Actor::Service(who("emr")), None),
        (Some(who("emr")), None, completed.clone())
    );
    assert_eq!(ended(&Actor::Server, None), (None, None, completed.clone()));
    // The role is taken as it was sent, and else known from the consultation.
    let patient = Some(PersonRole::Patient);
    assert_eq!(ended(&told(Some("doc"), patient), None).1, patient);
    assert_eq!(ended(&told(Some("pat"), None), None).1, patient);
    assert_eq!(ended(&told(Some("nobody"), None), None).1, None);
    assert_eq!(ended(&told(None, None), None), (Some(who("emr")), None, completed));
    let long = "ß".repeat(300);
    assert_eq!(ended(&Actor::Server, Some(long)).2, Some("ß".repeat(100)));
}

#[test]
fn a_dropped_appointment_ends_what_runs_and_cancels_what_does_not() {
    let drop = Step::DropAppointment(None);
    let mut visit = consultation(2);
    take(&mut visit, &[Step::Start]);
    assert_eq!(take(&mut visit, std::slice::from_ref(&drop)), [Happening::Ended]);
    assert_eq!((visit.status, visit.end_reason.as_deref()), (Status::Completed, Some("cancelled")));
    assert!(take(&mut visit, std::slice::from_ref(&drop)).is_empty());
    let mut visit = consultation(2);
    take(&mut visit, &[arrive("pat"), drop]);
    assert_eq!(visit.status, Status::Cancelled);
}

#[test]
fn an_end_is_taken_back_only_where_that_makes_sense() {
    let minutes = Duration::minutes;
    let mut visit = consultation(2);
    take(&mut visit, &[Step::Start, Step::End(None)]);
    let late = visit.apply(at(2) + minutes(16), &Actor::Server, &Step::Reopen);
    assert_eq!(late, Err(Refusal::TooLate));
    visit.apply(at(2) + minutes(15), &Actor::Server, &Step::Reopen).expect("in time");
    assert_eq!((visit.status, visit.reopened_at), (Status::Waiting, Some(at(2) + minutes(15))));
    assert!(take(&mut visit, &[Step::Reopen]).is_empty());
    let mut visit = consultation(2);
    take(&mut visit, &[Step::NoShow(None)]);
    visit.apply(at(0) + Duration::days(2), &Actor::Server, &Step::Reopen).expect("came after all");
    for over in [Step::Cancel(None), Step::Fail(who("media"))] {
        let mut visit = consultation(2);
        take(&mut visit, &[over]);
        let refused = visit.apply(at(9), &Actor::Server, &Step::Reopen);
        assert_eq!(refused, Err(Refusal::Over(visit.status)));
    }
}

#[test]
fn a_lost_connection_is_given_up_and_may_come_back() {
    let mut visit = consultation(2);
    take(&mut visit, &[arrive("pat"), Step::Admit(who("pat")), Step::Connect(who("pat"))]);
    assert!(take(&mut visit, &[Step::Attempt(who("pat"))]).is_empty(), "nothing was lost");
    visit.apply(at(20), &Actor::Server, &Step::Lose(who("pat"))).expect("falls silent");
    for _ in 0..2 {
        assert_eq!(take(&mut visit, &[Step::Attempt(who("pat"))]), [Happening::ReconnectAttempt]);
    }
    let lost = |visit: &Consultation| {
        let pat = visit.person("pat").expect("the patient");
        (pat.lost_since, pat.reconnect_attempts, pat.connection_lost)
    };
    assert_eq!(lost(&visit), (Some(at(20)), 2, false));
    let made = take(&mut visit, &[Step::GiveUp(who("pat"))]);
    assert_eq!(made, [Happening::Disconnected, Happening::ConnectionLost]);
    assert_eq!(lost(&visit), (None, 0, true));
    assert!(take(&mut visit, &[Step::GiveUp(who("pat"))]).is_empty());
    assert!(visit.may_enter("pat"), "it may come back by itself");
    assert_eq!(take(&mut visit, &[Step::Connect(who("pat"))]), [Happening::Connected]);
    assert_eq!(lost(&visit), (None, 0, false));
    assert_eq!(visit.person("pat").map(|p| p.rejoin_count), Some(1));
}

#[test]
fn another_device_replaces_the_first() {
    let with = |agent: &str| Step::Arrive {
        user_id: who("pat"),
        name: None,
        device: Device::of_user_agent(agent),
    };
    let (phone, desk) = ("iPhone Mobile Safari/604", "Windows Firefox/127");
    let mut visit = consultation(2);
    assert_eq!(take(&mut visit, &[with(phone)]), [Happening::PatientJoined]);
    assert!(take(&mut visit, &[with(phone)]).is_empty());
    assert!(take(&mut visit, &[arrive("pat")]).is_empty(), "what says nothing changes nothing");
    assert_eq!(take(&mut visit, &[with(desk)]), [Happening::DeviceChanged]);
    let device = visit.person("pat").map(|p| p.device.clone()).expect("the patient");
    assert_eq!((device.kind, device.os.as_deref()), (Some(DeviceKind::Web), Some("Windows")));
    assert_eq!(visit.people.len(), 1);
}

#[test]
fn what_was_measured_is_weighed_by_time_and_comes_even_after_the_end() {
    let figures = |seconds, score| Figures { seconds, score: Some(score), ..Figures::default() };
    let measure = |figures| Step::Measure { user_id: who("pat"), figures };
    let mut visit = consultation(2);
    take(&mut visit, &[arrive("pat"), Step::Admit(who("pat")), measure(figures(60, 4.2))]);
    assert_eq!(visit.person("pat").and_then(|p| p.figures.quality()), Some(Quality::Excellent));
    take(&mut visit, &[Step::End(None)]);
    let more = Figures { packet_loss_percent: Some(7.5), ..figures(180, 2.6) };
    assert_eq!(take(&mut visit, &[measure(more)]), [Happening::Measured]);
    let pat = visit.person("pat").expect("the patient");
    assert_eq!((pat.figures.seconds, pat.figures.packet_loss_percent), (240, Some(7.5)));
    assert!((pat.figures.score.expect("a score") - 3.0).abs() < 1e-9);
    assert_eq!(pat.figures.quality(), Some(Quality::Good));
    assert_eq!(visit.status, Status::Completed);
    assert!(take(&mut visit, &[measure(Figures::default())]).is_empty());
}

#[test]
fn what_has_not_begun_may_be_planned_anew() {
    let later = |minutes| Step::Reschedule { start: at(86_400), minutes };
    let mut visit = consultation(2);
    assert_eq!(take(&mut visit, &[later(None)]), [Happening::Rescheduled]);
    assert_eq!((visit.scheduled_start, visit.scheduled_minutes), (at(86_400), 15));
    assert!(take(&mut visit, &[later(None)]).is_empty(), "nothing has changed");
    assert_eq!(take(&mut visit, &[later(Some(30))]), [Happening::Rescheduled]);
    assert_eq!((visit.status, visit.scheduled_minutes), (Status::Scheduled, 30));
    assert_eq!(visit.planned_end(), at(86_400 + 1_800));
    take(&mut visit, &[arrive("pat"), Step::Reschedule { start: at(9), minutes: Some(20) }]);
    assert_eq!((visit.status, visit.scheduled_start), (Status::Waiting, at(9)));
    take(&mut visit, &[Step::Start]);
    let running = visit.apply(at(60), &Actor::Server, &later(None));
    assert_eq!(running, Err(Refusal::WrongStatus(Status::InProgress)));
    take(&mut visit, &[Step::End(None)]);
    let over = visit.apply(at(90), &Actor::Server, &later(None));
    assert_eq!(over, Err(Refusal::WrongStatus(Status::Completed)));
    assert_eq!(visit.scheduled_start, at(9));
}
