"""Recipes that are nonsense."""

from __future__ import annotations

import os

from tests.hostile.entry import Entry, Place, hostile

ENTRIES: list[Entry] = []


@hostile(ENTRIES, "validate recipe.toml", code=2, words=("recipe.toml", "circular extends"))
def recipes_that_extend_each_other(place: Place) -> None:
    place.write("recipe.toml", 'extends = "other.toml"')
    place.write("other.toml", 'extends = "recipe.toml"')


@hostile(ENTRIES, "validate recipe.toml", code=2, words=("recipe.toml", "is a named pipe"))
def a_pipe_in_place_of_a_recipe(place: Place) -> None:
    os.mkfifo(place.work / "recipe.toml")


@hostile(ENTRIES, "validate recipe.toml", code=2, words=("recipe.toml", "is a device"))
def a_recipe_without_an_end(place: Place) -> None:
    (place.work / "recipe.toml").symlink_to("/dev/zero")


@hostile(ENTRIES, "validate recipe.toml", code=2, words=("recipe.toml", "1,048,576 bytes"))
def a_recipe_of_a_gigabyte(place: Place) -> None:
    os.truncate(place.write("recipe.toml", ""), 1 << 30)


@hostile(ENTRIES, "validate recipe.toml", code=2, words=("recipe.toml:2", "more than 8 parts"))
def tables_nested_a_thousand_deep(place: Place) -> None:
    place.recipe(f"[{'.'.join(['a'] * 1000)}]\nx = 1\n")


@hostile(ENTRIES, "validate recipe.toml", code=2, words=("recipe.toml", "8 deep"))
def lists_nested_a_hundred_thousand_deep(place: Place) -> None:
    place.recipe(f"a = {'[' * 100_000}\n")


@hostile(ENTRIES, "validate recipe.toml", code=2, words=("recipe.toml", "more than 16 recipes"))
def a_chain_of_recipes_a_hundred_long(place: Place) -> None:
    for number in range(100):
        place.write(f"{number}.toml", f'extends = "{number + 1}.toml"')
    place.write("recipe.toml", 'extends = "0.toml"')


@hostile(ENTRIES, "validate recipe.toml", code=2, words=("recipe.toml", "digits"))
def a_number_of_five_thousand_digits(place: Place) -> None:
    place.recipe(f"[train]\nsteps = {'9' * 5000}\n")


@hostile(ENTRIES, "validate recipe.toml", code=2, words=("weight_decay",))
def an_infinite_weight_decay(place: Place) -> None:
    place.recipe("[train]\nweight_decay = inf\n")


@hostile(ENTRIES, "validate recipe.toml", code=2, words=("UTF-8",))
def a_recipe_in_no_encoding(place: Place) -> None:
    place.write("recipe.toml", b'title = "\xff\xfe\x00"\n')


@hostile(ENTRIES, "plan recipe.toml", code=2, words=("scan_order.name: found {'name': 'raster'}; expected one of: ",))
def a_table_where_a_name_belongs(place: Place) -> None:
    place.recipe('[scan_order]\nname = { name = "raster" }\n')


@hostile(ENTRIES, "plan recipe.toml", code=2, words=("tokenizer.name: found ['pixel', {'name': 'pixel'}]; expected one of: ",))
def a_list_where_a_name_belongs(place: Place) -> None:
    place.recipe('[tokenizer]\nname = ["pixel", { name = "pixel" }]\n')


@hostile(ENTRIES, "validate recipe.toml", code=2, words=("scan_order: found [{'name': 'raster'}]; expected a table",))
def a_list_where_a_table_belongs(place: Place) -> None:
    place.recipe('[[scan_order]]\nname = "raster"\n')


@hostile(ENTRIES, "plan recipe.toml", code=2, words=("dataset.size: found 1000000000000", "less than or equal to 8192"))
def images_of_a_trillion_pixels_a_side(place: Place) -> None:
    place.recipe('unset = ["dataset"]\n[dataset]\nname = "image_folder"\npath = "x"\nsize = 1_000_000_000_000\n')


@hostile(ENTRIES, "plan recipe.toml", code=2, words=("sample.per_class: found 1000000000000", "less than or equal to 4194304"))
def a_trillion_samples_of_each_class(place: Place) -> None:
    place.recipe("[sample]\nper_class = 1_000_000_000_000\n")


@hostile(ENTRIES, "plan recipe.toml", code=2, words=("dataset.num_classes: found 1000000000000", "less than or equal to 1048576"))
def a_trillion_classes(place: Place) -> None:
    place.recipe('[dataset]\nname = "webdataset"\nurls = "a.tar"\nnum_classes = 1_000_000_000_000\n')


@hostile(ENTRIES, "plan recipe.toml", code=0, words=("✗ dataset: ", "stands for more than 1,048,576 shards"))
def a_trillion_shards(place: Place) -> None:
    place.recipe('[dataset]\nname = "webdataset"\nurls = "{0..999999999999}.tar"\nnum_classes = 10\n')


@hostile(ENTRIES, "plan recipe.toml", code=2, words=("sample.per_class: 4,000,000 images of each of", "Set per_class to"))
def more_samples_than_memory_holds(place: Place) -> None:
    place.recipe("[sample]\nper_class = 4_000_000\n")


@hostile(ENTRIES, "plan recipe.toml", code=2, words=("a grid of 8,192×8,192 has more than 1,048,576 tokens",))
def a_grid_of_67_million_tokens(place: Place) -> None:
    dataset = '[dataset]\nname = "generated"\nheight = 8192\nwidth = 8192\nchannels = 1\n'
    place.recipe(f'{dataset}[tokenizer]\nname = "pixel"\n')


@hostile(ENTRIES, "plan recipe.toml", code=2, words=("train.batch_size: found 1000000000000", "train.steps: found 92233720"))
def a_trillion_images_at_a_time(place: Place) -> None:
    place.recipe("[train]\nbatch_size = 1_000_000_000_000\nsteps = 9_223_372_036_854_775_807\n")
