//! A private virtual host on one of the brokers that the test run started.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

use fanfare_broker::{Settings, Topology};

use crate::eventually;

/// The versions of RabbitMQ that tests run against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// Debian 12's: one dispatcher is active, the others stand by.
    V3_10,
    /// The newest series: partitions spread over dispatchers.
    V4_3,
}

impl Version {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::V3_10, Self::V4_3];

    /// The name by which scripts know it.
    pub fn name(self) -> &'static str {
        match self {
            Self::V3_10 => "3.10",
            Self::V4_3 => "4.3",
        }
    }

    fn variables(self) -> (&'static str, &'static str) {
        match self {
            Self::V3_10 => ("FANFARE_TEST_310_AMQP", "FANFARE_TEST_310_MANAGEMENT"),
            Self::V4_3 => ("FANFARE_TEST_43_AMQP", "FANFARE_TEST_43_MANAGEMENT"),
        }
    }
}

/// A virtual host of its own, deleted with everything in it when dropped.
pub struct TestBroker {
    amqp: String,
    management: Management,
    vhost: String,
}

impl TestBroker {
    /// Makes a virtual host. Panics, saying how to start a broker, when there is none.
    pub fn new(version: Version) -> Self {
        let (amqp, management) = version.variables();
        let base = variable(amqp);
        let amqp = base
            .rsplit_once('/')
            .map_or(base.as_str(), |(host, _)| host);
        let management = Management::at(&variable(management));
        let vhost = format!("test-{:016x}", rand::random::<u64>());
        management.request("PUT", &format!("/api/vhosts/{vhost}"), "{}");
        let rights = r#"{"configure":".*","write":".*","read":".*"}"#;
        management.request("PUT", &format!("/api/permissions/{vhost}/guest"), rights);
        Self {
            amqp: format!("{amqp}/{vhost}"),
            management,
            vhost,
        }
    }

    /// The AMQP URL of the virtual host.
    pub fn url(&self) -> &str {
        &self.amqp
    }

    /// Settings for it, with four partitions, which is enough for tests and quick to declare.
    pub fn settings(&self) -> Settings {
        settings_for(&self.amqp)
    }

    /// What Fanfare has in it with [`TestBroker::settings`].
    pub fn topology(&self) -> Topology {
        Topology::new(&self.settings())
    }

    /// All messages of a queue, those given out and not settled included. Up to some seconds old.
    pub fn messages(&self, queue: &str) -> Option<u64> {
        let path = format!("/api/queues/{}/{queue}?columns=messages", self.vhost);
        let answer = self.management.request("GET", &path, "");
        let (_, number) = answer.split_once("\"messages\":")?;
        number.trim_end_matches('}').parse().ok()
    }

    /// How many consumers a queue has, active or not. Up to some seconds old.
    pub fn consumers(&self, queue: &str) -> usize {
        let path = format!("/api/consumers/{}", self.vhost);
        let listing = self.management.request("GET", &path, "");
        listing.matches(&format!("\"name\":\"{queue}\"")).count()
    }

    /// Closes client connections of the virtual host from the broker's side, once this many are known.
    ///
    /// The management API learns of a connection some seconds after it was made.
    pub async fn drop_connections(&self, at_least: usize) {
        let names = eventually(Duration::from_secs(60), "connections to drop", async || {
            let names = self.connections();
            (names.len() >= at_least).then_some(names)
        })
        .await;
        for name in names {
            let path = format!("/api/connections/{name}");
            self.management.request("DELETE", &path, "");
        }
    }

    /// The names of the connections, as a path has them.
    fn connections(&self) -> Vec<String> {
        let path = format!("/api/vhosts/{}/connections", self.vhost);
        let listing = self.management.request("GET", &path, "");
        let names = listing.split("\"name\":\"").skip(1);
        let names = names.filter_map(|part| part.split_once('"'));
        let names = names.map(|(name, _)| name).filter(|n| n.contains("->"));
        names
            .map(|name| {
                name.replace(' ', "%20")
                    .replace('>', "%3E")
                    .replace(':', "%3A")
            })
            .collect()
    }
}

pub(crate) fn settings_for(url: &str) -> Settings {
    Settings {
        url: url.to_owned().into(),
        partitions: 4_u16.try_into().expect("four partitions are allowed"),
        ..Settings::default()
    }
}

impl Drop for TestBroker {
    fn drop(&mut self) {
        self.management
            .request("DELETE", &format!("/api/vhosts/{}", self.vhost), "");
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the test run says by environment where its brokers are"
)]
fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| {
        panic!(
            "{name} is not set: run the tests with `make test`, which starts the brokers they need"
        )
    })
}

/// RabbitMQ's management API, as far as tests need it.
struct Management {
    host: String,
}

impl Management {
    fn at(url: &str) -> Self {
        let host = url.rsplit_once('@').map_or(url, |(_, host)| host);
        Self {
            host: host.trim_end_matches('/').to_owned(),
        }
    }

    /// Makes one request and returns the answer's body. Panics when it is refused; a 404 is no refusal.
    fn request(&self, method: &str, path: &str, body: &str) -> String {
        let mut stream = TcpStream::connect(&self.host).expect("the management API listens");
        let patience = Some(Duration::from_secs(60));
        stream
            .set_read_timeout(patience)
            .expect("a timeout can be set");
        // "guest:guest", the user that every fresh node has.
        let request = format!(
            "{method} {path} HTTP/1.0\r\nHost: {}\r\nAuthorization: Basic Z3Vlc3Q6Z3Vlc3Q=\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.host,
            body.len(),
        );
        stream
            .write_all(request.as_bytes())
            .expect("the management API reads");
        let mut answer = String::new();
        stream
            .read_to_string(&mut answer)
            .expect("the management API answers");
        let status = answer.split(' ').nth(1).unwrap_or_default();
        let fine = status.starts_with('2') || status == "404";
        assert!(fine, "{method} {path}: {answer}");
        answer
            .split_once("\r\n\r\n")
            .map_or_else(String::new, |(_, body)| body.to_owned())
    }
}
