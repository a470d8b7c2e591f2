//! What the metadata of a flag says about an exposure: written into every bulk answer, and read back when a client reports
//! that it has read the value. Metadata is flat, of texts, numbers and booleans, as the protocol demands.
//!
//! The names are those of the exposure's fields. One evaluation may expose its unit more than once (to an experiment and to
//! holdouts); the names of the second exposure end in `.2`, those of the third in `.3`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::io::Write as _;

use schemas::event::Buckets;
use schemas::{Exposure, Reason};
use serde::Deserialize;
use serde::de::{Deserializer, Error, Visitor};

/// Whether the server has the exposures in its log, by this request or by an earlier one within the hour, so that nobody
/// reports them again.
pub const LOGGED: &str = "exposure_logged";

/// The metadata of a flag or an event, as a client sends it.
pub type Sent<'a> = BTreeMap<Cow<'a, str>, Scalar<'a>>;

/// A value that metadata may have.
#[derive(Clone, Debug, PartialEq)]
pub enum Scalar<'a> {
    Boolean(bool),
    /// JavaScript has only doubles, so a whole one is an integer.
    Integer(i64),
    Number(f64),
    Text(Cow<'a, str>),
}

/// What an exposure says besides its unit, its time and its attributes.
#[derive(Clone, Debug, PartialEq)]
pub struct Reported<'a> {
    pub experiment: Cow<'a, str>,
    pub variant: Cow<'a, str>,
    pub unit_type: Cow<'a, str>,
    /// Of a switchback: when the window began in which the value was evaluated, in seconds since 1970.
    pub window_start_s: Option<u64>,
    pub phase: u32,
    pub definition_version: u64,
    pub configuration_version: u64,
    pub buckets: Option<Buckets>,
    pub rule: Cow<'a, str>,
    pub reason: Reason,
}

/// Writes an object with the exposures of one evaluation. `logged` is given where the server logs them, or would.
pub fn write<'e, 'a: 'e>(
    out: &mut Vec<u8>,
    exposures: impl Iterator<Item = &'e Exposure<'a>>,
    logged: Option<bool>,
) {
    out.push(b'{');
    let mut any = false;
    for (index, exposure) in exposures.enumerate() {
        let suffix = if index == 0 { String::new() } else { format!(".{}", index + 1) };
        if any {
            out.push(b',');
        }
        write_exposure(&mut Fields { out, suffix: &suffix }, exposure);
        any = true;
    }
    // A flag that exposes nobody has nothing to log.
    if let Some(logged) = logged.filter(|_| any) {
        write!(out, ",\"{LOGGED}\":{logged}").expect("memory can be written");
    }
    out.push(b'}');
}

fn write_exposure(fields: &mut Fields<'_>, exposure: &Exposure<'_>) {
    fields.first_text("experiment", &exposure.experiment);
    fields.text("variant", &exposure.variant);
    fields.text("unit_type", &exposure.unit_type);
    if let Some(unit) = exposure.switchback_unit() {
        fields.number("window_start", unit.window_start_s());
    }
    fields.number("phase", exposure.phase.into());
    fields.number("definition_version", exposure.definition_version);
    fields.number("configuration_version", exposure.configuration_version);
    if let Some(Buckets { slot, rollout, variant }) = exposure.buckets {
        fields.number("bucket_slot", slot.into());
        fields.number("bucket_rollout", rollout.into());
        fields.number("bucket_variant", variant.into());
    }
    if !exposure.rule.is_empty() {
        fields.text("rule", &exposure.rule);
    }
    fields.text("exposure_reason", exposure.reason.as_str());
}

/// Writes fields straight into the answer. Formatted by `write!`, a dozen of them cost more than the evaluation.
struct Fields<'o> {
    out: &'o mut Vec<u8>,
    /// Ends each name.
    suffix: &'o str,
}

impl Fields<'_> {
    fn first_text(&mut self, name: &str, value: &str) {
        for part in ["\"", name, self.suffix, "\":\"", value, "\""] {
            self.out.extend_from_slice(part.as_bytes());
        }
    }

    /// `value` is a key, which needs no escapes in JSON.
    fn text(&mut self, name: &str, value: &str) {
        self.out.push(b',');
        self.first_text(name, value);
    }

    fn number(&mut self, name: &str, value: u64) {
        for part in [",\"", name, self.suffix, "\":"] {
            self.out.extend_from_slice(part.as_bytes());
        }
        serde_json::to_writer(&mut *self.out, &value).expect("memory can be written");
    }
}

/// Reads what [`write`] wrote for one exposure; other names are ignored.
///
/// # Errors
/// Names the field that is missing or has another type.
pub fn read<'a>(
    sent: &Sent<'a>,
    experiment: &'a str,
    variant: Option<&Cow<'a, str>>,
) -> Result<Reported<'a>, String> {
    if let Some(named) = text(sent, "experiment")?
        && named != experiment
    {
        return Err(format!(
            "metadata.experiment is `{named}`, key is `{experiment}`: they name one experiment"
        ));
    }
    let evaluated = text(sent, "variant")?;
    if let (Some(variant), Some(evaluated)) = (variant, &evaluated)
        && variant != evaluated
    {
        return Err(format!(
            "variant is `{variant}`, metadata.variant is `{evaluated}`: they name one variant"
        ));
    }
    let bucket = |name| {
        integer(sent, name).map(|bucket| bucket.map(|bucket| u32::try_from(bucket).unwrap_or(u32::MAX)))
    };
    let buckets = match (bucket("bucket_slot")?, bucket("bucket_rollout")?, bucket("bucket_variant")?) {
        (Some(slot), Some(rollout), Some(variant)) => Some(Buckets { slot, rollout, variant }),
        (None, None, None) => None,
        _ => {
            return Err(
                "metadata needs all of bucket_slot, bucket_rollout and bucket_variant, or none".to_owned()
            );
        }
    };
    let reason = match text(sent, "exposure_reason")? {
        None => Reason::Split,
        Some(name) => Reason::parse(&name).ok_or_else(|| {
            format!("metadata.exposure_reason is `{name}`; it is one of {}", Reason::NAMES.join(", "))
        })?,
    };
    Ok(Reported {
        experiment: experiment.into(),
        variant: match variant {
            Some(variant) => variant.clone(),
            None => required(evaluated, "variant")?,
        },
        unit_type: required(text(sent, "unit_type")?, "unit_type")?,
        window_start_s: integer(sent, "window_start")?,
        phase: u32::try_from(required(integer(sent, "phase")?, "phase")?).unwrap_or(u32::MAX),
        definition_version: required(integer(sent, "definition_version")?, "definition_version")?,
        configuration_version: required(integer(sent, "configuration_version")?, "configuration_version")?,
        buckets,
        rule: text(sent, "rule")?.unwrap_or_default(),
        reason,
    })
}

fn required<T>(value: Option<T>, name: &str) -> Result<T, String> {
    value.ok_or_else(|| format!("metadata.{name} is missing: an exposure returns the metadata of its flag"))
}

fn text<'a>(sent: &Sent<'a>, name: &str) -> Result<Option<Cow<'a, str>>, String> {
    match sent.get(name) {
        None => Ok(None),
        Some(Scalar::Text(text)) => Ok(Some(text.clone())),
        Some(_) => Err(format!("metadata.{name} is no text")),
    }
}

fn integer(sent: &Sent<'_>, name: &str) -> Result<Option<u64>, String> {
    match sent.get(name) {
        None => Ok(None),
        Some(Scalar::Integer(value)) if *value >= 0 => Ok(Some(value.unsigned_abs())),
        Some(_) => Err(format!("metadata.{name} is no whole number from 0 on")),
    }
}

impl Scalar<'_> {
    pub const EXPECTED: &'static str = "a text, a number, true or false";
}

impl fmt::Display for Scalar<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Scalar::Boolean(value) => value.fmt(out),
            Scalar::Integer(value) => value.fmt(out),
            Scalar::Number(value) => serde_json::Value::from(*value).fmt(out),
            Scalar::Text(text) => text.fmt(out),
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Scalar<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Scalar<'a>, D::Error> {
        struct AnyScalar;

        impl<'de> Visitor<'de> for AnyScalar {
            type Value = Scalar<'de>;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str(Scalar::EXPECTED)
            }

            fn visit_bool<E: Error>(self, value: bool) -> Result<Scalar<'de>, E> {
                Ok(Scalar::Boolean(value))
            }

            fn visit_i64<E: Error>(self, value: i64) -> Result<Scalar<'de>, E> {
                Ok(Scalar::Integer(value))
            }

            fn visit_u64<E: Error>(self, value: u64) -> Result<Scalar<'de>, E> {
                Ok(i64::try_from(value).map_or(Scalar::Number(value as f64), Scalar::Integer))
            }

            fn visit_f64<E: Error>(self, value: f64) -> Result<Scalar<'de>, E> {
                // Up to 2^53 a whole double is one integer.
                let whole = value.fract() == 0.0 && value.abs() <= 9_007_199_254_740_992.0;
                Ok(if whole { Scalar::Integer(value as i64) } else { Scalar::Number(value) })
            }

            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Scalar<'de>, E> {
                Ok(Scalar::Text(text.into()))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Scalar<'de>, E> {
                Ok(Scalar::Text(text.to_owned().into()))
            }
        }

        deserializer.deserialize_any(AnyScalar)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exposure(json: &str) -> Exposure<'static> {
        serde_json::from_str(json).unwrap()
    }

    const SPLIT: &str = r#"{"event_id": "0191e3a0-0000-7000-8000-000000000001", "experiment": "e", "variant": "b",
        "unit_type": "user", "unit_id": "u1", "phase": 2, "definition_version": 7, "configuration_version": 9,
        "buckets": {"slot": 1, "rollout": 2, "variant": 999999}, "rule": "eu", "created_at": "2026-01-01T00:00:00Z"}"#;
    const HELD_OUT: &str = r#"{"event_id": "0191e3a0-0000-7000-8000-000000000001", "experiment": "h", "variant": "out",
        "unit_type": "account", "unit_id": "a1", "reason": "held_out", "created_at": "2026-01-01T00:00:00Z"}"#;

    const WINDOW: &str = r#"{"event_id": "0191e3a0-0000-7000-8000-000000000001", "experiment": "s", "variant": "b",
        "unit_type": "region", "unit_id": "eu\u00001767225600", "other_ids": {"region": "eu"},
        "created_at": "2026-01-01T00:00:00Z"}"#;

    fn written(exposures: &[Exposure<'_>], logged: Option<bool>) -> String {
        let mut out = Vec::new();
        write(&mut out, exposures.iter(), logged);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn exposures_are_flat_and_numbered() {
        assert_eq!(written(&[], Some(true)), "{}");
        assert_eq!(
            written(&[exposure(SPLIT)], Some(true)),
            concat!(
                r#"{"experiment":"e","variant":"b","unit_type":"user","phase":2,"definition_version":7,"#,
                r#""configuration_version":9,"bucket_slot":1,"bucket_rollout":2,"bucket_variant":999999,"#,
                r#""rule":"eu","exposure_reason":"split","exposure_logged":true}"#
            )
        );
        assert!(
            written(&[exposure(WINDOW)], None)
                .contains(r#""unit_type":"region","window_start":1767225600,"phase":1,"#)
        );
        let both = written(&[exposure(SPLIT), exposure(HELD_OUT)], None);
        assert!(
            both.ends_with(concat!(
                r#""exposure_reason":"split","experiment.2":"h","variant.2":"out","unit_type.2":"account","phase.2":1,"#,
                r#""definition_version.2":0,"configuration_version.2":0,"exposure_reason.2":"held_out"}"#
            )),
            "{both}"
        );
    }

    #[test]
    fn what_was_written_is_read_back() {
        for json in [SPLIT, HELD_OUT, WINDOW] {
            let exposure = exposure(json);
            let text = written(std::slice::from_ref(&exposure), None);
            let sent: Sent = serde_json::from_str(&text).unwrap();
            let read = read(&sent, &exposure.experiment, None).unwrap();
            let expected = Reported {
                experiment: exposure.experiment.clone(),
                variant: exposure.variant.clone(),
                unit_type: exposure.unit_type.clone(),
                window_start_s: exposure.switchback_unit().map(schemas::SwitchbackUnit::window_start_s),
                phase: exposure.phase,
                definition_version: exposure.definition_version,
                configuration_version: exposure.configuration_version,
                buckets: exposure.buckets,
                rule: exposure.rule.clone(),
                reason: exposure.reason,
            };
            assert_eq!(read, expected);
        }
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        let text = written(&[exposure(SPLIT)], None);
        let refused = |text: &str, experiment: &'static str| {
            let sent: Sent = serde_json::from_str(text).unwrap();
            read(&sent, experiment, None).unwrap_err()
        };
        assert_eq!(
            refused(&text, "other"),
            "metadata.experiment is `e`, key is `other`: they name one experiment"
        );
        assert_eq!(
            refused("{}", "e"),
            "metadata.variant is missing: an exposure returns the metadata of its flag"
        );
        assert_eq!(
            refused(&text.replace("\"phase\":2", "\"phase\":2.5"), "e"),
            "metadata.phase is no whole number from 0 on"
        );
        assert_eq!(
            refused(&text.replace("\"bucket_slot\":1,", ""), "e"),
            "metadata needs all of bucket_slot, bucket_rollout and bucket_variant, or none"
        );
        assert_eq!(
            refused(&text.replace("split", "drawn"), "e"),
            "metadata.exposure_reason is `drawn`; it is one of split, forced, held_out"
        );
        // An exposure said another variant than the evaluation that it returns.
        let sent: Sent = serde_json::from_str(&text).unwrap();
        assert_eq!(
            read(&sent, "e", Some(&"a".into())).unwrap_err(),
            "variant is `a`, metadata.variant is `b`: they name one variant"
        );
        assert_eq!(read(&sent, "e", Some(&"b".into())).unwrap().variant, "b");
        // JavaScript may print a whole number with a point.
        let text = text.replace("\"phase\":2", "\"phase\":2.0");
        let sent: Sent = serde_json::from_str(&text).unwrap();
        assert_eq!(read(&sent, "e", None).unwrap().phase, 2);
    }
}
