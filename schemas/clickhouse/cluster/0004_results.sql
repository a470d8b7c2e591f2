-- What the aggregator found. One row of `analyses` for each analysis of an experiment, with everything
-- needed to find it again: the definition's version, the cut (durable offsets of every partition), the
-- as-of time, the SQL and the whole document. One row of `results` for each metric and variant in it.
--
-- On a cluster: small, and the same on every server.

CREATE TABLE IF NOT EXISTS splitstream.analyses ON CLUSTER splitstream
(
    analysis_id         UUID,
    experiment          LowCardinality(String),
    definition_version  UInt64,
    computed_at         DateTime64(3, 'UTC'),
    as_of               DateTime64(6, 'UTC') COMMENT 'events created later are left out',
    cut                 String COMMENT 'JSON: topic to durable offset per partition',
    sql                 String,
    verdict             LowCardinality(String),
    reason              String,
    document            String COMMENT 'JSON: the experiment''s part of what the API answers'
)
ENGINE = ReplicatedMergeTree('/clickhouse/tables/all/splitstream/analyses', '{shard}-{replica}')
ORDER BY (experiment, computed_at);

CREATE TABLE IF NOT EXISTS splitstream.results ON CLUSTER splitstream
(
    analysis_id                 UUID,
    experiment                  LowCardinality(String),
    computed_at                 DateTime64(3, 'UTC'),
    metric                      LowCardinality(String),
    role                        LowCardinality(String) COMMENT 'primary, secondary or guardrail',
    variant                     LowCardinality(String),
    is_control                  Bool,
    units                       UInt64,
    conversions                 UInt64 COMMENT 'units that converted',
    mean                        Nullable(Float64) COMMENT 'conversion rate or mean per unit',
    lift_absolute               Nullable(Float64),
    lift_relative               Nullable(Float64),
    statistic                   Nullable(Float64) COMMENT 'z or t of the fixed-horizon test',
    p_value                     Nullable(Float64) COMMENT 'fixed horizon: not for looking at repeatedly',
    interval_lower              Nullable(Float64) COMMENT 'of lift_absolute, fixed horizon',
    interval_upper              Nullable(Float64),
    always_valid_p_value        Nullable(Float64),
    always_valid_lower          Nullable(Float64) COMMENT 'of lift_absolute, valid however often looked at',
    always_valid_upper          Nullable(Float64)
)
ENGINE = ReplicatedMergeTree('/clickhouse/tables/all/splitstream/results', '{shard}-{replica}')
ORDER BY (experiment, metric, computed_at, variant);
