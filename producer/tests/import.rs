//! Imports the public test cases of flagd, GrowthBook and Unleash, evaluates what became of them, and compares. A case that is not
//! kept must be named by a finding, and is listed here with the reason.

#[path = "import/common.rs"]
mod common;
#[path = "import/flagd.rs"]
mod flagd;
#[path = "import/growthbook.rs"]
mod growthbook;
#[path = "import/json_logic.rs"]
mod json_logic;
#[path = "import/unleash.rs"]
mod unleash;
