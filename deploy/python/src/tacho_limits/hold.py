"""What a handler gets to see of the check."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from tacho_limits.client import Client


@dataclass(frozen=True, slots=True)
class Hold:
    """What Tacho has set aside for this request, in `scope["tacho"]`. The request's spans settle it when they arrive,
    so a handler needs to do nothing. It may, where it knows better or earlier.
    """

    _client: Client = field(repr=False)
    reservation: str | None = None
    """`None` where the request went on unchecked."""
    limits: Sequence[Mapping[str, Any]] = ()
    """Each limit that counts this request, as Tacho describes it."""
    degraded: bool = False
    """Tacho could not ask its own store, and decided by what it knows."""

    async def release(self) -> bool:
        """Gives back all of it: nothing was used. True if Tacho took it."""
        return await self._tell("/v1/release", {})

    async def settle(
        self,
        *,
        input_tokens: int | None = None,
        output_tokens: int | None = None,
        cost_usd: Decimal | str | None = None,
    ) -> bool:
        """Puts what was used in the place of what was set aside. True if Tacho took it."""
        used = {
            "input_tokens": input_tokens,
            "output_tokens": output_tokens,
            # As text: money is exact, and a JSON number is not.
            "cost_usd": None if cost_usd is None else str(cost_usd),
        }
        return await self._tell("/v1/settle", {name: value for name, value in used.items() if value is not None})

    async def _tell(self, path: str, used: Mapping[str, Any]) -> bool:
        if self.reservation is None:
            return False
        answer = await self._client.post(path, {"reservation": self.reservation, **used})
        if answer is None:
            return False
        if not 200 <= answer.status < 300:
            self._client.surprise(answer)
            return False
        return True
