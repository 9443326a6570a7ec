"""``rarkit export --tokenizer`` and ``rarkit tokenizer``: what they write and print."""

from __future__ import annotations

from rarkit.tokenizers.exported import Exported


def test_a_tokenizer_is_exported_alone(rarkit, small_finished, tmp_path):
    code, out, err = rarkit("export", small_finished.folder, "--tokenizer", "t.safetensors")
    assert (code, out, err) == (0, "t.safetensors\n", "")
    assert Exported(weights=str(tmp_path / "t.safetensors")).codebook_size() == 5
    for more, named in ((["--bundle", "b"], "--bundle"), (["-o", "x"], "--output"), (["--merged"], "--merged"), (["F"], "FOLDER")):
        code, _, err = rarkit("export", small_finished.folder, "--tokenizer", "u.safetensors", *more)
        assert (code, f"leave out {named}" in err) == (2, True), err
    code, _, err = rarkit("export", small_finished.folder, "--tokenizer", "t.safetensors")
    assert (code, "already" in err) == (2, True)
