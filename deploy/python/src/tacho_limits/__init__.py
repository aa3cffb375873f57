"""Asks Tacho before each request of an ASGI bot whether its limits allow it."""

from tacho_limits.hold import Hold
from tacho_limits.middleware import Estimate, TachoMiddleware, from_header

__all__ = ["Estimate", "Hold", "TachoMiddleware", "from_header"]
