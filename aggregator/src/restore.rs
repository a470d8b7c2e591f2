//! Restores a log of looks that was lost or cut from its mirror. The looks keep their order and content; their
//! versions are new, as their offsets are.

use anyhow::Context;
use ops::Exit;

use crate::database::Database;
use crate::look_log::LookLog;
use crate::look_mirror::Mirror;

/// Proposes the looks that the log lacks. It may be run again after an interruption.
pub async fn restore(kafka: &ops::config::Kafka, database: &Database) -> anyhow::Result<Exit> {
    let mut log = LookLog::open_unchecked(kafka).await?;
    let mirror = Mirror::contents(database).await?;
    let mut restored = 0;
    for (experiment, looks) in mirror.looks() {
        for look in looks.iter().skip(log.count(experiment)) {
            log.propose_text(experiment, look.record.look.clone())
                .await?
                .with_context(|| format!("look {} at `{experiment}`", look.record.number))
                .context(Exit::Refused)?;
            restored += 1;
        }
    }
    for (experiment, records) in mirror.unconnected() {
        println!(
            "warning: {records} records at `{experiment}` are based on looks that the mirror lacks, and were left out; if \
             they counted, restore the topic from a copy"
        );
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
