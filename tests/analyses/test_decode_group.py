"""Brain gains of several people."""

import pytest
from written_people import check_gains, write_gains

from brainnrds.analyses.decode_group import decode_group
from brainnrds.io import InputError, load_json, load_table, save_json, save_table


def test_the_app_combines_brain_gains(tmp_path, capsys):
    check_gains(tmp_path, "decode", ["cells"], capsys)


def test_whose_gain_may_not_be_claimed_is_named(tmp_path):
    write_gains(tmp_path, "decode", 3)
    path = next(tmp_path.glob("sub-02/func/*feat-gain_desc-decode_table.tsv"))
    save_table(path, load_table(path).assign(supported=False))
    assert decode_group(tmp_path).note.endswith("no gain may be claimed of sub-02.")


def test_decoders_of_different_grids_are_refused(tmp_path):
    write_gains(tmp_path / "out", "decode", 2)
    path = next((tmp_path / "out/sub-02").glob("*_provenance.json"))
    record = load_json(path)
    record["Parameters"]["grid"] = [16, 16]
    save_json(path, record)
    with pytest.raises(InputError, match="grid of sub-02 and sub-01 differ"):
        decode_group(tmp_path / "out")
    assert not (tmp_path / "out/group").exists()
