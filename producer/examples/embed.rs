//! A product service with the library: it evaluates an experiment in memory, emits the exposure and a conversion, and
//! loses neither if Kafka is away or the process is killed. The test `spool` runs it.

use std::sync::{Arc, mpsc};
use std::time::Duration;

use assignment::{Context, Environment, Lists, Name, Snapshot, Value, evaluate};
use definitions::Follower;
use ops::config::Kafka;
use schemas::{Event, Pairs, Sender, Unit};
use sdk::attributes::{AttributeFilter, AttributeNames};
use sdk::event::{EventStamp, conversion, exposure, now};
use sdk::{Emitter, SpoolSettings, emitter::Settings};

/// Shows the button to a user who then buys. Returns the button's variant.
pub async fn serve(kafka: &Kafka, spool: SpoolSettings, user: &str) -> anyhow::Result<String> {
    // Once, at the start: follow the definitions, and open the emitter.
    let (follower, (ready, caught_up)) = (Arc::new(Follower::default()), mpsc::channel());
    let (log, brokers) = (follower.clone(), kafka.clone());
    std::thread::spawn(move || log.follow(&brokers, || false, || ready.send(()).unwrap_or_default()));
    caught_up.recv_timeout(Duration::from_secs(30))?;
    let sender = Sender { service: "shop".into(), instance: "shop-1".into(), library_version: "0.1".into() };
    let registry = ops::metrics::registry("shop", "0.1");
    let on_loss = |lost| eprintln!("lost: {lost:?}");
    let emitter = Emitter::open_with_spool(kafka, &Settings::default(), &spool, sender, &registry, on_loss)?;

    // After each change of the definitions.
    let snapshot =
        Snapshot::compile(&follower.lock().definitions, &Lists::default(), Environment::PRODUCTION);

    // For each request: from memory, and without waiting for anything.
    let (seen, attributes) = (EventStamp::at(now()), [(Name::of("region"), Value::Text("EU"))]);
    let context = Context { targeting_key: Some(user), attributes: &attributes };
    let evaluation = evaluate(&snapshot, "button", &context, seen.created_at)?;
    for part in evaluation.exposures() {
        let known = Pairs::from_iter([("region", "EU")]);
        let filter = AttributeFilter::of(part.experiment, &AttributeNames::default());
        if let Ok(exposure) = exposure(EventStamp::at(seen.created_at), user, &part, filter.select(&known)) {
            emitter.emit(Event::Exposure(exposure))?;
        }
    }
    let variant = evaluation.variant.to_string();
    let unit = Unit { unit_type: "user".into(), unit_id: user.into() };
    emitter.emit(Event::Conversion(conversion(EventStamp::at(now()), "purchase", unit)))?;

    // Once, at the end: what Kafka does not acknowledge in ten seconds is in the spool.
    emitter.close(Duration::from_secs(10)).await?;
    Ok(variant)
}

/// The section `[kafka]`, from the environment or from no file.
#[derive(serde::Deserialize)]
struct Config {
    kafka: Kafka,
}

impl ops::config::Config for Config {
    fn pages(&self) -> Vec<ops::config::Page> {
        vec![ops::config::Page::of(&self.kafka)]
    }
}

#[allow(dead_code, reason = "the test includes this file and calls `serve`")]
fn main() -> anyhow::Result<()> {
    let config: Config = ops::config::load(None)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let variant = runtime.block_on(serve(&config.kafka, SpoolSettings::at("spool"), "user-1"))?;
    println!("{variant}");
    Ok(())
}
