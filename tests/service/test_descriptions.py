"""Which descriptions brokerd reads at its start, and which at their first use."""

import hashlib
from pathlib import Path

import pytest

from broker.service.specs import CHECKED, checked_lines, load_descriptions
from broker.text.problems import ProblemsError

SHIPPED = Path(__file__).parents[2] / "protocol_specs"


@pytest.fixture
def directory(tmp_path):
    """Two good descriptions."""
    for name in ("vif", "vbd"):
        (tmp_path / f"{name}.yaml").write_bytes((SHIPPED / f"{name}.yaml").read_bytes())
    return tmp_path


def seen(directory):
    """What is known of descriptions before and after they are used."""
    return {
        name: (it.digest, it.monitor().rule_names())
        for name, it in load_descriptions(directory).items()
    }


def test_checked_ones_are_what_they_are_without_being_checked(directory):
    before = seen(directory)
    (directory / CHECKED).write_text(checked_lines(directory))
    assert sorted(before) == ["vbd", "vif"]
    assert seen(directory) == before


def test_a_description_has_one_monitor(directory):
    vif = load_descriptions(directory)["vif"]
    assert vif.monitor() is vif.monitor()


def test_a_checked_one_is_read_at_its_first_use_only(directory):
    data = b"protocol: none\n"
    (directory / "none.yaml").write_bytes(data)
    (directory / CHECKED).write_text(f"sha256:{hashlib.sha256(data).hexdigest()} none\n")
    none = load_descriptions(directory)["none"]
    with pytest.raises(ProblemsError):
        none.monitor()


@pytest.mark.parametrize("said", ["", "nonsense", "\xe9", "a b c", None])
def test_one_that_is_not_listed_by_its_bytes_is_read_at_once(directory, said):
    lines = checked_lines(directory) if said is None else said
    (directory / CHECKED).write_bytes(lines.encode("latin-1"))
    with (directory / "vif.yaml").open("ab") as file:
        file.write(b"nothing: good\n")
    with pytest.raises(ProblemsError, match=r"vif\.yaml"):
        load_descriptions(directory)


def test_descriptions_that_are_not_good_are_not_called_checked(directory):
    (directory / "vif.yaml").write_bytes(b"protocol: vif\n")
    with pytest.raises(ProblemsError):
        checked_lines(directory)
