//! Reads the parameters of a search, and says what is wrong with one in terms of its name.

use std::{fmt::Display, str::FromStr};

use fanfare_journal::{InvalidCursor, OutcomeFilter, StateFilter};
use fanfare_model::Timestamp;

use crate::problem::{Code, Problem};

/// The parameters of a query, each known and given once.
pub(crate) struct Parameters<'p>(&'p [(String, String)]);

impl<'p> Parameters<'p> {
    /// Refuses parameters that nobody reads, and ones that are given twice.
    pub(crate) fn of(
        given: &'p [(String, String)],
        known: &[&'static str],
    ) -> Result<Self, Problem> {
        for (index, (name, _)) in given.iter().enumerate() {
            if !known.contains(&name.as_str()) {
                let detail = format!("accepted parameters are `{}`", known.join("`, `"));
                return Err(Problem::at(name, Code::InvalidRequest, &detail));
            }
            if given[..index].iter().any(|(other, _)| other == name) {
                let detail = format!("`{name}` is given twice");
                return Err(Problem::at(name, Code::InvalidRequest, &detail));
            }
        }
        Ok(Self(given))
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Refuses a parameter that has no place beside others.
    pub(crate) fn refuse(&self, name: &str, why: &str) -> Result<(), Problem> {
        if self.has(name) {
            let detail = format!("`{name}` {why}");
            return Err(Problem::at(name, Code::InvalidRequest, &detail));
        }
        Ok(())
    }

    pub(crate) fn text(&self, name: &str) -> Option<String> {
        self.get(name).map(str::to_owned)
    }

    pub(crate) fn value<T: FromStr<Err: Display>>(&self, name: &str) -> Result<Option<T>, Problem> {
        self.read(name, |fault: &T::Err| fault.to_string())
    }

    pub(crate) fn moment(&self, name: &str) -> Result<Option<Timestamp>, Problem> {
        let detail = format!("`{name}` must be an RFC 3339 time such as 2026-11-23T15:04:05Z");
        self.read(name, |_: &jiff::Error| detail.clone())
    }

    pub(crate) fn cursor<T: FromStr<Err = InvalidCursor>>(
        &self,
        name: &str,
    ) -> Result<Option<T>, Problem> {
        let detail = format!("`{name}` must be the `next` of an earlier answer");
        self.read(name, |_: &InvalidCursor| detail.clone())
    }

    pub(crate) fn limit(&self, usual: u32, most: u32) -> Result<u32, Problem> {
        let detail = format!("`limit` must be a number from 1 to {most}");
        let given = self.read("limit", |_: &std::num::ParseIntError| detail.clone())?;
        let limit = given.unwrap_or(usual);
        if (1..=most).contains(&limit) {
            Ok(limit)
        } else {
            Err(Problem::at("limit", Code::InvalidRequest, &detail))
        }
    }

    fn get(&self, name: &str) -> Option<&'p str> {
        let found = self.0.iter().find(|(given, _)| given == name)?;
        Some(&found.1)
    }

    fn read<T: FromStr>(
        &self,
        name: &str,
        detail: impl FnOnce(&T::Err) -> String,
    ) -> Result<Option<T>, Problem> {
        let Some(text) = self.get(name) else {
            return Ok(None);
        };
        text.parse()
            .map(Some)
            .map_err(|fault| Problem::at(name, Code::InvalidRequest, &detail(&fault)))
    }
}

/// The states that `state` asks for; none when it is not given.
pub(crate) fn states(parameters: &Parameters<'_>) -> Result<Vec<StateFilter>, Problem> {
    let Some(text) = parameters.text("state") else {
        return Ok(Vec::new());
    };
    StateFilter::parse_list(&text)
        .map_err(|fault| Problem::at("state", Code::InvalidRequest, &fault.to_string()))
}

/// The outcome that `outcome` asks for.
pub(crate) fn outcome(parameters: &Parameters<'_>) -> Result<Option<OutcomeFilter>, Problem> {
    parameters.value("outcome")
}
