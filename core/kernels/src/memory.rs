//! The C allocator's manners.

/// Tells glibc to keep freed memory instead of returning it to the kernel after each large tensor.
///
/// Without it about two fifths of a training step are page faults. Call it first thing in the program; elsewhere than
/// on Linux with glibc it does nothing.
pub fn tune_allocator() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        use std::ffi::c_int;
        const M_TRIM_THRESHOLD: c_int = -1;
        const M_TOP_PAD: c_int = -2;
        const M_MMAP_THRESHOLD: c_int = -3;
        const M_ARENA_MAX: c_int = -8;
        unsafe extern "C" {
            fn mallopt(param: c_int, value: c_int) -> c_int;
        }
        // Each stage has threads of its own; with an arena for each, what all of them once held would stay.
        for (param, value) in
            [(M_ARENA_MAX, 2), (M_MMAP_THRESHOLD, 1 << 30), (M_TRIM_THRESHOLD, c_int::MAX), (M_TOP_PAD, 64 << 20)]
        {
            // SAFETY: mallopt takes two plain integers and only changes the allocator's tunables; a refused value
            // returns 0 and leaves the default.
            unsafe { mallopt(param, value) };
        }
    }
}
