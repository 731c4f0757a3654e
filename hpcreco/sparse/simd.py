"""Explicit vectors inside numba functions: one machine register of floats, loaded, multiplied and stored.

LLVM vectorises the inner loops of a sparse convolution badly (short trip counts, many pointers that might
alias). These four operations let a kernel say which values live in registers; on a machine without AVX-512
LLVM splits or shortens them.
"""

from __future__ import annotations

from typing import Any

import llvmlite.binding as llvm
import torch
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

REGISTER_BYTES = 64 if llvm.get_host_cpu_features().get("avx512f", False) else 32


def lanes(dtype: torch.dtype) -> int:
    """Numbers of this type in one register."""
    return REGISTER_BYTES // dtype.itemsize


class Vector(types.Type):
    """Numba type of `lanes` floats of one scalar type held in a register."""

    def __init__(self, scalar: types.Float) -> None:
        self.scalar = scalar
        self.lanes = REGISTER_BYTES * 8 // scalar.bitwidth
        super().__init__(name=f"Vector({scalar}, {self.lanes})")


@register_model(Vector)
class VectorModel(models.PrimitiveModel):
    """A Vector is an LLVM vector value."""

    def __init__(self, manager: Any, kind: Vector) -> None:
        scalar = ir.FloatType() if kind.scalar.bitwidth == 32 else ir.DoubleType()
        super().__init__(manager, kind, ir.VectorType(scalar, kind.lanes))


def _address(context, builder, array_type, array, index):
    data = context.make_array(array_type)(context, builder, array).data
    return builder.gep(data, [index])


@intrinsic
def load(typing, array, index):
    """The vector that starts at element `index` of a C-contiguous array's memory."""
    kind = Vector(array.dtype)

    def generate(context, builder, signature, arguments):
        address = _address(context, builder, array, *arguments)
        vector = context.get_value_type(kind)
        value = builder.load(builder.bitcast(address, vector.as_pointer()))
        value.align = array.dtype.bitwidth // 8
        return value

    return kind(array, types.int64), generate


@intrinsic
def store(typing, array, index, value):
    """Write a vector to the memory of a C-contiguous array from element `index` on."""

    def generate(context, builder, signature, arguments):
        address = _address(context, builder, array, arguments[0], arguments[1])
        vector = context.get_value_type(value)
        written = builder.store(arguments[2], builder.bitcast(address, vector.as_pointer()))
        written.align = array.dtype.bitwidth // 8
        return context.get_dummy_value()

    return types.void(array, types.int64, value), generate


@intrinsic
def fma(typing, array, index, factor, total):
    """total + array[index] * factor, the scalar repeated over the lanes; one rounding where the processor can."""

    def generate(context, builder, signature, arguments):
        address = _address(context, builder, array, arguments[0], arguments[1])
        vector = context.get_value_type(factor)
        scalar = builder.load(address)
        empty = ir.Constant(vector, ir.Undefined)
        first = builder.insert_element(empty, scalar, ir.Constant(ir.IntType(32), 0))
        spread = builder.shuffle_vector(
            first, empty, ir.Constant(ir.VectorType(ir.IntType(32), factor.lanes), None)
        )
        name = f"llvm.fmuladd.v{factor.lanes}f{factor.scalar.bitwidth}"
        multiply_add = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(vector, [vector] * 3), name
        )
        return builder.call(multiply_add, [spread, arguments[2], arguments[3]])

    return factor(array, types.int64, factor, factor), generate
