-- How often each variant was served, as the edges count it. A row has the absolute values that one process of an edge
-- had counted on one day up to a reading. Rows of one key merge to the largest values, so a reading that is written
-- twice, late, or by two aggregators changes nothing, and a process that begins at 0 has a key of its own.

CREATE TABLE evaluation_counts
(
    day             Date COMMENT 'in UTC, by the clock of the edge',
    environment     LowCardinality(String),
    flag            LowCardinality(String) COMMENT 'key of a flag or an experiment',
    variant         LowCardinality(String),
    edge_instance   UUID COMMENT 'of the process, made at its start; its events name it as the instance of their sender',
    single          SimpleAggregateFunction(max, UInt64) COMMENT 'evaluations of this key alone: somebody read it',
    bulk            SimpleAggregateFunction(max, UInt64) COMMENT 'evaluations together with all others, which nobody may have read; a 304 is none',
    reported        SimpleAggregateFunction(max, UInt64) COMMENT 'reads of a value evaluated in bulk, as clients reported them',
    read_at         SimpleAggregateFunction(max, DateTime64(3, 'UTC')) COMMENT 'when an aggregator read these values; later readings that differ in nothing are not written'
)
ENGINE = AggregatingMergeTree
PARTITION BY toYYYYMM(day)
ORDER BY (day, environment, flag, variant, edge_instance)
TTL day + toIntervalDay(400)
SETTINGS ttl_only_drop_parts = 1;

-- The counts of all edges together.
CREATE VIEW evaluations_by_day AS
SELECT
    day,
    environment,
    flag,
    variant,
    sum(single_of_process)      AS single,
    sum(bulk_of_process)        AS bulk,
    sum(reported_of_process)    AS reported
FROM
(
    SELECT
        day,
        environment,
        flag,
        variant,
        edge_instance,
        max(single)       AS single_of_process,
        max(bulk)         AS bulk_of_process,
        max(reported)     AS reported_of_process
    FROM evaluation_counts
    GROUP BY day, environment, flag, variant, edge_instance
)
GROUP BY day, environment, flag, variant;
