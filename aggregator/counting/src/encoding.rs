//! Rows as compact bytes, for a store that does not keep them in memory. Names are numbers of this process, so the bytes mean
//! nothing to another one.
//!
//! After the version come the exposures and then the conversions, each with their number first. Numbers are LEB128: seven
//! bits a byte, the lowest first. The name that orders rows and their time are differences from the row before; differences of
//! times and values that may be negative are folded to 0, -1, 1, -2 and so on. An id is its 16 bytes.

use std::fmt;

use crate::event::{Conversion, Exposure, NewExposure, SEGMENTS, Scope};
use crate::names::Name;
use crate::rows::Rows;

const VERSION: u8 = 1;

const FORCED: u8 = 1;
const MISMATCHED: u8 = 2;

/// An exposure and a conversion have at least so many bytes.
const EXPOSURE_BYTES_MIN: usize = 27;
const CONVERSION_BYTES_MIN: usize = 21;

/// Why bytes are not rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// They are of another version.
    Version(u8),
    /// They are not what [`Rows::encode`] wrote.
    Damaged,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DecodeError::Version(version) => {
                write!(out, "rows are encoded in version {version}, and only {VERSION} is known")
            }
            DecodeError::Damaged => write!(out, "encoded rows are damaged"),
        }
    }
}

impl std::error::Error for DecodeError {}

impl Rows {
    /// Appends the rows as bytes. Equal rows give equal bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(VERSION);
        let (mut name, mut at) = (0, 0);
        number(out, self.exposures().len() as u64);
        for exposure in self.exposures() {
            key(out, (exposure.experiment, exposure.at), (&mut name, &mut at));
            out.extend(exposure.id().to_le_bytes());
            number(out, exposure.variant.number().into());
            number(out, exposure.phase.into());
            number(out, exposure.environment.number().into());
            exposure.segments.iter().for_each(|segment| number(out, segment.number().into()));
            signed(out, exposure.ingested_ms.wrapping_sub(exposure.at / 1_000));
            let forced = if exposure.forced { FORCED } else { 0 };
            out.push(forced | if exposure.mismatched { MISMATCHED } else { 0 });
        }
        name = 0;
        number(out, self.conversions().len() as u64);
        for conversion in self.conversions() {
            key(out, (conversion.series, conversion.at), (&mut name, &mut at));
            out.extend(conversion.id().to_le_bytes());
            signed(out, conversion.millionths);
            number(out, conversion.scope.environment.number().into());
            number(out, conversion.scope.experiment.map_or(0, |name| u64::from(name.number()) + 1));
        }
    }

    /// Reads what [`Rows::encode`] wrote.
    ///
    /// # Errors
    /// If the bytes are of another version, damaged, or more than that.
    pub fn decode(bytes: &[u8]) -> Result<Rows, DecodeError> {
        match bytes.split_first() {
            None => Err(DecodeError::Damaged),
            Some((&VERSION, rest)) => Input(rest).rows().ok_or(DecodeError::Damaged),
            Some((version, _)) => Err(DecodeError::Version(*version)),
        }
    }
}

/// Appends the name and the time of a row, and remembers them for the next one.
fn key(out: &mut Vec<u8>, (name, at): (Name, i64), (name_before, at_before): (&mut u32, &mut i64)) {
    number(out, (name.number() - *name_before).into());
    signed(out, at.wrapping_sub(*at_before));
    (*name_before, *at_before) = (name.number(), at);
}

fn number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn signed(out: &mut Vec<u8>, value: i64) {
    number(out, ((value << 1) ^ (value >> 63)) as u64);
}

/// The bytes that were not read yet. Each function is none if they are not what was written.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn rows(mut self) -> Option<Rows> {
        let (mut name, mut at) = (0, 0);
        let count = self.count(EXPOSURE_BYTES_MIN)?;
        let mut exposures = Vec::with_capacity(count);
        for _ in 0..count {
            let (experiment, at) = self.key((&mut name, &mut at))?;
            let id = self.id()?;
            let variant = self.name()?;
            let phase = self.small()?;
            let environment = self.name()?;
            let mut segments = [environment; SEGMENTS];
            for segment in &mut segments {
                *segment = self.name()?;
            }
            let ingested_ms = self.signed()?.wrapping_add(at / 1_000);
            let flags = self.byte()?;
            if flags > FORCED | MISMATCHED {
                return None;
            }
            let (forced, mismatched) = (flags & FORCED != 0, flags & MISMATCHED != 0);
            exposures.push(Exposure::new(NewExposure {
                experiment,
                at,
                id,
                variant,
                phase,
                environment,
                segments,
                ingested_ms,
                forced,
                mismatched,
            }));
        }
        name = 0;
        let count = self.count(CONVERSION_BYTES_MIN)?;
        let mut conversions = Vec::with_capacity(count);
        for _ in 0..count {
            let (series, at) = self.key((&mut name, &mut at))?;
            let id = self.id()?;
            let millionths = self.signed()?;
            let environment = self.name()?;
            let experiment = match self.number()?.checked_sub(1) {
                None => None,
                Some(number) => Some(Name::of_number(u32::try_from(number).ok()?)),
            };
            conversions.push(Conversion::new(series, at, id, millionths, Scope { environment, experiment }));
        }
        let is_whole = self.0.is_empty() && exposures.is_sorted() && conversions.is_sorted();
        is_whole.then(|| Rows::from_sorted(exposures, conversions))
    }

    /// Reads how many rows follow; none if the bytes are too few for them.
    fn count(&mut self, bytes_min: usize) -> Option<usize> {
        let count = usize::try_from(self.number()?).ok()?;
        (count <= self.0.len() / bytes_min).then_some(count)
    }

    fn key(&mut self, (name, at): (&mut u32, &mut i64)) -> Option<(Name, i64)> {
        *name = name.checked_add(self.small()?)?;
        *at = at.wrapping_add(self.signed()?);
        Some((Name::of_number(*name), *at))
    }

    fn id(&mut self) -> Option<u128> {
        let (id, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u128::from_le_bytes(*id))
    }

    fn name(&mut self) -> Option<Name> {
        self.small().map(Name::of_number)
    }

    fn small(&mut self) -> Option<u32> {
        self.number().and_then(|number| u32::try_from(number).ok())
    }

    fn signed(&mut self) -> Option<i64> {
        let number = self.number()?;
        Some((number >> 1) as i64 ^ -((number & 1) as i64))
    }

    fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return None;
            }
            number |= bits << shift;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }

    fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*byte)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name() -> impl Strategy<Value = Name> {
        prop_oneof![4 => 0u32..4, 1 => any::<u32>()].prop_map(Name::of_number)
    }

    fn at() -> impl Strategy<Value = i64> {
        prop_oneof![4 => 1_700_000_000_000_000i64..1_800_000_000_000_000, 1 => any::<i64>()]
    }

    fn exposure() -> impl Strategy<Value = Exposure> {
        let names = (name(), name(), name(), [name(), name(), name(), name()]);
        let numbers = (at(), any::<u128>(), any::<u32>(), any::<i64>());
        let flags = (any::<bool>(), any::<bool>());
        (names, numbers, flags).prop_map(
            |(
                (experiment, variant, environment, segments),
                (at, id, phase, ingested_ms),
                (forced, mismatched),
            )| {
                Exposure::new(NewExposure {
                    experiment,
                    at,
                    id,
                    variant,
                    phase,
                    environment,
                    segments,
                    ingested_ms,
                    forced,
                    mismatched,
                })
            },
        )
    }

    fn conversion() -> impl Strategy<Value = Conversion> {
        let scope = (name(), prop::option::of(name()))
            .prop_map(|(environment, experiment)| Scope { environment, experiment });
        (name(), at(), any::<u128>(), any::<i64>(), scope).prop_map(|(series, at, id, millionths, scope)| {
            Conversion::new(series, at, id, millionths, scope)
        })
    }

    fn rows() -> impl Strategy<Value = Rows> {
        let lists = (prop::collection::vec(exposure(), 0..20), prop::collection::vec(conversion(), 0..20));
        lists.prop_map(|(exposures, conversions)| {
            let mut rows = Rows::default();
            exposures.into_iter().for_each(|of| rows.push_exposure(of));
            conversions.into_iter().for_each(|of| rows.push_conversion(of));
            rows
        })
    }

    fn encoded(rows: &Rows) -> Vec<u8> {
        let mut out = Vec::new();
        rows.encode(&mut out);
        out
    }

    proptest! {
        #[test]
        fn rows_are_read_as_they_were_written(rows in rows()) {
            prop_assert_eq!(Rows::decode(&encoded(&rows)), Ok(rows));
        }

        #[test]
        fn a_part_of_the_bytes_is_damaged(rows in rows(), at in any::<prop::sample::Index>()) {
            let bytes = encoded(&rows);
            prop_assert_eq!(Rows::decode(&bytes[..at.index(bytes.len())]), Err(DecodeError::Damaged));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let bytes: Vec<u8> = std::iter::once(VERSION).chain(bytes).collect();
            if let Ok(rows) = Rows::decode(&bytes) {
                prop_assert_eq!(Rows::decode(&encoded(&rows)), Ok(rows));
            }
        }
    }

    #[test]
    fn the_bytes_of_an_exposure_and_two_conversions() {
        let name = Name::of_number;
        let mut rows = Rows::default();
        rows.push_exposure(Exposure::new(NewExposure {
            experiment: name(3),
            at: 1_000,
            id: 7,
            variant: name(1),
            phase: 300,
            environment: name(2),
            segments: [name(4), name(5), name(6), name(7)],
            ingested_ms: 0,
            forced: true,
            mismatched: false,
        }));
        let scope = |experiment| Scope { environment: name(2), experiment };
        rows.push_conversion(Conversion::new(name(8), 1_001, 9, -1, scope(Some(name(3)))));
        rows.push_conversion(Conversion::new(name(9), 999, 10, 64, scope(None)));
        let id = |last: u8| {
            let mut id = [0; 16];
            id[0] = last;
            id
        };
        let mut expected = vec![1, 1, 3, 0xd0, 0x0f];
        expected.extend(id(7));
        // Phase 300; ingested a millisecond before the event's time; forced.
        expected.extend([1, 0xac, 0x02, 2, 4, 5, 6, 7, 1, 1]);
        expected.extend([2, 8, 2]);
        expected.extend(id(9));
        expected.extend([1, 2, 4]);
        expected.extend([1, 3]);
        expected.extend(id(10));
        expected.extend([0x80, 0x01, 2, 0]);
        assert_eq!(encoded(&rows), expected);
        assert_eq!(encoded(&Rows::default()), [1, 0, 0]);
    }

    #[test]
    fn another_version_and_more_bytes_are_refused() {
        assert_eq!(Rows::decode(&[2, 0, 0]), Err(DecodeError::Version(2)));
        assert_eq!(Rows::decode(&[1, 0, 0, 0]), Err(DecodeError::Damaged));
        // As many rows as there cannot be; a number of more than 64 bits.
        assert_eq!(Rows::decode(&[1, 0xff, 0xff, 0xff, 0x7f]), Err(DecodeError::Damaged));
        let ten = [1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02];
        assert_eq!(Rows::decode(&ten), Err(DecodeError::Damaged));
    }
}
