"""The App's areas are those of the models that it fitted."""

import numpy as np
import pytest
from sklearn.utils import Bunch

from brainnrds.analyses.partition import (
    CONTROLS_ALONE,
    area_label,
    divide_variance,
    save_partition,
)
from brainnrds.encoding import r2_score


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    return Bunch(
        bold=rng.normal(size=(120, 8)),
        runs=np.repeat([0, 1], 60),
        films=np.where(np.arange(120) % 60 < 5, -1, 0),
        voxels=np.arange(8) > 0,
    )


def predictions(data, seed):
    rng = np.random.default_rng(seed)
    values = 0.2 * data.bold + 0.1 * rng.normal(size=data.bold.shape)
    return Bunch(predictions=values, folds=np.repeat([0, 1], 60))


def test_areas_sum_to_what_the_joint_model_explains_beyond_controls(data):
    names = ["video", "image", "joint", CONTROLS_ALONE]
    held_out = {name: predictions(data, i) for i, name in enumerate(names)}
    folds = np.where(data.films >= 0, held_out["joint"].folds, -1)

    def explained(name):
        values = r2_score(data.bold, held_out[name].predictions, runs=data.runs, folds=folds)
        return values[data.voxels]

    areas = divide_variance(data, held_out, ["video", "image"])
    total = sum(areas.values())[data.voxels]
    np.testing.assert_allclose(total, explained("joint") - explained(CONTROLS_ALONE))
    only_video = areas["video",][data.voxels]
    np.testing.assert_allclose(only_video, explained("joint") - explained("image"))
    assert all(np.isnan(values[0]) for values in areas.values())
    del held_out[CONTROLS_ALONE]
    held_out |= {n: predictions(data, 9) for n in ("cut", "withoutvideo", "withoutimage")}
    held_out["withoutcut"] = predictions(data, 12)
    areas = divide_variance(data, held_out, ["video", "image", "cut"])
    assert len(areas) == 7
    np.testing.assert_allclose(sum(areas.values())[data.voxels], explained("joint"))
    assert divide_variance(data, held_out, ["video", "image", "cut", "words"]) is None


def test_table_and_maps_hold_the_areas(data):
    areas = {("video",): np.arange(8.0), ("image",): np.ones(8), ("video", "image"): -np.ones(8)}
    saved = {"maps": [], "figures": []}

    class Record:
        def save_map(self, values, masker, **about):
            saved["maps"].append((about["feat"], about["stat"], values))

        def save_table(self, table, **about):
            saved["table"] = table
            assert set(about["columns"]) == set(table)

        def save_figure(self, figure, suffix, **about):
            saved["figures"].append(suffix)

    data.masker = None
    save_partition(Record(), areas, data, np.arange(8) > 5)
    [(feat, stat, values)] = saved["maps"]
    assert (feat, stat) == ("videoAndImage", "sharedR2")
    assert area_label(("video", "image", "cut")) == "videoAndImageAndCut"
    np.testing.assert_array_equal(values, -np.ones(8))
    assert saved["table"]["mean_all"].tolist() == [3.5, 1, -1]
    assert saved["table"]["mean_responsive"].tolist() == [6.5, 1, -1]
    assert saved["figures"] == ["venn"]
