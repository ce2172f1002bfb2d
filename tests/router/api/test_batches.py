"""/v1/files and /v1/batches: forms, lists, bounds, whose they are."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from penstock_proto.batch_folder import owner_of, read_object
from penstock_router.api import batch_routes, file_upload
from penstock_router.batches import store
from router.api.conftest import Client, Serve, beside_only

pytestmark = beside_only
FOLDER = {"batch_storage_limit": 1_000_000}
LINE = b'{"custom_id": "a"}\n'


async def start(serve: Serve, tmp_path: Path, **changes: Any) -> Client:
    return await serve(batch_folder=str(tmp_path / "kept"), **FOLDER | changes)


def form(content: bytes = LINE, **fields: str) -> aiohttp.FormData:
    data = aiohttp.FormData()
    for name, value in ({"purpose": "batch"} | fields).items():
        data.add_field(name, value)
    data.add_field("file", content, filename="in.jsonl")
    return data


async def upload(client: Client, data: Any = None, **kwargs: Any) -> tuple[int, Any]:
    data = form() if data is None else data
    async with client.session.post(f"{client.url}/v1/files", data=data, **kwargs) as response:
        return response.status, await response.json()


async def delete(client: Client, path: str) -> tuple[int, Any]:
    async with client.session.delete(client.url + path) as response:
        return response.status, await response.json()


async def test_without_a_folder_there_are_none(serve: Serve) -> None:
    client = await serve()
    for path in ("/v1/files", "/v1/batches"):
        status, said = await client.get(path)
        assert status == 404 and b"--batch-folder" in said


async def test_a_file_is_kept_as_it_came(serve: Serve, tmp_path: Path) -> None:
    client = await start(serve, tmp_path, payload_limit=1000)
    content = bytes(range(256)) * 2000  # more than a body elsewhere, and than a chunk
    status, file = await upload(client, form(content))
    assert status == 200 and file["bytes"] == len(content)
    assert (file["object"], file["purpose"], file["status"]) == ("file", "batch", "processed")
    assert file["expires_at"] - file["created_at"] == store.LIFE
    assert (await client.get(f"/v1/files/{file['id']}/content"))[1] == content
    status, found = await client.get(f"/v1/files/{file['id']}")
    assert json.loads(found) == file
    assert await delete(client, f"/v1/files/{file['id']}") == (
        200,
        {"id": file["id"], "object": "file", "deleted": True},
    )
    assert (await client.get(f"/v1/files/{file['id']}/content"))[0] == 404
    assert (await delete(client, f"/v1/files/{file['id']}"))[0] == 404
    kept = [path for path in (tmp_path / "kept").rglob("*") if path.is_file()]
    assert not kept
    assert (await client.post("/v1/chat/completions", {"x": "y" * 2000}))[0] == 413


async def test_forms_that_are_wrong(serve: Serve, tmp_path: Path) -> None:
    client = await start(serve, tmp_path)
    no_file, two = aiohttp.FormData(), form()
    no_file.add_field("purpose", "batch")
    no_file.add_field("x", "", content_type="text/plain")
    two.add_field("file", b"", filename="b")
    long = aiohttp.FormData()
    long.add_field("file", b"", filename="b" * 300, content_type="text/plain")
    for data, words in [
        (form(purpose="fine-tune"), "`purpose` must be `batch`"),
        (no_file, "must have a part `file`"),
        (two, "one part `file`"),
        (long, "1 to 255 characters"),
        (form(**{"expires_after[seconds]": "60"}), "must be a number of seconds from 3600"),
        (form(**{"expires_after[anchor]": "now"}), "must be `created_at`"),
        (form(padding="x" * 5000), "at most 4096 bytes"),
        (form(**{f"f{i}": "" for i in range(20)}), "at most 16 parts"),
    ]:
        status, said = await upload(client, data)
        assert status == 422 and words in said["error"]["message"], words
    assert (await client.post("/v1/files", {"purpose": "batch"}))[0] == 415
    kind = {"Content-Type": "multipart/form-data; boundary=b"}
    for body in (b"nonsense", b"--b\r\n", b"--b\r\nContent-Disposition: form-data\r\n\r\nx"):
        status, _ = await upload(client, body, headers=kind)
        assert status in (400, 422)
    assert (await upload(client, b"", headers={"Content-Type": "multipart/form-data"}))[0] == 400
    assert not [path for path in (tmp_path / "kept").rglob("*") if path.is_file()]
    status, file = await upload(client, form(**{"expires_after[seconds]": "3600"}))
    assert status == 200 and file["expires_at"] - file["created_at"] == 3600


async def test_bounds(serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client = await start(serve, tmp_path)
    monkeypatch.setattr(file_upload, "LARGEST_FILE", 100_000)
    assert (await upload(client, form(b"x" * 100_001)))[0] == 413
    monkeypatch.undo()
    assert (await upload(client, form(b"x" * 700_000)))[0] == 200
    status, said = await upload(client, form(b"x" * 700_000))
    assert status == 429 and "--batch-storage-limit" in said["error"]["message"]
    monkeypatch.setattr(store, "MOST_FILES", 2)
    status, file = await upload(client)
    assert status == 200
    status, said = await upload(client)
    assert status == 429 and "delete some" in said["error"]["message"]
    monkeypatch.setattr(store, "MOST_BATCHES", 1)
    body = {"input_file_id": file["id"], "endpoint": "/v1/completions"}
    assert (await client.post("/v1/batches", body))[0] == 200
    assert (await client.post("/v1/batches", body))[0] == 429


async def test_lists(serve: Serve, tmp_path: Path) -> None:
    client = await start(serve, tmp_path)
    made = [(await upload(client))[1]["id"] for _ in range(3)]

    async def page(query: str) -> Any:
        return json.loads((await client.get(f"/v1/files?{query}"))[1])

    whole = await page("")
    names = [file["id"] for file in whole["data"]]
    assert sorted(names) == sorted(made) and whole["has_more"] is False
    first = await page("limit=2")
    assert [file["id"] for file in first["data"]] == names[:2] and first["has_more"]
    rest = await page(f"limit=2&after={first['last_id']}")
    assert [file["id"] for file in rest["data"]] == names[2:] and not rest["has_more"]
    assert [f["id"] for f in (await page("order=asc"))["data"]] == names[::-1]
    assert (await page("purpose=batch_output"))["data"] == []
    for query in ("limit=0", "limit=101", "limit=x", "after=file-1", "order=up"):
        assert (await client.get(f"/v1/files?{query}"))[0] == 422


async def test_batches_wait_for_the_process(serve: Serve, tmp_path: Path) -> None:
    client = await start(serve, tmp_path)
    _, file = await upload(client)
    body = {
        "input_file_id": file["id"],
        "endpoint": "/v1/chat/completions",
        "completion_window": "24h",
        "metadata": {"a": "b"},
    }
    status, batch = await client.post("/v1/batches", body)
    assert status == 200 and batch["status"] == "validating"
    assert batch["expires_at"] - batch["created_at"] == 86_400
    folder = tmp_path / "kept" / "batches" / owner_of(None) / batch["id"]
    assert (folder / "input").read_bytes() == LINE and read_object(folder) == batch
    await delete(client, f"/v1/files/{file['id']}")
    assert (folder / "input").read_bytes() == LINE
    status, said = await client.post(f"/v1/batches/{batch['id']}/cancel", {})
    assert status == 200 and said["status"] == "cancelling" and (folder / "cancel").exists()
    listed = json.loads((await client.get("/v1/batches"))[1])
    assert [each["status"] for each in listed["data"]] == ["cancelling"]
    for change in (
        {"input_file_id": "file-1"},
        {"input_file_id": "../../x"},
        {"endpoint": "/v1/embeddings"},
        {"completion_window": "1d"},
        {"completion_window": "999h"},
        {"metadata": {"a": 1}},
        {"metadata": {str(i): "" for i in range(17)}},
    ):
        status, said = await client.post("/v1/batches", body | change)
        assert status == 422 and next(iter(change)) in said["error"]["message"]
    for path in ("/v1/batches/x", "/v1/batches/..%2F..%2Fx", f"/v1/batches/file-{'0' * 32}"):
        assert (await client.get(path))[0] == 404
    assert (await client.post("/v1/batches/x/cancel", {}))[0] == 404


async def test_a_key_sees_its_own(serve: Serve, tmp_path: Path) -> None:
    client = await start(serve, tmp_path, api_key=("alice", "bob"))
    alice, bob = ({"Authorization": f"Bearer {key}"} for key in ("alice", "bob"))
    assert (await upload(client))[0] == 401
    _, file = await upload(client, headers=alice)
    path = f"/v1/files/{file['id']}"
    assert (await client.get(path, headers=alice))[0] == 200
    for their in (path, f"{path}/content"):
        assert (await client.get(their, headers=bob))[0] == 404
    assert json.loads((await client.get("/v1/files", headers=bob))[1])["data"] == []
    body = {"input_file_id": file["id"], "endpoint": "/v1/completions"}
    assert (await client.post("/v1/batches", body, headers=bob))[0] == 422
    names = [folder.name for folder in (tmp_path / "kept" / "files").iterdir()]
    assert names == [owner_of("alice")] and "alice" not in names[0]


async def test_too_many_uploads_at_a_time(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_routes, "MOST_UPLOADS", 1)
    client = await start(serve, tmp_path)
    blocked = asyncio.Event()

    async def slow() -> Any:
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nx'
        await blocked.wait()
        yield b"\r\n--b--\r\n"

    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    first = asyncio.create_task(upload(client, slow(), headers=headers))
    while not list((tmp_path / "kept").rglob("content")):
        await asyncio.sleep(0.01)
    assert (await upload(client))[0] == 429
    blocked.set()
    assert (await first)[0] == 422  # no purpose
    assert (await upload(client))[0] == 200
