//! The attributes of simulated units: a population with known shares of regions, plans, devices and browsers.

use assignment::{Name, Value};
use schemas::Pairs;

use super::random::Random;
use sdk::attributes::{AttributeFilter, SelectedAttributes};

/// The population that units are drawn from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mix {
    /// Four attributes, drawn independently of each other with the shares below.
    Default,
    /// Units without attributes.
    None,
}

/// The values of an attribute with their shares in percent.
type Shares = &'static [(&'static str, u64)];

const ATTRIBUTES: [(&str, Shares); 4] = [
    ("region", &[("US", 45), ("EU", 30), ("APAC", 20), ("LATAM", 5)]),
    ("plan", &[("free", 70), ("pro", 25), ("enterprise", 5)]),
    ("device", &[("mobile", 55), ("desktop", 40), ("tablet", 5)]),
    ("browser", &[("chrome", 60), ("safari", 25), ("firefox", 10), ("edge", 5)]),
];

/// The attributes of one kind of unit: for conversions, for exposures and for targeting.
#[derive(Clone, Debug, Default)]
pub struct Profile {
    pub pairs: Pairs<'static>,
    pub selected: SelectedAttributes<'static>,
    pub attributes: Vec<(Name<'static>, Value<'static>)>,
}

/// All profiles of a population, made once.
pub struct Profiles(Vec<Profile>);

impl Profiles {
    pub fn of(mix: Mix, filter: &AttributeFilter) -> Profiles {
        let mut profiles = vec![Profile::default()];
        if mix == Mix::Default {
            for (name, shares) in ATTRIBUTES {
                profiles = profiles.iter().flat_map(|profile| with_each(profile, name, shares)).collect();
            }
        }
        for profile in &mut profiles {
            profile.selected = filter.select(&profile.pairs).into_owned();
        }
        Profiles(profiles)
    }

    /// Draws the index of a profile. It always takes the same number of random numbers.
    pub fn draw(&self, random: &mut Random) -> usize {
        let mut index = 0;
        for (_, shares) in ATTRIBUTES {
            index = index * shares.len() + choose(shares, random.below(100));
        }
        if self.0.len() == 1 { 0 } else { index }
    }

    pub fn get(&self, index: usize) -> &Profile {
        &self.0[index]
    }
}

fn with_each(profile: &Profile, name: &'static str, shares: Shares) -> Vec<Profile> {
    let with = |value: &'static str| {
        let mut profile = profile.clone();
        profile.pairs.insert(name, value);
        profile.attributes.push((Name::of(name), Value::Text(value)));
        profile
    };
    shares.iter().map(|(value, _)| with(value)).collect()
}

fn choose(shares: Shares, mut percent: u64) -> usize {
    for (index, (_, share)) in shares.iter().enumerate() {
        if percent < *share {
            return index;
        }
        percent -= share;
    }
    panic!("the shares add up to 100");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shares_add_up_to_100_percent() {
        for (name, shares) in ATTRIBUTES {
            assert_eq!(shares.iter().map(|(_, share)| share).sum::<u64>(), 100, "{name}");
        }
    }

    #[test]
    fn every_combination_has_its_index() {
        let profiles = Profiles::of(Mix::Default, &AttributeFilter::default());
        assert_eq!(profiles.0.len(), 4 * 3 * 3 * 4);
        let pairs = |index: usize| profiles.get(index).pairs.iter().collect::<Vec<_>>();
        assert_eq!(
            pairs(0),
            [("region", "US"), ("plan", "free"), ("device", "mobile"), ("browser", "chrome")]
        );
        assert_eq!(
            pairs(143),
            [("region", "LATAM"), ("plan", "enterprise"), ("device", "tablet"), ("browser", "edge")]
        );
        assert_eq!(choose(ATTRIBUTES[0].1, 44), 0);
        assert_eq!(choose(ATTRIBUTES[0].1, 45), 1);
        assert_eq!(choose(ATTRIBUTES[0].1, 99), 3);
    }
}
