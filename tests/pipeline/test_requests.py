"""Planning and cached runs make few requests to an object store."""

from __future__ import annotations

import pytest

from rarkit import load_recipe, plan, run

MOST_FOR_A_PLAN, MOST_FOR_A_CACHED_RUN = 30, 60


@pytest.fixture(scope="module")
def on_s3(s3_bucket, finished, digits_recipe, short_overrides, tmp_path_factory):
    """A finished run of the short digits recipe on S3: the store, the folder of results, and a function that loads the recipe."""
    import fsspec

    store, runs = f"s3://{s3_bucket}/requests", tmp_path_factory.mktemp("runs")

    def load(*overrides):
        return load_recipe(digits_recipe, [*short_overrides, *overrides])

    fsspec.filesystem("s3").put(f"{finished.plan.store.root}/", f"{store}/", recursive=True)
    assert run(load(), store, device="cpu", runs=runs, quiet=True).did_nothing
    return store, runs, load


def test_a_plan_of_a_finished_recipe(on_s3, s3_requests):
    store, _, load = on_s3
    with s3_requests() as requests:
        planned = plan(load(), store)
    assert planned.nothing_to_do
    assert 0 < requests.count <= MOST_FOR_A_PLAN, requests.operations


def test_a_plan_with_another_setting(on_s3, s3_requests):
    store, _, load = on_s3
    with s3_requests() as requests:
        planned = plan(load("sample.temperature=0.5"), store)
    assert planned["sample"].reason == "settings changed: sample.temperature: 0.8 → 0.5"
    assert requests.count <= MOST_FOR_A_PLAN, requests.operations


@pytest.mark.parametrize("folder", ["published", "new"])
def test_a_run_where_everything_is_cached(on_s3, s3_requests, tmp_path, folder):
    store, runs, load = on_s3
    with s3_requests() as requests:
        again = run(load(), store, device="cpu", runs=runs if folder == "published" else tmp_path, quiet=True)
    assert again.did_nothing
    assert again.metrics
    assert 0 < requests.count <= MOST_FOR_A_CACHED_RUN, requests.operations
