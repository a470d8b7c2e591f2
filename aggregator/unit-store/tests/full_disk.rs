//! A file that may not grow any more. The limit is of the whole process, so this test has one for itself.

use counting::event::{Conversion, Scope};
use counting::names::Names;
use counting::rows::Rows;
use counting::store::Store;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigHandler, Signal, signal};
use unit_store::{BoundedMemory, Error};

#[test]
fn a_full_disk_is_an_error_that_names_the_file_and_the_next_start_works() {
    let directory = tempfile::tempdir().unwrap();
    let purchase = Names::default().add("purchase");
    let scope = Scope { environment: purchase, experiment: None };
    let mut rows = Rows::default();
    for id in 1..20 {
        rows.push_conversion(Conversion::new(purchase, 0, id, 0, scope));
    }
    let fill = |store: &mut BoundedMemory| (0..400).try_for_each(|key| store.put(key, rows.clone()));

    let (_, hard) = getrlimit(Resource::RLIMIT_FSIZE).unwrap();
    // SAFETY: no handler is installed: the signal, whose default ends the process, is ignored.
    unsafe { signal(Signal::SIGXFSZ, SigHandler::SigIgn) }.unwrap();
    setrlimit(Resource::RLIMIT_FSIZE, 50_000, hard).unwrap();
    let mut store = BoundedMemory::open(directory.path(), 100_000).unwrap();
    let failed = fill(&mut store);
    setrlimit(Resource::RLIMIT_FSIZE, hard, hard).unwrap();

    let error = failed.unwrap_err();
    assert!(matches!(error, Error::Full { .. }), "{error:?}");
    // 31 segments of 100,000 / 64 bytes, and three units of 418 in the next one.
    let expected = format!(
        "there is no room for units' rows in {}, which has 49676 bytes: make room on its file system or raise the limit, and start again",
        directory.path().join("units").display()
    );
    assert_eq!(error.to_string(), expected);
    drop(store);
    let mut store = BoundedMemory::open(directory.path(), 100_000).unwrap();
    fill(&mut store).unwrap();
    assert_eq!(store.take(0).unwrap(), rows);
}
