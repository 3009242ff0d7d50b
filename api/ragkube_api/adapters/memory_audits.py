"""``AuditBook`` of one process."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

MOST_RECORDS: Final = 10_000


class MemoryAuditBook:
    """Records that were not replaced for longest go first."""

    def __init__(self) -> None:
        self._records: OrderedDict[tuple[str, str], bytes] = OrderedDict()

    async def read(self, tenant: str, name: str) -> bytes | None:
        """What is there."""
        return self._records.get((tenant, name))

    async def replace(
        self, tenant: str, name: str, old: bytes | None, new: bytes
    ) -> tuple[bool, bytes | None]:
        """Nothing comes in between in one process."""
        place = (tenant, name)
        held = self._records.get(place)
        if held != old:
            return False, held
        self._records[place] = new
        self._records.move_to_end(place)
        if len(self._records) > MOST_RECORDS:
            self._records.popitem(last=False)
        return True, new
