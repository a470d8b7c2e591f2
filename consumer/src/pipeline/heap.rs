//! What the allocator does with memory that is given back. Batches, blocks and fetched messages come and go
//! by the megabyte; glibc hands each back to the system and asks for new pages, which the kernel has to
//! clear, and that took a sixth of the consumer's processor time. librdkafka allocates through it too, so a
//! Rust allocator would not reach all of it.

/// Keeps memory given back for the next use, up to a gigabyte; does nothing where there is no glibc. To be
/// called before threads are started.
pub fn keep_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    for (setting, bytes) in [
        // From the heaps rather than from pages of its own; the largest that glibc takes.
        (libc::M_MMAP_THRESHOLD, 32 * 1_024 * 1_024),
        // Free at the end of a heap before it is given back.
        (libc::M_TRIM_THRESHOLD, 1_024 * 1_024 * 1_024),
    ] {
        // SAFETY: changes numbers of the allocator, which takes none or any; it says 0 if it did not.
        if unsafe { libc::mallopt(setting, bytes) } == 0 {
            tracing::debug!(setting, bytes, "the allocator did not take a setting");
        }
    }
}
