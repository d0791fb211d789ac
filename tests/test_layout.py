"""A newcomer finds the test of a module by its name, and no test by the name of nothing."""

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "brainnrds"
MODULES = [path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py") if path.stem[:2] != "__"]


def mirror(module):
    return ROOT / "tests" / module.parent / f"test_{module.name.lstrip('_')}"


@pytest.mark.parametrize("module", [m for m in MODULES if m.name[0] != "_"], ids=str)
def test_every_public_module_has_a_test_of_its_name(module):
    assert mirror(module).is_file(), f"expected {mirror(module).relative_to(ROOT)}"
