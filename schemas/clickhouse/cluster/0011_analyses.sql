-- What is kept of analyses, and for how long. A document is written when a look, a verdict or a warning is new, else
-- every ten minutes; documents with a look stay, of the others the last of each day, and all of the last 30 days.
-- The rows of `results` come with every round: all of the last hour, one in ten minutes of the last week, and one in
-- an hour from then on; those of a look stay.
--
-- On a cluster: small, and the same on every server.

ALTER TABLE splitstream.analyses ON CLUSTER splitstream
    ADD COLUMN IF NOT EXISTS is_look Bool DEFAULT false COMMENT 'whether it put a look into the log of looks',
    ADD COLUMN IF NOT EXISTS document_version UInt32 DEFAULT 1 COMMENT 'form of the document';

ALTER TABLE splitstream.analyses ON CLUSTER splitstream MODIFY TTL toDateTime(computed_at) + INTERVAL 30 DAY DELETE WHERE NOT is_look;

ALTER TABLE splitstream.results ON CLUSTER splitstream
    ADD COLUMN IF NOT EXISTS kept_as Enum8('round' = 0, 'ten_minutes' = 1, 'hour' = 2, 'look' = 3) DEFAULT 'hour'
        COMMENT 'the first of its hour, of its ten minutes, or neither; or that of a look';

ALTER TABLE splitstream.results ON CLUSTER splitstream MODIFY TTL
    toDateTime(computed_at) + INTERVAL 1 HOUR DELETE WHERE kept_as = 'round',
    toDateTime(computed_at) + INTERVAL 7 DAY DELETE WHERE kept_as = 'ten_minutes';

-- The last document of each day, and the last of all: the newest row of a key replaces the others.
CREATE TABLE IF NOT EXISTS splitstream.analyses_of_days ON CLUSTER splitstream
(
    experiment          LowCardinality(String),
    day                 Date,
    computed_at         DateTime64(3, 'UTC'),
    analysis_id         UUID,
    verdict             LowCardinality(String),
    reason              String,
    document_version    UInt32,
    document            String COMMENT 'JSON'
)
ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/all/splitstream/analyses_of_days', '{shard}-{replica}', computed_at)
ORDER BY (experiment, day);

CREATE MATERIALIZED VIEW IF NOT EXISTS splitstream.analyses_to_days ON CLUSTER splitstream TO splitstream.analyses_of_days AS
SELECT experiment, toDate(computed_at) AS day, computed_at, analysis_id, verdict, reason, document_version, document
FROM splitstream.analyses;

CREATE TABLE IF NOT EXISTS splitstream.latest_analyses ON CLUSTER splitstream
(
    experiment          LowCardinality(String),
    computed_at         DateTime64(3, 'UTC'),
    analysis_id         UUID,
    verdict             LowCardinality(String),
    reason              String,
    document_version    UInt32,
    document            String COMMENT 'JSON'
)
ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/all/splitstream/latest_analyses', '{shard}-{replica}', computed_at)
ORDER BY experiment;

CREATE MATERIALIZED VIEW IF NOT EXISTS splitstream.analyses_to_latest ON CLUSTER splitstream TO splitstream.latest_analyses AS
SELECT experiment, computed_at, analysis_id, verdict, reason, document_version, document
FROM splitstream.analyses;

INSERT INTO splitstream.analyses_of_days
SELECT
    experiment,
    toDate(computed_at)             AS day,
    max(computed_at)                AS last_at,
    argMax(analysis_id, computed_at),
    argMax(verdict, computed_at),
    argMax(reason, computed_at),
    argMax(document_version, computed_at),
    argMax(document, computed_at)
FROM splitstream.analyses
GROUP BY experiment, day;

INSERT INTO splitstream.latest_analyses
SELECT
    experiment,
    max(computed_at)                AS last_at,
    argMax(analysis_id, computed_at),
    argMax(verdict, computed_at),
    argMax(reason, computed_at),
    argMax(document_version, computed_at),
    argMax(document, computed_at)
FROM splitstream.analyses
GROUP BY experiment;
