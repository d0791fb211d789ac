"""The table of encoders: scores against the plain correlation, and a planted truth end to end."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from sklearn.utils import Bunch

from brainnrds.analyses.encoders import compare_encoders, encoder_group, make_extractors
from brainnrds.analyses.extract import describe_extractor
from brainnrds.analyses.options import EncodeOptions
from brainnrds.cli import main
from brainnrds.encoding import correlation_score
from brainnrds.io import InputError, load_json, load_table, save_table

# whole Apps or clusters: slow where the machine is loaded
pytestmark = pytest.mark.timeout(1800)

transformers = pytest.importorskip("transformers")
from tiny_sequences import save_tiny  # noqa: E402

FAST = ["--n-iter", "1", "--n-folds", "2", "--n-permutations", "100", "--n-cpus", "1"]


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """Save two random networks in the hub's layout, in folders of the same name."""
    folder = tmp_path_factory.mktemp("networks")
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    video = transformers.VideoMAEConfig(
        **sizes, intermediate_size=64, image_size=32, patch_size=16, num_frames=4
    )
    image = transformers.Dinov2Config(**sizes, image_size=28, patch_size=14)
    for kind, model, side in (
        ("video", transformers.VideoMAEModel(video), 32),
        ("image", transformers.Dinov2Model(image), 28),
    ):
        model.save_pretrained(folder / kind / "mine")
        transformers.VideoMAEImageProcessorPil(
            size={"shortest_edge": side}, crop_size={"height": side, "width": side}
        ).save_pretrained(folder / kind / "mine")
    return folder


@pytest.fixture(scope="module")
def dataset(planted_movies):
    return planted_movies


def test_means_are_those_of_the_plain_correlation():
    rng = np.random.default_rng(0)
    n_samples, n_voxels = 240, 30
    runs = np.repeat([0, 1, 2], 80)
    signal = rng.normal(size=(n_samples, n_voxels)).astype(np.float32)
    bold = signal + rng.normal(size=signal.shape).astype(np.float32)
    bold[:, 0] = 0
    noises = {"video": 2.0, "video2": 0.5, "image": 1.0, "image2": 0.1}
    predictions = {
        space: signal + noise * rng.normal(size=signal.shape).astype(np.float32)
        for space, noise in noises.items()
    }
    voxels = np.arange(n_voxels) > 0
    data = Bunch(bold=bold, runs=runs, films=runs, t_r=2.0, voxels=voxels, space=None)
    data.masker = Bunch(mask_img_=None)  # of a volume that does not tell sides
    ceiling = np.linspace(0, 1, n_voxels)
    parcels = np.repeat([0, 4, 9], 10)
    result = compare_encoders(
        data,
        predictions,
        runs,
        {"video": "b:0", "video2": "a", "image": "c", "image2": "robot"},
        {"video": "video", "video2": "video", "image": "image", "image2": "embodied"},
        ceiling=ceiling,
        smallest_ceiling=0.5,
        parcels=parcels,
        parcel_names={4: "V1", 9: "MT"},
        controls={"late": np.where(voxels, 0.01, np.nan)},
        labels={"t_r": 2.0, "runs": runs, "films": runs, "block_duration": 40.0},
        random_state=0,
    )
    # in the order of the groups, the best of a group first
    assert result.overall["encoder"].tolist() == ["a", "b:0", "c", "robot", "late"]
    groups = ["video", "video", "image", "embodied", "control"]
    assert result.overall["group"].tolist() == groups
    np.testing.assert_allclose(result.overall["mean_all"].iloc[-1], 0.01)
    assert np.isnan(result.overall["low_all"].iloc[-1])
    expected = {
        space: correlation_score(bold, prediction, runs=runs, folds=runs)
        for space, prediction in predictions.items()
    }
    order = ["video2", "video", "image", "image2"]
    overall = result.overall.iloc[:-1]
    for region, chosen in (("all", voxels), ("responsive", ceiling > 0.5)):
        means = [expected[space][chosen].mean() for space in order]
        np.testing.assert_allclose(overall[f"mean_{region}"], means, atol=1e-6)
        assert (overall[f"low_{region}"] < means).all() and (
            overall[f"high_{region}"] > means
        ).all()
        np.testing.assert_allclose(overall[f"ceiling_{region}"], ceiling[chosen].mean())
    table = result.parcels.set_index("name")
    assert list(table.columns[:4]) == ["parcel", "n_voxels", "a", "a_low"]
    assert "difference" not in table
    np.testing.assert_allclose(table.loc["MT", "robot"], expected["image2"][20:].mean(), atol=1e-6)
    np.testing.assert_allclose(table.loc["V1", "ceiling"], ceiling[10:20].mean())
    np.testing.assert_allclose(table.loc["V1", "late"], 0.01)
    assert "late_low" not in table


def test_groups_are_those_of_the_paper():
    assert encoder_group("video", {"class": "MotionEnergy"}) == "video"
    assert encoder_group("video12", {"family": "videomae"}) == "video"
    assert encoder_group("image3", {"family": "dinov2"}) == "image"
    assert encoder_group("image", {"family": "vc1"}) == "embodied"


def test_names_and_layers(networks):
    folder = networks / "video" / "mine"
    image = str(networks / "image" / "mine")
    options = EncodeOptions(
        video_encoders=(str(folder), f"{folder}:0"), image_encoders=("static-energy", image)
    )
    extractors, names = make_extractors(options, "cpu")
    assert list(extractors) == ["video", "video2", "image", "image2"]
    assert extractors["video"].layers is None and extractors["video2"].layers == 0
    assert names["video2"].endswith("video/mine:0")
    # both folders are called "mine": their whole paths tell them apart
    assert names["video"] == str(folder) and names["image2"].endswith("image/mine")
    _, names = make_extractors(EncodeOptions(video_encoders=(str(folder),)), "cpu")
    assert names == {"video": "mine", "image": "static-energy"}


@pytest.mark.parametrize(
    "video, image, message",
    [
        (
            ["motion-energy", "motion-energy"],
            ["static-energy"],
            "--video-encoder must name .* once",
        ),
        (["motion-energy"], [], "--image-encoder must name at least one"),
        (["motion-energy"], ["motion-energy"], "must differ; got motion-energy in both"),
        (["videomae-larg:3"], ["static-energy"], "--video-encoder videomae-larg:3: .*Did you mean"),
    ],
)
def test_bad_encoders_are_refused(video, image, message):
    with pytest.raises(InputError, match=message):
        make_extractors(EncodeOptions(video_encoders=video, image_encoders=image), "cpu")


def test_named_spaces_and_controls():
    options = EncodeOptions(feature_spaces=("cut=cuts",), control_spaces=("sound=loudness",))
    extractors, names = make_extractors(options, "cpu")
    assert list(extractors) == ["video", "image", "cut", "sound"]
    assert type(extractors["cut"]).__name__ == "CutScores"
    assert names["sound"] == "loudness"


@pytest.mark.parametrize(
    ("spaces", "controls", "message"),
    [
        (("cuts",), (), "--feature-space must be NAME=EXTRACTOR"),
        (("a_b=cuts",), (), "--feature-space must be NAME=EXTRACTOR"),
        (("cut=",), (), "--feature-space must be NAME=EXTRACTOR"),
        (("video=cuts",), (), "--feature-space must have a name of its own; got 'video'"),
        (("without1=cuts",), (), "must have a name of its own"),
        (("a=cuts",), ("a=loudness",), "--control-space must have a name of its own; got 'a'"),
        (("a=cuts",), ("b=cuts",), "--control-space b=cuts: cuts is a feature space already"),
        (("a=static-energy",), (), "static-energy is a feature space already"),
        ((), ("a=colours",), "--control-space must name one of motion-energy, .*; got 'colours'"),
    ],
)
def test_bad_spaces_are_refused(spaces, controls, message):
    options = EncodeOptions(feature_spaces=spaces, control_spaces=controls)
    with pytest.raises(InputError, match=message):
        make_extractors(options, "cpu")


def test_networks_of_sound_and_text_are_spaces(tmp_path):
    """By their folder and a layer; a network of text reads the transcripts that are given."""
    for family in ("whisper", "gpt2"):
        save_tiny(family, tmp_path / family)
    (tmp_path / "words").mkdir()
    (tmp_path / "words" / "film.tsv").write_text("onset\tduration\tword\n1\t.2\tdog\n")
    spaces = {"sound": f"{tmp_path}/whisper:1", "words": f"{tmp_path}/gpt2:output"}
    given = tuple(f"{name}={what}" for name, what in spaces.items())
    options = EncodeOptions(feature_spaces=given, transcript=str(tmp_path / "words"))
    extractors, _ = make_extractors(options, "cpu")
    described = {name: describe_extractor(extractors[name]) for name in spaces}
    assert described["sound"]["layers"] == [1] and described["sound"]["class"] == "SoundEncoder"
    assert described["words"]["layers"] == ["output"]
    assert described["words"]["class"] == "WordEmbeddings" and described["words"]["context"] == 32
    found = extractors["words"].features_of("film.mp4", np.array([0.0, 2.0]), 2.0)
    assert np.abs(found[0]).min() > 0 and not found[1].any()
    with pytest.raises(InputError, match=r"gpt2:output needs --transcript"):
        make_extractors(EncodeOptions(feature_spaces=given[1:]), "cpu")


def test_a_transcript_that_nothing_reads_is_refused(tmp_path):
    absent = EncodeOptions(feature_spaces=("a=word-rate",), transcript=str(tmp_path / "none"))
    with pytest.raises(InputError, match="--transcript: no such folder"):
        make_extractors(absent, "cpu")
    options = EncodeOptions(transcript=str(tmp_path))
    with pytest.raises(InputError, match="--transcript must come with a space of word-rate"):
        make_extractors(options, "cpu")
    options = EncodeOptions(control_spaces=("words=word-rate",))
    with pytest.raises(InputError, match="word-rate needs --transcript"):
        make_extractors(options, "cpu")


def test_the_app_compares_encoders_and_finds_what_was_planted(dataset, networks, tmp_path):
    label = dataset.truth["01"].label
    codes = np.select([label == "motion", label == "static"], [1, 2])
    for hemi, part in zip("LR", np.split(codes, 2), strict=True):
        table = nib.gifti.GiftiLabelTable()
        for key, name in ((1, "moving"), (2, "still")):
            entry = nib.gifti.GiftiLabel(key=key)
            entry.label = name
            table.labels.append(entry)
        array = nib.gifti.GiftiDataArray(
            part.astype(np.int32), intent="NIFTI_INTENT_LABEL", datatype="NIFTI_TYPE_INT32"
        )
        image = nib.gifti.GiftiImage(darrays=[array], labeltable=table)
        nib.save(image, tmp_path / f"hemi-{hemi}_planted.label.gii")
    out = tmp_path / "out"
    code = main(
        [str(dataset.bids_dir), str(out), "participant", "-w", str(tmp_path / "work"), *FAST]
        + ["--atlas", str(tmp_path / "hemi-L_planted.label.gii")]
        + ["--video-encoder", "motion-energy", str(networks / "video" / "mine")]
        + ["--image-encoder", "static-energy", f"{networks / 'image' / 'mine'}:0"]
        + ["--n-components", "100", "--video-control", "frozen"]
    )
    assert code == 0
    stem = out / "sub-01/func/sub-01_space-fsaverage5"
    overall = load_table(f"{stem}_desc-encodeEncoders_table.tsv").set_index("encoder")
    assert list(overall.index[[1, 3]]) == ["mine", "mine:0"]
    assert set(overall["group"]) == {"video", "image", "control"}
    assert set(overall.index[4:]) == {"motion-energy, frozen", "motion-energy, half a film late"}
    assert overall["n_features"].tolist()[1] == overall["n_features"].tolist()[3] == 32
    assert overall["n_features"].isna().sum() == 1
    # the table of models and that of encoders tell the same about the first two
    models = load_table(f"{stem}_desc-encode_table.tsv").set_index("model")
    for encoder, model in (
        ("motion-energy", "video"),
        ("static-energy", "image"),
        ("motion-energy, half a film late", "video, half a film late"),
    ):
        for column in ("mean_all", "mean_responsive"):
            assert overall.loc[encoder, column] == pytest.approx(
                models.loc[model, column], abs=1e-4
            )
    late = overall.loc["motion-energy, half a film late", "mean_responsive"]
    # too few blocks for a test: most voxels that count as responsive are noise; what the control
    # finds where there is signal is held in tests/encoding/test_contrast.py
    assert abs(late) < overall.loc["motion-energy", "mean_responsive"] / 2
    sidecar = load_json(f"{stem}_desc-encodeEncoders_table.json")
    assert "block bootstrap" in sidecar["Description"] and "mean_all" in sidecar
    for kind in ("desc-encodeEncoders", "seg-atlas_desc-encodeEncoders", "seg-atlas_desc-encode"):
        described = load_json(f"{stem}_{kind}_table.json")
        assert set(load_table(f"{stem}_{kind}_table.tsv")) <= set(described), kind
    parcels = load_table(f"{stem}_seg-atlas_desc-encodeEncoders_table.tsv").set_index("name")
    # the same filters without motion are worse where motion was planted, and say so
    frozen = models.loc["video - video, frozen"]
    assert models.loc["video, frozen", "mean_responsive"] == pytest.approx(
        overall.loc["motion-energy, frozen", "mean_responsive"], abs=1e-4
    )
    assert frozen["mean_responsive"] == pytest.approx(
        models.loc["video", "mean_responsive"] - models.loc["video, frozen", "mean_responsive"]
    )
    moving = parcels.loc[["L_moving", "R_moving"]]
    assert (moving["motion-energy"] > 1.5 * moving["motion-energy, frozen"]).all()
    encoders = [e for e in overall.index if "late" not in e and "frozen" not in e]
    for parcel, best in (("moving", "motion-energy"), ("still", "static-energy")):
        for side in "LR":
            row = parcels.loc[f"{side}_{parcel}"]
            assert max(encoders, key=row.get) == best
            assert row["ceiling"] > row[best] > 0.15
            assert np.isnan(row[f"{best}_high"])  # too few blocks
    report = (out / "sub-01.html").read_text()
    assert "Table of encoders" in report and "desc-encodeEncoders_bar" in report
    assert "projected onto 100 principal components" in report
    assert sidecar["projection"] == "pca" and sidecar["n_components"] == 100
    assert "Video &gt; the same encoder without motion" in report
    assert "Besides, each of the 5 encoders was fitted alone" in report
    # a second participant, like the first but for the scores
    for path in list(out.glob("sub-01/**/*.*")):
        copy = str(path).replace("sub-01", "sub-02")
        Path(copy).parent.mkdir(parents=True, exist_ok=True)
        text = path.read_bytes()
        is_table = path.name.endswith("encodeEncoders_table.tsv") and "seg-" not in path.name
        is_text = path.suffix == ".json"
        Path(copy).write_bytes(text.replace(b"sub-01", b"sub-02") if is_text else text)
        if is_table:
            tripled = load_table(path)
            tripled["mean_responsive"] *= 3
            save_table(copy, tripled)
    assert main([str(dataset.bids_dir), str(out), "group"]) == 0
    table = load_table(out / "group/group_space-fsaverage5_desc-encodeEncoders_table.tsv")
    assert table["encoder"].tolist() == list(overall.index)
    np.testing.assert_allclose(table["mean"], 2 * overall["mean_responsive"])
    np.testing.assert_allclose(table["sub-02"], 3 * overall["mean_responsive"])
    assert table["group"].tolist() == overall["group"].tolist()
    assert "desc-encodeEncoders_bar" in (out / "group.html").read_text()


def test_only_encode_takes_several(dataset, tmp_path, capsys):
    arguments = [str(dataset.bids_dir), str(tmp_path / "out"), "participant"]
    arguments += ["--analysis", "decode", "--image-encoder", "dinov2-base", "resnet50"]
    assert main(arguments) == 2
    assert "one value too many: resnet50" in capsys.readouterr().err
