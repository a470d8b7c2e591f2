//! The bounds of an exposure's attributes. Attributes beyond a bound are shortened, visibly: an exposure is
//! never refused because of its attributes, since that could remove more units from one arm than from the
//! other.

use super::{Event, Exposure, MAP_ENTRIES_MAX, Pairs, TEXT_BYTES_MAX};

/// The attributes that have columns of their own. They are kept before others.
pub const STANDARD_ATTRIBUTES: [&str; 4] = ["region", "plan", "device", "browser"];
/// The end of a value that was longer than [`TEXT_BYTES_MAX`]. With this mark, the value has at most that
/// length.
pub const CUT_MARK: &str = "…[cut]";
/// The attribute that counts the attributes that were left out, because there were more than
/// [`MAP_ENTRIES_MAX`] or they had more than [`ATTRIBUTES_BYTES_MAX`] bytes in total.
pub const LEFT_OUT: &str = "_left_out";
/// The maximum size of the attributes of an exposure that is sent: the bytes of all names and values. With all
/// other fields at their bounds, too, an exposure is not longer than [`super::EVENT_BYTES_MAX`].
pub const ATTRIBUTES_BYTES_MAX: usize = 32 * 1_024;

/// The bytes reserved for [`LEFT_OUT`] and its number.
const LEFT_OUT_BYTES: usize = 32;

impl Event<'_> {
    /// Brings an exposure's attributes into their bounds; attributes within the bounds do not change. Senders
    /// call this. Other events are not shortened.
    pub fn fit_attributes(&mut self) {
        if let Event::Exposure(exposure) = self {
            exposure.fit_attributes();
        }
    }
}

impl Exposure<'_> {
    /// See [`Event::fit_attributes`].
    pub fn fit_attributes(&mut self) {
        cut_values(&mut self.attributes);
        let bytes: usize = self.attributes.iter().map(size).sum();
        if self.attributes.len() > MAP_ENTRIES_MAX || bytes > ATTRIBUTES_BYTES_MAX {
            leave_out(&mut self.attributes);
        }
    }
}

/// Cuts the values that are longer than [`TEXT_BYTES_MAX`].
pub(crate) fn cut_values(attributes: &mut Pairs<'_>) {
    if attributes.iter().all(|(_, value)| value.len() <= TEXT_BYTES_MAX) {
        return;
    }
    let cut = |(name, value): (&str, &str)| {
        let kept = value.floor_char_boundary(TEXT_BYTES_MAX - CUT_MARK.len());
        let value = match value.len() <= TEXT_BYTES_MAX {
            true => value.to_owned(),
            false => [&value[..kept], CUT_MARK].concat(),
        };
        (name.to_owned(), value)
    };
    *attributes = attributes.iter().map(cut).collect();
}

/// Keeps the standard attributes and the first of the others that fit, in their order, and counts the rest.
fn leave_out(attributes: &mut Pairs<'_>) {
    let is_standard = |name: &str| STANDARD_ATTRIBUTES.contains(&name);
    let standard = || attributes.iter().filter(|(name, _)| is_standard(name));
    let mut entries_left = MAP_ENTRIES_MAX - 1 - standard().count();
    let mut bytes_left = ATTRIBUTES_BYTES_MAX - LEFT_OUT_BYTES - standard().map(size).sum::<usize>();
    let mut kept = Pairs::default();
    for (name, value) in attributes.iter() {
        let bytes = size((name, value));
        if is_standard(name) {
            kept.insert(name.to_owned(), value.to_owned());
        } else if entries_left > 0 && bytes <= bytes_left {
            entries_left -= 1;
            bytes_left -= bytes;
            kept.insert(name.to_owned(), value.to_owned());
        }
    }
    let left_out = attributes.len() - kept.len();
    kept.insert(LEFT_OUT, left_out.to_string());
    *attributes = kept;
}

fn size((name, value): (&str, &str)) -> usize {
    name.len() + value.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{EVENT_BYTES_MAX, UNIT_ID_BYTES_MAX};
    use crate::key::KEY_BYTES_MAX;

    fn exposure(attributes: Pairs<'static>) -> Exposure<'static> {
        let json = r#"{"event_id": "0191e3a0-0000-7000-8000-000000000001", "experiment": "e", "variant": "a",
            "unit_type": "user", "unit_id": "u1", "created_at": "2026-01-01T00:00:00Z"}"#;
        Exposure { attributes, ..serde_json::from_str(json).unwrap() }
    }

    fn fitted(attributes: Pairs<'static>) -> Pairs<'static> {
        let mut exposure = exposure(attributes);
        exposure.fit_attributes();
        assert_eq!(exposure.check(), Ok(()));
        exposure.attributes
    }

    fn one(value: String) -> Pairs<'static> {
        Pairs::from_iter([("region", value)])
    }

    #[test]
    fn a_value_is_cut_at_a_character_and_marked() {
        let cut = |value: String| fitted(one(value)).get("region").unwrap().to_owned();
        assert_eq!(CUT_MARK.len(), 8);
        assert_eq!(cut("x".repeat(1_024)), "x".repeat(1_024));
        assert_eq!(cut("x".repeat(1_025)), ["x".repeat(1_016).as_str(), "…[cut]"].concat());
        // With the `x`, 1,016 bytes end inside the 508th `é`.
        let value = ["x", &"é".repeat(512)].concat();
        assert_eq!(cut(value), ["x", &"é".repeat(507), "…[cut]"].concat());
        assert_eq!(cut("🦀".repeat(100_000)), ["🦀".repeat(254).as_str(), "…[cut]"].concat());
        // A value that was cut is not cut again.
        let once = fitted(one("x".repeat(5_000)));
        assert_eq!(fitted(once.clone()), once);
    }

    #[test]
    fn of_too_many_the_first_and_the_standard_ones_are_kept_and_the_others_counted() {
        let numbered = |count: usize| (0..count).map(|number| (format!("a{number}"), "x".to_owned()));
        let with_region = |count: usize| -> Pairs<'static> {
            numbered(count).chain([("region".to_owned(), "EU".to_owned())]).collect()
        };
        assert_eq!(fitted(with_region(63)), with_region(63));
        let kept = fitted(with_region(70));
        let mut expected = with_region(62);
        expected.insert(LEFT_OUT, "8");
        assert_eq!(kept, expected);
        assert_eq!(kept.len(), 64);
        assert_eq!(fitted(kept.clone()), kept);
    }

    #[test]
    fn attributes_that_are_too_long_together_are_left_out_from_where_they_do_not_fit() {
        // 31 entries of 1,026 bytes have 31,806 bytes; 32 have more than 32,768 minus the bytes of the count.
        let long = |count: usize| -> Pairs<'static> {
            (10..10 + count).map(|number| (number.to_string(), "x".repeat(1_024))).collect()
        };
        assert_eq!(fitted(long(31)), long(31));
        let mut pairs = long(33);
        pairs.insert("last", "short");
        let mut expected = long(31);
        expected.insert("last", "short");
        expected.insert(LEFT_OUT, "2");
        assert_eq!(fitted(pairs), expected);
    }

    /// All its other fields are at their bounds.
    #[test]
    fn no_exposure_is_too_long_by_its_attributes() {
        let key = |number: usize| format!("{number:0>KEY_BYTES_MAX$}");
        let mut longest = exposure((0..200).map(|number| (key(number), "x".repeat(4_000))).collect());
        let text = "s".repeat(TEXT_BYTES_MAX);
        longest.unit_id = "u".repeat(UNIT_ID_BYTES_MAX).into();
        longest.other_ids =
            (0..MAP_ENTRIES_MAX).map(|number| (key(number), "i".repeat(UNIT_ID_BYTES_MAX))).collect();
        for part in
            [&mut longest.experiment, &mut longest.variant, &mut longest.rule, &mut longest.environment]
        {
            *part = key(0).into();
        }
        longest.unit_type = key(999).into();
        longest.sender.service = text.clone().into();
        longest.sender.instance = text.clone().into();
        longest.sender.library_version = text.into();
        longest.phase = i32::MAX as u32;
        longest.definition_version = i64::MAX as u64;
        longest.configuration_version = i64::MAX as u64;
        let mut event = Event::Exposure(longest);
        event.fit_attributes();
        assert_eq!(event.check(), Ok(()));
        let bytes = crate::avro::encode(&event).len();
        assert!((50_000..=EVENT_BYTES_MAX).contains(&bytes), "{bytes} bytes");
    }

    #[test]
    fn the_metadata_of_a_conversion_is_not_shortened() {
        let json = r#"{"type": "conversion", "event_id": "0191e3a0-0000-7000-8000-000000000002", "name": "buy",
            "unit_type": "user", "unit_id": "u1", "created_at": "2026-01-01T00:00:00Z"}"#;
        let mut event: Event<'_> = serde_json::from_str(json).unwrap();
        if let Event::Conversion(conversion) = &mut event {
            conversion.metadata = one("x".repeat(1_025));
        }
        event.fit_attributes();
        assert_eq!(
            event.check().unwrap_err().to_string(),
            "metadata: the value of `region` has 1025 bytes, more than 1024"
        );
    }
}
