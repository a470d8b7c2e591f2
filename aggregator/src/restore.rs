//! A log of looks that was lost or cut, written again from its mirror. Looks come back in their order and with their
//! content; their versions are new, as their offsets are.

use anyhow::{Context, ensure};
use clickhouse::Row;
use ops::Exit;
use serde::Deserialize;

use crate::database::Database;
use crate::looks::LookLog;

#[derive(Row, Deserialize)]
struct MirroredLook {
    experiment: String,
    number: u32,
    look: String,
}

/// Of each number the first that was written is the one that counted. Over all topics that the table was filled from.
const MIRRORED: &str = "
SELECT experiment, number, argMin(look, (epoch, version)) AS look
FROM look_log
GROUP BY experiment, number
ORDER BY experiment, number";

/// Proposes what the log lacks. May be run again after it was interrupted.
pub async fn restore(kafka: &ops::config::Kafka, database: &Database) -> anyhow::Result<Exit> {
    let mut log = LookLog::open_unchecked(kafka).await?;
    let query = database.query(MIRRORED);
    let mirrored = database.rows::<MirroredLook>("reading the looks mirrored", query).await?;
    let mut restored = 0;
    for look in mirrored {
        let there = u32::try_from(log.count(&look.experiment)).context("more looks than 2^32")?;
        if look.number <= there {
            continue;
        }
        ensure!(
            look.number == there + 1,
            "the mirror lacks look {} at `{}`: restore the topic from a copy",
            there + 1,
            look.experiment
        );
        log.propose_text(&look.experiment, look.look)
            .await?
            .with_context(|| format!("look {} at `{}`", look.number, look.experiment))
            .context(Exit::Refused)?;
        restored += 1;
    }
    println!("{restored} looks were written to the log again");
    if restored > 0 {
        println!(
            "if the topic is a new one: raise consumer.epoch and restart the consumers, so that the mirror follows it; \
             until then nothing is decided"
        );
    }
    Ok(Exit::Done)
}
