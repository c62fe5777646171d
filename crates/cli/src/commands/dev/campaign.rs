//! The sample data of the demonstration: a referral campaign, its endpoints, and what happens in it.

use std::collections::BTreeMap;

use bytes::Bytes;
use fanfare_model::{Event, EventTypePattern, Schedule, TenantId};

/// The campaign whose endpoints are notified.
pub(crate) const CAMPAIGN: &str = "MF4c1b7e20";

/// The service that the sample events come from.
const SOURCE: &str = "/referral/campaigns";

/// What happens in the campaign: the name of the sample, the type of the event, its data.
const SAMPLES: [(&str, &str, &str); 8] = [
    (
        "a subscriber joins, referred by another",
        "subscriber.joined",
        include_str!("../../../samples/new_registration.json"),
    ),
    (
        "a subscriber joins by himself",
        "subscriber.joined",
        include_str!("../../../samples/new_registration.not_referred.json"),
    ),
    (
        "a subscriber joins whose referrer is gone",
        "subscriber.joined",
        include_str!("../../../samples/new_registration.referrer_deleted.json"),
    ),
    (
        "a subscriber is promoted",
        "subscriber.promoted",
        include_str!("../../../samples/subscriber_promoted.json"),
    ),
    (
        "a subscriber changes his details",
        "subscriber.updated",
        include_str!("../../../samples/subscriber_updated.json"),
    ),
    (
        "a subscriber is deleted",
        "subscriber.deleted",
        include_str!("../../../samples/subscriber_deleted.json"),
    ),
    (
        "a reward is unlocked",
        "reward.unlocked",
        include_str!("../../../samples/reward_unlocked.json"),
    ),
    (
        "a reward is sent",
        "reward.sent",
        include_str!("../../../samples/reward_sent.json"),
    ),
];

/// The event that is published over HTTP.
pub(crate) const OVER_HTTP: (&str, &str) = ("reward.unlocked", SAMPLES[6].2);

/// A receiver of the demonstration and what it wants.
pub(crate) struct SampleEndpoint {
    /// Who receives there.
    pub(crate) name: &'static str,
    /// What it wants.
    pub(crate) wants: &'static [&'static str],
    /// What it answers.
    pub(crate) answers: u16,
    /// When it is tried again, in seconds; the default schedule when absent.
    pub(crate) schedule: Option<&'static [u64]>,
}

/// The receivers of the demonstration.
pub(crate) const ENDPOINTS: [SampleEndpoint; 3] = [
    SampleEndpoint {
        name: "crm",
        wants: &["*"],
        answers: 200,
        schedule: None,
    },
    SampleEndpoint {
        name: "rewards",
        wants: &["reward.*"],
        answers: 204,
        schedule: None,
    },
    SampleEndpoint {
        name: "broken",
        wants: &["subscriber.deleted"],
        answers: 500,
        // Short, so that the demonstration is: three attempts in some three seconds.
        schedule: Some(&[0, 1, 2]),
    },
];

impl SampleEndpoint {
    /// What it wants, parsed.
    pub(crate) fn patterns(&self) -> Vec<EventTypePattern> {
        let parse = |text: &&str| text.parse().expect("the samples hold patterns");
        self.wants.iter().map(parse).collect()
    }

    /// When it is tried again.
    pub(crate) fn schedule(&self) -> Schedule {
        self.schedule.map_or_else(Schedule::default, |seconds| {
            Schedule::from_seconds(seconds.to_vec()).expect("the samples hold schedules")
        })
    }

    /// How many of these types it wants.
    pub(crate) fn wanted<'a>(&self, types: impl Iterator<Item = &'a Event>) -> usize {
        let patterns = self.patterns();
        let wants = |event: &&Event| patterns.iter().any(|p| p.matches(&event.event_type));
        types.filter(wants).count()
    }
}

/// The campaign's id.
pub(crate) fn tenant() -> TenantId {
    CAMPAIGN.parse().expect("the sample tenant is valid")
}

/// What happens in the campaign. `run` keeps the ids of one demonstration apart from another's.
pub(crate) fn events(run: &str) -> Vec<(&'static str, Event)> {
    let event = |(number, (what, event_type, data)): (usize, &(&'static str, &str, &str))| {
        let event = Event {
            tenant: tenant(),
            source: SOURCE.to_owned(),
            id: format!("{run}-{}", number + 1),
            event_type: event_type.parse().expect("the samples hold event types"),
            subject: None,
            time: None,
            data_content_type: Some("application/json".to_owned()),
            data_schema: None,
            extensions: BTreeMap::new(),
            data: Some(Bytes::copy_from_slice(data.trim_end().as_bytes())),
        };
        (*what, event)
    };
    SAMPLES.iter().enumerate().map(event).collect()
}
