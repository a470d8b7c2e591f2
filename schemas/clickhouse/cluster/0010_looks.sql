-- The log of looks, mirrored: what every look at an experiment saw and spent. The log itself is the topic
-- `looks`; this table follows it, and who reads the log compares it with this.
--
-- On a cluster: small, and the same on every server.

CREATE TABLE IF NOT EXISTS splitstream.look_log ON CLUSTER splitstream
(
    version             UInt64 COMMENT 'the offset in the log plus one',
    look_id             UUID,
    rule_version        UInt32,
    experiment          String,
    number              UInt32 COMMENT 'of the experiment''s looks, from 1',
    based_on            UInt64 COMMENT 'version of the look before it; 0 for the first',
    look                String COMMENT 'JSON',
    looked_at           DateTime64(3, 'UTC') COMMENT 'the log''s own clock',
    ingest_ts           DateTime64(3, 'UTC'),
    kafka_partition     UInt16,
    kafka_offset        UInt64,
    epoch               UInt32,
    batch_first         UInt64,
    batch_last          UInt64
)
ENGINE = ReplicatedMergeTree('/clickhouse/tables/all/splitstream/look_log', '{shard}-{replica}')
ORDER BY (experiment, version)
SETTINGS replicated_deduplication_window = 10000,
         replicated_deduplication_window_seconds = 604800;

-- The looks that count, by the rule of the log: each is based on the one before it. Of a topic that was made
-- anew, whose offsets begin again, only what it holds now.
CREATE VIEW IF NOT EXISTS splitstream.looks ON CLUSTER splitstream AS
WITH
    (SELECT argMax(topic_id, epoch) FROM splitstream.topic_ids WHERE table_name = 'look_log') AS the_topic,
    records AS
    (
        SELECT experiment, version, based_on, number, look_id, look, looked_at
        FROM splitstream.look_log
        WHERE the_topic = '' OR epoch IN (SELECT epoch FROM splitstream.topic_ids WHERE table_name = 'look_log' AND topic_id = the_topic)
    )
SELECT experiment, number, version, based_on, look_id, look, looked_at
FROM records
WHERE (experiment, version) IN
(
    SELECT
        experiment,
        arrayJoin(arrayFold(
            (found, record) -> if(
                record.2 = found.1 AND record.3 = found.2 + 1,
                (record.1, record.3, arrayPushBack(found.3, record.1)),
                found),
            arraySort(groupUniqArray((version, based_on, number))),
            (toUInt64(0), toUInt32(0), CAST([], 'Array(UInt64)'))).3) AS version
    FROM records
    GROUP BY experiment
);
