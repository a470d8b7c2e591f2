//! Checks that a library really runs the experiment before anybody times it: that each rule takes its users, that the
//! measured users reach the third, and that they get both arms in about equal parts. It panics with what it counted.

use serde_json::Value as Json;

use crate::library::{Arm, Library};
use crate::user::{COUNTED, TIMED, User, adults, others, staff, young_americans};

/// How many users are in each arm.
#[derive(Clone, Copy, Debug, Default)]
pub struct Arms {
    pub a: usize,
    pub b: usize,
}

/// The library with the experiment, and the arms of the counted users.
pub fn checked<L: Library>() -> (L, Arms) {
    let library = L::load(experiment::<L>());
    let arms = count(&library, &adults(COUNTED));
    assert_eq!(arms.a + arms.b, COUNTED, "{} leaves adults out: {arms:?}", L::CALL);
    assert!(arms.a.abs_diff(arms.b) <= COUNTED / 25, "{}: {arms:?} are not equal parts", L::CALL);
    let timed = count(&library, &adults(TIMED));
    assert!(timed.a.min(timed.b) >= TIMED / 3, "{}: the timed users have {timed:?}", L::CALL);
    for (users, takes_part) in [(staff(TIMED), true), (young_americans(TIMED), true), (others(TIMED), false)]
    {
        let arms = count(&library, &users);
        let expected = if takes_part { users.len() } else { 0 };
        assert_eq!(arms.a + arms.b, expected, "{}: {arms:?} of users like {:?}", L::CALL, users[0]);
    }
    // Were it another rule that takes the adults, they would still be there without the third.
    let mut shorter = experiment::<L>();
    let rules = shorter.pointer_mut(L::RULES).and_then(Json::as_array_mut).expect("the rules are a list");
    assert_eq!(rules.len(), 3, "the rules of {}", L::CALL);
    rules.pop();
    let left = count(&L::load(shorter), &adults(TIMED));
    assert_eq!(left.a + left.b, 0, "{} takes adults without the third rule: {left:?}", L::CALL);
    (library, arms)
}

fn experiment<L: Library>() -> Json {
    serde_json::from_str(L::EXPERIMENT).expect("the experiment is JSON")
}

fn count<L: Library>(library: &L, users: &[User]) -> Arms {
    let mut arms = Arms::default();
    for user in users {
        match L::arm(&library.evaluate(&L::context(user))) {
            Some(Arm::A) => arms.a += 1,
            Some(Arm::B) => arms.b += 1,
            None => (),
        }
    }
    arms
}
