//! Where a database is: a SQLite file or a PostgreSQL server. Only the name; opening it is others' work.

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

use serde::{Deserialize, Serialize};
use url::Url;

use crate::Secret;

/// Where a database is. Prints without the password.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub enum DatabaseLocation {
    /// A SQLite file on this machine.
    Sqlite(PathBuf),
    /// A database of a PostgreSQL server.
    Postgres(PostgresUrl),
}

/// A step of the schema of a database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MigrationStep {
    /// Its number.
    pub version: i64,
    /// What it is about.
    pub description: String,
    /// Whether the database has it already.
    pub applied: bool,
}

/// The URL of a PostgreSQL database. Its parts that may hold a password are never printed.
#[derive(Clone, PartialEq)]
pub struct PostgresUrl {
    whole: Secret,
    shown: String,
}

/// Why a text does not say where a database is. Never holds the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "accepted is the path of a SQLite file, or the URL of a PostgreSQL database, such as \
     `postgresql://user:password@host:5432/database`"
)]
pub struct InvalidDatabaseLocation;

impl DatabaseLocation {
    /// The SQLite file, if that is what it is.
    pub fn sqlite_file(&self) -> Option<&Path> {
        match self {
            Self::Sqlite(path) => Some(path),
            Self::Postgres(_) => None,
        }
    }
}

impl PostgresUrl {
    /// The URL with its password, for the one place that connects.
    pub fn expose(&self) -> &str {
        self.whole.expose()
    }
}

impl FromStr for DatabaseLocation {
    type Err = InvalidDatabaseLocation;

    fn from_str(text: &str) -> Result<Self, InvalidDatabaseLocation> {
        let path = match text.split_once(':') {
            Some(("postgres" | "postgresql", _)) => return text.parse().map(Self::Postgres),
            Some(("sqlite", path)) => path.strip_prefix("//").unwrap_or(path),
            // The name of any other database, mistaken for a path, would become a file.
            Some((_, rest)) if rest.starts_with("//") => return Err(InvalidDatabaseLocation),
            Some(_) | None => text,
        };
        if path.is_empty() || path.contains('\0') {
            return Err(InvalidDatabaseLocation);
        }
        Ok(Self::Sqlite(path.into()))
    }
}

impl FromStr for PostgresUrl {
    type Err = InvalidDatabaseLocation;

    fn from_str(text: &str) -> Result<Self, InvalidDatabaseLocation> {
        let url = Url::parse(text).map_err(|_| InvalidDatabaseLocation)?;
        let database = url.path().trim_start_matches('/');
        let speaks_postgres = matches!(url.scheme(), "postgres" | "postgresql");
        let host = url.host_str().filter(|host| !host.is_empty());
        let (true, false, Some(host)) = (speaks_postgres, database.is_empty(), host) else {
            return Err(InvalidDatabaseLocation);
        };
        let user = match url.username() {
            "" => String::new(),
            user => format!("{user}@"),
        };
        let port = url
            .port()
            .map_or_else(String::new, |port| format!(":{port}"));
        // The query may hold a password too, or the path of a key.
        let shown = format!("postgresql://{user}{host}{port}/{database}");
        Ok(Self {
            whole: Secret::new(text.to_owned()),
            shown,
        })
    }
}

impl TryFrom<String> for DatabaseLocation {
    type Error = InvalidDatabaseLocation;

    fn try_from(text: String) -> Result<Self, InvalidDatabaseLocation> {
        text.parse()
    }
}

impl From<PathBuf> for DatabaseLocation {
    fn from(path: PathBuf) -> Self {
        Self::Sqlite(path)
    }
}

impl From<DatabaseLocation> for String {
    fn from(location: DatabaseLocation) -> Self {
        location.to_string()
    }
}

impl fmt::Display for DatabaseLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => path.display().fmt(f),
            Self::Postgres(url) => f.write_str(&url.shown),
        }
    }
}

impl fmt::Debug for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, kind_and_shown: Option<(&str, &str)>) {
        let parsed = text.parse::<DatabaseLocation>().ok();
        let kind = |location: &DatabaseLocation| match location {
            DatabaseLocation::Sqlite(_) => "sqlite",
            DatabaseLocation::Postgres(_) => "postgres",
        };
        let found = parsed.map(|location| (kind(&location), location.to_string()));
        let expected = kind_and_shown.map(|(kind, shown)| (kind, shown.to_owned()));
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn a_database_is_a_file_or_a_postgresql_url() {
        for path in ["fanfare.db", "/var/lib/fanfare/a b.db", "a:b.db"] {
            check(path, Some(("sqlite", path)));
        }
        check("sqlite:x/y.db", Some(("sqlite", "x/y.db")));
        check("sqlite:///x/y.db", Some(("sqlite", "/x/y.db")));
        for (url, shown) in [
            ("postgres://db/fanfare", "postgresql://db/fanfare"),
            (
                "postgresql://u:hush@db.example:6432/f?sslmode=require&password=hush",
                "postgresql://u@db.example:6432/f",
            ),
        ] {
            check(url, Some(("postgres", shown)));
        }
        for bad in [
            "",
            "sqlite:",
            "mysql://db/fanfare",
            "postgres://db",
            "postgres:///fanfare",
            "postgresql:fanfare",
        ] {
            check(bad, None);
        }
    }

    #[test]
    fn a_password_is_never_printed() {
        let text = "postgresql://u:hush@db/f?password=hush";
        let location: DatabaseLocation = text.parse().unwrap();
        let printed = format!("{location} {location:?}");
        assert!(!printed.contains("hush"), "{printed}");
        let DatabaseLocation::Postgres(url) = &location else {
            panic!("{location}");
        };
        assert_eq!(url.expose(), text);
        let written = serde_json::to_string(&location).unwrap();
        assert_eq!(written, r#""postgresql://u@db/f""#);
        assert!(
            serde_json::from_str::<DatabaseLocation>(r#""ftp://hush/x""#)
                .is_err_and(|fault| !fault.to_string().contains("hush"))
        );
    }
}
