//! Whatever the order, the batches, the repetitions and the delays of the same events: the cells, the units and the digests
//! are those of one fold of all of them.

mod world;

use counting::store::Memory;
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn any_order_batching_repetition_and_delay_gives_the_same(case in world::case()) {
        world::assert_any_order_gives_the_same(&case, Memory::default());
    }
}
