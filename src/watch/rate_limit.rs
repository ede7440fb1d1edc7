//! How much is reported about one site: its owner can cause any number of changes and failures.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::base::SiteName;

/// How many lines are reported about a site per period; more are only counted.
const LINES: usize = 20;
const PERIOD: Duration = Duration::from_secs(60);

/// The recent reports about each site.
#[derive(Default)]
pub(super) struct RateLimit(BTreeMap<SiteName, LineCount>);

struct LineCount {
    since: Instant,
    lines: usize,
    left_out: usize,
}

impl LineCount {
    fn begun(now: Instant) -> Self {
        Self {
            since: now,
            lines: 0,
            left_out: 0,
        }
    }
}

impl RateLimit {
    /// Whether that many lines about `site` may be reported; if not, they are counted as left out.
    pub(super) fn allows(&mut self, site: &SiteName, lines: usize, now: Instant) -> bool {
        let count = self.0.entry(site.clone());
        let count = count.or_insert(LineCount::begun(now));
        // A new period begins only after the left out lines were reported.
        if now.saturating_duration_since(count.since) >= PERIOD && count.left_out == 0 {
            *count = LineCount::begun(now);
        }
        let allowed = count.lines < LINES;
        if allowed {
            count.lines += lines;
        } else {
            count.left_out += lines;
        }
        allowed
    }

    /// The sites whose period is over, with the number of lines that were left out in it.
    pub(super) fn over(&mut self, now: Instant) -> Vec<(SiteName, usize)> {
        let mut left_out = vec![];
        self.0.retain(|site, count| {
            let goes_on = now.saturating_duration_since(count.since) < PERIOD;
            if !goes_on && count.left_out > 0 {
                left_out.push((site.clone(), count.left_out));
            }
            goes_on
        });
        left_out
    }

    /// When to report lines that were left out.
    pub(super) fn next(&self) -> Option<Instant> {
        self.0
            .values()
            .filter(|count| count.left_out > 0)
            .map(|count| count.since + PERIOD)
            .min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_much_is_counted_for_each_site_alone() {
        let [a, b] = ["a", "b"].map(|name| SiteName::new(name).unwrap());
        let (mut limit, now) = (RateLimit::default(), Instant::now());
        let allowed = (0..1000).filter(|_| limit.allows(&a, 1, now)).count();
        assert_eq!((allowed, limit.allows(&b, 1, now)), (LINES, true));
        assert_eq!(
            (limit.over(now), limit.next()),
            (vec![], Some(now + PERIOD))
        );
        let later = now + PERIOD;
        assert!(
            !limit.allows(&a, 3, later),
            "before it is reported how many were left out"
        );
        assert_eq!(
            (limit.over(later), limit.next()),
            (vec![(a.clone(), 1000 - LINES + 3)], None)
        );
        assert!(limit.allows(&a, 1, later) && limit.over(later).is_empty());
    }
}
