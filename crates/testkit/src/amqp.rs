//! A plain AMQP client: what a service or a tool without any code of ours does.

use std::collections::BTreeMap;

use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties,
    options::{
        BasicAckOptions, BasicGetOptions, BasicNackOptions, BasicPublishOptions,
        ConfirmSelectOptions, ExchangeDeleteOptions, QueueDeclareOptions, QueueDeleteOptions,
    },
    types::{AMQPValue, FieldTable, LongString},
};

/// A connection of a plain AMQP client.
pub struct PlainAmqp {
    connection: Connection,
    channel: Channel,
}

/// A message as the client saw it.
#[derive(Debug, Clone)]
pub struct Taken {
    /// Its body.
    pub body: Vec<u8>,
    /// Its headers, as text.
    pub headers: BTreeMap<String, String>,
    /// Its message id.
    pub message_id: Option<String>,
    /// Its content type.
    pub content_type: Option<String>,
    tag: u64,
}

impl PlainAmqp {
    /// Connects, with publisher confirms on.
    pub async fn connect(url: &str) -> Self {
        let connection = Connection::connect(url, ConnectionProperties::default())
            .await
            .expect("the broker answers");
        let channel = connection.create_channel().await.expect("a channel opens");
        channel
            .confirm_select(ConfirmSelectOptions::default())
            .await
            .expect("the broker confirms");
        Self {
            connection,
            channel,
        }
    }

    /// Publishes and waits for the confirm.
    pub async fn publish(
        &self,
        (exchange, routing_key): (&str, &str),
        content_type: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) {
        let mut table = FieldTable::default();
        for (name, value) in headers {
            let value = AMQPValue::LongString(LongString::from(*value));
            table.insert((*name).into(), value);
        }
        let properties = BasicProperties::default()
            .with_delivery_mode(2)
            .with_content_type(content_type.into())
            .with_headers(table);
        let options = BasicPublishOptions {
            mandatory: true,
            ..BasicPublishOptions::default()
        };
        let confirm = self
            .channel
            .basic_publish(
                exchange.into(),
                routing_key.into(),
                options,
                body,
                properties,
            )
            .await
            .expect("the frames are written")
            .await
            .expect("the broker answers");
        assert!(
            confirm.is_ack() && confirm.take_message().is_none(),
            "not stored"
        );
    }

    /// Publishes a structured CloudEvent to Fanfare's exchange.
    pub async fn publish_event(&self, routing_key: &str, json: &str) {
        let address = ("fanfare.events", routing_key);
        let content_type = "application/cloudevents+json";
        self.publish(address, content_type, &[], json.as_bytes())
            .await;
    }

    /// Takes a message out of a queue without acknowledging it.
    pub async fn get(&self, queue: &str) -> Option<Taken> {
        let got = self
            .channel
            .basic_get(queue.into(), BasicGetOptions::default())
            .await
            .expect("the queue exists")?;
        let delivery = got.delivery;
        let properties = &delivery.properties;
        let headers = properties.headers().as_ref().map(as_text);
        let text = |value: &Option<lapin::types::ShortString>| {
            value.as_ref().map(|text| text.as_str().to_owned())
        };
        Some(Taken {
            headers: headers.unwrap_or_default(),
            message_id: text(properties.message_id()),
            content_type: text(properties.content_type()),
            body: delivery.data,
            tag: delivery.delivery_tag,
        })
    }

    /// Puts a message back, as a tool does that only looked.
    pub async fn requeue(&self, taken: &Taken) {
        let options = BasicNackOptions {
            requeue: true,
            multiple: false,
        };
        let told = self.channel.basic_nack(taken.tag, options).await;
        told.expect("the broker takes it back");
    }

    /// Removes a message that was taken.
    pub async fn acknowledge(&self, taken: &Taken) {
        let told = self
            .channel
            .basic_ack(taken.tag, BasicAckOptions::default())
            .await;
        told.expect("the broker removes it");
    }

    /// How many messages of a queue are ready to be given out; `None` without such a queue.
    pub async fn depth(&self, queue: &str) -> Option<u32> {
        let options = QueueDeclareOptions {
            passive: true,
            ..QueueDeclareOptions::default()
        };
        // A channel of its own, because asking for a queue that is not there closes it.
        let channel = self
            .connection
            .create_channel()
            .await
            .expect("a channel opens");
        let declared = channel.queue_declare(queue.into(), options, FieldTable::default());
        declared.await.ok().map(|queue| queue.message_count())
    }

    /// Declares a quorum queue without any arguments of ours.
    pub async fn declare_plain_queue(&self, name: &str) {
        let options = QueueDeclareOptions {
            durable: true,
            ..QueueDeclareOptions::default()
        };
        let mut arguments = FieldTable::default();
        let kind = AMQPValue::LongString(LongString::from("quorum"));
        arguments.insert("x-queue-type".into(), kind);
        let declared = self.channel.queue_declare(name.into(), options, arguments);
        declared.await.expect("the queue is declared");
    }

    /// Deletes a queue with everything in it.
    pub async fn delete_queue(&self, name: &str) {
        let options = QueueDeleteOptions::default();
        let deleted = self.channel.queue_delete(name.into(), options).await;
        deleted.expect("the queue is deleted");
    }

    /// Deletes an exchange with its bindings.
    pub async fn delete_exchange(&self, name: &str) {
        let options = ExchangeDeleteOptions::default();
        let deleted = self.channel.exchange_delete(name.into(), options).await;
        deleted.expect("the exchange is deleted");
    }

    /// The channel, for what this client does not offer.
    pub fn channel(&self) -> &Channel {
        &self.channel
    }
}

fn as_text(table: &FieldTable) -> BTreeMap<String, String> {
    let text = |value: &AMQPValue| {
        if let AMQPValue::LongString(text) = value {
            text.to_string()
        } else if let AMQPValue::LongLongInt(number) = value {
            number.to_string()
        } else {
            format!("{value:?}")
        }
    };
    let rows = table.into_iter();
    rows.map(|(name, value)| (name.to_string(), text(value)))
        .collect()
}
