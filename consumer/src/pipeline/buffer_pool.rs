//! A bounded pool of empty columns, shared by all partitions. The columns of a batch take tens of megabytes, and
//! allocating them costs more than filling them.

use std::sync::{Mutex, PoisonError};

use crate::pipeline::rows::{Rows, Table};

/// Empty columns with room.
pub struct BufferPool {
    kept: Mutex<Vec<(Table, Rows, usize)>>,
    bytes_max: usize,
}

impl BufferPool {
    /// A pool that holds at most `bytes_max`.
    pub fn new(bytes_max: usize) -> BufferPool {
        BufferPool { kept: Mutex::default(), bytes_max }
    }

    /// Empty columns of `table`, with capacity if the pool has some.
    pub fn take(&self, table: Table) -> Rows {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        match kept.iter().rposition(|(of, ..)| *of == table) {
            Some(at) => kept.swap_remove(at).1,
            None => table.rows(),
        }
    }

    /// Takes drained columns back. They are freed if the pool is full.
    pub fn give(&self, table: Table, mut rows: Rows) {
        let bytes = rows.room();
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let held: usize = kept.iter().map(|(.., bytes)| bytes).sum();
        if held + bytes <= self.bytes_max {
            kept.push((table, rows, bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use schemas::Uuid;

    use super::*;
    use crate::pipeline::batch::BatchStamp;

    const STAMP: BatchStamp = BatchStamp { partition: 0, epoch: 1, first: 0, last: 999, ingest_ms: 0 };

    /// Columns that a thousand aliases were drained from.
    fn drained() -> Rows {
        let mut rows = Table::Aliases.rows();
        let Rows::Aliases(aliases) = &mut rows else { unreachable!("rows of aliases") };
        for offset in 0..1_000 {
            let alias = serde_json::json!({
                "event_id": Uuid::from_u128(1), "from": {"unit_type": "user", "unit_id": "a"},
                "to": {"unit_type": "user", "unit_id": "b"}, "created_at": "2026-01-01T00:00:00Z",
            });
            aliases.push(&serde_json::from_value(alias).unwrap(), offset);
        }
        rows.drain(1_000, &STAMP);
        rows
    }

    #[test]
    fn what_is_given_back_is_taken_again_with_its_room_and_without_its_rows() {
        let buffer_pool = BufferPool::new(10_000_000);
        let empty = buffer_pool.take(Table::Aliases).room();
        buffer_pool.give(Table::Aliases, drained());
        assert_eq!(buffer_pool.take(Table::Conversions).room(), Table::Conversions.rows().room());
        let mut again = buffer_pool.take(Table::Aliases);
        assert!(again.room() > empty + 50_000, "{} after {empty}", again.room());
        assert_eq!(again.drain(0, &STAMP), Table::Aliases.rows().drain(0, &STAMP));
        assert_eq!(buffer_pool.take(Table::Aliases).room(), empty);
    }

    #[test]
    fn no_more_is_kept_than_allowed() {
        let buffer_pool = BufferPool::new(drained().room());
        buffer_pool.give(Table::Aliases, drained());
        buffer_pool.give(Table::Aliases, drained());
        assert_eq!(buffer_pool.kept.lock().unwrap().len(), 1);
    }
}
