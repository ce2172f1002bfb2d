"""Where kernels over logits are tested, and in which types: parameters of a fixture."""

from __future__ import annotations

import pytest
import torch

LOGIT_PLACES = [
    pytest.param(("cpu", torch.float32), id="interpreter"),
    pytest.param(("cpu", torch.float16), id="interpreter, float16"),
    pytest.param(("cuda", torch.float32), id="float32", marks=pytest.mark.gpu),
    pytest.param(("cuda", torch.float16), id="float16", marks=pytest.mark.gpu),
    pytest.param(("cuda", torch.bfloat16), id="bfloat16", marks=pytest.mark.gpu),
]
