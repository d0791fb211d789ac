"""Renderers by their names: each is made with what the options say, and refused without it."""

import pytest
from sklearn.utils import Bunch

from brainnrds import reanimation
from brainnrds.analyses.renderers import RENDERERS, make_renderer
from brainnrds.io import InputError
from brainnrds.reanimation import SplatRenderer

OPTIONS = {
    "video_model": None,
    "checkpoint": None,
    "n_frames": 5,
    "num_steps": None,
    "cache_steps": 1,
    "batch_size": 2,
    "dtype": "float16",
    "compile": False,
    "offload": True,
}


def make(name, **changes):
    return make_renderer(name, Bunch(**{**OPTIONS, **changes}), device="cpu", duration=1.5)


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """Folders and a file of the names that options give; nothing is read of them."""
    monkeypatch.chdir(tmp_path)
    for name in ("svd", "wan"):
        (tmp_path / name).mkdir()
    (tmp_path / "weights").touch()


@pytest.mark.usefixtures("weights")
def test_options_reach_every_renderer(monkeypatch):
    assert make("splat") == SplatRenderer(5, device="cpu")
    loaded = []
    monkeypatch.setattr(
        reanimation, "load_video_model", lambda *args, **options: loaded.append((args, options))
    )
    for name in sorted(set(RENDERERS) - {"splat", "wan-vace"}):
        made = make(name, video_model="svd", checkpoint="weights", num_steps=7, cache_steps=2)
        sampling = made.sampling
        assert (sampling.n_frames, sampling.duration, sampling.batch_size) == (5, 1.5, 2)
        assert (sampling.num_steps, sampling.cache_steps) == (7, 2)
        assert make(name, video_model="svd", checkpoint="weights").sampling.num_steps in (25, 50)
        args, options = loaded[-1]
        assert args == ("svd",)
        assert (options["device"], options["dtype"], options["offload"]) == ("cpu", "float16", True)
        asks = name in ("dragnuwa", "motionpro")
        assert options.get("checkpoint") == ("weights" if asks else None)
        assert options.get("input_channels", 2) == (3 if name == "motionpro" else 2)


@pytest.mark.usefixtures("weights")
def test_options_reach_wan_vace(monkeypatch):
    loaded = []
    monkeypatch.setattr(
        reanimation, "load_wan_vace", lambda *args, **options: loaded.append((args, options))
    )
    options = {"video_model": "wan", "batch_size": None, "offload": False}
    made = make("wan-vace", **options, num_steps=7)
    assert (made.n_frames, made.duration, made.num_steps) == (5, 1.5, 7)
    assert make("wan-vace", **options).num_steps == 50
    assert loaded[-1] == (("wan",), {"device": "cpu", "dtype": "float16", "compile": False})


@pytest.mark.parametrize(
    "name, options, message",
    [
        ("svd", {}, "--renderer must be one of splat, dragnuwa"),
        ("dragnuwa", {}, "--renderer dragnuwa: needs --video-model"),
        ("wan-vace", {}, "needs --video-model"),
        ("wan-vace", {"video_model": "wan", "batch_size": None}, "no --offload"),
        (
            "wan-vace",
            {"video_model": "wan", "batch_size": None, "offload": False, "cache_steps": 2},
            "--cache-steps",
        ),
        ("motionpro", {"video_model": "somewhere"}, "needs --checkpoint"),
        ("dragnuwa", {"video_model": ".", "checkpoint": "no.pth"}, "must be a file; got no.pth"),
        ("image-to-video", {"video_model": "/no/such/folder"}, "No such model folder"),
        ("time-to-move", {"video_model": "no/such-model"}, "neither a local folder nor"),
    ],
)
def test_bad_renderers_are_refused(name, options, message):
    with pytest.raises(InputError, match=message):
        make(name, **options)
