//! Who Fanfare is to a receiver: credentials, a certificate of its own, and whom it trusts.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{Secret, TargetUrl};

/// What proves to a receiver who calls it, beside the signature.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "AuthForm")]
pub enum Auth {
    /// A user name and a password (RFC 7617).
    Basic {
        /// The user name; without a colon.
        username: String,
        /// The password.
        password: Secret,
    },
    /// A token that does not change (RFC 6750).
    Bearer {
        /// The token.
        token: Secret,
    },
    /// A token that is fetched and renewed. Boxed, because few endpoints have one and there are many endpoints.
    OAuth2(Box<ClientCredentials>),
}

/// The client credentials grant of OAuth 2 (RFC 6749, section 4.4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCredentials {
    /// Where tokens are fetched.
    pub token_url: TargetUrl,
    /// Who asks.
    pub client_id: String,
    /// What proves it.
    pub client_secret: Secret,
    /// What the token is for, if the server wants to know.
    pub scope: Option<String>,
    /// Whom the token is for, if the server wants to know.
    pub audience: Option<String>,
    /// Where the request has the client's id and secret.
    pub client_auth: ClientAuth,
}

/// Where a request for a token has the client's id and secret.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientAuth {
    /// In its header `Authorization`.
    #[default]
    Basic,
    /// Among its parameters.
    Body,
}

/// Why something is no proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("`auth.{member}` must be {expected}")]
pub struct InvalidAuth {
    /// The member at fault.
    pub member: &'static str,
    /// What would be accepted.
    pub expected: &'static str,
}

/// How proofs are written. Secrets are in clear: only ever read, or written encrypted.
#[derive(Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum AuthForm {
    /// See [`Auth::Basic`].
    Basic {
        /// The user name.
        username: String,
        /// The password.
        password: String,
    },
    /// See [`Auth::Bearer`].
    Bearer {
        /// The token.
        token: String,
    },
    /// See [`ClientCredentials`].
    OAuth2 {
        /// Where tokens are fetched.
        token_url: String,
        /// Who asks.
        client_id: String,
        /// What proves it.
        client_secret: String,
        /// What the token is for.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        scope: Option<String>,
        /// Whom the token is for.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        audience: Option<String>,
        /// Where the request has the client's id and secret.
        #[serde(default)]
        client_auth: ClientAuth,
    },
}

const LONGEST_TEXT: usize = 500;
/// Tokens in the form of JSON are long.
const LONGEST_TOKEN: usize = 4000;

impl Auth {
    /// The name of the kind.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Basic { .. } => "basic",
            Self::Bearer { .. } => "bearer",
            Self::OAuth2(_) => "oauth2",
        }
    }

    /// Everything in clear, to be stored encrypted.
    pub fn reveal(&self) -> AuthForm {
        match self {
            Self::Basic { username, password } => AuthForm::Basic {
                username: username.clone(),
                password: password.expose().to_owned(),
            },
            Self::Bearer { token } => AuthForm::Bearer {
                token: token.expose().to_owned(),
            },
            Self::OAuth2(client) => AuthForm::OAuth2 {
                token_url: client.token_url.to_string(),
                client_id: client.client_id.clone(),
                client_secret: client.client_secret.expose().to_owned(),
                scope: client.scope.clone(),
                audience: client.audience.clone(),
                client_auth: client.client_auth,
            },
        }
    }
}

impl TryFrom<AuthForm> for Auth {
    type Error = InvalidAuth;

    fn try_from(form: AuthForm) -> Result<Self, InvalidAuth> {
        const TEXT: &str = "1 to 500 visible ASCII characters and spaces";
        let text = |member, text: String| {
            let fits = (1..=LONGEST_TEXT).contains(&text.len()) && text.bytes().all(is_printable);
            let expected = TEXT;
            if fits {
                Ok(text)
            } else {
                Err(InvalidAuth { member, expected })
            }
        };
        let option =
            |member, value: Option<String>| value.map(|value| text(member, value)).transpose();
        match form {
            AuthForm::Basic { username, password } => {
                let username = text("username", username)?;
                if username.contains(':') {
                    let (member, expected) = ("username", "without a colon, which ends it");
                    return Err(InvalidAuth { member, expected });
                }
                let password = Secret::new(text("password", password)?);
                Ok(Self::Basic { username, password })
            }
            AuthForm::Bearer { token } => {
                let fits = (1..=LONGEST_TOKEN).contains(&token.len())
                    && token.bytes().all(|b| b.is_ascii_graphic());
                let token = Secret::new(token);
                if fits {
                    return Ok(Self::Bearer { token });
                }
                let (member, expected) = ("token", "1 to 4,000 visible ASCII characters");
                Err(InvalidAuth { member, expected })
            }
            AuthForm::OAuth2 {
                token_url,
                client_id,
                client_secret,
                scope,
                audience,
                client_auth,
            } => Ok(Self::OAuth2(Box::new(ClientCredentials {
                token_url: token_url.parse().map_err(|_| InvalidAuth {
                    member: "token_url",
                    expected: "an absolute URL such as https://login.example.com/oauth2/token",
                })?,
                client_id: text("client_id", client_id)?,
                client_secret: Secret::new(text("client_secret", client_secret)?),
                scope: option("scope", scope)?,
                audience: option("audience", audience)?,
                client_auth,
            }))),
        }
    }
}

fn is_printable(byte: u8) -> bool {
    (0x20..0x7f).contains(&byte)
}

/// What a TLS connection to a receiver shows and trusts, beyond the system's root certificates. Boxed, because few
/// endpoints have any of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsIdentity {
    /// What proves to the receiver who connects.
    pub client: Option<Box<ClientCertificate>>,
    /// Certificates in PEM that are trusted as roots, for this endpoint alone.
    pub ca: Option<Box<str>>,
}

/// A client certificate with its key, both in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The certificate, followed by its intermediates.
    pub chain: String,
    /// The private key.
    pub key: Secret,
}

impl TlsIdentity {
    /// The most bytes of each of its texts.
    pub const LONGEST_PEM: usize = 32 * 1024;

    /// Whether it is nothing out of the ordinary.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// The version of HTTP that an endpoint is called with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum HttpVersion {
    /// HTTP/2 where the receiver offers it in the TLS handshake, else HTTP/1.1.
    #[default]
    Auto,
    /// HTTP/1.1 alone.
    Http1,
    /// HTTP/2 alone, also without TLS.
    Http2,
}

const VERSIONS: [(&str, HttpVersion); 3] = [
    ("auto", HttpVersion::Auto),
    ("1.1", HttpVersion::Http1),
    ("2", HttpVersion::Http2),
];

/// Why a text is no version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("accepted is `auto`, `1.1` or `2`")]
pub struct InvalidHttpVersion;

impl FromStr for HttpVersion {
    type Err = InvalidHttpVersion;

    fn from_str(text: &str) -> Result<Self, InvalidHttpVersion> {
        let known = VERSIONS.iter().find(|(name, _)| *name == text);
        known.map(|(_, version)| *version).ok_or(InvalidHttpVersion)
    }
}

impl fmt::Display for HttpVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = VERSIONS.iter().find(|(_, version)| version == self);
        f.write_str(known.expect("every version has a name").0)
    }
}

impl TryFrom<String> for HttpVersion {
    type Error = InvalidHttpVersion;

    fn try_from(text: String) -> Result<Self, InvalidHttpVersion> {
        text.parse()
    }
}

impl From<HttpVersion> for String {
    fn from(version: HttpVersion) -> Self {
        version.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Auth, String> {
        serde_json::from_str(json).map_err(|fault| fault.to_string())
    }

    #[test]
    fn proofs_read_back_and_print_no_secret() {
        for json in [
            r#"{"kind":"basic","username":"u","password":"hunter2"}"#,
            r#"{"kind":"bearer","token":"hunter2"}"#,
            r#"{"kind":"oauth2","token_url":"https://login.example.com/token","client_id":"c","client_secret":"hunter2","scope":"a b","client_auth":"body"}"#,
        ] {
            let auth = read(json).unwrap();
            assert!(!format!("{auth:?}").contains("hunter2"));
            assert_eq!(serde_json::to_string(&auth.reveal()).unwrap(), json);
            assert!(json.contains(auth.kind()));
        }
    }

    #[test]
    fn what_proves_nothing_is_refused_by_its_member() {
        for (json, expected) in [
            (r#"{}"#, "missing field `kind`"),
            (
                r#"{"kind":"magic"}"#,
                "expected one of `basic`, `bearer`, `oauth2`",
            ),
            (
                r#"{"kind":"basic","username":"u"}"#,
                "missing field `password`",
            ),
            (
                r#"{"kind":"basic","username":"a:b","password":"x"}"#,
                "`auth.username` must be",
            ),
            (
                r#"{"kind":"basic","username":"","password":"x"}"#,
                "`auth.username` must be",
            ),
            (
                r#"{"kind":"basic","username":"u","password":"a\nb"}"#,
                "`auth.password` must be",
            ),
            (r#"{"kind":"bearer","token":"a b"}"#, "`auth.token` must be"),
            (
                r#"{"kind":"bearer","token":"x","colour":"red"}"#,
                "unknown field `colour`",
            ),
            (
                r#"{"kind":"oauth2","token_url":"login","client_id":"c","client_secret":"x"}"#,
                "`auth.token_url` must be",
            ),
        ] {
            let fault = read(json).unwrap_err();
            assert!(fault.contains(expected), "{json}: {fault}");
        }
    }

    #[test]
    fn versions_are_read() {
        for (name, version) in VERSIONS {
            assert_eq!(
                (name.parse(), version.to_string().as_str()),
                (Ok(version), name)
            );
        }
        assert!("3".parse::<HttpVersion>().is_err());
    }
}
