//! The schema registry of a stack, where one is asked for: Apicurio, which speaks Confluent's interface. Loopback
//! only, no security; what is registered lies in a file and outlives a kill, as it would with a real one.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::probe::Probe;
use crate::process::Launch;
use fetch::JAVA;

/// The path of Confluent's interface.
const INTERFACE: &str = "/apis/ccompat/v7";

/// It starts in six seconds and holds 226 MB.
const JVM: &[&str] =
    &["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dquarkus.http.host=127.0.0.1"];

/// What clients are told.
pub fn url(address: &str) -> String {
    format!("http://{address}{INTERFACE}")
}

/// The command that runs it on `port`, with its data in `directory`.
pub fn launch(runner: &Path, directory: &Path, port: u16, log: PathBuf) -> Result<Launch> {
    let file = directory.join("db").display().to_string();
    ensure!(
        !file.contains(';'),
        "{file} contains a semicolon, which the registry's database takes for the end of its name"
    );
    let mut args: Vec<String> = JVM.iter().map(|arg| (*arg).to_owned()).collect();
    args.push(format!("-Dquarkus.http.port={port}"));
    args.push("-jar".to_owned());
    args.push(runner.display().to_string());
    let environment = vec![("REGISTRY_DATASOURCE_URL".to_owned(), format!("jdbc:h2:file:{file}"))];
    Ok(Launch { program: JAVA.program.into(), args, environment, log })
}

/// Old and new readers of old and new writers: the promise that every subject's schemas are held to. Apicurio
/// itself begins with none.
pub fn demand_compatibility(url: &str) -> Result<()> {
    ureq::put(format!("{url}/config"))
        .content_type("application/vnd.schemaregistry.v1+json")
        .send(r#"{"compatibility": "FULL"}"#)
        .map(drop)
        .context("telling the schema registry which schemas go together")
}

pub fn probe() -> Probe {
    Probe::Http { path: format!("{INTERFACE}/subjects") }
}

/// Somebody else's registry. Over TLS it is left to the services, which know its authority and its user.
pub fn check(url: &str) -> Result<()> {
    if url.starts_with("https://") || std::env::var_os("SPLITSTREAM_REGISTRY__USER").is_some() {
        return Ok(());
    }
    ensure!(
        url.starts_with("http://"),
        "{url:?} is not the URL of a schema registry, as http://host:8081 is"
    );
    let subjects = Probe::Http { path: "/subjects".to_owned() };
    subjects.ask(url).map_err(|reason| anyhow::anyhow!("no schema registry answers at {url}: {reason}"))
}
