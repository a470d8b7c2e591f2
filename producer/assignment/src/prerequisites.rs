//! Bounds on what the prerequisites of a flag may ask.

use crate::snapshot::{Compiled, Entry};

/// The longest chain of flags that wait for each other, and the most evaluations that the prerequisites of one flag may take
/// in all. A flag beyond either serves its default, whoever asks for it: the log's rule bounds neither.
const PREREQUISITE_DEPTH_MAX: u32 = 64;
const PREREQUISITE_EVALUATIONS_MAX: u32 = 1_000;

/// Marks the flags whose prerequisites are too deep or too many. Flags never wait for each other in a circle: the log's rule
/// refuses that.
pub(crate) fn mark_flags_that_wait_for_too_many(entries: &mut [Entry]) {
    /// The longest chain below an entry, and the evaluations that answering it takes.
    type Cost = (u32, u32);
    let waits_for = |entry: &Entry| -> Vec<usize> {
        match &entry.compiled {
            Compiled::Flag(flag) => flag.prerequisites.iter().map(|of| of.entry as usize).collect(),
            Compiled::Experiment(_) => Vec::new(),
        }
    };
    let mut costs: Vec<Option<Cost>> = vec![None; entries.len()];
    for index in 0..entries.len() {
        // A stack of its own, since a chain may be as long as the log.
        let mut stack = vec![index];
        while let Some(&top) = stack.last() {
            let below = waits_for(&entries[top]);
            let unknown = below.iter().find(|of| costs[**of].is_none());
            if let (Some(unknown), None) = (unknown, costs[top]) {
                assert!(
                    stack.len() <= entries.len(),
                    "the rule refuses flags that wait for each other in a circle"
                );
                stack.push(*unknown);
                continue;
            }
            stack.pop();
            let known = || below.iter().filter_map(|of| costs[*of]);
            let depth = known().map(|(depth, _)| depth + 1).max().unwrap_or(0);
            let evaluations = known().fold(0_u32, |sum, (_, evaluations)| sum.saturating_add(evaluations));
            let too_many = depth > PREREQUISITE_DEPTH_MAX || evaluations > PREREQUISITE_EVALUATIONS_MAX;
            if let Compiled::Flag(flag) = &mut entries[top].compiled {
                flag.waits_for_too_many = too_many;
            }
            // One that is not followed costs what any default costs; those that wait for it are too deep themselves.
            costs[top] = Some((depth, if too_many { 1 } else { evaluations.saturating_add(1) }));
        }
    }
}
