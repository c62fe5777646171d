//! Grants a reward and tells of it, both or neither, by an outbox in PostgreSQL.
//!
//! `cargo run -p fanfare-producer --features outbox --example outbox -- postgresql://user:password@host/database amqp://127.0.0.1:5672`

use std::time::Duration;

use anyhow::Context as _;
use fanfare_producer::{
    EventBuilder, Producer, Settings,
    outbox::{
        self, Relay,
        sqlx::{self, PgPool},
    },
};
use tokio::time;
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut next = || arguments.next().context("usage: DATABASE_URL AMQP_URL");
    let pool = PgPool::connect(&next()?).await?;
    let settings = Settings {
        url: next()?.into(),
        ..Settings::default()
    };
    let mut connection = pool.acquire().await?;
    outbox::create_table(&mut connection).await?;
    sqlx::query("CREATE TABLE IF NOT EXISTS rewards (id TEXT PRIMARY KEY)")
        .execute(&mut *connection)
        .await?;

    // A service runs the relay beside its work, or has `fanfare outbox relay` do it.
    let producer = Producer::connect(&settings, "outbox example").await?;
    let (relay, shutdown) = (Relay::new(pool.clone(), producer), CancellationToken::new());
    let work = async {
        for number in 0..10 {
            grant(&pool, &format!("reward-{number}")).await?;
        }
        while outbox::status(&pool).await?.waiting > 0 {
            time::sleep(Duration::from_millis(50)).await;
        }
        shutdown.cancel();
        anyhow::Ok(())
    };
    let ((), worked) = tokio::join!(relay.run(shutdown.clone()), work);
    worked
}

async fn grant(pool: &PgPool, id: &str) -> anyhow::Result<()> {
    let event = EventBuilder::new("MF4c1b7e20", "reward.granted", "/examples/outbox")
        .id(id)
        .json(format!(r#"{{"reward":"{id}"}}"#).as_bytes())
        .build()?;
    let mut transaction = pool.begin().await?;
    sqlx::query("INSERT INTO rewards VALUES ($1) ON CONFLICT DO NOTHING")
        .bind(id)
        .execute(&mut *transaction)
        .await?;
    outbox::enqueue(&mut *transaction, &event).await?;
    transaction.commit().await?;
    Ok(())
}
