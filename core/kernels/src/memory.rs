//! Memory: large blocks that are kept and lie on huge pages, and the C allocator's manners.

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// The program's allocator: what is large comes from ranges of memory that are never given back, on huge pages where the
/// system has them; what is small comes from the system's. A tensor lives for an operation or two, so that without it a
/// training step spends its time on page faults and, with pages of 4 KiB, on looking up addresses.
pub struct Allocator {
    free: Mutex<Free>,
}

/// The ranges that nobody uses: start and length, neighbours joined.
struct Free(BTreeMap<usize, usize>);

/// The length of all free ranges together.
static UNUSED: AtomicUsize = AtomicUsize::new(0);

/// The smallest block that counts as large.
const LARGE: usize = 128 << 10;
/// What lengths of large blocks are multiples of: a page.
const UNIT: usize = 4 << 10;
/// A huge page.
#[cfg(target_os = "linux")]
const HUGE: usize = 2 << 20;
/// The least that is taken from the system at once.
#[cfg(target_os = "linux")]
const GROWTH: usize = 64 << 20;

impl Allocator {
    /// An allocator that holds no memory yet.
    pub const fn new() -> Self {
        Self { free: Mutex::new(Free(BTreeMap::new())) }
    }

    /// Whether a block is this allocator's own; the same for its whole life, since it is told by its size alone.
    fn owns(layout: Layout) -> bool {
        cfg!(target_os = "linux") && layout.size() >= LARGE && layout.align() <= UNIT
    }
}

impl Default for Allocator {
    fn default() -> Self {
        Self::new()
    }
}

// SAFETY: a block is a range that was free and is taken out of the free ranges under the lock, so that no two blocks
// overlap; ranges are multiples of UNIT, and begin at them.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if !Self::owns(layout) {
            // SAFETY: the caller's.
            return unsafe { System.alloc(layout) };
        }
        // The map's own nodes are small, so they come from the system and never back here.
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        free.take(layout.size().next_multiple_of(UNIT))
            .map_or(std::ptr::null_mut(), std::ptr::with_exposed_provenance_mut)
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if !Self::owns(layout) {
            // SAFETY: the caller's.
            return unsafe { System.dealloc(block, layout) };
        }
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        free.give(block.expose_provenance(), layout.size().next_multiple_of(UNIT));
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if !Self::owns(layout) {
            // SAFETY: the caller's.
            return unsafe { System.alloc_zeroed(layout) };
        }
        // SAFETY: the caller's; a block that is there has the layout's size.
        unsafe {
            let block = self.alloc(layout);
            if !block.is_null() {
                block.write_bytes(0, layout.size());
            }
            block
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller vouches for a size that, with the alignment, is a layout.
        let new = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        match (Self::owns(layout), Self::owns(new)) {
            // SAFETY: the caller's.
            (false, false) => unsafe { System.realloc(block, layout, size) },
            (true, true) if size.next_multiple_of(UNIT) == layout.size().next_multiple_of(UNIT) => block,
            // SAFETY: both blocks are there and have the sizes that are copied.
            _ => unsafe {
                let moved = self.alloc(new);
                if !moved.is_null() {
                    moved.copy_from_nonoverlapping(block, layout.size().min(size));
                    self.dealloc(block, layout);
                }
                moved
            },
        }
    }
}

impl Free {
    /// A range of `length`: the beginning of the smallest that is long enough.
    fn take(&mut self, length: usize) -> Option<usize> {
        let fitting = |free: &Self| {
            let long = free.0.iter().filter(|(_, have)| **have >= length);
            long.min_by_key(|(_, have)| **have).map(|(start, have)| (*start, *have))
        };
        let (start, have) = match fitting(self) {
            Some(found) => found,
            None => {
                let (start, grown) = grow(length)?;
                self.give(start, grown);
                fitting(self)?
            }
        };
        self.0.remove(&start);
        if have > length {
            self.0.insert(start + length, have - length);
        }
        UNUSED.fetch_sub(length, Ordering::Relaxed);
        Some(start)
    }

    /// Takes a range back, and joins it with its neighbours.
    fn give(&mut self, mut start: usize, mut length: usize) {
        UNUSED.fetch_add(length, Ordering::Relaxed);
        if let Some((before, have)) = self.0.range(..start).next_back().map(|(before, have)| (*before, *have))
            && before + have == start
        {
            self.0.remove(&before);
            (start, length) = (before, length + have);
        }
        if let Some(have) = self.0.remove(&(start + length)) {
            length += have;
        }
        self.0.insert(start, length);
    }
}

/// New memory of at least `length` from the system, on huge pages if it has them: start and length.
#[cfg(target_os = "linux")]
fn grow(length: usize) -> Option<(usize, usize)> {
    let length = length.max(GROWTH).next_multiple_of(HUGE);
    let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping touches nothing that exists; the advice is about that mapping alone.
    unsafe {
        let mapped = libc::mmap(std::ptr::null_mut(), length + HUGE, protection, flags, -1, 0);
        if mapped == libc::MAP_FAILED {
            return None;
        }
        // The part before the first huge page stays untouched, so it takes no memory.
        let start = mapped.expose_provenance().next_multiple_of(HUGE);
        libc::madvise(std::ptr::with_exposed_provenance_mut(start), length, libc::MADV_HUGEPAGE);
        Some((start, length))
    }
}

#[cfg(not(target_os = "linux"))]
fn grow(_: usize) -> Option<(usize, usize)> {
    None
}

/// Tells glibc to keep what is freed of its own memory, the small blocks that [`Allocator`] leaves to it, in two arenas.
///
/// Call it first thing in the program; elsewhere than on Linux with glibc it does nothing.
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

/// Makes memory that is kept for later count as free where that is possible: what glibc keeps goes back to the kernel. Gives
/// the bytes of large blocks that stay with the program and that nobody uses.
pub fn release_unused() -> usize {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        unsafe extern "C" {
            fn malloc_trim(pad: usize) -> std::ffi::c_int;
        }
        // SAFETY: it only gives back pages of which the allocator knows that nobody uses them.
        unsafe { malloc_trim(0) };
    }
    UNUSED.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_disjoint_kept_and_joined_again() {
        let allocator = Allocator::new();
        let layout = |size: usize| Layout::from_size_align(size, 64).unwrap();
        let sizes = [LARGE, LARGE + 1, 3 << 20, 500_000, LARGE - 1, 70 << 20];
        // SAFETY: blocks are written within their sizes, and given back with their layouts.
        unsafe {
            let mut blocks = sizes.map(|size| (allocator.alloc(layout(size)), size));
            for (i, (block, size)) in blocks.iter().enumerate() {
                assert!(!block.is_null() && block.addr() % 64 == 0);
                block.write_bytes(i as u8 + 1, *size);
            }
            let (grown, size) = (&mut blocks[1].0, 2 << 20);
            *grown = allocator.realloc(*grown, layout(LARGE + 1), size);
            blocks[1].1 = size;
            for (i, (block, size)) in blocks.iter().enumerate() {
                let known = if i == 1 { LARGE + 1 } else { *size };
                let held = std::slice::from_raw_parts(*block, known);
                assert!(held.iter().all(|&byte| byte == i as u8 + 1), "block {i}");
            }
            for (block, size) in blocks {
                allocator.dealloc(block, layout(size));
            }
            let free = allocator.free.lock().unwrap().0.clone();
            let all: usize = free.values().sum();
            assert!(free.len() <= 2, "{free:x?}");
            // What was used before is dirty, and served again as zeros.
            let block = allocator.alloc_zeroed(layout(3 << 20));
            assert!(std::slice::from_raw_parts(block, 3 << 20).iter().all(|&byte| byte == 0));
            allocator.dealloc(block, layout(3 << 20));
            assert_eq!(allocator.free.lock().unwrap().0.values().sum::<usize>(), all, "nothing new was taken");
        }
    }
}
