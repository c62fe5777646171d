//! `fanfare audit`: shows who changed what.

use fanfare_registry::{AuditEntry, AuditPage, Registry};

use crate::{
    AuditArgs, Config, OutputFormat, Sources, clock,
    output::{self, Column, Row},
};

pub(crate) async fn run(
    format: OutputFormat,
    args: &AuditArgs,
    sources: &Sources,
) -> anyhow::Result<()> {
    let settings = Config::load(sources)?.settings;
    let registry = Registry::open(&settings.registry).await?;
    let now = clock::system_clock().now();
    let page = AuditPage {
        tenant: args.tenant.clone(),
        actor: args.actor.clone(),
        action: args.action.clone(),
        subject: args.subject.clone(),
        since: args.since.as_ref().map(|moment| moment.at(now)),
        until: args.until.as_ref().map(|moment| moment.at(now)),
        before: args.before,
        // One more tells whether there are more.
        limit: args.limit + 1,
    };
    let mut entries = registry.audit(&page).await?;
    registry.close().await;
    let more = entries.len() > args.limit as usize;
    entries.truncate(args.limit as usize);
    output::print_rows(format, &entries)?;
    if let Some(last) = entries.last().filter(|_| more) {
        output::note(&format!("there are older ones: --before {}", last.id))?;
    }
    Ok(())
}

impl Row for AuditEntry {
    const COLUMNS: &'static [Column<Self>] = &[
        Column {
            name: "id",
            value: |entry| entry.id.into(),
        },
        Column {
            name: "at",
            value: |entry| entry.at.to_string().into(),
        },
        Column {
            name: "actor",
            value: |entry| entry.actor.as_str().into(),
        },
        Column {
            name: "action",
            value: |entry| entry.action.as_str().into(),
        },
        Column {
            name: "subject",
            value: |entry| entry.subject.as_str().into(),
        },
        Column {
            name: "detail",
            value: |entry| entry.detail.clone(),
        },
    ];
}
