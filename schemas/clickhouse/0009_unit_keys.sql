-- The key of each unit: xxh3 of its type, a zero byte and its id, by which tables join and count. Two units may have
-- one key, so rows are deleted and forgotten by type and id. The consumer writes the keys; the defaults give those of
-- the rows that were there before. An exposure says besides which configuration was evaluated, and why the unit saw
-- its variant.

ALTER TABLE exposures
    ADD COLUMN IF NOT EXISTS unit_key UInt64 DEFAULT xxh3(concat(CAST(unit_type, 'String'), char(0), unit_id)) AFTER unit_id,
    ADD COLUMN IF NOT EXISTS carried_keys Array(UInt64)
        DEFAULT arrayMap((type, id) -> xxh3(concat(CAST(type, 'String'), char(0), id)), mapKeys(other_ids), mapValues(other_ids))
        COMMENT 'keys of other_ids, in its order' AFTER other_ids,
    ADD COLUMN IF NOT EXISTS configuration_version UInt64
        COMMENT 'of the whole configuration that was evaluated; 0 if none was or nobody said' AFTER definition_version,
    ADD COLUMN IF NOT EXISTS reason LowCardinality(String) DEFAULT 'split'
        COMMENT 'split, forced or held_out' AFTER rule;

ALTER TABLE conversions
    ADD COLUMN IF NOT EXISTS unit_key UInt64 DEFAULT xxh3(concat(CAST(unit_type, 'String'), char(0), unit_id)) AFTER unit_id,
    ADD COLUMN IF NOT EXISTS carried_keys Array(UInt64)
        DEFAULT arrayMap((type, id) -> xxh3(concat(CAST(type, 'String'), char(0), id)), mapKeys(other_ids), mapValues(other_ids))
        COMMENT 'keys of other_ids, in its order' AFTER other_ids;

ALTER TABLE aliases
    ADD COLUMN IF NOT EXISTS from_unit_key UInt64 DEFAULT xxh3(concat(CAST(from_unit_type, 'String'), char(0), from_unit_id)) AFTER from_unit_id,
    ADD COLUMN IF NOT EXISTS to_unit_key UInt64 DEFAULT xxh3(concat(CAST(to_unit_type, 'String'), char(0), to_unit_id)) AFTER to_unit_id;
