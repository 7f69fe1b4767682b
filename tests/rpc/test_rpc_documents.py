"""What is made from the method table: the OpenAPI document, the reference page, commands."""

from __future__ import annotations

import json
import shlex
import subprocess
from pathlib import Path
from typing import Literal

import msgspec
import pytest
from rpc_fake_admin import FakeAdmin
from rpc_memory import Memory, refused

from broker.cli import generic, groups
from broker.cli import main as brokerctl
from broker.rpc import openapi
from broker.rpc.catalogue import METHODS
from broker.rpc.client import Lagged
from broker.rpc.errors import CODES
from broker.rpc.reference import documents
from broker.rpc.table import Arguments, Method, Table

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("name", ["openapi.json", "rpc.md"])
def test_the_documents_in_docs_are_those_of_the_table(name):
    made = documents(METHODS)[name]
    assert (DOCS / name).read_bytes() == made, "run: python -m broker.rpc.reference docs"


def references(value):
    if isinstance(value, dict):
        for key, part in value.items():
            if key == "$ref":
                yield part
            else:
                yield from references(part)
    elif isinstance(value, list):
        for part in value:
            yield from references(part)


def test_the_openapi_document_has_every_method_and_every_reference_leads_somewhere():
    document = openapi.document(METHODS)
    assert document["openapi"].startswith("3.1.")
    assert set(document["paths"]) == {f"/v1/{method.name}" for method in METHODS}
    for reference in set(references(document)):
        found = document
        for part in reference.removeprefix("#/").split("/"):
            found = found[part]
    for method in METHODS:
        operation = document["paths"][f"/v1/{method.name}"]["post"]
        assert operation["x-writes"] == method.writes
        assert f"`{method.verb}`" in operation["description"]
    codes = document["components"]["schemas"]["_Refusal"]["properties"]["code"]["enum"]
    assert set(codes) == CODES


def test_the_document_is_answered_to_whoever_is_let_in():
    memory = Memory()
    memory.send(b"GET /openapi.json HTTP/1.1\r\n\r\n")
    assert memory.answer() == (200, json.loads(openapi.text(METHODS)))


@pytest.mark.parametrize("head", [b"A" * 1100, b"a b\r\n\r\n", b"POST / HTTP/1.1\r\n: x\r\n\r\n"])
def test_a_malformed_head_is_answered_in_json(head):
    memory = Memory()
    memory.send(head + b"\r\n\r\n")
    refused(memory.answer(), 400, "bad_request", "malformed")
    assert memory.transport.disconnecting


class Prod(Arguments, frozen=True, kw_only=True, rename={"how_hard": "how-hard"}):
    """Arguments of every kind."""

    who: str
    how_hard: Literal["soft", "hard"] | None = None
    times: int | None = None
    twice: bool = False


class Prodded(msgspec.Struct, frozen=True, kw_only=True):
    """A result with parts."""

    who: str
    marks: tuple[str, ...]
    more: dict[str, int]


PROD = Method(
    name="thing.prod",
    arguments=Prod,
    result=Prodded,
    verb="thing.prod",
    object="broker",
    writes=True,
    help="prod a thing",
    example="brokerctl thing prod web1",
)


class FakeClient:
    def __init__(self):
        self.calls = []

    def call(self, name, arguments):
        self.calls.append((name, arguments))
        return Prodded(who="a\x1b", marks=("x", "y"), more={"n": 1})

    def stream(self, name, arguments):
        self.calls.append((name, arguments))
        yield Lagged(lost=3)
        yield Prodded(who="a", marks=(), more={})


@pytest.fixture
def prod(monkeypatch):
    """The whole command line, with a method that nobody wrote a command for."""

    def command(*words, method=PROD):
        table = Table([*METHODS, method])
        monkeypatch.setattr(generic, "METHODS", table)
        monkeypatch.setattr("broker.cli.client.METHODS", table)
        client = FakeClient()
        monkeypatch.setattr("broker.cli.client.connect", lambda _: client)
        return brokerctl.main(["thing", "prod", *words]), client.calls

    return command


def test_a_method_without_a_command_has_one_made_from_the_table(prod, capsys):
    code, calls = prod("web1", "--how-hard", "hard", "--times", "3", "--twice")
    assert code == 0
    assert calls == [("thing.prod", Prod(who="web1", how_hard="hard", times=3, twice=True))]
    assert capsys.readouterr().out.split() == [
        *("who", "a\\x1b", "marks.0", "x", "marks.1", "y", "more.n", "1")
    ]
    assert prod("web1")[1] == [("thing.prod", Prod(who="web1"))]


def test_a_made_command_writes_json_and_streams(prod, capsys):
    prod("web1", "--json")
    assert json.loads(capsys.readouterr().out)["marks"] == ["x", "y"]
    prod("web1", method=msgspec.structs.replace(PROD, stream=True))
    captured = capsys.readouterr()
    assert "3 events lost" in captured.err
    assert json.loads(captured.out)["who"] == "a"


def test_a_made_command_knows_what_may_be_said(prod, capsys):
    with pytest.raises(SystemExit) as stopped:
        prod("web1", "--how-hard", "gently")
    assert stopped.value.code == 2
    assert "soft" in capsys.readouterr().err


def leaves(commands):
    for parser in commands.choices.values():
        if parser.commands is None:
            yield parser
        else:
            yield from leaves(parser.commands)


def test_every_method_has_one_command_and_that_takes_its_example():
    parser = brokerctl.build_parser()
    commands = list(leaves(groups.subcommands(parser)))
    assert len({it.description for it in commands}) == len(commands)
    for method in METHODS:
        words = shlex.split(method.example.partition(">")[0])
        shown = f"{' '.join(words)} "
        assert len([it for it in commands if shown.startswith(f"{it.prog} ")]) == 1
        parser.parse_args(words[1:])


def completed(script, *words):
    """What bash offers after these words."""
    line = " ".join(f"'{word}'" for word in words)
    code = f"{script}\nCOMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; _brokerctl\n"
    code += 'printf "%s\\n" "${COMPREPLY[@]}"\n'
    answer = subprocess.run(
        ["/bin/bash", "--norc", "-c", code], capture_output=True, text=True, check=True
    )
    assert not answer.stderr
    return answer.stdout.split()


def test_bash_completes_commands_options_and_choices(capsys):
    assert brokerctl.main(["completion", "bash"]) == 0
    script = capsys.readouterr().out
    assert {"status", "channel", "policy"} <= set(completed(script, "brokerctl", ""))
    assert completed(script, "brokerctl", "chan") == ["channel"]
    assert {"list", "explain"} <= set(completed(script, "brokerctl", "channel", ""))
    assert completed(script, "brokerctl", "channel", "list", "--ve") == ["--verdict"]
    assert "deny" in completed(script, "brokerctl", "channel", "list", "--verdict", "d")


def test_zsh_is_given_the_same_commands(capsys):
    assert brokerctl.main(["completion", "zsh"]) == 0
    script = capsys.readouterr().out
    assert script.startswith("#compdef brokerctl\n")
    assert "' channel' 'list explain watch" in script


def test_the_fake_has_what_the_table_has():
    for method in METHODS:
        assert callable(getattr(FakeAdmin, method.handler))
