//! Takes in what RabbitMQ gave up on: messages whose handling ended processes again and again.
//!
//! Each delivery of such a message becomes a dead letter of its own, labelled `crashed`.

use fanfare_broker::{Inbox, Message};
use fanfare_model::{Clock, DeadLetterReason, Settlement};
use fanfare_wire::decode_bundle;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use crate::settle::Settler;

pub(crate) async fn run(
    settler: &Settler,
    clock: &Clock,
    mut inbox: Inbox,
    shutdown: &CancellationToken,
) {
    while let Some(message) = inbox.next_until(shutdown).await {
        label(settler, clock, message).await;
    }
    inbox.close().await;
}

async fn label(settler: &Settler, clock: &Clock, message: Message) {
    let Message {
        envelope,
        routing_key,
        receipt,
        ..
    } = message;
    let deliveries = match decode_bundle(&envelope) {
        Ok(deliveries) => deliveries,
        Err(fault) => {
            error!(%fault, routing_key, "a crashed message is no bundle");
            return settler
                .set_aside(&envelope, &routing_key, &fault, receipt)
                .await;
        }
    };
    for delivery in deliveries {
        let id = delivery.id;
        let reason = DeadLetterReason::Crashed;
        let failure = None;
        let settlement = Settlement::DeadLetter { reason, failure };
        let told = settler.journal.told(&delivery, &settlement, None);
        match settler.bury(delivery, reason, None, clock.now()).await {
            Ok(()) => {
                settler.journal.tell(told);
                warn!(delivery.id = %id, "a delivery that ended processes is a dead letter");
            }
            Err(fault) => {
                warn!(delivery.id = %id, %fault, "a crashed delivery was not settled");
                return receipt.hand_back();
            }
        }
    }
    receipt.settle();
}
