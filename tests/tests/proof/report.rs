//! What a proof leaves behind: a table for people, JSON for everyone else.

use std::{fs, path::PathBuf, str::FromStr};

use serde_json::Value;

/// Writes JSON to `target/proof/NAME.json`.
pub(crate) fn write(name: &str, report: &Value) {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/proof");
    fs::create_dir_all(&directory).unwrap();
    let path = directory.join(format!("{name}.json"));
    fs::write(&path, format!("{report:#}\n")).unwrap();
    println!("written to target/proof/{name}.json");
}

/// A parameter of a proof from the environment, so that one may try it small.
#[expect(
    clippy::disallowed_methods,
    reason = "whoever starts a proof says by environment how long it is"
)]
pub(crate) fn parameter<T: FromStr>(name: &str, default: T) -> T {
    let Ok(text) = std::env::var(name) else {
        return default;
    };
    let parsed = text.parse();
    parsed.unwrap_or_else(|_| panic!("{name} is `{text}`, which is not a value for it"))
}

/// The value below which this share of the sorted values lies.
pub(crate) fn quantile(sorted: &[f64], share: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    let index = (last as f64 * share).round() as usize;
    sorted.get(index).copied().unwrap_or(f64::NAN)
}

/// The middle one of some values.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    quantile(&values, 0.5)
}
