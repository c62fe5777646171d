//! Turns what is looked for into statements. Pure.
//!
//! A search gives its results in the order of time, a page at a time. Attempts are looked up for each class
//! of outcome, deliveries for each state, and what was found is merged: so every page is read from one
//! place of an index, however rare what is looked for is.

use fanfare_model::{
    DeliveryId, DeliveryState, EndpointId, EventType, EventTypePattern, FailureClass, TenantId,
    Timestamp,
};

use crate::{
    Cursor, FeedCursor,
    rows::{DeliveryRow, EventRow, NewAttempt, SUCCESS},
    statement::{Statement, Value},
};

/// Which attempts to find. What is not set restricts nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AttemptFilter {
    /// Of this tenant.
    pub tenant: Option<TenantId>,
    /// To this endpoint.
    pub endpoint: Option<EndpointId>,
    /// Of events of this type.
    pub event_type: Option<EventType>,
    /// With such an outcome.
    pub outcome: Option<OutcomeFilter>,
    /// Of this delivery.
    pub delivery: Option<DeliveryId>,
    /// Of events with this id.
    pub event_id: Option<String>,
    /// Started at or after this.
    pub from: Option<Timestamp>,
    /// Started before this.
    pub to: Option<Timestamp>,
}

/// Outcomes of attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OutcomeFilter {
    /// The receiver accepted it.
    Succeeded,
    /// It did not, for whatever reason.
    Failed,
    /// It did not, for this reason.
    FailedWith(FailureClass),
}

/// Which events to find. What is not set restricts nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventFilter {
    /// Of this tenant.
    pub tenant: Option<TenantId>,
    /// Of this type.
    pub event_type: Option<EventType>,
    /// From this source.
    pub source: Option<String>,
    /// With this id.
    pub id: Option<String>,
    /// Routed at or after this.
    pub from: Option<Timestamp>,
    /// Routed before this.
    pub to: Option<Timestamp>,
}

/// Which deliveries to find. What is not set restricts nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeliveryFilter {
    /// Of this tenant.
    pub tenant: Option<TenantId>,
    /// To this endpoint.
    pub endpoint: Option<EndpointId>,
    /// Of events whose type one of these matches; of any, if there is none.
    pub event_types: Vec<EventTypePattern>,
    /// Standing in one of these ways; in any, if there is none.
    pub states: Vec<StateFilter>,
    /// Of events routed at or after this.
    pub from: Option<Timestamp>,
    /// Of events routed before this.
    pub to: Option<Timestamp>,
    /// Replayed, and heard of at or after this.
    pub replayed_since: Option<Timestamp>,
}

/// How a delivery stands, to be looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StateFilter {
    /// Routed or replayed, and nothing else is known of it.
    Owed,
    /// Failed, and to be tried again.
    Retrying,
    /// The receiver has it.
    Delivered,
    /// Given up on.
    DeadLettered,
    /// Not owed any more.
    Discarded,
    /// Open, and what became of it may not have been recorded.
    Unknown,
}

impl StateFilter {
    /// Every way in which a delivery can stand.
    pub const ALL: [Self; 6] = [
        Self::Owed,
        Self::Retrying,
        Self::Delivered,
        Self::DeadLettered,
        Self::Discarded,
        Self::Unknown,
    ];

    /// What a receiver does not have and will not get by itself, as far as is known.
    pub const MISSED: [Self; 3] = [Self::DeadLettered, Self::Discarded, Self::Unknown];

    /// The name, as [`DeliveryState::name`] has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Owed => "owed",
            Self::Retrying => "retrying",
            Self::Delivered => "delivered",
            Self::DeadLettered => "dead_lettered",
            Self::Discarded => "discarded",
            Self::Unknown => DeliveryState::Unknown.name(),
        }
    }

    /// The stored states that may look so, and what must hold besides.
    fn stored(self) -> (&'static [&'static str], &'static str) {
        match self {
            Self::Owed => (&["owed"], KNOWN),
            Self::Retrying => (&["retrying"], KNOWN),
            Self::Delivered => (&["delivered"], ""),
            Self::DeadLettered => (&["dead_lettered"], ""),
            Self::Discarded => (&["discarded"], ""),
            Self::Unknown => (&["owed", "retrying"], NOT_KNOWN),
        }
    }
}

const KNOWN: &str = " AND d.is_told = 1 AND d.due_at > \
    COALESCE((SELECT MAX(to_at) FROM gaps WHERE hides_outcomes = 1), -1)";
const NOT_KNOWN: &str = " AND (d.is_told = 0 OR d.due_at <= \
    COALESCE((SELECT MAX(to_at) FROM gaps WHERE hides_outcomes = 1), -1))";

/// A page of what is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page<C = Cursor> {
    /// What follows this; from the beginning, if it is not set.
    pub after: Option<C>,
    /// At most this many.
    pub limit: u32,
}

/// In which order time goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    NewestFirst,
    OldestFirst,
}

impl Order {
    fn word(self) -> &'static str {
        match self {
            Self::NewestFirst => "DESC",
            Self::OldestFirst => "ASC",
        }
    }

    fn comparison(self) -> &'static str {
        match self {
            Self::NewestFirst => "<",
            Self::OldestFirst => ">",
        }
    }
}

/// A statement whose conditions are shared by its parts: the values are numbered once.
struct Conditions {
    statement: Statement,
}

impl Conditions {
    fn new() -> Self {
        Self {
            statement: Statement::default(),
        }
    }

    fn and(&mut self, sql: &str, value: impl Into<Value>) {
        self.statement.push(" AND ").push(sql).bind(value);
    }

    fn between(&mut self, column: &str, from: Option<Timestamp>, to: Option<Timestamp>) {
        if let Some(from) = from {
            self.and(&format!("{column} >= "), from.as_microsecond());
        }
        if let Some(to) = to {
            self.and(&format!("{column} < "), to.as_microsecond());
        }
    }

    fn after(&mut self, table: &str, place: &[&str], order: Order, cursor: Option<Cursor>) {
        let Some(Cursor { at, seq, endpoint }) = cursor else {
            return;
        };
        let mut values: Vec<Value> = vec![at.into(), seq.into()];
        values.extend(endpoint.as_ref().map(|id| id.as_bytes().into()));
        // A cursor of another search may be longer or shorter; what both have is compared.
        values.truncate(place.len());
        let columns: Vec<_> = place
            .iter()
            .take(values.len())
            .map(|column| format!("{table}.{column}"))
            .collect();
        let (columns, comparison) = (columns.join(", "), order.comparison());
        self.statement
            .push(&format!(" AND ({columns}) {comparison} ("))
            .bind_list(values)
            .push(")");
    }
}

/// The columns by which events and attempts are ordered, and deliveries, of which an event has several.
const PLACE: [&str; 2] = ["at", "seq"];
const PLACE_OF_DELIVERY: [&str; 3] = ["at", "event_seq", "endpoint"];

/// The attempts that match, newest first.
pub(crate) fn attempts(filter: &AttemptFilter, page: Page) -> Statement {
    let mut conditions = Conditions::new();
    let by_event = filter.delivery.is_some() || filter.event_id.is_some();
    if let Some(delivery) = filter.delivery {
        let of_event = "a.event_seq = (SELECT event_seq FROM deliveries WHERE id = ";
        conditions.and(of_event, delivery.as_bytes());
        conditions.statement.push(")");
        conditions.and("a.delivery = ", delivery.as_bytes());
    }
    if let Some(id) = &filter.event_id {
        conditions.and(
            "a.event_seq IN (SELECT seq FROM events WHERE id = ",
            id.as_str(),
        );
        conditions.statement.push(")");
    }
    if let Some(endpoint) = filter.endpoint {
        conditions.and("a.endpoint = ", endpoint.as_bytes());
    }
    if let Some(tenant) = &filter.tenant {
        // An endpoint has one tenant, so its own index is the narrower one; this keeps the other out.
        let narrower = filter.endpoint.is_some() || by_event;
        let column = if narrower {
            "(a.tenant || '') = "
        } else {
            "a.tenant = "
        };
        conditions.and(column, tenant.as_str());
    }
    if let Some(event_type) = &filter.event_type {
        conditions.and("a.event_type = ", event_type.as_str());
    }
    conditions.between("a.at", filter.from, filter.to);
    conditions.after("a", &PLACE, Order::NewestFirst, page.after);

    let columns = NewAttempt::COLUMNS.map(|name| format!("a.{name}"));
    let select = format!("SELECT {} FROM attempts a", columns.join(", "));
    let classes = classes(filter.outcome);
    // Looked up by its event, few are left, and the classes need no places of their own.
    let parts = if by_event {
        let listed: Vec<_> = classes.iter().map(|class| format!("'{class}'")).collect();
        let listed = listed.join(", ");
        vec![format!("{select} WHERE (a.class || '') IN ({listed})")]
    } else {
        let part = |class| format!("{select} WHERE a.class = '{class}'");
        classes.into_iter().map(part).collect()
    };
    merged(parts, conditions, &PLACE, Order::NewestFirst, page.limit)
}

fn classes(outcome: Option<OutcomeFilter>) -> Vec<&'static str> {
    let failures = FailureClass::all().map(FailureClass::name);
    match outcome {
        None => failures.chain([SUCCESS]).collect(),
        Some(OutcomeFilter::Succeeded) => vec![SUCCESS],
        Some(OutcomeFilter::Failed) => failures.collect(),
        Some(OutcomeFilter::FailedWith(class)) => vec![class.name()],
    }
}

/// The deliveries that match, in the order in which their events were routed.
pub(crate) fn deliveries(filter: &DeliveryFilter, order: Order, page: Page) -> Statement {
    let mut conditions = of_deliveries(filter);
    conditions.after("d", &PLACE_OF_DELIVERY, order, page.after);
    let select = format!("SELECT {} FROM deliveries d", DeliveryRow::columns());
    let parts = by_state(&select, filter);
    merged(parts, conditions, &PLACE_OF_DELIVERY, order, page.limit)
}

/// How many deliveries match: a row for each state.
pub(crate) fn count(filter: &DeliveryFilter) -> Statement {
    let Conditions { mut statement } = of_deliveries(filter);
    let shared = std::mem::take(&mut statement.sql);
    let parts = by_state("SELECT COUNT(*) AS n FROM deliveries d", filter);
    let parts: Vec<_> = parts.iter().map(|part| format!("{part}{shared}")).collect();
    statement.push(&parts.join(" UNION ALL "));
    statement
}

fn of_deliveries(filter: &DeliveryFilter) -> Conditions {
    let mut conditions = Conditions::new();
    if let Some(endpoint) = filter.endpoint {
        conditions.and("d.endpoint = ", endpoint.as_bytes());
    }
    if let Some(tenant) = &filter.tenant {
        let column = match filter.endpoint {
            Some(_) => "(d.tenant || '') = ",
            None => "d.tenant = ",
        };
        conditions.and(column, tenant.as_str());
    }
    matching(&mut conditions.statement, "d", &filter.event_types);
    conditions.between("d.at", filter.from, filter.to);
    if let Some(since) = filter.replayed_since {
        let since = since.as_microsecond();
        conditions.and("d.replay > 0 AND d.changed_at >= ", since);
    }
    conditions
}

/// A part of a statement for each stored state that is looked for.
fn by_state(select: &str, filter: &DeliveryFilter) -> Vec<String> {
    let states = if filter.states.is_empty() {
        &StateFilter::ALL[..]
    } else {
        &filter.states
    };
    let mut parts = Vec::new();
    for filter in states {
        let (stored, besides) = filter.stored();
        for state in stored {
            let part = format!("{select} WHERE d.state = '{state}'{besides}");
            if !parts.contains(&part) {
                parts.push(part);
            }
        }
    }
    parts
}

/// Restricts a table to events whose type one of the patterns matches.
pub(crate) fn matching(statement: &mut Statement, table: &str, patterns: &[EventTypePattern]) {
    if patterns.is_empty() {
        return;
    }
    statement.push(" AND (");
    for (index, pattern) in patterns.iter().enumerate() {
        if index > 0 {
            statement.push(" OR ");
        }
        match pattern {
            EventTypePattern::Any => {
                statement.push("1 = 1");
            }
            EventTypePattern::Exact(event_type) => {
                statement
                    .push(&format!("{table}.event_type = "))
                    .bind(event_type.as_str());
            }
            EventTypePattern::Family(prefix) => {
                let length = prefix.len();
                statement
                    .push(&format!("substr({table}.event_type, 1, {length}) = "))
                    .bind(prefix.to_string());
            }
        }
    }
    statement.push(")");
}

/// The events that match, in the order in which they were routed.
pub(crate) fn events(filter: &EventFilter, order: Order, page: Page, with_data: bool) -> Statement {
    let mut conditions = Conditions::new();
    if let Some(id) = &filter.id {
        conditions.and("e.id = ", id.as_str());
    }
    if let Some(tenant) = &filter.tenant {
        conditions.and("e.tenant = ", tenant.as_str());
    }
    if let Some(event_type) = &filter.event_type {
        conditions.and("e.event_type = ", event_type.as_str());
    }
    if let Some(source) = &filter.source {
        conditions.and("e.source = ", source.as_str());
    }
    conditions.between("e.at", filter.from, filter.to);
    conditions.after("e", &PLACE, order, page.after);
    let columns = EventRow::columns(with_data);
    let part = format!("SELECT {columns} FROM events e WHERE 1 = 1");
    merged(vec![part], conditions, &PLACE, order, page.limit)
}

/// Events of a tenant in a time, for an endpoint that may not have been owed them, oldest first.
pub(crate) fn events_for(filter: &DeliveryFilter, page: Page) -> Statement {
    let mut conditions = Conditions::new();
    if let Some(tenant) = &filter.tenant {
        conditions.and("e.tenant = ", tenant.as_str());
    }
    matching(&mut conditions.statement, "e", &filter.event_types);
    conditions.between("e.at", filter.from, filter.to);
    conditions.after("e", &PLACE, Order::OldestFirst, page.after);
    let columns = EventRow::columns(true);
    let part = format!("SELECT {columns} FROM events e WHERE 1 = 1");
    let order = Order::OldestFirst;
    merged(vec![part], conditions, &PLACE, order, page.limit)
}

/// The next events of a tenant's feed.
pub(crate) fn feed(tenant: &TenantId, page: Page<FeedCursor>) -> Statement {
    let columns = EventRow::columns(true);
    let mut statement = Statement::new(&format!("SELECT {columns} FROM events e WHERE tenant = "));
    let after = page.after.map_or(0, |cursor| cursor.0);
    statement.bind(tenant.as_str()).push(" AND feed > ");
    statement.bind(after).push(" ORDER BY feed LIMIT ");
    statement.bind(i64::from(page.limit));
    statement
}

/// Merges parts, each of which is ordered and limited by itself.
fn merged(
    parts: Vec<String>,
    conditions: Conditions,
    place: &[&str],
    order: Order,
    limit: u32,
) -> Statement {
    let Conditions { mut statement } = conditions;
    let shared = std::mem::take(&mut statement.sql);
    let by: Vec<_> = place
        .iter()
        .map(|column| format!("{column} {}", order.word()))
        .collect();
    let ordered = format!("ORDER BY {} LIMIT {limit}", by.join(", "));
    for (index, part) in parts.iter().enumerate() {
        if index > 0 {
            statement.push(" UNION ALL ");
        }
        statement.push(&format!(
            "SELECT * FROM ({part}{shared} {ordered}) AS part{index}"
        ));
    }
    if parts.len() > 1 {
        statement.push(" ").push(&ordered);
    }
    statement
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: Page = Page {
        after: Some(Cursor {
            at: 7,
            seq: 8,
            endpoint: None,
        }),
        limit: 5,
    };

    #[test]
    fn attempts_are_merged_from_the_classes_looked_for() {
        let filter = AttemptFilter {
            tenant: Some("t".parse().unwrap()),
            outcome: Some(OutcomeFilter::FailedWith(FailureClass::Timeout)),
            ..AttemptFilter::default()
        };
        let statement = attempts(&filter, PAGE);
        let conditions = "WHERE a.class = 'timeout' AND a.tenant = $1 AND (a.at, a.seq) < ($2, $3) \
                          ORDER BY at DESC, seq DESC LIMIT 5";
        assert!(statement.sql.contains(conditions), "{}", statement.sql);
        assert_eq!(statement.values.len(), 3);

        let of_an_event = AttemptFilter {
            event_id: Some("7".to_owned()),
            ..filter
        };
        let of_an_event = attempts(&of_an_event, PAGE).sql;
        assert!(of_an_event.contains("IN ('timeout')"), "{of_an_event}");

        let all = attempts(&AttemptFilter::default(), PAGE).sql;
        assert_eq!(
            all.matches("UNION ALL").count(),
            FailureClass::all().count()
        );
    }

    #[test]
    fn deliveries_are_merged_from_the_states_looked_for() {
        let of = |states: &[StateFilter]| {
            let filter = DeliveryFilter {
                states: states.to_vec(),
                event_types: vec!["a".parse().unwrap(), "b.*".parse().unwrap()],
                ..DeliveryFilter::default()
            };
            deliveries(&filter, Order::OldestFirst, PAGE).sql
        };
        let missed = of(&StateFilter::MISSED);
        assert_eq!(missed.matches("FROM deliveries").count(), 4);
        let types = "(d.event_type = $1 OR substr(d.event_type, 1, 2) = $2)";
        assert!(missed.contains(types), "{missed}");
        assert!(
            missed.contains("(d.at, d.event_seq) > ($3, $4)"),
            "{missed}"
        );
        assert_eq!(of(&[]).matches("FROM deliveries").count(), 7);
    }

    #[test]
    fn states_are_named_as_deliveries_name_them() {
        let now = Timestamp::UNIX_EPOCH;
        for (filter, state) in [
            (StateFilter::Owed, DeliveryState::Owed),
            (StateFilter::Retrying, DeliveryState::Retrying { at: now }),
            (StateFilter::Delivered, DeliveryState::Delivered),
            (StateFilter::Discarded, DeliveryState::Discarded),
            (StateFilter::Unknown, DeliveryState::Unknown),
        ] {
            assert_eq!(filter.name(), state.name());
        }
    }
}
