"""brokerctl filter: what is asked of the broker, what is shown, with which exit."""

from __future__ import annotations

import json
import struct

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.threads import deferToThread

from broker.cli import main as brokerctl


@pytest.fixture
def run(serve, capfd):
    """Runs brokerctl on a served socket and answers exit code, standard output and error."""
    path = serve()

    async def start(*words):
        words = ["--socket", str(path), "filter", *map(str, words)]
        code = await deferToThread(brokerctl.main, words)
        out, err = capfd.readouterr()
        return code, out, err

    return start


@ensureDeferred
async def test_profiles_are_listed_and_written_out_byte_for_byte(run):
    code, out, _ = await run("list")
    assert code == 0
    assert out.splitlines()[1].split() == [
        *("clean-traffic", "shipped", "1"),
        *("a", "guest", "sends", "as", "itself", "alone"),
    ]
    code, out, err = await run("dump", "web-only")
    assert (code, out) == (0, "profile: web-only\n")
    assert "sha256:abab" in err
    assert json.loads((await run("dump", "--json", "web-only"))[1])["shipped"] is False


@ensureDeferred
async def test_a_file_is_stored_and_put_in_a_profiles_place(run, admin, tmp_path):
    file = tmp_path / "web-only.yaml"
    file.write_text("profile: web-only\n")
    code, out, _ = await run("create", file)
    assert (code, out) == (0, "web-only: stored, on 3 vifs now\n")
    assert admin.calls[-1][2].text == "profile: web-only\n"
    digest = "sha256:" + "cd" * 32
    code, out, _ = await run("update", file, "--replaces", digest, "--dry-run")
    assert (code, out) == (0, "web-only: would be updated, on 3 vifs now\n")
    asked = admin.calls[-1][2]
    assert (asked.replaces, asked.dry_run, asked.source) == (digest, True, str(file))
    file.write_bytes(b"\xff")
    assert (await run("create", file))[0] == 2
    assert (await run("create", tmp_path / "none"))[0] == 2


@ensureDeferred
async def test_what_was_edited_replaces_what_was_shown_and_nothing_else(run, admin, monkeypatch):
    monkeypatch.setenv("VISUAL", "sed -i s/web-only/web-too/")
    code, out, _ = await run("edit", "web-only")
    assert (code, out) == (0, "web-only: updated, on 3 vifs now\n")
    asked = admin.calls[-1][2]
    assert (asked.text, asked.replaces) == ("profile: web-too\n", "sha256:" + "ab" * 32)
    monkeypatch.setenv("VISUAL", "false")
    code, _, err = await run("edit", "web-only")
    assert code == 2
    assert "the editor ended with 1" in err


@ensureDeferred
async def test_a_profile_is_destroyed(run):
    assert (await run("destroy", "web-only"))[:2] == (0, "web-only: destroyed, on 0 vifs now\n")


@ensureDeferred
async def test_a_profile_is_attached_with_its_variables(run, admin):
    words = ("web1", "clean-traffic", "--vif", "1", "--set", "IP=10.0.0.5,10.0.0.6")
    code, out, _ = await run("attach", *words, "--set", "GATEWAY=10.0.0.1")
    assert (code, out) == (0, "clean-traffic: attached; 1 vifs of it run\n")
    asked = admin.calls[-1][2]
    assert (asked.domain, asked.profile, asked.device) == ("web1", "clean-traffic", "1")
    assert asked.given == {"IP": ("10.0.0.5", "10.0.0.6"), "GATEWAY": ("10.0.0.1",)}
    assert (await run("detach", "web1", "clean-traffic"))[0] == 0
    assert admin.calls[-1][2].device is None
    code, _, err = await run("attach", "web1", "clean-traffic", "--set", "IP")
    assert code == 2
    assert "NAME=VALUE" in err


@ensureDeferred
async def test_attachments_are_shown_escaped(run):
    code, out, _ = await run("attached")
    assert code == 0
    assert "name:web1\\x1b" in out
    assert "IP=10.0.0.5,10.0.0.6" in out
    assert "\x1b" not in out


@ensureDeferred
async def test_vifs_with_profiles_are_shown_escaped_with_why_one_is_closed(run):
    code, out, _ = await run("vifs")
    assert code == 0
    assert "web1\\x1b/0" in out
    assert "MAC=00:16:3e:00:00:03" in out
    assert "10.0.0.5 is bound" in out
    code, out, _ = await run("vifs", "--json")
    assert json.loads(out)["frontend_name"] == "web1\x1b"


@ensureDeferred
async def test_what_rules_decided_and_addresses_learned_are_shown_and_what_did_not_fit(run):
    code, out, _ = await run("counts")
    assert code == 0
    for words in ("clean-traffic/1", "840", "web1\\x1b/0", "10.0.0.5", "1970-01-01 00:01 UTC"):
        assert words in out
    assert "and 2 rules and 1 addresses more of domain 0" in out
    code, out, _ = await run("counts", "--json")
    assert json.loads(out)["omitted_rules"] == 2


@ensureDeferred
async def test_a_vif_that_cannot_have_its_filters_is_exit_1(run):
    code, out, _ = await run("show", "web1")
    assert code == 0
    assert "clean-traffic (corp.yaml:9:3)" in out
    assert "learned by DHCP" in out
    code, out, _ = await run("show", "web1", "--vif", "1")
    assert code == 1
    assert "bound already" in out


def capture(*frames, link=1):
    head = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, link)
    return head + b"".join(struct.pack("<IIII", 0, 0, len(it), len(it)) + it for it in frames)


@ensureDeferred
async def test_frames_are_tried_from_digits_and_from_captures(run, admin, tmp_path):
    code, out, _ = await run("test", "ff00", "--vif", "web1/1", "--state", "related")
    assert code == 0
    assert out == "accept by clean-traffic/1 (clean-traffic.yaml:9:5): a frame\\x1b\n"
    asked = admin.calls[-1][2]
    assert (asked.domain, asked.device, asked.state) == ("web1", "1", "related")
    file = tmp_path / "frames.pcap"
    file.write_bytes(capture(b"\xff\x01", b"\x00\x02"))
    code, out, _ = await run(
        "test", file, "--vif", "web1", "--direction", "to-guest", "--learned", "10.0.0.5"
    )
    assert code == 1
    assert [line.split()[0] for line in out.splitlines()] == ["accept", "drop"]
    assert "cannot be read" in out.splitlines()[1]
    asked = admin.calls[-1][2]
    assert (asked.device, asked.direction, asked.learned) == ("0", "to-guest", ("10.0.0.5",))
    hexadecimal = tmp_path / "frame.hex"
    hexadecimal.write_text("ff 00\nff 00\n")
    assert (await run("test", hexadecimal, "--vif", "web1"))[0] == 0
    assert admin.calls[-1][2].frame == "ff00ff00"


@ensureDeferred
async def test_where_the_verdict_depends_each_state_has_a_line(run, admin):
    code, out, _ = await run("test", "dd00", "--vif", "web1")
    assert code == 1
    assert admin.calls[-1][2].state is None
    assert out.splitlines() == [
        "depends on its connection's state: a frame",
        "  new: drop by p/default (p.yaml:3:1)",
        "  established: accept by p/1 (p.yaml:5:5); asked",
    ]


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        (b"no frame", "neither hex digits nor a capture"),
        (capture(b"", link=113), "link type 113"),
        (capture(b"1234")[:-1], "frame 1, at byte 24, is cut short"),
        (capture(b"12")[:30], "cut short at byte 24"),
        (capture(b"")[:20], "no capture"),
    ],
)
@ensureDeferred
async def test_what_is_no_frame_is_bad_input(run, admin, tmp_path, data, wanted):
    file = tmp_path / "frame"
    file.write_bytes(data)
    code, _, err = await run("test", file, "--vif", "web1")
    assert code == 2
    assert wanted in err
    assert admin.calls == []
