//! The store does what [`Memory`] does, within its bound, whatever is asked in whatever order.

use std::collections::BTreeMap;
use std::path::Path;

use counting::event::{Conversion, Scope};
use counting::names::{Name, Names};
use counting::rows::Rows;
use counting::store::{Memory, Store};
use proptest::prelude::*;
use unit_store::{BoundedMemory, Counters, Error};

/// So many conversions with ids from `first_id` on.
fn rows(name: Name, first_id: u32, count: u32) -> Rows {
    let scope = Scope { environment: name, experiment: None };
    let mut rows = Rows::default();
    for id in first_id..first_id + count {
        rows.push_conversion(Conversion::new(name, i64::from(id), u128::from(id), 0, scope));
    }
    rows
}

fn name() -> Name {
    Names::default().add("purchase")
}

fn all(store: &mut impl Store<Error: std::fmt::Debug>) -> BTreeMap<u64, Rows> {
    let mut all = BTreeMap::new();
    let visited = store.visit(|key, rows| assert_eq!(all.insert(key, rows.clone()), None, "{key} twice"));
    visited.unwrap();
    all
}

#[derive(Clone, Copy, Debug)]
enum Step {
    /// Takes the rows, adds so many and puts them back.
    Add {
        key: u64,
        rows: u32,
    },
    /// Takes the rows and puts none back.
    Remove {
        key: u64,
    },
    /// Puts so many rows without asking for those that are there.
    Replace {
        key: u64,
        rows: u32,
    },
    Visit,
}

fn step() -> impl Strategy<Value = Step> {
    let key = 0u64..40;
    // Three hundred rows are a record of many segments.
    let rows = prop_oneof![40 => 1u32..8, 1 => 200u32..300];
    prop_oneof![
        40 => (key.clone(), rows).prop_map(|(key, rows)| Step::Add { key, rows }),
        4 => key.clone().prop_map(|key| Step::Remove { key }),
        2 => (key, 0u32..4).prop_map(|(key, rows)| Step::Replace { key, rows }),
        1 => Just(Step::Visit),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn it_has_what_memory_has(steps in prop::collection::vec(step(), 1..400), bytes_max in 24_000usize..60_000) {
        let directory = tempfile::tempdir().unwrap();
        let mut store = BoundedMemory::open(directory.path(), bytes_max).unwrap();
        let mut memory = Memory::default();
        let name = name();
        for (number, step) in steps.into_iter().enumerate() {
            let first_id = number as u32 * 1_000;
            match step {
                Step::Add { key, rows: count } => {
                    let Ok(mut expected) = memory.take(key);
                    let mut found = store.take(key).unwrap();
                    prop_assert_eq!(&found, &expected);
                    for rows_of in [&mut found, &mut expected] {
                        rows_of.add(rows(name, first_id, count));
                    }
                    let Ok(()) = memory.put(key, expected);
                    store.put(key, found).unwrap();
                }
                Step::Remove { key } => {
                    let Ok(expected) = memory.take(key);
                    prop_assert_eq!(store.take(key).unwrap(), expected);
                    let Ok(()) = memory.put(key, Rows::default());
                    store.put(key, Rows::default()).unwrap();
                }
                Step::Replace { key, rows: count } => {
                    let Ok(_) = memory.take(key);
                    let Ok(()) = memory.put(key, rows(name, first_id, count));
                    store.put(key, rows(name, first_id, count)).unwrap();
                }
                Step::Visit => prop_assert_eq!(all(&mut store), all(&mut memory)),
            }
            let counters = store.counters();
            prop_assert!(counters.memory_bytes <= bytes_max, "{counters:?}");
            prop_assert_eq!(counters.units_in_memory + counters.units_in_file, memory.len());
            prop_assert_eq!(counters.moved_out < counters.brought_back, false);
        }
        prop_assert_eq!(all(&mut store), all(&mut memory));
        for key in 0..40 {
            store.put(key, Rows::default()).unwrap();
        }
        let counters = store.counters();
        prop_assert_eq!((counters.units_in_memory, counters.units_in_file, counters.file_bytes_used), (0, 0, 0));
    }
}

/// A store with units 0 to 99 of 20 rows, which fit into a bound of 40,000 bytes only in part.
fn filled(directory: &Path) -> BoundedMemory {
    let mut store = BoundedMemory::open(directory, 40_000).unwrap();
    for key in 0..100 {
        store.put(key, rows(name(), 0, 20)).unwrap();
    }
    store
}

#[test]
fn the_unit_that_is_used_all_the_time_stays_in_memory() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = filled(directory.path());
    let hot = store.take(99).unwrap();
    store.put(99, hot).unwrap();
    let before = store.counters();
    for key in 0..90 {
        for key in [key, 99] {
            let rows = store.take(key).unwrap();
            store.put(key, rows).unwrap();
        }
    }
    let after = store.counters();
    // Each of the others was on disk when its turn came.
    assert_eq!(after.brought_back - before.brought_back, 90);
}

#[test]
fn the_file_has_at_most_twice_what_is_used_and_two_segments() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = filled(directory.path());
    for round in 0..20 {
        for key in 0..100 {
            let rows = store.take((key * 37 + round) % 100).unwrap();
            store.put((key * 37 + round) % 100, rows).unwrap();
        }
    }
    let counters = store.counters();
    let of_file = std::fs::metadata(directory.path().join("units")).unwrap().len();
    assert_eq!(of_file, counters.file_bytes);
    assert!(counters.moved_out > 1_500, "{counters:?}");
    let segment = 40_000 / 64;
    assert!(counters.file_bytes <= 100 * 500 * 2 + 2 * segment, "{counters:?}");
}

#[test]
fn a_bound_that_the_index_alone_exceeds_is_said() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = BoundedMemory::open(directory.path(), 20_000).unwrap();
    let error = (0..10_000).find_map(|key| store.put(key, rows(name(), 0, 1)).err()).unwrap();
    let Error::NoRoom { units, bytes, bytes_max } = error else { panic!("{error}") };
    // The index of 224 units has 256 places; the one of 225 has 512, of 25 bytes each.
    assert_eq!((units, bytes_max), (225, 20_000));
    assert!(bytes > 20_000, "{bytes}");
}

#[test]
fn a_directory_has_one_store_and_its_file_is_gone_at_the_end() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("units of the aggregator");
    let store = filled(&place);
    let error = BoundedMemory::open(&place, 1_000_000).err().unwrap();
    assert_eq!(
        error.to_string(),
        format!(
            "units' rows cannot be kept in {}: another process keeps its own there; give each process a directory of its own",
            place.display()
        )
    );
    assert!(place.join("units").exists());
    drop(store);
    assert!(!place.join("units").exists());
    // What a killed process leaves is deleted.
    std::fs::write(place.join("units"), [7; 100_000]).unwrap();
    let mut store = BoundedMemory::open(&place, 1_000_000).unwrap();
    assert_eq!(std::fs::metadata(place.join("units")).unwrap().len(), 0);
    assert_eq!(all(&mut store), BTreeMap::new());
    let buffers = Counters { memory_bytes: store.bytes(), ..Counters::default() };
    assert_eq!(store.counters(), buffers);
}

#[test]
fn a_damaged_or_shorter_file_is_an_error_that_names_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("units");
    let mut store = filled(directory.path());
    let mut bytes = std::fs::read(&path).unwrap();
    // A byte of the first record's rows.
    bytes[20] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let damaged = |error: Error| {
        assert_eq!(
            error.to_string(),
            format!("{} is damaged at byte 0: check the disk, and start again", path.display())
        );
    };
    damaged(store.visit(|_, _| ()).unwrap_err());
    damaged(store.take(0).unwrap_err());
    std::fs::write(&path, []).unwrap();
    damaged(store.take(0).unwrap_err());
}
