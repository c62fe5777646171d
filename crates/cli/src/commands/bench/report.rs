//! What was measured: each figure with its spread over the rounds, and whether its goal is met.

use std::io;

use serde_json::{Value, json};

use crate::{
    OutputFormat,
    output::{Column, Objects, Row, print, table, to_json},
};

/// What a skeleton of this shape came to on the quiet two-core machine that Fanfare is developed on, with
/// RabbitMQ 4.0.5 and 3.10.8: a rate far below says that this machine is slower, or busy.
const RECORDED_SKELETON: [u32; 2] = [9_600, 11_800];

/// Something that is measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Measure {
    /// What is run.
    pub(super) scenario: &'static str,
    /// What is read off it.
    pub(super) name: &'static str,
    pub(super) unit: &'static str,
    pub(super) goal: Option<Goal>,
}

/// What a figure should come to, judged by its median.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Goal {
    AtLeast(f64),
    AtMost(f64),
}

impl Measure {
    pub(super) const fn new(
        scenario: &'static str,
        name: &'static str,
        unit: &'static str,
    ) -> Self {
        Self {
            scenario,
            name,
            unit,
            goal: None,
        }
    }

    pub(super) const fn at_least(self, goal: f64) -> Self {
        let goal = Some(Goal::AtLeast(goal));
        Self { goal, ..self }
    }

    pub(super) const fn at_most(self, goal: f64) -> Self {
        let goal = Some(Goal::AtMost(goal));
        Self { goal, ..self }
    }
}

/// A measure and its values, one for each round; never empty.
#[derive(Debug)]
struct Figure {
    measure: Measure,
    values: Vec<f64>,
}

impl Figure {
    fn spread(&self) -> Spread {
        Spread::of(self.values.clone())
    }

    fn is_met(&self) -> Option<bool> {
        let median = self.spread().median;
        self.measure.goal.map(|goal| match goal {
            Goal::AtLeast(least) => median >= least,
            Goal::AtMost(most) => median <= most,
        })
    }
}

impl Row for Figure {
    const COLUMNS: &'static [Column<Self>] = &[
        Column {
            name: "scenario",
            value: |figure| figure.measure.scenario.into(),
        },
        Column {
            name: "figure",
            value: |figure| figure.measure.name.into(),
        },
        Column {
            name: "unit",
            value: |figure| figure.measure.unit.into(),
        },
        Column {
            name: "median",
            value: |figure| rounded(figure.spread().median),
        },
        Column {
            name: "least",
            value: |figure| rounded(figure.spread().least),
        },
        Column {
            name: "most",
            value: |figure| rounded(figure.spread().most),
        },
        Column {
            name: "goal",
            value: |figure| match figure.measure.goal {
                None => Value::Null,
                Some(Goal::AtLeast(least)) => format!("≥ {least}").into(),
                Some(Goal::AtMost(most)) => format!("≤ {most}").into(),
            },
        },
        Column {
            name: "met",
            value: |figure| figure.is_met().into(),
        },
    ];
}

/// Everything that was measured, in the order in which it was measured first.
#[derive(Debug, Default)]
pub(super) struct Report(Vec<Figure>);

impl Report {
    /// Takes in the value of one round.
    pub(super) fn add(&mut self, measure: Measure, value: f64) {
        let known = self.0.iter_mut().find(|figure| figure.measure == measure);
        match known {
            Some(figure) => figure.values.push(value),
            None => self.0.push(Figure {
                measure,
                values: vec![value],
            }),
        }
    }

    pub(super) fn print(&self, format: OutputFormat) -> io::Result<()> {
        let [from, to] = RECORDED_SKELETON;
        match format {
            OutputFormat::Table => print(&format!(
                "{}\n\nmedian, least and most of the rounds; a skeleton came to {from}–{to} per second on the development machine",
                table(&self.0)
            )),
            OutputFormat::Json => print(&to_json(&self.json())),
        }
    }

    fn json(&self) -> Value {
        json!({
            "figures": serde_json::to_value(Objects(&self.0)).expect("rows are JSON"),
            "values": self.0.iter().map(|figure| json!({
                "scenario": figure.measure.scenario,
                "figure": figure.measure.name,
                "values": figure.values,
            })).collect::<Vec<_>>(),
            "recorded_skeleton_per_second": RECORDED_SKELETON,
        })
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
}

/// The value that `share` of a hundred values do not exceed, in milliseconds.
pub(super) fn percentile_ms(micros: &[u64], share: usize) -> f64 {
    let mut sorted = micros.to_vec();
    sorted.sort_unstable();
    let micros = sorted[(sorted.len() * share).div_ceil(100).max(1) - 1];
    std::time::Duration::from_micros(micros).as_secs_f64() * 1e3
}

/// Three digits say all that a measurement of this kind can.
fn rounded(value: f64) -> Value {
    if value.abs() >= 100.0 {
        #[expect(clippy::cast_possible_truncation, reason = "rates are far below 2^63")]
        let whole = value.round() as i64;
        whole.into()
    } else {
        let scale = if value.abs() >= 10.0 { 10.0 } else { 100.0 };
        ((value * scale).round() / scale).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATIO: Measure = Measure::new("a", "ratio", "").at_least(0.8);
    const COST: Measure = Measure::new("a", "cost", "µs").at_most(100.0);

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
        let hundred: Vec<u64> = (1..=100).rev().map(|n| n * 1000).collect();
        for (values, share, expected) in [
            (&hundred[..], 50, 50.0),
            (&hundred, 99, 99.0),
            (&hundred, 100, 100.0),
            (&[7000], 50, 7.0),
            (&[7000, 9000], 50, 7.0),
            (&[7000, 9000], 99, 9.0),
        ] {
            let found = percentile_ms(values, share);
            assert!((found - expected).abs() < 1e-9, "{values:?} {share}");
        }
    }

    #[test]
    fn a_goal_is_judged_by_the_median() {
        for (measure, values, met) in [
            (RATIO, [0.9, 0.5, 0.81], true),
            (RATIO, [0.9, 0.5, 0.79], false),
            (COST, [500.0, 100.0, 3.0], true),
            (COST, [500.0, 101.0, 3.0], false),
        ] {
            let mut report = Report::default();
            for value in values {
                report.add(measure, value);
            }
            assert_eq!(report.json()["figures"][0]["met"], met, "{values:?}");
        }
    }

    #[test]
    fn rounds_add_up_to_one_row_each() {
        let mut report = Report::default();
        for (ratio, cost) in [(0.8, 1234.4), (1.25, 12.34), (0.5, 56.78)] {
            report.add(RATIO, ratio);
            report.add(COST, cost);
        }
        let json = report.json();
        assert_eq!(json["figures"].as_array().unwrap().len(), 2);
        assert_eq!(json["figures"][0]["median"], 0.8);
        assert_eq!(json["figures"][0]["goal"], "≥ 0.8");
        assert_eq!(json["figures"][1]["most"], 1234);
        assert_eq!(json["figures"][1]["least"], 12.3);
        assert_eq!(json["values"][0]["values"], json!([0.8, 1.25, 0.5]));
    }
}
