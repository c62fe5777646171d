//! Which of the P delivery queues an endpoint belongs to.

use std::{fmt, num::NonZeroU16, str::FromStr};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::EndpointId;

/// The number of delivery queues, 1 to 1,024.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct PartitionCount(NonZeroU16);

impl PartitionCount {
    /// The count as a number.
    pub fn get(self) -> u16 {
        self.0.get()
    }

    /// The partition of an endpoint: always the same one for the same count.
    pub fn partition_of(self, endpoint: EndpointId) -> Partition {
        let digest = Sha256::digest(endpoint.as_bytes());
        let mut head = [0; 8];
        head.copy_from_slice(&digest[..8]);
        let slot = u64::from_be_bytes(head) % u64::from(self.get());
        Partition(u16::try_from(slot).expect("a remainder of a 16-bit divisor has 16 bits"))
    }

    /// Every partition, in order.
    pub fn all(self) -> impl Iterator<Item = Partition> {
        (0..self.get()).map(Partition)
    }
}

impl TryFrom<u16> for PartitionCount {
    type Error = &'static str;

    fn try_from(count: u16) -> Result<Self, Self::Error> {
        NonZeroU16::new(count)
            .filter(|count| count.get() <= 1024)
            .map(Self)
            .ok_or("the number of partitions must be between 1 and 1024")
    }
}

impl From<PartitionCount> for u16 {
    fn from(count: PartitionCount) -> Self {
        count.get()
    }
}

/// One of the delivery queues.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Partition(pub u16);

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}", self.0)
    }
}

/// A partition of a generation: the routing key of a delivery, `g1.p07`.
///
/// A change of the partition count is a new generation, so that old messages keep their way home.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PartitionKey {
    /// Which layout of partitions.
    pub generation: u16,
    /// Which of its queues.
    pub partition: Partition,
}

impl fmt::Display for PartitionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "g{}.p{}", self.generation, self.partition)
    }
}

impl FromStr for PartitionKey {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (generation, partition) = text.strip_prefix('g')?.split_once(".p")?;
            Some(Self {
                generation: generation.parse().ok()?,
                partition: Partition(partition.parse().ok()?),
            })
        };
        parse().ok_or("a partition key looks like `g1.p07`")
    }
}

impl TryFrom<String> for PartitionKey {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<PartitionKey> for String {
    fn from(key: PartitionKey) -> Self {
        key.to_string()
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn endpoints_spread_over_all_partitions_and_stay_where_they_are() {
        let count = PartitionCount::try_from(16).unwrap();
        let mut load = [0_u32; 16];
        for n in 0..16_000_u128 {
            let endpoint = EndpointId::from_uuid(Uuid::from_u128(n));
            let partition = count.partition_of(endpoint);
            assert_eq!(partition, count.partition_of(endpoint));
            load[usize::from(partition.0)] += 1;
        }
        assert!(
            load.iter().all(|load| (850..1150).contains(load)),
            "{load:?}"
        );
    }

    #[test]
    fn the_mapping_never_changes_silently() {
        // Moving an endpoint to another partition while messages wait would let two owners pace it.
        let count = PartitionCount::try_from(16).unwrap();
        let slots: Vec<u16> = (0..8)
            .map(|n| {
                count
                    .partition_of(EndpointId::from_uuid(Uuid::from_u128(n)))
                    .0
            })
            .collect();
        assert_eq!(slots, [5, 11, 8, 6, 8, 10, 12, 10]);
    }

    #[test]
    fn keys_read_back_what_they_print() {
        let key = PartitionKey {
            generation: 1,
            partition: Partition(7),
        };
        assert_eq!(key.to_string(), "g1.p07");
        assert_eq!("g1.p07".parse(), Ok(key));
        for bad in ["", "g1", "p07", "g1.07", "gx.p1"] {
            assert!(bad.parse::<PartitionKey>().is_err());
        }
    }
}
