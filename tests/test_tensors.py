"""Weights of networks: plain tensors come back, all else is refused and runs no code."""

import json
import pickle
import struct

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from brainnrds._checks import InputError
from brainnrds._tensors import read_safetensors, read_shards, read_state_dict

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.zeros(2)}


class Touch:
    """What runs code where it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (open, (self.path, "w"))


def same(state):
    return set(state) == set(STATE) and all(torch.equal(state[k], STATE[k]) for k in STATE)


@pytest.mark.parametrize("wrap", [dict, *({k: None} for k in ("module", "state_dict", "model"))])
def test_plain_tensors_come_back_however_they_are_wrapped(tmp_path, wrap):
    state = STATE if wrap is dict else dict.fromkeys(wrap, STATE)
    for content in (state, {f"module.{k}": v for k, v in STATE.items()}):
        torch.save(content, tmp_path / "a.pth")
        assert same(read_state_dict(tmp_path / "a.pth"))
    save_file(STATE, tmp_path / "a.safetensors")
    assert same(read_state_dict(tmp_path / "a.safetensors"))


def test_no_code_runs_and_each_refusal_names_the_file(tmp_path):
    ran = tmp_path / "ran"
    bad = {
        "pickle.pth": pickle.dumps({"state_dict": Touch(ran)}),
        "garbage.ckpt": b"\x00\x95no torch" * 99,
        "empty.pt": b"",
        "long.safetensors": struct.pack("<Q", 2**63) + b"{}",
        "empty.safetensors": b"",
    }
    for name, content in bad.items():
        (tmp_path / name).write_bytes(content)
    for name, content in {
        "object.pth": {"state_dict": Touch(ran)},
        "list.bin": [1],
        "number.pt": {"a": 3},
    }.items():
        torch.save(content, tmp_path / name)
        bad[name] = None
    (tmp_path / "folder.pth").mkdir()
    (tmp_path / "a.exe").write_text("x")
    for name in [*bad, "folder.pth", "a.exe"]:
        with pytest.raises(InputError, match=name):
            read_state_dict(tmp_path / name)
    assert not ran.exists()
    with pytest.raises(FileNotFoundError, match="No such checkpoint"):
        read_state_dict(tmp_path / "none.pth")
    with pytest.raises(InputError, match="not found"):
        read_safetensors(tmp_path / "none.safetensors")


def test_shards_lie_beside_their_index(tmp_path):
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "2.safetensors", "b": "1.safetensors"}}))
    assert [path.name for path in read_shards(index)] == ["1.safetensors", "2.safetensors"]
    assert {path.parent for path in read_shards(index)} == {tmp_path}
    bad = [{}, {"weight_map": []}, *({"weight_map": {"a": s}} for s in ("../x", "/x", "", 1, None))]
    for content in [*bad, [], "x"]:
        index.write_text(json.dumps(content))
        with pytest.raises(InputError, match="index.json must"):
            read_shards(index)


@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data(), suffix=st.sampled_from([".pth", ".safetensors"]))
def test_damaged_weights_are_refused_or_hold_tensors(tmp_path, data, suffix):
    """Any bytes changed or cut off: a line, or a dict of tensors (neither format has a checksum
    of all that it holds)."""
    path = tmp_path / f"a{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(STATE, path)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(0, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        state = read_state_dict(path)
    except InputError as error:
        assert str(path) in str(error)
    else:
        assert all(isinstance(value, torch.Tensor) for value in state.values())
        np.stack([np.asarray(value.float().sum()) for value in state.values()] or [0.0])
