"""Texts of the methods: they say what was recorded, and cite what they name."""

import re

import pytest

from brainnrds.reporting import methods_text
from brainnrds.reporting.methods import link_citations, load_references


def test_methods_speak_only_of_what_was_recorded():
    short = methods_text("encode", {})
    assert "permutations" not in short and "delayed" not in short and "None" not in short
    long = methods_text(
        "encode",
        {
            "space": "fsLR",
            "feature_spaces": {"video": {"extractor": "MotionEnergy", "n_features": 5}},
            "n_permutations": 999,
            "block_duration": 40,
            "repeats": "average",
        },
    )
    assert "fsLR" in long and "MotionEnergy (5 features)" in long and "999 permutations" in long
    assert "motion energy is computed" in long.lower() and "averaged after z-scoring" in long
    untested = methods_text("encode", {"n_permutations": 9, "no_p_values_because": "6 blocks"})
    assert "not tested (6 blocks)" in untested and "9 permutations" not in untested
    with pytest.raises(ValueError, match=r"`analysis` must be one of .*'encode'.*got 'knit'"):
        methods_text("knit", {})


def test_citations_become_numbers_in_order_of_appearance():
    html, cited = link_citations("<b> [@b2000, @a1999]\n\nagain [@b2000]", ["z1990"])
    assert cited == ["z1990", "b2000", "a1999"]
    assert str(html) == (
        '<p>&lt;b&gt; [<a href="#ref-2">2</a>, <a href="#ref-3">3</a>]</p>'
        '<p>again [<a href="#ref-2">2</a>]</p>'
    )


def test_every_citation_of_the_shipped_texts_is_known():
    text = methods_text(
        "encode",
        {
            "feature_spaces": {"video": "MotionEnergy"},
            "noise_ceiling": True,
            "n_permutations": 10,
            "block_duration": 40,
        },
    )
    cited = {
        key for group in re.findall(r"\[@[^]]+\]", text) for key in re.findall(r"@(\w+)", group)
    }
    assert len(cited) > 8 and cited <= set(load_references())


@pytest.mark.parametrize("analysis", ("encode", "decode", "reanimate"))
def test_every_analysis_has_a_text_that_needs_no_parameter(analysis):
    text = methods_text(analysis, {})
    assert len(text) > 200 and "None" not in text and "{" not in text and " ." not in text
    assert {
        key for group in re.findall(r"\[@[^]]+\]", text) for key in re.findall(r"@(\w+)", group)
    } <= (set(load_references()))


def test_texts_name_the_methods_that_ran():
    decode = {"extractors": {"flow": {"method": "raft"}}, "grid": [32, 32], "n_codes": 40}
    assert "RAFT [@teed2020]" in methods_text("decode", decode | {"n_clips": {"test": 7}})
    assert "40 codes" in methods_text("decode", decode)
    reanimate = methods_text("reanimate", {"renderer": "dragnuwa", "licence": "custom"})
    assert "[@yin2023, @blattmann2023]" in reanimate and "custom" in reanimate


def test_control_spaces_are_named_where_there_are_any():
    said = "The control spaces light, words were in every model"
    assert said in methods_text("encode", {"control_spaces": ["light", "words"]})
    assert "control spaces" not in methods_text("encode", {"control_spaces": []})


def test_no_test_is_told_of_that_few_blocks_forbade():
    assert "was not tested" in methods_text("decode", {"no_p_value": True, "block_duration": 40})
    assert "of blocks of 40 s" in methods_text("decode", {"block_duration": 40})
    few, many = (methods_text("reanimate", {"n_blocks": n}) for n in (3, 30))
    assert "differences were not tested" in few and "flipping" not in few
    assert "flipping the signs of 30 blocks" in many


def test_encoders_are_told_of_where_several_were_compared():
    spaces = dict.fromkeys(("video", "image", "sound"), "features")
    assert "encoders" not in methods_text("encode", {"feature_spaces": spaces, "n_encoders": 2})
    told = methods_text("encode", {"feature_spaces": spaces, "n_encoders": 3})
    assert "each of the 3 encoders was fitted alone" in told
