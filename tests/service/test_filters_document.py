"""docs/filters.md: its files are written, its commands run, and they print what stands there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import pytest_twisted
from broker_host import until, uuid_of

from broker.filters.fields import FIELDS
from broker.filters.model import VariableType

DOCUMENT = Path(__file__).parents[2] / "docs/filters.md"
BLOCK = re.compile(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def session():
    """The commands, each with what is printed after it."""
    steps = []
    for kind, _, text in BLOCK.findall(DOCUMENT.read_text()):
        for line in text.splitlines() if kind == "console" else ():
            if line.startswith("$ brokerctl "):
                steps.append((line.removeprefix("$ brokerctl "), []))
            else:
                steps[-1][1].append(line)
    return steps


@pytest.mark.parametrize("store_daemon", ["embedded"], indirect=True)
@pytest_twisted.ensureDeferred
async def test_the_worked_example_does_what_it_says(host, box, ctl, tmp_path, monkeypatch):
    for _, name, text in BLOCK.findall(DOCUMENT.read_text()):
        if name:
            (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    await box.start()
    host.create(3, name="web1")
    box.label(uuid_of(3), "plain")
    channel = host.vif(3)
    host.report(channel)
    await host.decided(channel, "grant")
    await until(lambda: box.engine.mirror.domains[3].name == "web1")
    steps = session()
    assert steps
    for command, wanted in steps:
        _, out, err = await ctl(*shlex.split(command))
        assert [line.rstrip() for line in (out + err).splitlines()] == wanted, command


def test_every_field_and_every_type_of_variable_is_documented():
    text = DOCUMENT.read_text()
    missing = [name for name in FIELDS if f"`{name}`" not in text]
    missing += [kind for kind in VariableType.__args__ if f"`{kind}`" not in text]
    assert missing == []
