"""Which route template a request will take, found before the router runs and without knowing the framework.

Starlette, FastAPI and what is built like them tell it themselves: an app has `routes`, a route has `matches(scope)`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tacho_limits.asgi import App, Scope


@dataclass(frozen=True, slots=True)
class Route:
    """`/agents/{agent_id}/invoke`, and the values that the path has for its names."""

    template: str | None = None
    params: Mapping[str, Any] = field(default_factory=dict)

    @property
    def agent(self) -> str | None:
        """The value of `agent_id`, `agentId`, `agent`: what Tacho takes for the agent in a route that names one."""
        for name, value in self.params.items():
            if name.lstrip("_").lower().startswith("agent"):
                return str(value) or None
        return None


def resolve(scope: Scope, app: App) -> Route:
    """The route of this request. `app` is asked where the scope does not say which app it is in."""
    # A copy, as some routers keep notes in the scope while they match.
    return _descend(getattr(scope.get("app", app), "routes", None) or (), dict(scope), "") or Route()


def _descend(routes: Any, scope: Scope, prefix: str) -> Route | None:
    """The first route that matches in full, else the first that matches but for its method, as the router does it."""
    partial = None
    for route in _flat(routes):
        match, child = route.matches(scope)
        if match.name == "NONE":
            continue
        template = prefix + _template(route)
        found = Route(template, child.get("path_params", {}))
        if match.name == "FULL":
            inner = getattr(route, "routes", None)
            return (inner and _descend(inner, {**scope, **child}, template)) or found
        partial = partial or found
    return partial


def _flat(routes: Any) -> Iterator[Any]:
    """FastAPI keeps what `include_router` added in a node without a path; the routes in it have one."""
    for route in routes:
        contexts = getattr(route, "effective_route_contexts", None)
        if contexts is None:
            yield route
        else:
            yield from (getattr(context, "starlette_route", None) or context for context in contexts())


def _template(route: Any) -> str:
    """Without convertors (`{id}` for `{id:int}`). A mount is its prefix, and a host has no path at all."""
    template = str(getattr(route, "path_format", None) or getattr(route, "path", ""))
    return template.removesuffix("/{path}") if hasattr(route, "routes") else template
