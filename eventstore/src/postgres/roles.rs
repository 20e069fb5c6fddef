//! Roles for the database: who migrates, who writes, who reads, who projects.

use super::Schema;
use crate::error::Error;

/// The roles of a store in its database, each with the least that it needs.
///
/// | role | connects | may |
/// |---|---|---|
/// | owner | deployments | migrate: the schema is its own |
/// | writer | programs that execute commands | append, load, read the log |
/// | reader | programs and people that ask | read the log and the read models, now and as of a time |
/// | projector | workers and the publisher | read the log, hold leases, move checkpoints, make and fill read models |
///
/// A program connects with the URL of its role to a schema that is up to date; only the owner brings it
/// up to date. [`create_sql`](Self::create_sql) is for an administrator and creates the roles,
/// [`grant_sql`](Self::grant_sql) is for the owner and is run again after each migration.
///
/// ```
/// use annals_eventstore::postgres::Roles;
///
/// # fn main() -> Result<(), annals_eventstore::Error> {
/// let roles = Roles::new().writer("shop_writer").read_models_schema("shop");
/// println!("{}{}", roles.create_sql()?, roles.grant_sql()?);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
#[must_use = "it only makes SQL, for you to run"]
pub struct Roles {
    schema: String,
    read_models: String,
    owner: String,
    writer: String,
    reader: String,
    projector: String,
}

impl Default for Roles {
    fn default() -> Self {
        Self {
            schema: "annals".to_owned(),
            read_models: "public".to_owned(),
            owner: "annals_owner".to_owned(),
            writer: "annals_writer".to_owned(),
            reader: "annals_reader".to_owned(),
            projector: "annals_projector".to_owned(),
        }
    }
}

impl Roles {
    /// `annals_owner`, `annals_writer`, `annals_reader` and `annals_projector`, for a store in the
    /// schema `annals` and read models in `public`.
    pub fn new() -> Self {
        Self::default()
    }

    /// The schema of the store's tables: `annals` unless set.
    pub fn schema(mut self, schema: impl Into<String>) -> Self {
        self.schema = schema.into();
        self
    }

    /// The schema of the read models' tables: `public` unless set. It must exist.
    pub fn read_models_schema(mut self, schema: impl Into<String>) -> Self {
        self.read_models = schema.into();
        self
    }

    /// The name of the owner.
    pub fn owner(mut self, role: impl Into<String>) -> Self {
        self.owner = role.into();
        self
    }

    /// The name of the writer.
    pub fn writer(mut self, role: impl Into<String>) -> Self {
        self.writer = role.into();
        self
    }

    /// The name of the reader.
    pub fn reader(mut self, role: impl Into<String>) -> Self {
        self.reader = role.into();
        self
    }

    /// The name of the projector.
    pub fn projector(mut self, role: impl Into<String>) -> Self {
        self.projector = role.into();
        self
    }

    /// The script that creates the roles, in one transaction. It needs an administrator: a superuser, or
    /// one who may create roles and grant what is in both schemas.
    ///
    /// # Errors
    /// [`Error::InvalidSchema`] or [`Error::InvalidRole`].
    pub fn create_sql(&self) -> Result<String, Error> {
        self.fill(include_str!("sql/roles.sql"))
    }

    /// The script that gives the roles their rights in the store's schema, in one transaction. The owner
    /// may run it. What is new in the schema since it was run is nobody's but the owner's.
    ///
    /// # Errors
    /// [`Error::InvalidSchema`] or [`Error::InvalidRole`].
    pub fn grant_sql(&self) -> Result<String, Error> {
        self.fill(include_str!("sql/grants.sql"))
    }

    fn fill(&self, template: &str) -> Result<String, Error> {
        let read_models = Schema::new(&self.read_models)?.sql("{schema}");
        let schema = Schema::new(&self.schema)?;
        let beside = |what| Ok::<_, Error>(schema.beside(what)?.sql("{schema}"));
        Ok(schema
            .sql(template)
            .replace("{rebuild}", &beside("rebuild")?)
            .replace("{replaced}", &beside("replaced")?)
            .replace("{past}", &beside("past")?)
            .replace("{read_models}", &read_models)
            .replace("{owner}", &quoted(&self.owner)?)
            .replace("{writer}", &quoted(&self.writer)?)
            .replace("{reader}", &quoted(&self.reader)?)
            .replace("{projector}", &quoted(&self.projector)?))
    }
}

/// A role's name, quoted. It also stands in texts of the scripts, so it holds nothing that ends one.
fn quoted(role: &str) -> Result<String, Error> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "_-.@".contains(c);
    if (1..=63).contains(&role.len()) && role.chars().all(fits) {
        Ok(format!("\"{role}\""))
    } else {
        Err(Error::InvalidRole { role: role.to_owned() })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "these are tests")]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_open_in_the_scripts() {
        for sql in [Roles::new().create_sql().unwrap(), Roles::new().grant_sql().unwrap()] {
            assert!(!sql.contains('{') && !sql.contains('}'), "{sql}");
            assert!(sql.contains("\"annals_writer\""), "{sql}");
        }
    }

    #[test]
    fn a_name_that_could_be_more_than_a_name_is_refused() {
        for role in ["", "a\"b", "a'b", "a b", "a\\b", "a$$b", "a{writer}", "é", &"a".repeat(64)] {
            let error = Roles::new().reader(role).grant_sql().unwrap_err();
            assert!(matches!(error, Error::InvalidRole { .. }), "{role:?}: {error:?}");
            assert!(!error.is_retryable());
        }
        assert!(Roles::new().reader("team-a.reader@home").grant_sql().is_ok());
        let error = Roles::new().schema("a\"").grant_sql().unwrap_err();
        assert!(matches!(error, Error::InvalidSchema { .. }), "{error:?}");
    }
}
