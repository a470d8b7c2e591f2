//! What the store says of its memory is what it has asked the allocator for. The allocator is of the whole program, so this
//! test has one for itself.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use counting::event::{Conversion, Scope};
use counting::names::Names;
use counting::store::Store;
use unit_store::BoundedMemory;

/// Counts the bytes that are allocated.
struct Counted;

static ALLOCATED: AtomicUsize = AtomicUsize::new(0);

// SAFETY: the system's allocator does everything.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise is the one that is asked for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        ALLOCATED.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise is the one that is asked for.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counted = Counted;

#[test]
fn the_memory_is_what_was_allocated_and_what_the_allocator_adds() {
    const BYTES_MAX: usize = 1_000_000;
    let directory = tempfile::tempdir().unwrap();
    let purchase = Names::default().add("purchase");
    let scope = Scope { environment: purchase, experiment: None };
    let before = ALLOCATED.load(Ordering::Relaxed);
    let mut store = BoundedMemory::open(directory.path(), BYTES_MAX).unwrap();
    for round in 0..20 {
        for key in 0..4_000 {
            let key = key * 7 % (100 + 200 * round);
            let mut rows = store.take(key).unwrap();
            rows.push_conversion(Conversion::new(purchase, 0, u128::from(round), 0, scope));
            store.put(key, rows).unwrap();
        }
        let allocated = ALLOCATED.load(Ordering::Relaxed) - before;
        let counters = store.counters();
        // An allocation of rows takes at most 8 bytes for the allocator and 15 to be a multiple of 16. The paths of the
        // file and its lock are not counted.
        let slack = counters.units_in_memory * 23;
        assert!(counters.memory_bytes <= BYTES_MAX, "round {round}: {counters:?}");
        assert!(allocated <= counters.memory_bytes + 500, "round {round}: {allocated} and {counters:?}");
        assert!(counters.memory_bytes <= allocated + slack, "round {round}: {allocated} and {counters:?}");
    }
    assert!(store.counters().units_in_file > 1_000, "{:?}", store.counters());
}
