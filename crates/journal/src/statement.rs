//! A statement of SQL with its values, in the words that SQLite and PostgreSQL share.

use sqlx::{Arguments, Database, Encode, Type};

/// A value of a column.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Integer(Option<i64>),
    Text(Option<String>),
    Bytes(Option<Vec<u8>>),
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Integer(Some(value))
    }
}

impl From<Option<i64>> for Value {
    fn from(value: Option<i64>) -> Self {
        Self::Integer(value)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Integer(Some(value.into()))
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Some(value.to_owned()).into()
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Some(value).into()
    }
}

impl From<Option<String>> for Value {
    /// PostgreSQL keeps no NUL in a text, and nobody needs one.
    fn from(value: Option<String>) -> Self {
        Self::Text(value.map(|text| match text.contains('\0') {
            true => text.replace('\0', "\u{fffd}"),
            false => text,
        }))
    }
}

impl From<&[u8; 16]> for Value {
    fn from(value: &[u8; 16]) -> Self {
        Self::Bytes(Some(value.to_vec()))
    }
}

impl From<Option<Vec<u8>>> for Value {
    fn from(value: Option<Vec<u8>>) -> Self {
        Self::Bytes(value)
    }
}

/// A statement under construction. Only the program's own text goes into `sql`; whatever comes from
/// outside is a value.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Statement {
    pub(crate) sql: String,
    pub(crate) values: Vec<Value>,
}

impl Statement {
    pub(crate) fn new(sql: &str) -> Self {
        Self {
            sql: sql.to_owned(),
            values: Vec::new(),
        }
    }

    /// Adds text.
    pub(crate) fn push(&mut self, sql: &str) -> &mut Self {
        self.sql.push_str(sql);
        self
    }

    /// Adds a value.
    pub(crate) fn bind(&mut self, value: impl Into<Value>) -> &mut Self {
        self.values.push(value.into());
        self.sql.push('$');
        self.sql.push_str(&self.values.len().to_string());
        self
    }

    /// Adds `(a, b), (c, d)`.
    pub(crate) fn bind_rows(&mut self, rows: impl IntoIterator<Item = Vec<Value>>) -> &mut Self {
        for (index, row) in rows.into_iter().enumerate() {
            self.push(if index == 0 { "(" } else { ", (" });
            self.bind_list(row);
            self.push(")");
        }
        self
    }

    /// Adds `a, b, c`.
    pub(crate) fn bind_list(
        &mut self,
        values: impl IntoIterator<Item = impl Into<Value>>,
    ) -> &mut Self {
        for (index, value) in values.into_iter().enumerate() {
            if index > 0 {
                self.push(", ");
            }
            self.bind(value);
        }
        self
    }

    /// The text, and the values as a database's driver takes them.
    pub(crate) fn into_parts<DB>(self) -> sqlx::Result<(String, DB::Arguments)>
    where
        DB: Database,
        DB::Arguments: Arguments<Database = DB> + Default,
        Option<i64>: for<'q> Encode<'q, DB> + Type<DB>,
        Option<String>: for<'q> Encode<'q, DB> + Type<DB>,
        Option<Vec<u8>>: for<'q> Encode<'q, DB> + Type<DB>,
    {
        let mut arguments = DB::Arguments::default();
        for value in self.values {
            let added = match value {
                Value::Integer(value) => arguments.add(value),
                Value::Text(value) => arguments.add(value),
                Value::Bytes(value) => arguments.add(value),
            };
            added.map_err(sqlx::Error::Encode)?;
        }
        Ok((self.sql, arguments))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_numbered_in_order() {
        let mut statement = Statement::new("INSERT INTO a VALUES ");
        statement.bind_rows([vec![1.into(), "x".into()], vec![2.into(), "y".into()]]);
        statement.push(" WHERE b IN (").bind_list([3, 4]).push(")");
        assert_eq!(
            statement.sql,
            "INSERT INTO a VALUES ($1, $2), ($3, $4) WHERE b IN ($5, $6)"
        );
        assert_eq!(statement.values.len(), 6);
    }
}
