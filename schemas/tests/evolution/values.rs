//! Random values of any schema, as Avro binary: mostly values that an event may have, in one block or
//! several, with and without the sizes of blocks.

use std::collections::HashMap;

use schemas::Reason;
use serde_json::Value;

use super::random::Random;

pub struct Values<'a> {
    pub random: &'a mut Random,
    names: HashMap<String, Value>,
}

impl<'a> Values<'a> {
    pub fn new(schema: &Value, random: &'a mut Random) -> Values<'a> {
        let mut names = HashMap::new();
        declare(schema, &mut names);
        Values { random, names }
    }

    pub fn write(&mut self, schema: &Value, field: &str, bytes: &mut Vec<u8>) {
        match schema {
            Value::String(name) => match self.names.get(name).cloned() {
                Some(named) => self.write(&named, field, bytes),
                None => self.primitive(name, field, bytes),
            },
            Value::Array(branches) => {
                let mut branch = self.random.below(branches.len());
                // Mostly the null branch, so that linked lists end soon.
                if field == "next" && !self.random.one_in(4) {
                    branch = branches.iter().position(|branch| branch == "null").unwrap_or(branch);
                }
                long(branch as i64, bytes);
                self.write(&branches[branch], field, bytes);
            }
            Value::Object(_) => match schema["type"].as_str().unwrap() {
                "record" => {
                    for inner in schema["fields"].as_array().unwrap() {
                        self.write(&inner["type"], inner["name"].as_str().unwrap(), bytes);
                    }
                }
                "array" => self.items(&schema["items"], field, false, bytes),
                "map" => self.items(&schema["values"], field, true, bytes),
                "fixed" => bytes.extend(vec![7; schema["size"].as_u64().unwrap() as usize]),
                "enum" => long(self.random.below(3) as i64, bytes),
                name => self.primitive(name, field, bytes),
            },
            other => unreachable!("{other} is no schema"),
        }
    }

    fn primitive(&mut self, name: &str, field: &str, bytes: &mut Vec<u8>) {
        match name {
            "null" => {}
            "boolean" => bytes.push(self.random.below(2) as u8),
            "int" | "long" => long(self.number(field, name), bytes),
            "float" => bytes.extend([1, 2, 3, 4]),
            "double" => bytes.extend([1, 2, 3, 4, 5, 6, 7, 8]),
            "bytes" | "string" => {
                let text = self.text(field, name);
                long(text.len() as i64, bytes);
                bytes.extend(text);
            }
            other => unreachable!("{other} is no type"),
        }
    }

    /// Returns a number in the range of the field.
    fn number(&mut self, field: &str, name: &str) -> i64 {
        match field {
            "slot" | "rollout" | "variant" => self.random.below(1_000_000) as i64,
            "phase" => self.random.below(i32::MAX as usize) as i64 + 1,
            "definition_version" | "configuration_version" if name == "int" => {
                self.random.below(i32::MAX as usize) as i64
            }
            "definition_version" | "configuration_version" => (self.random.next() >> 1) as i64,
            // Above the range of seconds and milliseconds, where a long without a logical type is refused.
            "created_at" => (9_214_646_400_000 + self.random.below(2_000_000_000_000_000)) as i64,
            _ if name == "int" => i64::from(self.random.next() as i32),
            _ => self.random.next() as i64,
        }
    }

    fn text(&mut self, field: &str, name: &str) -> Vec<u8> {
        match field {
            "event_id" => {
                let id = u128::from(self.random.next()) << 64 | u128::from(self.random.next());
                schemas::Uuid::from_u128(id).to_string().into_bytes()
            }
            "value" => {
                // Sometimes fewer bytes than eighteen digits need, sometimes a redundant byte.
                let mut number =
                    (self.random.next() as i64 % 1_000_000_000_000_000_000).to_be_bytes().to_vec();
                number.drain(..self.random.below(8));
                if number[0] >= 0x80 && self.random.one_in(2) {
                    number.insert(0, 0xFF);
                }
                number
            }
            "reason" => self.random.pick(&Reason::NAMES).as_bytes().to_vec(),
            _ if name == "bytes" && self.random.one_in(50) => vec![0xFF, 0xFE],
            "unit_id" | "service" | "instance" | "library_version" => {
                "ünit ".repeat(self.random.below(4) + 1).into()
            }
            _ => {
                let length = self.random.below(20) + 1;
                (0..length).map(|_| *self.random.pick(b"abcXYZ019._-")).collect()
            }
        }
    }

    /// Writes at least one item: an empty map is valid whatever the type of its values.
    fn items(&mut self, item: &Value, field: &str, keyed: bool, bytes: &mut Vec<u8>) {
        for _ in 0..self.random.below(3) + 1 {
            let count = self.random.below(3) + 1;
            let mut block = Vec::new();
            for _ in 0..count {
                if keyed {
                    // Names that are no unit's type. A name is repeated only if any value is valid: the library
                    // drops the first value before it checks that it can be read.
                    let names = if item == "string" { 10 } else { usize::MAX };
                    let key = format!("x.{}", self.random.below(names));
                    long(key.len() as i64, &mut block);
                    block.extend(key.as_bytes());
                }
                self.write(item, field, &mut block);
            }
            if self.random.one_in(2) {
                long(-(count as i64), bytes);
                long(block.len() as i64, bytes);
            } else {
                long(count as i64, bytes);
            }
            bytes.extend(block);
        }
        bytes.push(0);
    }
}

/// Collects all named types, wherever they are declared.
fn declare(schema: &Value, names: &mut HashMap<String, Value>) {
    match schema {
        Value::Array(branches) => branches.iter().for_each(|branch| declare(branch, names)),
        Value::Object(fields) => {
            if let (Some(Value::String(name)), Some(Value::String(_))) =
                (fields.get("name"), fields.get("type"))
            {
                names.insert(name.clone(), schema.clone());
            }
            fields.values().for_each(|part| declare(part, names));
        }
        _ => {}
    }
}

pub fn long(value: i64, bytes: &mut Vec<u8>) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest >= 0x80 {
        bytes.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    bytes.push(rest as u8);
}
