//! What a backend service does that has an AMQP client and nothing of ours: connect, publish, wait for
//! the confirm.
//!
//! The demonstration publishes by it, to show that no SDK is needed.

use fanfare_wire::Envelope;
use lapin::{
    Connection, ConnectionProperties,
    options::{BasicPublishOptions, ConfirmSelectOptions},
};

use crate::{Address, BrokerFault, Settings, convert::to_properties};

/// Publishes a few messages over a connection of its own, one after the other; each is confirmed.
pub async fn publish_plainly(
    settings: &Settings,
    messages: Vec<(Address, Envelope)>,
) -> Result<(), BrokerFault> {
    let url = settings.url.expose();
    let connection = Connection::connect(url, ConnectionProperties::default())
        .await
        .map_err(BrokerFault::operation("connecting"))?;
    let channel = connection
        .create_channel()
        .await
        .map_err(BrokerFault::operation("opening a channel"))?;
    channel
        .confirm_select(ConfirmSelectOptions::default())
        .await
        .map_err(BrokerFault::operation("asking for confirms"))?;
    for (address, envelope) in messages {
        let publishing = || BrokerFault::operation(format!("publishing to `{}`", address.exchange));
        let properties = to_properties(envelope.properties, envelope.headers);
        let properties = properties.map_err(BrokerFault::Unpublishable)?;
        let confirm = channel
            .basic_publish(
                address.exchange.as_str().into(),
                address.routing_key.as_str().into(),
                BasicPublishOptions::default(),
                &envelope.body,
                properties,
            )
            .await
            .map_err(publishing())?;
        if !confirm.await.map_err(publishing())?.is_ack() {
            return Err(BrokerFault::Unpublishable(crate::PublishFault::Refused));
        }
    }
    connection
        .close(200, "published".into())
        .await
        .map_err(BrokerFault::operation("closing the connection"))
}
