//! The whole program in process, for the tests in this package.

mod fleet;
mod languages;
mod pipeline;
mod program;
mod resting;
mod scripts;

pub use fleet::{Fleet, Member, open_history, open_registry};
pub use languages::Language;
pub use pipeline::{PATIENCE, Pipeline};
pub use program::{Program, answer_of, command, fanfare_binary};
pub use resting::{bury, letter, owed};
pub use scripts::{node, python};

/// Whether this run is `make proof`, which has the time for more of everything.
#[expect(
    clippy::disallowed_methods,
    reason = "the run says by environment how long it may take"
)]
pub fn long_proof() -> bool {
    std::env::var_os("FANFARE_PROOF").is_some()
}

/// Makes a test for each version of RabbitMQ out of an async function that takes one.
#[macro_export]
macro_rules! on_each_rabbitmq {
    ($($(#[$attribute:meta])* $name:ident),* $(,)?) => {$(
        mod $name {
            $(#[$attribute])*
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn on_rabbitmq_3_10() {
                super::$name(fanfare_testkit::Version::V3_10).await;
            }

            $(#[$attribute])*
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn on_rabbitmq_4_3() {
                super::$name(fanfare_testkit::Version::V4_3).await;
            }
        }
    )*};
}
