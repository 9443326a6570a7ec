"""Which versions of rarkit a plugin was written for: ``requires_rarkit`` in its module, and what its distribution requires."""

from __future__ import annotations

from importlib.metadata import EntryPoint

from rarkit.errors import PluginError

NAME = "requires_rarkit"


def of_distribution(point: EntryPoint) -> str:
    """What the distribution of an entry point requires of rarkit, as ``">=0.1,<0.2"``; "" if nothing, or if it is rarkit's own."""
    if point.dist is None or not point.dist.requires:
        return ""
    # Only lines that can be about rarkit are parsed: reading hundreds would slow every command.
    lines = [line for line in point.dist.requires if line.lower().startswith("rarkit")]
    if not lines:
        return ""
    from packaging.requirements import InvalidRequirement, Requirement

    for line in lines:
        try:
            requirement = Requirement(line)
        except InvalidRequirement:
            continue
        if requirement.name.lower() == "rarkit" and (requirement.marker is None or requirement.marker.evaluate({"extra": ""})):
            return str(requirement.specifier)
    return ""


def of_module(plugin: object) -> str:
    """What the plugin's module says; "" if nothing.

    Raises:
        PluginError: it is no text.
    """
    versions = getattr(plugin, NAME, "")
    if not isinstance(versions, str):
        raise PluginError(f'{NAME} is {versions!r}; write the versions as text, as in {NAME} = ">=0.1,<0.2"')
    return versions


def check_version(versions: str) -> None:
    """Checks that this is a rarkit that a plugin was written for.

    Raises:
        PluginError: it is another one, or the text names no versions.
    """
    if not versions:
        return
    from packaging.specifiers import InvalidSpecifier, SpecifierSet

    from rarkit import __version__

    try:
        wanted = SpecifierSet(versions)
    except InvalidSpecifier as error:
        raise PluginError(f'{NAME} = {versions!r} names no versions; write them as in {NAME} = ">=0.1,<0.2"') from error
    if not wanted.contains(__version__, prereleases=True):
        raise PluginError(
            f"it was written for rarkit {versions}, and this is rarkit {__version__}. "
            "Install another version of the plugin, or such a rarkit"
        )
