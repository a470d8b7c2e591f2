-- What is kept of analyses, and for how long. A document is written when a look, a verdict or a warning is new, else
-- every ten minutes; documents with a look stay, of the others the last of each day, and all of the last 30 days.
-- The rows of `results` come with every round: all of the last hour, one in ten minutes of the last week, and one in
-- an hour from then on; those of a look stay.

ALTER TABLE analyses
    ADD COLUMN IF NOT EXISTS is_look Bool DEFAULT false COMMENT 'whether it put a look into the log of looks',
    ADD COLUMN IF NOT EXISTS document_version UInt32 DEFAULT 1 COMMENT 'form of the document';

ALTER TABLE analyses MODIFY TTL toDateTime(computed_at) + INTERVAL 30 DAY DELETE WHERE NOT is_look;

ALTER TABLE results
    ADD COLUMN IF NOT EXISTS kept_as Enum8('round' = 0, 'ten_minutes' = 1, 'hour' = 2, 'look' = 3) DEFAULT 'hour'
        COMMENT 'the first of its hour, of its ten minutes, or neither; or that of a look';

ALTER TABLE results MODIFY TTL
    toDateTime(computed_at) + INTERVAL 1 HOUR DELETE WHERE kept_as = 'round',
    toDateTime(computed_at) + INTERVAL 7 DAY DELETE WHERE kept_as = 'ten_minutes';

-- The last document of each day, and the last of all: the newest row of a key replaces the others.
CREATE TABLE analyses_of_days
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
ENGINE = ReplacingMergeTree(computed_at)
ORDER BY (experiment, day);

CREATE MATERIALIZED VIEW IF NOT EXISTS analyses_to_days TO analyses_of_days AS
SELECT experiment, toDate(computed_at) AS day, computed_at, analysis_id, verdict, reason, document_version, document
FROM analyses;

CREATE TABLE latest_analyses
(
    experiment          LowCardinality(String),
    computed_at         DateTime64(3, 'UTC'),
    analysis_id         UUID,
    verdict             LowCardinality(String),
    reason              String,
    document_version    UInt32,
    document            String COMMENT 'JSON'
)
ENGINE = ReplacingMergeTree(computed_at)
ORDER BY experiment;

CREATE MATERIALIZED VIEW IF NOT EXISTS analyses_to_latest TO latest_analyses AS
SELECT experiment, computed_at, analysis_id, verdict, reason, document_version, document
FROM analyses;

INSERT INTO analyses_of_days
SELECT
    experiment,
    toDate(computed_at)             AS day,
    max(computed_at)                AS last_at,
    argMax(analysis_id, computed_at),
    argMax(verdict, computed_at),
    argMax(reason, computed_at),
    argMax(document_version, computed_at),
    argMax(document, computed_at)
FROM analyses
GROUP BY experiment, day;

INSERT INTO latest_analyses
SELECT
    experiment,
    max(computed_at)                AS last_at,
    argMax(analysis_id, computed_at),
    argMax(verdict, computed_at),
    argMax(reason, computed_at),
    argMax(document_version, computed_at),
    argMax(document, computed_at)
FROM analyses
GROUP BY experiment;
