//! The process's own memory.

/// Gives memory that was freed back to the system.
///
/// Reading and planning a large state takes several times what the state takes; the C library would keep most of it for later.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: `malloc_trim` (glibc) touches only memory that was freed, takes the allocator's own locks, and any padding
    // is valid. No safe wrapper exists.
    unsafe {
        libc::malloc_trim(0);
    }
}
