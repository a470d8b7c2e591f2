-- The log of definitions on a cluster. It is small and every shard needs all of it, for joins: one set of
-- replicas over all servers, whatever their shard, and no distributed table.

CREATE TABLE IF NOT EXISTS splitstream.definition_log ON CLUSTER splitstream
(
    version             UInt64 COMMENT 'of the key, if accepted: the offset in the log plus one',
    change_id           UUID,
    rule_version        UInt32,
    kind                LowCardinality(String),
    key                 String,
    based_on            UInt64,
    definition          String COMMENT 'JSON',
    author              String,
    reason              String,
    accepted            Bool,
    refusal             String COMMENT 'why it was refused; empty if accepted',
    changed_at          DateTime64(3, 'UTC') COMMENT 'the log''s own clock',
    ingest_ts           DateTime64(3, 'UTC'),
    kafka_partition     UInt16,
    kafka_offset        UInt64,
    epoch               UInt32,
    batch_first         UInt64,
    batch_last          UInt64
)
ENGINE = ReplicatedMergeTree('/clickhouse/tables/all/splitstream/definition_log', '{shard}-{replica}')
ORDER BY version
SETTINGS replicated_deduplication_window = 10000,
         replicated_deduplication_window_seconds = 604800;

-- What holds now: the last accepted version of each key.
CREATE VIEW IF NOT EXISTS splitstream.definitions ON CLUSTER splitstream AS
SELECT
    kind,
    key,
    max(version)                  AS current_version,
    argMax(definition, version)   AS current_definition,
    argMax(author, version)       AS last_author,
    argMax(reason, version)       AS last_reason,
    argMax(changed_at, version)   AS last_changed_at
FROM splitstream.definition_log
WHERE accepted
GROUP BY kind, key;
