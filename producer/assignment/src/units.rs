//! The lists of a definition whose members see a variant, or see none, whatever its rules say.

use schemas::Key;
use schemas::definition::Allowed;
use schemas::event::UNIT_ID_BYTES_MAX;

use crate::context::Context;
use crate::lists::{CompiledList, ListSource};
use crate::trace::{Step, Trace};

#[derive(Debug, Default)]
pub(crate) struct UnitLists {
    deny: Box<[CompiledList]>,
    /// Each with the index of the variant.
    allow: Box<[(CompiledList, usize)]>,
}

impl UnitLists {
    pub(crate) fn compile(
        source: &ListSource<'_>,
        allow: &[Allowed],
        deny: &[Key],
        index_of: impl Fn(&Key) -> Option<usize>,
    ) -> UnitLists {
        let allowed = |allowed: &Allowed| {
            let variant = index_of(&allowed.variant).expect("the rule checks that a list has a variant");
            (source.compile(&allowed.list), variant)
        };
        UnitLists {
            deny: deny.iter().map(|list| source.compile(list)).collect(),
            allow: allow.iter().map(allowed).collect(),
        }
    }

    pub(crate) fn are_empty(&self) -> bool {
        self.deny.is_empty() && self.allow.is_empty()
    }

    /// Returns the unit that the lists are asked of; `None` if there are no lists, or the context has no such unit, which
    /// then is on none.
    #[inline]
    pub(crate) fn asked_of<'a>(&self, context: &Context<'a>, unit_type: &Key) -> Option<&'a str> {
        if self.are_empty() {
            return None;
        }
        context.unit(unit_type.as_str()).filter(|id| (1..=UNIT_ID_BYTES_MAX).contains(&id.len()))
    }

    pub(crate) fn deny<'s>(&'s self, unit_id: &str, trace: &mut impl Trace<'s>) -> bool {
        self.deny.iter().any(|list| {
            let member = list.has(unit_id);
            trace.step(|| Step::Denied { list: &list.key, member });
            member
        })
    }

    /// Returns the variant of the first list that has the unit.
    pub(crate) fn allow<'s>(
        &'s self,
        unit_id: &str,
        key_of: impl Fn(usize) -> &'s Key,
        trace: &mut impl Trace<'s>,
    ) -> Option<usize> {
        let found = self.allow.iter().find(|(list, variant)| {
            let member = list.has(unit_id);
            trace.step(|| Step::Allowed { list: &list.key, variant: key_of(*variant), member });
            member
        });
        found.map(|(_, variant)| *variant)
    }
}
