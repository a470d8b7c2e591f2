//! Where the rows of units are kept between rounds. Whatever it is, the tables have them too, so nothing here has to survive
//! the process.

use std::convert::Infallible;

use hashbrown::HashMap;

use crate::rows::Rows;

/// Rows by the key of their unit.
pub trait Store {
    /// Why rows could not be read or kept.
    type Error;

    /// Takes the rows of a key out of the store; none if it has none.
    ///
    /// # Errors
    /// If they cannot be read.
    fn take(&mut self, key: u64) -> Result<Rows, Self::Error>;

    /// Keeps the rows of a key whose rows were taken out.
    ///
    /// # Errors
    /// If they cannot be written.
    fn put(&mut self, key: u64, rows: Rows) -> Result<(), Self::Error>;

    /// Calls `visit` with the rows of each key, in any order.
    ///
    /// # Errors
    /// If they cannot be read.
    fn visit(&mut self, visit: impl FnMut(u64, &Rows)) -> Result<(), Self::Error>;
}

/// Rows in memory.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    units: HashMap<u64, Rows>,
    row_bytes: usize,
}

impl Store for Memory {
    type Error = Infallible;

    fn take(&mut self, key: u64) -> Result<Rows, Infallible> {
        let Some(rows) = self.units.get_mut(&key).map(std::mem::take) else { return Ok(Rows::default()) };
        self.row_bytes -= rows.bytes();
        Ok(rows)
    }

    fn put(&mut self, key: u64, rows: Rows) -> Result<(), Infallible> {
        if rows.is_empty() {
            self.units.remove(&key);
            return Ok(());
        }
        self.row_bytes += rows.bytes();
        self.units.insert(key, rows);
        Ok(())
    }

    fn visit(&mut self, mut visit: impl FnMut(u64, &Rows)) -> Result<(), Infallible> {
        self.units.iter().for_each(|(key, rows)| visit(*key, rows));
        Ok(())
    }
}

impl Memory {
    /// How many keys have rows.
    pub fn len(&self) -> usize {
        self.units.len()
    }

    pub fn is_empty(&self) -> bool {
        self.units.is_empty()
    }

    /// The memory of the rows, in bytes, about.
    pub fn bytes(&self) -> usize {
        self.row_bytes + self.units.allocation_size()
    }
}
