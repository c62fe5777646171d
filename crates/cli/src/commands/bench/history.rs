//! What the journal costs a delivery, how fast the history is written, and how long searches in it take.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, ensure};
use fanfare_journal::{
    AttemptFilter, Cursor, DeliveryFilter, EventFilter, History, LetterFilter, LetterKey,
    OutcomeFilter, Page, Portion, Recorded, Settings, StateFilter,
};
use fanfare_model::{
    AttemptRecord, DatabaseLocation, DeadLetterReason, DeliveryId, DeliveryState, EndpointId,
    Event, EventKey, FailureClass, HandledDelivery, JournalBatch, JournalEntry, JournalWriterId,
    JournalledAttempts, OwedDelivery, RoutedEvent, TenantId, Timestamp,
};
use fanfare_producer::EventBuilder;
use tokio::time::Instant;
use uuid::Uuid;

use super::{
    Bench, WARM_UP, load,
    report::{Measure, Report},
    scenarios::PLAIN,
    subject::Audience,
};
use crate::{Config, Role, output::note};

/// What is written to the journal, and the settings for it.
type Journal = (&'static str, fn(&mut Config));

/// The first is what the others are held against.
const JOURNALS: [Journal; 4] = [
    ("no journal", |config| config.journal.enabled = false),
    ("journal: none", |config| {
        config.journal.attempts = JournalledAttempts::None;
    }),
    ("journal: failures", |config| {
        config.journal.attempts = JournalledAttempts::Failures;
    }),
    ("journal: all", |config| {
        config.journal.attempts = JournalledAttempts::All;
    }),
];

/// The same deliveries with each way to keep a journal, in the same minutes.
pub(super) async fn journal(bench: &mut Bench, report: &mut Report) -> anyhow::Result<()> {
    let (roles, events) = ([Role::Router, Role::Dispatcher], bench.events);
    let audience = Audience::new(1, 1, PLAIN);
    let mut without = None;
    for (name, change) in JOURNALS {
        let home = bench.home(audience).await?.with(change);
        let arrivals = &mut bench.arrivals;
        let run = home
            .run(&roles, async |subject| {
                let publish = async |number| subject.publish(number).await;
                load::run(WARM_UP, 1, arrivals, publish).await?;
                load::run(events, 1, arrivals, publish).await
            })
            .await?;
        let (rate, cpu) = *without.get_or_insert((run.rate, run.cpu_micros));
        note(&format!(
            "{name}: {:.0} per second, {:.0} µs each",
            run.rate, run.cpu_micros
        ))?;
        report.add(Measure::new(name, "deliveries", "per s"), run.rate);
        let ratio = Measure::new(name, "ratio to no journal", "");
        report.add(ratio, run.rate / rate);
        let each = Measure::new(name, "processor time", "µs each");
        report.add(each, run.cpu_micros);
        let more = Measure::new(name, "processor time for the journal", "µs each");
        report.add(more, run.cpu_micros - cpu);
    }
    Ok(())
}

/// How many attempts are searched at the usual size.
const ATTEMPTS: u64 = 1_000_000;

/// How long a page of any search may take, in milliseconds.
const PAGE_GOAL: f64 = 300.0;

/// What counts every dead letter has more time.
const GROUPS: &str = "all dead letters in groups";
const GROUPS_GOAL: f64 = 1000.0;

/// How many results a page has, and how many pages of each search are read.
const PAGE: u32 = 100;
const PAGES: usize = 4;

const TENANTS: u64 = 50;
const ENDPOINTS_PER_TENANT: u64 = 20;
/// One delivery in so many fails, with so many attempts, and ends as a dead letter.
const FAILING: u64 = 10;
const FAILED_ATTEMPTS: u32 = 11;
/// Each event is owed to two endpoints, and leads to four attempts on average.
const FAN_OUT: u64 = 2;
const ATTEMPTS_PER_EVENT: u64 = 4;

/// Over how long the events are spread.
const SPAN: Duration = Duration::from_secs(7 * 24 * 3600);

/// How many entries are recorded at once, as the recorder does at most.
const PORTION: usize = 5000;

/// Fills a history in each kind of database with the recorder's own writes, and searches it.
pub(super) async fn history(bench: &mut Bench, report: &mut Report) -> anyhow::Result<()> {
    let directory = tempfile::tempdir().context("making a temporary directory")?;
    let sqlite = DatabaseLocation::Sqlite(directory.path().join("history.db"));
    let postgres = bench.postgres.clone();
    let stores = [("SQLite", Some(sqlite)), ("PostgreSQL", postgres)];
    for (name, database) in stores {
        let Some(database) = database else {
            note("no --postgres URL, so PostgreSQL is left out")?;
            continue;
        };
        let settings = Settings {
            database,
            ..Settings::default()
        };
        let history = History::open(&settings).await?;
        let attempts = bench.scaled(ATTEMPTS);
        let past = Past {
            start: bench.clock.now() - SPAN,
            events: attempts / ATTEMPTS_PER_EVENT,
        };
        // What an earlier round has written is searched as it is.
        if history.progress().await?.next_offset == 0 {
            let rate = past.write(&history).await?;
            note(&format!(
                "{name}: {attempts} attempts, {rate:.0} rows per second"
            ))?;
            report.add(Measure::new(name, "rows written", "per s"), rate);
        }
        for (search, took) in past.search(&history).await? {
            let goal = if search == GROUPS {
                GROUPS_GOAL
            } else {
                PAGE_GOAL
            };
            let longest = Measure::new(name, search, "ms").at_most(goal);
            report.add(longest, took.as_secs_f64() * 1e3);
        }
        history.close().await;
    }
    Ok(())
}

/// What is written: events over a time, each owed to two endpoints.
struct Past {
    start: Timestamp,
    events: u64,
}

impl Past {
    /// Records everything, and returns how many rows a second that was.
    async fn write(&self, history: &History) -> anyhow::Result<f64> {
        let (started, mut rows, mut offset) = (Instant::now(), 0, 0);
        let mut entries = Vec::with_capacity(PORTION);
        for number in 0..self.events {
            self.tell_of(number, &mut entries)?;
            if entries.len() < PORTION && number + 1 < self.events {
                continue;
            }
            let portion = Portion {
                from: offset,
                next: offset + 1,
                batches: vec![JournalBatch {
                    writer: JournalWriterId {
                        name: "bench".to_owned(),
                        epoch: 1,
                    },
                    sequence: offset + 1,
                    written_at: self.at(number),
                    dropped: 0,
                    is_last: false,
                    entries: std::mem::take(&mut entries),
                }],
                missing: Vec::new(),
            };
            let Recorded::Done(counts) = history.record(&portion).await? else {
                anyhow::bail!("somebody else records into this database");
            };
            rows += counts.rows;
            offset += 1;
        }
        let rows = u32::try_from(rows).unwrap_or(u32::MAX);
        Ok(f64::from(rows) / started.elapsed().as_secs_f64())
    }

    fn tell_of(&self, number: u64, entries: &mut Vec<JournalEntry>) -> anyhow::Result<()> {
        let (event, at) = (Arc::new(event(number)?), self.at(number));
        let endpoints = (0..FAN_OUT).map(|place| endpoint(number, place));
        let owed = endpoints.clone().map(|endpoint| OwedDelivery {
            id: DeliveryId::derive(&event, endpoint),
            endpoint,
            not_before: None,
            is_told: true,
        });
        entries.push(JournalEntry::Routed(RoutedEvent {
            data_left_out: false,
            at,
            trace_id: None,
            owed: owed.collect(),
            event: Arc::clone(&event),
        }));
        for (place, endpoint) in (0..FAN_OUT).zip(endpoints) {
            let delivery = number * FAN_OUT + place;
            let last = match delivery % FAILING {
                0 => FAILED_ATTEMPTS,
                _ => 1,
            };
            for attempt in 1..=last {
                entries.push(handled(&event, endpoint, delivery, (attempt, last), at));
            }
        }
        Ok(())
    }

    fn at(&self, number: u64) -> Timestamp {
        let part = u32::try_from(self.events).unwrap_or(u32::MAX);
        let step = SPAN / part.max(1);
        self.start + step * u32::try_from(number).unwrap_or(u32::MAX)
    }

    /// The longest that a page took of each kind of search.
    async fn search(&self, history: &History) -> anyhow::Result<Vec<(&'static str, Duration)>> {
        let middle = self.events / 2;
        let (tenant, one) = (tenant(middle)?, endpoint(middle, 0));
        let key = EventKey::from(&event(middle)?);
        let looked_for = LookedFor {
            tenant: tenant.clone(),
            endpoint: one,
            delivery: DeliveryId::derive(&event(middle)?, one),
            key: key.clone(),
            from: Some(self.at(middle)),
            to: Some(self.at(middle + self.events / 20)),
        };
        let mut took = Vec::new();
        for (name, filter) in looked_for.attempts() {
            let read = async |page| history.attempts(&filter, page).await;
            took.push((name, longest_page(read, |found| found.cursor).await?));
        }
        for (name, filter) in looked_for.events() {
            let read = async |page| history.events(&filter, page).await;
            took.push((name, longest_page(read, |found| found.cursor).await?));
        }
        for (name, filter) in looked_for.deliveries()? {
            let read = async |page| history.deliveries(&filter, page).await;
            took.push((name, longest_page(read, |found| found.event.cursor).await?));
        }
        let missed = DeliveryFilter {
            endpoint: Some(one),
            states: StateFilter::MISSED.to_vec(),
            ..DeliveryFilter::default()
        };
        let read = async |page| history.missed(&missed, page).await;
        took.push((
            "a replay's pages",
            longest_page(read, |found| found.event.cursor).await?,
        ));
        let wanted = DeliveryFilter {
            tenant: Some(tenant.clone()),
            ..DeliveryFilter::default()
        };
        let read = async |page| history.events_for(one, &wanted, page).await;
        took.push((
            "a backfill's pages",
            longest_page(read, |found| found.event.cursor).await?,
        ));
        let started = Instant::now();
        ensure!(history.count(&missed).await? > 0, "nothing was missed");
        took.push(("how much was missed", started.elapsed()));
        let started = Instant::now();
        history.event(&key).await?.context("an event is gone")?;
        took.push(("one event with its attempts", started.elapsed()));
        let started = Instant::now();
        let by = [LetterKey::Tenant, LetterKey::Endpoint, LetterKey::Reason];
        history.letter_groups(&LetterFilter::default(), &by).await?;
        took.push((GROUPS, started.elapsed()));
        took.push(("a feed's pages", longest_feed_page(history, &tenant).await?));
        Ok(took)
    }
}

fn tenant(number: u64) -> anyhow::Result<TenantId> {
    Ok(format!("tenant{:02}", number % TENANTS).parse()?)
}

fn event(number: u64) -> anyhow::Result<Event> {
    let event_type = format!("family{}.type{}", number % 3, number % 10);
    let source = match number % 50_000 {
        7 => "/rare",
        _ => "/bench",
    };
    let event = EventBuilder::new(tenant(number)?.as_str(), &event_type, source)
        .id(&number.to_string())
        .json(&load::data(i64::try_from(number)?))
        .build();
    Ok(event?)
}

fn endpoint(number: u64, place: u64) -> EndpointId {
    let within = (number / TENANTS + place) % ENDPOINTS_PER_TENANT;
    let endpoint = number % TENANTS * ENDPOINTS_PER_TENANT + within;
    EndpointId::from_uuid(Uuid::from_u128(endpoint.into()))
}

fn handled(
    event: &Event,
    endpoint: EndpointId,
    delivery: u64,
    (attempt, last): (u32, u32),
    routed_at: Timestamp,
) -> JournalEntry {
    let fails = last > 1;
    let class = match delivery % 100_000 {
        0 => FailureClass::Tls,
        other if other % 20 == 0 => FailureClass::Timeout,
        _ => FailureClass::Status5xx,
    };
    let at = routed_at + Duration::from_secs(u64::from(attempt));
    let state = match (fails, attempt == last) {
        (false, _) => DeliveryState::Delivered,
        (true, false) => DeliveryState::Retrying { at },
        (true, true) => DeliveryState::DeadLettered {
            reason: DeadLetterReason::Exhausted,
        },
    };
    JournalEntry::Handled(HandledDelivery {
        delivery: DeliveryId::derive(event, endpoint),
        endpoint,
        event: event.into(),
        replay: 0,
        at,
        attempt: Some(AttemptRecord {
            number: attempt,
            started_at: at,
            took_micros: 12_345,
            status: Some(if fails { 503 } else { 200 }),
            failure: fails.then_some(class),
            error: match fails {
                true => "the receiver answered 503 Service Unavailable".to_owned(),
                false => String::new(),
            },
        }),
        failed_attempts: if fails { attempt } else { 0 },
        state,
    })
}

type Searches<F> = Vec<(&'static str, F)>;

/// What is looked for: half way through the past.
struct LookedFor {
    tenant: TenantId,
    endpoint: EndpointId,
    key: EventKey,
    delivery: DeliveryId,
    from: Option<Timestamp>,
    to: Option<Timestamp>,
}

impl LookedFor {
    fn attempts(&self) -> Searches<AttemptFilter> {
        let of = |change: &dyn Fn(&mut AttemptFilter)| {
            let mut filter = AttemptFilter {
                tenant: Some(self.tenant.clone()),
                ..AttemptFilter::default()
            };
            change(&mut filter);
            filter
        };
        let failed = Some(OutcomeFilter::Failed);
        let rare = Some(OutcomeFilter::FailedWith(FailureClass::Tls));
        let succeeded = Some(OutcomeFilter::Succeeded);
        let event_type = Some(self.key.event_type.clone());
        let id = Some(self.key.id.clone());
        vec![
            ("attempts: all", of(&|f| f.tenant = None)),
            (
                "attempts: failed",
                of(&|f| (f.tenant, f.outcome) = (None, failed)),
            ),
            (
                "attempts: a rare class",
                of(&|f| (f.tenant, f.outcome) = (None, rare)),
            ),
            ("attempts: of a tenant", of(&|_| {})),
            ("attempts: of a tenant, failed", of(&|f| f.outcome = failed)),
            (
                "attempts: of a tenant, a rare class",
                of(&|f| f.outcome = rare),
            ),
            (
                "attempts: of a tenant, in a time",
                of(&|f| (f.from, f.to) = (self.from, self.to)),
            ),
            (
                "attempts: of a type",
                of(&|f| f.event_type = event_type.clone()),
            ),
            (
                "attempts: at an endpoint",
                of(&|f| f.endpoint = Some(self.endpoint)),
            ),
            (
                "attempts: at an endpoint, succeeded",
                of(&|f| (f.endpoint, f.outcome) = (Some(self.endpoint), succeeded)),
            ),
            (
                "attempts: of a delivery",
                of(&|f| f.delivery = Some(self.delivery)),
            ),
            ("attempts: of an event", of(&|f| f.event_id = id.clone())),
        ]
    }

    fn events(&self) -> Searches<EventFilter> {
        let of = |change: &dyn Fn(&mut EventFilter)| {
            let mut filter = EventFilter {
                tenant: Some(self.tenant.clone()),
                ..EventFilter::default()
            };
            change(&mut filter);
            filter
        };
        let rare = Some("/rare".to_owned());
        let event_type = Some(self.key.event_type.clone());
        let id = Some(self.key.id.clone());
        vec![
            ("events: all", of(&|f| f.tenant = None)),
            (
                "events: from a rare source",
                of(&|f| (f.tenant, f.source) = (None, rare.clone())),
            ),
            ("events: of a tenant", of(&|_| {})),
            (
                "events: of a tenant, from a rare source",
                of(&|f| f.source = rare.clone()),
            ),
            (
                "events: of a tenant, in a time",
                of(&|f| (f.from, f.to) = (self.from, self.to)),
            ),
            (
                "events: of a type",
                of(&|f| f.event_type = event_type.clone()),
            ),
            ("events: by their id", of(&|f| f.id = id.clone())),
        ]
    }

    fn deliveries(&self) -> anyhow::Result<Searches<DeliveryFilter>> {
        let of = |change: &dyn Fn(&mut DeliveryFilter)| {
            let mut filter = DeliveryFilter {
                tenant: Some(self.tenant.clone()),
                endpoint: Some(self.endpoint),
                states: StateFilter::MISSED.to_vec(),
                ..DeliveryFilter::default()
            };
            change(&mut filter);
            filter
        };
        let dead = vec![StateFilter::DeadLettered];
        let family = vec!["family1.*".parse()?];
        Ok(vec![
            ("deliveries: to an endpoint", of(&|f| f.states = Vec::new())),
            ("deliveries: missed by an endpoint", of(&|_| {})),
            (
                "deliveries: missed, of a family",
                of(&|f| f.event_types = family.clone()),
            ),
            (
                "deliveries: missed, in a time",
                of(&|f| (f.from, f.to) = (self.from, self.to)),
            ),
            (
                "deliveries: a tenant's dead letters",
                of(&|f| (f.endpoint, f.states) = (None, dead.clone())),
            ),
            (
                "deliveries: all dead letters",
                of(&|f| (f.tenant, f.endpoint, f.states) = (None, None, dead.clone())),
            ),
        ])
    }
}

/// Reads pages that follow each other, and returns how long the slowest took.
async fn longest_page<T, F: std::error::Error + Send + Sync + 'static>(
    read: impl AsyncFn(Page) -> Result<Vec<T>, F>,
    cursor: impl Fn(&T) -> Cursor,
) -> anyhow::Result<Duration> {
    let (mut longest, mut after) = (Duration::ZERO, None);
    for _ in 0..PAGES {
        let started = Instant::now();
        let found = read(Page { after, limit: PAGE }).await?;
        longest = longest.max(started.elapsed());
        let Some(last) = found.last() else { break };
        after = Some(cursor(last));
    }
    Ok(longest)
}

async fn longest_feed_page(history: &History, tenant: &TenantId) -> anyhow::Result<Duration> {
    let (mut longest, mut after) = (Duration::ZERO, None);
    for _ in 0..PAGES {
        let started = Instant::now();
        let page = Page { after, limit: PAGE };
        let found = history.feed(tenant, page).await?;
        longest = longest.max(started.elapsed());
        let Some(last) = found.last() else { break };
        after = Some(last.cursor);
    }
    Ok(longest)
}
