//! What the tests of this crate share.

use std::time::Duration;

use fanfare_broker::{Broker, Inbox, Message, Settings};
use fanfare_model::PartitionKey;
use fanfare_testkit::TestBroker;
use fanfare_wire::Envelope;
use tokio::time;
use tokio_util::sync::CancellationToken;

/// Far more than anything here takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Makes a test of each function, on each version of RabbitMQ.
macro_rules! on_every_version {
    ($($fact:ident)*) => {
        $(mod $fact {
            #[tokio::test(flavor = "multi_thread")]
            async fn on_3_10() {
                super::$fact(fanfare_testkit::Version::V3_10).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn on_4_3() {
                super::$fact(fanfare_testkit::Version::V4_3).await;
            }
        })*
    };
}
pub(crate) use on_every_version;

pub(crate) async fn connected(settings: &Settings) -> Broker {
    Broker::connect(settings, "test", PATIENCE)
        .await
        .expect("the broker is there")
}

pub(crate) async fn connected_to(host: &TestBroker) -> Broker {
    connected(&host.settings()).await
}

/// A message that is told from others by its id.
pub(crate) fn envelope(id: &str) -> Envelope {
    let mut envelope = Envelope::default();
    envelope.properties.message_id = Some(id.to_owned());
    envelope.body = id.to_owned().into();
    envelope
}

pub(crate) fn id(message: &Message) -> &str {
    let id = message.envelope.properties.message_id.as_deref();
    id.expect("messages of these tests have ids")
}

/// The first partition of a topology.
pub(crate) fn partition(broker: &Broker) -> PartitionKey {
    let first = broker.topology().partitions().next();
    first.expect("a topology has partitions")
}

/// The next message; panics when none comes.
pub(crate) async fn next(inbox: &mut Inbox) -> Message {
    let never = CancellationToken::new();
    time::timeout(PATIENCE, inbox.next_until(&never))
        .await
        .expect("a message comes")
        .expect("the broker handle is open")
}
