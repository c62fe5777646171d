//! The history as the rest of Fanfare sees it: questions in, records out, over a database that may be away.

use std::{collections::HashMap, sync::Arc};

use fanfare_model::{DatabaseLocation, DeliveryId, EndpointId, EventKey, TenantId};
use tokio::sync::OnceCell;

use crate::{
    AttemptEntry, AttemptFilter, DeliveryFilter, DeliveryRecord, EventFilter, EventHistory,
    EventRecord, FeedCursor, FeedEntry, Gap, HistoryFault, OwedEvent, Page, Progress, Settings,
    rows::{AttemptRow, DeliveryRow, EventRow, GapRow, NewAttempt, ProgressRow},
    search::{self, Order},
    statement::Statement,
    store::{Row, Store},
};

/// What was routed, attempted and settled. Cheap to clone.
///
/// It may be behind: [`History::progress`] says how far it has come. What is missing for good is in
/// [`History::gaps`].
#[derive(Clone)]
pub struct History(Arc<Inner>);

struct Inner {
    location: DatabaseLocation,
    store: OnceCell<Store>,
}

impl History {
    /// Opens the database and brings its schema up to date.
    pub async fn open(settings: &Settings) -> Result<Self, HistoryFault> {
        let history = Self::connect(settings);
        history.store().await?;
        Ok(history)
    }

    /// Prepares a history whose database is opened by the first call that succeeds in it.
    ///
    /// Until then every call says [`HistoryFault::Unavailable`].
    pub fn connect(settings: &Settings) -> Self {
        Self(Arc::new(Inner {
            location: settings.database.clone(),
            store: OnceCell::new(),
        }))
    }

    /// Waits for the calls under way and closes the database. Later calls fail.
    pub async fn close(&self) {
        if let Some(store) = self.0.store.get() {
            store.close().await;
        }
    }

    /// The attempts that match, newest first.
    pub async fn attempts(
        &self,
        filter: &AttemptFilter,
        page: Page,
    ) -> Result<Vec<AttemptEntry>, HistoryFault> {
        let found = search::attempts(filter, page);
        self.find::<AttemptRow, _>("searching attempts", found)
            .await
    }

    /// The events that match, newest first, without their data.
    pub async fn events(
        &self,
        filter: &EventFilter,
        page: Page,
    ) -> Result<Vec<EventRecord>, HistoryFault> {
        let found = search::events(filter, Order::NewestFirst, page, false);
        self.find::<EventRow, _>("searching events", found).await
    }

    /// The deliveries that match with their events, newest first. The events are without their data.
    pub async fn deliveries(
        &self,
        filter: &DeliveryFilter,
        page: Page,
    ) -> Result<Vec<OwedEvent>, HistoryFault> {
        self.owed(filter, Order::NewestFirst, page, false).await
    }

    /// What a replay to an endpoint is made of: the deliveries to it that match, oldest first, each with its
    /// event and its data. The place of the last one is where the next page begins.
    ///
    /// What an endpoint missed has one of the states [`crate::StateFilter::MISSED`].
    pub async fn missed(
        &self,
        filter: &DeliveryFilter,
        page: Page,
    ) -> Result<Vec<OwedEvent>, HistoryFault> {
        self.owed(filter, Order::OldestFirst, page, true).await
    }

    /// How many deliveries match.
    pub async fn count(&self, filter: &DeliveryFilter) -> Result<u64, HistoryFault> {
        let found = search::count(filter);
        let rows: Vec<(i64,)> = self.rows("counting deliveries", found).await?;
        Ok(rows.iter().map(|(count,)| count.unsigned_abs()).sum())
    }

    /// How these deliveries stand: those of them that are recorded.
    pub async fn standing(&self, ids: &[DeliveryId]) -> Result<Vec<DeliveryRecord>, HistoryFault> {
        let columns = DeliveryRow::columns();
        let mut found = Vec::new();
        for page in ids.chunks(IN_ONE_LIST) {
            let mut select =
                Statement::new(&format!("SELECT {columns} FROM deliveries d WHERE id IN ("));
            select
                .bind_list(page.iter().map(DeliveryId::as_bytes))
                .push(")");
            let rows = self.find::<DeliveryRow, _>("reading deliveries", select);
            found.extend(rows.await?);
        }
        Ok(found)
    }

    /// What filling an endpoint from the past is made of: the events of a tenant that match, oldest first,
    /// each with its data, and with its delivery to the endpoint if that was owed it. States are not looked at.
    pub async fn events_for(
        &self,
        endpoint: EndpointId,
        filter: &DeliveryFilter,
        page: Page,
    ) -> Result<Vec<OwedEvent>, HistoryFault> {
        let doing = "reading events for an endpoint";
        let found = search::events_for(filter, page);
        let events: Vec<EventRecord> = self.find::<EventRow, _>(doing, found).await?;
        let mut deliveries = self.deliveries_of(doing, &events).await?;
        let owed = events.into_iter().map(|event| {
            let of_event = deliveries.remove(&event.cursor.seq).unwrap_or_default();
            let delivery = of_event.into_iter().find(|one| one.endpoint == endpoint);
            OwedEvent { event, delivery }
        });
        Ok(owed.collect())
    }

    /// One event with the state of every delivery, and all attempts. The type is not looked at.
    pub async fn event(&self, key: &EventKey) -> Result<Option<EventHistory>, HistoryFault> {
        let doing = "reading an event";
        let filter = EventFilter {
            tenant: Some(key.tenant.clone()),
            source: Some(key.source.clone()),
            id: Some(key.id.clone()),
            ..EventFilter::default()
        };
        let page = Page {
            after: None,
            limit: 1,
        };
        let found = search::events(&filter, Order::NewestFirst, page, true);
        let events: Vec<EventRecord> = self.find::<EventRow, _>(doing, found).await?;
        let mut deliveries = self.deliveries_of(doing, &events).await?;
        let Some(event) = events.into_iter().next() else {
            return Ok(None);
        };
        let columns = NewAttempt::COLUMNS.join(", ");
        let mut found = Statement::new(&format!(
            "SELECT {columns} FROM attempts WHERE event_seq = "
        ));
        found.bind(event.cursor.seq).push(" ORDER BY at, seq");
        Ok(Some(EventHistory {
            deliveries: deliveries.remove(&event.cursor.seq).unwrap_or_default(),
            attempts: self.find::<AttemptRow, _>(doing, found).await?,
            event,
        }))
    }

    /// The next events of a tenant's feed, each with the state of its deliveries.
    ///
    /// The order never changes, and what is recorded later comes later: whoever goes on from the last cursor
    /// misses nothing.
    pub async fn feed(
        &self,
        tenant: &TenantId,
        page: Page<FeedCursor>,
    ) -> Result<Vec<FeedEntry>, HistoryFault> {
        let doing = "reading a feed";
        let found = search::feed(tenant, page);
        let events: Vec<EventRecord> = self.find::<EventRow, _>(doing, found).await?;
        let mut deliveries = self.deliveries_of(doing, &events).await?;
        let entries = events.into_iter().filter_map(|event| {
            Some(FeedEntry {
                cursor: event.feed?,
                deliveries: deliveries.remove(&event.cursor.seq).unwrap_or_default(),
                event,
            })
        });
        Ok(entries.collect())
    }

    /// What is missing, the latest first.
    pub async fn gaps(&self, limit: u32) -> Result<Vec<Gap>, HistoryFault> {
        let mut found = Statement::new(
            "SELECT writer, epoch, kind, missing, from_at, to_at FROM gaps ORDER BY seq DESC LIMIT ",
        );
        found.bind(i64::from(limit));
        self.find::<GapRow, _>("reading gaps", found).await
    }

    /// How far the history has come.
    pub async fn progress(&self) -> Result<Progress, HistoryFault> {
        let doing = "reading the progress";
        let found = Statement::new(
            "SELECT next_offset, written_at, (SELECT COUNT(*) FROM gaps) AS gaps FROM journal_state",
        );
        let rows: Vec<Progress> = self.find::<ProgressRow, _>(doing, found).await?;
        rows.into_iter().next().ok_or(HistoryFault::Damaged {
            what: "the state of the recorder",
        })
    }

    async fn owed(
        &self,
        filter: &DeliveryFilter,
        order: Order,
        page: Page,
        with_data: bool,
    ) -> Result<Vec<OwedEvent>, HistoryFault> {
        let doing = "searching deliveries";
        let found = search::deliveries(filter, order, page);
        let rows: Vec<DeliveryRow> = self.rows(doing, found).await?;
        let seqs: Vec<i64> = rows.iter().map(|row| row.event_seq).collect();
        let columns = EventRow::columns(with_data);
        let mut events = HashMap::new();
        for page in seqs.chunks(IN_ONE_LIST) {
            let mut found =
                Statement::new(&format!("SELECT {columns} FROM events e WHERE seq IN ("));
            found.bind_list(page.iter().copied()).push(")");
            let read: Vec<EventRecord> = self.find::<EventRow, _>(doing, found).await?;
            events.extend(read.into_iter().map(|event| (event.cursor.seq, event)));
        }
        let mut owed = Vec::new();
        for row in rows {
            // Removed in the meantime, because it is too old.
            let Some(event) = events.get(&row.event_seq) else {
                continue;
            };
            owed.push(OwedEvent {
                event: event.clone(),
                delivery: Some(row.try_into()?),
            });
        }
        Ok(owed)
    }

    /// The deliveries of events, by the numbers of these.
    async fn deliveries_of(
        &self,
        doing: &'static str,
        events: &[EventRecord],
    ) -> Result<HashMap<i64, Vec<DeliveryRecord>>, HistoryFault> {
        let columns = DeliveryRow::columns();
        let mut deliveries: HashMap<i64, Vec<DeliveryRecord>> = HashMap::new();
        for page in events.chunks(IN_ONE_LIST) {
            let mut found = Statement::new(&format!(
                "SELECT {columns} FROM deliveries d WHERE event_seq IN ("
            ));
            found.bind_list(page.iter().map(|event| event.cursor.seq));
            found.push(") ORDER BY endpoint");
            for row in self.rows::<DeliveryRow>(doing, found).await? {
                let of_event = deliveries.entry(row.event_seq).or_default();
                of_event.push(row.try_into()?);
            }
        }
        Ok(deliveries)
    }

    pub(crate) async fn find<R, T>(
        &self,
        doing: &'static str,
        statement: Statement,
    ) -> Result<Vec<T>, HistoryFault>
    where
        R: Row,
        T: TryFrom<R, Error = HistoryFault>,
    {
        let rows: Vec<R> = self.rows(doing, statement).await?;
        rows.into_iter().map(T::try_from).collect()
    }

    pub(crate) async fn rows<R: Row>(
        &self,
        doing: &'static str,
        statement: Statement,
    ) -> Result<Vec<R>, HistoryFault> {
        let store = self.store().await?;
        store
            .fetch(statement)
            .await
            .map_err(HistoryFault::query(doing))
    }

    pub(crate) async fn store(&self) -> Result<&Store, HistoryFault> {
        let open = || Store::open(&self.0.location);
        self.0.store.get_or_try_init(open).await
    }
}

/// How many values one list of a statement has at most.
const IN_ONE_LIST: usize = 500;
