"""Which trace a request belongs to: Tacho finds the spans that settle a hold by it."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from tacho_limits.asgi import Scope, header

_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?")


@dataclass(frozen=True, slots=True)
class Trace:
    """The trace of a request, and the route that its server span names if it already does."""

    trace_id: str
    traceparent: str
    route: str | None = None


def current(scope: Scope) -> Trace | None:
    """The trace of the current span; where there is none, the one that the caller says it is in."""
    return _of_current_span() or _of_header(scope)


def _of_current_span() -> Trace | None:
    get_current_span = _opentelemetry()
    if get_current_span is None:
        return None
    span = get_current_span()
    context = span.get_span_context()
    if not context.is_valid:
        return None
    trace_id = f"{context.trace_id:032x}"
    # Only the SDK's spans can be read, and only while they record.
    route = (getattr(span, "attributes", None) or {}).get("http.route")
    traceparent = f"00-{trace_id}-{context.span_id:016x}-{context.trace_flags:02x}"
    return Trace(trace_id, traceparent, route if isinstance(route, str) else None)


def _of_header(scope: Scope) -> Trace | None:
    traceparent = (header(scope, b"traceparent") or b"").decode("latin-1").strip()
    found = _TRACEPARENT.fullmatch(traceparent)
    return Trace(found[1], traceparent) if found else None


@cache
def _opentelemetry() -> Callable[[], Any] | None:
    """Looked for at the first request and not at import, as a bot without OpenTelemetry may well use us."""
    try:
        from opentelemetry.trace import get_current_span
    except ImportError:
        return None
    return get_current_span
