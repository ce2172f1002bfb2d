"""Checkpoints in whole numbers: a format is a row of FORMATS."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from penstock_kernels.weight import Weight
from penstock_quantization import awq, gptq, int8, packed
from penstock_quantization.dense import DenseReader
from penstock_quantization.integers import Integers, joined
from penstock_quantization.matrix import MatrixSpec, Slice
from penstock_quantization.mixed import read_mixed
from penstock_quantization.scheme import Scheme
from penstock_quantization.source import Source
from penstock_quantization.tensors import Tensors
from penstock_quantization.whole import Whole

# A part over all of its inputs, as the format has it.
Read = Callable[[Slice, int, Whole, Tensors], Integers]


@dataclass(frozen=True, slots=True)
class Format:
    """stored: the tensor of a matrix's numbers, behind the matrix's name; beside: a tensor that
    tells a quantised matrix from another one; by_output: whether numbers are [outputs, inputs] as a
    module that is stored the other way round has them too, which is then no linear one."""

    read: Read
    beside: str
    by_output: bool = False


FORMATS = {
    "gptq": Format(gptq.read, gptq.STORED),
    "awq": Format(awq.read, awq.STORED),
    "packed": Format(packed.read, packed.STORED, by_output=True),
    "int8": Format(int8.COMPRESSED.read, int8.COMPRESSED.scale, by_output=True),
    "bitsandbytes-int8": Format(int8.BITSANDBYTES.read, int8.BITSANDBYTES.scale, by_output=True),
    "torchao-int8": Format(int8.TORCHAO.read, int8.TORCHAO.stored, by_output=True),
}


@dataclass(frozen=True, slots=True)
class IntegerReader:
    """See `reader.Reader`."""

    scheme: Scheme
    source: Source
    dense: DenseReader

    def read(self, spec: MatrixSpec) -> Weight:
        return read_mixed(spec, self._is_quantised, self._joined, self.dense)

    def _is_quantised(self, part: Slice) -> bool:
        """As the tensors are; where there are none, as the configuration says."""
        found = self.source.is_there(f"{part.name}.{self._format.beside}")
        return not self.scheme.skips(part.name) if found is None else found

    def _joined(self, spec: MatrixSpec) -> Weight | None:
        whole, form = self._whole, self._format
        if spec.transposed and form.by_output:
            raise ValueError(
                f"{spec.slices[0].name} is stored [inputs, outputs], and quantised by "
                f"{self.scheme.method}, for which such matrices are not known"
            )
        tensors = Tensors(self.source, self.dense.device)
        parts = [form.read(part, spec.inputs, whole, tensors) for part in spec.slices]
        return joined(parts, spec, self.dense.bias(spec))

    @property
    def _whole(self) -> Whole:
        assert self.scheme.whole is not None
        return self.scheme.whole

    @property
    def _format(self) -> Format:
        return FORMATS[self.scheme.stored]
