//! Kafka's own id of a topic. A topic that is deleted and created again keeps its name and restarts its
//! offsets, but gets another id. The id therefore tells which topic the offsets in a table's rows belong to.

use std::ffi::{CStr, CString};
use std::fmt;
use std::ptr::NonNull;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rdkafka::bindings as sys;
use rdkafka::client::{Client, ClientContext};
use rdkafka::error::RDKafkaErrorCode;

const TEXT_BYTES: usize = 22;
/// The id that a broker returns for a topic without one, as before Kafka 2.8.
const NONE: &str = "AAAAAAAAAAAAAAAAAAAAAA";

/// The id as Kafka's own tools print it: 22 characters of URL-safe base64.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TopicId([u8; TEXT_BYTES]);

/// The text is no topic id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no topic's id: Kafka writes 22 characters of URL-safe base64")]
pub struct InvalidTopicId(String);

impl FromStr for TopicId {
    type Err = InvalidTopicId;

    fn from_str(text: &str) -> Result<TopicId, InvalidTopicId> {
        let known = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        match <[u8; TEXT_BYTES]>::try_from(text.as_bytes()) {
            Ok(bytes) if bytes.iter().all(known) => Ok(TopicId(bytes)),
            _ => Err(InvalidTopicId(text.to_owned())),
        }
    }
}

impl fmt::Display for TopicId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(std::str::from_utf8(&self.0).expect("an id is ASCII"))
    }
}

impl fmt::Debug for TopicId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{self}")
    }
}

impl TopicId {
    /// Asks a broker for the id of `topic`. `None` if the brokers give topics no ids.
    ///
    /// # Errors
    /// If no broker answers in time, or there is no such topic.
    pub fn fetch<C: ClientContext>(
        client: &Client<C>,
        topic: &str,
        timeout: Duration,
    ) -> Result<Option<TopicId>> {
        let described =
            describe(client, topic, timeout).with_context(|| format!("asking for the id of `{topic}`"))?;
        // librdkafka uses the standard base64 alphabet, Kafka the one for URLs.
        let text = described.replace('+', "-").replace('/', "_");
        if text == NONE {
            return Ok(None);
        }
        Ok(Some(text.parse()?))
    }
}

/// Returns the id of one topic in librdkafka's form. The Rust wrapper does not offer this request.
fn describe<C: ClientContext>(client: &Client<C>, topic: &str, timeout: Duration) -> Result<String> {
    let name = CString::new(topic).context("a topic has no NUL in its name")?;
    let timeout_ms = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    let handle = client.native_ptr();
    let mut names = [name.as_ptr()];
    // SAFETY: the client lives during all calls. The queue, the options, the collection and the event are
    // created, used and destroyed once in this function only; the name outlives the collection, which copies
    // it.
    unsafe {
        let queue = NonNull::new(sys::rd_kafka_queue_new(handle)).context("making a queue")?;
        let options = sys::rd_kafka_AdminOptions_new(
            handle,
            sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS,
        );
        let mut why = [0; 128];
        sys::rd_kafka_AdminOptions_set_request_timeout(options, timeout_ms, why.as_mut_ptr(), why.len());
        let topics = sys::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len());
        sys::rd_kafka_DescribeTopics(handle, topics, options, queue.as_ptr());
        let event = sys::rd_kafka_queue_poll(queue.as_ptr(), timeout_ms);
        let answer = match NonNull::new(event) {
            None => Err(anyhow::anyhow!("no broker answered within {} s", timeout.as_secs())),
            Some(event) => read(event.as_ptr()),
        };
        if !event.is_null() {
            sys::rd_kafka_event_destroy(event);
        }
        sys::rd_kafka_TopicCollection_destroy(topics);
        sys::rd_kafka_AdminOptions_destroy(options);
        sys::rd_kafka_queue_destroy(queue.as_ptr());
        answer
    }
}

/// # Safety
/// `event` is alive and is the answer to a request for one topic.
unsafe fn read(event: *mut sys::rd_kafka_event_t) -> Result<String> {
    // SAFETY: every dereferenced pointer comes from the event, which is alive, and is checked for null.
    unsafe {
        let code = sys::rd_kafka_event_error(event);
        if code != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            bail!("{}", RDKafkaErrorCode::from(code));
        }
        let result = sys::rd_kafka_event_DescribeTopics_result(event);
        if result.is_null() {
            bail!("another kind of answer came");
        }
        let mut count = 0;
        let topics = sys::rd_kafka_DescribeTopics_result_topics(result, &mut count);
        if topics.is_null() || count != 1 {
            bail!("{count} topics were described where one was asked for");
        }
        let topic = *topics;
        let error = sys::rd_kafka_TopicDescription_error(topic);
        if !error.is_null() {
            let code = sys::rd_kafka_error_code(error);
            if code != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
                bail!("{}", RDKafkaErrorCode::from(code));
            }
        }
        let id = sys::rd_kafka_TopicDescription_topic_id(topic);
        if id.is_null() {
            bail!("the answer has no id");
        }
        let text = sys::rd_kafka_Uuid_base64str(id);
        if text.is_null() {
            bail!("the id cannot be written as text");
        }
        Ok(CStr::from_ptr(text).to_string_lossy().into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_what_kafkas_tools_print() {
        let id: TopicId = "Zl3-OYYMR_mYD-iZj0yZ7w".parse().unwrap();
        assert_eq!(id.to_string(), "Zl3-OYYMR_mYD-iZj0yZ7w");
        for text in ["", "Zl3-OYYMR_mYD-iZj0yZ7w=", "Zl3+OYYMR/mYD+iZj0yZ7w", "Zl3-OYYMR_mYD-iZj0yZ7"] {
            assert_eq!(text.parse::<TopicId>(), Err(InvalidTopicId(text.to_owned())));
        }
    }
}
