//! A quick decoder for records written with our own schema that have no text of 64 bytes or more and no map in
//! several blocks, as nearly all have. Then every length is one byte below 0x80, so a run of texts is UTF-8
//! as a whole, lengths included, and is checked at once. Any other message, and any invalid one, is left to
//! the general decoder, which reads everything and reports errors.

use uuid::Uuid;

use crate::event::{Buckets, Conversion, Exposure, Pairs, Reason, Sender};
use crate::time::Micros;

use super::plan::Body;

pub fn exposure(body: Body<'_>) -> Option<Exposure<'_>> {
    let mut quick = Quick::at(body);
    let [event_id, experiment, variant, unit_type, unit_id] = quick.texts()?;
    let other_ids = quick.map()?;
    let phase = quick.unsigned()?;
    let definition_version = quick.unsigned()?;
    let configuration_version = quick.unsigned()?;
    let buckets = match quick.branch()? {
        0 => None,
        _ => {
            Some(Buckets { slot: quick.unsigned()?, rollout: quick.unsigned()?, variant: quick.unsigned()? })
        }
    };
    let [rule, reason] = quick.texts()?;
    let attributes = quick.map()?;
    let [environment, service, instance, library_version] = quick.texts()?;
    let created_at = quick.time()?;
    quick.end()?;
    Some(Exposure {
        event_id: uuid(event_id)?,
        experiment: experiment.into(),
        variant: variant.into(),
        unit_type: unit_type.into(),
        unit_id: unit_id.into(),
        other_ids,
        phase,
        definition_version,
        configuration_version,
        buckets,
        rule: rule.into(),
        reason: Reason::parse(reason)?,
        attributes,
        environment: environment.into(),
        sender: sender(service, instance, library_version),
        created_at,
    })
}

/// Decodes a conversion without a value: a value is not text.
pub fn conversion(body: Body<'_>) -> Option<Conversion<'_>> {
    let mut quick = Quick::at(body);
    let [event_id, name, unit_type, unit_id] = quick.texts()?;
    let other_ids = quick.map()?;
    let experiment = match quick.branch()? {
        0 => None,
        _ => Some(quick.texts::<1>()?[0].into()),
    };
    let value = match quick.branch()? {
        0 => None,
        _ => return None,
    };
    let metadata = quick.map()?;
    let [environment, service, instance, library_version] = quick.texts()?;
    let created_at = quick.time()?;
    quick.end()?;
    Some(Conversion {
        event_id: uuid(event_id)?,
        name: name.into(),
        unit_type: unit_type.into(),
        unit_id: unit_id.into(),
        other_ids,
        experiment,
        value,
        metadata,
        environment: environment.into(),
        sender: sender(service, instance, library_version),
        created_at,
    })
}

struct Quick<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Quick<'a> {
    fn at(body: Body<'a>) -> Quick<'a> {
        Quick { bytes: body.message, at: body.at }
    }

    /// Reads `N` consecutive texts.
    #[inline]
    fn texts<const N: usize>(&mut self) -> Option<[&'a str; N]> {
        let start = self.at;
        let mut ends = [0; N];
        for end in &mut ends {
            self.pass_text()?;
            *end = self.at - start;
        }
        let run = self.run_since(start)?;
        let mut texts = [""; N];
        let mut begin = 0;
        for (text, end) in texts.iter_mut().zip(ends) {
            // `None` if a character spans two texts.
            *text = run.get(begin + 1..end)?;
            begin = end;
        }
        Some(texts)
    }

    #[inline]
    fn map(&mut self) -> Option<Pairs<'a>> {
        let entries = self.length()?;
        self.at += 1;
        if entries == 0 {
            return Some(Pairs::default());
        }
        let start = self.at;
        for _ in 0..2 * entries {
            self.pass_text()?;
        }
        let pairs = Pairs::from_encoded(self.run_since(start)?, entries)?;
        // The map must not have a second block.
        (self.length()? == 0).then(|| {
            self.at += 1;
            pairs
        })
    }

    /// Returns the length of a text or the count of a map, if it is one byte and not negative.
    #[inline]
    fn length(&self) -> Option<usize> {
        let byte = *self.bytes.get(self.at)?;
        (byte & 0x81 == 0).then_some(usize::from(byte >> 1))
    }

    #[inline]
    fn pass_text(&mut self) -> Option<()> {
        self.at += 1 + self.length()?;
        Some(())
    }

    #[inline]
    fn run_since(&self, start: usize) -> Option<&'a str> {
        std::str::from_utf8(self.bytes.get(start..self.at)?).ok()
    }

    /// Reads a number of at most eight bytes that is not negative and fits `T`.
    #[inline]
    fn unsigned<T: TryFrom<u64>>(&mut self) -> Option<T> {
        let mut value = 0;
        for (index, byte) in self.bytes.get(self.at..)?.iter().take(8).enumerate() {
            value |= u64::from(byte & 0x7F) << (7 * index);
            if byte & 0x80 == 0 {
                self.at += index + 1;
                return (value & 1 == 0).then(|| T::try_from(value >> 1).ok())?;
            }
        }
        None
    }

    #[inline]
    fn time(&mut self) -> Option<Micros> {
        Micros::new(self.unsigned()?).ok()
    }

    /// Reads the branch of a union of null and one other type.
    #[inline]
    fn branch(&mut self) -> Option<usize> {
        let branch = self.length()?;
        self.at += 1;
        (branch < 2).then_some(branch)
    }

    fn end(&self) -> Option<()> {
        (self.at == self.bytes.len()).then_some(())
    }
}

fn uuid(text: &str) -> Option<Uuid> {
    Uuid::try_parse_ascii(text.as_bytes()).ok()
}

fn sender<'a>(service: &'a str, instance: &'a str, library_version: &'a str) -> Sender<'a> {
    Sender { service: service.into(), instance: instance.into(), library_version: library_version.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::avro::{AvroRecord, DecodeError, RecordKind, known, open};
    use crate::event::Event;

    /// Decodes a message with the quick and with the general decoder.
    fn both<'a, T: AvroRecord<'a>>(kind: RecordKind, message: &'a [u8]) -> [Result<T, DecodeError>; 2] {
        let plan = known(kind, kind.fingerprint()).unwrap();
        let body = |message| open(kind, message).map(|(_, body)| body);
        [
            body(message).and_then(|body| plan.decode(body)),
            body(message).and_then(|body| plan.decode_slowly(body)),
        ]
    }

    fn written(event: serde_json::Value) -> Vec<u8> {
        crate::avro::encode(&serde_json::from_value::<Event<'_>>(event).unwrap())
    }

    fn exposures() -> Vec<Vec<u8>> {
        let long = "x".repeat(64);
        let event = |unit_id: &str, other_ids, attributes, buckets, (rule, reason): (&str, &str)| {
            written(serde_json::json!({
                "type": "exposure", "event_id": "0191e3a0-0000-7000-8000-000000000001",
                "experiment": "checkout", "variant": "treatment", "unit_type": "user", "unit_id": unit_id,
                "other_ids": other_ids, "definition_version": 77, "configuration_version": 300,
                "buckets": buckets, "rule": rule, "reason": reason,
                "attributes": attributes, "sender": {"service": "web", "instance": "é"},
                "created_at": "2026-01-01T00:00:00Z",
            }))
        };
        let none = serde_json::json!({});
        let some = serde_json::json!({"region": "DE", "plan": "größer", "empty": ""});
        let buckets = serde_json::json!({"slot": 1, "rollout": 999_999, "variant": 64});
        vec![
            event("u", none.clone(), none.clone(), serde_json::Value::Null, ("", "forced")),
            event(
                "größer",
                serde_json::json!({"device": "d1"}),
                some.clone(),
                buckets.clone(),
                ("rule", "held_out"),
            ),
            event(&long, none.clone(), some, buckets, ("", "split")),
            event("u", none, serde_json::json!({"region": long}), serde_json::Value::Null, ("", "split")),
        ]
    }

    fn conversions() -> Vec<Vec<u8>> {
        let event = |experiment, value| {
            written(serde_json::json!({
                "type": "conversion", "event_id": "0191e3a0-0000-7000-8000-000000000002", "name": "buy",
                "unit_type": "user", "unit_id": "u", "experiment": experiment, "value": value,
                "metadata": {"region": "DE"}, "created_at": "2026-01-01T00:00:00Z",
            }))
        };
        let null = serde_json::Value::Null;
        vec![
            event(null.clone(), null.clone()),
            event("checkout".into(), null.clone()),
            event(null, "12.5".into()),
        ]
    }

    /// Returns every message that differs from `message` in one byte, and every proper prefix of it.
    fn corrupted(message: &[u8]) -> impl Iterator<Item = Vec<u8>> {
        let changed = (0..message.len()).flat_map(move |at| {
            (0..=255_u8).map(move |byte| {
                let mut changed = message.to_vec();
                changed[at] = byte;
                changed
            })
        });
        changed.chain((0..message.len()).map(|end| message[..end].to_vec()))
    }

    fn expect_both_agree(kind: RecordKind, messages: &[Vec<u8>]) {
        for message in messages.iter().flat_map(|message| corrupted(message)) {
            let alike = match kind {
                RecordKind::Exposure => {
                    let [quick, slow] = both::<Exposure<'_>>(kind, &message);
                    quick == slow
                }
                _ => {
                    let [quick, slow] = both::<Conversion<'_>>(kind, &message);
                    quick == slow
                }
            };
            assert!(alike, "{message:02x?}");
        }
    }

    #[test]
    fn both_decoders_agree_on_every_exposure_that_differs_in_one_byte() {
        expect_both_agree(RecordKind::Exposure, &exposures());
    }

    #[test]
    fn both_decoders_agree_on_every_conversion_that_differs_in_one_byte() {
        expect_both_agree(RecordKind::Conversion, &conversions());
    }

    #[test]
    fn the_quick_decoder_reads_short_texts() {
        let quick: Vec<bool> = exposures()
            .iter()
            .map(|message| exposure(open(RecordKind::Exposure, message).unwrap().1).is_some())
            .collect();
        assert_eq!(quick, [true, true, false, false]);
        let quick: Vec<bool> = conversions()
            .iter()
            .map(|message| conversion(open(RecordKind::Conversion, message).unwrap().1).is_some())
            .collect();
        assert_eq!(quick, [true, true, false]);
    }

    /// A name given twice is kept once, with the last value, by either decoder.
    #[test]
    fn a_name_given_twice_is_left_to_the_general_decoder() {
        let message = &exposures()[1];
        let at = message.windows(5).position(|window| window == b"empty").unwrap();
        let mut twice = message.clone();
        twice[at..at + 5].copy_from_slice(b"regio");
        let at = message.windows(6).position(|window| window == b"region").unwrap();
        twice.remove(at + 5);
        twice[at - 1] = 10;
        let [quick, slow] = both::<Exposure<'_>>(RecordKind::Exposure, &twice);
        assert_eq!(quick, slow);
        let attributes = quick.unwrap().attributes;
        assert_eq!(attributes.iter().collect::<Vec<_>>(), [("regio", "DE"), ("plan", "größer")]);
    }
}
