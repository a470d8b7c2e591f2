//! Metrics in Prometheus' text format, each labelled with its service.

use std::collections::HashMap;

use prometheus::{Encoder, IntGaugeVec, Opts, Registry, TextEncoder};

/// The content type of [`text`].
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// Creates a registry whose metrics are named `splitstream_...` and have the label `service`. It already has
/// `splitstream_build_info`, which is 1 and has the version as a label.
///
/// # Panics
/// Never: the names are fixed and valid.
pub fn registry(service: &'static str, version: &'static str) -> Registry {
    let labels = HashMap::from([("service".to_string(), service.to_string())]);
    let registry =
        Registry::new_custom(Some("splitstream".into()), Some(labels)).expect("the prefix is not empty");
    let build = IntGaugeVec::new(Opts::new("build_info", "The version that runs; always 1."), &["version"])
        .expect("the name and label are legal");
    build.with_label_values(&[version]).set(1);
    registry.register(Box::new(build)).expect("the registry is empty");
    registry
}

/// Renders the current value of every metric.
///
/// # Errors
/// If a collector returns a family without samples or a sample without a value, which is a bug in the
/// collector.
pub fn text(registry: &Registry) -> Result<String, prometheus::Error> {
    let mut out = Vec::new();
    TextEncoder::new().encode(&registry.gather(), &mut out)?;
    String::from_utf8(out).map_err(|error| prometheus::Error::Msg(error.to_string()))
}

#[cfg(test)]
mod tests {
    use prometheus::IntCounter;

    use super::*;

    #[test]
    fn a_metric_has_the_prefix_and_the_service() {
        let registry = registry("consumer", "1.2.3");
        let rows = IntCounter::new("consumer_rows_total", "Rows written.").unwrap();
        registry.register(Box::new(rows.clone())).unwrap();
        rows.inc_by(3);
        assert_eq!(
            text(&registry).unwrap(),
            "# HELP splitstream_build_info The version that runs; always 1.\n\
             # TYPE splitstream_build_info gauge\n\
             splitstream_build_info{version=\"1.2.3\",service=\"consumer\"} 1\n\
             # HELP splitstream_consumer_rows_total Rows written.\n\
             # TYPE splitstream_consumer_rows_total counter\n\
             splitstream_consumer_rows_total{service=\"consumer\"} 3\n"
        );
    }
}
