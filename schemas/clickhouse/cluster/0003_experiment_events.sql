-- As on one server; the distributed tables stand where the tables stood, and the join is GLOBAL because the
-- two topics are partitioned apart: exposures and conversions of a unit may be on different shards.
--
-- Both kinds of event in the shape of one table, for plain SQL. A conversion appears once for each
-- experiment that exposed one of its units before it, with the variant that the unit saw first; where it
-- carries no region, plan or device of its own, those of that first exposure stand in.
CREATE VIEW IF NOT EXISTS splitstream.experiment_events ON CLUSTER splitstream AS
SELECT
    event_id,
    experiment                                   AS experiment_id,
    variant,
    unit_id                                      AS user_id,
    'exposure'                                   AS event_type,
    ''                                           AS event_name,
    CAST(NULL, 'Nullable(Decimal(18, 6))')       AS event_value,
    attributes                                   AS metadata,
    region,
    plan,
    device,
    created_at
FROM splitstream.exposures
UNION ALL
SELECT
    c.event_id                                   AS event_id,
    f.experiment                                 AS experiment_id,
    f.first_variant                              AS variant,
    f.unit_id                                    AS user_id,
    'conversion'                                 AS event_type,
    c.name                                       AS event_name,
    c.value                                      AS event_value,
    c.metadata                                   AS metadata,
    if(c.region = '', f.first_region, c.region)  AS region,
    if(c.plan = '', f.first_plan, c.plan)        AS plan,
    if(c.device = '', f.first_device, c.device)  AS device,
    c.created_at                                 AS created_at
FROM
(
    SELECT
        event_id, name, value, metadata, region, plan, device, created_at,
        experiment AS named_experiment,
        arrayJoin(arrayDistinct(arrayConcat(
            [(CAST(unit_type, 'String'), unit_id)],
            arrayZip(CAST(mapKeys(other_ids), 'Array(String)'), mapValues(other_ids))))) AS carried
    FROM splitstream.conversions
) AS c
GLOBAL INNER JOIN
(
    SELECT
        experiment,
        CAST(unit_type, 'String')                   AS type,
        unit_id,
        min(created_at)                             AS first_exposed_at,
        argMin(variant, (created_at, event_id))     AS first_variant,
        argMin(region, (created_at, event_id))      AS first_region,
        argMin(plan, (created_at, event_id))        AS first_plan,
        argMin(device, (created_at, event_id))      AS first_device
    FROM splitstream.exposures
    GROUP BY experiment, unit_type, unit_id
) AS f
ON c.carried.1 = f.type AND c.carried.2 = f.unit_id
WHERE (c.named_experiment = '' OR c.named_experiment = f.experiment)
  AND c.created_at >= f.first_exposed_at;
