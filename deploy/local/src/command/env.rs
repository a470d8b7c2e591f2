//! `splitstream local env`: the addresses of a stack as lines that a shell evaluates, by the names that the documentation
//! uses.

use anyhow::Result;
use clap::Args;

use super::Dir;
use super::status::Report;

#[derive(Debug, Clone, Args)]
pub struct Env {
    #[command(flatten)]
    pub dir: Dir,
}

/// Prints the lines. Fails if no stack runs.
pub fn run(env: &Env) -> Result<()> {
    print!("{}", exports(&Report::load(&env.dir.dir)?));
    Ok(())
}

/// One line for each address that there is.
fn exports(report: &Report) -> String {
    const EDGE: &str = "flags and events; if it asks for a token, simulate shows SPLITSTREAM_TOKEN";
    const AGGREGATOR: &str = "page and API; changes need a token of SPLITSTREAM_AGGREGATOR__WRITE_TOKENS";
    const COMMANDS: &str = "where the commands find it";
    let aggregator = report.page.as_deref().unwrap_or_default().trim_end_matches('/');
    let mut text = String::new();
    for (name, value, purpose) in [
        ("EDGE", report.edge.as_str(), EDGE),
        ("AGGREGATOR", aggregator, AGGREGATOR),
        ("CLICKHOUSE", &report.clickhouse, "SQL over HTTP"),
        ("SPLITSTREAM_KAFKA__BROKERS", &report.kafka, COMMANDS),
        ("SPLITSTREAM_CLICKHOUSE__URL", &report.clickhouse, COMMANDS),
        ("SPLITSTREAM_REGISTRY__URL", &report.registry, COMMANDS),
    ] {
        if !value.is_empty() {
            text.push_str(&format!("export {name}={} # {purpose}\n", quoted(value)));
        }
    }
    text
}

/// The text as one word of a shell. An address that somebody has given may have anything in it.
fn quoted(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b":/.,-_".contains(&byte);
    if text.bytes().all(is_plain) { text.to_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn a_shell_gets_each_address_by_the_name_that_the_documentation_uses() {
        let report = Report {
            dir: PathBuf::from(".splitstream"),
            kafka: "127.0.0.1:20001".to_owned(),
            clickhouse: "https://db.example/?a=1&b='x".to_owned(),
            registry: String::new(),
            edge: "http://127.0.0.1:20002".to_owned(),
            page: Some("http://127.0.0.1:40001/".to_owned()),
            parts: Vec::new(),
        };
        assert_eq!(
            exports(&report),
            r"export EDGE=http://127.0.0.1:20002 # flags and events; if it asks for a token, simulate shows SPLITSTREAM_TOKEN
export AGGREGATOR=http://127.0.0.1:40001 # page and API; changes need a token of SPLITSTREAM_AGGREGATOR__WRITE_TOKENS
export CLICKHOUSE='https://db.example/?a=1&b='\''x' # SQL over HTTP
export SPLITSTREAM_KAFKA__BROKERS=127.0.0.1:20001 # where the commands find it
export SPLITSTREAM_CLICKHOUSE__URL='https://db.example/?a=1&b='\''x' # where the commands find it
"
        );
    }
}
