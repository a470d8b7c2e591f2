//! The property of counting over this store, whose bound is so small that units move out and come back all the time.

#[path = "../../counting/tests/world/mod.rs"]
mod world;

use std::cell::Cell;

use proptest::test_runner::{Config, TestRunner};
use unit_store::BoundedMemory;

#[test]
fn any_order_batching_repetition_and_delay_gives_the_same() {
    let (moved_out, brought_back) = (Cell::new(0), Cell::new(0));
    let mut runner = TestRunner::new(Config { cases: 600, source_file: Some(file!()), ..Config::default() });
    let result = runner.run(&world::case(), |case| {
        let directory = tempfile::tempdir().unwrap();
        let store = BoundedMemory::open(directory.path(), 4_500).unwrap();
        let counters = world::assert_any_order_gives_the_same(&case, store).counters();
        moved_out.set(moved_out.get() + counters.moved_out);
        brought_back.set(brought_back.get() + counters.brought_back);
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
    println!("moved out {} times, brought back {} times", moved_out.get(), brought_back.get());
    assert!(brought_back.get() > 600 * 20, "brought back {} times", brought_back.get());
}
