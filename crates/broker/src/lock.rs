//! A lock that one process at a time has: an exclusive queue, which is gone with the connection that declared it.

use std::sync::Arc;

use lapin::{
    Channel, Connection,
    options::{QueueDeclareOptions, QueueDeleteOptions},
    protocol::AMQPSoftError,
    types::FieldTable,
};
use tracing::debug;

use crate::{
    Broker, BrokerFault,
    broker::{is_soft_error, open_channel},
};

/// A lock that is ours. It is freed when it is released, and when its connection ends, however that happens.
///
/// It keeps processes apart. Within one, the same lock can be taken twice.
pub struct Lock {
    connection: Arc<Connection>,
    channel: Channel,
    queue: String,
}

impl Broker {
    /// Takes the lock of this name; `None` while another process has it.
    pub async fn lock(&self, name: &str) -> Result<Option<Lock>, BrokerFault> {
        let connection = self.consuming_connection().await?;
        let queue = self.topology().lock_named(name);
        let channel = declare(&connection, &queue).await?;
        Ok(channel.map(|channel| Lock {
            connection,
            channel,
            queue,
        }))
    }
}

impl Lock {
    /// Whether it is still ours, as far as this process knows.
    pub fn is_held(&self) -> bool {
        self.connection.status().connected()
    }

    /// Lets others have it.
    pub async fn release(self) {
        let options = QueueDeleteOptions::default();
        let released = async {
            let deleted = self
                .channel
                .queue_delete(self.queue.as_str().into(), options);
            deleted.await?;
            self.channel.close(200, "released".into()).await
        };
        if let Err(error) = released.await {
            // It went with its connection.
            debug!(%error, queue = self.queue, "a lock was gone before it was released");
        }
    }
}

/// Declares the queue that is the lock; `None` when it belongs to another connection.
pub(crate) async fn declare(
    connection: &Connection,
    queue: &str,
) -> Result<Option<Channel>, BrokerFault> {
    let channel = open_channel(connection).await?;
    let options = QueueDeclareOptions {
        exclusive: true,
        auto_delete: true,
        ..QueueDeclareOptions::default()
    };
    let declared = channel.queue_declare(queue.into(), options, FieldTable::default());
    match declared.await {
        Ok(_) => Ok(Some(channel)),
        Err(error) if is_soft_error(&error, &AMQPSoftError::RESOURCELOCKED) => Ok(None),
        Err(source) => Err(BrokerFault::Operation {
            what: format!("locking by queue `{queue}`"),
            source,
        }),
    }
}
