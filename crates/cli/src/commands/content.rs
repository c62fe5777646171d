//! What the commands about the content of events have in common: where they read from, and events to try
//! things with.

use std::{
    fs::File,
    io::{self, Read},
    sync::Arc,
};

use anyhow::{Context, ensure};
use bytes::Bytes;
use fanfare_model::{Event, Filter, PayloadTemplate, TemplateForm};
use fanfare_registry::built_in_sample;
use fanfare_wire::{EventLimits, check_event, decode_structured_json};

use crate::{DataSource, SampleEventArgs, TemplateArgs};

/// More than any filter, template, catalogue or event may have.
const MOST_BYTES: u64 = 16 * 1024 * 1024;

/// What an argument names or is.
pub(crate) fn read(source: &DataSource) -> anyhow::Result<Vec<u8>> {
    match source {
        DataSource::Inline(text) => Ok(text.clone().into_bytes()),
        DataSource::File(path) => {
            let reading = || format!("reading {}", path.display());
            bounded(File::open(path).with_context(reading)?).with_context(reading)
        }
        DataSource::Stdin => bounded(io::stdin().lock()).context("reading stdin"),
    }
}

fn bounded(reader: impl Read) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(MOST_BYTES + 1).read_to_end(&mut bytes)?;
    ensure!(
        bytes.len() as u64 <= MOST_BYTES,
        "there are more than {MOST_BYTES} bytes"
    );
    Ok(bytes)
}

/// What an argument names or is, as text.
pub(crate) fn read_text(source: &DataSource) -> anyhow::Result<String> {
    String::from_utf8(read(source)?).context("not UTF-8 text")
}

/// The event that a command is to try something with.
pub(crate) fn sample_event(args: &SampleEventArgs) -> anyhow::Result<Arc<Event>> {
    if let Some(source) = &args.event {
        let body = Bytes::from(read(source)?);
        let event = decode_structured_json(&body, Some(&args.tenant), &EventLimits::default())
            .context("`--event` is no CloudEvent in structured JSON mode")?;
        return Ok(Arc::new(event));
    }
    let data = match &args.data {
        Some(source) => Some(read(source)?),
        None => built_in_sample(&args.event_type).map(|sample| sample.to_string().into_bytes()),
    };
    let event = Event {
        tenant: args.tenant.clone(),
        source: "fanfare-cli".to_owned(),
        id: "example".to_owned(),
        event_type: args.event_type.clone(),
        subject: args.subject.clone(),
        time: None,
        data_content_type: Some("application/json".to_owned()),
        data_schema: None,
        extensions: std::collections::BTreeMap::new(),
        data: data.map(Bytes::from),
    };
    check_event(&event)?;
    Ok(Arc::new(event))
}

/// The filter that an argument names or is.
pub(crate) fn filter(source: &DataSource) -> anyhow::Result<Filter> {
    let text = read_text(source).context("reading the filter")?;
    text.parse().context("the filter is not accepted")
}

/// The template that arguments describe, if they do.
pub(crate) fn template(args: &TemplateArgs) -> anyhow::Result<Option<PayloadTemplate>> {
    if args.template.is_none() && args.preset.is_none() {
        ensure!(
            args.parameters.is_empty(),
            "`--parameter` belongs to `--template` or `--preset`"
        );
        return Ok(None);
    }
    let form = TemplateForm {
        source: args.template.as_ref().map(read_text).transpose()?,
        preset: args.preset.clone(),
        media_type: args.media_type.clone(),
        parameters: args
            .parameters
            .iter()
            .map(|parameter| (parameter.name.clone(), parameter.value.clone()))
            .collect(),
    };
    let template = PayloadTemplate::new(form).context("the template is not accepted")?;
    Ok(Some(template))
}
