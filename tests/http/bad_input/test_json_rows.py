"""B22 to B33: bodies that are no JSON, or more JSON than anybody needs."""

import pytest

from tests.http.bad_input.asking import Row, assert_refused, post, table
from tests.http.conftest import Serve
from tests.support.memory_service import submit_body

MIB = 1024 * 1024
AT = submit_body(prompt="@")
SEVEN = submit_body(ctx=7, max_tokens=7)


def json_(body: bytes) -> Row:
    return Row(post(body), 400, "json")


def field(body: bytes) -> Row:
    return Row(post(body), 400, "field")


def prompt(spelled: bytes) -> bytes:
    return AT.replace(b'"@"', spelled)


def ctx(spelled: bytes) -> bytes:
    return SEVEN.replace(b'"ctx":7', b'"ctx":' + spelled)


ROWS = {
    "B22 nothing": json_(b""),
    "B22 blanks": json_(b" \r\n\t" * 1000),
    "B22 a MiB of blanks": json_(b" " * MIB),
    "B23 null": field(b"null"),
    "B23 an array": field(b"[]"),
    "B23 a string": field(b'"x"'),
    "B23 a number": field(b"1"),
    "B23 true": field(b"true"),
    "B23 an empty object": field(b"{}"),
    "B24 truncated in a key": json_(AT[:5]),
    "B24 truncated before the end": json_(AT[:-1]),
    "B24 truncated in an escape": json_(prompt(b'"\\u00')),
    "B25 a letter after the end": json_(AT + b"x"),
    "B25 NUL after the end": json_(AT + b"\0"),
    "B25 two documents": json_(AT + AT),
    "B25 a comma at the end": json_(AT[:-1] + b",}"),
    "B25 a comment": json_(AT[:-1] + b"/**/}"),
    "B26 100,000 arrays": field(b"[" * 100_000),
    "B26 a MiB of arrays": field(b"[" * MIB),
    "B26 a prompt 100,000 deep": field(prompt(b"[" * 100_000)),
    "B26 an unknown field 100,000 deep": field(b'{"z":' + b"[" * 100_000),
    "B26 objects 100,000 deep": json_(b'{"z":' * 100_000),
    "B26 inputs 33 deep": field(prompt(b'"@"').replace(b'"prompt":"@"', b'"inputs":' + b"[" * 33 + b"]" * 33)),
    "B27 a key twice": json_(ctx(b'7,"ctx":7')),
    "B27 a key twice with a blank": json_(ctx(b'7,"ctx"\n :7')),
    "B27 a key twice, escaped": json_(ctx(b'7,"\\u0063tx":7')),
    "B27 a key twice in sampler": json_(
        submit_body(sampler={"top_k": 1}).replace(b'"top_k":1', b'"top_k":1,"top_k":2')
    ),
    "B27 prompt twice, once like JSON": json_(prompt(b'"\\"prompt\\":\\"@\\"","prompt":"@"')),
    "B27 a key 100,000 times": json_(ctx(b"7" + b',"ctx":7' * 100_000)),
    "B28 NaN": json_(ctx(b"NaN")),
    "B28 Infinity": json_(ctx(b"Infinity")),
    "B28 -Infinity": json_(ctx(b"-Infinity")),
    "B28 -0": field(ctx(b"-0")),
    "B28 1e400": field(ctx(b"1e400")),
    "B28 1e400 as a float": field(submit_body(sampler={"top_p": 0.125}).replace(b"0.125", b"1e400")),
    "B28 a plus": json_(ctx(b"+7")),
    "B28 a zero in front": json_(ctx(b"07")),
    "B28 hex": field(ctx(b"0x7")),
    "B28 a number without an end": json_(ctx(b"7.")),
    "B29 10^1000": field(ctx(b"1" + b"0" * 1000)),
    "B29 a MiB of digits": field(ctx(b"9" * (MIB - 500))),
    "B29 a MiB of digits below zero": field(ctx(b"-" + b"9" * (MIB - 500))),
    "B30 bad UTF-8 in a value": json_(prompt(b'"\xff"')),
    "B30 bad UTF-8 in a key": json_(AT.replace(b'"prompt"', b'"prom\xffpt"')),
    "B30 an overlong slash": json_(prompt(b'"\xc0\xaf"')),
    "B30 half a character": json_(prompt(b'"\xf0\x9f\x98"')),
    "B30 above the last character": json_(prompt(b'"\xf4\x90\x80\x80"')),
    "B30 a byte-order mark": json_(b"\xef\xbb\xbf" + AT),
    "B30 UTF-16": json_(AT.decode().encode("utf-16")),
    "B30 UTF-32": json_(AT.decode().encode("utf-32-le")),
    "B31 a surrogate as UTF-8": json_(prompt(b'"\xed\xa0\x80"')),
    "B31 a lone high surrogate": json_(prompt(b'"\\ud800"')),
    "B31 a lone low surrogate": json_(prompt(b'"\\udc00 and on"')),
    "B31 a high surrogate and a letter": json_(prompt(b'"\\ud800\\u0041"')),
    "B31 two high surrogates": json_(prompt(b'"\\ud800\\ud800"')),
    "B32 50,000 keys": json_(b"{" + b",".join(b'"k%d":1' % i for i in range(50_000)) + b"}"),
    "B32 250,000 inputs": json_(AT.replace(b'"prompt":"@"', b'"inputs":[' + b'"",' * 250_000 + b'""]')),
    "B33 __proto__": field(submit_body(__proto__={"admin": True})),
    "B33 constructor": field(submit_body(constructor={"prototype": {}})),
    "B33 a tenant": field(submit_body(tenant="root")),
    "B33 a client_id": field(submit_body(client_id="root")),
    "B33 a job_id": field(submit_body(job_id="1")),
    "B33 a policy": field(submit_body(policy="drop-lru")),
    "B33 a field of the stream's": field(submit_body(queue_position=0)),
    "B33 a name with a line in it": field(submit_body(**{"s3cr3t-payload\n": 1})),
    "B33 a name with a place in it": field(submit_body(**{"a` - at `$.s3cr3t_payload": 1})),
    "B33 a name of 1 MB": field(submit_body(**{"a" * 1_000_000: 1})),
    "B33 an empty name": field(submit_body(**{"": 1})),
}


@pytest.mark.orch("ORCH-3015")
@pytest.mark.parametrize("row", table(ROWS))
async def test_what_is_not_one_clean_json_object_is_refused(serve: Serve, row: Row) -> None:
    server = await serve()

    await assert_refused(server, row)
