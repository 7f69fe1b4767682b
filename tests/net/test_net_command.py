"""brokerctl net: what it shows of a bridge, and its exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest
from net_rig import OBSERVER, delivered, frame_for, teach

from broker.cli.main import main
from broker.net import report
from broker.net.label_ids import label_id
from broker.net.libnftables import Libnftables
from broker.net.report import Report, ReportedPort
from broker.net.trace import Tracer

pytestmark = pytest.mark.root


LABELS = {label_id(name): name for name in ("red", "blue", "watch")}


@pytest.fixture
def bed(labelled, tmp_path):
    rig = labelled()
    one, two = rig.net.add("vif1.0", "vif2.0")
    (observer,) = rig.net.add(OBSERVER)
    ports = [
        rig.port(one, 1, label=label_id("red")),
        rig.port(two, 2, label=label_id("blue")),
        rig.port(observer, 3),
    ]
    rig.enforcer.start(rig.target(ports, {(1, 3), (3, 1), (2, 3), (3, 2)}))
    teach([one, two, observer])
    for _ in range(4):
        one.send(frame_for("ipv4", one, two))
    delivered([one], observer, [(one, frame_for("ipv4", one, observer))])
    classes = {1: ("red", "pink"), 2: ("blue",), 3: ("watch",)}
    reported = tuple(
        ReportedPort(g.port, g.index, label, "br0") for g, label in ((one, "red"), (two, "blue"))
    )
    path = tmp_path / "net.json"
    path.write_bytes(report.encode(Report(reported, classes, LABELS)))
    return rig, path, reported, classes


def brokerctl(rig, capsys, *arguments):
    with rig.net.host.entered():
        code = main(["net", *map(str, arguments)])
    return code, capsys.readouterr()


def test_show_tells_ports_with_labels_and_refusals_by_label(bed, capsys):
    rig, path, _, _ = bed
    code, said = brokerctl(rig, capsys, "show", "--report", path, "--json")
    values = [json.loads(line) for line in said.out.splitlines()]
    assert code == 0
    assert {v["name"]: (v["label"], v["open"]) for v in values if "name" in v} == {
        "vif1.0": ("red", True),
        "vif2.0": ("blue", True),
    }
    refused = {(v["from"], v["to"]): v["packets"] for v in values if "from" in v}
    assert refused["red", "blue"] >= 4
    code, said = brokerctl(rig, capsys, "show", "--report", path)
    assert code == 0
    assert "vif1.0" in said.out
    assert "blue" in said.out


def test_a_port_that_the_kernel_does_not_have_is_shown_as_closed(bed, capsys):
    rig, path, reported, classes = bed
    ghost = ReportedPort("vif9.0", 4242, "red", "br0")
    path.write_bytes(report.encode(Report((*reported, ghost), classes)))
    code, said = brokerctl(rig, capsys, "show", "--report", path)
    assert code == 1
    assert "closed: not in the kernel" in said.out


@pytest.mark.parametrize("content", [None, b"{", b'{"ports": 5}'])
def test_without_the_agents_report_show_answers_three(bed, capsys, content):
    rig, path, _, _ = bed
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    code, said = brokerctl(rig, capsys, "show", "--report", path)
    assert code == 3
    assert "is the agent running?" in said.err


def test_trace_ends_in_time_and_leaves_nothing(bed, capsys):
    rig, *_ = bed
    code, said = brokerctl(rig, capsys, "trace", "vif1.0", "vif2.0", "--seconds", "0.1")
    assert (code, said.out) == (0, "")
    assert "xpb_trace" not in rig.net.host.listing("tables")


def test_a_trace_that_nobody_ends_ends_in_the_kernel(bed):
    rig, *_ = bed
    with rig.net.host.entered():
        nft = Libnftables()
    one, two = rig.net.all["vif1.0"], rig.net.all["vif2.0"]
    with rig.net.host.entered():
        Tracer(nft, one.index, two.index, 0.2)
    end = time.monotonic() + 10
    while "elements" in rig.net.host.listing("set", "bridge", "xpb_trace", "pair"):
        assert time.monotonic() < end
    with rig.net.host.entered():
        Tracer(nft, one.index, two.index, 60)
        Tracer(nft, two.index, one.index, 60)  # another beside what a killed one left
    shown = rig.net.host.listing("table", "bridge", "xpb_trace")
    assert shown.count("expires") == shown.count("nftrace set 1") == 1


@pytest.mark.parametrize("name", ["vif9.0", "no such; thing"])
def test_tracing_what_is_no_interface_is_bad_input(bed, capsys, name):
    rig, *_ = bed
    code, said = brokerctl(rig, capsys, "trace", "vif1.0", name)
    assert code == 2
    assert "interface" in said.err


def test_a_trace_is_bounded(bed, capsys):
    rig, *_ = bed
    with pytest.raises(SystemExit) as ended:
        brokerctl(rig, capsys, "trace", "vif1.0", "vif2.0", "--seconds", "61")
    assert ended.value.code == 2


def test_trace_tells_the_steps_of_a_frame(bed):
    rig, *_ = bed
    one, two = rig.net.all["vif1.0"], rig.net.all["vif2.0"]
    program = (
        "import sys; from broker.cli.main import main;"
        "sys.exit(main(['net', 'trace', 'vif1.0', 'vif2.0', '--seconds', '1.5']))"
    )
    command = ["ip", "netns", "exec", rig.net.host.name, sys.executable, "-c", program]
    tracing = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    while "xpb_trace" not in rig.net.host.listing("tables"):
        assert tracing.poll() is None
    said = ""
    while tracing.poll() is None and "refuse" not in said:
        one.send(frame_for("ipv4", one, two))
        said += tracing.stdout.readline()
    said += tracing.communicate()[0]
    assert tracing.returncode == 0
    assert f"{one.mac} > {two.mac} IPv4" in said
    assert "refuse: rule drop" in said
