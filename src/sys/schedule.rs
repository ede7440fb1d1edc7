//! Scheduling of the processor: `sched_setscheduler(2)`.

use std::mem::MaybeUninit;

/// Does `work` without interruption by ordinary processes, because it must be over soon: this
/// thread is scheduled as `SCHED_FIFO` meanwhile. If that is not permitted (no `CAP_SYS_NICE`), the
/// work is still done.
pub fn undisturbed<T>(work: impl FnOnce() -> T) -> T {
    // SAFETY: these are plain integers, for which zero is valid; the kernel fills them below.
    let mut before = unsafe { MaybeUninit::<libc::sched_param>::zeroed().assume_init() };
    // SAFETY: pid 0 is this thread; no pointers.
    let policy = unsafe { libc::sched_getscheduler(0) };
    // SAFETY: pid 0 is this thread; `before` has room for a `struct sched_param`.
    let known = policy >= 0 && unsafe { libc::sched_getparam(0, &raw mut before) } == 0;
    let raised = known && {
        let mut priority = before;
        priority.sched_priority = 1;
        // SAFETY: pid 0 is this thread; `priority` is a valid `struct sched_param`, which is only
        // read.
        unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const priority) == 0 }
    };

    let result = work();

    if raised {
        // SAFETY: as above, with the values from the kernel. The way back is always permitted.
        unsafe { libc::sched_setscheduler(0, policy, &raw const before) };
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_threads_own_policy_is_back_afterwards() {
        // SAFETY: pid 0 is this thread; no pointers.
        let policy = || unsafe { libc::sched_getscheduler(0) };
        let before = policy();
        let meanwhile = undisturbed(policy);
        assert!(
            meanwhile == libc::SCHED_FIFO || meanwhile == before,
            "{meanwhile}"
        );
        assert_eq!(policy(), before);
    }
}
