//! How the C library keeps memory.

/// Lets all threads share one heap, before the first of them starts: `mallopt(3)` with
/// `M_ARENA_MAX`, where the C library has it (glibc). For a process that stays: with a heap for
/// each thread, what one pass has freed is not there for the next.
pub fn share_one_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: no pointers, and nobody else is in the allocator yet.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}
