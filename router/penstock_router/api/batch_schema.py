"""What clients may send to /v1/batches."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from penstock_router.api.errors import invalid
from penstock_router.api.schema import ClientObject

MOST_HOURS = 168


class BatchRequest(ClientObject):
    """A batch to be answered."""

    IGNORED: ClassVar = frozenset({"output_expires_after"})

    input_file_id: Annotated[str, Field(min_length=1, max_length=64)]
    endpoint: Literal["/v1/chat/completions", "/v1/completions", "/v1/responses"]
    completion_window: Annotated[str, Field(pattern=r"^[1-9][0-9]{0,2}h$")] = "24h"
    metadata: Annotated[
        dict[
            Annotated[str, Field(min_length=1, max_length=64)],
            Annotated[str, Field(max_length=512)],
        ],
        Field(max_length=16),
    ] = {}

    @property
    def hours(self) -> int:
        """In which it is to be answered. Raises ApiError for too many."""
        hours = int(self.completion_window[:-1])
        if hours > MOST_HOURS:
            raise invalid(f"`completion_window` must be from 1h to {MOST_HOURS}h. Given: {hours}h")
        return hours
