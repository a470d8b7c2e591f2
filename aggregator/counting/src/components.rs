//! Which keys are one unit: aliases say so, two keys at a time. All keys that aliases connect, however indirectly, are a
//! component, whatever the order in which the aliases came. A component with more keys than [`KEYS_MAX`] is somebody's
//! mistake, such as an id that many share: none of its aliases counts, and each of its keys is a unit again.

use std::collections::{BTreeMap, BTreeSet};

use hashbrown::HashMap;

/// The most keys that one unit can have.
pub const KEYS_MAX: usize = 64;

/// The components of more than one key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Components {
    /// The smallest key of the component, for each of its keys.
    roots: HashMap<u64, u64>,
    /// The keys of each component, by its root, in ascending order.
    members: HashMap<u64, Vec<u64>>,
}

/// A component as it is now, and what it was made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// The keys of each unit before.
    pub before: Vec<Vec<u64>>,
    /// The keys of each unit now. More than one if the component became too large.
    pub after: Vec<Vec<u64>>,
}

impl Components {
    /// Adds aliases. Returns the components that changed.
    pub fn link(&mut self, pairs: &[(u64, u64)]) -> Vec<Joined> {
        // By the present root of each component that changes, the units that it had before.
        let mut before: BTreeMap<u64, BTreeSet<Vec<u64>>> = BTreeMap::new();
        for &(a, b) in pairs {
            let (a, b) = (self.root(a), self.root(b));
            if a == b {
                continue;
            }
            let mut units = BTreeSet::new();
            for root in [a, b] {
                match before.remove(&root) {
                    Some(earlier) => units.extend(earlier),
                    None => units.extend(self.units_of(root)),
                }
            }
            let (root, other) = (a.min(b), a.max(b));
            let mut keys = self.members.remove(&root).unwrap_or_else(|| vec![root]);
            keys.extend(self.members.remove(&other).unwrap_or_else(|| vec![other]));
            keys.sort_unstable();
            for key in &keys {
                self.roots.insert(*key, root);
            }
            self.members.insert(root, keys);
            before.insert(root, units);
        }
        let joined = |(root, before): (u64, BTreeSet<Vec<u64>>)| Joined {
            before: before.into_iter().collect(),
            after: self.units_of(root),
        };
        before.into_iter().map(joined).filter(|of| of.before != of.after).collect()
    }

    /// Returns the keys of the unit that has this key, in ascending order; none if it is the only one.
    pub fn unit_of(&self, key: u64) -> Option<&[u64]> {
        let keys = self.members.get(self.roots.get(&key)?)?;
        (keys.len() <= KEYS_MAX).then_some(keys.as_slice())
    }

    /// How many components are too large to be units.
    pub fn too_large(&self) -> usize {
        self.members.values().filter(|keys| keys.len() > KEYS_MAX).count()
    }

    /// The units of the component with this root.
    fn units_of(&self, root: u64) -> Vec<Vec<u64>> {
        match self.members.get(&root) {
            None => vec![vec![root]],
            Some(keys) if keys.len() <= KEYS_MAX => vec![keys.clone()],
            Some(keys) => keys.iter().map(|key| vec![*key]).collect(),
        }
    }

    fn root(&self, key: u64) -> u64 {
        self.roots.get(&key).copied().unwrap_or(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aliases_join_units_in_any_order() {
        let mut one = Components::default();
        assert_eq!(one.link(&[(3, 2)]), [Joined { before: vec![vec![2], vec![3]], after: vec![vec![2, 3]] }]);
        let joined = one.link(&[(5, 4), (4, 3)]);
        assert_eq!(
            joined,
            [Joined { before: vec![vec![2, 3], vec![4], vec![5]], after: vec![vec![2, 3, 4, 5]] }]
        );
        assert_eq!(one.link(&[(2, 5), (3, 3)]), []);
        let mut other = Components::default();
        other.link(&[(4, 3), (5, 4), (3, 2)]);
        assert_eq!(one, other);
        assert_eq!(one.unit_of(5), Some([2, 3, 4, 5].as_slice()));
        assert_eq!(one.unit_of(6), None);
    }

    #[test]
    fn a_component_beyond_the_bound_is_no_unit() {
        let mut components = Components::default();
        let pairs: Vec<(u64, u64)> = (1..KEYS_MAX as u64).map(|key| (0, key)).collect();
        components.link(&pairs);
        assert_eq!(components.unit_of(7).map(<[u64]>::len), Some(KEYS_MAX));
        let joined = components.link(&[(0, 1_000)]);
        let whole: Vec<u64> = (0..KEYS_MAX as u64).collect();
        assert_eq!(joined[0].before, [whole.clone(), vec![1_000]]);
        assert_eq!(joined[0].after.len(), KEYS_MAX + 1);
        assert_eq!((components.unit_of(7), components.too_large()), (None, 1));
        // More keys change nothing for those that are there.
        let joined = components.link(&[(1_000, 2_000)]);
        assert_eq!(joined, []);
    }
}
