//! The version of HTTP that a receiver is called with.

use axum::http::Version;
use fanfare_model::{Endpoint, HttpVersion, TlsIdentity};
use fanfare_testkit::{Authority, Receiver};

use crate::support::{answered, call, egress, endpoint};

#[tokio::test]
async fn a_receiver_is_called_with_the_version_that_it_offers_or_that_the_endpoint_wants() {
    let authority = Authority::new();
    let receiver = Receiver::start_tls(authority.server(None)).await;
    let mut old = authority.server(None);
    old.alpn_protocols = vec![b"http/1.1".to_vec()];
    let (old, plain) = (Receiver::start_tls(old).await, Receiver::start().await);
    let egress = egress();
    for (receiver, wanted, spoken) in [
        (&receiver, HttpVersion::Auto, Some(Version::HTTP_2)),
        (&receiver, HttpVersion::Http1, Some(Version::HTTP_11)),
        (&receiver, HttpVersion::Http2, Some(Version::HTTP_2)),
        (&old, HttpVersion::Auto, Some(Version::HTTP_11)),
        (&old, HttpVersion::Http2, None),
        (&plain, HttpVersion::Auto, Some(Version::HTTP_11)),
        (&plain, HttpVersion::Http2, Some(Version::HTTP_2)),
    ] {
        let endpoint = Endpoint {
            http_version: wanted,
            tls: TlsIdentity {
                client: None,
                ca: Some(authority.pem().into()),
            },
            ..endpoint(&receiver.url("/a"))
        };
        let (before, outcome) = (receiver.count(), call(&egress, &endpoint).await);
        let arrived = receiver.requests().split_off(before);
        let versions: Vec<_> = arrived.iter().map(|request| request.version).collect();
        assert_eq!(versions, Vec::from_iter(spoken), "{wanted}: {outcome:?}");
        assert_eq!(outcome == answered(200), spoken.is_some(), "{outcome:?}");
        for request in arrived {
            request.assert_signed_by(&endpoint.secrets[0]);
        }
    }
}

#[tokio::test]
async fn many_requests_share_a_connection_of_http_2() {
    let authority = Authority::new();
    let receiver = Receiver::start_tls(authority.server(None)).await;
    let endpoint = Endpoint {
        tls: TlsIdentity {
            client: None,
            ca: Some(authority.pem().into()),
        },
        ..endpoint(&receiver.url("/a"))
    };
    let egress = egress();
    assert_eq!(call(&egress, &endpoint).await, answered(200));
    let calls = (0..50).map(|_| call(&egress, &endpoint));
    for outcome in futures_util::future::join_all(calls).await {
        assert_eq!(outcome, answered(200));
    }
    assert_eq!(receiver.connections(), 1);
}
