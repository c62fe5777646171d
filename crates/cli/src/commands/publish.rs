//! `fanfare publish`: publishes events over AMQP, as a backend service would.

mod lines;
mod many;

use std::{
    fs::File,
    io::{self, Read},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, ensure};
use fanfare_model::{Event, Timestamp};
use fanfare_producer::{EventBuilder, Producer};
use fanfare_wire::EventLimits;
use serde_json::json;
use uuid::{NoContext, Uuid};

use super::broker::connected;
use crate::{Config, DataSource, OutputFormat, PublishArgs, Sources, clock, output};

const CONFIRM_WITHIN: Duration = Duration::from_secs(10);

pub(crate) async fn run(
    format: OutputFormat,
    args: &PublishArgs,
    sources: &Sources,
) -> anyhow::Result<ExitCode> {
    let settings = Config::load(sources)?.settings;
    let clock = clock::system_clock();
    if args.check {
        let summary = many::run(format, args, None, &clock).await?;
        return Ok(exit_code(summary.is_complete()));
    }
    // What is wrong with an event is told before a broker is looked for.
    let single = args
        .events
        .is_empty()
        .then(|| event(args, clock.now()))
        .transpose()?;
    let broker = connected(&settings.broker, "fanfare publish").await?;
    let producer = Producer::on(&broker, clock.clone())
        .confirm_within(CONFIRM_WITHIN)
        .max_in_flight(args.in_flight)
        .mode(args.mode.into());
    let complete = match single {
        Some(event) => {
            // The id is part of the fault: whoever publishes again has to give it.
            let published = producer.publish(&event).await;
            published.with_context(|| format!("publishing event `{}`", event.id))?;
            output::print(&confirmation(format, &event))?;
            true
        }
        None => many::run(format, args, Some(&producer), &clock)
            .await?
            .is_complete(),
    };
    broker.close().await;
    Ok(exit_code(complete))
}

fn exit_code(complete: bool) -> ExitCode {
    if complete {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn event(args: &PublishArgs, now: Timestamp) -> anyhow::Result<Event> {
    let required = "without --events, --tenant and --type are needed";
    let tenant = args.tenant.as_ref().context(required)?.as_str();
    let event_type = args.event_type.as_ref().context(required)?.as_str();
    let id = args.id.clone().unwrap_or_else(|| new_id(now));
    let mut builder = EventBuilder::new(tenant, event_type, &args.source).id(&id);
    if let Some(subject) = &args.subject {
        builder = builder.subject(subject);
    }
    if let Some(time) = args.time {
        builder = builder.time(time);
    }
    if let Some(source) = &args.data {
        builder = builder.data(&args.content_type, &data(source)?);
    }
    Ok(builder.build()?)
}

fn new_id(now: Timestamp) -> String {
    let seconds = now.as_second().unsigned_abs();
    let nanoseconds = now.subsec_nanosecond().unsigned_abs();
    Uuid::new_v7(uuid::Timestamp::from_unix(NoContext, seconds, nanoseconds)).to_string()
}

fn data(source: &DataSource) -> anyhow::Result<Vec<u8>> {
    match source {
        DataSource::Inline(text) => Ok(text.clone().into_bytes()),
        DataSource::File(path) => {
            let reading = || format!("reading {}", path.display());
            bounded(File::open(path).with_context(reading)?).with_context(reading)
        }
        DataSource::Stdin => bounded(io::stdin().lock()).context("reading stdin"),
    }
}

/// Everything that there is to read, as far as an event could hold it.
fn bounded(reader: impl Read) -> anyhow::Result<Vec<u8>> {
    let most = EventLimits::default().max_event_bytes;
    let mut data = Vec::new();
    reader.take(most as u64 + 1).read_to_end(&mut data)?;
    ensure!(
        data.len() <= most,
        "there are more than the {most} bytes that an event may have"
    );
    Ok(data)
}

/// The id alone, so that a shell can keep it.
fn confirmation(format: OutputFormat, event: &Event) -> String {
    match format {
        OutputFormat::Table => output::harmless(&event.id).into_owned(),
        OutputFormat::Json => output::to_json(&json!({
            "tenant": event.tenant,
            "type": event.event_type.as_str(),
            "source": event.source,
            "id": event.id,
        })),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::{Args, Command};

    fn now() -> Timestamp {
        "2026-11-23T12:00:00Z".parse().unwrap()
    }

    fn event_of(arguments: &[&str]) -> anyhow::Result<Event> {
        let line = ["fanfare", "publish", "--tenant", "t", "--type", "a.b"];
        let args = Args::try_parse_from(line.iter().chain(arguments)).unwrap();
        let Command::Publish(publish) = args.command else {
            panic!("publish");
        };
        event(&publish, now())
    }

    #[test]
    fn an_event_is_what_the_arguments_say() {
        let event = event_of(&[
            "--id=1",
            "--source=/shop",
            "--subject=order 7",
            "--time=2026-11-22T00:00:00Z",
            "--content-type=text/plain",
            "hello",
        ])
        .unwrap();
        assert_eq!((&*event.id, &*event.source), ("1", "/shop"));
        assert_eq!(event.subject.as_deref(), Some("order 7"));
        let time = event.time.as_ref().map(|time| time.as_str());
        assert_eq!(time, Some("2026-11-22T00:00:00Z"));
        assert_eq!(event.content_type(), "text/plain");
        assert_eq!(event.data.as_deref(), Some(&b"hello"[..]));
        assert_eq!(confirmation(OutputFormat::Table, &event), "1");
    }

    #[test]
    fn what_is_not_given_has_a_default_or_is_absent() {
        let (one, other) = (event_of(&[]).unwrap(), event_of(&[]).unwrap());
        assert_eq!(one.source, "fanfare-cli");
        assert_eq!((&one.subject, &one.time, &one.data), (&None, &None, &None));
        assert_ne!(one.id, other.id);
        // Ids of version 7 begin with the milliseconds since 1970.
        let milliseconds = format!("{:012x}", now().as_millisecond());
        assert_eq!(one.id.replace('-', "")[..12], milliseconds);
    }

    #[test]
    fn data_that_is_no_event_is_refused_before_anything_is_published() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        std::fs::write(path("large"), vec![b' '; 262_145]).unwrap();
        std::fs::write(path("good"), "{}").unwrap();
        let argument = |name: &str| format!("@{}", path(name).display());
        let event = event_of(&[&argument("good")]).unwrap();
        assert_eq!(event.data.as_deref(), Some(&b"{}"[..]));
        for (data, expected) in [
            ("{", "data"),
            (&*argument("large"), "more than the 262144 bytes"),
            (&*argument("missing"), "missing: "),
        ] {
            let fault = format!("{:#}", event_of(&[data]).unwrap_err());
            assert!(fault.contains(expected), "{data}: {fault}");
        }
    }
}
