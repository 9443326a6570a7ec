"""Addresses in recipes and receipts."""

from __future__ import annotations

import gzip
import json
import tarfile

from tests.hostile.entry import Entry, Place, hostile

ENTRIES: list[Entry] = []
REFUSED = ("is refused", "RARKIT_PROTOCOLS=reference")
WEIGHTS = 'unset = ["train"]\n[model]\nweights = "{}"\n'


def _template(place: Place) -> str:
    """The address of a file whose template runs code, in file systems that evaluate it, and writes into a canary."""
    code = f"open('{place.outside / 'secret.txt'}', 'w').write('run')"
    template = '{{ cycler.__init__.__globals__.__builtins__.eval("' + code + '") }}'
    place.write("references.json", json.dumps({"version": 1, "templates": {"x": template}, "refs": {"a.toml": ["{{x}}"]}}))
    return "reference://a.toml::references.json"


@hostile(ENTRIES, "validate recipe.toml", code=2, words=REFUSED)
def a_template_as_a_recipe(place: Place) -> None:
    place.write("recipe.toml", f'extends = "{_template(place)}"')


@hostile(ENTRIES, "run recipe.toml --device cpu", code=2, words=REFUSED)
def a_template_as_weights(place: Place) -> None:
    place.recipe(WEIGHTS.format(_template(place)))


@hostile(ENTRIES, "validate recipe.toml", code=2, words=REFUSED)
def a_template_behind_a_cache(place: Place) -> None:
    place.write("recipe.toml", f'extends = "simplecache::{_template(place)}"')


@hostile(ENTRIES, "sample runs/small --device cpu", code=2, words=REFUSED)
def a_template_as_the_store_of_a_run(place: Place) -> None:
    receipt = place.finished() / "receipt.json"
    receipt.write_text(json.dumps(json.loads(receipt.read_text()) | {"store": _template(place)}))


@hostile(ENTRIES, "run recipe.toml --device cpu", code=2, words=("pipe",))
def a_command_as_a_shard(place: Place) -> None:
    shard = f"pipe:touch {place.outside}/made"
    place.recipe(f'unset = ["dataset"]\n[dataset]\nname = "webdataset"\nurls = "{shard}"\nclass_names = ["a", "b"]\nsize = 4\n')


@hostile(ENTRIES, "validate recipe.toml", code=2, words=("'ssh'", "RARKIT_PROTOCOLS=ssh"))
def a_recipe_on_a_host_with_a_shell(place: Place) -> None:
    place.write("recipe.toml", 'extends = "ssh://127.0.0.1/etc/passwd"')


@hostile(ENTRIES, "validate recipe.toml", code=2, words=("nothing.zip",))
def a_recipe_in_an_archive_that_is_not_there(place: Place) -> None:
    place.write("recipe.toml", 'extends = "zip://a.toml::nothing.zip"')


@hostile(ENTRIES, "validate recipe.toml", code=0, words=("x.safetensors",))
def weights_elsewhere_when_validated(place: Place) -> None:
    place.recipe(WEIGHTS.format(f"{place.address}/x.safetensors"))


@hostile(ENTRIES, "plan recipe.toml", code=0, words=("{address}/x.safetensors",), calls=True, slow=True)
def weights_elsewhere_when_planned(place: Place) -> None:
    place.recipe(WEIGHTS.format(f"{place.address}/x.safetensors"))


@hostile(ENTRIES, "validate recipe.toml", code=2, words=("{address}", "did not answer"), calls=True, slow=True)
def a_recipe_at_an_address_that_does_not_answer(place: Place) -> None:
    place.write("recipe.toml", f'extends = "{place.address}/a.toml"')


@hostile(ENTRIES, "validate recipe.toml", code=2, words=("secret.txt",), reads=("secret.txt",))
def a_secret_in_place_of_a_recipe(place: Place) -> None:
    place.write("recipe.toml", 'extends = "../outside/secret.txt"')


@hostile(ENTRIES, "validate recipe.toml", code=2, words=("s3://bucket/a.toml", "NoCredentialsError", "AWS_ACCESS_KEY_ID"))
def a_recipe_in_a_bucket_without_credentials(place: Place) -> None:
    # Nobody at the address from which machines in the cloud get theirs.
    nobody = "ec2_metadata_service_endpoint = http://127.0.0.1:9/"
    place.write("home/.aws/config", f"[default]\nregion = us-east-1\nendpoint_url = {place.address}\n{nobody}\n")
    place.write("recipe.toml", 'extends = "s3://bucket/a.toml"')


@hostile(ENTRIES, "validate recipe.toml", code=2, words=("zip://x does not say what it reads from",))
def an_archive_of_nothing(place: Place) -> None:
    place.write("recipe.toml", 'extends = "zip://x"')


@hostile(ENTRIES, "validate recipe.toml", code=0, words=("{address}/digits.npz is on another machine and was not read", "is valid"))
def data_of_another_machine_is_not_fetched_by_validate(place: Place) -> None:
    place.recipe(f'[dataset]\nname = "npz"\npath = "{place.address}/digits.npz"\n')


@hostile(ENTRIES, "plan recipe.toml", code=0, words=("✗ train.tokens: ", *REFUSED))
def a_template_as_tokens(place: Place) -> None:
    place.recipe(f'[train]\ntokens = "{_template(place)}"\n')


def _archive(name: str, header: tarfile.TarInfo, words: str) -> None:
    """A recipe in a tar archive that grows when it is read: of 100 KB, and for one that fsspec believes, of gigabytes."""

    def make(place: Place) -> None:
        place.write("archive.tar.gz", gzip.compress(header.tobuf() + bytes(100 * 2**20), compresslevel=1))
        place.write("recipe.toml", 'extends = "tar://base.toml::archive.tar.gz"')

    ENTRIES.append(Entry(name, make, ("validate", "recipe.toml"), code=2, words=("archive.tar.gz", words)))


def _header(name: str, kind: bytes) -> tarfile.TarInfo:
    header = tarfile.TarInfo(name)
    header.size, header.type = 100 * 2**20, kind
    return header


_archive("a_recipe_in_a_tar_that_expands", _header("base.toml", tarfile.REGTYPE), "'base.toml' ends at byte 104,858,112")
_archive("a_recipe_behind_a_long_header_in_a_tar", _header("x", tarfile.XHDTYPE), "an extended header of 104,857,600 bytes")
