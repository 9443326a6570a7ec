"""Kernels of rarkit's own for decoding on x86 processors, compiled where they are used: the folder ``kernels``.

Shape letters: R rows, I inputs, O outputs, U rows of a table of modulations; N heads, K head width, S entries of the cache.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import re
import shlex
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, cast, final

import torch
from torch import Tensor
from torch.nn import functional

from rarkit.errors import CapabilityError, RarkitWarning
from rarkit.files.atomic import replacing
from rarkit.files.locations import cache_folder

SOURCES = Path(__file__).with_name("kernels")
FLAGS = ("-std=c++17", "-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast", "-fopenmp")
NAMES = {torch.float32: "float32", torch.bfloat16: "bfloat16", torch.int8: "int8", torch.float8_e4m3fn: "float8_e4m3fn"}
WEIGHTS = (torch.float32, torch.bfloat16, torch.int8)
CACHES = (torch.float32, torch.bfloat16, torch.float8_e4m3fn)
DIGEST_BYTES = 32
"""Of SHA-256, at the end of each library that is kept."""


@final
class Kernels:
    """The compiled library. Rows are float32; weights and caches what they are, widened on their way."""

    def __init__(self, library: Path) -> None:
        self._library = ctypes.CDLL(str(library))
        pointer, number, real, large = ctypes.c_void_p, ctypes.c_int, ctypes.c_float, ctypes.c_int64
        linear = [pointer] * 5 + [number] * 4 + [real, pointer, large] + [pointer] * 4 + [number]
        attend = [pointer] * 3 + [real] + [pointer] * 3 + [number] * 6
        self.panel: int = self._library.rarkit_panel()
        """How many outputs a panel has."""
        self.linear = {dtype: self._function(f"rarkit_linear_{NAMES[dtype]}", linear) for dtype in WEIGHTS}
        self._attend = {dtype: self._function(f"rarkit_attend_{NAMES[dtype]}", attend) for dtype in CACHES}

    def _function(self, name: str, arguments: list[Any]) -> Callable[..., None]:
        function = getattr(self._library, name)
        function.argtypes, function.restype = arguments, None
        return cast(Callable[..., None], function)

    def attend(self, qkv_R3NK: Tensor, norms: tuple[Tensor, Tensor, float], kv_2RNSK: Tensor, entry: int) -> Tensor:
        """Writes an entry's keys and values into the cache, and attends to it and all before: (R, N, K) float32.

        Args:
            qkv_R3NK: (R, 3, N, K) float32, contiguous.
            norms: of queries and keys, weight (2, K) and bias (2, K) float32, and ε.
            kv_2RNSK: keys, then values, of at least R rows; float32, bfloat16 or float8 (e4m3), contiguous.
            entry: from 0 to S − 1.
        """
        rows, _, heads, width = qkv_R3NK.shape
        weight, bias, eps = norms
        assert {qkv_R3NK.dtype, weight.dtype, bias.dtype} == {torch.float32}
        assert qkv_R3NK.is_contiguous()
        assert kv_2RNSK.is_contiguous()
        assert weight.is_contiguous()
        assert bias.is_contiguous()
        assert weight.numel() == bias.numel() == 2 * width
        assert kv_2RNSK.shape[2::2] == (heads, width)
        assert kv_2RNSK.shape[1] >= rows
        assert 0 <= entry < kv_2RNSK.shape[3]
        out_RNK = qkv_R3NK.new_empty(rows, heads, width)
        self._attend[kv_2RNSK.dtype](
            qkv_R3NK.data_ptr(),
            weight.data_ptr(),
            bias.data_ptr(),
            eps,
            kv_2RNSK[0].data_ptr(),
            kv_2RNSK[1].data_ptr(),
            out_RNK.data_ptr(),
            rows,
            heads,
            kv_2RNSK.shape[3],
            width,
            entry,
            torch.get_num_threads(),
        )
        return out_RNK


@final
class CompiledLinear:
    """A linear layer for float32 rows, in panels of outputs, with what stands before and behind it in a block."""

    def __init__(self, kernels: Kernels, weight_OI: Tensor, scale_O: Tensor | None, bias_O: Tensor, *, gelu: bool = False) -> None:
        """Lays out a copy of the weights.

        Args:
            kernels: that multiply.
            weight_OI: (O, I) float32, bfloat16 or int8.
            scale_O: (O,) by which outputs are multiplied, before the bias is added.
            bias_O: (O,)
            gelu: whether the exact GELU comes after it.
        """
        self._run, self._gelu = kernels.linear[weight_OI.dtype], gelu
        self._outputs, self._inputs = weight_OI.shape
        missing = -self._outputs % kernels.panel
        filled_OI = functional.pad(weight_OI, (0, 0, 0, missing)) if missing else weight_OI
        self._panels = filled_OI.view(-1, kernels.panel, self._inputs).transpose(1, 2).clone(memory_format=torch.contiguous_format)
        self._scale_O = None if scale_O is None else scale_O.to(torch.float32, copy=True)
        self._bias_O = bias_O.to(torch.float32, copy=True)

    def __call__(self, x_RI: Tensor, modulation: Modulation | None = None, residual: Residual | None = None) -> Tensor:
        """(R, I) float32 to (R, O) float32.

        Args:
            x_RI: rows.
            modulation: makes them ``shift + scale · layer_norm(x)`` first.
            residual: adds ``gate`` times the output to other rows.
        """
        assert x_RI.dtype == torch.float32
        assert x_RI.shape[1] == self._inputs
        x_RI, rows = x_RI.contiguous(), len(x_RI)
        out_RO = x_RI.new_empty(rows, self._outputs)
        around = modulation or residual
        shift, scale = (modulation.shift, modulation.scale) if modulation else (None, None)
        gate, to = (residual.gate, residual.to) if residual else (None, None)
        for table, width in ((shift, self._inputs), (scale, self._inputs), (gate, self._outputs)):
            assert table is None or (table.dtype == torch.float32 and table.shape[1] == width and table.stride(1) == 1)
        assert to is None or (to.dtype == torch.float32 and to.shape == out_RO.shape and to.is_contiguous())
        assert around is None or (around.row_R.dtype == torch.int64 and len(around.row_R) >= rows and around.row_R.is_contiguous())
        assert modulation is None or residual is None or modulation.row_R is residual.row_R
        tables = [table for table in (shift, scale, gate) if table is not None]
        assert len({table.stride(0) for table in tables}) < 2
        self._run(
            x_RI.data_ptr(),
            self._panels.data_ptr(),
            _address(self._scale_O),
            self._bias_O.data_ptr(),
            out_RO.data_ptr(),
            rows,
            self._inputs,
            self._outputs,
            self._gelu,
            modulation.eps if modulation else 0.0,
            around.row_R.data_ptr() if around else None,
            tables[0].stride(0) if tables else 0,
            _address(shift),
            _address(scale),
            _address(gate),
            _address(to),
            torch.get_num_threads(),
        )
        return out_RO


@final
class Modulation(NamedTuple):
    """Of a layer's inputs: tables (U, I) float32 with one stride, the row of each input (R,) int64, and the norm's ε."""

    shift: Tensor
    scale: Tensor
    row_R: Tensor
    eps: float


@final
class Residual(NamedTuple):
    """What a layer's outputs are added to, (R, O) float32, by a gate: a table (U, O) float32, and the row of each output (R,)."""

    to: Tensor
    gate: Tensor
    row_R: Tensor


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def compiled_kernels() -> Kernels:
    """The kernels, compiled for this processor once and kept in the user's cache folder.

    Raises:
        CapabilityError: there is no GCC (9 or later) to compile them with; for Linux on x86 alone.
    """
    found = _found()
    if isinstance(found, str):
        raise CapabilityError(found)
    return found


@functools.cache
def _found() -> Kernels | str:
    """Once a process: the kernels, or why there are none."""
    reasons = []
    for asked in dict.fromkeys([os.environ.get("CXX") or "g++", "g++"]):
        try:
            command = shlex.split(asked)
        except ValueError:  # a quote that does not end
            command = []
        if not command or shutil.which(command[0]) is None:
            reasons.append(f"there is no C++ compiler {asked!r} to compile kernels with: install g++, or name another GCC in CXX")
            continue
        try:
            found = _compiled(command)
        except OSError as error:
            reasons.append(f"compiled kernels cannot be loaded ({error})")
        except subprocess.CalledProcessError as error:
            told = [line for line in error.stderr.splitlines() if re.search("error|cannot|No space", line)]
            reasons.append(
                f"{asked} cannot compile kernels ({(told or [f'it ended with {error.returncode}'])[0]}); GCC 9 or later can"
            )
        else:
            if reasons:
                warnings.warn(f"kernels are those of g++: {reasons[0]}", RarkitWarning, stacklevel=2)
            return found
    return "; ".join(reasons)


def _compiled(compiler: list[str]) -> Kernels:
    """From the cache folder, or compiled into it."""
    # All that the result depends on: the compiler's version, and what it takes this processor for, are among its macros.
    macros = _ran([*compiler, "-march=native", "-dM", "-E", "-x", "c++", os.devnull])
    texts = [path.read_bytes() for path in sorted(SOURCES.glob("*.h")) + sorted(SOURCES.glob("*.cpp"))]
    # Torch's own OpenMP, where it comes with one of another name: threads of two would wait for each other's work.
    openmp = [str(path) for path in sorted(Path(torch.__file__).parent.glob("lib/libgomp*.so*"))]
    key = hashlib.sha256("\0".join([*map(repr, texts), *FLAGS, *openmp, macros]).encode()).hexdigest()[:20]
    command = [*compiler, *FLAGS, "-shared", "-fPIC", str(SOURCES / "kernels.cpp"), *openmp]
    try:
        return _loaded(command, cache_folder("kernels") / f"{key}.so")
    except (OSError, RuntimeError, subprocess.CalledProcessError):
        # No home, no place to keep them in it, or one from which nothing may be run. Or it is the compiler: it says so again.
        with tempfile.TemporaryDirectory() as folder:
            return _loaded(command, Path(folder) / "kernels.so")


def _loaded(command: list[str], library: Path) -> Kernels:
    # A library that was cut off would kill the process: what is whole ends with the digest of all before, which the loader ignores.
    content = library.read_bytes() if library.exists() else b""
    if content[-DIGEST_BYTES:] != hashlib.sha256(content[:-DIGEST_BYTES]).digest():
        # Under another name until it is whole: others may be compiling it too.
        with replacing(library) as begun:
            _ran([*command, "-o", str(begun)])
            begun.write_bytes(begun.read_bytes() + hashlib.sha256(begun.read_bytes()).digest())
    return Kernels(library)


def _ran(command: list[str]) -> str:
    environment = {**os.environ, "LC_ALL": "C"}
    return subprocess.run(command, capture_output=True, text=True, errors="replace", env=environment, check=True).stdout
