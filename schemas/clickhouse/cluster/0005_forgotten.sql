-- The units that asked to be forgotten, as keyed hashes: HMAC-SHA-256 of the unit's type, a zero byte and
-- its id, under a key that is kept outside of the database. Without the key nobody can tell whether a unit
-- is in here. Events of such a unit created up to `forgotten_at` are not kept, whenever they arrive.
--
-- On a cluster: small, and the same on every server.

CREATE TABLE IF NOT EXISTS splitstream.forgotten ON CLUSTER splitstream
(
    unit_hash           String COMMENT 'HMAC-SHA-256, 64 hexadecimal digits',
    key_check           String COMMENT 'tells one key from another without telling the key',
    unit_type           LowCardinality(String),
    forgotten_at        DateTime64(6, 'UTC') COMMENT 'events created later are new data',
    requested_at        DateTime64(3, 'UTC') DEFAULT now64(3),
    requested_by        String,
    reason              String
)
ENGINE = ReplicatedMergeTree('/clickhouse/tables/all/splitstream/forgotten', '{shard}-{replica}')
ORDER BY (unit_hash, requested_at);

-- What was deleted at each request, once it was done: the proof that it was carried out.
CREATE TABLE IF NOT EXISTS splitstream.forgotten_deletions ON CLUSTER splitstream
(
    unit_hash           String,
    table_name          LowCardinality(String),
    rows_deleted        UInt64,
    finished_at         DateTime64(3, 'UTC') DEFAULT now64(3)
)
ENGINE = ReplicatedMergeTree('/clickhouse/tables/all/splitstream/forgotten_deletions', '{shard}-{replica}')
ORDER BY (unit_hash, finished_at);

-- How far the batches of a partition reached, as noted before rows were deleted and by audits: where all rows
-- of the last batches are deleted or expire, the consumer still knows where to go on.
CREATE TABLE IF NOT EXISTS splitstream.batch_ends ON CLUSTER splitstream
(
    table_name          LowCardinality(String),
    kafka_partition     UInt16,
    epoch               UInt32,
    batch_last          UInt64,
    noted_at            DateTime64(3, 'UTC') DEFAULT now64(3)
)
ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/all/splitstream/batch_ends', '{shard}-{replica}', batch_last)
ORDER BY (table_name, kafka_partition, epoch);
