//! Lists of units, by the hashes of their members: nothing here, and nothing that is stored, has an id in clear. A list
//! is named by the digest of its hashes, so that everybody who has the digest can check the members.

use std::collections::BTreeMap;
use std::sync::Arc;

use schemas::Key;
use schemas::definition::{Definition, Definitions, List};
use sha2::{Digest, Sha256};

use crate::hash::Seed;

/// The most members of a list: their hashes are 8 MB, which is one record of the topic of lists.
pub const MEMBERS_MAX: usize = 1_000_000;

/// The SHA-256 of nothing: the digest of the list without members.
const NO_MEMBERS_SHA256: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// The members of a list: the hashes of their ids under the list's salt, ascending, each once. Two ids have the same hash
/// with a probability of 2.7 in a hundred million for a list of a million members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Members(Box<[u64]>);

/// Why bytes are not the members of a list.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotMembers {
    #[error("{bytes} bytes are no whole number of hashes of 8 bytes")]
    Length { bytes: usize },
    #[error("{members} members are more than {MEMBERS_MAX}")]
    TooMany { members: usize },
    #[error("the hashes are not ascending")]
    Order,
}

impl Members {
    /// Hashes the ids of a list with this salt.
    ///
    /// # Errors
    /// If there are more than [`MEMBERS_MAX`].
    pub fn of_ids<'a>(salt: &Key, ids: impl IntoIterator<Item = &'a str>) -> Result<Members, NotMembers> {
        let seed = list_seed(salt);
        let mut hashes: Vec<u64> = ids.into_iter().map(|id| seed.hash(id)).collect();
        hashes.sort_unstable();
        hashes.dedup();
        if hashes.len() > MEMBERS_MAX {
            return Err(NotMembers::TooMany { members: hashes.len() });
        }
        Ok(Members(hashes.into()))
    }

    /// Reads [`Members::to_bytes`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Members, NotMembers> {
        let (hashes, rest) = bytes.as_chunks::<8>();
        if !rest.is_empty() {
            return Err(NotMembers::Length { bytes: bytes.len() });
        }
        if hashes.len() > MEMBERS_MAX {
            return Err(NotMembers::TooMany { members: hashes.len() });
        }
        let hashes: Box<[u64]> = hashes.iter().map(|hash| u64::from_be_bytes(*hash)).collect();
        if hashes.windows(2).any(|pair| pair[0] >= pair[1]) {
            return Err(NotMembers::Order);
        }
        Ok(Members(hashes))
    }

    /// The hashes in ascending order, each as 8 bytes, most significant first.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.iter().flat_map(|hash| hash.to_be_bytes()).collect()
    }

    /// The SHA-256 of [`Members::to_bytes`], in lower-case hexadecimal: `members_sha256` of the list's definition.
    pub fn digest(&self) -> String {
        let digest = Sha256::digest(self.to_bytes());
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn has(&self, hash: u64) -> bool {
        self.0.binary_search(&hash).is_ok()
    }
}

/// The members of all lists that are known, by the digest that a definition names.
#[derive(Clone, Debug, Default)]
pub struct Lists(BTreeMap<String, Arc<Members>>);

impl Lists {
    /// Adds the members, and returns whether they were not there yet.
    pub fn insert(&mut self, members: Members) -> bool {
        self.0.insert(members.digest(), Arc::new(members)).is_none()
    }

    /// The members with this digest. Those of the list without members are always known.
    pub fn get(&self, digest: &str) -> Option<Arc<Members>> {
        let none = || (digest == NO_MEMBERS_SHA256).then(|| Arc::new(Members(Box::new([]))));
        self.0.get(digest).cloned().or_else(none)
    }

    /// Forgets the lists whose digest is not wanted any more.
    pub fn retain(&mut self, mut wanted: impl FnMut(&str) -> bool) {
        self.0.retain(|digest, _| wanted(digest));
    }

    /// The bytes of all hashes.
    pub fn bytes(&self) -> usize {
        self.0.values().map(|members| 8 * members.len()).sum()
    }

    /// The digests, ascending.
    pub fn digests(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

/// A list whose members are looked up by id.
#[derive(Clone, Debug)]
pub(crate) struct CompiledList {
    pub(crate) key: Key,
    seed: Seed,
    members: Arc<Members>,
}

impl CompiledList {
    pub(crate) fn has(&self, id: &str) -> bool {
        self.members.has(self.seed.hash(id))
    }
}

/// Finds the members of the lists that definitions name.
pub struct ListSource<'a> {
    pub definitions: &'a Definitions,
    pub lists: &'a Lists,
}

impl ListSource<'_> {
    /// The digest and the members of the last version of the list whose members are known.
    pub fn in_force(&self, key: &Key) -> Option<(String, Arc<Members>)> {
        let mut versions = self.definitions.list_versions(key).map(|list| &list.members_sha256);
        versions.find_map(|digest| Some((digest.clone(), self.lists.get(digest)?)))
    }

    /// Compiles the list with this key: its current version or, if the members of that are not known, the last version
    /// before whose members are, and otherwise a list without members.
    pub(crate) fn compile(&self, key: &Key) -> CompiledList {
        let members = self.in_force(key).map(|(_, members)| members);
        let salt = self.definitions.list(key).map_or(key, List::salt);
        CompiledList {
            key: key.clone(),
            seed: list_seed(salt),
            members: members.unwrap_or_else(|| Arc::new(Members(Box::new([])))),
        }
    }

    /// The lists whose current members are not known, each with the digest of the members that are in force instead.
    pub(crate) fn lacking(&self) -> Vec<(Key, Option<String>)> {
        let lists = self.definitions.iter().filter_map(|accepted| match &accepted.definition {
            Definition::List(list) => Some(list),
            _ => None,
        });
        let lacking = lists.filter(|list| self.lists.get(&list.members_sha256).is_none());
        lacking.map(|list| (list.key.clone(), self.in_force(&list.key).map(|(digest, _)| digest))).collect()
    }
}

fn list_seed(salt: &Key) -> Seed {
    Seed::of(&format!("{salt}/list"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_found_by_their_ids_alone() {
        let salt = Key::new("testers").unwrap();
        let members = Members::of_ids(&salt, ["anna", "bob", "anna"]).unwrap();
        assert_eq!(members.len(), 2);
        assert_eq!(Members::from_bytes(&members.to_bytes()), Ok(members.clone()));
        let list = CompiledList { key: salt.clone(), seed: list_seed(&salt), members: Arc::new(members) };
        assert!(list.has("anna") && list.has("bob"));
        assert!(!list.has("Anna") && !list.has(""));
    }

    #[test]
    fn the_digest_does_not_depend_on_the_order_of_the_ids() {
        let salt = Key::new("testers").unwrap();
        let one = Members::of_ids(&salt, ["anna", "bob"]).unwrap();
        assert_eq!(one, Members::of_ids(&salt, ["bob", "anna"]).unwrap());
        let none = Members::of_ids(&salt, []).unwrap();
        assert_eq!(none.digest(), NO_MEMBERS_SHA256);
        assert_eq!(Lists::default().get(NO_MEMBERS_SHA256).as_deref(), Some(&none));
    }

    #[test]
    fn bytes_that_are_no_members_are_refused() {
        assert_eq!(Members::from_bytes(&[0; 9]), Err(NotMembers::Length { bytes: 9 }));
        assert_eq!(Members::from_bytes(&[0; 16]), Err(NotMembers::Order));
        let descending = [2_u64.to_be_bytes(), 1_u64.to_be_bytes()].concat();
        assert_eq!(Members::from_bytes(&descending), Err(NotMembers::Order));
    }
}
