"""rarkit's own kernels for decoding on x86 processors, compiled on the user's machine from the folder ``kernels``.

Shape letters: R rows, I inputs, O outputs, U rows of a table of modulations, N heads, K head width, S entries of the cache.
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
from rarkit.files.atomic import write_bytes
from rarkit.files.code_folders import kept_code, temporary_folder
from rarkit.files.private import not_private

SOURCES = Path(__file__).with_name("kernels")
FLAGS = ("-std=c++17", "-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast", "-fopenmp")
NAMES = {torch.float32: "float32", torch.bfloat16: "bfloat16", torch.int8: "int8", torch.float8_e4m3fn: "float8_e4m3fn"}
WEIGHTS = (torch.float32, torch.bfloat16, torch.int8)
CACHES = (torch.float32, torch.bfloat16, torch.float8_e4m3fn)
DIGEST_BYTES = 32
"""Length of the SHA-256 digest at the end of each cached library."""


@final
class Kernels:
    """The compiled library. Rows are float32; weights and caches keep their type and are widened as they are read."""

    def __init__(self, library: Path) -> None:
        self._library = ctypes.CDLL(str(library))
        pointer, number, real, large = ctypes.c_void_p, ctypes.c_int, ctypes.c_float, ctypes.c_int64
        linear = [pointer] * 5 + [number] * 4 + [real, pointer, large] + [pointer] * 4 + [number]
        attend = [pointer] * 3 + [real] + [pointer] * 3 + [number] * 6
        self.panel: int = self._library.rarkit_panel()
        """Number of outputs per panel."""
        self.linear = {dtype: self.function(f"rarkit_linear_{NAMES[dtype]}", linear) for dtype in WEIGHTS}
        self._attend = {dtype: self.function(f"rarkit_attend_{NAMES[dtype]}", attend) for dtype in CACHES}

    def function(self, name: str, arguments: list[Any]) -> Callable[..., None]:
        """A function of the library that returns nothing, with the types of its arguments."""
        function = getattr(self._library, name)
        function.argtypes, function.restype = arguments, None
        return cast(Callable[..., None], function)

    def attend(self, qkv_R3NK: Tensor, norms: tuple[Tensor, Tensor, float], kv_2RNSK: Tensor, entry: int) -> Tensor:
        """Writes an entry's keys and values to the cache and attends to all entries up to it: (R, N, K) float32.

        Args:
            qkv_R3NK: (R, 3, N, K) float32, contiguous.
            norms: weight (2, K), bias (2, K), both float32, and ε of the norms of queries and keys.
            kv_2RNSK: keys, then values, for at least R rows; float32, bfloat16 or float8 (e4m3), contiguous.
            entry: the entry's number, 0 … S − 1.
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
    """A linear layer for float32 rows, in panels of outputs, fused with the operations before and after it in a block."""

    def __init__(self, kernels: Kernels, weight_OI: Tensor, scale_O: Tensor | None, bias_O: Tensor, *, gelu: bool = False) -> None:
        """Copies the weights into panels.

        Args:
            kernels: the compiled library.
            weight_OI: (O, I) float32, bfloat16 or int8.
            scale_O: (O,) factors of the outputs, applied before the bias.
            bias_O: (O,).
            gelu: whether the exact GELU follows.
        """
        self._run, self._gelu = kernels.linear[weight_OI.dtype], gelu
        self._outputs, self._inputs = weight_OI.shape
        missing = -self._outputs % kernels.panel
        filled_OI = functional.pad(weight_OI, (0, 0, 0, missing)) if missing else weight_OI
        self._panels = filled_OI.view(-1, kernels.panel, self._inputs).transpose(1, 2).clone(memory_format=torch.contiguous_format)
        self._scale_O = None if scale_O is None else scale_O.to(torch.float32, copy=True)
        self._bias_O = bias_O.to(torch.float32, copy=True)

    def __call__(self, x_RI: Tensor, modulation: Modulation | None = None, residual: Residual | None = None) -> Tensor:
        """Applies the layer: (R, I) float32 to (R, O) float32.

        Args:
            x_RI: input rows.
            modulation: if given, the input is first replaced by ``shift + scale · layer_norm(x)``.
            residual: if given, the result is ``residual.to + gate · output``.
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
    """Modulation of a layer's input: tables (U, I) float32 of one stride, the table row of each input (R,) int64, the norm's ε."""

    shift: Tensor
    scale: Tensor
    row_R: Tensor
    eps: float


@final
class Residual(NamedTuple):
    """The residual stream (R, O) float32, the table of gates (U, O) float32, and the table row of each output (R,) int64."""

    to: Tensor
    gate: Tensor
    row_R: Tensor


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def compiled_kernels() -> Kernels:
    """The kernels, compiled once for this processor and kept in the user's cache folder. Linux on x86 only.

    Raises:
        CapabilityError: they cannot be compiled or loaded; they need GCC 9 or later.
    """
    kernels = _kernels_or_reason()
    if isinstance(kernels, str):
        raise CapabilityError(kernels)
    return kernels


@functools.cache
def _kernels_or_reason() -> Kernels | str:
    """The kernels, or the reason why there are none. Cached for the process."""
    reasons = []
    for compiler in dict.fromkeys([os.environ.get("CXX") or "g++", "g++"]):
        try:
            command = shlex.split(compiler)
        except ValueError:  # an unclosed quote
            command = []
        if not command or shutil.which(command[0]) is None:
            reasons.append(f"there is no C++ compiler {compiler!r} to compile kernels with: install g++, or set CXX to another GCC")
            continue
        try:
            kernels = _compiled(command)
        except (OSError, CapabilityError) as error:
            reasons.append(f"compiled kernels cannot be loaded ({error})")
        except subprocess.CalledProcessError as error:
            messages = [line for line in error.stderr.splitlines() if re.search("error|cannot|No space", line)]
            message = messages[0] if messages else f"exit code {error.returncode}"
            reasons.append(f"{compiler} cannot compile kernels ({message}); use GCC 9 or later")
        else:
            if reasons:
                warnings.warn(f"kernels were compiled with g++ instead: {reasons[0]}", RarkitWarning, stacklevel=2)
            return kernels
    return "; ".join(reasons)


def _compiled(compiler: list[str]) -> Kernels:
    """Loads the kernels from the cache folder; compiles them into it first if necessary."""
    command, name = command_and_name(compiler)
    try:
        folder, reason = kept_code("kernels")
        if reason is None:
            return _loaded(command, folder / name)
    except (OSError, RuntimeError, subprocess.CalledProcessError):
        # The cache folder is missing, full, read-only or not executable. If the compiler failed, it fails here again.
        reason = None
    if reason is not None:
        warnings.warn(
            f"kernels in {folder} are not used, because others may put theirs there ({reason}); they are compiled for this process "
            "alone. To keep them, see to it that only you may write there, or set XDG_CACHE_HOME to another folder.",
            RarkitWarning,
            stacklevel=5,
        )
    temporary = temporary_folder()
    try:
        return _loaded(command, temporary / "kernels.so")
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def command_and_name(compiler: list[str]) -> tuple[list[str], str]:
    """The command that compiles the kernels, but for where to, and the file's name in the cache folder."""
    # The key covers everything that the result depends on: the macros include the compiler's version and its target processor.
    macros = _ran([*compiler, "-march=native", "-dM", "-E", "-x", "c++", os.devnull])
    texts = [path.read_bytes() for path in sorted(SOURCES.glob("*.h")) + sorted(SOURCES.glob("*.cpp"))]
    # Link torch's own OpenMP if it ships one under another name: threads of two libraries would compete for the cores.
    openmp = [str(path) for path in sorted(Path(torch.__file__).parent.glob("lib/libgomp*.so*"))]
    key = hashlib.sha256("\0".join([*map(repr, texts), *FLAGS, *openmp, macros]).encode()).hexdigest()[:20]
    return [*compiler, *FLAGS, "-shared", "-fPIC", str(SOURCES / "kernels.cpp"), *openmp], f"{key}.so"


def _loaded(command: list[str], library: Path) -> Kernels:
    # Loading a truncated library kills the process, so complete ones end with a digest of their content, which the loader ignores.
    # It says nothing of who made them. In a folder of ours there may still be files of others, from when it was open to them.
    content = library.read_bytes() if library.exists() and not_private(library) is None else b""
    if content[-DIGEST_BYTES:] != hashlib.sha256(content[:-DIGEST_BYTES]).digest():
        # Compiled under a temporary name, because other processes may be compiling it too. The compiler takes its permissions, and
        # its folder for temporary files, from the environment: it works in a folder that others cannot enter.
        with tempfile.TemporaryDirectory(dir=library.parent) as folder:
            built = Path(folder) / "kernels.so"
            _ran([*command, "-o", str(built)], TMPDIR=folder)
            write_bytes(library, built.read_bytes() + hashlib.sha256(built.read_bytes()).digest(), private=True)
    return Kernels(library)


def _ran(command: list[str], **variables: str) -> str:
    environment = {**os.environ, "LC_ALL": "C", **variables}
    return subprocess.run(command, capture_output=True, text=True, errors="replace", env=environment, check=True).stdout
