//! The users that every library is asked about, as an application would hold them. It knows no library.

/// Evaluated in each timed round: so few that the fastest round is not interrupted.
pub const TIMED: usize = 100;
/// Evaluated once to see that the arms are about equal: their shares are then within 2 % of a half by four standard deviations.
pub const COUNTED: usize = 10_000;

/// What an application knows of a user.
#[derive(Clone, Debug)]
pub struct User {
    pub id: String,
    pub country: String,
    pub plan: String,
    pub age: i64,
    pub sessions: f64,
}

/// Users whom the first two rules pass over and the third takes, so that all three are asked.
pub fn adults(count: usize) -> Vec<User> {
    users(count, "DE", "pro", 42)
}

/// Users whom the first rule takes.
pub fn staff(count: usize) -> Vec<User> {
    users(count, "FR", "staff", 42)
}

/// Users whom the second rule takes.
pub fn young_americans(count: usize) -> Vec<User> {
    users(count, "US", "pro", 17)
}

/// Users whom no rule takes: each of them fails one condition of the second or of the third.
pub fn others(count: usize) -> Vec<User> {
    let mut others = users(count, "DE", "pro", 17);
    others.extend(users(count, "US", "pro", 18));
    others
}

fn users(count: usize, country: &str, plan: &str, age: i64) -> Vec<User> {
    let user = |index: usize| User {
        id: format!("user-{:08}", index * 7_919),
        country: country.to_owned(),
        plan: plan.to_owned(),
        age,
        sessions: 12.5,
    };
    (0..count).map(user).collect()
}
