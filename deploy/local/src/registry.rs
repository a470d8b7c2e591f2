//! The optional schema registry of a stack: Apicurio, which implements Confluent's interface. It listens on
//! the loopback interface only, without security. Schemas are stored in a file and survive a kill, as in
//! production.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::probe::Probe;
use crate::process::Launch;
use fetch::JAVA;

/// The path of Confluent's interface.
const INTERFACE: &str = "/apis/ccompat/v7";

/// With these it starts in six seconds and uses 226 MB of memory.
const JVM: &[&str] =
    &["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dquarkus.http.host=127.0.0.1"];

/// The URL for clients.
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

/// Requires that old and new readers can read old and new writers, for the schemas of every subject.
/// Apicurio's own default is no requirement.
pub fn require_full_compatibility(url: &str) -> Result<()> {
    ureq::put(format!("{url}/config"))
        .content_type("application/vnd.schemaregistry.v1+json")
        .send(r#"{"compatibility": "FULL"}"#)
        .map(drop)
        .context("setting the compatibility level of the schema registry")
}

pub fn probe() -> Probe {
    Probe::Http { path: format!("{INTERFACE}/subjects") }
}

/// Checks that a registry of the user answers. Over TLS or with a user it checks nothing: only the services
/// have the certificate authority and the password.
pub fn check_given(url: &str) -> Result<()> {
    if url.starts_with("https://") || std::env::var_os("SPLITSTREAM_REGISTRY__USER").is_some() {
        return Ok(());
    }
    ensure!(
        url.starts_with("http://"),
        "{url:?} is not the URL of a schema registry, as http://host:8081 is"
    );
    let subjects = Probe::Http { path: "/subjects".to_owned() };
    subjects.check(url).map_err(|reason| anyhow::anyhow!("no schema registry answers at {url}: {reason}"))
}
