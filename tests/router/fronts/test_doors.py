"""Ways in: HTTPS with certificates that change, Unix sockets, a prefix; each with the API in this
process and in processes of its own."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import uvloop

from penstock_router import tls
from penstock_router.fronts.group import FrontGroup
from penstock_router.fronts.local import LocalFront
from penstock_router.metrics import Metrics
from penstock_router.tls import Tls, TlsFiles
from router.api.conftest import CONFIG
from support.certificates import Authority
from support.fake_engine import FakeEngine
from support.small_text import byte_level, write_folder

STREAM = {"inputs": "hi", "stream": True}


def pytest_asyncio_loop_factories(config: Any, item: Any) -> dict[str, Any]:
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(write_folder(tmp_path_factory.mktemp("model"), byte_level()))


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


@contextlib.asynccontextmanager
async def opened(
    folder: Path, engine: FakeEngine, processes: int, path: Path | None = None, **changes: Any
) -> AsyncIterator[tuple[str, FrontGroup | LocalFront]]:
    """The URL of a front that serves, and the front."""
    listener = socket.socket(socket.AF_UNIX if path else socket.AF_INET)
    listener.bind(str(path) if path else ("127.0.0.1", 0))
    config = dataclasses.replace(
        CONFIG,
        model_path=str(folder),
        http_processes=processes,
        listener=listener.detach(),
        **changes,
    )
    front = FrontGroup(config) if processes else LocalFront(config)
    await front.load()
    try:
        opening = front.open(engine, Metrics(64, 96))  # type: ignore[arg-type]
        yield await asyncio.wait_for(opening, 30), front
    finally:
        await front.close()


@pytest.mark.parametrize("processes", [0, 1])
async def test_https(folder: Path, signer: Authority, processes: int) -> None:
    """Whole answers, streams, and a client that leaves; one without TLS harms nobody."""
    engine = FakeEngine(script=[10, 11, 2])
    own = signer.sign("server")
    async with (
        opened(
            folder,
            engine,
            processes,
            ssl_certfile=str(own.certificate),
            ssl_keyfile=str(own.key),
            root_path="/llm",
        ) as (url, _),
        aiohttp.ClientSession() as session,
    ):
        assert url.startswith("https://127.0.0.1:")
        port = int(url.rsplit(":", 1)[1])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n")
        assert not (await reader.read()).startswith(b"HTTP")
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await session.get(url + "/health")  # nobody whom this client trusts
        context = signer.client()
        for prefix in ("", "/llm"):
            async with session.post(f"{url}{prefix}/generate", json=STREAM, ssl=context) as answer:
                assert answer.status == 200
                assert (await answer.text()).count("data:") == 3
        async with session.get(url + "/llm/v1/nowhere?a=b", ssl=context) as answer:
            assert answer.status == 404
            assert (await answer.json())["error"]["type"] == "not_found"
        async with session.get(url + "/llm/openapi.json", ssl=context) as answer:
            assert (await answer.json())["servers"] == [{"url": "/llm"}]
        engine.hold = True
        with pytest.raises(asyncio.TimeoutError):
            await session.post(
                url + "/generate",
                json={"inputs": "hi"},
                ssl=context,
                timeout=aiohttp.ClientTimeout(0.2),
            )
        async with asyncio.timeout(60):
            while engine.live:
                await asyncio.sleep(0.01)


async def shown(port: int, context: ssl.SSLContext) -> int:
    """The number of the certificate that the server shows."""
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    certificate = writer.get_extra_info("ssl_object").getpeercert()
    writer.close()
    return int(certificate["serialNumber"], 16)


async def test_certificate_and_authorities_are_read_again(
    folder: Path, signer: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever was trusted before is not any more; a broken file changes nothing."""
    monkeypatch.setattr(tls, "LOOK_SECONDS", 0.05)
    own = signer.sign("changing")
    first, second = Authority(tmp_path, "first"), Authority(tmp_path, "second")
    trusted = tmp_path / "trusted.pem"
    trusted.write_bytes(first.file.read_bytes())
    changes = {
        "ssl_certfile": str(own.certificate),
        "ssl_keyfile": str(own.key),
        "ssl_ca_certs": str(trusted),
    }
    async with opened(folder, FakeEngine(), 0, **changes) as (url, _):
        port = int(url.rsplit(":", 1)[1])
        clients = [signer.client(one.sign("client")) for one in (first, second)]

        async def allowed() -> list[bool]:
            connector = [aiohttp.TCPConnector(ssl=one) for one in (signer.client(), *clients)]
            answers = []
            for one in connector:
                async with aiohttp.ClientSession(connector=one) as session:
                    try:
                        async with session.get(url + "/health") as answer:
                            answers.append(answer.status == 200)
                    except aiohttp.ClientError:
                        answers.append(False)
            return answers

        assert await allowed() == [False, True, False]
        before = await shown(port, clients[0])
        trusted.write_bytes(second.file.read_bytes())
        signer.sign("changing", into=own)
        async with asyncio.timeout(60):
            while await allowed() != [False, False, True]:
                await asyncio.sleep(0.05)
        after = await shown(port, clients[1])
        assert after != before
        own.key.write_text("no key")
        await asyncio.sleep(0.2)
        assert await shown(port, clients[1]) == after


async def test_a_file_that_cannot_be_read_is_named_once(
    signer: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    own = signer.sign("gone")
    files = TlsFiles(str(own.certificate), str(own.key), None)
    kept = Tls(files)
    context = kept.context
    own.key.unlink()
    kept.look()
    kept.look()
    assert kept.context is context
    assert len([r for r in caplog.records if "the certificate stays as it was" in r.message]) == 1
    signer.sign("gone", into=own)
    kept.look()
    assert kept.context is not context
    kept.stop()


@pytest.mark.parametrize("processes", [0, 1])
async def test_a_unix_socket(folder: Path, tmp_path: Path, processes: int) -> None:
    """Answers, streams, and a client that leaves."""
    path = tmp_path / "llm.sock"
    engine = FakeEngine(script=[10, 11, 2])
    async with opened(folder, engine, processes, path) as (url, _):
        assert url == f"unix:{path}"
        connector = aiohttp.UnixConnector(str(path))
        async with aiohttp.ClientSession("http://localhost", connector=connector) as session:
            async with session.post("/generate", json=STREAM) as answer:
                assert (await answer.text()).count("data:") == 3
            engine.hold = True
            reader, writer = await asyncio.open_unix_connection(str(path))
            head = b"POST /generate HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
            writer.write(head + b'Content-Length: 15\r\n\r\n{"inputs":"hi"}')
            async with asyncio.timeout(60):
                while not engine.live:
                    await asyncio.sleep(0.01)
                writer.close()
                while engine.live:
                    await asyncio.sleep(0.01)


@pytest.mark.parametrize("processes", [0, 1])
async def test_keys_that_change(folder: Path, processes: int) -> None:
    async with (
        opened(folder, FakeEngine(), processes, api_key=("old", "kept")) as (url, front),
        aiohttp.ClientSession() as session,
    ):

        async def statuses() -> list[int]:
            found = []
            for key in ("old", "kept", "new"):
                headers = {"Authorization": f"Bearer {key}"}
                async with session.get(url + "/v1/models", headers=headers) as answer:
                    found.append(answer.status)
            return found

        assert await statuses() == [200, 200, 401]
        front.replace_keys(("kept", "new"))
        async with asyncio.timeout(60):
            while await statuses() != [401, 200, 200]:
                await asyncio.sleep(0.01)


def test_an_encrypted_key_is_refused(tmp_path: Path) -> None:
    """An encrypted key does not ask the terminal for its password."""
    own = Authority(tmp_path).sign("a")
    from cryptography.hazmat.primitives import serialization as s

    key = s.load_pem_private_key(own.key.read_bytes(), None)
    encrypted = s.BestAvailableEncryption(b"secret")
    own.key.write_bytes(key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, encrypted))
    with pytest.raises(ssl.SSLError):
        TlsFiles(str(own.certificate), str(own.key), None).load()
