-- Whose offsets the rows of a table are: Kafka's own id of the topic, noted before the first rows of an epoch
-- are inserted. A topic that is deleted and made again has another id, and its offsets mean other messages.

CREATE TABLE topic_ids
(
    table_name          LowCardinality(String),
    epoch               UInt32,
    topic               String COMMENT 'its name when the id was noted',
    topic_id            String COMMENT 'as the tools of Kafka print it, 22 characters of URL-safe base64',
    noted_at            DateTime64(3, 'UTC') DEFAULT now64(3)
)
ENGINE = MergeTree
ORDER BY (table_name, epoch, topic_id);
