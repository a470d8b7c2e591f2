//! Fetches the messages of one partition, many in one call. The rdkafka crate hands out one message a call; asking
//! librdkafka for a batch costs a third as much. All unsafe code of the package is here and in `heap`.

use std::ffi::CString;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::time::Duration;

use rdkafka::bindings as sys;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::RDKafkaErrorCode;

/// librdkafka's queue of one partition's messages, split from all other partitions'.
pub struct PartitionQueue<C: ConsumerContext + 'static> {
    queue: NonNull<sys::rd_kafka_queue_t>,
    /// A list of this one partition, to ask for its position with.
    itself: NonNull<sys::rd_kafka_topic_partition_list_t>,
    room: Vec<*mut sys::rd_kafka_message_t>,
    // Keeps the client alive for as long as its queue is used.
    consumer: Arc<BaseConsumer<C>>,
}

// SAFETY: a librdkafka queue may be used from any thread; this handle is used by one at a time, and the
// pointers in `room` are only alive inside `fetch`, whose result borrows the handle.
unsafe impl<C: ConsumerContext + 'static> Send for PartitionQueue<C> {}

impl<C: ConsumerContext + 'static> PartitionQueue<C> {
    /// Splits the partition's messages from the consumer's common queue. Must be called before the partition is
    /// assigned, so that no message comes through the common queue. One call fetches at most `messages_max`.
    pub fn split(consumer: Arc<BaseConsumer<C>>, topic: &str, partition: i32, messages_max: usize) -> Self {
        let name = CString::new(topic).expect("a topic has no NUL in its name");
        // SAFETY: the client and the name are alive during the call; the queue returned is ours to destroy.
        let queue = unsafe {
            sys::rd_kafka_queue_get_partition(consumer.client().native_ptr(), name.as_ptr(), partition)
        };
        let queue = NonNull::new(queue).expect("the partition of a consumer has a queue");
        // SAFETY: the queue is alive; forwarding to none keeps its messages in it.
        unsafe { sys::rd_kafka_queue_forward(queue.as_ptr(), ptr::null_mut()) };
        // SAFETY: the list returned is ours to destroy; it copies the name.
        let itself = unsafe {
            let list = sys::rd_kafka_topic_partition_list_new(1);
            sys::rd_kafka_topic_partition_list_add(list, name.as_ptr(), partition);
            list
        };
        let itself = NonNull::new(itself).expect("librdkafka makes a list or ends the process");
        PartitionQueue { queue, itself, room: vec![ptr::null_mut(); messages_max], consumer }
    }

    /// Waits at most `wait` for the first message, then takes all that are there, up to the maximum.
    pub fn fetch(&mut self, wait: Duration) -> Fetched<'_> {
        let wait_ms = i32::try_from(wait.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: `room` has space for as many pointers as are asked for; those written are ours to destroy.
        let count = unsafe {
            sys::rd_kafka_consume_batch_queue(
                self.queue.as_ptr(),
                wait_ms,
                self.room.as_mut_ptr(),
                self.room.len(),
            )
        };
        Fetched { messages: &mut self.room[..usize::try_from(count).unwrap_or(0)] }
    }

    /// Where the next message will come from: every offset before it was handed out by [`PartitionQueue::fetch`], or is
    /// no message (a transaction's mark, or what was aborted). `None` until something has come since the last seek.
    ///
    /// The ends of the partition would tell the same (`enable.partition.eof`), but librdkafka 2.12 takes the end at
    /// offset n, fetched by the batch, for a message there: its own position becomes n + 1. A rebalance then goes on
    /// from there, over the next message to be written, or out of the log.
    pub fn position(&self) -> Option<u64> {
        // SAFETY: the client and the list are alive during the call, which writes into the list's one element.
        let (error, offset) = unsafe {
            let error = sys::rd_kafka_position(self.consumer.client().native_ptr(), self.itself.as_ptr());
            (error, (*(*self.itself.as_ptr()).elems).offset)
        };
        let known = error == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;
        u64::try_from(offset).ok().filter(|_| known)
    }
}

impl<C: ConsumerContext + 'static> Drop for PartitionQueue<C> {
    fn drop(&mut self) {
        // SAFETY: both ours since `split`, used by nobody after this; the client still lives.
        unsafe {
            sys::rd_kafka_queue_destroy(self.queue.as_ptr());
            sys::rd_kafka_topic_partition_list_destroy(self.itself.as_ptr());
        }
    }
}

/// The end of a partition as of the last fetch; asks nobody. `None` before the first.
pub fn high_watermark<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    partition: i32,
) -> Option<u64> {
    let name = CString::new(topic).ok()?;
    let (mut low, mut high) = (-1, -1);
    // SAFETY: the client and the name are alive during the call, which writes two numbers.
    let error = unsafe {
        sys::rd_kafka_get_watermark_offsets(
            consumer.client().native_ptr(),
            name.as_ptr(),
            partition,
            &mut low,
            &mut high,
        )
    };
    let known = error == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;
    u64::try_from(high).ok().filter(|_| known)
}

/// Some messages of a partition, in order. They live as long as this does.
pub struct Fetched<'a> {
    messages: &'a mut [*mut sys::rd_kafka_message_t],
}

/// A message.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    pub offset: u64,
    pub payload: &'a [u8],
    /// The broker's, in milliseconds since 1970.
    pub timestamp_ms: i64,
}

impl Fetched<'_> {
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Each message, or the error that stands in its place (as when retention has overtaken the reader).
    pub fn iter(&self) -> impl Iterator<Item = Result<Message<'_>, RDKafkaErrorCode>> {
        self.messages.iter().map(|&message| {
            // SAFETY: librdkafka wrote this pointer in `fetch`; it stays valid until `drop` destroys it.
            let native = unsafe { &*message };
            if native.err != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
                return Err(RDKafkaErrorCode::from(native.err));
            }
            let payload = if native.payload.is_null() {
                &[]
            } else {
                // SAFETY: a message without error has `len` bytes at `payload`, which live as long as it.
                unsafe { std::slice::from_raw_parts(native.payload.cast::<u8>(), native.len) }
            };
            let mut kind = sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
            // SAFETY: the message is alive and `kind` is writable.
            let timestamp_ms = unsafe { sys::rd_kafka_message_timestamp(message, &mut kind) };
            let offset = u64::try_from(native.offset).expect("a message without error has an offset");
            Ok(Message { offset, payload, timestamp_ms })
        })
    }
}

impl Drop for Fetched<'_> {
    fn drop(&mut self) {
        for message in self.messages.iter_mut() {
            // SAFETY: each pointer was handed to us by `fetch` and is destroyed once.
            unsafe { sys::rd_kafka_message_destroy(*message) };
            *message = ptr::null_mut();
        }
    }
}
