//! The smallest service. It reads its configuration, serves the operator's routes and one of its own, runs one
//! loop of work, and stops when it is told to. The tests of signals run it.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use http_server::Served;
use ops::config::{Config, Field, Http, Log, Millis, Page, Section};
use ops::{Exit, Health, Shutdown, metrics};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Service {
    http: Http,
    log: Log,
    consumer: Settings,
}

impl Config for Service {
    fn pages(&self) -> Vec<Page> {
        vec![Page::of(&self.http), Page::of(&self.log), Page::of(&self.consumer)]
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Settings {
    patience_ms: Millis<1, 60_000>,
    last_work_ms: Millis<0, 60_000>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { patience_ms: Millis::of(10_000), last_work_ms: Millis::of(0) }
    }
}

impl Section for Settings {
    const NAME: &'static str = "consumer";

    fn fields(&self) -> Vec<Field> {
        vec![
            Field::of("patience_ms", &self.patience_ms, "time to stop in; past it the process ends at once"),
            Field::of(
                "last_work_ms",
                &self.last_work_ms,
                "how long the loop needs to finish its work when it is told to stop",
            ),
        ]
    }
}

fn main() -> ExitCode {
    let file = std::env::args_os().nth(1).map(PathBuf::from);
    ops::main(async move {
        let config: Service = ops::config::load(file.as_deref())?;
        ops::log::start(&config.log)?;
        let shutdown = Shutdown::on_signals(config.consumer.patience_ms.duration())?;
        let served = Served {
            routes: Router::new().route("/hello", get(async || "hello")),
            registry: metrics::registry("example", "1.0.0"),
            health: Health::new(),
        };
        let work = served.health.progress("work", Duration::from_secs(5));
        let server = http_server::start(&config.http, served, &shutdown).await?;

        let hold = shutdown.hold("work");
        while !shutdown.sleep(Duration::from_millis(50)).await {
            work.touch();
        }
        tokio::time::sleep(config.consumer.last_work_ms.duration()).await;
        work.done();
        drop(hold);

        server.stopped().await?;
        Ok(Exit::Done)
    })
}
