"""Confluent's own client, unchanged, writing to and reading from the stack's Kafka and registry.

Usage: client.py BROKERS REGISTRY COMMAND [ARGUMENT...]

    write TOPIC SCHEMA_FILE [NAME SUBJECT VERSION]...
                               writes the JSON events on stdin; registers the schema with its references
    raw TOPIC                  writes the messages on stdin, each a line of hexadecimal digits
    read TOPIC                 prints every event so far, as JSON lines
    dead-letters TOPIC         prints every dead letter so far, as JSON lines
    register TOPIC SCHEMA_FILE [NAME SUBJECT VERSION]...
                               prints the schema's number, or the registry's status and code
    compatibility LEVEL        sets the level of every subject
"""

import json
import sys

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.schema_registry import Schema, SchemaReference, SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.schema_registry.error import SchemaRegistryError
from confluent_kafka.serialization import MessageField, SerializationContext

BROKERS = sys.argv[1]
REGISTRY = SchemaRegistryClient({"url": sys.argv[2]})


def schema(file_name, references):
    """Returns the schema in a file with its references, each given by name, subject and version."""
    named = []
    for at in range(0, len(references), 3):
        name, subject, version = references[at : at + 3]
        named.append(SchemaReference(name, subject, int(version)))
    with open(file_name) as file:
        return Schema(file.read(), "AVRO", named)


def write(topic, schema_file, *references):
    serializer = AvroSerializer(REGISTRY, schema(schema_file, references))
    context = SerializationContext(topic, MessageField.VALUE)
    send(topic, (serializer(json.loads(line), context) for line in sys.stdin))


def raw(topic):
    send(topic, (bytes.fromhex(line) for line in sys.stdin))


def send(topic, values):
    producer = Producer({"bootstrap.servers": BROKERS, "partitioner": "murmur2_random"})
    failed = []
    count = 0
    for value in values:
        producer.produce(topic, value, key="k", on_delivery=lambda error, _: error and failed.append(error))
        count += 1
    assert producer.flush(60) == 0, "not all was acknowledged"
    assert not failed, failed[0]
    print(count)


def messages(topic):
    """Yields every message that the topic has now, partition after partition."""
    consumer = Consumer({"bootstrap.servers": BROKERS, "group.id": "reader", "enable.auto.commit": False})
    for partition in sorted(consumer.list_topics(topic, 30).topics[topic].partitions):
        low, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), 30)
        consumer.assign([TopicPartition(topic, partition, low)])
        while low < high:
            message = consumer.poll(30)
            assert message is not None, f"nothing at {partition}/{low}"
            assert message.error() is None, message.error()
            low = message.offset() + 1
            yield message
    consumer.close()


def read(topic):
    deserializer = AvroDeserializer(REGISTRY)
    context = SerializationContext(topic, MessageField.VALUE)
    for message in messages(topic):
        assert message.value()[0] == 0, message.value()[:10].hex()
        print(json.dumps(deserializer(message.value(), context), default=str))


def dead_letters(topic):
    for message in messages(topic):
        print(json.dumps({name: value.decode() for name, value in message.headers()}))


def register(topic, schema_file, *references):
    try:
        print(REGISTRY.register_schema(f"{topic}-value", schema(schema_file, references)))
    except SchemaRegistryError as error:
        print(error.http_status_code, error.error_code)


def compatibility(level):
    REGISTRY.set_compatibility(level=level)
    print(level)


COMMANDS = {
    "write": write,
    "raw": raw,
    "read": read,
    "dead-letters": dead_letters,
    "register": register,
    "compatibility": compatibility,
}
COMMANDS[sys.argv[3]](*sys.argv[4:])
