"""Uses the server with an unmodified clickhouse-connect; each check states what a ClickHouse server answers.

Usage: client.py HOST PORT
"""

import concurrent.futures
import datetime
import decimal
import sys
import time
import uuid

import clickhouse_connect
from clickhouse_connect.driver.exceptions import DatabaseError, StreamFailureError

HOST, PORT = sys.argv[1], int(sys.argv[2])


def connect(**options):
    return clickhouse_connect.get_client(host=HOST, port=PORT, **options)


def expect(actual, expected):
    assert actual == expected, f"{actual!r:.300} instead of {expected!r:.300}"


def refused(code, call, *arguments, kind=DatabaseError, **options):
    try:
        call(*arguments, **options)
    except kind as error:
        assert f"code {code}" in str(error).lower() or f"Code: {code}" in str(error), str(error)
    else:
        raise AssertionError(f"not refused with code {code}")


def commands_and_types(client):
    expect(client.command("SELECT 1 + 1"), 2)
    assert client.server_version.startswith("26."), client.server_version
    client.command("CREATE DATABASE IF NOT EXISTS py")
    client.command(
        "CREATE TABLE py.kinds (id UUID, n UInt64, s String, low LowCardinality(String), d Decimal(18, 6), "
        "t DateTime64(6, 'UTC'), m Map(String, String), a Array(UInt32), o Nullable(Float64)) "
        "ENGINE = MergeTree ORDER BY n"
    )
    rows = [
        [
            uuid.UUID(int=number),
            2**63 + number,
            "naïve\n\t\0'\\",
            f"low{number % 2}",
            decimal.Decimal("12.500000"),
            datetime.datetime(2026, 11, 24, 5, 0, 0, number, tzinfo=datetime.timezone.utc),
            {"region": "US", "plan": "pro"},
            [1, number],
            None if number % 2 else 0.5,
        ]
        for number in range(1000)
    ]
    summary = client.insert("py.kinds", rows)
    expect(summary.written_rows, 1000)
    found = client.query("SELECT * FROM py.kinds ORDER BY n").result_rows
    # The client gives times in UTC without a zone.
    expect([list(row) for row in found], [row[:5] + [row[5].replace(tzinfo=None)] + row[6:] for row in rows])


def parameters(client):
    values = {"text": "a'b\\c\n\t;--", "numbers": [1, 2], "day": datetime.date(2026, 11, 24)}
    found = client.query("SELECT {text:String}, {numbers:Array(UInt8)}, {day:Date}", parameters=values)
    expect(found.result_rows, [(values["text"], [1, 2], values["day"])])
    expect(client.command("SELECT getSetting('max_threads')", settings={"max_threads": 3}), 3)
    bound = client.query("SELECT %(text)s, %(numbers)s", parameters=values)
    expect(bound.result_rows, [(values["text"], [1, 2])])
    with connect(form_encode_query_params=True) as form:
        found = form.query("SELECT {text:String}", parameters={"text": values["text"] * 1000})
        expect(found.result_rows, [(values["text"] * 1000,)])


def sessions(client):
    client.command("CREATE TEMPORARY TABLE mine (n UInt8)")
    client.insert("mine", [[7]], column_names=["n"])
    expect(client.command("SELECT n FROM mine"), 7)
    client.command("SET max_block_size = 1234")
    expect(client.command("SELECT getSetting('max_block_size')"), 1234)
    # A setting of one query does not stay in the session.
    expect(client.command("SELECT getSetting('max_block_size')", settings={"max_block_size": 99}), 99)
    expect(client.command("SELECT getSetting('max_block_size')"), 1234)
    with connect() as other:
        refused(60, other.query, "SELECT n FROM mine")
    # A session runs one query at a time.
    with connect(session_id="shared") as first, connect(session_id="shared") as second:
        with concurrent.futures.ThreadPoolExecutor() as pool:
            slow = pool.submit(first.command, "SELECT sleep(1.5)")
            time.sleep(0.5)
            refused(373, second.command, "SELECT 1")
            expect(slow.result(), 0)


def streams_and_codings():
    for coding in ["lz4", "zstd", "gzip", False]:
        with connect(compress=coding) as client:
            total = 0
            with client.query_row_block_stream("SELECT number FROM numbers(1000000)") as stream:
                for block in stream:
                    total += sum(row[0] for row in block)
            expect(total, 999999 * 1000000 // 2)
            client.command("CREATE OR REPLACE TABLE py.packed (n UInt32, s String) ENGINE = MergeTree ORDER BY n")
            client.insert("py.packed", [[number, str(number)] for number in range(50000)])
            expect(client.query("SELECT count(), sum(n), max(s) FROM py.packed").result_rows, [(50000, 1249975000, "9999")])
    with connect() as client:
        raw = client.raw_query("SELECT number, toString(number) FROM numbers(2)", fmt="CSV")
        expect(raw, b'0,"0"\n1,"1"\n')
        client.raw_insert("py.packed", column_names=["n", "s"], insert_block=b'1,"x"\n2,"y;"\n', fmt="CSV")
        expect(client.command("SELECT count() FROM py.packed WHERE s IN ('x', 'y;')"), 2)


def errors(client):
    refused(62, client.query, "SELEC 1")
    refused(60, client.query, "SELECT * FROM py.nowhere")
    refused(115, client.query, "SELECT 1 SETTINGS no_such_setting = 1")
    refused(159, client.command, "SELECT sleepEachRow(0.5) FROM numbers(6)", settings={"max_execution_time": 1, "max_block_size": 1})
    # The query fails in the middle of a result that has begun to arrive.
    with client.query_row_block_stream("SELECT rand64(), throwIf(number = 5000000, 'too far') FROM numbers(10000000)") as stream:
        refused(395, lambda: [None for _ in stream], kind=StreamFailureError)
    expect(client.command("SELECT 1"), 1)


def external_data(client):
    from clickhouse_connect.driver.external import ExternalData

    data = ExternalData(file_name="rows.csv", fmt="CSV", structure=["n UInt8", "s String"], data=b"1,a\n2,b\n")
    data.add_file(file_name="more.tsv", types=["UInt8", "Decimal(18, 2)"], data=b"2\t9.99\n")
    for _ in range(2):  # It lives as long as its query, also in a session.
        found = client.query(
            "SELECT n, s, _2 FROM rows JOIN more ON n = _1 WHERE s = {s:String}",
            parameters={"s": "b"},
            external_data=data,
        )
        expect(found.result_rows, [(2, "b", decimal.Decimal("9.99"))])
    refused(60, client.query, "SELECT * FROM rows")
    # A table of the session is neither used instead of it nor dropped with it.
    client.command("CREATE TEMPORARY TABLE rows (n UInt8)")
    refused(57, client.query, "SELECT * FROM rows", external_data=data)
    expect(client.command("SELECT count() FROM rows"), 0)
    client.command("DROP TEMPORARY TABLE rows")


with connect() as shared:
    commands_and_types(shared)
    parameters(shared)
    sessions(shared)
    streams_and_codings()
    errors(shared)
    external_data(shared)
print("clickhouse-connect: all checks passed")
