"""What is checked, and how: ``nox`` runs lint, types, tests and plugins.

Torch is large, so one environment (``environment``) holds rarkit with its extras and serves all sessions but lint.
Each plugin gets an empty environment laid over it, which sees what is below and adds the plugin's own wheel and
dependencies: no other session sees those.
"""

from __future__ import annotations

from pathlib import Path

import nox

nox.needs_version = ">=2025.2"
nox.options.sessions = ["lint", "types", "tests", "plugins"]

ROOT = Path(__file__).parent
BOUNDS = ("-c", str(ROOT / "constraints.txt"))
PLUGINS = sorted(path.parent.name for path in ROOT.glob("plugins/*/pyproject.toml"))
EXTRAS = "s3,hub,webdataset,dev"
# Two pytest workers on two cores: torch's own threads would only get into each other's way.
ONE_THREAD = {"OMP_NUM_THREADS": "1"}


def below(session: nox.Session) -> Path:
    """The folder of the environment that the other sessions share."""
    return session.cache_dir.parent / "environment"


@nox.session(reuse_venv=True, default=False)
def environment(session: nox.Session) -> None:
    """Install rarkit, editable, with what the checks need."""
    session.install("-e", f".[{EXTRAS}]", *BOUNDS)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and format with ruff."""
    session.install("ruff", *BOUNDS)
    session.run("ruff", "check")
    session.run("ruff", "format", "--check", "--diff")


@nox.session(venv_backend="none", requires=["environment"])
def types(session: nox.Session) -> None:
    """Check the types of rarkit, strictly."""
    session.run(below(session) / "bin" / "python", "-m", "mypy", "--strict", external=True)


@nox.session(venv_backend="none", requires=["environment"])
def tests(session: nox.Session) -> None:
    """Run the tests; arguments after -- go to pytest."""
    python = below(session) / "bin" / "python"
    session.run(python, "-m", "pytest", "-n", "2", "--durations", "10", *session.posargs, env=ONE_THREAD, external=True)


@nox.session(reuse_venv=False, requires=["environment"])
@nox.parametrize("plugin", PLUGINS, ids=PLUGINS)
def plugins(session: nox.Session, plugin: str) -> None:
    """Build a distribution of plugins/, install what was built, and run its tests."""
    [site_packages] = below(session).glob("lib/python3*/site-packages")
    [own_packages] = Path(session.virtualenv.location).glob("lib/python3*/site-packages")
    # addsitedir, and not a plain path, because the editable rarkit is itself a .pth file down there.
    (own_packages / "below.pth").write_text(f"import site; site.addsitedir({str(site_packages)!r})\n")
    wheels = Path(session.create_tmp()) / "wheels"
    source = ROOT / "plugins" / plugin
    session.run("python", "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(wheels), str(source))
    session.install(*map(str, wheels.glob("*.whl")), *BOUNDS)
    session.run("python", "-c", "import rarkit; rarkit.parts(strict=True)")
    session.run("python", "-m", "pytest", str(source / "tests"), *session.posargs, env=ONE_THREAD)
