"""Layers of a network as spaces: one pass, stored apart, and a map of the one that is preferred."""

import nibabel as nib
import numpy as np
import pytest
import torch
from sklearn.utils import Bunch

from brainnrds import load_runs
from brainnrds.analyses import extract_features
from brainnrds.analyses.layers import compare_layers
from brainnrds.analyses.options import EncodeOptions
from brainnrds.cli import main
from brainnrds.features import VideoEncoder, encoders
from brainnrds.io import load_json, load_table

# whole Apps: slow where the machine is loaded
pytestmark = pytest.mark.timeout(1800)

transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """Save a random video network of three blocks in the hub's layout."""
    folder = tmp_path_factory.mktemp("networks") / "mine"
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2}
    config = transformers.VideoMAEConfig(
        **sizes, intermediate_size=64, image_size=32, patch_size=16, num_frames=4
    )
    transformers.VideoMAEModel(config).save_pretrained(folder)
    transformers.VideoMAEImageProcessorPil(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    ).save_pretrained(folder)
    return folder


def count_passes(monkeypatch):
    """Count how often a network runs."""
    passes, run = [], encoders._networks.run_network

    def counting(network, family, pixels, layers):
        passes.append(list(layers))
        return run(network, family, pixels, layers)

    monkeypatch.setattr(encoders._networks, "run_network", counting)
    return passes


def test_layers_come_from_one_pass_and_are_stored_apart(
    short_movies, network, tmp_path, monkeypatch
):
    data = load_runs(short_movies.bids_dir, subject="01", verbose=0)
    films = [(data.stim_files[0], np.arange(0, 12, 2.0), 2.0)]
    layers = {f"deep{i}": VideoEncoder(network, layers=i) for i in (0, 2, "output")}
    alone = {
        name: extract_features(films, {name: e}, store_dir=tmp_path / name, progress=False)[name]
        for name, e in layers.items()
    }
    passes = count_passes(monkeypatch)
    how = {"store_dir": tmp_path / "store", "progress": False}
    together = extract_features(films, layers, **how)
    for name in layers:
        np.testing.assert_array_equal(together[name][0], alone[name][0])
    assert not np.allclose(together["deep0"][0], together["deep2"][0])
    assert passes == [[0, 2, "output"]]
    # each is a file of its own: another layer is computed alone, known ones are not
    assert len(list((tmp_path / "store").glob("*.h5"))) == 3
    extract_features(films, {**layers, "more": VideoEncoder(network, layers=1)}, **how)
    assert passes[1:] == [[1]]
    # what differs in more than its layers is another pass
    others = {"a": VideoEncoder(network, layers=[0, 1]), "b": VideoEncoder(network, pooling="mean")}
    others["c"] = VideoEncoder(network, layers=0, sampling="all")
    extract_features(films, others, **how)
    assert sorted(map(len, passes[2:])) == [1, 2]  # "b" is the output, which is known


def test_where_nothing_is_tested_all_voxels_have_a_layer():
    rng = np.random.default_rng(0)
    runs = np.repeat(np.arange(2), 60)
    data = Bunch(
        bold=rng.normal(size=(120, 5)), runs=runs, films=runs, t_r=2.0, design="continuous"
    )
    data.voxels = np.arange(5) > 0
    held_out = {
        name: Bunch(
            predictions=data.bold + rng.normal(size=data.bold.shape),
            folds=runs,
            training_scores=rng.normal(size=(2, 5)) - i,
        )
        for i, name in enumerate("ab")
    }
    networks = {"deep": {"a": "mine:0", "b": "mine:1"}}
    found = compare_layers(data, held_out, networks, EncodeOptions())["deep"]
    assert found.test.q_values is None and np.isnan(found.preferred[0])
    means = np.stack([held_out[name].training_scores.mean(0) for name in "ab"])
    np.testing.assert_array_equal(found.preferred[1:], means.argmax(0)[1:] + 1)


def test_the_app_maps_the_preferred_layer(short_movies, network, tmp_path, monkeypatch):
    passes = count_passes(monkeypatch)
    out = tmp_path / "out"
    code = main(
        [str(short_movies.bids_dir), str(out), "participant", "-w", str(tmp_path / "work")]
        + ["--n-iter", "2", "--n-folds", "2", "--n-permutations", "100", "--n-cpus", "1"]
        + ["--participant-label", "01", "--feature-space", f"deep={network}:0,2", "--device", "cpu"]
    )
    assert code == 0
    assert {tuple(layers) for layers in passes} == {(0, 2)}
    table = load_table(next(out.rglob("*desc-encodeLayers_table.tsv")))
    assert table["encoder"].tolist() == ["mine:0", "mine:2"]
    assert table["network"].tolist() == ["deep", "deep"] and table["layer"].tolist() == [1, 2]
    described = load_json(next(out.rglob("*desc-encodeLayers_table.json")))
    assert set(table) <= set(described) and "tested films do not choose" in described["Description"]
    maps = {
        stat: np.concatenate(
            [
                nib.load(next(out.rglob(f"*hemi-{h}_*feat-deep_stat-{stat}_*.func.gii"))).agg_data()
                for h in "LR"
            ]
        )
        for stat in ("preferredLayer", "layerAgreement", "preferredR")
    }
    chosen = maps["preferredLayer"]
    chosen = chosen[np.isfinite(chosen) & (chosen != 0)]
    assert set(np.unique(chosen)) == {1, 2}
    counts = table["n_preferring"].to_numpy()
    assert counts.sum() <= len(chosen) and (counts > 0).all()
    assert 0.5 <= np.nanmean(maps["layerAgreement"]) <= 1
    # layers are spaces of the joint model, with what each adds
    models = load_table(next(out.rglob("*space-fsaverage5_desc-encode_table.tsv")))["model"]
    assert {"deep0", "deep2", "unique to deep2"} <= set(models)
    report = (out / "sub-01.html").read_text()
    assert "Preferred layer, deep" in report
