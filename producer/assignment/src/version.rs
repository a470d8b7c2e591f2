//! Semantic versions (semver.org 2.0.0), parsed and compared by precedence without an allocation: attributes bring them with every
//! evaluation. Missing parts are zero, so `2.1` is `2.1.0`, and a leading `v` is skipped.

use std::cmp::Ordering;

/// A version that borrows its text.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Version<'a> {
    /// Major, minor, patch.
    core: [u64; 3],
    /// The pre-release identifiers, separated by dots; empty for a release. Build metadata has no precedence.
    pre: &'a str,
}

/// A version that owns its text.
#[derive(Clone, Debug)]
pub(crate) struct VersionBound {
    core: [u64; 3],
    pre: Box<str>,
}

impl From<Version<'_>> for VersionBound {
    fn from(version: Version<'_>) -> VersionBound {
        VersionBound { core: version.core, pre: version.pre.into() }
    }
}

impl VersionBound {
    fn version(&self) -> Version<'_> {
        Version { core: self.core, pre: &self.pre }
    }
}

impl<'a> Version<'a> {
    /// `None` for a text that is no version.
    pub(crate) fn parse(text: &'a str) -> Option<Version<'a>> {
        let text = text.strip_prefix('v').unwrap_or(text);
        let (core, tail) = parse_core(text)?;
        Some(Version { core, pre: parse_tail(tail)? })
    }

    /// Compares a text with a bound; a text that is no version has no order.
    pub(crate) fn compare_text(text: &str, bound: &VersionBound) -> Option<Ordering> {
        Some(Version::parse(text)?.compare(bound.version()))
    }

    /// Compares by semver's precedence, which ignores build metadata.
    pub(crate) fn compare(self, other: Version<'_>) -> Ordering {
        self.core.cmp(&other.core).then_with(|| match (self.pre.is_empty(), other.pre.is_empty()) {
            (true, true) => Ordering::Equal,
            // A release comes after its pre-releases.
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            (false, false) => compare_pre_releases(self.pre, other.pre),
        })
    }
}

/// Returns the one to three numbers with which the text begins, each without leading zeros and of at most 64 bits, and what
/// follows them.
fn parse_core(text: &str) -> Option<([u64; 3], &str)> {
    let mut core = [0_u64; 3];
    let (mut part, mut digits) = (0, 0);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'0'..=b'9' => {
                if digits > 0 && core[part] == 0 {
                    return None;
                }
                core[part] = core[part].checked_mul(10)?.checked_add(u64::from(byte - b'0'))?;
                digits += 1;
            }
            b'.' if digits > 0 && part < 2 => (part, digits) = (part + 1, 0),
            b'-' | b'+' if digits > 0 => return Some((core, &text[at..])),
            _ => return None,
        }
    }
    if digits > 0 { Some((core, "")) } else { None }
}

/// Returns the pre-release identifiers of what follows the numbers.
fn parse_tail(text: &str) -> Option<&str> {
    if text.is_empty() {
        return Some("");
    }
    let (text, build) = match text.split_once('+') {
        Some((text, build)) => (text, Some(build)),
        None => (text, None),
    };
    if build.is_some_and(|build| !build.split('.').all(is_identifier)) {
        return None;
    }
    match text.strip_prefix('-') {
        Some(pre) => pre.split('.').all(is_pre_release).then_some(pre),
        None => text.is_empty().then_some(""),
    }
}

fn is_identifier(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

fn is_pre_release(text: &str) -> bool {
    is_identifier(text) && (!is_numeric(text) || text == "0" || !text.starts_with('0'))
}

fn is_numeric(identifier: &str) -> bool {
    identifier.bytes().all(|byte| byte.is_ascii_digit())
}

fn compare_pre_releases(left: &str, right: &str) -> Ordering {
    let (mut left, mut right) = (left.split('.'), right.split('.'));
    loop {
        match (left.next(), right.next()) {
            (None, None) => return Ordering::Equal,
            (None, Some(_)) => return Ordering::Less,
            (Some(_), None) => return Ordering::Greater,
            (Some(left), Some(right)) => {
                let order = match (is_numeric(left), is_numeric(right)) {
                    // Without leading zeros the longer number is the larger one, however long it is.
                    (true, true) => left.len().cmp(&right.len()).then_with(|| left.cmp(right)),
                    (true, false) => Ordering::Less,
                    (false, true) => Ordering::Greater,
                    (false, false) => left.cmp(right),
                };
                if order.is_ne() {
                    return order;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The same by the `semver` package.
    fn reference(text: &str) -> Option<semver::Version> {
        let text = text.strip_prefix('v').unwrap_or(text);
        let (core, tail) = match text.find(['-', '+']) {
            Some(at) => text.split_at(at),
            None => (text, ""),
        };
        let missing = 2_usize.checked_sub(core.matches('.').count())?;
        semver::Version::parse(&format!("{core}{}{tail}", ".0".repeat(missing))).ok()
    }

    #[test]
    fn precedence_by_the_standard() {
        let ordered = [
            "0.9.9",
            "1-alpha",
            "1.0.0-alpha.1",
            "1.0.0-alpha.beta",
            "1.0.0-beta",
            "1.0-beta.2",
            "1.0.0-beta.11",
            "1.0.0-rc.1",
            "v1",
            "1.0.1",
            "1.2",
            "1.10",
            "2",
        ];
        for (index, left) in ordered.iter().enumerate() {
            for (other, right) in ordered.iter().enumerate() {
                let order = Version::parse(left).unwrap().compare(Version::parse(right).unwrap());
                assert_eq!(order, index.cmp(&other), "{left} {right}");
            }
        }
        let build = Version::parse("1.0.0+a").unwrap().compare(Version::parse("1+b").unwrap());
        assert_eq!(build, Ordering::Equal);
        for text in [
            "",
            "1.",
            ".1",
            "1.2.3.4",
            "01",
            "1.0.0-",
            "1.0.0-01",
            "1.0.0+",
            "1 ",
            "x",
            "vv1",
            "18446744073709551616",
        ] {
            assert!(Version::parse(text).is_none(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn agrees_with_the_semver_package(left in "v?[0-9.]{1,7}(-[0-9a-b.-]{0,6})?(\\+[0-9a-b.-]{0,4})?",
                                          right in "v?[0-9.]{1,7}(-[0-9a-b.-]{0,6})?(\\+[0-9a-b.-]{0,4})?") {
            let (ours, theirs) = (Version::parse(&left), reference(&left));
            prop_assert_eq!(ours.is_some(), theirs.is_some());
            if let (Some(left), Some(right)) = (ours, Version::parse(&right)) {
                let expected = theirs.unwrap().cmp_precedence(&reference(&right.clone_text()).unwrap());
                prop_assert_eq!(left.compare(right), expected);
            }
        }
    }

    impl Version<'_> {
        fn clone_text(&self) -> String {
            let [major, minor, patch] = self.core;
            let pre = if self.pre.is_empty() { String::new() } else { format!("-{}", self.pre) };
            format!("{major}.{minor}.{patch}{pre}")
        }
    }
}
