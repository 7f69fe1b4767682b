"""The console as it is served: to whom, with which headers; and that browsers only read."""

from __future__ import annotations

import configparser
import fnmatch
import json
import re
from pathlib import Path

import pytest
from rpc_fake_admin import STATUS
from rpc_memory import CALLER, Memory

from broker.rpc import console
from broker.rpc.catalogue import METHODS
from broker.rpc.errors import RpcError

ROOT = Path(__file__).parents[2]
FILES = ROOT / "broker" / "console"
SCRIPTS = sorted(FILES.rglob("*.js"))
WRITES = sorted(method.name for method in METHODS if method.writes)
SAME = b"Sec-Fetch-Site: same-origin\r\n"


def get(path, headers=b"", memory=None):
    """Status, headers and body of a GET."""
    memory = memory or Memory()
    memory.send(b"GET %b HTTP/1.1\r\nHost: localhost\r\n%b\r\n" % (path, headers))
    head, _, body = memory.transport.value().partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    fields = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    return int(first.split()[1]), fields, body


def post(name, headers):
    memory = Memory()
    memory.send(
        b"POST /v1/%b HTTP/1.1\r\nHost: broker:7443\r\nContent-Type: application/json\r\n"
        b"%bContent-Length: 2\r\n\r\n{}" % (name.encode(), headers)
    )
    return memory, *memory.answer()


def test_every_file_is_served_with_headers_that_let_it_load_nothing_else():
    for path, asset in console.assets().items():
        status, fields, body = get(path)
        assert (status, body) == (200, asset.body)
        policy = fields["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; ")
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert "require-trusted-types-for 'script'" in policy
        assert fields["x-content-type-options"] == "nosniff"
        assert fields["cross-origin-resource-policy"] == "same-origin"
        assert fields["content-type"] == asset.kind.decode()


def test_a_browser_keeps_what_its_address_names_by_content_and_asks_for_the_page_again():
    _, fields, page = get(console.HOME)
    assert fields["cache-control"] == "no-store"
    named = re.findall(rb'(?:href|src)="(.*?)"', page)
    assert len(named) >= 6
    for path in named:
        assert re.fullmatch(rb"/console/[0-9a-f]{16}/[a-z/]+\.(css|js|svg)", path)
        status, fields, _ = get(path)
        assert (status, fields["cache-control"]) == (200, "private, max-age=31536000, immutable")


@pytest.mark.parametrize("path", [b"/", b"/console"])
def test_the_bare_address_leads_to_the_console(path):
    status, fields, _ = get(path)
    assert (status, fields["location"]) == (302, "/console/")


@pytest.mark.parametrize(
    "path", [b"/console/nosuch.js", b"/console/../rpc/http.py", b"/console/%2e%2e/x", b"/console/?"]
)
def test_nothing_but_the_consoles_files_is_served(path):
    assert get(path)[0] == 400


def test_the_console_is_told_who_its_reader_is():
    _, fields, body = get(console.CALLER)
    assert json.loads(body) == {"subject": CALLER.subject, "role": CALLER.role}
    assert "access-control-allow-origin" not in fields


def test_whoever_has_no_certificate_that_counts_gets_no_page():
    def nobody(_):
        raise RpcError("denied", "no certificate was shown")

    for path in (*console.assets(), console.CALLER):
        status, _, body = get(path, memory=Memory(identify=nobody))
        assert status == 403
        assert b"no certificate was shown" in body


def test_the_console_reads():
    _, status, body = post("status", SAME + b"Origin: https://broker:7443\r\n")
    assert status == 200
    assert body["result"]["journal_seq"] == STATUS.journal_seq


@pytest.mark.parametrize(
    "headers",
    [
        b"Sec-Fetch-Site: cross-site\r\n",
        b"Sec-Fetch-Site: same-site\r\n",
        b"Sec-Fetch-Site: none\r\n",
        b"Sec-Fetch-Site: cross-site\r\nOrigin: https://broker:7443\r\n",
        b"Origin: https://evil.example\r\n",
        b"Origin: http://broker:7443\r\n",
        b"Origin: null\r\n",
    ],
)
def test_what_another_site_makes_a_browser_call_is_refused_and_written_down(headers):
    memory, status, body = post("status", headers)
    assert status == 403
    assert "another site" in body["error"]["message"]
    assert memory.admin.calls == []
    assert any("another site" in words for words in memory.admin.away)


def test_a_browser_is_never_let_ask_first_whether_another_site_may():
    memory = Memory()
    memory.send(
        b"OPTIONS /v1/status HTTP/1.1\r\nHost: broker:7443\r\nOrigin: https://evil.example\r\n"
        b"Access-Control-Request-Method: POST\r\n\r\n"
    )
    assert b"access-control" not in memory.transport.value().lower()
    assert memory.answer()[0] == 400


@pytest.mark.parametrize("name", WRITES)
@pytest.mark.parametrize("headers", [SAME, b"Origin: https://broker:7443\r\n"])
def test_a_browser_changes_nothing_not_even_from_the_console(name, headers):
    memory, status, body = post(name, headers)
    assert status == 403
    assert "browsers only read" in body["error"]["message"]
    assert memory.admin.calls == []


# What the files hold


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_writes_no_markup_and_loads_nothing_from_outside(script):
    text = script.read_text()
    for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(",
                 "new Function", "srcdoc", "DOMParser", "javascript:", "import("):  # fmt: skip
        assert word not in text
    assert set(re.findall(r"https?://[^\"'`\s]*", text)) <= {"http://www.w3.org/2000/svg"}
    for name in re.findall(r'^import .* from "(.*)";$', text, re.MULTILINE):
        assert (script.parent / name).is_file()


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_calls_only_methods_that_there_are_and_that_read(script):
    called = re.findall(r'(?:call|follow|#ask)\("([a-z.]+)"', script.read_text())
    for name in called:
        assert not METHODS[name].writes


def test_the_page_has_nothing_inline():
    page = (FILES / "index.html").read_text()
    assert not re.findall(r"<style|\son\w+=|style=|<script(?![^>]*\ssrc=)", page)
    assert not re.findall(r"https?:", page)


def test_every_file_is_in_the_package():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    patterns = config["options.package_data"]["broker.console"].split(", ")
    served = {path.decode().split("/", 3)[-1] for path in console.assets()}
    for file in FILES.rglob("*"):
        name = file.relative_to(FILES).as_posix()
        if file.is_dir() or file.suffix in (".py", ".pyc"):
            continue
        folder = name.rpartition("/")[0]
        assert any(
            fnmatch.fnmatch(name, it) and it.rpartition("/")[0] == folder for it in patterns
        ), name
        assert ("" if name == "index.html" else name) in served
