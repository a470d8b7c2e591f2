//! The unit of a switchback: a cluster in one window of time. Its id is the cluster's id, a zero byte and the start of the
//! window in decimal seconds since 1970, as in the vectors of `schemas/vectors/hash.json`. How long a window is, the
//! definition says.

use std::fmt::Write;

use crate::event::{Exposure, UNIT_ID_BYTES_MAX};

/// The byte between the cluster and the start of the window. No cluster has it.
const SEPARATOR: char = '\0';

/// A cluster in one window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SwitchbackUnit<'a> {
    cluster: &'a str,
    window_start_s: u64,
}

/// Why an id cannot be the cluster of a switchback.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotACluster {
    #[error("it has a zero byte, which separates a cluster from its window; use an id without it")]
    ZeroByte,
    #[error(
        "it has {bytes} bytes; with a zero byte and the window's start it would have more than 256; use a shorter id"
    )]
    TooLong { bytes: usize },
}

/// The id of a [`SwitchbackUnit`], on the stack.
#[derive(Clone, Copy)]
pub struct SwitchbackId {
    bytes: [u8; UNIT_ID_BYTES_MAX],
    length: usize,
}

impl<'a> SwitchbackUnit<'a> {
    /// `cluster` is the id of a unit; the window starts so many seconds after 1970.
    ///
    /// # Errors
    /// If the whole would not be an id, or not be read as the same cluster.
    pub fn new(cluster: &'a str, window_start_s: u64) -> Result<SwitchbackUnit<'a>, NotACluster> {
        if cluster.contains(SEPARATOR) {
            return Err(NotACluster::ZeroByte);
        }
        let digits = window_start_s.checked_ilog10().unwrap_or(0) as usize + 1;
        if cluster.len() + 1 + digits > UNIT_ID_BYTES_MAX {
            return Err(NotACluster::TooLong { bytes: cluster.len() });
        }
        Ok(SwitchbackUnit { cluster, window_start_s })
    }

    /// Reads an id as [`SwitchbackUnit::id`] writes it. `None` if it is not one.
    pub fn parse(unit_id: &'a str) -> Option<SwitchbackUnit<'a>> {
        let (cluster, start) = unit_id.rsplit_once(SEPARATOR)?;
        let is_decimal = start.bytes().all(|byte| byte.is_ascii_digit());
        let has_one_form = start == "0" || !start.starts_with('0');
        if cluster.is_empty() || !is_decimal || !has_one_form {
            return None;
        }
        SwitchbackUnit::new(cluster, start.parse().ok()?).ok()
    }

    pub fn cluster(self) -> &'a str {
        self.cluster
    }

    /// In seconds since 1970.
    pub fn window_start_s(self) -> u64 {
        self.window_start_s
    }

    pub fn id(self) -> SwitchbackId {
        let mut id = SwitchbackId { bytes: [0; UNIT_ID_BYTES_MAX], length: 0 };
        write_id(&mut id, self.cluster, self.window_start_s).expect("a new unit was measured");
        id
    }
}

/// Writes the id of a cluster in a window, whether or not the cluster can be one: where that was checked before, or is later.
///
/// # Errors
/// Those of `out`.
pub fn write_id(out: &mut impl Write, cluster: &str, window_start_s: u64) -> std::fmt::Result {
    write!(out, "{cluster}{SEPARATOR}{window_start_s}")
}

impl SwitchbackId {
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.length]).expect("it was written as texts")
    }
}

impl Write for SwitchbackId {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let end = self.length + text.len();
        self.bytes.get_mut(self.length..end).ok_or(std::fmt::Error)?.copy_from_slice(text.as_bytes());
        self.length = end;
        Ok(())
    }
}

impl Exposure<'_> {
    /// The unit of a switchback's exposure, which carries its cluster in `other_ids` under the cluster's type; `None` of
    /// any other.
    pub fn switchback_unit(&self) -> Option<SwitchbackUnit<'_>> {
        let carried = self.other_ids.get(&self.unit_type)?;
        SwitchbackUnit::parse(&self.unit_id).filter(|unit| unit.cluster == carried)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_written_and_read_in_one_form() {
        for (cluster, start, id) in
            [("eu", 1_767_225_600, "eu\x001767225600"), ("地域", 0, "地域\x000"), ("a b", 60, "a b\x0060")]
        {
            let unit = SwitchbackUnit::new(cluster, start).unwrap();
            assert_eq!(unit.id().as_str(), id);
            assert_eq!(SwitchbackUnit::parse(id), Some(unit));
        }
        for other in ["eu", "eu\0", "\x0060", "eu\x00060", "eu\0+60", "eu\x006 0", "eu\x0060\0", "a\0b\x0060"]
        {
            assert_eq!(SwitchbackUnit::parse(other), None, "{other:?}");
        }
        // More than any number of seconds.
        assert_eq!(SwitchbackUnit::parse("eu\x0099999999999999999999"), None);
    }

    #[test]
    fn a_cluster_has_no_zero_byte_and_leaves_room_for_the_window() {
        assert_eq!(SwitchbackUnit::new("e\0u", 60), Err(NotACluster::ZeroByte));
        let longest = "c".repeat(245);
        assert_eq!(SwitchbackUnit::new(&longest, 1_767_225_600).unwrap().id().as_str().len(), 256);
        let longer = "c".repeat(246);
        assert_eq!(SwitchbackUnit::new(&longer, 1_767_225_600), Err(NotACluster::TooLong { bytes: 246 }));
    }
}
