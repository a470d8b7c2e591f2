-- What a consumer compares before it hashes: SipHash-2-4 of the unit's type, a zero byte and its id, under a
-- key that is made of the ledger's. Entries of before have none and stay valid; while there is one, every id of
-- every event is hashed, as before.
ALTER TABLE forgotten
    ADD COLUMN IF NOT EXISTS unit_tag Nullable(UInt64) COMMENT 'SipHash-2-4; null: entered by a build that made none' AFTER unit_hash;
