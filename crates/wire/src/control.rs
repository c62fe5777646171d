//! What processes tell each other beside the events: small JSON messages that may be lost.

use fanfare_model::{EndpointId, PartitionKey, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{Envelope, Headers, Properties};

const MESSAGE_TYPE: &str = "fanfare.control.v1";
const CONTENT_TYPE: &str = "application/json";

/// What one process tells all others. A nudge, never the only way to learn something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ControlMessage {
    /// The registry has this version now.
    RegistryChanged {
        /// The version.
        version: u64,
    },
    /// An endpoint gets far more than it takes: routers do well to send its deliveries straight to the delay line.
    EndpointFlooded {
        /// Which one.
        endpoint: EndpointId,
        /// The change of the endpoint that this is about; it means nothing after the next one.
        as_of: Timestamp,
        /// Its deliveries are to come back one by one from here on,
        from: Timestamp,
        /// this far apart, in microseconds,
        spacing_us: u64,
        /// until here. The others are to come back at times spread between this
        until: Timestamp,
        /// and this.
        latest: Timestamp,
        /// Until when this holds.
        expires: Timestamp,
    },
    /// A dispatcher is there, or leaves.
    DispatcherPresent(DispatcherPresence),
    /// Whoever dispatches, say so.
    DispatchersAsked,
    /// An owner hands a partition over.
    StartsHandedOver(StartsHandedOver),
    /// Whoever owns the partition of this endpoint, say how it stands.
    EndpointAsked {
        /// Which one.
        endpoint: EndpointId,
    },
    /// How an endpoint stands with the owner of its partition.
    EndpointStands(EndpointStanding),
}

/// How an endpoint stands in the lane of the dispatcher that calls it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointStanding {
    /// Which one.
    pub endpoint: EndpointId,
    /// The dispatcher that says so.
    pub dispatcher: String,
    /// What it last learned from an attempt; nothing when it remembers none.
    pub receiver: Option<ReceiverStanding>,
    /// Requests under way.
    pub in_flight: usize,
    /// How many of them there may be at present.
    pub at_most: Option<u16>,
    /// Until when those that wait for their turn have one.
    pub queued_until: Option<Timestamp>,
}

/// What attempts said about a receiver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiverStanding {
    /// The change of the endpoint that this is about; it means nothing after the next one.
    pub as_of: Timestamp,
    /// The circuit.
    pub circuit: Circuit,
    /// Since when the circuit is open, if it is.
    pub open_since: Option<Timestamp>,
    /// When an open circuit lets the next request through.
    pub open_until: Option<Timestamp>,
    /// Until when the receiver asked to be left alone.
    pub held_back_until: Option<Timestamp>,
    /// How many attempts in a row failed.
    pub failed: u32,
    /// When the first of them did.
    pub failing_since: Option<Timestamp>,
}

/// Whether an endpoint's circuit lets requests through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Circuit {
    /// All of them.
    Closed,
    /// None.
    Open,
    /// One, to see whether the receiver is back.
    HalfOpen,
}

/// A dispatcher, and its share of the work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DispatcherPresence {
    /// The name by which partitions are assigned.
    pub id: String,
    /// Tells two processes with the same id apart.
    pub incarnation: u64,
    /// Whether it is about to end.
    pub leaving: bool,
    /// Whether partitions spread over dispatchers; else one is active and the others stand by.
    pub follows_priority: bool,
    /// Every partition that it consumes.
    pub partitions: Vec<PartitionPresence>,
}

/// One partition as a dispatcher has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionPresence {
    /// The partition.
    pub partition: PartitionKey,
    /// What the dispatcher is to it.
    pub role: PartitionRole,
    /// Messages that it received and did not settle yet.
    pub in_hand: usize,
    /// Requests under way.
    pub in_flight: usize,
}

/// What a dispatcher is to a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PartitionRole {
    /// Its deliveries are attempted here.
    Owner,
    /// What runs here is finished, and the rest goes to another.
    HandingOver,
    /// It would take over.
    Standby,
}

/// When a former owner called the endpoints of a partition last, so that their rates go on from there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartsHandedOver {
    /// The former owner.
    pub from: String,
    /// Tells two processes with the same id apart.
    pub incarnation: u64,
    /// What it owned.
    pub partition: PartitionKey,
    /// Its last starts, as far as they still matter to a rate.
    pub starts: Vec<(EndpointId, Timestamp)>,
    /// Any other endpoint may have had a start as late as this.
    pub others_until: Option<Timestamp>,
}

impl ControlMessage {
    /// The message that carries it.
    pub fn encode(&self, now: Timestamp) -> Envelope {
        let name = match self {
            Self::RegistryChanged { version } => format!("registry_changed-{version}"),
            Self::EndpointFlooded { endpoint, .. } => format!("endpoint_flooded-{endpoint}"),
            Self::DispatcherPresent(presence) => {
                format!("dispatcher_present-{:016x}", presence.incarnation)
            }
            Self::DispatchersAsked => "dispatchers_asked".to_owned(),
            Self::StartsHandedOver(starts) => {
                let StartsHandedOver {
                    incarnation,
                    partition,
                    ..
                } = starts;
                format!("starts_handed_over-{incarnation:016x}-{partition}")
            }
            Self::EndpointAsked { endpoint } => format!("endpoint_asked-{endpoint}"),
            Self::EndpointStands(standing) => format!("endpoint_stands-{}", standing.endpoint),
        };
        Envelope {
            properties: Properties::ours(name.clone(), name, MESSAGE_TYPE, CONTENT_TYPE, now),
            headers: Headers::default(),
            body: serde_json::to_vec(self)
                .expect("numbers, texts and lists always serialize")
                .into(),
        }
    }

    /// What a message says; `None` for kinds that this program does not know.
    pub fn decode(envelope: &Envelope) -> Option<Self> {
        serde_json::from_slice(&envelope.body).ok()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn check(message: &ControlMessage, body: &str) {
        let envelope = message.encode(Timestamp::from_second(9).unwrap());
        assert_eq!(std::str::from_utf8(&envelope.body).unwrap(), body);
        assert_eq!(ControlMessage::decode(&envelope).as_ref(), Some(message));
    }

    #[test]
    fn control_messages_read_back() {
        let partition: PartitionKey = "g1.p03".parse().unwrap();
        check(
            &ControlMessage::RegistryChanged { version: 7 },
            r#"{"kind":"registry_changed","version":7}"#,
        );
        check(
            &ControlMessage::DispatchersAsked,
            r#"{"kind":"dispatchers_asked"}"#,
        );
        let at = |second| Timestamp::from_second(second).unwrap();
        let endpoint = EndpointId::from_bytes([7; 16]);
        check(
            &ControlMessage::EndpointFlooded {
                endpoint,
                as_of: at(1),
                from: at(2),
                spacing_us: 1500,
                until: at(3),
                latest: at(4),
                expires: at(5),
            },
            &format!(
                r#"{{"kind":"endpoint_flooded","endpoint":"{endpoint}","as_of":"1970-01-01T00:00:01Z","from":"1970-01-01T00:00:02Z","spacing_us":1500,"until":"1970-01-01T00:00:03Z","latest":"1970-01-01T00:00:04Z","expires":"1970-01-01T00:00:05Z"}}"#,
            ),
        );
        check(
            &ControlMessage::DispatcherPresent(DispatcherPresence {
                id: "a".to_owned(),
                incarnation: u64::MAX,
                leaving: false,
                follows_priority: true,
                partitions: vec![PartitionPresence {
                    partition,
                    role: PartitionRole::HandingOver,
                    in_hand: 2,
                    in_flight: 1,
                }],
            }),
            concat!(
                r#"{"kind":"dispatcher_present","id":"a","incarnation":18446744073709551615,"leaving":false,"follows_priority":true,"#,
                r#""partitions":[{"partition":"g1.p03","role":"handing_over","in_hand":2,"in_flight":1}]}"#,
            ),
        );
        let endpoint = EndpointId::from_uuid(uuid::Uuid::from_u128(5));
        check(
            &ControlMessage::StartsHandedOver(StartsHandedOver {
                from: "a".to_owned(),
                incarnation: 1,
                partition,
                starts: vec![(endpoint, Timestamp::from_second(3).unwrap())],
                others_until: None,
            }),
            &format!(
                r#"{{"kind":"starts_handed_over","from":"a","incarnation":1,"partition":"g1.p03","starts":[["{endpoint}","1970-01-01T00:00:03Z"]],"others_until":null}}"#,
            ),
        );
    }

    #[test]
    fn questions_about_endpoints_and_their_answers_read_back() {
        let (endpoint, at) = (EndpointId::from_bytes([7; 16]), Timestamp::UNIX_EPOCH);
        check(
            &ControlMessage::EndpointAsked { endpoint },
            &format!(r#"{{"kind":"endpoint_asked","endpoint":"{endpoint}"}}"#),
        );
        check(
            &ControlMessage::EndpointStands(EndpointStanding {
                endpoint,
                dispatcher: "a".to_owned(),
                receiver: Some(ReceiverStanding {
                    as_of: at,
                    circuit: Circuit::HalfOpen,
                    open_since: Some(at),
                    open_until: None,
                    held_back_until: None,
                    failed: 8,
                    failing_since: Some(at),
                }),
                in_flight: 1,
                at_most: Some(16),
                queued_until: None,
            }),
            &format!(
                concat!(
                    r#"{{"kind":"endpoint_stands","endpoint":"{}","dispatcher":"a","#,
                    r#""receiver":{{"as_of":"1970-01-01T00:00:00Z","circuit":"half_open","open_since":"1970-01-01T00:00:00Z","#,
                    r#""open_until":null,"held_back_until":null,"failed":8,"failing_since":"1970-01-01T00:00:00Z"}},"#,
                    r#""in_flight":1,"at_most":16,"queued_until":null}}"#,
                ),
                endpoint
            ),
        );
    }

    #[test]
    fn unknown_control_messages_are_ignored() {
        for unknown in [
            "",
            "[]",
            r#"{"kind":"x"}"#,
            r#"{"kind":"registry_changed"}"#,
        ] {
            let envelope = Envelope {
                body: Bytes::from_static(unknown.as_bytes()),
                ..Envelope::default()
            };
            assert_eq!(ControlMessage::decode(&envelope), None, "{unknown}");
        }
    }
}
