//! What the author of a refused step is told besides the field: why it cannot change any more, and what to do
//! instead. Whether a step is refused is decided in `check`.

use super::State;

/// Returns why a field of [`check_step`](super::check::check_step) stays as it is.
pub(super) fn why_unchanged(field: &str) -> &'static str {
    match field {
        "salt" => "units would be hashed anew and see other variants",
        "unit_type" => "what was counted so far are units of the former type",
        "value_type" => "services read values of the former type",
        "type" => "results of two types cannot be compared",
        "assignment" => "the exposures so far were assigned and verified the former way",
        "layer" => "the units so far were drawn from the former one",
        "control" => "the looks so far compared with the former one",
        "metrics" | "metrics.primary" => "the looks so far judged by the former ones",
        field if field.starts_with("metrics.margins.") => "the looks so far judged harm by the former one",
        "plan" => "the looks so far were taken and spent alpha by the former one",
        "switchback" => "the units so far are windows of the former one",
        "counted_environments" => "the looks so far counted the former ones",
        _ => "what was counted so far depends on the former one",
    }
}

/// Returns what to do instead of a step from one state to another that is not allowed.
pub(super) fn instead_of_step(old: State, new: State) -> &'static str {
    match (old, new) {
        (State::Running, State::Archived) => "stop it first, and archive it in the next change",
        (State::Draft, State::Stopped) => "archive a draft that is not wanted any more",
        _ => "clone it under another key",
    }
}
