//! The memory allocator of the C library.

/// Lets all threads share one heap: `mallopt(3)` with `M_ARENA_MAX`, if the C library has it
/// (glibc). It must be called before the first thread starts. It is for a long-running process:
/// with one heap per thread, memory freed in one pass is not reused in the next.
pub fn share_one_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: there are no pointers, and no other thread is in the allocator yet.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}
