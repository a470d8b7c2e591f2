//! Times rounds of several libraries in turns, and counts their allocations. It knows no library: a case is a closure.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

/// Rounds of each case. They take turns, so that a slow moment of the machine meets all cases alike.
pub const ROUNDS: usize = 2_000;

/// Counts allocations while it is told to. Timed rounds run without counting, since an atomic addition for each
/// allocation would be charged to the libraries that allocate.
struct Counting;

static IS_COUNTING: AtomicBool = AtomicBool::new(false);
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

fn count_one() {
    if IS_COUNTING.load(Ordering::Relaxed) {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
    }
}

// SAFETY: every call is passed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count_one();
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count_one();
        // SAFETY: the caller keeps the contract of `alloc_zeroed`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count_one();
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// One round of a case: as many evaluations as there are timed users.
pub type Round<'a> = Box<dyn FnMut() + 'a>;

/// What one evaluation costs.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    pub ns_min: f64,
    pub ns_median: f64,
    pub allocations: f64,
}

/// Returns the cost of each case, in their order.
pub fn measure(cases: &mut [Round<'_>], evaluations_per_round: usize) -> Vec<Cost> {
    let each = evaluations_per_round as f64;
    let allocations: Vec<f64> = cases.iter_mut().map(|round| allocations(round) as f64 / each).collect();
    let mut times: Vec<Vec<f64>> = vec![Vec::with_capacity(ROUNDS); cases.len()];
    for _ in 0..ROUNDS {
        for (round, times) in cases.iter_mut().zip(&mut times) {
            let began = Instant::now();
            round();
            times.push(began.elapsed().as_nanos() as f64 / each);
        }
    }
    let mut costs = Vec::new();
    for (mut times, allocations) in times.into_iter().zip(allocations) {
        times.sort_by(f64::total_cmp);
        costs.push(Cost { ns_min: times[0], ns_median: times[ROUNDS / 2], allocations });
    }
    costs
}

/// Counts the allocations of a round after a first one, in which a library may fill what it keeps.
fn allocations(round: &mut Round<'_>) -> u64 {
    round();
    ALLOCATIONS.store(0, Ordering::Relaxed);
    IS_COUNTING.store(true, Ordering::Relaxed);
    round();
    IS_COUNTING.store(false, Ordering::Relaxed);
    ALLOCATIONS.load(Ordering::Relaxed)
}
