//! `fanfare listen`: receives webhooks on this machine and prints each as a block of lines.

mod replay;

use std::{
    borrow::Cow,
    fmt::Write as _,
    fs::{File, OpenOptions},
    io::Write as _,
    net::SocketAddr,
    process::ExitCode,
};

use anyhow::Context;
use axum::http::StatusCode;
use owo_colors::{OwoColorize, Style};
use tokio::sync::mpsc;

use crate::{
    ListenArgs, OutputFormat, clock,
    output::{self, harmless},
    pretty::pretty,
    receiver::{Behaviour, Forward, ReceivedRequest, Receiver, ReceiverSettings, Record, Verdict},
    signals::Signals,
};

/// How much of a body is printed.
const MOST_LINES: usize = 60;
const MOST_BYTES: usize = 8 * 1024;

pub(crate) async fn run(format: OutputFormat, args: &ListenArgs) -> anyhow::Result<ExitCode> {
    let forward = args.forward.clone().map(Forward::to);
    let secret = args.secret.as_ref();
    let secret = secret.map(|secret| args.signature.read_secret(secret.expose()));
    let secret = secret.transpose().context("--secret is not accepted")?;
    if let (Some(file), Some(forward)) = (&args.replay, &forward) {
        return replay::run(file, forward, &args.signature, secret.as_ref()).await;
    }
    let signals = Signals::watch().context("watching for signals")?;
    let settings = ReceiverSettings {
        secret,
        signature: args.signature.clone(),
        behaviour: behaviour(args)?,
        forward,
        clock: clock::system_clock(),
    };
    let told = Told {
        format,
        colour: output::has_colour(),
        record: args.record.as_deref().map(opened).transpose()?,
    };
    let address = SocketAddr::new(args.address, args.port);
    let (receiver, address, requests) = Receiver::bind(address, settings)
        .await
        .with_context(|| format!("listening at {address}"))?;
    output::note(&format!("listening at http://{address}/ until Ctrl-C"))?;

    let mut counts = Counts::default();
    let to_the_end = async {
        let serve = async { receiver.run(signals.terminate.clone()).await };
        tokio::try_join!(serve, tell_all(requests, told, &mut counts))
    };
    tokio::select! {
        ended = to_the_end => {
            ended?;
        }
        () = signals.abort.cancelled() => {}
    }
    output::note(&counts.summary())?;
    Ok(ExitCode::SUCCESS)
}

fn behaviour(args: &ListenArgs) -> anyhow::Result<Behaviour> {
    Ok(Behaviour {
        status: StatusCode::from_u16(args.status).context("reading --status")?,
        delay: args.delay,
        fail_rate: args.fail_rate.get(),
        fail_status: StatusCode::from_u16(args.fail_status).context("reading --fail-status")?,
        fail_first: args.fail_first,
        hang_rate: args.hang_rate.get(),
    })
}

fn opened(path: &std::path::Path) -> anyhow::Result<File> {
    let mut options = OpenOptions::new();
    let file = options.create(true).append(true).open(path);
    file.with_context(|| format!("opening {}", path.display()))
}

/// Where a request is told.
struct Told {
    format: OutputFormat,
    colour: bool,
    record: Option<File>,
}

async fn tell_all(
    mut requests: mpsc::Receiver<ReceivedRequest>,
    mut told: Told,
    counts: &mut Counts,
) -> std::io::Result<()> {
    while let Some(request) = requests.recv().await {
        counts.add(&request.verdict);
        let line = Record::from(&request).line();
        if let Some(file) = &mut told.record {
            writeln!(file, "{line}")?;
        }
        match told.format {
            OutputFormat::Table => output::print(&block(&request, told.colour))?,
            OutputFormat::Json => output::print(&line)?,
        }
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
        answered(request),
    );
    for line in body(&request.body).lines() {
        writeln!(block, "  {line}").expect("a string takes everything");
    }
    block
}

fn answered(request: &ReceivedRequest) -> String {
    let status = request.answer.map(|status| status.as_u16().to_string());
    let status = status.unwrap_or_else(|| "never".to_owned());
    match &request.because {
        Some(because) => format!("{status}, {}", harmless(because)),
        None => status,
    }
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
    use axum::http::{HeaderMap, Method, Uri};
    use bytes::Bytes;

    use super::*;
    use crate::receiver::Refusal;

    fn request(verdict: Verdict, body: &'static [u8]) -> ReceivedRequest {
        ReceivedRequest {
            at: "2026-11-23T12:00:00.1234Z".parse().unwrap(),
            method: Method::POST,
            uri: Uri::from_static("/hook"),
            headers: HeaderMap::new(),
            id: Some("msg_1".to_owned()),
            event_type: Some("reward.granted".to_owned()),
            verdict,
            answer: Some(StatusCode::OK),
            because: None,
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
        let refused = Verdict::Refused(Refusal::Header("webhook-id".to_owned()));
        let block = block(&request(refused, b""), false);
        assert!(block.contains("verified  no: there is no readable header `webhook-id`\n"));
    }

    #[test]
    fn a_block_says_who_made_the_answer() {
        let mut failing = request(Verdict::Unverified, b"");
        failing.answer = Some(StatusCode::SERVICE_UNAVAILABLE);
        failing.because = Some("a failure on demand".to_owned());
        let failed = block(&failing, false);
        assert!(
            failed.contains("answered  503, a failure on demand\n"),
            "{failed}"
        );
        failing.answer = None;
        assert!(block(&failing, false).contains("answered  never, "));
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
