-- Units and outcomes of one experiment and one event, at a cut. Sums are exact integers (values in
-- millionths), so neither order, nor batching, nor repetition can change a byte of the answer.
WITH
    ? AS the_experiment,
    ? AS the_event,
    CAST(? AS Array(String)) AS the_environments, -- those whose events count
    ? AS window_microseconds, -- 0: no end
    -- Of a switchback, whose units are clusters of this type in one window each; 0: it is none.
    ? AS the_cluster_type,
    ? AS switch_seconds,
    ? AS burn_in_seconds,
    fromUnixTimestamp64Micro(toInt64(?), 'UTC') AS as_of,
    -- The cut, by partition: rows before (epoch, next offset) belong to it.
    CAST(? AS Array(UInt32)) AS exposure_epochs,
    CAST(? AS Array(UInt64)) AS exposure_ends,
    CAST(? AS Array(UInt32)) AS conversion_epochs,
    CAST(? AS Array(UInt64)) AS conversion_ends,

-- Each exposed unit with what its earliest exposure says, whenever that one arrived. A unit that was held out takes
-- no part; of one that was ever forced into a variant nothing counts. Of a switchback an exposure counts in the window of
-- its own time alone: a value that was read after its window is no part of that window.
exposed AS
(
    SELECT
        unit_key                                          AS unit,
        min(created_at)                                   AS first_exposed_at,
        argMin(variant, (created_at, event_id))           AS first_variant,
        argMin(phase, (created_at, event_id))             AS first_phase,
        uniqExact(variant) > 1                            AS in_several_variants,
        countIf(reason = 'forced') > 0                    AS was_forced,
        count()                                           AS own_exposures,
        countIf(verification = 'mismatched')              AS own_mismatched,
        argMin(verification, (created_at, event_id)) = 'mismatched'
            OR countIf(reason = 'forced' AND verification = 'mismatched') > 0 AS counted_by_mismatched,
        argMin(reason, (created_at, event_id)) != 'forced' AS had_counted,
        min(ingest_ts)                                    AS first_ingested_at
    FROM exposures
    WHERE experiment = the_experiment
      AND has(the_environments, environment)
      AND reason != 'held_out'
      AND (switch_seconds = 0 OR endsWith(unit_id, concat(char(0),
          toString(intDiv(toUnixTimestamp64Micro(created_at), greatest(switch_seconds, 1) * 1000000) * switch_seconds))))
      AND created_at <= as_of
      AND (epoch, kafka_offset) < (exposure_epochs[kafka_partition + 1], exposure_ends[kafka_partition + 1])
    GROUP BY unit
),

-- Each conversion once for every unit that it carries. Of a switchback this is the cluster that it carries, in the window
-- of the conversion's time, and in the burn-in of a window nothing counts.
carried AS
(
    SELECT
        event_id,
        arrayJoin(if(
            switch_seconds = 0,
            arrayPushFront(carried_keys, unit_key),
            arrayMap(
                cluster -> xxh3(concat(
                    the_cluster_type, char(0), cluster, char(0),
                    toString(intDiv(toUnixTimestamp64Micro(created_at), greatest(switch_seconds, 1) * 1000000) * switch_seconds))),
                multiIf(
                    unit_type = the_cluster_type, [unit_id],
                    mapContains(other_ids, the_cluster_type), [other_ids[the_cluster_type]],
                    CAST([], 'Array(String)')))))                        AS unit,
        min(created_at)                                                  AS converted_at,
        min(CAST(toDecimal256(ifNull(value, 0), 6) * 1000000, 'Int256')) AS millionths
    FROM conversions
    WHERE name = the_event
      AND has(the_environments, environment)
      AND experiment IN ('', the_experiment)
      AND toUnixTimestamp64Micro(created_at) % (greatest(switch_seconds, 1) * 1000000) >= burn_in_seconds * 1000000
      AND created_at <= as_of
      AND (epoch, kafka_offset) < (conversion_epochs[kafka_partition + 1], conversion_ends[kafka_partition + 1])
    GROUP BY event_id, unit
),

-- Each unit with those that count: not before its first exposure, and inside the window.
outcomes AS
(
    SELECT
        any(first_variant)                        AS unit_variant,
        any(first_phase)                          AS unit_phase,
        any(in_several_variants)                  AS several,
        any(was_forced)                           AS forced,
        any(own_exposures)                        AS unit_exposures,
        any(own_mismatched)                       AS unit_mismatched,
        any(counted_by_mismatched)                AS by_mismatched,
        any(had_counted)                          AS counted_first,
        any(first_ingested_at)                    AS ingested_at,
        CAST(countIf(counts), 'Int256')           AS unit_events,
        sumIf(millionths, counts)                 AS unit_total
    FROM
    (
        SELECT
            exposed.*,
            millionths,
            notEmpty(event_id)
                AND converted_at >= first_exposed_at
                AND (window_microseconds = 0
                     OR dateDiff('microsecond', first_exposed_at, converted_at) < window_microseconds) AS counts
        FROM exposed LEFT JOIN carried ON exposed.unit = carried.unit
    )
    GROUP BY unit
)

SELECT
    CAST(unit_variant, 'String')                             AS variant,
    unit_phase                                               AS phase,
    toUnixTimestamp64Milli(min(ingested_at))                 AS ingested_since_ms,
    countIf(NOT forced)                                      AS units,
    countIf(forced)                                          AS units_forced,
    countIf(forced AND counted_first)                        AS units_forced_later,
    countIf(NOT forced AND several)                          AS units_in_several_variants,
    sum(unit_exposures)                                      AS exposures_of_units,
    sum(unit_mismatched)                                     AS exposures_mismatched,
    countIf(by_mismatched)                                   AS units_mismatched,
    countIf(NOT forced AND unit_events > 0)                  AS conversions,
    toString(sumIf(unit_events, NOT forced))                 AS events,
    toString(sumIf(unit_events * unit_events, NOT forced))   AS events_squared,
    toString(sumIf(unit_total, NOT forced))                  AS total,
    toString(sumIf(unit_total * unit_total, NOT forced))     AS total_squared
FROM outcomes
GROUP BY variant, phase
ORDER BY variant, phase
