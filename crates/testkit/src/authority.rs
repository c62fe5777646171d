//! A private certificate authority, and receivers that show what it signed.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{
    RootCertStore, ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer},
    server::WebPkiClientVerifier,
};

/// A certificate authority that nobody trusts of themselves.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: rcgen::Certificate,
}

/// A certificate and its key, in PEM.
#[derive(Debug)]
pub struct Identity {
    /// The certificate.
    pub certificate: String,
    /// Its private key.
    pub key: String,
}

impl Authority {
    /// A new one.
    #[expect(
        clippy::new_without_default,
        reason = "each is another: there is no usual one"
    )]
    pub fn new() -> Self {
        let mut params = CertificateParams::new([]).expect("no names are names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("keys can be made");
        let certificate = params.self_signed(&key).expect("a key signs");
        let issuer = Issuer::new(params, key);
        Self {
            issuer,
            certificate,
        }
    }

    /// Its own certificate, in PEM: who trusts it trusts what it signs.
    pub fn pem(&self) -> String {
        self.certificate.pem()
    }

    /// A certificate for a name or an address.
    pub fn identity(&self, name: &str) -> Identity {
        let (certificate, key) = self.sign(name);
        Identity {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        }
    }

    /// How a server on loopback speaks TLS, HTTP/2 preferred. It turns away whoever shows no certificate of
    /// `clients`, if that is given.
    pub fn server(&self, clients: Option<&Self>) -> ServerConfig {
        let (certificate, key) = self.sign("127.0.0.1");
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("the provider speaks TLS");
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(clients) => {
                let mut roots = RootCertStore::empty();
                let root = clients.certificate.der().clone();
                roots.add(root).expect("it is a root certificate");
                let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
                builder.with_client_cert_verifier(verifier.build().expect("there is a root"))
            }
        };
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("it is a private key");
        let chain = vec![CertificateDer::from(certificate)];
        let mut config = builder
            .with_single_cert(chain, key)
            .expect("the key is the certificate's");
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config
    }

    fn sign(&self, name: &str) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().expect("keys can be made");
        let params = CertificateParams::new([name.to_owned()]).expect("tests use good names");
        let certificate = params.signed_by(&key, &self.issuer);
        (certificate.expect("an authority signs"), key)
    }
}
