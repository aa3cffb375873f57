#!/usr/bin/env python3
"""Makes fuzz/seeds/ from the captured bodies: a small request for each kind of span that is in them, and the bare span."""

import hashlib
import json
import pathlib

HERE = pathlib.Path(__file__).parent
CAPTURES = HERE.parent / "tests" / "golden" / "captures"
# Larger ones make the fuzzer slow and show it nothing new.
LARGEST = 1500


def varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def fields(data):
    """The fields of a message as (tag, content or None, the field's bytes)."""
    at = 0
    while at < len(data):
        start = at
        key, at = varint(data, at)
        content = None
        if key & 7 == 0:
            _, at = varint(data, at)
        elif key & 7 == 2:
            length, at = varint(data, at)
            content = data[at : at + length]
            at += length
        else:
            at += 8 if key & 7 == 1 else 4
        yield key >> 3, content, data[start:at]


def field(tag, content):
    length, out = len(content), bytearray([tag << 3 | 2])
    while length > 0x7F:
        out.append(length & 0x7F | 0x80)
        length >>= 7
    return bytes(out) + bytes([length]) + content


def text(message, tag):
    return next((content for found, content, _ in fields(message) if found == tag), b"")


def protobuf_seeds(body):
    """(kind, request) for each span; the kind is its scope and the keys of its attributes."""
    for _, resource_spans, _ in fields(body):
        resource = [raw for tag, _, raw in fields(resource_spans) if tag == 1]
        for tag, scope_spans, _ in fields(resource_spans):
            if tag != 2:
                continue
            scope = [raw for tag, _, raw in fields(scope_spans) if tag == 1]
            for tag, span, raw in fields(scope_spans):
                if tag == 2:
                    keys = sorted(text(content, 1) for tag, content, _ in fields(span) if tag == 9)
                    inside = b"".join(resource) + field(2, b"".join(scope) + raw)
                    yield (b"".join(scope), tuple(keys)), field(1, inside)
                    yield (b"bare" + b"".join(scope), tuple(keys)), span


def json_seeds(body):
    for resource_spans in json.loads(body)["resourceSpans"]:
        for scope_spans in resource_spans["scopeSpans"]:
            for span in scope_spans["spans"]:
                keys = sorted(attribute["key"] for attribute in span["attributes"])
                request = {"resourceSpans": [{"scopeSpans": [{"scope": scope_spans["scope"], "spans": [span]}]}]}
                yield (scope_spans["scope"]["name"], tuple(keys)), json.dumps(request, separators=(",", ":")).encode()


def write(target, pattern, seeds):
    """The smallest request of each kind."""
    smallest = {}
    for path in sorted(CAPTURES.glob(pattern)):
        if path.name != "expected.json":
            for kind, request in seeds(path.read_bytes()):
                if len(request) <= LARGEST and len(request) < len(smallest.get(kind, b"x" * LARGEST * 2)):
                    smallest[kind] = request
    folder = HERE / "seeds" / target
    folder.mkdir(parents=True, exist_ok=True)
    # A few kinds of each scope are enough.
    scopes = {}
    for (scope, keys), request in sorted(smallest.items(), key=lambda item: (item[0], item[1])):
        scopes.setdefault(scope, []).append(request)
    for requests in scopes.values():
        for request in requests[:: max(1, len(requests) // 3)][:3]:
            (folder / hashlib.sha256(request).hexdigest()[:12]).write_bytes(request)


write("wire", "*/*.pb", protobuf_seeds)
write("json", "*/*.json", json_seeds)
