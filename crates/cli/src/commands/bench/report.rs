//! What the runs came to: medians, ratios, and how they are shown.

use std::io;

use serde_json::{Value, json};

use super::load::Run;
use crate::{
    OutputFormat,
    output::{Column, Objects, Row, print, table, to_json},
};

/// What Fanfare's rate should be at least, as a share of the skeleton's.
const GOAL: f64 = 0.6;

/// What a skeleton of this shape came to on the quiet two-core machine that Fanfare is developed on, with
/// RabbitMQ 4.0.5 and 3.10.8: a rate far below says that this machine is slower, or busy.
const RECORDED_SKELETON: [u32; 2] = [9_600, 11_800];

/// A run of each, one right after the other.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pair {
    pub(super) number: u32,
    pub(super) skeleton: Run,
    pub(super) fanfare: Run,
}

impl Pair {
    /// Fanfare's rate as a share of the skeleton's.
    pub(super) fn ratio(&self) -> f64 {
        self.fanfare.rate / self.skeleton.rate
    }
}

impl Row for Pair {
    const COLUMNS: &'static [Column<Self>] = &[
        Column {
            name: "pair",
            value: |pair| pair.number.into(),
        },
        Column {
            name: "skeleton_per_second",
            value: |pair| rounded(pair.skeleton.rate, 0),
        },
        Column {
            name: "fanfare_per_second",
            value: |pair| rounded(pair.fanfare.rate, 0),
        },
        Column {
            name: "ratio",
            value: |pair| rounded(pair.ratio(), 2),
        },
        Column {
            name: "skeleton_cpu_us",
            value: |pair| rounded(pair.skeleton.cpu_micros, 0),
        },
        Column {
            name: "fanfare_cpu_us",
            value: |pair| rounded(pair.fanfare.cpu_micros, 0),
        },
    ];
}

/// Everything that was measured.
pub(super) struct Report {
    /// Never empty.
    pub(super) pairs: Vec<Pair>,
    /// From publish to arrival, in microseconds. Never empty.
    pub(super) latencies: Vec<u64>,
}

impl Report {
    pub(super) fn print(self, format: OutputFormat) -> io::Result<()> {
        match format {
            OutputFormat::Table => print(&self.text()),
            OutputFormat::Json => print(&to_json(&self.json())),
        }
    }

    fn text(&self) -> String {
        let [from, to] = RECORDED_SKELETON;
        let ratio = self.spread(Pair::ratio);
        let met = if ratio.median >= GOAL {
            "met"
        } else {
            "not met"
        };
        let rate = |spread: Spread| {
            let Spread {
                median,
                least,
                most,
            } = spread;
            format!("{median:.0} per second ({least:.0}–{most:.0})")
        };
        let millis = |share| millis(percentile(&self.latencies, share));
        [
            table(&self.pairs),
            String::new(),
            format!(
                "skeleton  {}; recorded on the development machine: {from}–{to}",
                rate(self.spread(|pair| pair.skeleton.rate))
            ),
            format!("fanfare   {}", rate(self.spread(|pair| pair.fanfare.rate))),
            format!(
                "ratio     {:.2} ({:.2}–{:.2}), goal {GOAL}: {met}",
                ratio.median, ratio.least, ratio.most
            ),
            format!(
                "latency   {:.1} ms median, {:.1} ms p99",
                millis(50),
                millis(99)
            ),
        ]
        .join("\n")
    }

    fn json(&self) -> Value {
        let ratio = self.spread(Pair::ratio);
        json!({
            "runs": serde_json::to_value(Objects(&self.pairs)).expect("rows are JSON"),
            "skeleton_per_second": self.spread(|pair| pair.skeleton.rate).json(0),
            "recorded_skeleton_per_second": RECORDED_SKELETON,
            "fanfare_per_second": self.spread(|pair| pair.fanfare.rate).json(0),
            "ratio": ratio.json(3),
            "goal": GOAL,
            "goal_met": ratio.median >= GOAL,
            "latency_ms": {
                "p50": rounded(millis(percentile(&self.latencies, 50)), 2),
                "p99": rounded(millis(percentile(&self.latencies, 99)), 2),
            },
        })
    }

    fn spread(&self, value: impl Fn(&Pair) -> f64) -> Spread {
        Spread::of(self.pairs.iter().map(value).collect())
    }
}

/// How values scatter.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Spread {
    median: f64,
    least: f64,
    most: f64,
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Self {
        values.sort_unstable_by(f64::total_cmp);
        let (lower, upper) = (values[(values.len() - 1) / 2], values[values.len() / 2]);
        Self {
            median: f64::midpoint(lower, upper),
            least: values[0],
            most: values[values.len() - 1],
        }
    }

    fn json(self, digits: i32) -> Value {
        json!({
            "median": rounded(self.median, digits),
            "least": rounded(self.least, digits),
            "most": rounded(self.most, digits),
        })
    }
}

/// The value that `share` of a hundred values do not exceed.
fn percentile(values: &[u64], share: usize) -> u64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    sorted[(sorted.len() * share).div_ceil(100).max(1) - 1]
}

fn millis(micros: u64) -> f64 {
    std::time::Duration::from_micros(micros).as_secs_f64() * 1e3
}

fn rounded(value: f64, digits: i32) -> Value {
    let scale = 10_f64.powi(digits);
    let value = (value * scale).round() / scale;
    if digits == 0 {
        #[expect(clippy::cast_possible_truncation, reason = "rates are far below 2^63")]
        let whole = value as i64;
        whole.into()
    } else {
        value.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_of_values_lies_between_the_two_in_the_middle() {
        for (values, median, least, most) in [
            (vec![3.0], 3.0, 3.0, 3.0),
            (vec![3.0, 1.0], 2.0, 1.0, 3.0),
            (vec![5.0, 1.0, 2.0], 2.0, 1.0, 5.0),
            (vec![4.0, 1.0, 2.0, 9.0], 3.0, 1.0, 9.0),
        ] {
            let expected = Spread {
                median,
                least,
                most,
            };
            assert_eq!(Spread::of(values.clone()), expected, "{values:?}");
        }
    }

    #[test]
    fn a_percentile_is_one_of_the_values() {
        let hundred: Vec<u64> = (1..=100).rev().collect();
        for (values, share, expected) in [
            (&hundred[..], 50, 50),
            (&hundred, 99, 99),
            (&hundred, 100, 100),
            (&[7], 50, 7),
            (&[7, 9], 50, 7),
            (&[7, 9], 99, 9),
        ] {
            assert_eq!(percentile(values, share), expected, "{values:?} {share}");
        }
    }

    fn report(rates: &[(f64, f64)]) -> Report {
        let run = |rate| Run {
            rate,
            cpu_micros: 50.4,
        };
        let pairs = (1..).zip(rates).map(|(number, (skeleton, fanfare))| Pair {
            number,
            skeleton: run(*skeleton),
            fanfare: run(*fanfare),
        });
        Report {
            pairs: pairs.collect(),
            latencies: vec![2500, 3500, 9000],
        }
    }

    #[test]
    fn ratios_are_formed_pair_by_pair() {
        // The ratio of the medians would be 0.7.
        let report = report(&[(10_000.0, 9000.0), (5000.0, 2500.0), (20_000.0, 7000.0)]);
        let json = report.json();
        assert_eq!(
            json["ratio"],
            json!({"median": 0.5, "least": 0.35, "most": 0.9})
        );
        assert_eq!(json["skeleton_per_second"]["median"], 10_000);
        assert_eq!(json["goal_met"], false);
        assert_eq!(json["runs"][1]["fanfare_per_second"], 2500);
        assert_eq!(json["latency_ms"], json!({"p50": 3.5, "p99": 9.0}));
    }

    #[test]
    fn the_text_says_whether_the_goal_is_met() {
        for (fanfare, expected) in [(6000.0, "goal 0.6: met"), (5900.0, "goal 0.6: not met")] {
            let text = report(&[(10_000.0, fanfare)]).text();
            assert!(text.contains(expected), "{text}");
            assert!(text.contains("9600–11800"), "{text}");
        }
    }
}
