//! How an endpoint's requests are signed: by Standard Webhooks, or in a header as other senders do.

use std::{borrow::Cow, fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, MapAccess, Visitor, value::MapAccessDeserializer},
};

use crate::{
    HeaderField, InvalidSigningSecret, SigningSecret, sign_standard, signature::hmac_sha256,
};

/// How an endpoint's requests are signed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum SignatureScheme {
    /// `webhook-signature`, as Standard Webhooks has it.
    #[default]
    Standard,
    /// HMAC-SHA256 in a header of its own. Boxed, because few endpoints have one and there are many endpoints.
    Custom(Box<CustomSignature>),
}

/// An HMAC-SHA256 of the body, or of a time and the body, in a header of its own.
///
/// Invariant: its headers could be added to a request, and its prefix holds no space, comma or parenthesis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CustomSignature {
    header: Cow<'static, str>,
    prefix: Cow<'static, str>,
    encoding: SignatureEncoding,
    time: SignedTime,
}

/// How the bytes of a signature are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SignatureEncoding {
    /// In lower case.
    #[default]
    Hex,
    /// With padding.
    Base64,
}

/// Whether the time of the attempt is signed too, in whole seconds and a `.` before the body.
#[derive(Debug, Clone, PartialEq, Eq)]
enum SignedTime {
    No,
    /// It stands before the signatures: `t=1700000000,v1=…`.
    Inline,
    /// It has a header of its own.
    Header(Cow<'static, str>),
}

/// Why something is no way to sign.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidScheme {
    /// It is none that is known.
    #[error(
        "accepted is `standard`, `github`, `shopify`, `stripe`, `referralhero` or \
         `custom(header=X-Signature,prefix=sha256=,encoding=hex,timestamp=none)`, of which only `header` is \
         needed"
    )]
    Unknown,
    /// A header that cannot be added.
    #[error("the signature's `{member}`: {source}")]
    Header {
        /// `header` or `timestamp`.
        member: &'static str,
        /// What is wrong with it.
        source: crate::HeaderFieldError,
    },
    /// A prefix that cannot be sent.
    #[error(
        "the signature's `prefix` is at most 32 visible ASCII characters without commas and parentheses"
    )]
    Prefix,
    /// The encoding.
    #[error("the signature's `encoding` is `hex` or `base64`")]
    Encoding,
    /// Both in one header.
    #[error("the signature's `timestamp` is `none`, `inline` or the name of another header")]
    Timestamp,
}

const LONGEST_PREFIX: usize = 32;

const fn preset(
    header: &'static str,
    prefix: &'static str,
    encoding: SignatureEncoding,
    time: SignedTime,
) -> CustomSignature {
    CustomSignature {
        header: Cow::Borrowed(header),
        prefix: Cow::Borrowed(prefix),
        encoding,
        time,
    }
}

/// What receivers of other senders verify, by the names of the senders.
static PRESETS: [(&str, CustomSignature); 4] = {
    use SignatureEncoding::{Base64, Hex};
    use SignedTime::{Inline, No};
    [
        ("github", preset("x-hub-signature-256", "sha256=", Hex, No)),
        ("shopify", preset("x-shopify-hmac-sha256", "", Base64, No)),
        ("stripe", preset("stripe-signature", "v1=", Hex, Inline)),
        (
            "referralhero",
            preset("x-referralhero-signature", "", Base64, No),
        ),
    ]
};

impl SignatureScheme {
    /// The headers that prove a request: each secret signs, newest first.
    ///
    /// Where there is room for one signature alone, the oldest signs, so that receivers have as long as both
    /// are valid to learn the newer one.
    pub fn sign<'a>(
        &self,
        secrets: impl IntoIterator<Item = &'a SigningSecret>,
        id: &str,
        now: Timestamp,
        body: &[u8],
    ) -> Vec<(&str, String)> {
        match self {
            Self::Standard => vec![("webhook-signature", sign_standard(secrets, id, now, body))],
            Self::Custom(custom) => custom.sign(secrets, now, body),
        }
    }

    /// Whether this kind of secret can sign so.
    pub fn takes(&self, secret: &SigningSecret) -> bool {
        match secret {
            SigningSecret::Shared(_) | SigningSecret::Private(_) => *self == Self::Standard,
            SigningSecret::Text(_) => *self != Self::Standard,
        }
    }

    /// Reads a secret of the kind that signs so.
    pub fn read_secret(&self, text: &str) -> Result<SigningSecret, InvalidSigningSecret> {
        match self {
            Self::Standard => text.parse(),
            Self::Custom(_) => SigningSecret::from_text(text),
        }
    }

    /// A new secret of the kind that signs so.
    pub fn generate_secret(&self) -> SigningSecret {
        match self {
            Self::Standard => SigningSecret::generate(),
            Self::Custom(_) => SigningSecret::generate_text(),
        }
    }

    /// The headers that it sets, in lower case.
    pub fn headers(&self) -> impl Iterator<Item = &str> {
        let (signature, time) = match self {
            Self::Standard => ("webhook-signature", None),
            Self::Custom(custom) => match &custom.time {
                SignedTime::No | SignedTime::Inline => (&*custom.header, None),
                SignedTime::Header(name) => (&*custom.header, Some(&**name)),
            },
        };
        std::iter::once(signature).chain(time)
    }

    fn preset_name(&self) -> Option<&'static str> {
        match self {
            Self::Standard => Some("standard"),
            Self::Custom(custom) => {
                let known = PRESETS.iter().find(|(_, preset)| *preset == **custom);
                known.map(|(name, _)| *name)
            }
        }
    }

    /// A signature that others made known, by the name of who did.
    pub(crate) fn known(name: &str) -> Option<Self> {
        if name == "standard" {
            return Some(Self::Standard);
        }
        let known = PRESETS.iter().find(|(preset, _)| *preset == name)?;
        Some(Self::Custom(Box::new(known.1.clone())))
    }
}

impl CustomSignature {
    fn sign<'a>(
        &self,
        secrets: impl IntoIterator<Item = &'a SigningSecret>,
        now: Timestamp,
        body: &[u8],
    ) -> Vec<(&str, String)> {
        let seconds = now.as_second().to_string();
        let signed = |secret| {
            let code = match &self.time {
                SignedTime::No => hmac_sha256(secret, &[body]),
                SignedTime::Inline | SignedTime::Header(_) => {
                    hmac_sha256(secret, &[seconds.as_bytes(), b".", body])
                }
            };
            format!("{}{}", self.prefix, self.encoding.write(&code))
        };
        let mut signatures = secrets.into_iter().map(signed);
        match &self.time {
            SignedTime::Inline => {
                let signatures: Vec<_> = signatures.collect();
                let value = format!("t={seconds},{}", signatures.join(","));
                vec![(&self.header, value)]
            }
            SignedTime::No | SignedTime::Header(_) => {
                let mut headers = Vec::new();
                if let Some(first) = signatures.next() {
                    headers.push((&*self.header, signatures.last().unwrap_or(first)));
                }
                if let SignedTime::Header(name) = &self.time {
                    headers.push((name, seconds.clone()));
                }
                headers
            }
        }
    }
}

impl SignatureEncoding {
    fn write(self, code: &[u8]) -> String {
        match self {
            Self::Hex => code.iter().map(|byte| format!("{byte:02x}")).collect(),
            Self::Base64 => STANDARD.encode(code),
        }
    }
}

/// The members of a signature in a header of its own, as they are written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Form {
    header: String,
    #[serde(default)]
    prefix: String,
    #[serde(default)]
    encoding: SignatureEncoding,
    /// `none`, `inline`, or the name of a header.
    #[serde(default = "none")]
    timestamp: String,
}

fn none() -> String {
    "none".to_owned()
}

impl TryFrom<Form> for CustomSignature {
    type Error = InvalidScheme;

    fn try_from(form: Form) -> Result<Self, InvalidScheme> {
        let header = |member, name: &str| match HeaderField::new(name, "") {
            Ok(field) => Ok(Cow::Owned(field.name().to_owned())),
            Err(source) => Err(InvalidScheme::Header { member, source }),
        };
        let sendable = |b: u8| b.is_ascii_graphic() && !matches!(b, b',' | b'(' | b')');
        if form.prefix.len() > LONGEST_PREFIX || !form.prefix.bytes().all(sendable) {
            return Err(InvalidScheme::Prefix);
        }
        let name = header("header", &form.header)?;
        let time = match form.timestamp.as_str() {
            "none" => SignedTime::No,
            "inline" => SignedTime::Inline,
            other => SignedTime::Header(header("timestamp", other)?),
        };
        if time == SignedTime::Header(name.clone()) {
            return Err(InvalidScheme::Timestamp);
        }
        Ok(Self {
            header: name,
            prefix: form.prefix.into(),
            encoding: form.encoding,
            time,
        })
    }
}

impl From<&CustomSignature> for Form {
    fn from(custom: &CustomSignature) -> Self {
        Self {
            header: custom.header.to_string(),
            prefix: custom.prefix.to_string(),
            encoding: custom.encoding,
            timestamp: match &custom.time {
                SignedTime::No => none(),
                SignedTime::Inline => "inline".to_owned(),
                SignedTime::Header(name) => name.to_string(),
            },
        }
    }
}

impl FromStr for SignatureScheme {
    type Err = InvalidScheme;

    fn from_str(text: &str) -> Result<Self, InvalidScheme> {
        let text = text.trim();
        if let Some(known) = Self::known(text) {
            return Ok(known);
        }
        let inner = text.strip_prefix("custom(");
        let inner = inner.and_then(|inner| inner.strip_suffix(')'));
        let (mut header, mut prefix, mut timestamp) = (None, String::new(), none());
        let mut encoding = SignatureEncoding::default();
        for member in inner.ok_or(InvalidScheme::Unknown)?.split(',') {
            let (name, value) = member.split_once('=').ok_or(InvalidScheme::Unknown)?;
            let value = value.trim().to_owned();
            match name.trim() {
                "header" => header = Some(value),
                "prefix" => prefix = value,
                "timestamp" => timestamp = value,
                "encoding" => {
                    encoding = match value.as_str() {
                        "hex" => SignatureEncoding::Hex,
                        "base64" => SignatureEncoding::Base64,
                        _ => return Err(InvalidScheme::Encoding),
                    }
                }
                _ => return Err(InvalidScheme::Unknown),
            }
        }
        let form = Form {
            header: header.ok_or(InvalidScheme::Unknown)?,
            prefix,
            encoding,
            timestamp,
        };
        form.try_into().map(Box::new).map(Self::Custom)
    }
}

impl fmt::Display for SignatureScheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self, self.preset_name()) {
            (_, Some(name)) => f.write_str(name),
            (Self::Standard, None) => f.write_str("standard"),
            (Self::Custom(custom), None) => {
                let form = Form::from(&**custom);
                let encoding = match form.encoding {
                    SignatureEncoding::Hex => "hex",
                    SignatureEncoding::Base64 => "base64",
                };
                let (header, prefix, timestamp) = (form.header, form.prefix, form.timestamp);
                write!(
                    f,
                    "custom(header={header},prefix={prefix},encoding={encoding},timestamp={timestamp})"
                )
            }
        }
    }
}

impl Serialize for SignatureScheme {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match (self, self.preset_name()) {
            (Self::Custom(custom), None) => Form::from(&**custom).serialize(serializer),
            (Self::Standard | Self::Custom(_), _) => serializer.collect_str(self),
        }
    }
}

impl<'de> Deserialize<'de> for SignatureScheme {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameOrMembers;

        impl<'de> Visitor<'de> for NameOrMembers {
            type Value = SignatureScheme;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a signature, or an object with its `header`")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<SignatureScheme, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<SignatureScheme, M::Error> {
                let form = Form::deserialize(MapAccessDeserializer::new(map))?;
                let custom = form.try_into().map_err(de::Error::custom)?;
                Ok(SignatureScheme::Custom(Box::new(custom)))
            }
        }

        deserializer.deserialize_any(NameOrMembers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scheme(text: &str) -> SignatureScheme {
        text.parse().unwrap()
    }

    #[test]
    fn a_scheme_reads_back_from_text_and_json() {
        for text in [
            "standard",
            "github",
            "shopify",
            "stripe",
            "referralhero",
            "custom(header=x-a,prefix=,encoding=base64,timestamp=x-b)",
            "custom(header=x-a,prefix=sha256=,encoding=hex,timestamp=inline)",
        ] {
            let read = scheme(text);
            assert_eq!(read.to_string(), text);
            let json = serde_json::to_string(&read).unwrap();
            assert_eq!(
                serde_json::from_str::<SignatureScheme>(&json).unwrap(),
                read
            );
        }
        let short = r#"{"header": "X-Hub-Signature-256", "prefix": "sha256="}"#;
        let read: SignatureScheme = serde_json::from_str(short).unwrap();
        assert_eq!(read, scheme("github"));
        assert_eq!(
            scheme("custom(header=X-Hub-Signature-256, prefix=sha256=)"),
            scheme("github")
        );
    }

    #[test]
    fn what_could_not_be_sent_or_forges_is_refused() {
        for bad in [
            "",
            "gitlab",
            "custom()",
            "custom(header)",
            "custom(header=webhook-id)",
            "custom(header=a b)",
            "custom(header=x,colour=red)",
            "custom(header=x,encoding=base32)",
            "custom(header=x,prefix=a b)",
            "custom(header=x,timestamp=host)",
            "custom(header=x,timestamp=X)",
        ] {
            assert!(bad.parse::<SignatureScheme>().is_err(), "{bad}");
        }
        for bad in [
            "{}",
            r#"{"header":"x","a":1}"#,
            "5",
            r#"{"header":"x","prefix":"ä"}"#,
        ] {
            assert!(
                serde_json::from_str::<SignatureScheme>(bad).is_err(),
                "{bad}"
            );
        }
    }

    #[test]
    fn signatures_are_those_of_other_senders() {
        // The example of GitHub's documentation, "Validating webhook deliveries".
        let secret = SigningSecret::from_text("It's a Secret to Everybody").unwrap();
        let now = Timestamp::from_second(1_700_000_000).unwrap();
        let (github, stripe) = (scheme("github"), scheme("stripe"));
        let signed = github.sign([&secret], "id", now, b"Hello, World!");
        let code = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
        assert_eq!(signed, [("x-hub-signature-256", format!("sha256={code}"))]);

        let older = SigningSecret::from_text("sixteen-letters!").unwrap();
        let alone = github.sign([&older], "id", now, b"x");
        let both = github.sign([&secret, &older], "id", now, b"x");
        assert_eq!(alone, both, "the oldest signs where there is room for one");
        let signed = stripe.sign([&secret, &older], "id", now, b"x");
        let (name, value) = &signed[0];
        assert_eq!(*name, "stripe-signature");
        assert!(value.starts_with("t=1700000000,v1=") && value.matches("v1=").count() == 2);
        let timed = scheme("custom(header=a,timestamp=b)");
        let signed = timed.sign([&secret], "id", now, b"x");
        assert_eq!(signed.len(), 2);
        assert_eq!(signed[1], ("b", "1700000000".to_owned()));
    }

    #[test]
    fn a_secret_is_of_the_kind_that_its_scheme_takes() {
        let kinds = [
            (SigningSecret::generate(), true),
            (SigningSecret::generate_private(), true),
            (SigningSecret::generate_text(), false),
        ];
        for (secret, standard) in kinds {
            assert_eq!(scheme("standard").takes(&secret), standard);
            assert_eq!(scheme("stripe").takes(&secret), !standard);
        }
        for text in ["standard", "stripe"] {
            let secret = scheme(text).generate_secret();
            assert!(scheme(text).takes(&secret));
            assert_eq!(scheme(text).read_secret(&secret.reveal()), Ok(secret));
        }
    }
}
