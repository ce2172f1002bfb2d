"""Which cards are served, and in which type."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from penstock_shard import device
from penstock_shard.device import choose_device, served_dtype

CUDA = torch.device("cuda", 0)


def pretend(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int]) -> None:
    """Torch sees one card."""
    cuda = SimpleNamespace(
        is_available=lambda: True,
        device_count=lambda: 1,
        set_device=lambda device: None,
        get_device_name=lambda device: "A card",
        get_device_capability=lambda device: capability,
    )
    monkeypatch.setattr(device.torch, "cuda", cuda)


@pytest.mark.parametrize(
    ("capability", "served"), [((7, 5), "float16"), ((8, 0), "bfloat16"), ((9, 0), "bfloat16")]
)
def test_cards_without_bfloat16_serve_float16_and_say_so(
    capability: tuple[int, int],
    served: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pretend(monkeypatch, capability)
    assert choose_device(None, 0, 1, True) == CUDA
    assert served_dtype("bfloat16", CUDA) == served
    assert ("A card has no bfloat16" in capsys.readouterr().err) == (served == "float16")
    assert served_dtype("float32", CUDA) == "float32"
    assert served_dtype("bfloat16", torch.device("cpu")) == "bfloat16"


def test_cards_without_kernels_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, (7, 0))
    with pytest.raises(ValueError, match=r"A card .* capability is 7.0, .* supported is 7.5"):
        choose_device(None, 0, 1, True)
    pretend(monkeypatch, (9, 0))
    monkeypatch.setattr(torch.version, "hip", "6.4")
    with pytest.raises(ValueError, match="AMD"):
        choose_device("cuda", 0, 1, True)


@pytest.mark.parametrize(("given", "expected"), [(None, [3]), ("5", [])])
def test_ranks_share_the_cores_unless_threads_are_given(
    given: str | None, expected: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device.os, "sched_getaffinity", lambda _: set(range(6)))
    threads: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if given is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", given)
    assert choose_device("cpu", 0, 2, True) == torch.device("cpu")
    assert threads == expected
