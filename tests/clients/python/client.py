"""A foreign client: decodes the messages in Kafka from the schema files alone, and compares them with the rows that
clickhouse-connect reads from the tables. Knows only the .avsc files and the columns of the platform.

Usage: client.py BROKERS CLICKHOUSE_HOST CLICKHOUSE_PORT SCHEMA_DIRECTORY
"""

import collections
import datetime
import io
import json
import pathlib
import sys
import time
import uuid

import clickhouse_connect
import confluent_kafka
import fastavro
from fastavro.schema import fingerprint, parse_schema, to_parsing_canonical_form

BROKERS, HOST, PORT, SCHEMAS = sys.argv[1], sys.argv[2], int(sys.argv[3]), pathlib.Path(sys.argv[4])
TOPICS = {"exposures": "exposure", "conversions": "conversion", "aliases": "alias"}
ROWS_TIMEOUT_S = 60

# Queries as people write them for PostgreSQL.
RATES = """
SELECT
    variant,
    COUNT(DISTINCT user_id) FILTER (WHERE event_type = 'exposure') AS exposures,
    COUNT(DISTINCT user_id) FILTER (WHERE event_type = 'conversion') AS conversions,
    COUNT(DISTINCT user_id) FILTER (WHERE event_type = 'conversion')::FLOAT
        / NULLIF(COUNT(DISTINCT user_id) FILTER (WHERE event_type = 'exposure'), 0) AS conversion_rate
FROM experiment_events
WHERE experiment_id = 'checkout'
  AND created_at >= NOW() - INTERVAL '7 days'
GROUP BY variant
ORDER BY variant
"""
BALANCE = """
SELECT
    variant,
    COUNT(DISTINCT user_id) AS users,
    AVG(CASE WHEN region = 'US' THEN 1 ELSE 0 END) AS us_share,
    AVG(CASE WHEN plan = 'pro' THEN 1 ELSE 0 END) AS pro_share,
    AVG(CASE WHEN device = 'mobile' THEN 1 ELSE 0 END) AS mobile_share
FROM experiment_events
WHERE experiment_id = 'checkout'
  AND event_type = 'exposure'
GROUP BY variant
ORDER BY variant
"""


def expect(actual, expected, what):
    assert actual == expected, f"{what}: {actual!r:.600} instead of {expected!r:.600}"


class Codec:
    """Avro single-object encoding with one schema file."""

    def __init__(self, name):
        document = json.loads((SCHEMAS / f"{name}.avsc").read_text())
        self.schema = parse_schema(document)
        digest = fingerprint(to_parsing_canonical_form(document), "CRC-64-AVRO")
        # The fingerprint is the hexadecimal form of the little-endian bytes in the header.
        self.header = b"\xc3\x01" + bytes.fromhex(digest)

    def decode(self, message):
        expect(message[:10], self.header, "header")
        stream = io.BytesIO(message[10:])
        record = fastavro.schemaless_reader(stream, self.schema)
        expect(stream.read(), b"", "bytes after the record")
        return record

    def encode(self, record):
        stream = io.BytesIO()
        fastavro.schemaless_writer(stream, self.schema, record)
        return self.header + stream.getvalue()


def read(topic):
    """Returns the first event of each id in the topic, with its partition and offset."""
    consumer = confluent_kafka.Consumer(
        {"bootstrap.servers": BROKERS, "group.id": "stranger", "enable.auto.commit": False}
    )
    codec = Codec(TOPICS[topic])
    events = {}
    for partition in consumer.list_topics(topic).topics[topic].partitions:
        place = confluent_kafka.TopicPartition(topic, partition, confluent_kafka.OFFSET_BEGINNING)
        low, high = consumer.get_watermark_offsets(place)
        consumer.assign([place])
        next_offset = low
        while next_offset < high:
            for message in consumer.consume(1000, 10):
                assert message.error() is None, message.error()
                next_offset = message.offset() + 1
                event = codec.decode(message.value())
                events.setdefault(event["event_id"], (partition, message.offset(), event))
    consumer.close()
    return events


def column_values(topic, event):
    """Returns the event's fields as the columns of its table."""
    values = {key: value for key, value in event.items() if key not in ("sender", "buckets", "from", "to")}
    for field, column in [
        ("service", "sender_service"),
        ("instance", "sender_instance"),
        ("library_version", "sender_version"),
    ]:
        values[column] = event["sender"][field]
    if topic == "exposures":
        buckets = event["buckets"] or {"slot": None, "rollout": None, "variant": None}
        for name in ("slot", "rollout", "variant"):
            values[f"bucket_{name}"] = buckets[name]
    if topic == "conversions":
        values["experiment"] = event["experiment"] or ""
    if topic == "aliases":
        for side in ("from", "to"):
            values[f"{side}_unit_type"] = event[side]["unit_type"]
            values[f"{side}_unit_id"] = event[side]["unit_id"]
    pairs = event.get("attributes" if topic == "exposures" else "metadata")
    if pairs is not None:
        for name in ("region", "plan", "device", "browser"):
            values[name] = pairs.get(name, "")
    return values


def compare(client, topic, events):
    result = client.query(f"SELECT * FROM {topic}")
    rows = [dict(zip(result.column_names, row)) for row in result.result_rows]
    expect(len(rows), len(events), f"rows of {topic}")
    for row in rows:
        event_id = row["event_id"]
        event_id = event_id if event_id in events else str(event_id)
        partition, offset, event = events[event_id]
        expect((row["kafka_partition"], row["kafka_offset"]), (partition, offset), f"position of {event_id}")
        for column, value in column_values(topic, event).items():
            found = row[column]
            if isinstance(found, uuid.UUID):
                found, value = str(found), str(value)
            if isinstance(found, datetime.datetime):
                found = found.replace(tzinfo=datetime.timezone.utc)
            expect(found, value, f"{topic}.{column} of {event_id}")


def rates(client, exposures, conversions):
    since = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(days=7)
    seen = collections.defaultdict(set)
    variant_of = {}
    for _, _, event in exposures.values():
        if event["experiment"] == "checkout" and event["created_at"] >= since:
            seen[event["variant"]].add(event["unit_id"])
            variant_of[event["unit_id"]] = event["variant"]
    converted = collections.defaultdict(set)
    for _, _, event in conversions.values():
        variant = variant_of.get(event["unit_id"])
        if variant is not None and event["created_at"] >= since:
            converted[variant].add(event["unit_id"])
    expected = [
        (name, len(seen[name]), len(converted[name]), len(converted[name]) / len(seen[name]))
        for name in sorted(seen)
    ]
    assert len(expected) == 2 and all(row[2] > 0 for row in expected), expected
    expect(client.query(RATES).result_rows, expected, "rates")


def balance(client, exposures):
    groups = collections.defaultdict(list)
    for _, _, event in exposures.values():
        if event["experiment"] == "checkout":
            groups[event["variant"]].append(event)

    def share(events, name, value):
        return sum(event["attributes"].get(name) == value for event in events) / len(events)

    expected = [
        (
            variant,
            len({event["unit_id"] for event in events}),
            share(events, "region", "US"),
            share(events, "plan", "pro"),
            share(events, "device", "mobile"),
        )
        for variant, events in sorted(groups.items())
    ]
    expect(client.query(BALANCE).result_rows, expected, "balance")


def write(client):
    """Checks that an event of a foreign producer is stored like any other."""
    codec = Codec("exposure")
    event_id = uuid.uuid4()
    record = {
        "event_id": event_id,
        "experiment": "elsewhere",
        "variant": "b",
        "unit_type": "user",
        "unit_id": "naïve 'unit'",
        "definition_version": 0,
        "created_at": datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc),
        "sender": {"service": "stranger", "instance": "", "library_version": "1"},
    }
    producer = confluent_kafka.Producer({"bootstrap.servers": BROKERS, "partitioner": "murmur2_random"})
    producer.produce("exposures", key=record["unit_id"], value=codec.encode(record))
    expect(producer.flush(30), 0, "messages not delivered")
    deadline = time.monotonic() + ROWS_TIMEOUT_S
    while time.monotonic() < deadline:
        found = client.query(
            "SELECT unit_id, environment, sender_service, configuration_version, reason FROM exposures"
            " WHERE event_id = {id:UUID}",
            parameters={"id": event_id},
        ).result_rows
        if found:
            expect(found, [(record["unit_id"], "production", "stranger", 0, "split")], "the foreign event")
            return
        time.sleep(0.2)
    raise AssertionError("the foreign event was not stored")


def main():
    client = clickhouse_connect.get_client(host=HOST, port=PORT, database="splitstream")
    events = {topic: read(topic) for topic in TOPICS}
    for topic in TOPICS:
        assert events[topic], topic
        compare(client, topic, events[topic])
    rates(client, events["exposures"], events["conversions"])
    balance(client, events["exposures"])
    write(client)
    print("foreign clients: all checks passed")


main()
