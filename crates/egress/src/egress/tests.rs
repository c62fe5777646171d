//! What is dialled and what is not, and what is told of an answer, against real sockets.

use std::{
    collections::VecDeque,
    error::Error,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use fanfare_model::{Event, verify_standard};
use futures_util::future::BoxFuture;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    process::Command,
    sync::mpsc,
    task::JoinSet,
};

use super::*;
use crate::{
    attempt::attempt,
    request::tests::{at, delivery, endpoint},
};

mod endless;

const PATIENT: Duration = Duration::from_secs(20);
const BRIEF: Duration = Duration::from_millis(300);
const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// A receiver on loopback. It reads a whole request, then `answer` has the connection.
struct Receiver {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    requests: mpsc::Receiver<Vec<u8>>,
    _accepting: JoinSet<()>,
}

impl Receiver {
    async fn new<F>(answer: impl Fn(TcpStream) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = io::Result<TcpStream>> + Send,
    {
        Self::on(Ipv4Addr::LOCALHOST, answer).await
    }

    async fn on<F>(
        address: Ipv4Addr,
        answer: impl Fn(TcpStream) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = io::Result<TcpStream>> + Send,
    {
        let listener = TcpListener::bind((address, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let (seen, requests) = mpsc::channel(100);
        let mut accepting = JoinSet::new();
        let counted = Arc::clone(&connections);
        accepting.spawn(async move {
            // One after the other: no test needs two connections at once.
            while let Ok((mut stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                while let Ok(request) = read_request(&mut stream).await {
                    seen.try_send(request).unwrap();
                    match answer(stream).await {
                        Ok(next) => stream = next,
                        Err(_) => break,
                    }
                }
            }
        });
        Self {
            address,
            connections,
            requests,
            _accepting: accepting,
        }
    }

    /// One that gives every request these bytes and keeps the connection open.
    async fn saying(answer: &'static [u8]) -> Self {
        Self::new(move |mut stream| async move {
            stream.write_all(answer).await?;
            Ok(stream)
        })
        .await
    }

    /// One that repeats these bytes after a beginning for as long as it is listened to, and counts them.
    async fn repeating(begin: &'static [u8], again: &'static [u8]) -> (Self, mpsc::Receiver<u64>) {
        let (told, written) = mpsc::channel(1);
        let receiver = Self::new(move |mut stream| {
            let told = told.clone();
            async move {
                let mut count = 0;
                let mut next = begin;
                while stream.write_all(next).await.is_ok() {
                    count += next.len() as u64;
                    next = again;
                }
                told.send(count).await.unwrap();
                Err(io::ErrorKind::BrokenPipe.into())
            }
        })
        .await;
        (receiver, written)
    }

    fn url(&self) -> String {
        format!("http://{}/", self.address)
    }
}

/// Reads head and body; an error is the end of the connection.
async fn read_request(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut request = Vec::new();
    loop {
        let head = request.windows(4).position(|bytes| bytes == b"\r\n\r\n");
        if let Some(head) = head {
            let text = String::from_utf8_lossy(&request[..head]).to_ascii_lowercase();
            let length = text
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "))
                .map_or(0, |length| length.parse().unwrap());
            if request.len() >= head + 4 + length {
                return Ok(request);
            }
        }
        if stream.read_buf(&mut request).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// A port that must not be called. The system completes a connection before the caller sees it, so one
/// that was made waits here to be accepted.
struct Forbidden(std::net::TcpListener);

impl Forbidden {
    fn on(address: SocketAddr) -> Self {
        let listener = std::net::TcpListener::bind(address).unwrap();
        listener.set_nonblocking(true).unwrap();
        Self(listener)
    }

    fn new() -> Self {
        Self::on((Ipv4Addr::LOCALHOST, 0).into())
    }

    fn port(&self) -> u16 {
        self.0.local_addr().unwrap().port()
    }

    #[track_caller]
    fn assert_not_dialled(&self) {
        let error = self.0.accept().expect_err("it was dialled");
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }
}

/// Gives prepared answers, the last one for ever.
#[derive(Debug)]
struct Scripted {
    answers: Mutex<VecDeque<Vec<IpAddr>>>,
    asked: AtomicUsize,
}

impl Scripted {
    fn new(answers: &[&[&str]]) -> Arc<Self> {
        let parsed = |answer: &&[&str]| answer.iter().map(|ip| ip.parse().unwrap()).collect();
        Arc::new(Self {
            answers: Mutex::new(answers.iter().map(parsed).collect()),
            asked: AtomicUsize::new(0),
        })
    }
}

impl Resolver for Scripted {
    fn addresses(
        &self,
        _: &str,
    ) -> BoxFuture<'static, Result<Vec<IpAddr>, Box<dyn Error + Send + Sync>>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let mut answers = self.answers.lock().unwrap();
        let answer = match answers.len() {
            0 => Err("no such name".into()),
            1 => Ok(answers[0].clone()),
            _ => Ok(answers.pop_front().unwrap()),
        };
        Box::pin(async move { answer })
    }
}

/// Never answers.
#[derive(Debug)]
struct Silent;

impl Resolver for Silent {
    fn addresses(
        &self,
        _: &str,
    ) -> BoxFuture<'static, Result<Vec<IpAddr>, Box<dyn Error + Send + Sync>>> {
        Box::pin(std::future::pending())
    }
}

fn settings(allowed: &[&str]) -> EgressSettings {
    EgressSettings {
        allow_networks: allowed.iter().map(|net| net.parse().unwrap()).collect(),
        ..EgressSettings::default()
    }
}

fn egress(allowed: &[&str], resolver: Arc<dyn Resolver>) -> Egress {
    Egress::with_resolver(&settings(allowed), resolver).unwrap()
}

/// An egress that may call loopback and resolves every name to 127.0.0.1.
fn local() -> Egress {
    egress(&["127.0.0.0/8"], Scripted::new(&[&["127.0.0.1"]]))
}

/// An egress that may call only public addresses.
fn strict(answers: &[&[&str]]) -> Egress {
    egress(&[], Scripted::new(answers))
}

async fn call(egress: &Egress, url: &str, timeout: Duration) -> Outcome {
    let delivery = delivery(Event::for_tests("t", "s", "1", "a.b", b"{}"));
    attempt(egress, &endpoint(url), &delivery, at(1_000_000), timeout).await
}

fn answered(status: u16) -> Outcome {
    Outcome::Answered {
        status,
        retry_after: None,
    }
}

#[tokio::test]
async fn the_receiver_gets_one_signed_post() {
    let mut receiver = Receiver::saying(OK).await;
    let endpoint = endpoint(&format!("{}hooks?x=1", receiver.url()));
    let delivery = delivery(Event::for_tests("t", "s", "1", "a.b", b"{\"n\":1}"));
    let outcome = attempt(&local(), &endpoint, &delivery, at(1_000_000), PATIENT).await;
    assert_eq!(outcome, answered(200));

    let request = String::from_utf8(receiver.requests.recv().await.unwrap()).unwrap();
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("POST /hooks?x=1 HTTP/1.1\r\n"), "{head}");
    let header = |name: &str| {
        let line = head.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("no {name} in {head}"))
    };
    assert_eq!(header("user-agent: "), clients::USER_AGENT);
    assert!(!head.contains("accept-encoding"), "{head}");
    let signed = (
        header("webhook-id: "),
        header("webhook-timestamp: "),
        header("webhook-signature: "),
    );
    let secret = &endpoint.secrets[0];
    let verdict = verify_standard(secret, signed, body.as_bytes(), at(1_000_000), BRIEF);
    assert_eq!(verdict, Ok(()));
    assert!(receiver.requests.try_recv().is_err());
}

#[tokio::test]
async fn a_status_is_an_answer_whatever_it_is() {
    for (answer, status, retry_after) in [
        (&b"HTTP/1.1 204 No Content\r\n\r\n"[..], 204, None),
        (b"HTTP/1.1 410 Gone\r\ncontent-length: 0\r\n\r\n", 410, None),
        (
            b"HTTP/1.1 429 Slow\r\nretry-after: 7\r\ncontent-length: 0\r\n\r\n",
            429,
            Some(7),
        ),
        (
            b"HTTP/1.1 503 No\r\nretry-after: 999999999\r\ncontent-length: 0\r\n\r\n",
            503,
            Some(365 * 24 * 3600),
        ),
        (
            b"HTTP/1.1 503 No\r\nretry-after: Mon, 12 Jan 1970 13:47:40 GMT\r\ncontent-length: 0\r\n\r\n",
            503,
            Some(60),
        ),
        (
            b"HTTP/1.1 503 No\r\nretry-after: \xff\r\ncontent-length: 0\r\n\r\n",
            503,
            None,
        ),
        (
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 202 OK\r\ncontent-length: 0\r\n\r\n",
            202,
            None,
        ),
    ] {
        let receiver = Receiver::saying(answer).await;
        let expected = Outcome::Answered {
            status,
            retry_after: retry_after.map(Duration::from_secs),
        };
        assert_eq!(call(&local(), &receiver.url(), PATIENT).await, expected);
    }
}

#[tokio::test]
async fn what_is_no_answer_is_told_apart() {
    let silent = Receiver::new(|stream| async move {
        std::future::pending::<()>().await;
        Ok(stream)
    })
    .await;
    let outcome = call(&local(), &silent.url(), BRIEF).await;
    assert_eq!(outcome, Outcome::TimedOut);

    let closing = Receiver::new(|_| async { Err(io::ErrorKind::Other.into()) }).await;
    let outcome = call(&local(), &closing.url(), PATIENT).await;
    assert!(
        matches!(outcome, Outcome::NotConnected { .. }),
        "{outcome:?}"
    );
    assert_eq!(closing.connections.load(Ordering::SeqCst), 1);

    let port = Forbidden::new().port();
    let outcome = call(
        &local(),
        &format!("http://127.0.0.1:{port}/?key=1"),
        PATIENT,
    )
    .await;
    let Outcome::NotConnected { detail } = outcome else {
        panic!("{outcome:?}");
    };
    assert!(
        detail.contains("refused") && !detail.contains("key"),
        "{detail}"
    );

    let nonsense = Receiver::saying(b"SSH-2.0-OpenSSH_9.9\r\n\r\n").await;
    let outcome = call(&local(), &nonsense.url(), PATIENT).await;
    assert!(
        matches!(outcome, Outcome::NotConnected { .. }),
        "{outcome:?}"
    );

    let outcome = call(&strict(&[]), "https://a.example/", PATIENT).await;
    let detail = "no such name".to_owned();
    assert_eq!(outcome, Outcome::NameNotResolved { detail });

    let outcome = call(&strict(&[&[]]), "https://a.example/", PATIENT).await;
    let detail = "the name has no addresses".to_owned();
    assert_eq!(outcome, Outcome::NameNotResolved { detail });

    let hasty = EgressSettings {
        connect_timeout: BRIEF,
        ..EgressSettings::default()
    };
    let hasty = Egress::with_resolver(&hasty, Arc::new(Silent)).unwrap();
    let outcome = call(&hasty, "https://a.example/", PATIENT).await;
    let detail = "the name servers did not answer in time".to_owned();
    assert_eq!(outcome, Outcome::NameNotResolved { detail });
}

#[tokio::test]
async fn a_failed_handshake_is_not_a_failed_connection() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let url = format!("https://{}/", listener.local_addr().unwrap());
    let answering = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(OK).await.unwrap();
        std::future::pending::<()>().await;
    };
    let egress = local();
    tokio::select! {
        outcome = call(&egress, &url, PATIENT) => {
            assert!(matches!(outcome, Outcome::TlsFailed { .. }), "{outcome:?}");
        }
        () = answering => unreachable!("it waits for ever"),
    }

    let silent = EgressSettings {
        connect_timeout: BRIEF,
        ..settings(&["127.0.0.0/8"])
    };
    let egress = Egress::with_resolver(&silent, Arc::new(Silent)).unwrap();
    let outcome = call(&egress, &url, PATIENT).await;
    let detail = "no connection in time".to_owned();
    assert_eq!(outcome, Outcome::NotConnected { detail });
}

#[tokio::test]
async fn no_spelling_of_a_forbidden_address_is_dialled() {
    let forbidden = Forbidden::new();
    let port = forbidden.port();
    let egress = strict(&[&["127.0.0.1"]]);
    for host in [
        "127.0.0.1",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "127.1",
        "127.0.1",
        "0",
        "0x7f.1",
        "127.0.0.1.",
        "１２７.0.0.1",
        "127。0。0。1",
        "%31%32%37.0.0.1",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "localhost",
        "localhost.",
        "a.localhost",
        "localtest.me",
        "127.0.0.1.nip.io",
    ] {
        let outcome = call(&egress, &format!("http://{host}:{port}/"), PATIENT).await;
        assert!(
            matches!(outcome, Outcome::Blocked { .. }),
            "{host}: {outcome:?}"
        );
    }
    forbidden.assert_not_dialled();
}

#[tokio::test]
async fn one_forbidden_answer_blocks_a_name() {
    let forbidden = Forbidden::new();
    let url = format!("http://a.example:{}/", forbidden.port());
    for answer in [
        &["9.9.9.9", "127.0.0.1"][..],
        &["127.0.0.1", "9.9.9.9"],
        &["2606:4700::1111", "fd00::1"],
        &["9.9.9.9", "::1"],
        &["9.9.9.9", "::ffff:127.0.0.1"],
        &["168.63.129.16"],
    ] {
        let outcome = call(&strict(&[answer]), &url, PATIENT).await;
        assert!(
            matches!(outcome, Outcome::Blocked { .. }),
            "{answer:?}: {outcome:?}"
        );
    }
    forbidden.assert_not_dialled();

    let outcome = call(
        &strict(&[&["10.0.0.1"]]),
        "https://a.example/?key=1",
        PATIENT,
    )
    .await;
    let Outcome::Blocked { detail } = outcome else {
        panic!("{outcome:?}");
    };
    assert!(
        detail.contains("a.example") && detail.contains("10.0.0.1"),
        "{detail}"
    );
    assert!(!detail.contains("key"), "{detail}");
}

/// 127.0.0.2 is allowed here and stands for a public address, 127.0.0.1 for a private one.
#[tokio::test]
async fn a_name_that_turns_private_is_not_dialled_again() {
    let receiver = Receiver::on(Ipv4Addr::new(127, 0, 0, 2), |mut stream| async move {
        stream.write_all(OK).await?;
        Err(io::ErrorKind::Other.into())
    })
    .await;
    let port = receiver.address.port();
    let forbidden = Forbidden::on((Ipv4Addr::LOCALHOST, port).into());
    let rebinding = Scripted::new(&[&["127.0.0.2"], &["127.0.0.1"]]);
    let egress = egress(&["127.0.0.2/32"], rebinding);
    let url = format!("http://a.example:{port}/");
    assert_eq!(call(&egress, &url, PATIENT).await, answered(200));

    // The client may not have noticed yet that the receiver closed the connection.
    let mut outcome = call(&egress, &url, PATIENT).await;
    if matches!(outcome, Outcome::NotConnected { .. }) {
        outcome = call(&egress, &url, PATIENT).await;
    }
    assert!(matches!(outcome, Outcome::Blocked { .. }), "{outcome:?}");
    assert_eq!(receiver.connections.load(Ordering::SeqCst), 1);
    forbidden.assert_not_dialled();
}

#[tokio::test]
async fn a_connection_is_used_again_for_its_own_host_only() {
    let receiver = Receiver::saying(OK).await;
    let resolver = Scripted::new(&[&["127.0.0.1"]]);
    let egress = egress(&["127.0.0.0/8"], Arc::clone(&resolver) as Arc<dyn Resolver>);
    let port = receiver.address.port();
    let first = format!("http://a.example:{port}/");
    for _ in 0..3 {
        assert_eq!(call(&egress, &first, PATIENT).await, answered(200));
    }
    assert_eq!(resolver.asked.load(Ordering::SeqCst), 1);
    assert_eq!(receiver.connections.load(Ordering::SeqCst), 1);

    // The receiver serves one connection at a time, so this one is made and never answered.
    let second = format!("http://b.example:{port}/");
    assert_eq!(call(&egress, &second, BRIEF).await, Outcome::TimedOut);
    assert_eq!(resolver.asked.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn redirects_are_answers_and_are_not_followed() {
    for status in [301, 302, 303, 307, 308] {
        let forbidden = Forbidden::new();
        let answer = format!(
            "HTTP/1.1 {status} Moved\r\nlocation: http://127.0.0.1:{}/\r\ncontent-length: 0\r\n\r\n",
            forbidden.port()
        );
        let mut receiver = Receiver::saying(Box::leak(answer.into_boxed_str()).as_bytes()).await;
        assert_eq!(
            call(&local(), &receiver.url(), PATIENT).await,
            answered(status)
        );
        forbidden.assert_not_dialled();
        receiver.requests.recv().await.unwrap();
        assert!(receiver.requests.try_recv().is_err());
    }
}

#[tokio::test]
async fn a_request_goes_straight_to_its_receiver() {
    let receiver = Receiver::saying(OK).await;
    let url = format!("http://a.example:{}/", receiver.address.port());
    assert_eq!(call(&local(), &url, PATIENT).await, answered(200));
    assert_eq!(receiver.connections.load(Ordering::SeqCst), 1);
}

/// Runs the test above in a process of its own, because no test may change its own environment.
#[tokio::test]
async fn a_proxy_in_the_environment_is_not_used() {
    let proxy = Forbidden::new();
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args([
        "--exact",
        "egress::tests::a_request_goes_straight_to_its_receiver",
    ]);
    for name in [
        "http_proxy",
        "https_proxy",
        "all_proxy",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
    ] {
        child.env(name, format!("http://127.0.0.1:{}/", proxy.port()));
    }
    let output = child
        .env_remove("no_proxy")
        .env_remove("NO_PROXY")
        .output()
        .await
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}"
    );
    proxy.assert_not_dialled();
}

#[tokio::test]
async fn the_systems_resolver_reads_the_hosts_file() {
    let egress = Egress::new(&settings(&["127.0.0.0/8", "::1/128"])).unwrap();
    let receiver = Receiver::saying(OK).await;
    let url = format!("http://localhost:{}/", receiver.address.port());
    assert_eq!(call(&egress, &url, PATIENT).await, answered(200));
}
