//! Tests of the receiver, over real sockets.

use fanfare_model::sign_standard;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};

use super::{signature::TOLERANCE, *};

const NOW: &str = "2026-11-23T12:00:00Z";
const BODY: &[u8] = br#"{"type":"reward.granted","data":{}}"#;

fn now() -> Timestamp {
    NOW.parse().unwrap()
}

struct Running {
    address: SocketAddr,
    requests: mpsc::Receiver<ReceivedRequest>,
    shutdown: CancellationToken,
    server: JoinSet<io::Result<()>>,
}

async fn running(secret: Option<SigningSecret>, status: StatusCode) -> Running {
    let settings = ReceiverSettings {
        secret,
        signature: SignatureScheme::Standard,
        behaviour: Behaviour {
            status,
            ..Behaviour::default()
        },
        forward: None,
        clock: Clock::new(now),
    };
    started(settings).await
}

async fn started(settings: ReceiverSettings) -> Running {
    let any_port = "127.0.0.1:0".parse().unwrap();
    let (receiver, address, requests) = Receiver::bind(any_port, settings).await.unwrap();
    let shutdown = CancellationToken::new();
    let mut server = JoinSet::new();
    server.spawn(receiver.run(shutdown.clone()));
    Running {
        address,
        requests,
        shutdown,
        server,
    }
}

impl Running {
    /// Posts a body; returns the status of the answer and what the receiver tells about it.
    async fn post(&mut self, headers: &str, body: &[u8]) -> (u16, ReceivedRequest) {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let head = format!(
            "POST /hook HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n{headers}\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        // A body that is refused may not be read to its end.
        stream.write_all(body).await.ok();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        let status = std::str::from_utf8(&answer[9..]).unwrap().parse().unwrap();
        (status, self.requests.recv().await.unwrap())
    }
}

fn signed_with(secret: &SigningSecret, at: Timestamp) -> String {
    let signature = sign_standard([secret], "msg_1", at, BODY);
    let second = at.as_second();
    format!(
        "webhook-id: msg_1\r\nwebhook-timestamp: {second}\r\nwebhook-signature: {signature}\r\n"
    )
}

#[tokio::test]
async fn only_genuine_requests_get_the_chosen_answer() {
    let (secret, other) = (SigningSecret::generate(), SigningSecret::generate());
    let old = now() - Duration::from_secs(301);
    let mut receiver = running(Some(secret.clone()), StatusCode::ACCEPTED).await;
    for (headers, status, verdict) in [
        (signed_with(&secret, now()), 202, Verdict::Genuine),
        (
            signed_with(&other, now()),
            401,
            Verdict::Refused(SignatureFault::Mismatch.into()),
        ),
        (
            signed_with(&secret, old),
            401,
            Verdict::Refused(SignatureFault::Stale(TOLERANCE).into()),
        ),
        (
            "webhook-id: msg_1\r\n".to_owned(),
            401,
            Verdict::Refused(Refusal::Header("webhook-timestamp".to_owned())),
        ),
    ] {
        let (answered, request) = receiver.post(&headers, BODY).await;
        assert_eq!(
            (answered, &request.verdict),
            (status, &verdict),
            "{headers}"
        );
        assert_eq!(request.answer.unwrap(), status);
        assert_eq!(request.id.as_deref(), Some("msg_1"));
        assert_eq!(request.event_type.as_deref(), Some("reward.granted"));
        assert_eq!((request.at, &*request.body), (now(), BODY));
    }
}

#[tokio::test]
async fn without_a_secret_everything_gets_the_chosen_answer() {
    let mut receiver = running(None, StatusCode::INTERNAL_SERVER_ERROR).await;
    let (answered, request) = receiver.post("", b"\xff not json").await;
    assert_eq!((answered, request.verdict), (500, Verdict::Unverified));
    assert_eq!((request.id, request.event_type), (None, None));
    assert_eq!(
        (request.method, request.uri.path()),
        (Method::POST, "/hook")
    );
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_and_told() {
    let mut receiver = running(None, StatusCode::OK).await;
    let (answered, _) = receiver.post("", &vec![b' '; LARGEST_BODY]).await;
    assert_eq!(answered, 200);
    let (answered, request) = receiver.post("", &vec![b' '; LARGEST_BODY + 1]).await;
    assert_eq!(answered, 413);
    assert_eq!(request.verdict, Verdict::Refused(Refusal::Body));
    assert_eq!(request.answer.unwrap(), 413);
}

#[tokio::test]
async fn after_the_shutdown_the_channel_ends() {
    let mut receiver = running(None, StatusCode::OK).await;
    receiver.post("", BODY).await;
    receiver.shutdown.cancel();
    receiver.server.join_next().await.unwrap().unwrap().unwrap();
    assert!(receiver.requests.recv().await.is_none());
}

#[tokio::test]
async fn nobody_has_to_take_the_requests() {
    let mut receiver = running(None, StatusCode::OK).await;
    receiver.requests.close();
    let mut stream = TcpStream::connect(receiver.address).await.unwrap();
    stream
        .write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn failures_on_demand_come_first_and_then_the_chosen_answer() {
    let settings = ReceiverSettings {
        secret: None,
        signature: SignatureScheme::Standard,
        behaviour: Behaviour {
            fail_first: 2,
            fail_status: StatusCode::TOO_MANY_REQUESTS,
            ..Behaviour::default()
        },
        forward: None,
        clock: Clock::new(now),
    };
    let mut receiver = started(settings).await;
    for (id, expected) in [("a", 429), ("a", 429), ("b", 429), ("a", 200), ("a", 200)] {
        let (answered, request) = receiver.post(&format!("webhook-id: {id}\r\n"), BODY).await;
        assert_eq!(answered, expected, "{id}");
        assert_eq!(request.because.is_some(), expected == 429);
    }
}

#[tokio::test]
async fn a_request_that_hangs_is_let_go_when_the_receiver_stops() {
    let settings = ReceiverSettings {
        secret: None,
        signature: SignatureScheme::Standard,
        behaviour: Behaviour {
            hang_rate: 1.0,
            ..Behaviour::default()
        },
        forward: None,
        clock: Clock::new(now),
    };
    let mut receiver = started(settings).await;
    let mut stream = TcpStream::connect(receiver.address).await.unwrap();
    let head = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n";
    stream.write_all(head).await.unwrap();
    let request = receiver.requests.recv().await.unwrap();
    assert_eq!(request.answer, None);
    receiver.shutdown.cancel();
    receiver.server.join_next().await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn a_forwarded_request_arrives_as_it_came_and_its_answer_comes_back() {
    let mut behind = running(None, StatusCode::IM_A_TEAPOT).await;
    let settings = ReceiverSettings {
        secret: None,
        signature: SignatureScheme::Standard,
        behaviour: Behaviour::default(),
        forward: Some(Forward::to(
            behind.address.port().to_string().parse().unwrap(),
        )),
        clock: Clock::new(now),
    };
    let mut receiver = started(settings).await;
    let headers = "webhook-id: msg_1\r\nwebhook-signature: v1,x\r\n";
    let (answered, request) = receiver.post(headers, b"\x00\xff").await;
    assert_eq!(answered, 418);
    assert!(request.because.unwrap().starts_with("by http://127.0.0.1:"));
    let arrived = behind.requests.recv().await.unwrap();
    assert_eq!(
        (&*arrived.body, arrived.uri.path()),
        (&b"\x00\xff"[..], "/hook")
    );
    assert_eq!(arrived.headers["webhook-signature"], "v1,x");
    // Nobody there is the sender's to try again.
    behind.shutdown.cancel();
    behind.server.join_next().await.unwrap().unwrap().unwrap();
    let (answered, request) = receiver.post(headers, BODY).await;
    assert_eq!(answered, 502);
    assert!(request.because.unwrap().contains("nothing answers"));
}
