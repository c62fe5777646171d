//! What no setting's own type can judge: ranges that matter to the whole, and settings that depend on each other.

use super::{Config, ConfigFault, Loaded};

/// RabbitMQ caps the prefetch of quorum queues at this (`docs/confirms`).
const MOST_PREFETCHED: u64 = 2000;
/// Room for a few events of the largest size that is accepted by default.
const LEAST_MEMORY: u64 = 1 << 20;

/// More would make the repeats after a crash many, and save little.
const MOST_BUNDLED: u16 = 16;

/// Judges settings as a whole. The fault names the setting.
pub(super) fn check(loaded: &Loaded<Config>) -> Result<(), ConfigFault> {
    let Config {
        shutdown_grace,
        router,
        dispatcher,
        api,
        ..
    } = &loaded.settings;
    let bundled = format!("accepted is a whole number from 1 to {MOST_BUNDLED}");
    let fits = (1..=MOST_BUNDLED).contains(&router.max_bundle);
    require(loaded, "router.max_bundle", fits, bundled)?;
    for (key, value) in [
        ("router.prefetch", router.prefetch),
        ("dispatcher.prefetch", dispatcher.prefetch),
    ] {
        let accepted = format!("accepted is a whole number from 1 to {MOST_PREFETCHED}");
        require(
            loaded,
            key,
            (1..=MOST_PREFETCHED).contains(&value.into()),
            accepted,
        )?;
    }
    require(
        loaded,
        "dispatcher.max_in_hand",
        dispatcher.max_in_hand >= MOST_BUNDLED,
        format!("accepted is a whole number from {MOST_BUNDLED} (a bundle) to 65535"),
    )?;
    require(
        loaded,
        "dispatcher.memory_budget",
        u64::from(dispatcher.memory_budget) >= LEAST_MEMORY,
        format!("accepted is a whole number from {LEAST_MEMORY} (1 MiB)"),
    )?;
    // A request that was accepted is finished before the process ends.
    if api.request_timeout >= *shutdown_grace {
        return Err(ConfigFault::Conflict {
            why: format!(
                "`api.request_timeout` ({:?}) must be shorter than `shutdown_grace` ({shutdown_grace:?})",
                api.request_timeout
            ),
        });
    }
    Ok(())
}

fn require(
    loaded: &Loaded<Config>,
    key: &str,
    holds: bool,
    why: String,
) -> Result<(), ConfigFault> {
    if holds {
        return Ok(());
    }
    Err(ConfigFault::Invalid {
        key: key.to_owned(),
        origin: loaded.origin(key),
        why,
    })
}
