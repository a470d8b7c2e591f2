-- The log of definitions, mirrored for people's queries: what was proposed, by whom, why, and whether the
-- rule accepted it. The log itself is the topic `definitions`; this table follows it.

CREATE TABLE definition_log
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
ENGINE = MergeTree
ORDER BY version
SETTINGS non_replicated_deduplication_window = 10000;

-- What holds now: the last accepted version of each key.
CREATE VIEW definitions AS
SELECT
    kind,
    key,
    max(version)                  AS current_version,
    argMax(definition, version)   AS current_definition,
    argMax(author, version)       AS last_author,
    argMax(reason, version)       AS last_reason,
    argMax(changed_at, version)   AS last_changed_at
FROM definition_log
WHERE accepted
GROUP BY kind, key;
