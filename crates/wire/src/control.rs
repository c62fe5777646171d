//! What processes tell each other beside the events: small JSON messages that may be lost.

use fanfare_model::{EndpointId, Timestamp};
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
        /// Its deliveries are to come back at times spread between this
        from: Timestamp,
        /// and this.
        until: Timestamp,
        /// Until when this holds.
        expires: Timestamp,
    },
}

impl ControlMessage {
    /// The message that carries it.
    pub fn encode(&self, now: Timestamp) -> Envelope {
        let name = match self {
            Self::RegistryChanged { version } => format!("registry_changed-{version}"),
            Self::EndpointFlooded { endpoint, .. } => format!("endpoint_flooded-{endpoint}"),
        };
        Envelope {
            properties: Properties::ours(name.clone(), name, MESSAGE_TYPE, CONTENT_TYPE, now),
            headers: Headers::default(),
            body: serde_json::to_vec(self)
                .expect("numbers and names always serialize")
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

    #[test]
    fn control_messages_read_back_and_unknown_ones_are_ignored() {
        let message = ControlMessage::RegistryChanged { version: 7 };
        let envelope = message.encode(Timestamp::from_second(9).unwrap());
        assert_eq!(
            envelope.body,
            r#"{"kind":"registry_changed","version":7}"#.as_bytes()
        );
        assert_eq!(ControlMessage::decode(&envelope), Some(message));
        let at = |second| Timestamp::from_second(second).unwrap();
        let message = ControlMessage::EndpointFlooded {
            endpoint: EndpointId::from_bytes([7; 16]),
            as_of: at(1),
            from: at(2),
            until: at(3),
            expires: at(4),
        };
        let envelope = message.encode(at(9));
        assert_eq!(ControlMessage::decode(&envelope), Some(message));
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
