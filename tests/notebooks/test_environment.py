"""One list of dependencies, one list of versions, and no address in either."""

import re
import tomllib
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONSTRAINTS = (ROOT / "constraints.txt").read_text().splitlines()


def _pins() -> dict[str, list[str]]:
    """Name -> the versions pinned for it, one for each marker."""
    pins: dict[str, list[str]] = {}
    for requirement in map(Requirement, CONSTRAINTS):
        (specifier,) = requirement.specifier
        assert specifier.operator == "=="
        pins.setdefault(canonicalize_name(requirement.name), []).append(specifier.version)
    return pins


def test_constraints_hold_names_and_versions_only() -> None:
    assert CONSTRAINTS
    assert [line for line in CONSTRAINTS if not re.fullmatch(r"[\w.-]+==[\w.!+]+( ; [\w.'\" =<>!()*]+)?", line)] == []


def test_every_direct_dependency_is_pinned_in_its_range() -> None:
    extras = PROJECT["optional-dependencies"]
    pins = _pins()
    for requirement in map(Requirement, PROJECT["dependencies"] + extras["book"] + extras["test"]):
        versions = pins[canonicalize_name(requirement.name)]
        assert all(requirement.specifier.contains(version) for version in versions), requirement


def test_no_pytorch_at_run_time() -> None:
    assert "torch" not in _pins()


def test_conda_installs_the_same_package_with_the_same_pins() -> None:
    *conda, pip = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    makefile = (ROOT / "Makefile").read_text()
    assert pip == {"pip": ["-c constraints.txt", "-e .[book,test]"]}
    assert makefile.count("-c constraints.txt -e '.[book,test]'") == 2
    python = next(entry.partition("=")[2] for entry in conda if entry.startswith("python="))
    assert Requirement(f"python{PROJECT['requires-python']}").specifier.contains(python)
