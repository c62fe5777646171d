//! A private PostgreSQL database on the server that the test run started.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

use fanfare_model::DatabaseLocation;

/// A PostgreSQL database of its own, deleted with everything in it when dropped.
pub struct TestDatabase {
    server: Server,
    name: String,
}

impl TestDatabase {
    /// Makes a database. Panics, saying how to start a server, when there is none.
    #[expect(
        clippy::disallowed_methods,
        reason = "the test run says by environment where its server is"
    )]
    pub fn new() -> Self {
        let server = std::env::var("FANFARE_TEST_POSTGRES").unwrap_or_else(|_| {
            panic!(
                "FANFARE_TEST_POSTGRES is not set: run the tests with `make test`, which starts \
                 the server they need"
            )
        });
        Self::on(&server)
    }

    /// Makes a database on the server of this URL.
    pub(crate) fn on(url: &str) -> Self {
        let server = Server::at(url);
        let name = format!("test_{:016x}", rand::random::<u64>());
        server.execute("postgres", &format!("CREATE DATABASE {name}"));
        Self { server, name }
    }

    /// The URL of the database.
    pub fn url(&self) -> String {
        let Server { user, host } = &self.server;
        format!("postgresql://{user}@{host}/{}", self.name)
    }

    /// Where the database is, as settings have it.
    pub fn location(&self) -> DatabaseLocation {
        self.url().parse().expect("a URL of PostgreSQL is accepted")
    }

    /// Runs statements in the database, and returns the first column of what the last one answered.
    pub fn execute(&self, statements: &str) -> Vec<String> {
        self.server.execute(&self.name, statements)
    }
}

impl Default for TestDatabase {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        // A server that a test stopped takes its databases with it.
        if TcpStream::connect(&self.server.host).is_ok() {
            let drop = format!("DROP DATABASE {} WITH (FORCE)", self.name);
            self.server.execute("postgres", &drop);
        }
    }
}

/// PostgreSQL's protocol as far as tests need it (PostgreSQL, "Frontend/Backend Protocol", version 3.0).
///
/// Blocking, because a value that is dropped cannot wait for a future.
struct Server {
    user: String,
    host: String,
}

impl Server {
    fn at(url: &str) -> Self {
        let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
        let authority = rest.split('/').next().unwrap_or(rest);
        let (user, host) = authority.split_once('@').unwrap_or(("fanfare", authority));
        Self {
            user: user.to_owned(),
            host: host.to_owned(),
        }
    }

    /// Panics when the server refuses.
    fn execute(&self, database: &str, statements: &str) -> Vec<String> {
        let mut stream = TcpStream::connect(&self.host).expect("the server listens");
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .expect("a timeout can be set");
        let parameters = format!("user\0{}\0database\0{database}\0\0", self.user);
        let mut start = 196_608_u32.to_be_bytes().to_vec();
        start.extend(parameters.as_bytes());
        send(&mut stream, None, &start);
        until_ready(&mut stream);
        send(
            &mut stream,
            Some(b'Q'),
            format!("{statements}\0").as_bytes(),
        );
        let answer = until_ready(&mut stream);
        send(&mut stream, Some(b'X'), &[]);
        answer
    }
}

fn send(stream: &mut TcpStream, kind: Option<u8>, body: &[u8]) {
    let length = u32::try_from(body.len() + 4).expect("a test sends little");
    let mut message: Vec<u8> = kind.into_iter().collect();
    message.extend(length.to_be_bytes());
    message.extend(body);
    stream.write_all(&message).expect("the server reads");
}

/// Reads messages up to `ReadyForQuery`: the first column of each `DataRow`.
fn until_ready(stream: &mut TcpStream) -> Vec<String> {
    let mut rows = Vec::new();
    loop {
        let mut head = [0; 5];
        stream.read_exact(&mut head).expect("the server answers");
        let [kind, length @ ..] = head;
        let mut body = vec![0; u32::from_be_bytes(length) as usize - 4];
        stream.read_exact(&mut body).expect("the server answers");
        match kind {
            b'Z' => return rows,
            b'D' => rows.push(first_column(&body)),
            b'E' => panic!("the server refused: {}", String::from_utf8_lossy(&body)),
            _ => {}
        }
    }
}

/// Two bytes count the columns; four bytes before each give its length, which is -1 for `NULL`.
fn first_column(row: &[u8]) -> String {
    let length = row.get(2..6).and_then(|bytes| bytes.try_into().ok());
    let length = length.map_or(-1, i32::from_be_bytes);
    let column = usize::try_from(length).map_or(&[][..], |length| &row[6..6 + length]);
    String::from_utf8_lossy(column).into_owned()
}
