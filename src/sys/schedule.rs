//! Who gets the processor: `sched_setscheduler(2)`.

use std::mem::MaybeUninit;

/// Does `work` without being interrupted by ordinary processes, for what must be over soon: this
/// thread is scheduled as `SCHED_FIFO` meanwhile. Where that is not allowed (no `CAP_SYS_NICE`), it
/// is done all the same.
pub fn undisturbed<T>(work: impl FnOnce() -> T) -> T {
    // SAFETY: plain integers, for which zero is valid; the kernel fills it below.
    let mut before = unsafe { MaybeUninit::<libc::sched_param>::zeroed().assume_init() };
    // SAFETY: pid 0 is this thread; no pointers.
    let policy = unsafe { libc::sched_getscheduler(0) };
    // SAFETY: pid 0 is this thread; `before` has room for a `struct sched_param`.
    let known = policy >= 0 && unsafe { libc::sched_getparam(0, &raw mut before) } == 0;
    let raised = known && {
        let mut first = before;
        first.sched_priority = 1;
        // SAFETY: pid 0 is this thread; `first` is a valid `struct sched_param`, which is only
        // read.
        unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const first) == 0 }
    };
    let result = work();
    if raised {
        // SAFETY: as above, with what the kernel itself said. Going back is always allowed.
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
