//! Runs what is asked for, whoever asked: every process with the role `api` does.

use std::{collections::HashMap, time::Duration};

use fanfare_registry::OperationId;
use tokio::{
    task::JoinSet,
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::{
    Desk, ReplayFault,
    run::{self, Ended},
};

/// How often it is looked whether something was asked for.
const LOOKING: Duration = Duration::from_secs(2);

/// How long an operation is left alone that failed, or that another process runs.
const LEFT_ALONE: Duration = Duration::from_secs(10);

/// How many operations a process runs at once. Each has few deliveries in hand.
const AT_ONCE: usize = 32;

/// Runs operations until `shutdown`. A lost broker, store or history is waited for.
pub async fn keep(desk: Desk, shutdown: CancellationToken) {
    let mut running = JoinSet::new();
    // Those that run here, or are left alone, until then.
    let mut taken: HashMap<OperationId, Option<Instant>> = HashMap::new();
    while shutdown
        .run_until_cancelled(time::sleep(LOOKING))
        .await
        .is_some()
    {
        while let Some(ended) = running.try_join_next() {
            let (id, ended): (OperationId, Result<Ended, ReplayFault>) =
                ended.expect("an operation does not panic");
            taken.insert(id, Some(Instant::now() + pause_after(id, &ended)));
        }
        taken.retain(|_, until| until.is_none_or(|until| until > Instant::now()));
        let open = match desk.open_operations().await {
            Ok(open) => open,
            Err(fault) => {
                let error = &fault as &dyn std::error::Error;
                warn!(error, "operations on the history cannot be looked for");
                continue;
            }
        };
        for operation in open {
            let id = operation.id;
            if running.len() < AT_ONCE && !taken.contains_key(&id) {
                taken.insert(id, None);
                let (desk, stop) = (desk.clone(), shutdown.clone());
                running.spawn(async move { (id, run::run(&desk, id, &stop, &mut |_| {}).await) });
            }
        }
    }
    while running.join_next().await.is_some() {}
}

fn pause_after(id: OperationId, ended: &Result<Ended, ReplayFault>) -> Duration {
    match ended {
        Ok(Ended::Over | Ended::Stopped) => Duration::ZERO,
        Ok(Ended::Elsewhere(_)) => LEFT_ALONE,
        Err(fault) => {
            let error = fault as &dyn std::error::Error;
            warn!(error, operation = %id, "an operation on the history was interrupted; it goes on later");
            LEFT_ALONE
        }
    }
}
