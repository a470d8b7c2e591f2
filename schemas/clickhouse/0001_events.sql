-- The events as they came, one row for each. A batch is one INSERT of one block, hence one part: it is
-- there as a whole or not at all. Partitioned by the time of ingestion, not of the event, so that one
-- batch falls into one partition whatever times its events carry.
--
-- kafka_partition and kafka_offset say where the row stood in its topic; epoch counts re-creations of the
-- topic; batch_first and batch_last are the offsets that the batch covers, those of duplicates and dead
-- letters among them, so that the batches of a partition form a chain without gaps. max(batch_last) is
-- where the consumer goes on.

CREATE TABLE exposures
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
ENGINE = MergeTree
PARTITION BY toDate(ingest_ts)
ORDER BY (experiment, toStartOfHour(created_at), unit_id)
SETTINGS non_replicated_deduplication_window = 10000;

CREATE TABLE conversions
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
ENGINE = MergeTree
PARTITION BY toDate(ingest_ts)
ORDER BY (name, toStartOfHour(created_at), unit_id)
SETTINGS non_replicated_deduplication_window = 10000;

CREATE TABLE aliases
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
ENGINE = MergeTree
PARTITION BY toDate(ingest_ts)
ORDER BY (from_unit_type, from_unit_id)
SETTINGS non_replicated_deduplication_window = 10000;
