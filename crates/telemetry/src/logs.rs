//! Sends log lines to stderr; stdout belongs to the data that commands print.

use std::io::{self, IsTerminal};

use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::{
    Layer, Registry,
    filter::{FilterExt, filter_fn},
    fmt::{self, MakeWriter},
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

use crate::{LogFilter, LogFormat, Settings};

/// Why logging could not be started.
#[derive(Debug, thiserror::Error)]
pub enum LogsFault {
    /// The process has a log subscriber already.
    #[error("logging was started before")]
    AlreadyStarted(#[source] tracing_subscriber::util::TryInitError),
}

/// Starts logging to stderr for the whole process. To be called once, by the binary.
pub fn init_logs(settings: &Settings) -> Result<(), LogsFault> {
    let on_terminal = io::stderr().is_terminal();
    subscriber(settings, on_terminal, io::stderr)
        .try_init()
        .map_err(LogsFault::AlreadyStarted)
}

fn subscriber<W>(
    settings: &Settings,
    on_terminal: bool,
    writer: W,
) -> impl Subscriber + Send + Sync + 'static
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let as_json = match settings.log_format {
        LogFormat::Auto => !on_terminal,
        LogFormat::Json => true,
        LogFormat::Pretty => false,
    };
    let mut lines = fmt::layer().with_writer(writer);
    if !on_terminal {
        // On a terminal the library decides, and so honours `NO_COLOR`.
        lines = lines.with_ansi(false);
    }
    let lines = if as_json {
        lines.json().flatten_event(true).boxed()
    } else {
        lines.boxed()
    };
    Registry::default().with(lines.with_filter(allowed(&settings.log_filter)))
}

/// What the filter asks for, except what it cannot have meant.
///
/// `lapin` logs returned messages with their bodies at `warn`, and bodies never reach our logs. A filter
/// directive alone could not hold that back: one by span, such as `[handle]=trace`, overrides it.
fn allowed<S>(filter: &LogFilter) -> impl tracing_subscriber::layer::Filter<S> + 'static
where
    S: Subscriber + for<'s> tracing_subscriber::registry::LookupSpan<'s>,
{
    let asked_for_lapin = filter.asks_for_lapin();
    let harmless = move |line: &Metadata<'_>| {
        asked_for_lapin || !line.target().starts_with("lapin") || *line.level() == Level::ERROR
    };
    filter.directives().and(filter_fn(harmless))
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing::{error, info, info_span, warn};

    use super::*;

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(settings: &Settings, log: impl FnOnce()) -> String {
        let captured = Captured::default();
        let writer = captured.clone();
        let subscriber = subscriber(settings, false, move || writer.clone());
        tracing::subscriber::with_default(subscriber, log);
        let bytes = captured.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    fn settings(filter: &str, log_format: LogFormat) -> Settings {
        Settings {
            log_format,
            log_filter: filter.to_owned().try_into().unwrap(),
        }
    }

    #[test]
    fn no_filter_shows_returned_messages_unless_it_names_lapin() {
        for (filter, shown) in [
            (String::from(LogFilter::default()).as_str(), false),
            ("trace", false),
            ("info,[handle]=trace", false),
            ("info,[handle]=trace,lapin=error", false),
            ("info,fanfare_router=debug", false),
            ("info,lapin=warn", true),
        ] {
            let lines = logged(&settings(filter, LogFormat::Pretty), || {
                info_span!("handle").in_scope(|| {
                    warn!(target: "lapin::channel", "returned: a body");
                    error!(target: "lapin::channel", "the connection is gone");
                    info!(target: "fanfare_router", "routed");
                });
            });
            assert_eq!(lines.contains("a body"), shown, "{filter}: {lines}");
            assert!(
                lines.contains("the connection is gone"),
                "{filter}: {lines}"
            );
            assert!(lines.contains("routed"), "{filter}: {lines}");
        }
    }

    #[test]
    fn lines_are_json_unless_a_person_reads_them() {
        for (format, json) in [
            (LogFormat::Auto, true),
            (LogFormat::Json, true),
            (LogFormat::Pretty, false),
        ] {
            let line = logged(&settings("info", format), || info!(answer = 42, "ready"));
            assert_eq!(line.starts_with('{'), json, "{line}");
            assert_eq!(line.contains(r#""answer":42"#), json, "{line}");
            assert!(!line.contains('\u{1b}'), "colour off a terminal: {line}");
        }
    }
}
