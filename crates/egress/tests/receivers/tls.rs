//! Receivers that a private authority vouches for, and receivers that want to know who calls.

use fanfare_egress::check_tls;
use fanfare_model::{ClientCertificate, Endpoint, Outcome, Secret, TlsIdentity};
use fanfare_testkit::{Authority, Identity, Receiver};

use crate::support::{answered, call, egress, endpoint};

fn client(identity: Identity) -> ClientCertificate {
    ClientCertificate {
        chain: identity.certificate,
        key: Secret::new(identity.key),
    }
}

fn with(url: &str, ca: Option<&Authority>, client: Option<ClientCertificate>) -> Endpoint {
    let ca = ca.map(Authority::pem);
    let tls = TlsIdentity {
        client: client.map(Box::new),
        ca: ca.map(Into::into),
    };
    assert_eq!(check_tls(&tls), Ok(()));
    Endpoint {
        tls,
        ..endpoint(url)
    }
}

fn refused(outcome: Outcome) -> String {
    let Outcome::TlsFailed { detail } = outcome else {
        panic!("{outcome:?}")
    };
    detail
}

#[tokio::test]
async fn a_private_authority_is_trusted_by_the_endpoint_that_names_it_and_by_no_other() {
    let (ours, other) = (Authority::new(), Authority::new());
    let receiver = Receiver::start_tls(ours.server(None)).await;
    let (egress, url) = (egress(), receiver.url("/a"));
    // In this order a connection that one endpoint trusted is there for the others to misuse.
    assert_eq!(
        call(&egress, &with(&url, Some(&ours), None)).await,
        answered(200)
    );
    for ca in [None, Some(&other)] {
        let detail = refused(call(&egress, &with(&url, ca, None)).await);
        assert!(detail.contains("certificate"), "{detail}");
    }
    // Several are a bundle.
    let both = Endpoint {
        tls: TlsIdentity {
            client: None,
            ca: Some(format!("{}{}", other.pem(), ours.pem()).into()),
        },
        ..endpoint(&url)
    };
    assert_eq!(call(&egress, &both).await, answered(200));
    assert_eq!(receiver.count(), 2);
}

#[tokio::test]
async fn a_name_that_is_not_the_certificates_is_refused() {
    let authority = Authority::new();
    let receiver = Receiver::start_tls(authority.server(None)).await;
    let url = receiver.url("/a").replace("127.0.0.1", "localhost");
    let outcome = call(&egress(), &with(&url, Some(&authority), None)).await;
    let detail = refused(outcome);
    assert!(detail.contains("not valid for name"), "{detail}");
    assert_eq!(receiver.count(), 0);
}

#[tokio::test]
async fn a_receiver_that_demands_a_certificate_gets_the_endpoints_own() {
    let (server, clients, strangers) = (Authority::new(), Authority::new(), Authority::new());
    let receiver = Receiver::start_tls(server.server(Some(&clients))).await;
    let (egress, url) = (egress(), receiver.url("/a"));
    let known = client(clients.identity("fanfare"));
    let known = with(&url, Some(&server), Some(known));
    assert_eq!(call(&egress, &known).await, answered(200));

    // Neither whoever shows nothing nor whoever shows a stranger's gets in, not even by the open connection.
    let stranger = client(strangers.identity("fanfare"));
    for shown in [None, Some(stranger)] {
        let outcome = call(&egress, &with(&url, Some(&server), shown)).await;
        // In TLS 1.3 the refusal comes when the client's handshake is over. It meets the request, or a connection
        // that is closed before one is sent.
        let turned_away = matches!(
            outcome,
            Outcome::TlsFailed { .. } | Outcome::NotConnected { .. }
        );
        assert!(turned_away, "{outcome:?}");
    }
    assert_eq!(receiver.count(), 1);
    assert_eq!(call(&egress, &known).await, answered(200));
}

#[tokio::test]
async fn a_key_that_is_not_the_certificates_is_refused_at_once() {
    let authority = Authority::new();
    let (one, other) = (authority.identity("a"), authority.identity("b"));
    let mixed = Identity {
        key: other.key,
        ..one
    };
    let tls = TlsIdentity {
        client: Some(Box::new(client(mixed))),
        ca: None,
    };
    let fault = check_tls(&tls).unwrap_err();
    assert!(
        fault.to_string().contains("a key that belongs to"),
        "{fault}"
    );
}
