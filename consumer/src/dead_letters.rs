//! Dead letters: messages that cannot become rows. The pipeline sends them on with where they came from and why; an
//! operator lists them, shows them, and sends them again once the reason is gone; an audit explains by them why an
//! offset has no row. Decides nothing about which message is one: decoding does.

mod offsets;
mod producer;
mod read;
mod replay;
mod show;

pub use offsets::{DeadLetterOffsets, origin};
pub use producer::{DeadLetterProducer, Delivery};
pub use read::{DeadLetter, Filter, Origin, epoch_of, read};
pub use replay::{Replayed, replay};
pub use show::{list, show};
