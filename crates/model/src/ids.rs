//! The ids of tenants, endpoints and deliveries, each a type of its own.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::Event;

/// Why a text is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} must be {expected}")]
pub struct InvalidId {
    /// Which id it was meant to be: `tenant`, `endpoint id`, `delivery id`.
    pub what: &'static str,
    /// What would be accepted.
    pub expected: &'static str,
}

/// Who owns endpoints; on a referral platform a campaign. Named by the platform's own id.
///
/// Invariant: 1 to 128 characters of `A-Z a-z 0-9 _ -`. It is the first word of a routing key, so it
/// holds no dot, and no wildcard of a topic exchange.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TenantId(Box<str>);

impl TenantId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TenantId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
        if (1..=128).contains(&text.len()) && text.bytes().all(allowed) {
            Ok(Self(text.into()))
        } else {
            Err(InvalidId {
                what: "tenant",
                expected: "1 to 128 characters of A-Z, a-z, 0-9, `_` and `-`",
            })
        }
    }
}

impl TryFrom<String> for TenantId {
    type Error = InvalidId;

    fn try_from(text: String) -> Result<Self, InvalidId> {
        text.parse()
    }
}

impl From<TenantId> for String {
    fn from(id: TenantId) -> Self {
        id.0.into()
    }
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Names an endpoint: `ep_` and 32 hexadecimal digits of a UUID (version 7, so ids sort by age).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EndpointId(Uuid);

impl EndpointId {
    /// Wraps a UUID that the caller made.
    pub fn from_uuid(uuid: Uuid) -> Self {
        Self(uuid)
    }

    /// The 16 bytes of the id.
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    /// The id with these bytes, as [`EndpointId::as_bytes`] gave them.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }
}

impl FromStr for EndpointId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        hex_after("ep_", text)
            .map(|bytes| Self(Uuid::from_bytes(bytes)))
            .ok_or(InvalidId {
                what: "endpoint id",
                expected: "`ep_` and 32 hexadecimal digits",
            })
    }
}

impl fmt::Display for EndpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ep_{}", self.0.simple())
    }
}

/// Names one event owed to one endpoint; sent as `webhook-id`, the same in every attempt and repeat.
///
/// Derived from tenant, source, event id and endpoint, so whoever routes the same event again makes
/// the same id.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DeliveryId([u8; 16]);

impl DeliveryId {
    /// The id of `event`'s delivery to `endpoint`.
    pub fn derive(event: &Event, endpoint: EndpointId) -> Self {
        let mut hash = Sha256::new();
        for part in [event.tenant.as_str(), &event.source, &event.id] {
            // The length keeps ("a", "bc") apart from ("ab", "c").
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part.as_bytes());
        }
        hash.update(endpoint.as_bytes());
        let digest = hash.finalize();
        let mut id = [0; 16];
        id.copy_from_slice(&digest[..16]);
        Self(id)
    }

    /// The 16 bytes of the id.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// The id with these bytes, as [`DeliveryId::as_bytes`] gave them.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }
}

impl FromStr for DeliveryId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        hex_after("dlv_", text).map(Self).ok_or(InvalidId {
            what: "delivery id",
            expected: "`dlv_` and 32 hexadecimal digits",
        })
    }
}

impl fmt::Display for DeliveryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "dlv_{}", Uuid::from_bytes(self.0).simple())
    }
}

macro_rules! text_conversions {
    ($($id:ty),*) => {$(
        impl TryFrom<String> for $id {
            type Error = InvalidId;

            fn try_from(text: String) -> Result<Self, InvalidId> {
                text.parse()
            }
        }

        impl From<$id> for String {
            fn from(id: $id) -> Self {
                id.to_string()
            }
        }

        impl fmt::Debug for $id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    )*};
}

text_conversions!(EndpointId, DeliveryId);

fn hex_after(prefix: &str, text: &str) -> Option<[u8; 16]> {
    let digits = text.strip_prefix(prefix)?;
    if digits.len() != 32 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    Uuid::parse_str(digits).ok().map(Uuid::into_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_is_one_word_of_a_routing_key() {
        for good in ["MF4c1b7e20", "a", "a_b-C9", &"x".repeat(128)] {
            assert_eq!(good.parse::<TenantId>().unwrap().as_str(), good);
        }
        for bad in ["", "a.b", "a*", "#", "a b", "ä", &"x".repeat(129)] {
            assert!(bad.parse::<TenantId>().is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn ids_read_back_what_they_print() {
        let endpoint = EndpointId::from_uuid(Uuid::from_u128(7));
        assert_eq!(endpoint.to_string().parse(), Ok(endpoint));
        let delivery = DeliveryId::from_bytes([9; 16]);
        assert_eq!(delivery.to_string().parse(), Ok(delivery));
        assert!("ep_7".parse::<EndpointId>().is_err());
        assert!(delivery.to_string().parse::<EndpointId>().is_err());
    }

    #[test]
    fn a_delivery_id_depends_on_every_part_and_on_nothing_else() {
        let endpoint = EndpointId::from_uuid(Uuid::from_u128(1));
        let event = |tenant: &str, source: &str, id: &str| {
            Event::for_tests(tenant, source, id, "a.b", b"{}")
        };
        let base = DeliveryId::derive(&event("t", "s", "1"), endpoint);
        assert_eq!(base, DeliveryId::derive(&event("t", "s", "1"), endpoint));
        for other in [
            event("u", "s", "1"),
            event("t", "s1", ""),
            event("t", "s", "2"),
        ] {
            assert_ne!(base, DeliveryId::derive(&other, endpoint));
        }
        let elsewhere = EndpointId::from_uuid(Uuid::from_u128(2));
        assert_ne!(base, DeliveryId::derive(&event("t", "s", "1"), elsewhere));
    }
}
