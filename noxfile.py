"""The checks: ``nox`` runs lint, types, tests, notebook, plugins and new_plugins.

Torch is large, so all sessions but lint and lowest share one environment (``environment``) with rarkit and its extras. Each
plugin gets an environment of its own on top of it, with the plugin's wheel and dependencies, which no other session sees.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import nox

nox.needs_version = ">=2025.2"
nox.options.sessions = ["lint", "types", "tests", "notebook", "plugins", "new_plugins"]

ROOT = Path(__file__).parent
BOUNDS = ("-c", str(ROOT / "constraints.txt"))
LOWEST = ("-c", str(ROOT / "constraints-lowest.txt"))
PLUGINS = sorted(path.parent.name for path in ROOT.glob("plugins/*/pyproject.toml"))
PINS = {"oldest": "constraints-lowest.txt", "newest": "constraints.txt"}
RAR_B = "rar_b and (test_logits or images or saved_again or (power_cosine and (same_distribution or test_greedy_decoding)))"
EXTRAS = "s3,hub,webdataset,dev"
# Pytest runs two workers; with more than one thread each, torch would oversubscribe the cores.
# Modules are compiled once, not by every process, whatever the environment says.
TEST_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": None}


def shared_environment(session: nox.Session) -> Path:
    """The folder of the shared environment."""
    return session.cache_dir.parent / "environment"


@nox.session(reuse_venv=True, default=False)
def environment(session: nox.Session) -> None:
    """Install rarkit in editable mode, with the extras that the checks need."""
    session.install("-e", f".[{EXTRAS}]", *BOUNDS)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and formatting with ruff."""
    session.install("ruff", *BOUNDS)
    session.run("ruff", "check")
    session.run("ruff", "format", "--check", "--diff")


@nox.session(venv_backend="none", requires=["environment"])
def types(session: nox.Session) -> None:
    """Check types with mypy --strict, and with mypy and pyright those of the Python that the documentation shows."""
    binaries = shared_environment(session) / "bin"
    session.run(binaries / "python", "-m", "mypy", "--strict", external=True)
    published = Path(session.create_tmp()) / "published"
    session.run(binaries / "python", "tests/published_python.py", published, external=True)
    files = [str(path) for pattern in ("*.py", "*/*.py") for path in sorted(published.glob(pattern))]
    strict = ("--config-file", "pyproject.toml", "--strict", "--untyped-calls-exclude=torch")
    session.run(binaries / "python", "-m", "mypy", *strict, *files, external=True)
    pyright = (binaries / "basedpyright", "--pythonpath", binaries / "python", "--level", "error")
    session.run(*pyright, "--project", published, external=True)


@nox.session(venv_backend="none", requires=["environment"])
def tests(session: nox.Session) -> None:
    """Run the tests; arguments after -- are passed to pytest."""
    run_tests(session, str(shared_environment(session) / "bin" / "python"))


@nox.session(reuse_venv=True, default=False)
def lowest(session: nox.Session) -> None:
    """Run the tests with the lowest versions that pyproject.toml allows.

    The whole suite: versions that nobody has tried may be installed, and the worst hole that rarkit had was in the oldest fsspec
    that it allowed. It takes as long as ``tests``, and an installation more, so run it when a dependency or a floor changes.
    """
    session.install("-e", f".[{EXTRAS}]", *LOWEST)
    run_tests(session, "python")


def run_tests(session: nox.Session, python: str) -> None:
    """The tests, with the rarkit of an interpreter's environment."""
    workers = ("-n", "2", "--dist", "worksteal", "--durations", "10")
    session.run(python, "-m", "pytest", *workers, *session.posargs, env=TEST_ENVIRONMENT, external=True)


@nox.session(reuse_venv=True, default=False, requires=["environment"])
@nox.parametrize("version", ["oldest", "newest"])
def transformers(session: nox.Session, version: str) -> None:
    """Run exported models with Hugging Face transformers where rarkit is not installed, and read back what it saved."""
    python = str(shared_environment(session) / "bin" / "python")
    place = Path(session.create_tmp()).resolve() / "exported"
    shutil.rmtree(place, ignore_errors=True)
    session.run(python, "-m", "tests.exported.full", str(place), external=True, env=TEST_ENVIRONMENT)
    [pinned] = [line for line in (ROOT / PINS[version]).read_text().splitlines() if line.startswith("transformers==")]
    # torch as elsewhere; what transformers needs besides depends on its version.
    torch = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line.startswith("torch==")]
    session.install(pinned, *torch, "pytest", "accelerate")
    # Without the tests' own configuration, which imports rarkit.
    alone = ("--noconftest", "-p", "no:cacheprovider", "-c", "/dev/null", "--rootdir", str(place))
    checks = str(ROOT / "tests" / "exported" / "checks_of_exports.py")
    environment = {**TEST_ENVIRONMENT, "RARKIT_EXPORTS": str(place / "exports"), "HF_HUB_OFFLINE": "1"}
    with session.chdir(place):
        # RAR-B takes a minute for a batch of images, so it has the checks that differ with its size.
        session.run("python", "-m", "pytest", *alone, checks, "-k", "not rar_b", *session.posargs, env=environment)
        session.run("python", "-m", "pytest", *alone, checks, "-k", RAR_B, *session.posargs, env=environment)
    session.run(python, "-m", "tests.exported.way_back", str(place), external=True)


@nox.session(reuse_venv=True, requires=["environment"])
def notebook(session: nox.Session) -> None:
    """Run the tour, docs/tour.ipynb; ``nox -s notebook -- --write`` keeps its new pictures."""
    share_environment(session)
    session.install("ipykernel", "nbclient", *BOUNDS)
    session.run("python", "docs/run_tour.py", *session.posargs, env=TEST_ENVIRONMENT)


def share_environment(session: nox.Session) -> None:
    """Let the session's Python also import what is in the shared environment."""
    [site_packages] = shared_environment(session).glob("lib/python3*/site-packages")
    [own_packages] = Path(session.virtualenv.location).glob("lib/python3*/site-packages")
    # addsitedir instead of a plain path, because the editable rarkit is a .pth file in site_packages. Kernels of notebooks start in
    # another folder.
    (own_packages / "shared_environment.pth").write_text(f"import site; site.addsitedir({str(site_packages.resolve())!r})\n")


@nox.session(reuse_venv=False, requires=["environment"])
@nox.parametrize("plugin", PLUGINS, ids=PLUGINS)
def plugins(session: nox.Session, plugin: str) -> None:
    """Build a plugin's wheel, install it, and run the plugin's tests."""
    share_environment(session)
    wheels = Path(session.create_tmp()) / "wheels"
    source = ROOT / "plugins" / plugin
    session.run("python", "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(wheels), str(source))
    session.install(*map(str, wheels.glob("*.whl")), *BOUNDS)
    session.run("python", "-c", "import rarkit; rarkit.parts(strict=True)")
    session.run("python", "-m", "pytest", str(source / "tests"), *session.posargs, env=TEST_ENVIRONMENT)


@nox.session(reuse_venv=False, requires=["environment"])
def new_plugins(session: nox.Session) -> None:
    """Begin a plugin of each kind, install wheels of them beside rarkit's, check the parts, and run a recipe of them."""
    share_environment(session)
    place = Path(session.create_tmp()).resolve() / "new"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    session.run("python", "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(place / "wheels"), str(ROOT))
    session.install("--no-deps", *map(str, place.glob("wheels/*.whl")), *BOUNDS)
    session.run("python", str(ROOT / "tests/new_plugins.py"), str(place))
    sources = [str(path.parent) for path in sorted(place.glob("*/pyproject.toml"))]
    session.run("python", "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(place / "plugins"), *sources)
    session.install("--no-deps", *map(str, place.glob("plugins/*.whl")), *BOUNDS)
    with session.chdir(place):
        session.run("python", "-c", "import rarkit, sys; assert sys.prefix in rarkit.__file__, rarkit.__file__")
        session.run("rarkit", "plugins", "check", env=TEST_ENVIRONMENT)
        session.run("rarkit", "run", "recipe.toml", "--device", "cpu", "--strict-plugins", env=TEST_ENVIRONMENT)
        # Those of the tutorial, as a reader types them.
        shutil.copytree(ROOT / "recipes", place / "recipes")
        tutorial = (ROOT / "docs/plugins.md").read_text().partition("```bash\n")[2].partition("```")[0]
        session.run("bash", "-euxc", tutorial, external=True, env=TEST_ENVIRONMENT)
