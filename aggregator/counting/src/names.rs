//! Texts as small numbers. The numbers follow the order in which texts were first seen, so they never leave this package:
//! whatever is shown, published or hashed is the text.

use hashbrown::HashMap;

/// The number of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(u32);

/// The texts of one kind, each with its number.
#[derive(Clone, Debug, Default)]
pub struct Names {
    numbers: HashMap<Box<str>, Name>,
    texts: Vec<Box<str>>,
}

impl Names {
    /// Returns the number of a text, which gets the next one if it is new.
    pub fn add(&mut self, text: &str) -> Name {
        if let Some(name) = self.numbers.get(text) {
            return *name;
        }
        let name = Name(u32::try_from(self.texts.len()).expect("there are fewer than 2^32 names"));
        self.numbers.insert(text.into(), name);
        self.texts.push(text.into());
        name
    }

    /// Returns the number of a text that was added.
    pub fn get(&self, text: &str) -> Option<Name> {
        self.numbers.get(text).copied()
    }

    /// Returns the number of the text that was added at this position, from 0.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn nth(&self, position: usize) -> Name {
        self.numbers[&self.texts[position]]
    }

    /// Returns the text of a number that [`Names::add`] returned.
    pub fn text(&self, name: Name) -> &str {
        &self.texts[name.0 as usize]
    }
}

impl Name {
    pub(crate) fn number(self) -> u32 {
        self.0
    }

    /// The name with a number that [`Name::number`] returned.
    pub(crate) fn of_number(number: u32) -> Name {
        Name(number)
    }

    /// The position among the names of its kind, from 0.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}
