"""A file on its way from a client to the disk, in multipart/form-data, part by part."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from pathlib import Path

from aiohttp import BodyPartReader, MultipartReader, web

from penstock_proto.batch_folder import CONTENT
from penstock_router.api.errors import ApiError, Kind, invalid
from penstock_router.batches.store import LARGEST_FILE, LIFE

UPLOAD_SECONDS = 900.0
STALL_SECONDS = 15.0
PART_BYTES = 4096  # of a field that is no file
MOST_PARTS = 16
WRITE_BYTES = 1 << 20
SHORTEST_LIFE = 3600  # seconds; OpenAI's
NAME = re.compile(r"[^\x00-\x1f\x7f/\\]{1,255}")


@dataclass(slots=True)
class Upload:
    """What the parts say."""

    filename: str | None = None
    purpose: str | None = None
    anchor: str | None = None
    seconds: str | None = None
    size: int = 0

    def checked(self) -> tuple[str, str, int]:
        """Name, purpose and seconds to live. Raises ApiError."""
        if self.filename is None:
            raise invalid("the form must have a part `file` with a file name")
        if self.purpose != "batch":
            given = f". Given: `{self.purpose[:64]}`" if self.purpose else ""
            raise invalid(f"`purpose` must be `batch`: files are kept for batches alone{given}")
        if self.anchor not in (None, "created_at"):
            raise invalid("`expires_after[anchor]` must be `created_at`")
        if self.seconds is None:
            return self.filename, self.purpose, LIFE
        seconds = int(self.seconds) if re.fullmatch(r"\d{1,9}", self.seconds) else 0
        if not SHORTEST_LIFE <= seconds <= LIFE:
            rule = f"a number of seconds from {SHORTEST_LIFE} to {LIFE}"
            raise invalid(f"`expires_after[seconds]` must be {rule}")
        return self.filename, self.purpose, seconds


FIELDS = {
    "purpose": "purpose",
    "expires_after[anchor]": "anchor",
    "expires_after[seconds]": "seconds",
}


async def receive(request: web.Request, folder: Path) -> Upload:
    """Writes the file of a form into the folder. Raises ApiError for a form that breaks a rule."""
    if request.content_type != "multipart/form-data":
        raise ApiError(Kind.MEDIA_TYPE, "Expected a form: `Content-Type: multipart/form-data`")
    upload = Upload()
    try:
        async with asyncio.timeout(UPLOAD_SECONDS):
            reader = await request.multipart()
            for _ in range(MOST_PARTS):
                part = await asyncio.wait_for(reader.next(), STALL_SECONDS)
                if part is None:
                    return upload
                await _take(part, upload, folder)
    except TimeoutError:
        raise ApiError(Kind.TIMEOUT, f"{UPLOAD_SECONDS:g}") from None
    except (ValueError, AssertionError, web.RequestPayloadError) as error:
        # the library's words for forms that are cut or malformed
        raise ApiError(Kind.BAD_REQUEST, "The form is not valid multipart/form-data") from error
    raise invalid(f"the form must have at most {MOST_PARTS} parts")


async def _take(part: MultipartReader | BodyPartReader, upload: Upload, folder: Path) -> None:
    if isinstance(part, MultipartReader):
        raise invalid("the form must not hold forms")
    if part.name == "file" and part.filename is not None:
        if upload.filename is not None:
            raise invalid("the form must have one part `file`")
        if not NAME.fullmatch(part.filename):
            raise invalid("the file's name must have 1 to 255 characters, and no slash")
        upload.filename = part.filename
        await _write(part, upload, folder / CONTENT)
    else:
        text = await _short(part)
        if field := FIELDS.get(part.name or ""):
            setattr(upload, field, text)


async def _write(part: BodyPartReader, upload: Upload, path: Path) -> None:
    with await asyncio.to_thread(path.open, "xb") as file:
        waiting: list[bytes] = []
        held = 0
        while chunk := await asyncio.wait_for(part.read_chunk(1 << 16), STALL_SECONDS):
            waiting.append(chunk)
            held += len(chunk)
            upload.size += len(chunk)
            if upload.size > LARGEST_FILE:
                raise ApiError(Kind.TOO_LARGE, LARGEST_FILE)
            if held >= WRITE_BYTES:
                await asyncio.to_thread(file.write, b"".join(waiting))
                waiting, held = [], 0
        await asyncio.to_thread(file.write, b"".join(waiting))


async def _short(part: BodyPartReader) -> str:
    data = b""
    while chunk := await asyncio.wait_for(part.read_chunk(PART_BYTES), STALL_SECONDS):
        data += chunk
        if len(data) > PART_BYTES:
            raise invalid(f"a field of the form must have at most {PART_BYTES} bytes")
    return data.decode(errors="replace").strip()
