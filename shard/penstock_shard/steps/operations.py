"""What runs a model's steps: chosen once, by the device and by what is asked of results."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from penstock_kernels.ops import Device, Sampler
from penstock_kernels.reference.device import TorchDevice, TorchSampler
from penstock_kernels.reference.invariant_device import InvariantTorchDevice
from penstock_shard.model.model import Model
from penstock_shard.steps.limits import ShardLimits

if TYPE_CHECKING:
    from penstock_shard.weights.loaded_model import LoadedModel


def operations(
    loaded: LoadedModel, model: Model, limits: ShardLimits, cache: Tensor
) -> tuple[Device, Sampler]:
    """Triton's kernels where there is CUDA, plain torch elsewhere. model: the loaded one, or what
    of it is run."""
    ropes = model.rope_tables(limits.table_width * limits.block_size, cache.device)
    alone = loaded.deterministic
    if not cache.is_cuda:
        device = InvariantTorchDevice if alone else TorchDevice
        return device(ropes, limits.block_size), TorchSampler(alone, alone)
    # Triton is not there on every host.
    from penstock_kernels.gpu.device import TritonDevice
    from penstock_kernels.gpu.invariant_device import InvariantTritonDevice
    from penstock_kernels.gpu.launch.dependent import supports_dependent_launch
    from penstock_kernels.gpu.sampling.sampler import TritonSampler

    dependent = loaded.dependent_launch and supports_dependent_launch(cache.device)
    kind = InvariantTritonDevice if alone else TritonDevice
    kernels = kind(model.specs(), ropes, limits.max_slots, cache, dependent, model.dtype)
    return kernels, TritonSampler(dependent, alone)
