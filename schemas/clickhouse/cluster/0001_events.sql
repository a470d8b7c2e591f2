-- The tables of events on a cluster: a replicated table on every server, and over it a distributed one
-- with the name that people and services ask. Read README.md beside this file before running it.
--
-- Run once on any server, as a whole. `splitstream` is the cluster's name in the servers' configuration;
-- {shard} and {replica} are the servers' own macros.
--
-- A row belongs to the shard of its Kafka partition. The key of an event is its unit, so a unit's events
-- of one topic are on one shard; a batch is of one Kafka partition and stays whole; and the rows of a
-- partition, by which the consumer goes on and verifies, are all in one place.

CREATE DATABASE IF NOT EXISTS splitstream ON CLUSTER splitstream;

CREATE TABLE IF NOT EXISTS splitstream.exposures_local ON CLUSTER splitstream
(
    event_id            UUID,
    experiment          LowCardinality(String),
    variant             LowCardinality(String),
    unit_type           LowCardinality(String),
    unit_id             String,
    other_ids           Map(LowCardinality(String), String),
    phase               UInt32,
    definition_version  UInt64,
    bucket_slot         Nullable(UInt32) COMMENT 'in [0, 1000000); null if the assignment was made elsewhere',
    bucket_rollout      Nullable(UInt32),
    bucket_variant      Nullable(UInt32),
    rule                LowCardinality(String) COMMENT 'targeting rule that matched',
    attributes          Map(LowCardinality(String), String),
    region              LowCardinality(String) COMMENT 'attributes[region], for queries; likewise plan, device, browser',
    plan                LowCardinality(String),
    device              LowCardinality(String),
    browser             LowCardinality(String),
    environment         LowCardinality(String),
    sender_service      LowCardinality(String),
    sender_instance     LowCardinality(String),
    sender_version      LowCardinality(String),
    verification        Enum8('unknown' = 0, 'verified' = 1, 'mismatched' = 2, 'external' = 3)
                        COMMENT 'the buckets and the variant, computed again from the definition version named',
    created_at          DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    ingest_ts           DateTime64(3, 'UTC') COMMENT 'one value for a whole batch' CODEC(Delta, ZSTD(1)),
    kafka_partition     UInt16 CODEC(ZSTD(1)),
    kafka_offset        UInt64 CODEC(T64, ZSTD(1)),
    epoch               UInt32 CODEC(ZSTD(1)),
    batch_first         UInt64 CODEC(T64, ZSTD(1)),
    batch_last          UInt64 CODEC(T64, ZSTD(1)),
    INDEX offsets kafka_offset TYPE minmax GRANULARITY 1,
    INDEX batches batch_last TYPE minmax GRANULARITY 1,
    INDEX event_ids event_id TYPE bloom_filter(0.001) GRANULARITY 1
)
ENGINE = ReplicatedMergeTree('/clickhouse/tables/{shard}/splitstream/exposures', '{replica}')
PARTITION BY toDate(ingest_ts)
ORDER BY (experiment, toStartOfHour(created_at), unit_id)
SETTINGS replicated_deduplication_window = 10000,
         replicated_deduplication_window_seconds = 604800;

CREATE TABLE IF NOT EXISTS splitstream.exposures ON CLUSTER splitstream AS splitstream.exposures_local
ENGINE = Distributed('splitstream', 'splitstream', 'exposures_local', kafka_partition);

CREATE TABLE IF NOT EXISTS splitstream.conversions_local ON CLUSTER splitstream
(
    event_id            UUID,
    name                LowCardinality(String),
    unit_type           LowCardinality(String),
    unit_id             String,
    other_ids           Map(LowCardinality(String), String),
    experiment          LowCardinality(String) COMMENT 'counts in this experiment alone; empty: in every one that exposed its unit',
    value               Nullable(Decimal(18, 6)),
    metadata            Map(LowCardinality(String), String),
    region              LowCardinality(String) COMMENT 'metadata[region], for queries; likewise plan, device, browser',
    plan                LowCardinality(String),
    device              LowCardinality(String),
    browser             LowCardinality(String),
    environment         LowCardinality(String),
    sender_service      LowCardinality(String),
    sender_instance     LowCardinality(String),
    sender_version      LowCardinality(String),
    created_at          DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    ingest_ts           DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    kafka_partition     UInt16 CODEC(ZSTD(1)),
    kafka_offset        UInt64 CODEC(T64, ZSTD(1)),
    epoch               UInt32 CODEC(ZSTD(1)),
    batch_first         UInt64 CODEC(T64, ZSTD(1)),
    batch_last          UInt64 CODEC(T64, ZSTD(1)),
    INDEX offsets kafka_offset TYPE minmax GRANULARITY 1,
    INDEX batches batch_last TYPE minmax GRANULARITY 1,
    INDEX event_ids event_id TYPE bloom_filter(0.001) GRANULARITY 1
)
ENGINE = ReplicatedMergeTree('/clickhouse/tables/{shard}/splitstream/conversions', '{replica}')
PARTITION BY toDate(ingest_ts)
ORDER BY (name, toStartOfHour(created_at), unit_id)
SETTINGS replicated_deduplication_window = 10000,
         replicated_deduplication_window_seconds = 604800;

CREATE TABLE IF NOT EXISTS splitstream.conversions ON CLUSTER splitstream AS splitstream.conversions_local
ENGINE = Distributed('splitstream', 'splitstream', 'conversions_local', kafka_partition);

CREATE TABLE IF NOT EXISTS splitstream.aliases_local ON CLUSTER splitstream
(
    event_id            UUID,
    from_unit_type      LowCardinality(String),
    from_unit_id        String,
    to_unit_type        LowCardinality(String),
    to_unit_id          String,
    environment         LowCardinality(String),
    sender_service      LowCardinality(String),
    sender_instance     LowCardinality(String),
    sender_version      LowCardinality(String),
    created_at          DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    ingest_ts           DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    kafka_partition     UInt16 CODEC(ZSTD(1)),
    kafka_offset        UInt64 CODEC(T64, ZSTD(1)),
    epoch               UInt32 CODEC(ZSTD(1)),
    batch_first         UInt64 CODEC(T64, ZSTD(1)),
    batch_last          UInt64 CODEC(T64, ZSTD(1)),
    INDEX offsets kafka_offset TYPE minmax GRANULARITY 1,
    INDEX batches batch_last TYPE minmax GRANULARITY 1,
    INDEX event_ids event_id TYPE bloom_filter(0.001) GRANULARITY 1
)
ENGINE = ReplicatedMergeTree('/clickhouse/tables/{shard}/splitstream/aliases', '{replica}')
PARTITION BY toDate(ingest_ts)
ORDER BY (from_unit_type, from_unit_id)
SETTINGS replicated_deduplication_window = 10000,
         replicated_deduplication_window_seconds = 604800;

CREATE TABLE IF NOT EXISTS splitstream.aliases ON CLUSTER splitstream AS splitstream.aliases_local
ENGINE = Distributed('splitstream', 'splitstream', 'aliases_local', kafka_partition);
