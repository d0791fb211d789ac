"""What the README shows is what the documentation runs."""

import re
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_readme_shows_the_seven_lines_of_the_gallery():
    example = (ROOT / "examples" / "01_encoding" / "plot_bids_to_flatmap.py").read_text()
    lines = re.search(r"^data = load_runs\(.*?^plot_flatmap\([^\n]*$", example, re.S | re.M).group()
    assert len(lines.splitlines()) == 7
    assert "delays=data.delays" in lines  # the model's own are for a repetition time of 2 s
    readme = (ROOT / "README.rst").read_text()
    block = readme.split(".. code-block:: python\n")[1]
    code = textwrap.dedent(re.split(r"\n(?=\S)", block)[0]).strip()
    compile(code, "README.rst", "exec")
    assert code.endswith(lines)
    imports = [line for line in code.splitlines() if line.startswith("from ")]
    assert imports and set(imports) <= set(example.splitlines())


def test_links_of_the_readme_lead_to_files():
    readme = (ROOT / "README.rst").read_text()
    targets = [t for t in re.findall(r"<([^<>`]+)>`_", readme) if not t.startswith("https://")]
    targets += re.findall(r"(?:image|figure):: (\S+)", readme)
    assert len(targets) > 5
    assert [target for target in targets if not (ROOT / target).exists()] == []
