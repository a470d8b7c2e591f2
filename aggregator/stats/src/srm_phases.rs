//! The sample ratio of units that were assigned in phases, each with its own planned shares. An alarm belongs
//! to one phase: if that phase is left out, the other phases may still be analysed. Pure: the functions take
//! the state of the last look and return that of this look.

use crate::{
    Invalid,
    srm_sequential::{CONCENTRATION, Evidence, Phase, evidence},
};

/// The level over all phases of an experiment, however many there will be.
pub const ALARM_LEVEL: f64 = 0.01;

/// The level of phase `j`, counted from 1: `0.01 * 2^-j`. All phases together raise a false alarm with a
/// probability of at most 0.01 (Bonferroni's inequality over a geometric series).
///
/// # Panics
/// When `j` is 0.
pub fn level(j: usize) -> f64 {
    assert!(j > 0, "phases count from 1");
    ALARM_LEVEL * 0.5_f64.powi(i32::try_from(j).unwrap_or(i32::MAX))
}

/// The state of one phase after its looks so far.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Watched {
    /// The level of its alarm; see [`level`].
    pub level: f64,
    /// The smallest p-value of any look, which is valid at all looks at once.
    pub p_value: f64,
    /// Whether the p-value ever reached the level. It stays true: later units do not repair the earlier ones.
    pub alarm: bool,
    /// The evidence at this look.
    pub evidence: Evidence,
}

/// The state before any look.
pub const START: Vec<Watched> = Vec::new();

/// The result of one phase at one look.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Look {
    /// The level of its alarm; see [`level`].
    pub level: f64,
    /// Whether this or an earlier look has reached the level.
    pub alarm: bool,
    /// The evidence at this look.
    pub evidence: Evidence,
}

/// Looks at phase `j`, counted from 1. `alarmed` is whether an earlier look has raised its alarm, which then
/// stays. The errors are those of [`evidence`].
///
/// # Panics
/// When `j` is 0.
pub fn look(j: usize, phase: &Phase<'_>, alarmed: bool) -> Result<Look, Invalid> {
    let (level, evidence) = (level(j), evidence(std::slice::from_ref(phase), CONCENTRATION)?);
    Ok(Look { level, alarm: alarmed || evidence.p_value <= level, evidence })
}

/// Looks at all phases so far, in the order in which they began. `before` is the result of the last look. A
/// phase keeps its position, and therefore its level, for the life of the experiment, also when another phase
/// is left out of the analysis. The units are all those first exposed in the phase, not only the analysed
/// ones, counted in the variant of that first exposure.
///
/// Returns [`Invalid::TooFew`] where a phase has disappeared, or where no weight is above 0; see [`evidence`].
pub fn watch(before: &[Watched], phases: &[Phase<'_>]) -> Result<Vec<Watched>, Invalid> {
    if phases.len() < before.len() {
        return Err(Invalid::TooFew { what: "phases", have: phases.len(), need: before.len() });
    }
    let mut now = Vec::with_capacity(phases.len());
    for (index, phase) in phases.iter().enumerate() {
        let before = before.get(index);
        let Look { level, alarm, evidence } =
            look(index + 1, phase, before.is_some_and(|before| before.alarm))?;
        let p_value = before.map_or(1.0, |before| before.p_value).min(evidence.p_value);
        now.push(Watched { level, p_value, alarm, evidence });
    }
    Ok(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVEN: [f64; 2] = [1.0, 1.0];

    #[test]
    fn levels_are_halved_from_phase_to_phase() {
        assert_eq!([level(1), level(2), level(3)], [0.005, 0.0025, 0.00125]);
        let all: f64 = (1..=60).map(level).sum();
        assert!(all <= ALARM_LEVEL, "{all}");
        assert_eq!(level(5_000), 0.0);
    }

    /// 50,000 against 52,300 have a p of 1.3e-9, and an even million after them does not remove the alarm.
    #[test]
    fn an_alarm_stays_with_its_phase() {
        let broken = Phase { weights: &EVEN, units: &[50_000, 52_300] };
        let first = watch(&START, &[broken]).unwrap();
        assert!(first[0].alarm && first[0].p_value == first[0].evidence.p_value, "{first:?}");
        let mended = Phase { weights: &EVEN, units: &[1_000_000, 1_000_300] };
        let sound = Phase { weights: &[9.0, 1.0], units: &[9_000, 1_000] };
        let second = watch(&first, &[mended, sound]).unwrap();
        assert_eq!((second[0].alarm, second[0].p_value), (true, first[0].p_value));
        assert_eq!((second[1].alarm, second[1].level), (false, 0.0025));
        assert!(second[0].evidence.log_bayes_factor < 0.0, "{second:?}");
    }

    /// The same units are an alarm in the first phase and none in the fourth.
    #[test]
    fn a_later_phase_needs_more_evidence() {
        let units = [50_000, 51_290];
        let sound = Phase { weights: &EVEN, units: &[5_000, 5_000] };
        let broken = Phase { weights: &EVEN, units: &units };
        let p_value = watch(&START, &[broken]).unwrap()[0].p_value;
        assert!(p_value <= level(1) && p_value > level(4), "{p_value}");
        let fourth = watch(&START, &[sound, sound, sound, broken]).unwrap();
        assert_eq!(fourth.iter().filter(|phase| phase.alarm).count(), 0);
        assert_eq!(fourth[3].p_value, p_value);
    }

    #[test]
    fn phases_must_not_disappear_and_impossible_units_are_an_alarm() {
        let none = Phase { weights: &EVEN, units: &[0, 0] };
        let two = watch(&START, &[none, none]).unwrap();
        assert_eq!(two.iter().map(|phase| phase.p_value).collect::<Vec<_>>(), [1.0, 1.0]);
        assert!(matches!(watch(&two, &[none]), Err(Invalid::TooFew { what: "phases", have: 1, need: 2 })));
        let impossible = Phase { weights: &[1.0, 0.0], units: &[10, 1] };
        let found = watch(&two, &[none, none, impossible]).unwrap();
        assert_eq!((found[2].alarm, found[2].p_value), (true, 0.0));
    }
}
