//! When to act: at once on the first change after quiet, in batches while changes keep coming,
//! later and later after failures. It is a state machine: time comes in as a value.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// More events than this in one batch are a storm.
const STORM: usize = 8;

/// The shortest and the longest time that a storm is left to settle.
const SETTLE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// The shortest and the longest time until a failure is tried again.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));

/// The shortest and the longest time until a busy site is tried again.
const BUSY: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// The work that is due, and when.
#[derive(Debug)]
pub(super) struct Scheduler<U> {
    due: HashMap<U, Instant>,
    /// Events since the last batch was taken.
    events: usize,
    /// Events of the batch that was taken last.
    taken: usize,
    /// Before this nothing is taken.
    rest_until: Option<Instant>,
    settle: Duration,
    failures: HashMap<U, u32>,
    busy: HashMap<U, u32>,
}

impl<U> Default for Scheduler<U> {
    fn default() -> Self {
        Self {
            due: HashMap::new(),
            events: 0,
            taken: 0,
            rest_until: None,
            settle: Duration::ZERO,
            failures: HashMap::new(),
            busy: HashMap::new(),
        }
    }
}

impl<U: Clone + Eq + Hash + Ord> Scheduler<U> {
    /// Notes one event that concerns `users`: they are due after `patience`, if not before.
    pub(super) fn event(
        &mut self,
        users: impl IntoIterator<Item = U>,
        now: Instant,
        patience: Duration,
    ) {
        let mut concerns_any = false;
        for user in users {
            concerns_any = true;
            self.at(user, now + patience);
        }
        self.events += usize::from(concerns_any);
    }

    /// Makes the user due at `when`, if not before.
    pub(super) fn at(&mut self, user: U, when: Instant) {
        let due = self.due.entry(user).or_insert(when);
        *due = when.min(*due);
    }

    /// Makes the user due now, even in a storm.
    pub(super) fn hurry(&mut self, user: U, now: Instant) {
        self.rest_until = None;
        self.at(user, now);
    }

    /// When there will be something to take.
    pub(super) fn next(&self) -> Option<Instant> {
        let due = self.due.values().min().copied()?;
        Some(match self.rest_until {
            Some(rest) => rest.max(due),
            None => due,
        })
    }

    /// Takes all users that are due, sorted.
    pub(super) fn take(&mut self, now: Instant) -> Vec<U> {
        if self.next().is_none_or(|next| next > now) {
            return vec![];
        }
        let mut taken = vec![];
        for (user, _) in self.due.extract_if(|_, due| *due <= now) {
            taken.push(user);
        }
        taken.sort();
        self.taken = std::mem::take(&mut self.events);
        taken
    }

    /// Notes that the batch was dealt with in the time `took`. The next one may not begin before
    /// the same time has passed again, so that at most half of the time is spent on batches, and
    /// not before a storm has settled.
    pub(super) fn dealt_with(&mut self, now: Instant, took: Duration) {
        self.settle = if self.taken > STORM {
            (self.settle * 2).clamp(SETTLE.0, SETTLE.1)
        } else if self.settle <= SETTLE.0 {
            Duration::ZERO
        } else {
            self.settle / 2
        };
        self.rest_until = Some(now + self.settle.max(took.min(SETTLE.1)));
    }

    /// Notes a failure of the user. Returns the number of failures, and the time until the next
    /// try.
    pub(super) fn failed(&mut self, user: &U, now: Instant) -> (u32, Duration) {
        let delay = next_delay(self.failures.entry(user.clone()).or_default(), RETRY);
        self.at(user.clone(), now + delay);
        (self.failures[user], delay)
    }

    /// Another process holds the user's lock: tries again soon. Returns the number of attempts.
    pub(super) fn was_busy(&mut self, user: &U, now: Instant) -> u32 {
        let delay = next_delay(self.busy.entry(user.clone()).or_default(), BUSY);
        self.at(user.clone(), now + delay);
        self.busy[user]
    }

    /// Whether the user has become due again since it was taken.
    pub(super) fn is_due(&self, user: &U) -> bool {
        self.due.contains_key(user)
    }

    /// Notes that the user was dealt with. Returns the number of failures before.
    pub(super) fn succeeded(&mut self, user: &U) -> u32 {
        self.busy.remove(user);
        self.failures.remove(user).unwrap_or(0)
    }
}

/// Counts one more attempt; returns the time until the next one, which doubles with each.
fn next_delay(attempts: &mut u32, (least, most): (Duration, Duration)) -> Duration {
    let delay = least
        .saturating_mul(1u32.checked_shl(*attempts).unwrap_or(u32::MAX))
        .min(most);
    *attempts += 1;
    delay
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const NOW: Duration = Duration::ZERO;

    fn start() -> (Scheduler<u8>, Instant) {
        (Scheduler::default(), Instant::now())
    }

    #[test]
    fn the_first_change_after_quiet_is_dealt_with_at_once() {
        let (mut gather, now) = start();
        assert_eq!(gather.next(), None);
        gather.event([2, 1, 2], now, NOW);
        assert_eq!(gather.next(), Some(now));
        assert_eq!(gather.take(now), [1, 2]);
        assert!(gather.take(now).is_empty());
    }

    #[test]
    fn one_after_the_other_each_waits_as_long_as_the_last_took_and_no_longer() {
        let (mut gather, mut now) = start();
        for _ in 0..1000 {
            gather.event([1], now, NOW);
            now = gather.next().unwrap();
            assert_eq!(gather.take(now), [1]);
            gather.event([1], now, NOW); // comes while it is dealt with
            now += 2 * MS;
            gather.dealt_with(now, 2 * MS);
            assert_eq!(gather.next(), Some(now + 2 * MS));
        }
    }

    #[test]
    fn a_storm_becomes_a_few_passes_and_calm_brings_quickness_back() {
        let (mut gather, mut now) = start();
        let end = now + Duration::from_secs(10);
        let mut passes = 0;
        while now < end {
            for _ in 0..20 {
                gather.event([1], now, NOW);
            }
            now += MS;
            if !gather.take(now).is_empty() {
                passes += 1;
                gather.dealt_with(now, 2 * MS);
            }
        }
        assert!(
            (10..=20).contains(&passes),
            "200,000 events in 10 s made {passes} passes"
        );
        for _ in 0..10 {
            now = gather.next().unwrap_or(now) + MS;
            gather.event([1], now, NOW);
            assert!(gather.next().unwrap() <= now + SETTLE.1);
            gather.take(gather.next().unwrap());
            gather.dealt_with(now, MS);
        }
        now += 2 * MS;
        gather.event([1], now, NOW);
        assert_eq!(gather.next(), Some(now));
    }

    #[test]
    fn what_may_be_half_done_is_waited_for_and_what_is_done_ends_the_wait() {
        let (mut gather, now) = start();
        gather.event([1], now, 20 * MS);
        gather.event([2], now, NOW);
        assert_eq!(gather.take(now), [2], "the other is not taken along");
        gather.event([1], now + 5 * MS, 20 * MS);
        assert_eq!(
            gather.next(),
            Some(now + 20 * MS),
            "the wait is not prolonged"
        );
        gather.event([1], now + 6 * MS, NOW);
        assert_eq!(gather.take(now + 6 * MS), [1]);
    }

    #[test]
    fn failures_are_retried_later_and_later_and_a_change_does_not_wait_for_that() {
        let (mut gather, now) = start();
        let delays: Vec<_> = (0..40)
            .map(|_| gather.failed(&1, now).1.as_secs())
            .collect();
        assert_eq!(delays[..10], [1, 2, 4, 8, 16, 32, 64, 128, 256, 300]);
        assert_eq!(delays[39], 300);
        gather.event([1], now, NOW);
        assert_eq!(gather.take(now), [1]);
        assert_eq!(gather.succeeded(&1), 40);
        assert_eq!(gather.failed(&1, now).1.as_secs(), 1);
    }

    #[test]
    fn somebody_in_a_hurry_does_not_wait_for_a_storm_to_settle() {
        let (mut gather, now) = start();
        gather.event([1], now, NOW);
        gather.take(now);
        gather.dealt_with(now, 50 * MS);
        gather.event([1], now, NOW);
        assert!(gather.take(now).is_empty());
        gather.hurry(2, now);
        assert_eq!(gather.take(now), [1, 2]);
    }

    #[test]
    fn a_busy_site_is_looked_at_again_soon_and_is_no_failure() {
        let (mut gather, now) = start();
        for _ in 0..10 {
            gather.was_busy(&1, now);
        }
        assert_eq!(gather.next(), Some(now + BUSY.0));
        assert_eq!(gather.succeeded(&1), 0);
    }
}
