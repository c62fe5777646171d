//! What a request carries, and the profiles that fill in an endpoint for a kind of receiver.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{DisableAfter, Schedule, SignatureScheme, StatusSet};

/// What the body of a request is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum BodyFormat {
    /// `{"type":…,"timestamp":…,"data":…}`, as Standard Webhooks has it.
    #[default]
    Standard,
    /// A CloudEvent as one JSON document.
    CloudEventsStructured,
    /// A CloudEvent with its attributes as headers and its data as body.
    CloudEventsBinary,
    /// The event's data, byte for byte.
    Raw,
}

const FORMATS: [(&str, BodyFormat); 4] = [
    ("standard", BodyFormat::Standard),
    ("cloudevents", BodyFormat::CloudEventsStructured),
    ("cloudevents-binary", BodyFormat::CloudEventsBinary),
    ("raw", BodyFormat::Raw),
];

/// Why a text is no format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("accepted is `standard`, `cloudevents`, `cloudevents-binary` or `raw`")]
pub struct InvalidBodyFormat;

impl FromStr for BodyFormat {
    type Err = InvalidBodyFormat;

    fn from_str(text: &str) -> Result<Self, InvalidBodyFormat> {
        let known = FORMATS.iter().find(|(name, _)| *name == text);
        known.map(|(_, format)| *format).ok_or(InvalidBodyFormat)
    }
}

impl fmt::Display for BodyFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = FORMATS.iter().find(|(_, format)| format == self);
        f.write_str(known.expect("every format has a name").0)
    }
}

impl TryFrom<String> for BodyFormat {
    type Error = InvalidBodyFormat;

    fn try_from(text: String) -> Result<Self, InvalidBodyFormat> {
        text.parse()
    }
}

impl From<BodyFormat> for String {
    fn from(format: BodyFormat) -> Self {
        format.to_string()
    }
}

/// A kind of receiver. It fills in what every endpoint has, and is then forgotten.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Profile {
    /// A receiver of Standard Webhooks.
    #[default]
    Standard,
    /// A receiver of CloudEvents.
    CloudEvents,
    /// A receiver of the data alone.
    Raw,
    /// A receiver written against ReferralHero.
    ReferralHero,
    /// A receiver written against GitHub.
    GitHub,
    /// A receiver written against Shopify.
    Shopify,
    /// A receiver written against Stripe.
    Stripe,
    /// A receiver of the data that says itself how it is signed.
    Custom,
}

const PROFILES: [(&str, Profile); 8] = [
    ("standard", Profile::Standard),
    ("cloudevents", Profile::CloudEvents),
    ("raw", Profile::Raw),
    ("referralhero", Profile::ReferralHero),
    ("github", Profile::GitHub),
    ("shopify", Profile::Shopify),
    ("stripe", Profile::Stripe),
    ("custom", Profile::Custom),
];

/// Why a text is no profile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "accepted is `standard`, `cloudevents`, `raw`, `referralhero`, `github`, `shopify`, `stripe` or `custom`"
)]
pub struct InvalidProfile;

/// What a profile fills in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preset {
    /// What the body of a request is.
    pub format: BodyFormat,
    /// How requests are signed; `None` where the endpoint has to say it itself.
    pub signature: Option<SignatureScheme>,
    /// The statuses that mean success.
    pub success: StatusSet,
    /// When failed deliveries are tried again.
    pub schedule: Schedule,
    /// When failures in a row disable it.
    pub disable_after: DisableAfter,
}

impl Profile {
    /// What it fills in.
    pub fn preset(self) -> Preset {
        let signed = |name| SignatureScheme::known(name);
        let preset = |format, signature| Preset {
            format,
            signature,
            success: StatusSet::success(),
            schedule: Schedule::default(),
            disable_after: DisableAfter::default(),
        };
        match self {
            Self::Standard => preset(BodyFormat::Standard, signed("standard")),
            Self::CloudEvents => preset(BodyFormat::CloudEventsStructured, signed("standard")),
            Self::Raw => preset(BodyFormat::Raw, signed("standard")),
            Self::GitHub => preset(BodyFormat::Raw, signed("github")),
            Self::Shopify => preset(BodyFormat::Raw, signed("shopify")),
            Self::Stripe => preset(BodyFormat::Raw, signed("stripe")),
            Self::Custom => preset(BodyFormat::Raw, None),
            Self::ReferralHero => Preset {
                success: "200".parse().expect("a status is a set"),
                // Also with its jitter, and with attempts that take half a minute in all, the third begins
                // within five minutes of the first.
                schedule: Schedule::from_seconds(vec![0, 60, 150]).expect("three waits fit"),
                disable_after: "10 failures"
                    .parse()
                    .expect("a number of failures is a rule"),
                ..preset(BodyFormat::Raw, signed("referralhero"))
            },
        }
    }
}

impl FromStr for Profile {
    type Err = InvalidProfile;

    fn from_str(text: &str) -> Result<Self, InvalidProfile> {
        let known = PROFILES.iter().find(|(name, _)| *name == text);
        known.map(|(_, profile)| *profile).ok_or(InvalidProfile)
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = PROFILES.iter().find(|(_, profile)| profile == self);
        f.write_str(known.expect("every profile has a name").0)
    }
}

impl TryFrom<String> for Profile {
    type Error = InvalidProfile;

    fn try_from(text: String) -> Result<Self, InvalidProfile> {
        text.parse()
    }
}

impl From<Profile> for String {
    fn from(profile: Profile) -> Self {
        profile.to_string()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::Jitter;

    #[test]
    fn formats_and_profiles_read_back() {
        for (name, format) in FORMATS {
            assert_eq!(
                (name.parse(), format.to_string().as_str()),
                (Ok(format), name)
            );
        }
        for (name, profile) in PROFILES {
            assert_eq!(
                (name.parse(), profile.to_string().as_str()),
                (Ok(profile), name)
            );
        }
        assert_eq!("xml".parse::<BodyFormat>(), Err(InvalidBodyFormat));
        assert_eq!("".parse::<Profile>(), Err(InvalidProfile));
    }

    #[test]
    fn a_preset_of_another_sender_names_its_signature() {
        for (profile, signature) in [
            (Profile::Standard, "standard"),
            (Profile::CloudEvents, "standard"),
            (Profile::Raw, "standard"),
            (Profile::ReferralHero, "referralhero"),
            (Profile::GitHub, "github"),
            (Profile::Shopify, "shopify"),
            (Profile::Stripe, "stripe"),
        ] {
            let signed = profile.preset().signature.unwrap();
            assert_eq!(signed.to_string(), signature);
        }
        assert_eq!(Profile::Custom.preset().signature, None);
    }

    #[test]
    fn referralhero_tries_three_times_within_five_minutes() {
        let preset = Profile::ReferralHero.preset();
        assert_eq!(preset.schedule.attempts(), 3);
        let wait = |failed| {
            preset
                .schedule
                .wait_after(failed, Duration::ZERO, Jitter::new(1.0))
        };
        let waits: Duration = (0..3).filter_map(wait).sum();
        let attempts = Duration::from_secs(15) * 2;
        assert!(waits + attempts < Duration::from_secs(300), "{waits:?}");
        for (status, success) in [(200, true), (201, false), (204, false)] {
            assert_eq!(preset.success.contains(status), success);
        }
        assert_eq!(preset.disable_after.to_string(), "10 failures");
    }
}
