"""What brains added to the clips of several people."""

from written_people import check_gains


def test_the_app_combines_gains_over_every_control(tmp_path, capsys):
    check_gains(tmp_path, "reanimate", ["score", "flow"], capsys)
