//! Names that are not keys here get one: each character that a key cannot have becomes `-`, and a number keeps two names apart.

use std::collections::{BTreeMap, BTreeSet};

use schemas::key::{KEY_BYTES_MAX, is_key};

/// The keys of the names in one key space.
#[derive(Clone, Debug, Default)]
pub struct Names {
    keys: BTreeMap<String, String>,
    taken: BTreeSet<String>,
}

impl Names {
    /// Names that are keys keep themselves, whatever the order.
    pub fn new<'a>(names: impl IntoIterator<Item = &'a str>) -> Names {
        let mut all = Names::default();
        let (keys, others): (Vec<&str>, Vec<&str>) = names.into_iter().partition(|name| is_key(name));
        for name in keys.into_iter().chain(others) {
            all.key(name);
        }
        all
    }

    /// Returns the key of the name, which is the same whenever it is asked.
    pub fn key(&mut self, name: &str) -> String {
        if let Some(key) = self.keys.get(name) {
            return key.clone();
        }
        let key = self.fresh(name);
        self.keys.insert(name.to_owned(), key.clone());
        key
    }

    /// Returns a key like `name` that nothing else has.
    pub fn fresh(&mut self, name: &str) -> String {
        let key = (1..).map(|count| numbered(name, count)).find(|key| !self.taken.contains(key));
        let key = key.expect("there are more numbers than names");
        self.taken.insert(key.clone());
        key
    }
}

/// The name as a key, the first of its kind or a later one.
fn numbered(name: &str, count: u32) -> String {
    let suffix = if count == 1 { String::new() } else { format!("-{count}") };
    let fits = |character: char| character.is_ascii_alphanumeric() || matches!(character, '.' | '_' | '-');
    let mut key: String =
        name.chars().map(|character| if fits(character) { character } else { '-' }).collect();
    if key.is_empty() {
        key = "unnamed".to_owned();
    }
    // Every character is ASCII now, so that a byte is a character.
    key.truncate(KEY_BYTES_MAX - suffix.len());
    key + &suffix
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_stay_and_others_are_told_apart() {
        let long = "n".repeat(70);
        let mut names = Names::new(["new checkout", "new-checkout", "new/checkout", "", "ünï", &long]);
        assert_eq!(names.key("new-checkout"), "new-checkout");
        assert_eq!(names.key("new checkout"), "new-checkout-2");
        assert_eq!(names.key("new/checkout"), "new-checkout-3");
        assert_eq!(names.key(""), "unnamed");
        assert_eq!(names.key("ünï"), "-n-");
        assert_eq!(names.key(&long), "n".repeat(64));
        assert_eq!(names.fresh(&long), format!("{}-2", "n".repeat(62)));
    }
}
