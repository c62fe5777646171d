//! How a command reaches RabbitMQ: soon, or it says why not.

use std::time::Duration;

use anyhow::anyhow;
use fanfare_broker::{Broker, BrokerFault, Settings};
use url::Url;

/// What people wait for a command that cannot connect.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// Connects for one command. `name` is what RabbitMQ's management pages show.
pub(super) async fn connected(settings: &Settings, name: &str) -> anyhow::Result<Broker> {
    let connecting = Broker::connect(settings, name, CONNECT_WITHIN);
    connecting.await.map_err(|fault| {
        let place = place(settings);
        // The fault's own text points to a log, and commands have none.
        if let BrokerFault::NotConnected(within) = fault {
            anyhow!(
                "no connection to RabbitMQ at {place} within {within:?}: is it running, and is `broker.url` right?"
            )
        } else {
            anyhow::Error::new(fault).context(format!("connecting to RabbitMQ at {place}"))
        }
    })
}

/// Host, port and virtual host of the broker, without user and password.
pub(super) fn place(settings: &Settings) -> String {
    let url = Url::parse(settings.url.expose()).ok();
    let place = url.and_then(|url| {
        let port = url
            .port()
            .map_or_else(String::new, |port| format!(":{port}"));
        Some(format!("{}{port}{}", url.host_str()?, url.path()))
    });
    place.unwrap_or_else(|| "the place that `broker.url` names".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_holds_no_credentials() {
        for (url, expected) in [
            ("amqp://user:hunter2@host:5672/%2f", "host:5672/%2f"),
            ("amqps://host", "host"),
            ("hunter2", "the place that `broker.url` names"),
        ] {
            let settings = Settings {
                url: url.to_owned().into(),
                ..Settings::default()
            };
            assert_eq!(place(&settings), expected, "{url}");
        }
    }
}
