//! `fanfare listen --replay`: sends recorded requests to a receiver on this machine.

use std::{
    fs::File,
    io::{BufRead as _, BufReader},
    path::Path,
    process::ExitCode,
};

use anyhow::{Context as _, anyhow};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use fanfare_model::{SignatureScheme, SigningSecret, Timestamp};

use crate::{
    clock,
    output::{self, harmless},
    receiver::{Forward, Record},
};

/// Sends one request after the other, and says what was answered. Fails when not all were answered with success.
pub(super) async fn run(
    file: &Path,
    forward: &Forward,
    scheme: &SignatureScheme,
    secret: Option<&SigningSecret>,
) -> anyhow::Result<ExitCode> {
    let reading = || format!("reading {}", file.display());
    let lines = BufReader::new(File::open(file).with_context(reading)?).lines();
    let now = clock::system_clock();
    let (mut sent, mut fine) = (0, 0);
    for (number, line) in (1..).zip(lines) {
        let line = line.with_context(reading)?;
        if line.trim().is_empty() {
            continue;
        }
        let place = || format!("{}:{number}", file.display());
        let record: Record = serde_json::from_str(&line).with_context(place)?;
        let again = record.replayable();
        let mut again = again.map_err(|why| anyhow!("{}: {why}", place()))?;
        if let Some(secret) = secret {
            sign_anew(&mut again.headers, (scheme, secret), now.now(), &again.body)
                .with_context(place)?;
        }
        let id = again.headers.get("webhook-id");
        let id = id.and_then(|id| id.to_str().ok()).unwrap_or("-").to_owned();
        let head = format!("{} {}", again.method, again.uri);
        let answered = forward
            .send(again.method, &again.uri, &again.headers, again.body)
            .await;
        sent += 1;
        let answer = match answered {
            Ok(answer) => {
                fine += u32::from(answer.status.is_success());
                answer.status.as_u16().to_string()
            }
            Err(fault) => format!("no answer: {fault}"),
        };
        output::print(&format!("{}  {}  {answer}", harmless(&head), harmless(&id)))?;
    }
    output::note(&format!("{sent} sent, {fine} answered with success"))?;
    Ok(if sent == fine {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// A recorded signature is too old to be accepted after some minutes.
fn sign_anew(
    headers: &mut HeaderMap,
    (scheme, secret): (&SignatureScheme, &SigningSecret),
    now: Timestamp,
    body: &[u8],
) -> anyhow::Result<()> {
    let id = headers.get("webhook-id").and_then(|id| id.to_str().ok());
    let id = id.context("there is no `webhook-id` to sign")?.to_owned();
    let time = ("webhook-timestamp", now.as_second().to_string());
    let signature = scheme.sign([secret], &id, now, body);
    for (name, value) in std::iter::once(time).chain(signature) {
        let name: HeaderName = name.parse().context("reading --signature")?;
        let value = HeaderValue::from_str(&value).context("a signature is printable")?;
        headers.insert(name, value);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use fanfare_model::verify_standard;

    use super::*;

    #[test]
    fn a_request_that_is_signed_anew_is_genuine_now() {
        let secret = SigningSecret::generate();
        let now: Timestamp = "2026-11-23T12:00:00Z".parse().unwrap();
        let mut headers = HeaderMap::new();
        let with = (&SignatureScheme::Standard, &secret);
        assert!(sign_anew(&mut headers, with, now, b"{}").is_err());
        headers.insert("webhook-id", HeaderValue::from_static("msg_1"));
        sign_anew(&mut headers, with, now, b"{}").unwrap();
        let text = |name| headers[name].to_str().unwrap();
        let signed = (
            text("webhook-id"),
            text("webhook-timestamp"),
            text("webhook-signature"),
        );
        let verdict = verify_standard(&secret, signed, b"{}", now, Duration::ZERO);
        assert_eq!(verdict, Ok(()));
    }
}
