//! Sees that an endpoint is flooded, so that routers can be told.
//!
//! Pure: `now` is passed in.

use std::time::Duration;

use fanfare_model::Timestamp;
use tokio::time::Instant;

/// So many newcomers deferred within [`WINDOW`] are a flood,
const FLOOD: u32 = 200;
const WINDOW: Duration = Duration::from_secs(2);

/// if they keep coming for this long: a receiver that is back after a moment is none to keep anybody away from.
const LASTING: Duration = Duration::from_millis(200);

/// How long routers keep the deliveries of a flooded endpoint away. Then some get through again, and show
/// whether the flood goes on.
pub(super) const KEEP_AWAY: Duration = Duration::from_secs(10);

/// Counts the newcomers that a lane defers.
#[derive(Debug, Default)]
pub(super) struct Flood {
    window: Option<Instant>,
    deferred: u32,
    told: Option<Instant>,
}

/// What routers are told about a flooded endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Diversion {
    /// Its deliveries come back one by one from here on,
    pub(crate) from: Timestamp,
    /// this far apart,
    pub(crate) spacing: Duration,
    /// until here. The others come back at times between this
    pub(crate) until: Timestamp,
    /// and this.
    pub(crate) latest: Timestamp,
    /// Until when that is so.
    pub(crate) expires: Timestamp,
}

impl Flood {
    /// Counts one. With a flood that routers do not know of, says how many more will come until they would
    /// ask again.
    pub(super) fn deferred(&mut self, now: Instant) -> Option<u32> {
        let begun = self.window.filter(|begun| now - *begun <= WINDOW);
        let begun = begun.unwrap_or_else(|| {
            (self.window, self.deferred) = (Some(now), 0);
            now
        });
        self.deferred += 1;
        // Half of the time: what is on its way when routers are told again is none that got through.
        let told_lately = self.told.is_some_and(|told| now - told < KEEP_AWAY / 2);
        let took = now.saturating_duration_since(begun);
        if self.deferred < FLOOD || took < LASTING || told_lately {
            return None;
        }
        self.told = Some(now);
        let took = u32::try_from(took.as_millis()).unwrap_or(u32::MAX);
        let expected = u32::try_from(KEEP_AWAY.as_millis()).unwrap_or(u32::MAX) / took;
        Some(self.deferred.saturating_mul(expected))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tells how many of `many` newcomers, `apart` from each other, led to a telling.
    fn tellings(flood: &mut Flood, begun: Instant, many: u32, apart: Duration) -> Vec<u32> {
        let times = (0..many).map(|n| begun + apart * n);
        times.filter_map(|now| flood.deferred(now)).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_is_told_and_told_again_while_it_lasts() {
        let begun = Instant::now();
        for (many, apart, expected) in [
            (199, Duration::ZERO, vec![]),
            // All at once, they are what was in hand.
            (1000, Duration::ZERO, vec![]),
            (1000, Duration::from_micros(190), vec![]),
            (1001, Duration::from_micros(200), vec![1001 * 50]),
            (1000, Duration::from_millis(1), vec![201 * 50]),
            (1000, Duration::from_millis(5), vec![200 * (10_000 / 995)]),
            (1000, Duration::from_millis(20), vec![]),
        ] {
            let told = tellings(&mut Flood::default(), begun, many, apart);
            assert_eq!(told, expected, "{many} {apart:?}");
        }
        let mut flood = Flood::default();
        let told = tellings(&mut flood, begun, 20_000, Duration::from_millis(1));
        assert_eq!(told.len(), 4, "{told:?}");
    }
}
