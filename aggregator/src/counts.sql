-- Units and values of one experiment and one metric, at a cut. Sums are exact integers (values in millionths), so
-- neither order, nor batching, nor repetition can change a byte of the answer. Where the kinds of metric differ, braces
-- name the expression that is put in.
WITH
    ? AS the_experiment,
    CAST(? AS Array(String)) AS the_environments, -- those whose events count
    -- Of a switchback, whose units are clusters of this type in one window each; 0: it is none.
    ? AS the_cluster_type,
    ? AS switch_seconds,
    ? AS burn_in_seconds,
    -- In microseconds after the first exposure: events count from here on, before there (0: no end), and a unit's value is
    -- final from then on (0: it has no window).
    toInt64(?) AS span_from,
    toInt64(?) AS span_to,
    toInt64(?) AS closes_after,
    toInt64(?) AS covariate_span, -- microseconds before the first exposure
    toInt64(?) AS as_of_microseconds,
    fromUnixTimestamp64Micro(as_of_microseconds, 'UTC') AS as_of,
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
        unit_key                                                    AS unit,
        min(created_at)                                             AS first_exposed_at,
        argMin(variant, (created_at, UUIDToNum(event_id)))          AS first_variant,
        argMin(phase, (created_at, UUIDToNum(event_id)))            AS first_phase,
        uniqExact(variant) > 1                                      AS in_several_variants,
        countIf(reason = 'forced') > 0                              AS was_forced,
        uniqExact(event_id)                                         AS own_exposures,
        uniqExactIf(event_id, verification = 'mismatched')          AS own_mismatched,
        argMin(verification, (created_at, UUIDToNum(event_id))) = 'mismatched'
            OR countIf(reason = 'forced' AND verification = 'mismatched') > 0 AS counted_by_mismatched,
        argMin(reason, (created_at, UUIDToNum(event_id))) != 'forced' AS had_counted,
        min(ingest_ts)                                              AS first_ingested_at
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

-- The conversions that the metric reads, each with a bit for every series of events that it belongs to.
of_metric AS
(
    SELECT *, {series} AS series
    FROM conversions
    WHERE name IN {names}
      AND has(the_environments, environment)
      AND experiment IN ('', the_experiment)
      AND toUnixTimestamp64Micro(created_at) % (greatest(switch_seconds, 1) * 1000000) >= burn_in_seconds * 1000000
      AND created_at <= as_of
      AND (epoch, kafka_offset) < (conversion_epochs[kafka_partition + 1], conversion_ends[kafka_partition + 1])
      AND series != 0
),

-- Each of them once for every unit that it carries. Of a switchback this is the cluster that it carries, in the window
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
        min(toInt256(reinterpretAsInt64(ifNull(value, toDecimal64(0, 6))))) AS millionths,
        groupBitOr(series)                                               AS of_series
    FROM of_metric
    GROUP BY event_id, unit
),

-- Each unit with its value: y, and x for the denominator of a ratio or the covariate.
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
        -- Hours are closed as a whole, when the window of their last unit has.
        closes_after = 0
            OR (intDiv(toUnixTimestamp64Micro(any(first_exposed_at)), 3600000000) + 1) * 3600000000 + closes_after
               <= as_of_microseconds              AS matured,
        {steps}                                   AS unit_steps,
        {takes_part}                              AS has_value,
        {has_event}                               AS converted,
        toInt256({y})                             AS unit_y,
        toInt256({x})                             AS unit_x
    FROM
    (
        SELECT
            exposed.*,
            event_id,
            millionths,
            of_series,
            notEmpty(event_id) AS is_event,
            dateDiff('microsecond', first_exposed_at, converted_at) AS after,
            is_event AND after >= span_from AND (span_to = 0 OR after < span_to) AS in_span,
            is_event AND after < 0 AND after >= -covariate_span AS in_covariate
        FROM exposed LEFT JOIN carried ON exposed.unit = carried.unit
    )
    GROUP BY unit
)

SELECT
    CAST(unit_variant, 'String')                             AS variant,
    unit_phase                                               AS phase,
    matured                                                  AS is_matured,
    toUnixTimestamp64Milli(min(ingested_at))                 AS ingested_since_ms,
    countIf(NOT forced)                                      AS units,
    countIf(forced)                                          AS units_forced,
    countIf(forced AND counted_first)                        AS units_forced_later,
    countIf(NOT forced AND several)                          AS units_in_several_variants,
    sum(unit_exposures)                                      AS exposures_of_units,
    sum(unit_mismatched)                                     AS exposures_mismatched,
    countIf(by_mismatched)                                   AS units_mismatched,
    countIf(NOT forced AND has_value)                        AS units_with_value,
    countIf(NOT forced AND converted)                        AS units_with_event,
    toString(sumIf(unit_y, NOT forced AND has_value))        AS y,
    toString(sumIf(unit_x, NOT forced AND has_value))        AS x,
    toString(sumIf(unit_y * unit_y, NOT forced AND has_value)) AS yy,
    toString(sumIf(unit_x * unit_x, NOT forced AND has_value)) AS xx,
    toString(sumIf(unit_x * unit_y, NOT forced AND has_value)) AS xy,
    -- By step of a funnel, the units that went through it.
    sumForEachIf(arrayMap(step -> toUInt64(unit_steps >= step), range(1, {number_of_steps} + 1)), NOT forced) AS units_by_step,
    -- The single values, where an order statistic of them is asked for.
    {single_values}                                          AS single_values
FROM outcomes
GROUP BY variant, phase, is_matured
ORDER BY variant, phase, is_matured
