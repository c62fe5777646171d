//! Waits for a fact, with a bound.

use std::time::Duration;

use tokio::time::{self, Instant};

/// Asks until the answer is `Some`, and panics when it is not within the bound.
///
/// `what` says what is waited for: "the delivery in the dead-letter queue".
pub async fn eventually<T>(
    within: Duration,
    what: &str,
    mut ask: impl AsyncFnMut() -> Option<T>,
) -> T {
    let deadline = Instant::now() + within;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "not within {within:?}: {what}");
        time::sleep(Duration::from_millis(20)).await;
    }
}
