"""How the compiled kernels come to be compiled, kept and loaded.

What is compiled here are functions that do nothing, under the kernels' names: these alone matter.
"""

from __future__ import annotations

import functools
import hashlib
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rarkit.errors import CapabilityError, RarkitWarning
from rarkit.models.rar.decoding import native_kernels
from rarkit.models.rar.decoding.native_kernels import CACHES, NAMES, WEIGHTS, compiled_kernels
from tests.models.rar.decoding.kernels import needs_kernels
from tests.models.rar.small import lively

pytestmark = needs_kernels
PANEL = 24
FUNCTIONS = [f"rarkit_linear_{NAMES[dtype]}" for dtype in WEIGHTS] + [f"rarkit_attend_{NAMES[dtype]}" for dtype in CACHES]
SOURCE = f'extern "C" int rarkit_panel() {{ return {PANEL}; }}\n' + "".join(
    f'extern "C" void {function}() {{}}\n' for function in FUNCTIONS
)


@pytest.fixture
def sources(monkeypatch, tmp_path):
    """The folder with the source."""
    folder = tmp_path / "sources"
    folder.mkdir()
    (folder / "kernels.cpp").write_text(SOURCE)
    monkeypatch.setattr(native_kernels, "SOURCES", folder)
    return folder


@pytest.fixture
def forget(monkeypatch):
    """A function after which this process has not looked for kernels yet."""

    def forget():
        monkeypatch.setattr(native_kernels, "_kernels_or_reason", functools.cache(native_kernels._kernels_or_reason.__wrapped__))

    return forget


@pytest.fixture
def kept(monkeypatch, tmp_path, sources, forget):
    """The folder where libraries are kept; nothing is compiled yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    forget()
    return tmp_path / "cache" / "rarkit" / "kernels"


@pytest.mark.parametrize(
    ("compiler", "reason"),
    [
        ("no-such-compiler -m64", r"there is no C\+\+ compiler 'no-such-compiler -m64'.*install g\+\+"),
        (" ", r"there is no C\+\+ compiler ' '"),
        ('"g++', r"there is no C\+\+ compiler '\"g\+\+'"),
        ("/bin/false", r"/bin/false cannot compile kernels \(exit code 1\); use GCC 9 or later"),
    ],
)
def test_without_a_compiler_pytorchs_products_decode_with_a_warning(kept, monkeypatch, compiler, reason):
    monkeypatch.setenv("CXX", compiler)
    monkeypatch.setenv("PATH", "")
    with pytest.warns(RarkitWarning, match=f"decoding with PyTorch's own kernels, which are slower here: {reason}"):
        prepared = lively().prepare()
    assert prepared.weights.kernels is None
    with pytest.raises(CapabilityError, match=reason):
        lively().prepare(compiled=True)
    assert lively().prepare(compiled=False).weights.kernels is None
    assert list(kept.glob("*")) == []


def test_a_compiler_may_have_arguments(kept, monkeypatch):
    monkeypatch.setenv("CXX", "env g++")
    assert compiled_kernels().panel == PANEL


@pytest.mark.parametrize(
    ("compiler", "reason"),
    [("/bin/false", "/bin/false cannot compile kernels"), ("not-here", "there is no C.. compiler 'not-here'")],
)
def test_gxx_takes_the_place_of_one_that_cannot_with_a_warning(kept, monkeypatch, compiler, reason):
    monkeypatch.setenv("CXX", compiler)
    with pytest.warns(RarkitWarning, match=rf"kernels were compiled with g\+\+ instead: {reason}"):
        assert compiled_kernels().panel == PANEL


def test_errors_of_the_compiler_are_passed_on(kept, sources):
    (sources / "kernels.cpp").write_text("this is no C++")
    with pytest.raises(CapabilityError, match=r"g\+\+ cannot compile kernels \(.*kernels\.cpp:1.*error: "):
        compiled_kernels()
    assert list(kept.glob("*")) == []


def test_they_are_compiled_once_and_kept(kept, sources, monkeypatch, forget):
    compiled_kernels()
    (library,) = kept.iterdir()
    written = library.stat().st_mtime_ns
    forget()
    compiled_kernels()
    assert [library] == list(kept.iterdir())
    assert library.stat().st_mtime_ns == written
    # With other flags, or from another source, it is another library.
    monkeypatch.setattr(native_kernels, "FLAGS", (*native_kernels.FLAGS, "-DOTHER"))
    forget()
    compiled_kernels()
    assert len(list(kept.iterdir())) == 2
    (sources / "kernels.cpp").write_text(SOURCE.replace(str(PANEL), str(2 * PANEL)))
    forget()
    assert compiled_kernels().panel == 2 * PANEL
    assert len(list(kept.iterdir())) == 3


@pytest.mark.parametrize("home", [True, False])
def test_without_a_place_to_keep_them_they_are_compiled_for_this_process(kept, monkeypatch, home):
    if home:
        kept.parent.parent.mkdir()
        kept.parent.write_text("a file where the folder should be")
    else:
        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setattr(native_kernels.Path, "home", homeless)
    assert compiled_kernels().panel == PANEL


def homeless() -> Path:
    raise RuntimeError("Could not determine home directory.")


@pytest.mark.parametrize("share", [0.0, 0.5, 0.9, 0.9999])
def test_a_library_that_was_cut_off_is_compiled_anew(kept, forget, share):
    """Loading it would end the process with a bus error."""
    compiled_kernels()
    (library,) = kept.iterdir()
    whole = library.read_bytes()
    library.unlink()  # never in place: it is mapped
    library.write_bytes(whole[: int(len(whole) * share)])
    forget()
    assert compiled_kernels().panel == PANEL
    assert list(kept.iterdir()) == [library]
    assert library.stat().st_size == len(whole)


@pytest.mark.parametrize("opened", ["kernels", "cache home", "library"])
def test_a_library_that_others_may_have_planted_is_not_loaded(kept, tmp_path, forget, opened):
    """Its digest holds. Loading it would leave a trace."""
    compiled_kernels()
    (library,) = kept.iterdir()
    source, planted = tmp_path / "planted.cpp", tmp_path / "planted.so"
    trace = (
        f'#include <fstream>\n__attribute__((constructor)) static void loaded() {{ std::ofstream("{tmp_path}/loaded") << 1; }}\n'
    )
    source.write_text(SOURCE.replace(str(PANEL), str(2 * PANEL)) + trace)
    subprocess.run(["g++", "-shared", "-fPIC", source, "-o", planted], check=True)
    library.unlink()
    library.write_bytes(planted.read_bytes() + hashlib.sha256(planted.read_bytes()).digest())
    place = {"kernels": kept, "cache home": kept.parent.parent, "library": library}[opened]
    place.chmod(0o777)
    forget()
    if opened == "library":
        # In a folder of this user alone, it is replaced.
        assert compiled_kernels().panel == PANEL
        assert library.stat().st_mode & 0o777 == 0o600
    else:
        with pytest.warns(RarkitWarning, match=rf"{kept} are not used.*{place} is writable by others.*compiled for this process"):
            assert compiled_kernels().panel == PANEL
        assert library.read_bytes()[: -native_kernels.DIGEST_BYTES] == planted.read_bytes()
    assert not (tmp_path / "loaded").exists()


def test_libraries_are_this_users_alone_whatever_the_umask(kept, forget):
    before = os.umask(0)
    try:
        compiled_kernels()
    finally:
        os.umask(before)
    (library,) = kept.iterdir()
    assert [path.stat().st_mode & 0o777 for path in (library, kept, kept.parent)] == [0o600, 0o700, 0o700]
    written = library.stat().st_mtime_ns
    forget()
    compiled_kernels()
    assert library.stat().st_mtime_ns == written


def test_two_that_compile_at_once_do_not_meet(kept, tmp_path):
    compiler = tmp_path / "compiler"
    compiler.write_text(
        # Goes on when the other has begun too.
        """
        case "$*" in *" -o "*)
            for argument; do library=$argument; done
            printf %s "$library" > "$0.begun.$$"
            until [ $(ls "$0".begun.* | wc -l) = 2 ]; do sleep 0.05; done
        esac
        exec g++ "$@"
        """
    )
    with ThreadPoolExecutor(2) as pool:
        compiling = [pool.submit(native_kernels._compiled, ["sh", str(compiler)]) for _ in range(2)]
        assert [each.result(timeout=120).panel for each in compiling] == [PANEL] * 2
    (library,) = kept.iterdir()
    places = {path.read_text() for path in tmp_path.glob("compiler.begun.*")}
    assert len(places) == 2, "each writes under a name of its own until its library is whole"
    assert str(library) not in places


def test_torchs_own_threads_run_them():
    """A second OpenMP runtime beside torch's would have threads that wait for work while the first one's have it."""
    compiled_kernels()
    code = """
import os, torch
from rarkit.models.rar.decoding.native_kernels import CompiledLinear, compiled_kernels

def threads():
    return len(os.listdir("/proc/self/task"))

x = torch.ones(64, 512)
before = threads()
x @ x.T
of_torch = threads()
CompiledLinear(compiled_kernels(), torch.ones(512, 512), None, torch.zeros(512))(x)
x @ x.T
print(before, of_torch, threads())
"""
    environment = {**os.environ, "OMP_NUM_THREADS": "4"}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    before, of_torch, with_kernels = map(int, run.stdout.split())
    assert before < of_torch == with_kernels
