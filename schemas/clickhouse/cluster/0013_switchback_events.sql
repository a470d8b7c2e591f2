-- As on one server; joins are GLOBAL because the two topics are partitioned apart: exposures and conversions of a
-- unit may be on different shards.
--
-- Both kinds of event in the shape of one table, for plain SQL, as the analyses count them: of an experiment only
-- those of the environments that it counts, and of no unit that was ever forced into a variant or held out. A
-- conversion appears once for each experiment that exposed one of its units before it, with the variant that the
-- unit saw first; where it carries no region, plan or device of its own, those of that first exposure stand in.
-- Units are joined by their keys.
--
-- The unit of a switchback is a cluster in one window of time, and an exposure to it appears if its time is in that window. A
-- conversion appears there for the window of its own
-- time, if it carries the cluster and does not lie in the window's burn-in. So for each length of a window that any
-- switchback has, a conversion has the keys of its units in that window too.
CREATE OR REPLACE VIEW splitstream.experiment_events ON CLUSTER splitstream AS
WITH
    (
        SELECT mapFromArrays(groupArray(key), groupArray(JSONExtract(current_definition, 'counted_environments', 'Array(String)')))
        FROM splitstream.definitions
        WHERE kind = 'experiment'
    ) AS environments,
    (
        SELECT mapFromArrays(
            groupArray(key),
            groupArray((
                JSONExtract(current_definition, 'switchback', 'window_seconds', 'UInt32'),
                JSONExtract(current_definition, 'switchback', 'burn_in_seconds', 'UInt32'))))
        FROM splitstream.definitions
        WHERE kind = 'experiment' AND JSONHas(current_definition, 'switchback', 'window_seconds')
    ) AS switchbacks, -- by experiment: the seconds of a window and of its burn-in
    arrayDistinct(arrayMap(of -> of.1, mapValues(switchbacks))) AS windows,
    counted AS
    (
        SELECT *
        FROM splitstream.exposures
        WHERE reason = 'split'
          AND has(
              if(empty(environments[CAST(experiment, 'String')]), ['production'], environments[CAST(experiment, 'String')]),
              environment)
          AND (
              switchbacks[CAST(experiment, 'String')].1 = 0
              OR endsWith(unit_id, concat(char(0), toString(
                  intDiv(toUnixTimestamp64Micro(created_at), greatest(switchbacks[CAST(experiment, 'String')].1, 1) * 1000000)
                  * switchbacks[CAST(experiment, 'String')].1))))
          AND (experiment, unit_key) GLOBAL NOT IN (SELECT experiment, unit_key FROM splitstream.exposures WHERE reason = 'forced')
    )
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
FROM counted
UNION ALL
SELECT
    c.event_id                                   AS event_id,
    f.experiment                                 AS experiment_id,
    f.first_variant                              AS variant,
    f.first_unit_id                              AS user_id,
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
        event_id, name, value, metadata, region, plan, device, environment, created_at,
        experiment AS named_experiment,
        -- Keys, each with the length of its window in seconds; 0 without windows.
        arrayJoin(arrayConcat(
            arrayMap(key -> (key, toUInt32(0)), arrayDistinct(arrayPushFront(carried_keys, unit_key))),
            arrayFlatten(arrayMap(
                seconds -> arrayMap(key -> (key, seconds), arrayDistinct(arrayMap(
                    (type, id) -> xxh3(concat(
                        type, char(0), id, char(0),
                        toString(intDiv(toUnixTimestamp64Micro(created_at), seconds * 1000000) * seconds))),
                    arrayPushFront(CAST(mapKeys(other_ids), 'Array(String)'), CAST(unit_type, 'String')),
                    arrayPushFront(mapValues(other_ids), unit_id)))),
                windows))
        )) AS carried
    FROM splitstream.conversions
) AS c
GLOBAL INNER JOIN
(
    SELECT
        experiment,
        unit_key,
        any(unit_id)                                AS first_unit_id,
        min(created_at)                             AS first_exposed_at,
        argMin(variant, (created_at, event_id))     AS first_variant,
        argMin(region, (created_at, event_id))      AS first_region,
        argMin(plan, (created_at, event_id))        AS first_plan,
        argMin(device, (created_at, event_id))      AS first_device
    FROM counted
    GROUP BY experiment, unit_key
) AS f
ON c.carried.1 = f.unit_key
WHERE (c.named_experiment = '' OR c.named_experiment = f.experiment)
  AND c.carried.2 = switchbacks[CAST(f.experiment, 'String')].1
  AND toUnixTimestamp64Micro(c.created_at) % (greatest(c.carried.2, 1) * 1000000)
      >= switchbacks[CAST(f.experiment, 'String')].2 * 1000000
  AND c.created_at >= f.first_exposed_at
  AND has(
      if(empty(environments[CAST(f.experiment, 'String')]), ['production'], environments[CAST(f.experiment, 'String')]),
      c.environment);
