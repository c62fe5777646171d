//! What it costs to hold an event against the filters of a tenant's endpoints, as a router does for each event.
//!
//! Prints a table, and below it the same in one line of JSON. Each figure is the median of its rounds with the least and
//! the most; the sizes take turns, so that whatever else the machine does meets all of them.

use std::{
    hint::black_box,
    io::{self, Write as _},
    time::{Duration, Instant},
};

use fanfare_model::{Endpoint, Event, EventView};
use serde_json::{Value, json};

const ROUNDS: usize = 15;
/// How long one size is measured in one round.
const AT_LEAST: Duration = Duration::from_millis(100);
const SIZES: [usize; 3] = [1, 100, 1000];

/// Filters as people write them. Of ten events that match some, none matches all.
const FILTERS: [&str; 5] = [
    r#"{"data": {"currency": ["EUR", "USD"]}}"#,
    r#"{"data": {"amount": [{"numeric": [">=", 100, "<", 5000]}]}}"#,
    r#"{"data": {"customer": {"email": [{"suffix": "@example.com"}]}, "coupon": [{"exists": false}]}}"#,
    r#"{"subject": [{"prefix": "order-"}], "data": {"status": [{"anything-but": ["refunded"]}]}}"#,
    r#"{"data": {"$or": [{"priority": [{"equals-ignore-case": "high"}]}, {"items": {"sku": ["A-1"]}}]}}"#,
];

fn event() -> Event {
    let items: Vec<Value> = (0..8)
        .map(|n| json!({"sku": format!("B-{n}"), "count": n, "price": 1999}))
        .collect();
    let data = json!({
        "id": "ord_81", "status": "paid", "currency": "EUR", "amount": 1250, "priority": "normal", "items": items,
        "customer": {"id": "cus_7", "name": "Ada Okafor", "email": "ada@example.com"},
        "note": "x".repeat(400),
    });
    let data = data.to_string();
    let mut event = Event::for_tests("t", "/shop", "1", "order.paid", data.as_bytes());
    event.subject = Some("order-81".to_owned());
    event
}

fn endpoints(count: usize) -> Vec<Endpoint> {
    let endpoint = |n: usize| {
        let mut endpoint = Endpoint::for_tests(n as u128, "t", "https://example.com/");
        let filter = FILTERS[n % FILTERS.len()].parse();
        endpoint.filter = Some(filter.expect("the filters are valid"));
        endpoint
    };
    (0..count).map(endpoint).collect()
}

/// How many nanoseconds one event takes.
#[expect(clippy::disallowed_methods, reason = "a bench is about time")]
fn measure(event: &Event, endpoints: &[Endpoint]) -> f64 {
    let (start, mut events) = (Instant::now(), 0_u32);
    while start.elapsed() < AT_LEAST {
        for _ in 0..10 {
            // Parsed for each event, and then shared by all of its endpoints.
            let content = EventView::new(event);
            let wanting = endpoints.iter().filter(|one| one.wants_content(&content));
            black_box(wanting.count());
        }
        events += 10;
    }
    start.elapsed().as_nanos() as f64 / f64::from(events)
}

/// The least, the median and the most of some values.
fn spread(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    [
        values[0],
        values[values.len() / 2],
        values[values.len() - 1],
    ]
}

/// What one size came to.
struct Row {
    endpoints: usize,
    /// In nanoseconds.
    for_an_event: [f64; 3],
    /// The same, shared out among the endpoints.
    for_a_match: [f64; 3],
    /// Compared with one endpoint in the same round.
    times_one: [f64; 3],
}

impl Row {
    fn new(endpoints: usize, rounds: &[f64], alone: &[f64]) -> Self {
        let shared = rounds.iter().map(|value| value / endpoints as f64);
        let ratios = rounds.iter().zip(alone).map(|(all, one)| all / one);
        Self {
            endpoints,
            for_an_event: spread(rounds.to_vec()),
            for_a_match: spread(shared.collect()),
            times_one: spread(ratios.collect()),
        }
    }

    fn line(&self) -> String {
        let shown = |values: [f64; 3], unit: f64, digits: usize| {
            let [least, median, most] = values.map(|value| value / unit);
            format!("{median:.digits$} ({least:.digits$} to {most:.digits$})")
        };
        format!(
            "{:>9}  {:>28}  {:>22}  {:>26}",
            self.endpoints,
            shown(self.for_an_event, 1000.0, 2),
            shown(self.for_a_match, 1.0, 0),
            shown(self.times_one, 1.0, 1)
        )
    }

    fn json(&self) -> Value {
        json!({
            "endpoints": self.endpoints, "nanoseconds_for_an_event": self.for_an_event,
            "nanoseconds_for_a_match": self.for_a_match, "times_one_endpoint": self.times_one,
        })
    }
}

fn main() -> io::Result<()> {
    let event = event();
    let sizes = SIZES.map(|size| (size, endpoints(size)));
    let mut rounds = [const { Vec::new() }; SIZES.len()];
    for _ in 0..ROUNDS {
        for (values, (_, endpoints)) in rounds.iter_mut().zip(&sizes) {
            values.push(measure(&event, endpoints));
        }
    }
    let rows = SIZES.iter().zip(&rounds);
    let rows = rows.map(|(size, values)| Row::new(*size, values, &rounds[0]));
    let rows: Vec<_> = rows.collect();
    let bytes = event.data.map_or(0, |data| data.len());
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "an event of {bytes} bytes; median (least to most) of {ROUNDS} rounds\n"
    )?;
    let heads = [
        "endpoints",
        "µs for an event",
        "ns for a match",
        "times one endpoint",
    ];
    let [endpoints, event, each, ratio] = heads;
    writeln!(out, "{endpoints:>9}  {event:>28}  {each:>22}  {ratio:>26}")?;
    for row in &rows {
        writeln!(out, "{}", row.line())?;
    }
    let rows: Vec<_> = rows.iter().map(Row::json).collect();
    writeln!(
        out,
        "\n{}",
        json!({"rounds": ROUNDS, "least_median_most": rows})
    )
}
