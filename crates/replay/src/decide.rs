//! Decides what is sent of what the history holds, and how fast. Pure: the run carries it out.

use std::{collections::HashMap, sync::Arc, time::Duration};

use fanfare_journal::{Cursor, DeliveryRecord, OwedEvent};
use fanfare_model::{
    Delivery, DeliveryId, DeliveryState, Endpoint, EventView, Rate, Timestamp, TraceContext,
};

use crate::Action;

/// How many deliveries are published, confirmed and noted together at most: what a process that dies in
/// between repeats.
pub(crate) const WINDOW: usize = 250;

/// For how long what is published together lasts.
const PORTION: Duration = Duration::from_millis(250);

/// For how long what is published and not yet attempted may last, and how many these are at most. More
/// would wait in the delay line, behind which what happens now would have to wait.
const AHEAD: Duration = Duration::from_secs(10);
const MOST_AHEAD: usize = 1000;

/// What is published and still unknown to a history that has come this much further was lost on its way there.
const LOST_AFTER: Duration = Duration::from_secs(60);

/// What is to be done about something that the history holds.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// It is sent.
    Send(Box<Sending>),
    /// It is meant, and cannot be sent: the history does not have its data.
    LeftOut,
    /// The endpoint does not want it, or is owed it anyway.
    NotMeant,
}

/// A delivery to publish.
#[derive(Debug)]
pub(crate) struct Sending {
    pub(crate) delivery: Delivery,
    /// How it stood; `None` when the endpoint was not owed the event.
    pub(crate) was: Option<DeliveryState>,
}

/// What is to be done about one of the things that a page holds.
pub(crate) fn decide(
    action: Action,
    found: OwedEvent,
    endpoint: &Endpoint,
    registry_version: u64,
    now: Timestamp,
) -> Verdict {
    let OwedEvent { event, delivery } = found;
    let is_missing = event.data_left_out || !event.is_complete;
    match action {
        Action::Backfill if delivery.is_some() || !wants(endpoint, &event.event, is_missing) => {
            return Verdict::NotMeant;
        }
        Action::Replay | Action::Backfill | Action::Resend if is_missing => {
            return Verdict::LeftOut;
        }
        Action::Replay | Action::Backfill | Action::Resend => {}
    }
    let (event, at) = (Arc::new(event.event), event.at);
    let trace = TraceContext::default();
    let new = Delivery {
        first_seen: at,
        ..Delivery::new(event, endpoint.id, registry_version, trace, now)
    };
    let was = delivery.as_ref().map(|known| known.state);
    let delivery = match delivery {
        Some(known) => Delivery {
            replay: known.replay,
            ..new
        }
        .replayed(now),
        None => Delivery {
            // Whoever asks for it knows that it is late.
            deadline: new.deadline.filter(|deadline| *deadline > now),
            ..new
        },
    };
    Verdict::Send(Box::new(Sending { delivery, was }))
}

/// The router's rule, for one endpoint. Content that is not there is taken for wanted, and told to be missing.
fn wants(endpoint: &Endpoint, event: &fanfare_model::Event, is_missing: bool) -> bool {
    endpoint.wants(&event.event_type)
        && (!event.is_operational() || endpoint.names(&event.event_type))
        && (is_missing || endpoint.wants_content(&EventView::new(event)))
}

/// A part of a page whose deliveries are published and noted together.
#[derive(Debug, Default)]
pub(crate) struct Portion {
    pub(crate) send: Vec<Sending>,
    pub(crate) left_out: u64,
    /// Its last place in the history.
    pub(crate) after: Option<Cursor>,
}

/// Splits a page so that at most so many deliveries are published together.
pub(crate) fn portions(
    page: impl IntoIterator<Item = (Cursor, Verdict)>,
    at_once: usize,
) -> Vec<Portion> {
    let mut portions = vec![Portion::default()];
    for (cursor, verdict) in page {
        if let Verdict::Send(sending) = verdict {
            if portions
                .last()
                .is_some_and(|last| last.send.len() >= at_once)
            {
                portions.push(Portion::default());
            }
            let last = portions.last_mut().expect("there is one from the start");
            last.send.push(*sending);
            last.after = Some(cursor);
        } else {
            let last = portions.last_mut().expect("there is one from the start");
            last.left_out += u64::from(matches!(verdict, Verdict::LeftOut));
            last.after = Some(cursor);
        }
    }
    portions
}

/// The time between two deliveries: as slow as what is asked for and as the endpoint may be called.
pub(crate) fn interval(pace: Rate, endpoint: &Endpoint) -> Duration {
    let own = endpoint.rate.map_or(Duration::ZERO, |rate| rate.interval());
    pace.interval().max(own)
}

/// How many deliveries are published together at this pace.
pub(crate) fn at_once(interval: Duration) -> usize {
    fit(PORTION, interval).clamp(1, WINDOW)
}

/// How many deliveries may be published and not yet attempted at this pace.
pub(crate) fn most_ahead(interval: Duration) -> usize {
    fit(AHEAD, interval).clamp(1, MOST_AHEAD)
}

fn fit(within: Duration, interval: Duration) -> usize {
    usize::try_from(within.as_nanos() / interval.as_nanos().max(1)).unwrap_or(usize::MAX)
}

/// A delivery that was published and, as far as is known, not yet attempted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ahead {
    pub(crate) replay: u32,
    pub(crate) since: Timestamp,
}

/// Removes what the history says was attempted, and what it will never tell of.
pub(crate) fn keep_unattempted(
    ahead: &mut HashMap<DeliveryId, Ahead>,
    standing: &[DeliveryRecord],
    recorded_until: Option<Timestamp>,
) {
    let standing: HashMap<_, _> = standing
        .iter()
        .map(|record| (record.id, (record.replay, record.state)))
        .collect();
    ahead.retain(|id, Ahead { replay, since }| match standing.get(id) {
        Some((known, state)) if known >= replay => known == replay && *state == DeliveryState::Owed,
        Some(_) | None => recorded_until.is_none_or(|until| until < *since + LOST_AFTER),
    });
}

#[cfg(test)]
mod tests {
    use fanfare_journal::EventRecord;
    use fanfare_model::{AttributeValue, DeadLetterReason, Event};

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn cursor(number: usize) -> Cursor {
        format!("1-{number:x}").parse().unwrap()
    }

    fn endpoint() -> Endpoint {
        Endpoint {
            event_types: ["a", "endpoint.*"].map(|text| text.parse().unwrap()).into(),
            filter: Some(r#"{"data": {"n": [1]}}"#.parse().unwrap()),
            ..Endpoint::for_tests(1, "t", "https://example.com/")
        }
    }

    fn event(event_type: &str, data: &str) -> EventRecord {
        EventRecord {
            event: Event::for_tests("t", "s", "1", event_type, data.as_bytes()),
            at: at(50),
            is_complete: true,
            data_left_out: false,
            trace_id: None,
            cursor: cursor(1),
            feed: None,
        }
    }

    fn record(event: &EventRecord, replay: u32, state: DeliveryState) -> DeliveryRecord {
        let endpoint = endpoint().id;
        DeliveryRecord {
            id: DeliveryId::derive(&event.event, endpoint),
            endpoint,
            tenant: event.event.tenant.clone(),
            event_type: event.event.event_type.clone(),
            at: event.at,
            state,
            changed_at: event.at,
            replay,
            failed_attempts: 3,
            first_failed_at: None,
            last_failure: None,
            cursor: cursor(1),
        }
    }

    /// What is said of it: the replay that is sent, or a word.
    fn judged(action: Action, event: EventRecord, delivery: Option<DeliveryRecord>) -> String {
        let id = delivery.as_ref().map(|known| known.id);
        let found = OwedEvent { event, delivery };
        match decide(action, found, &endpoint(), 7, at(100)) {
            Verdict::Send(sending) => {
                let delivery = sending.delivery;
                assert!(id.is_none_or(|id| id == delivery.id));
                assert_eq!(delivery.first_seen, at(50));
                assert_eq!(
                    (delivery.failed_attempts, delivery.registry_version),
                    (0, 7)
                );
                delivery.replay.to_string()
            }
            Verdict::LeftOut => "left out".to_owned(),
            Verdict::NotMeant => "not meant".to_owned(),
        }
    }

    #[test]
    fn what_was_owed_is_the_next_replay_and_what_was_not_is_the_first() {
        let dead = DeliveryState::DeadLettered {
            reason: DeadLetterReason::Exhausted,
        };
        let wanted = || event("a", r#"{"n":1}"#);
        let unwanted = || event("a", r#"{"n":2}"#);
        let without_data = EventRecord {
            data_left_out: true,
            ..event("a", "{}")
        };
        let stub = EventRecord {
            is_complete: false,
            ..event("a", "{}")
        };
        let operational = |event_type| {
            let source = Event::OPERATIONAL_SOURCE;
            EventRecord {
                event: Event::for_tests("t", source, "1", event_type, b"{\"n\":1}"),
                ..wanted()
            }
        };
        let known = |event: &EventRecord| Some(record(event, 2, dead));
        use Action::{Backfill, Replay, Resend};
        for (action, event, is_known, expected) in [
            (Replay, wanted(), true, "3"),
            // What it was owed counts, not what it wants now.
            (Replay, unwanted(), true, "3"),
            (Replay, without_data.clone(), true, "left out"),
            (Replay, stub.clone(), true, "left out"),
            (Backfill, wanted(), false, "0"),
            (Backfill, wanted(), true, "not meant"),
            (Backfill, unwanted(), false, "not meant"),
            (Backfill, event("b", r#"{"n":1}"#), false, "not meant"),
            (Backfill, without_data.clone(), false, "left out"),
            (Backfill, operational("endpoint.x"), false, "0"),
            (Backfill, operational("a"), false, "0"),
            (Resend, unwanted(), false, "0"),
            (Resend, unwanted(), true, "3"),
            (Resend, stub, false, "left out"),
        ] {
            let delivery = is_known.then(|| known(&event)).flatten();
            let what = format!("{action} {event:?}");
            assert_eq!(judged(action, event, delivery), expected, "{what}");
        }
    }

    #[test]
    fn a_deadline_that_has_passed_is_dropped_and_a_schedule_kept() {
        let mut late = event("a", "{}");
        for (name, second) in [("deliverafter", 200), ("deliverbefore", 90)] {
            let text = AttributeValue::Text(at(second).to_string());
            late.event.extensions.insert(name.to_owned(), text);
        }
        let found = OwedEvent {
            event: late,
            delivery: None,
        };
        let Verdict::Send(sending) = decide(Action::Resend, found, &endpoint(), 1, at(100)) else {
            panic!("it is sent");
        };
        assert_eq!(sending.delivery.deadline, None);
        assert_eq!(sending.delivery.wait.map(|wait| wait.until), Some(at(200)));
        assert_eq!(sending.was, None);
    }

    #[test]
    fn a_page_is_split_by_what_is_sent_and_keeps_its_places() {
        let send = || {
            let found = OwedEvent {
                event: event("a", "{}"),
                delivery: None,
            };
            decide(Action::Resend, found, &endpoint(), 1, at(100))
        };
        for (page, at_once, expected) in [
            ("", 2, vec![(0, 0, None)]),
            ("nl", 2, vec![(0, 1, Some(2))]),
            ("sns", 2, vec![(2, 0, Some(3))]),
            ("lsnssl", 2, vec![(2, 1, Some(4)), (1, 1, Some(6))]),
            (
                "sss",
                1,
                vec![(1, 0, Some(1)), (1, 0, Some(2)), (1, 0, Some(3))],
            ),
        ] {
            let verdicts = page.chars().enumerate().map(|(index, what)| {
                let verdict = match what {
                    's' => send(),
                    'l' => Verdict::LeftOut,
                    _ => Verdict::NotMeant,
                };
                (cursor(index + 1), verdict)
            });
            let split = portions(verdicts, at_once);
            let split = split.iter().map(|p| (p.send.len(), p.left_out, p.after));
            let expected = expected.into_iter();
            let expected = expected.map(|(sent, out, last)| (sent, out, last.map(cursor)));
            assert!(split.eq(expected), "{page}");
        }
    }

    #[test]
    fn no_more_is_ahead_than_the_endpoint_drains() {
        for (pace, own, interval_ms, together, ahead) in [
            ("500/s", None, 2, 125, 1000),
            ("500/s", Some("50/s"), 20, 12, 500),
            ("10/s", Some("50/s"), 100, 2, 100),
            ("500/s", Some("1/h"), 3_600_000, 1, 1),
            ("100000/s", None, 0, 250, 1000),
        ] {
            let endpoint = Endpoint {
                rate: own.map(|own: &str| own.parse().unwrap()),
                ..endpoint()
            };
            let interval = interval(pace.parse().unwrap(), &endpoint);
            assert_eq!(interval.as_millis(), interval_ms, "{pace} {own:?}");
            let found = (at_once(interval), most_ahead(interval));
            assert_eq!(found, (together, ahead), "{pace} {own:?}");
        }
    }

    #[test]
    fn what_is_attempted_or_lost_to_history_is_not_ahead() {
        let event = event("a", "{}");
        let retrying = DeliveryState::Retrying { at: at(200) };
        for (known, recorded_until, is_ahead) in [
            (None, None, true),
            (None, Some(at(159)), true),
            (None, Some(at(160)), false),
            (Some((1, DeliveryState::Delivered)), Some(at(120)), true),
            (Some((1, DeliveryState::Delivered)), Some(at(160)), false),
            (Some((2, DeliveryState::Owed)), Some(at(999)), true),
            (Some((2, retrying)), Some(at(110)), false),
            (Some((2, DeliveryState::Unknown)), Some(at(110)), false),
            (Some((3, DeliveryState::Owed)), Some(at(110)), false),
        ] {
            let id = record(&event, 0, retrying).id;
            let sent = Ahead {
                replay: 2,
                since: at(100),
            };
            let mut ahead = HashMap::from([(id, sent)]);
            let known_record = known.map(|(replay, state)| record(&event, replay, state));
            let standing: Vec<_> = known_record.into_iter().collect();
            keep_unattempted(&mut ahead, &standing, recorded_until);
            assert_eq!(
                ahead.len(),
                usize::from(is_ahead),
                "{known:?} {recorded_until:?}"
            );
        }
    }
}
