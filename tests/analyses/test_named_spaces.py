"""Names that options give: each layer of a network has one of its own."""

import pytest
import torch

from brainnrds.analyses.encoders import make_extractors
from brainnrds.analyses.named_spaces import layers_compared, names_of, split_layers
from brainnrds.analyses.options import EncodeOptions
from brainnrds.io import InputError

transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """Save a random video network in the hub's layout."""
    folder = tmp_path_factory.mktemp("networks") / "mine"
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.VideoMAEConfig(
        **sizes, intermediate_size=64, image_size=32, patch_size=16, num_frames=4
    )
    transformers.VideoMAEModel(config).save_pretrained(folder)
    transformers.VideoMAEImageProcessorPil(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    ).save_pretrained(folder)
    return folder


def test_a_folder_keeps_the_commas_of_its_name(tmp_path):
    folder = tmp_path / "a:1,2"
    folder.mkdir()
    assert split_layers(str(folder)) == {"": str(folder)}
    assert split_layers("motion-energy") == {"": "motion-energy"}
    assert split_layers("a:3") == {"": "a:3"}
    assert names_of(["mine=some=where", "other=x"]) == ("mine", "other")


def test_names_of_layers(network):
    options = EncodeOptions(
        video_encoders=("motion-energy", f"{network}:0,-1"),
        feature_spaces=("cut=cuts", f"deep={network}:1,output"),
    )
    extractors, names = make_extractors(options, "cpu")
    assert list(extractors) == ["video", "video2", "video3", "image", "cut", "deep1", "deepOutput"]
    assert extractors["video3"].layers == -1 and extractors["deepOutput"].layers == "output"
    assert names["deep1"] == "mine:1" and names["video2"] == "mine:0"
    assert layers_compared(options) == {
        "video2": {"video2": f"{network}:0", "video3": f"{network}:-1"},
        "deep": {"deep1": f"{network}:1", "deepOutput": f"{network}:output"},
    }
    assert layers_compared(EncodeOptions()) == {}
    for listed in ("0,0", "0,", "a.b,ab"):
        with pytest.raises(InputError, match="layers must be given once each"):
            make_extractors(EncodeOptions(video_encoders=(f"{network}:{listed}",)), "cpu")
