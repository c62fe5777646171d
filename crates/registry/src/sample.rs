//! The event that an endpoint is tried out with. It is published nowhere.

use std::collections::BTreeMap;

use fanfare_model::{Endpoint, Event, EventType, EventTypePattern, Timestamp};
use serde_json::{Value, json};

use crate::{
    CatalogueFile, NewEventType, REFERRAL_CATALOGUE, Registry, RegistryFault, store::new_uuid,
};

/// The type of the sample for an endpoint that wants nothing of which a sample is known.
const GENERIC: &str = "fanfare.test";

impl Registry {
    /// An event to try an endpoint out with: of the type that is asked for, or one that the endpoint wants;
    /// with the data that is given, or the sample of its type.
    pub async fn sample_event(
        &self,
        endpoint: &Endpoint,
        event_type: Option<EventType>,
        data: Option<Vec<u8>>,
        now: Timestamp,
    ) -> Result<Event, RegistryFault> {
        let own = self.event_types().await?;
        let built_in = CatalogueFile::built_in(REFERRAL_CATALOGUE);
        let own = own.iter().map(|one| &one.definition);
        let known: Vec<_> = own
            .chain(built_in.iter().flat_map(|file| &file.event_types))
            .collect();
        let event_type = event_type.unwrap_or_else(|| wanted(endpoint, &known));
        let data = data.unwrap_or_else(|| {
            let sample = sample_of(&event_type, &known).cloned();
            let sample = sample.unwrap_or_else(|| json!({ "test": true }));
            sample.to_string().into_bytes()
        });
        Ok(Event {
            tenant: endpoint.tenant.clone(),
            source: "fanfare/test".to_owned(),
            id: format!("test_{}", new_uuid(now).simple()),
            event_type,
            subject: None,
            time: None,
            data_content_type: Some("application/json".to_owned()),
            data_schema: None,
            extensions: BTreeMap::new(),
            data: Some(data.into()),
        })
    }
}

/// The first type that the endpoint wants and that a sample is known of; else the first that it names.
fn wanted(endpoint: &Endpoint, known: &[&NewEventType]) -> EventType {
    let mut sampled = known.iter().filter(|one| one.sample.is_some());
    let sampled = sampled.find(|one| endpoint.wants(&one.name));
    let named = endpoint
        .event_types
        .iter()
        .find_map(|pattern| match pattern {
            EventTypePattern::Exact(name) => Some(name),
            EventTypePattern::Any | EventTypePattern::Family(_) => None,
        });
    let wanted = sampled.map(|one| &one.name).or(named).cloned();
    wanted.unwrap_or_else(|| GENERIC.parse().expect("two words are an event type"))
}

fn sample_of<'k>(name: &EventType, known: &[&'k NewEventType]) -> Option<&'k Value> {
    let mut known = known.iter().filter(|one| one.name == *name);
    known.find_map(|one| one.sample.as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sample_is_of_a_type_that_the_endpoint_wants() {
        let one = |written| serde_json::from_value::<NewEventType>(written).unwrap();
        let known = [
            one(json!({"type": "a.first"})),
            one(json!({"type": "a.second", "sample": {"n": 2}})),
            one(json!({"type": "b", "sample": {"n": 3}})),
        ];
        let known: Vec<_> = known.iter().collect();
        for (patterns, expected) in [
            (&["*"][..], "a.second"),
            (&["a.*"], "a.second"),
            (&["a.first", "b"], "b"),
            (&["a.first"], "a.first"),
            (&["c.*"], GENERIC),
        ] {
            let mut endpoint = Endpoint::for_tests(1, "t", "https://example.com/");
            endpoint.event_types = patterns.iter().map(|text| text.parse().unwrap()).collect();
            assert_eq!(wanted(&endpoint, &known).as_str(), expected, "{patterns:?}");
        }
        assert_eq!(
            sample_of(&"b".parse().unwrap(), &known),
            Some(&json!({"n": 3}))
        );
    }
}
