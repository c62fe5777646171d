//! `fanfare listen`: receives webhooks on this machine and prints each as a block of lines.

use std::{borrow::Cow, fmt::Write, net::SocketAddr};

use anyhow::Context;
use axum::http::StatusCode;
use owo_colors::{OwoColorize, Style};
use tokio::sync::mpsc;

use crate::{
    ListenArgs, clock,
    output::{self, harmless},
    pretty::pretty,
    receiver::{ReceivedRequest, Receiver, ReceiverSettings, Verdict},
    signals::Signals,
};

/// How much of a body is printed.
const MOST_LINES: usize = 60;
const MOST_BYTES: usize = 8 * 1024;

pub(crate) async fn run(args: &ListenArgs) -> anyhow::Result<()> {
    let signals = Signals::watch().context("watching for signals")?;
    let settings = ReceiverSettings {
        secret: args.secret.clone(),
        status: StatusCode::from_u16(args.status).context("reading --status")?,
        delay: args.delay,
        clock: clock::system_clock(),
    };
    let address = SocketAddr::new(args.address, args.port);
    let (receiver, address, requests) = Receiver::bind(address, settings)
        .await
        .with_context(|| format!("listening at {address}"))?;
    output::note(&format!("listening at http://{address}/ until Ctrl-C"))?;

    let mut counts = Counts::default();
    let to_the_end = async {
        let serve = async { receiver.run(signals.terminate.clone()).await };
        tokio::try_join!(serve, print_all(requests, &mut counts))
    };
    tokio::select! {
        ended = to_the_end => {
            ended?;
        }
        () = signals.abort.cancelled() => {}
    }
    output::note(&counts.summary())?;
    Ok(())
}

async fn print_all(
    mut requests: mpsc::Receiver<ReceivedRequest>,
    counts: &mut Counts,
) -> std::io::Result<()> {
    let colour = output::has_colour();
    while let Some(request) = requests.recv().await {
        counts.add(&request.verdict);
        output::print(&block(&request, colour))?;
    }
    Ok(())
}

#[derive(Debug, Default)]
struct Counts {
    genuine: u64,
    refused: u64,
    unverified: u64,
}

impl Counts {
    fn add(&mut self, verdict: &Verdict) {
        match verdict {
            Verdict::Genuine => self.genuine += 1,
            Verdict::Refused(_) => self.refused += 1,
            Verdict::Unverified => self.unverified += 1,
        }
    }

    fn summary(&self) -> String {
        let Self {
            genuine,
            refused,
            unverified,
        } = self;
        let received = genuine + refused + unverified;
        format!(
            "{received} received: {genuine} verified, {refused} refused, {unverified} not checked"
        )
    }
}

/// A request as people read it. What others sent is shown without its control characters.
pub(crate) fn block(request: &ReceivedRequest, colour: bool) -> String {
    let (verified, style) = match &request.verdict {
        Verdict::Genuine => ("yes".to_owned(), Style::new().green()),
        Verdict::Unverified => ("not checked, for want of --secret".to_owned(), Style::new()),
        Verdict::Refused(why) => (format!("no: {why}"), Style::new().red()),
    };
    let style = if colour { style } else { Style::new() };
    let (id, event_type) = (
        shown(request.id.as_deref()),
        shown(request.event_type.as_deref()),
    );
    let mut block = format!(
        "{:.3}  {} {}\n  type      {event_type}\n  id        {id}\n  verified  {}\n  answered  {}\n",
        request.at,
        request.method,
        harmless(&request.uri.to_string()),
        verified.style(style),
        request.answer.as_u16(),
    );
    for line in body(&request.body).lines() {
        writeln!(block, "  {line}").expect("a string takes everything");
    }
    block
}

fn shown(text: Option<&str>) -> Cow<'_, str> {
    text.map_or(Cow::Borrowed("-"), harmless)
}

/// The body, laid out when it is JSON, and cut when it is long.
fn body(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let text = pretty(&text).map_or(text, Cow::Owned);
    let text = harmless(&text);
    let within = text.floor_char_boundary(MOST_BYTES);
    let mut lines = text[..within].lines();
    let mut shown: Vec<&str> = lines.by_ref().take(MOST_LINES).collect();
    if within < text.len() || lines.next().is_some() {
        shown.push("…");
    }
    shown.join("\n")
}

#[cfg(test)]
mod tests {
    use axum::http::{Method, Uri};
    use bytes::Bytes;

    use super::*;
    use crate::receiver::Refusal;

    fn request(verdict: Verdict, body: &'static [u8]) -> ReceivedRequest {
        ReceivedRequest {
            at: "2026-11-23T12:00:00.1234Z".parse().unwrap(),
            method: Method::POST,
            uri: Uri::from_static("/hook"),
            id: Some("msg_1".to_owned()),
            event_type: Some("reward.granted".to_owned()),
            verdict,
            answer: StatusCode::OK,
            body: Bytes::from_static(body),
        }
    }

    #[test]
    fn a_request_is_a_block_that_people_can_read() {
        let request = request(Verdict::Genuine, br#"{"type":"reward.granted","data":[1]}"#);
        let expected = "\
2026-11-23T12:00:00.123Z  POST /hook
  type      reward.granted
  id        msg_1
  verified  yes
  answered  200
  {
    \"type\": \"reward.granted\",
    \"data\": [
      1
    ]
  }
";
        assert_eq!(block(&request, false), expected);
        assert!(block(&request, true).contains("\u{1b}[32myes"));
    }

    #[test]
    fn a_block_says_why_a_request_is_refused() {
        let refused = Verdict::Refused(Refusal::Header("webhook-id"));
        let block = block(&request(refused, b""), false);
        assert!(block.contains("verified  no: there is no readable header `webhook-id`\n"));
    }

    #[test]
    fn bodies_are_cut_and_cannot_steer_the_terminal() {
        assert_eq!(body(b"a\x1b[2Jb"), "a\u{fffd}[2Jb");
        assert_eq!(
            body("x\n".repeat(1000).as_bytes()).lines().count(),
            MOST_LINES + 1
        );
        let long = body("ä".repeat(MOST_BYTES).as_bytes());
        assert!(long.ends_with("\n…") && long.len() <= MOST_BYTES + 4);
    }

    #[test]
    fn the_summary_adds_up() {
        let mut counts = Counts::default();
        for verdict in [
            Verdict::Genuine,
            Verdict::Genuine,
            Verdict::Unverified,
            Verdict::Refused(Refusal::Body),
        ] {
            counts.add(&verdict);
        }
        let summary = "4 received: 2 verified, 1 refused, 1 not checked";
        assert_eq!(counts.summary(), summary);
    }
}
