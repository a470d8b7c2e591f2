//! Regular expressions for tests that have no operator of their own: numbers written as text, the order of texts, text
//! without regard to case, and ranges of addresses. Each matches exactly the texts that its function names.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde_json::Number;

/// A number with more digits is not compared with texts.
const DIGITS_MAX: usize = 40;
/// A longer text is not compared by order.
const ORDERED_CHARS_MAX: usize = 200;

/// How a value is compared with a bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compare {
    Below,
    AtMost,
    Equal,
    AtLeast,
    Above,
}

impl Compare {
    pub fn operator(self) -> &'static str {
        match self {
            Compare::Below => "below",
            Compare::AtMost => "at_most",
            Compare::Equal => "equals",
            Compare::AtLeast => "at_least",
            Compare::Above => "above",
        }
    }

    /// The comparison with both sides exchanged.
    pub fn mirrored(self) -> Compare {
        match self {
            Compare::Below => Compare::Above,
            Compare::AtMost => Compare::AtLeast,
            Compare::Equal => Compare::Equal,
            Compare::AtLeast => Compare::AtMost,
            Compare::Above => Compare::Below,
        }
    }

    pub fn holds<T: PartialOrd>(self, value: T, bound: T) -> bool {
        match self {
            Compare::Below => value < bound,
            Compare::AtMost => value <= bound,
            Compare::Equal => value == bound,
            Compare::AtLeast => value >= bound,
            Compare::Above => value > bound,
        }
    }
}

/// Matches texts that are a plain decimal number (`12`, `-0.5`, `+3.`, with spaces around it; no exponent) which compares so
/// with the bound. `None` if the bound has too many digits.
pub fn decimal(compare: Compare, bound: &Number) -> Option<String> {
    let text =
        bound.as_f64().filter(|_| bound.is_f64()).map_or(bound.to_string(), |bound| format!("{bound}"));
    if text.len() > DIGITS_MAX || text.contains(['e', 'E']) {
        return None;
    }
    let negative = text.starts_with('-');
    let text = text.trim_start_matches('-');
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let bound = Magnitude {
        whole: whole.trim_start_matches('0').chars().collect(),
        fraction: fraction.trim_end_matches('0').chars().collect(),
    };
    let negative = negative && !bound.is_zero();
    let mut signed: Vec<String> = Vec::new();
    if matches!(compare, Compare::Below | Compare::AtMost) {
        if negative || bound.is_zero() {
            signed.extend(bound.above().iter().map(|text| format!("-{text}")));
        } else {
            signed.extend(bound.below().iter().map(|text| format!(r"\+?{text}")));
            signed.push(format!("-{ANY_NUMBER}"));
        }
    }
    if matches!(compare, Compare::Above | Compare::AtLeast) {
        if negative {
            signed.extend(bound.below().iter().map(|text| format!("-{text}")));
            signed.push(format!(r"\+?{ANY_NUMBER}"));
        } else {
            signed.extend(bound.above().iter().map(|text| format!(r"\+?{text}")));
        }
    }
    if matches!(compare, Compare::Equal | Compare::AtMost | Compare::AtLeast) {
        let sign = match (bound.is_zero(), negative) {
            (true, _) => "[+-]?",
            (false, true) => "-",
            (false, false) => r"\+?",
        };
        signed.extend(bound.equal().iter().map(|text| format!("{sign}{text}")));
    }
    Some(format!(r"^\s*(?:{})\s*$", signed.join("|")))
}

const ANY_NUMBER: &str = r"(?:[0-9]+\.?[0-9]*|\.[0-9]+)";
const ANY_FRACTION: &str = r"(?:\.[0-9]*)?";

/// The digits of a number without its sign: no zeros before the first or after the last digit.
struct Magnitude {
    whole: Vec<char>,
    fraction: Vec<char>,
}

impl Magnitude {
    fn is_zero(&self) -> bool {
        self.whole.is_empty() && self.fraction.is_empty()
    }

    /// Patterns of the numbers without a sign that are greater.
    fn above(&self) -> Vec<String> {
        let whole = text(&self.whole);
        let mut found = vec![format!("0*[1-9][0-9]{{{},}}{ANY_FRACTION}", self.whole.len())];
        for (at, digit) in self.whole.iter().enumerate().filter(|(_, digit)| **digit != '9') {
            let rest = self.whole.len() - at - 1;
            let (prefix, next) = (text(&self.whole[..at]), next_digit(*digit));
            found.push(format!("0*{prefix}[{next}-9]{}{ANY_FRACTION}", digits(rest)));
        }
        for (at, digit) in self.fraction.iter().enumerate().filter(|(_, digit)| **digit != '9') {
            let (prefix, next) = (text(&self.fraction[..at]), next_digit(*digit));
            found.push(format!(r"0*{whole}\.{prefix}[{next}-9][0-9]*"));
        }
        found.push(format!(r"0*{whole}\.{}0*[1-9][0-9]*", text(&self.fraction)));
        found
    }

    /// Patterns of the numbers without a sign that are less. Each has a digit.
    fn below(&self) -> Vec<String> {
        let whole = text(&self.whole);
        let mut found = Vec::new();
        if !self.whole.is_empty() {
            found.push(r"0+(?:\.[0-9]*)?".to_owned());
            found.push(r"0*\.[0-9]+".to_owned());
        }
        if self.whole.len() > 1 {
            found.push(match self.whole.len() - 2 {
                0 => format!("0*[1-9]{ANY_FRACTION}"),
                more => format!("0*[1-9][0-9]{{0,{more}}}{ANY_FRACTION}"),
            });
        }
        for (at, digit) in self.whole.iter().enumerate() {
            let lowest = if at == 0 { '1' } else { '0' };
            if *digit > lowest {
                let rest = self.whole.len() - at - 1;
                let (prefix, last) = (text(&self.whole[..at]), previous_digit(*digit));
                found.push(format!("0*{prefix}[{lowest}-{last}]{}{ANY_FRACTION}", digits(rest)));
            }
        }
        for (at, digit) in self.fraction.iter().enumerate() {
            let prefix = text(&self.fraction[..at]);
            if *digit > '0' {
                found.push(format!(r"0*{whole}\.{prefix}[0-{}][0-9]*", previous_digit(*digit)));
            }
            found.push(match (at, whole.is_empty()) {
                (0, true) => r"0+\.?".to_owned(),
                (0, false) => format!(r"0*{whole}\.?"),
                _ => format!(r"0*{whole}\.{prefix}"),
            });
        }
        found
    }

    fn equal(&self) -> Vec<String> {
        let (whole, fraction) = (text(&self.whole), text(&self.fraction));
        match (self.whole.is_empty(), self.fraction.is_empty()) {
            (true, true) => vec![r"0+(?:\.0*)?".to_owned(), r"0*\.0+".to_owned()],
            (false, true) => vec![format!(r"0*{whole}(?:\.0*)?")],
            (_, false) => vec![format!(r"0*{whole}\.{fraction}0*")],
        }
    }
}

fn text(digits: &[char]) -> String {
    digits.iter().collect()
}

/// Matches that many digits.
fn digits(count: usize) -> String {
    match count {
        0 => String::new(),
        1 => "[0-9]".to_owned(),
        count => format!("[0-9]{{{count}}}"),
    }
}

fn next_digit(digit: char) -> char {
    char::from(digit as u8 + 1)
}

fn previous_digit(digit: char) -> char {
    char::from(digit as u8 - 1)
}

/// Matches texts that come so in the order of their characters' numbers. `None` if the bound is too long.
pub fn order(compare: Compare, bound: &str) -> Option<String> {
    let characters: Vec<char> = bound.chars().collect();
    if characters.len() > ORDERED_CHARS_MAX {
        return None;
    }
    let mut found = Vec::new();
    let mut prefix = String::new();
    for character in &characters {
        if matches!(compare, Compare::Above | Compare::AtLeast)
            && let Some(next) = neighbour(*character, true)
        {
            found.push(format!(r"{prefix}[\x{{{:x}}}-\x{{10ffff}}]", u32::from(next)));
        }
        if matches!(compare, Compare::Below | Compare::AtMost) {
            found.push(format!("{prefix}$"));
            if let Some(previous) = neighbour(*character, false) {
                found.push(format!(r"{prefix}[\x00-\x{{{:x}}}]", u32::from(previous)));
            }
        }
        prefix.push_str(&escape(&character.to_string()));
    }
    match compare {
        Compare::Above => found.push(format!("{prefix}.")),
        Compare::AtLeast => found.push(prefix),
        Compare::AtMost | Compare::Equal => found.push(format!("{prefix}$")),
        Compare::Below => {}
    }
    if found.is_empty() {
        // Nothing comes before the empty text.
        return Some(r"[^\x00-\x{10ffff}]".to_owned());
    }
    Some(format!("(?s)^(?:{})", found.join("|")))
}

fn neighbour(character: char, after: bool) -> Option<char> {
    match (character, after) {
        ('\u{d7ff}', true) => Some('\u{e000}'),
        ('\u{e000}', false) => Some('\u{d7ff}'),
        (character, true) => char::from_u32(u32::from(character) + 1),
        (character, false) => u32::from(character).checked_sub(1).and_then(char::from_u32),
    }
}

/// Writes the text as a pattern that matches it alone.
pub fn escape(text: &str) -> String {
    regex::escape(text)
}

/// Writes the text as a pattern that matches it in capital and small letters of ASCII.
pub fn escape_ascii_case(text: &str) -> String {
    let mut pattern = String::new();
    for character in text.chars() {
        if character.is_ascii_alphabetic() {
            let (small, capital) = (character.to_ascii_lowercase(), character.to_ascii_uppercase());
            pattern.push_str(&format!("[{small}{capital}]"));
        } else {
            pattern.push_str(&escape(&character.to_string()));
        }
    }
    pattern
}

/// Translates a pattern of JavaScript: its classes are of ASCII, its dot stops at every end of a line. The caller checks
/// whether the result is a pattern.
pub fn from_javascript(pattern: &str) -> String {
    let mut written = String::new();
    let mut in_class = false;
    let mut characters = pattern.chars();
    while let Some(character) = characters.next() {
        match (character, in_class) {
            ('\\', _) => match (characters.next(), in_class) {
                (Some('d'), _) => written.push_str("[0-9]"),
                (Some('D'), _) => written.push_str("[^0-9]"),
                (Some('w'), _) => written.push_str("[0-9A-Za-z_]"),
                (Some('W'), _) => written.push_str("[^0-9A-Za-z_]"),
                (Some('b'), false) => written.push_str(r"(?-u:\b)"),
                (Some('b'), true) => written.push_str(r"\x08"),
                (Some('/'), _) => written.push('/'),
                (Some(escaped), _) => written.extend(['\\', escaped]),
                (None, _) => written.push('\\'),
            },
            ('.', false) => written.push_str(r"[^\n\r\x{2028}\x{2029}]"),
            ('[', false) => {
                in_class = true;
                written.push('[');
            }
            (']', true) => {
                in_class = false;
                written.push(']');
            }
            ('[' | '&' | '~', true) => written.extend(['\\', character]),
            (character, _) => written.push(character),
        }
    }
    written
}

/// Matches the addresses in the range, or the one address; `None` if the text is neither, or is a range that texts do not
/// show. Addresses of version 6 are matched as they are usually written, with `::` for the longest run of zeros.
pub fn address(range: &str) -> Option<String> {
    let (address, bits) = match range.split_once('/') {
        Some((address, bits)) => (address, Some(bits.parse::<u32>().ok()?)),
        None => (range, None),
    };
    if let Ok(address) = address.parse::<Ipv4Addr>() {
        let bits = bits.unwrap_or(32);
        return (bits <= 32).then(|| ipv4(address, bits));
    }
    let address: Ipv6Addr = address.parse().ok()?;
    match bits.unwrap_or(128) {
        128 => Some(format!("^(?i:{})$", escape(&address.to_string()))),
        bits if bits % 16 == 0 && bits > 0 && bits < 128 => {
            let groups = &address.segments()[..(bits / 16) as usize];
            let written: Vec<String> = groups.iter().map(|group| format!("0*{group:x}")).collect();
            let shows_zeros = groups.contains(&0);
            (!shows_zeros).then(|| format!("^(?i:{}:[0-9a-f:.]*)$", written.join(":")))
        }
        _ => None,
    }
}

fn ipv4(address: Ipv4Addr, bits: u32) -> String {
    let mut octets = Vec::new();
    for (index, octet) in (0..).zip(address.octets()) {
        let fixed = bits.saturating_sub(8 * index).min(8);
        octets.push(match fixed {
            8 => octet.to_string(),
            0 => "[0-9]{1,3}".to_owned(),
            fixed => {
                let width = 1_u32 << (8 - fixed);
                let first = u32::from(octet) / width * width;
                let all: Vec<String> = (first..first + width).map(|octet| octet.to_string()).collect();
                format!("(?:{})", all.join("|"))
            }
        });
    }
    format!("^{}$", octets.join(r"\."))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Compare; 5] =
        [Compare::Below, Compare::AtMost, Compare::Equal, Compare::AtLeast, Compare::Above];

    fn matches(pattern: &str, text: &str) -> bool {
        regex::Regex::new(pattern).unwrap_or_else(|error| panic!("{pattern}: {error}")).is_match(text)
    }

    /// Every pair of a short number and a bound, compared by the pattern and by the numbers.
    #[test]
    fn a_number_as_text_is_compared_like_the_number() {
        let bounds =
            ["0", "1", "-1", "9", "10", "12", "-12", "19.5", "0.5", "-0.25", "0.05", "100", "1.09", "99.99"];
        let mut texts: Vec<String> = Vec::new();
        for whole in ["", "0", "00", "1", "9", "10", "012", "12", "19", "99", "100", "1000"] {
            for fraction in ["", ".", ".0", ".5", ".25", ".05", ".049", ".051", ".09", ".099", ".50", ".999"]
            {
                for sign in ["", "-", "+"] {
                    texts.push(format!("{sign}{whole}{fraction}"));
                }
            }
        }
        let mut compared = 0;
        for bound in bounds {
            let number: Number = serde_json::from_str(bound).unwrap();
            for compare in ALL {
                let pattern = regex::Regex::new(&decimal(compare, &number).unwrap()).unwrap();
                for text in &texts {
                    let has_digit = text.contains(|digit: char| digit.is_ascii_digit());
                    let value: Option<f64> = has_digit.then(|| text.parse().unwrap());
                    let expected = value.is_some_and(|value| compare.holds(value, number.as_f64().unwrap()));
                    assert_eq!(pattern.is_match(text), expected, "{text:?} {compare:?} {bound}: {pattern}");
                    compared += 1;
                }
            }
        }
        assert_eq!(compared, 14 * 5 * 432);
    }

    #[test]
    fn no_other_text_is_a_number() {
        let pattern = decimal(Compare::AtLeast, &Number::from(0)).unwrap();
        assert!(matches(&pattern, " 7 "));
        for text in ["", " ", "x", "7x", "1e3", "0x10", "1,5", "--1", "Infinity"] {
            assert!(!matches(&pattern, text), "{text:?}");
        }
    }

    #[test]
    fn texts_are_ordered_by_their_characters() {
        let texts =
            ["", "A", "AZL", "a", "alpha", "alphabet", "alphabets", "always", "b", "zebra", "é", "😀"];
        for bound in texts {
            for text in texts {
                for compare in ALL {
                    let pattern = order(compare, bound).unwrap();
                    let expected = compare.holds(text, bound);
                    assert_eq!(
                        matches(&pattern, text),
                        expected,
                        "{text:?} {compare:?} {bound:?}: {pattern}"
                    );
                }
            }
        }
    }

    #[test]
    fn addresses_are_in_their_range() {
        for (range, inside, outside) in [
            ("127.0.0.1", "127.0.0.1", "127.0.0.2"),
            ("160.33.0.0/16", "160.33.7.255", "160.34.0.1"),
            ("10.1.2.128/26", "10.1.2.191", "10.1.2.192"),
            ("0.0.0.0/0", "8.8.8.8", "::1"),
            ("2001:db8::1", "2001:DB8::1", "2001:db8::2"),
            ("2001:db8::/32", "2001:db8:0:1::42", "2001:db9::1"),
        ] {
            let pattern = address(range).unwrap();
            assert!(matches(&pattern, inside), "{range} {pattern}");
            assert!(!matches(&pattern, outside), "{range} {pattern}");
        }
        for range in ["127.invalid", "1.2.3.4/33", "2001:db8::/33", "2001::/32", "::/0", "x/8"] {
            assert_eq!(address(range), None, "{range}");
        }
    }

    #[test]
    fn javascript_writes_some_patterns_differently() {
        for (pattern, yes, no) in [
            (r"^\d+$", "12", "١٢"),
            (r"^[\d.]+$", "1.2", "1,2"),
            (r"a.b", "a-b", "a\rb"),
            (r"\bcat\b", "a cat", "concat"),
            (r"^a\/b$", "a/b", "a//b"),
            (r"^[[&]+$", "[&", "x"),
        ] {
            let pattern = from_javascript(pattern);
            assert!(matches(&pattern, yes) && !matches(&pattern, no), "{pattern}");
        }
    }
}
