"""The edge with the unmodified OpenFeature SDK for Python and its OFREP provider.

Usage: python client.py CASES URL TOKEN
"""

import json
import sys
import time

from openfeature import api
from openfeature.contrib.provider.ofrep import OFREPProvider
from openfeature.evaluation_context import EvaluationContext
from openfeature.exception import ErrorCode

cases, url, token = sys.argv[1:]


def provider(shown):
    return OFREPProvider(url, headers_factory=lambda: {"Authorization": f"Bearer {shown}"})


def equal(got, expected):
    assert got == expected and type(got) is type(expected), f"{got!r} is not {expected!r}"


api.set_provider(provider(token))
client = api.get_client()
nobody = EvaluationContext()
adult = EvaluationContext(targeting_key="python-1", attributes={"age": 20})



def check(shared):
    """Evaluates a case that every client must agree with."""
    case = {**shared, **shared.get("except", {}).get("python", {})}
    attributes = dict(case.get("context", {}))
    context = EvaluationContext(targeting_key=attributes.pop("targetingKey", None), attributes=attributes)
    read = {
        "boolean": client.get_boolean_details,
        "string": client.get_string_details,
        "integer": client.get_integer_details,
        "double": client.get_float_details,
        "object": client.get_object_details,
    }[case["as"]]
    found = read(case["flag"], case["default"], context)
    error = case.get("error")
    equal(found.value, case["value"])
    equal(found.error_code and found.error_code.value, error)
    equal(str(found.reason), "ERROR" if error else case["reason"])
    equal(found.flag_key, case["flag"])
    assert found.error_message or not error, f"{case['name']}: no message"
    if "variant" in case:
        equal(found.variant, case["variant"])
    if "metadata" in case:
        expected = case["metadata"]
        equal({name: found.flag_metadata.get(name) for name in expected or found.flag_metadata}, expected)


with open(cases, encoding="utf-8") as file:
    for each in json.load(file):
        try:
            check(each)
        except AssertionError as error:
            raise AssertionError(f"{each['name']}: {error}") from error

details = client.get_boolean_details("on-sale", False)
equal((details.value, str(details.reason), details.variant), (True, "STATIC", "on"))
equal(client.get_boolean_value("switched-off", True), False)
equal(client.get_string_value("greeting", "x", EvaluationContext(attributes={"country": "FR"})), 'bonjour "ü"')
equal(client.get_integer_value("retries", 0), 3)
large = EvaluationContext(attributes={"account_number": 9007199254740993})
equal(client.get_integer_value("retries", 0, large), 9007199254740993)
# A whole number of a flag of numbers is a float here.
equal(client.get_float_value("factor", 0.0), 1.0)
equal(client.get_object_value("layout", {}), {"columns": [1, 2.5, None], "title": "w"})
checkout = client.get_string_details("checkout", "x", adult)
equal(str(checkout.reason), "SPLIT")
equal(checkout.flag_metadata["experiment"], "checkout")
equal(str(client.get_string_details("checkout", "x", EvaluationContext(attributes={"age": 7})).reason), "DEFAULT")

for key, context, code in [
    ("nobody", nobody, ErrorCode.FLAG_NOT_FOUND),
    ("checkout", EvaluationContext(attributes={"age": 20}), ErrorCode.TARGETING_KEY_MISSING),
    ("checkout", EvaluationContext(targeting_key="x" * 257, attributes={"age": 20}), ErrorCode.INVALID_CONTEXT),
    ("on-sale", nobody, ErrorCode.TYPE_MISMATCH),
]:
    failed = client.get_string_details(key, "x", context)
    equal((failed.value, failed.error_code), ("x", code))
api.set_provider(provider("wrong"), "stranger")
refused = api.get_client("stranger").get_boolean_details("on-sale", False)
equal((refused.value, str(refused.reason)), (False, "ERROR"))

print("flip", flush=True)
equal(sys.stdin.readline(), "done\n")
end = time.monotonic() + 10
while client.get_float_value("factor", 0.0) != 0.5:
    assert time.monotonic() < end, "the new value is not served within 10 s"
    time.sleep(0.02)
print("python: all checks passed")
