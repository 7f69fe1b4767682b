"""An operator's hour with brokerctl: text in 80 columns and JSON lines, also of hostile names."""

from __future__ import annotations

import json
import os
import signal
import subprocess

import pytest
import pytest_twisted
from support.product import BIN, POLICY, mac, until, uuid_of

from broker.sim.toolstack import vbd, vif

run = pytest_twisted.ensureDeferred
BLUE = "/dev/vg/blue-1"


def lines(text):
    return [json.loads(line) for line in text.splitlines()]


@run
async def test_an_operator_labels_by_name_looks_explains_and_unlabels(product):
    domain = await product.create(vif(0, mac(1, 0)), vbd(51712, BLUE), name="web1")
    assert product.ctl("label", "get", "web1")[0] == 1
    code, text = product.ctl("label", "set", "web1", "red")
    assert (code, "red" in text) == (0, True)
    await product.comes_to(domain, domain.devices[0], "grant")
    denied = await product.comes_to(domain, domain.devices[1], "deny")
    assert product.ctl("label", "get", "web1") == (0, "red\n")
    assert product.ctl("channel", "explain", "vif/web1/0")[0] == 0
    code, text = product.ctl("channel", "explain", f"vbd/{domain.domid}/51712")
    assert code == 1
    assert denied.reason.split(";")[0][:30] in " ".join(text.split())
    code, text = product.ctl("channel", "explain", "vbd/web1/51712", json=True)
    (told,) = lines(text)
    assert (code, told["channel"]["verdict"]) == (1, "deny")
    code, text = product.ctl("channel", "list", "--domain", "web1", json=True)
    assert {it["class"]: it["verdict"] for it in lines(text)} == {"vif": "grant", "vbd": "deny"}
    assert product.ctl("label", "rm", "web1")[0] == 0
    await product.comes_to(domain, domain.devices[0], "deny", "unlabelled")


@run
async def test_everything_fits_into_80_columns(product):
    domain = await product.create(
        vif(0, mac(1, 0)), vbd(51712, BLUE), label="red", name="a-rather-long-name-of-a-domain"
    )
    for device, verdict in zip(domain.devices, ("grant", "deny"), strict=True):
        await product.comes_to(domain, device, verdict)
    for words in (
        ("status",),
        ("domain", "list"),
        ("domain", "list", "--long"),
        ("label", "list"),
        ("channel", "list"),
    ):
        _, text = product.ctl(*words)
        wide = [line for line in text.splitlines() if len(line) > 80 and " " in line.strip()]
        assert not wide, f"{words}: {wide}"


@run
@pytest.mark.parametrize(
    "name", [b"\x1b]0;owned\x07", b"\xff\xfe", b"a\nb", "ü".encode(), b"x" * 900]
)
async def test_a_hostile_name_reaches_no_terminal_and_names_nobody_else(product, name):
    domain = await product.create(vif(0, mac(1, 0)))
    product.client.write(f"/vm/{domain.uuid}/name", name)
    product.client.write(f"/local/domain/{domain.domid}/name", name)
    await product.fence()
    for words in (("domain", "list"), ("channel", "list"), ("label", "list"), ("status",)):
        assert product.ctl(*words)[0] == 0
        lines(product.ctl(*words, json=True)[1])
    assert product.ctl("label", "set", str(domain.domid), "red")[0] == 0
    await product.comes_to(domain, domain.devices[0], "grant")
    (told,) = [
        it
        for it in lines(product.ctl("domain", "list", json=True)[1])
        if it["domid"] == domain.domid
    ]
    assert told["uuid"] == uuid_of(domain.domid)


def watch(product):
    """`brokerctl channel watch` into the file `watch`; it minds Ctrl-C even where we do not."""
    words = ["env", "--default-signal=INT", BIN / "brokerctl"]
    words += ["--socket", product.socket, "--json", "channel", "watch"]
    with (product.directory / "watch").open("wb") as out:
        return subprocess.Popen(
            words,
            stdout=out,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )


@run
async def test_a_watcher_sees_each_decision_its_enforcement_and_the_end(product):
    watching = watch(product)
    try:
        domain = await product.create(vif(0, mac(1, 0)), label="red")
        nic = domain.devices[0]

        def events():
            text = (product.directory / "watch").read_bytes().rpartition(b"\n")[0]
            return [(it["event"], it["channel"]["verdict"]) for it in lines(text)]

        seen = None
        for label in ("jailed", "red") * 20:
            product.label(domain, label)
            await product.comes_to(domain, nic, {"red": "grant", "jailed": "deny"}[label])
            if seen is None and events():
                seen = len(events())
            elif seen is not None and len(events()) > seen + 3:
                break
        await until(lambda: ("decision", "deny") in events(), "a denial in the stream")
        await until(lambda: ("report", "grant") in events(), "its enforcement in the stream")
        await product.destroy(domain)
        await until(lambda: "gone" in dict(events()), "the end in the stream")
        watching.send_signal(signal.SIGINT)
        assert watching.wait(10) == 130
    finally:
        if watching.poll() is None:
            watching.kill()
            watching.wait()


@run
async def test_a_policy_is_tried_then_loaded_and_a_bad_one_is_told_line_by_line(product):
    domain = await product.create(vif(0, mac(1, 0)), label="red")
    await product.comes_to(domain, domain.devices[0], "grant")
    file = product.directory / "next.yaml"
    file.write_text(POLICY.replace('"1.0"', '"1.1"').replace("frontend: jailed", "frontend: any"))
    code, text = product.ctl("policy", "load", "--dry-run", str(file))
    assert (code, f"vif/{domain.domid}/0" in text) == (0, True)
    assert product.is_open(domain, domain.devices[0])
    bad = product.directory / "bad.yaml"
    bad.write_text(POLICY.replace("frontend: jailed", "frontend: nosuch\x7f"))
    code, text = product.ctl("policy", "load", str(bad))
    assert code == 2
    assert "bad.yaml:" in text
    code, text = product.ctl("policy", "load", "--replaces", "sha256:" + "0" * 64, str(file))
    assert code == 1, text
    assert product.status().policy.version == "1.0"


def test_without_a_broker_every_command_says_so(tmp_path):
    for words in (("status",), ("domain", "list"), ("channel", "watch"), ("label", "list")):
        done = subprocess.run(
            [BIN / "brokerctl", "--socket", tmp_path / "none", *words],
            capture_output=True,
            check=False,
            timeout=20,
        )
        assert done.returncode == 3
        assert b"cannot reach the broker" in done.stderr
