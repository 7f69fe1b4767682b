"""The metrics of a running broker: read by Prometheus' own parser, bounded, and what uses them."""

from __future__ import annotations

import json
import re
import socket
from itertools import product
from pathlib import Path
from typing import get_args

import pytest
import pytest_twisted
import yaml
from broker_host import until, uuid_of
from prometheus_client.parser import text_string_to_metric_families
from support.xenstoreds import start_store
from twisted.internet.threads import deferToThread

from broker.core.agent_report import AgentReport, encode_agent_report
from broker.core.channels import Decision
from broker.rpc import methods
from broker.rpc.admin import ROOT, Caller
from broker.service.exposing import MOST_DROPS
from broker.service.metrics import MOST_PAIRS, OTHER, Metrics
from broker.xenstore import paths

run = pytest_twisted.ensureDeferred
CALLER = Caller(subject="test", role=ROOT, person="test")
ETC = Path(__file__).parents[2] / "etc/prometheus"
PAIRS = list(product(("web_a", "web_b", "plain", "lonely", "driver"), repeat=2))
_METRIC = re.compile(r"\bxpb_[a-z_]+")


@pytest.fixture
def store_daemon():
    daemon = start_store("embedded")
    yield daemon
    daemon.stop()


async def scraped(box):
    """Every sample by its name and labels, and the text."""
    answer = await box.brokerd.admin.metrics(CALLER, methods.Nothing())
    found = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }
    return found, answer.text


async def busy(host, box):
    """A broker that has granted, denied and been confirmed; the channel that is granted."""
    host.create(3)
    await box.start()
    box.label(uuid_of(3), "web_a")
    vif = host.vif(3)
    life = host.report(vif)
    record = await host.decided(vif, "grant")
    line = f"open seq={record.seq} nonce={life.decode()} reason=-"
    host.client.write(f"{paths.report_dir(vif)}/enforced", line)
    vbd = host.vbd(3, params="/dev/vg/other")
    host.report(vbd)
    await host.decided(vbd, "deny")
    report = AgentReport(at=7, version="0.1.0", policy=None, beat=True, open=1, closed=1)
    host.client.write(paths.agent_path(0), encode_agent_report(report))
    drops = " ".join(
        f"{one}>{other}={100 - n}/6400" for n, (one, other) in enumerate(PAIRS[: MOST_DROPS + 5])
    )
    host.client.write(paths.drops_path(0), f"at=7 omitted=2 {drops}")
    await until(lambda: box.engine.metrics.confirm.count, "it is confirmed")
    await until(lambda: box.engine.mirror.untrusted_drops and box.engine.mirror.untrusted_agents)
    await box.brokerd.heartbeat.beat()
    return vif


@run
async def test_what_happened_is_counted(host, box):
    await busy(host, box)
    found, _ = await scraped(box)
    labels = (("backend_label", "SystemManagement"), ("class", "vif"), ("frontend_label", "web_a"))
    assert found["xpb_decisions_total", *labels, ("verdict", "grant")] == 1
    assert found["xpb_channels", ("verdict", "grant")] == 1
    assert found["xpb_channels", ("verdict", "deny")] == 1
    assert found["xpb_domains", ("status", "labelled")] == 2
    for stage in ("snapshot", "decide", "audit", "publish"):
        assert found["xpb_stage_seconds_count", ("stage", stage)] >= 2
    assert found["xpb_stage_seconds_count", ("stage", "confirm")] == 1
    assert found["xpb_store_round_trip_seconds_count",] >= 1
    assert found["xpb_audit_fdatasync_seconds_count",] >= 2
    assert found["xpb_audit_written_bytes_total",] > 100
    assert found["xpb_audit_writable",] == 1
    assert found["xpb_store_connected",] == 1
    assert found["xpb_phase", ("phase", "enforcing")] == 1
    assert found["xpb_health",] in (0, 1, 2)
    agent = (("backend", "0"), ("name", "Domain-0"))
    assert found["xpb_agent_gates", *agent, ("state", "closed")] == 1
    assert found["xpb_agent_hears_heartbeat", *agent] == 1
    assert found["xpb_agent_report_age_seconds", *agent] >= 0
    policy = box.engine.judge.policy
    info = (("digest", policy.digest), ("name", "corp"), ("version", "1.0"))
    assert found["xpb_policy_info", *info] == 1
    assert found["xpb_observe_mode",] == 0


@run
async def test_findings_are_there_by_kind_also_those_that_are_not(host, box):
    await busy(host, box)
    box.brokerd.audit.alarm("x", "odd")
    box.brokerd.audit.unrotated = "it grows"
    found, _ = await scraped(box)
    kinds = {key[1][1]: value for key, value in found.items() if key[0] == "xpb_finding"}
    assert set(kinds) == set(get_args(methods.FindingKind))
    assert (kinds["alarm"], kinds["audit_unrotated"], kinds["store_lost"]) == (1, 1, 0)
    assert found["xpb_health",] == 2
    assert found["xpb_alarms_total",] == 1


@run
async def test_violations_are_counted_by_rule_and_party_as_often_as_they_are_seen(host, box):
    await busy(host, box)
    device = next(it for it in box.engine.mirror.devices() if it.device_class == "vif")
    for _ in range(3):
        box.brokerd.audit.broke(device, 3, "frontend", "state.x", "it did")
    found, _ = await scraped(box)
    labels = (("class", "vif"), ("party", "frontend"), ("rule", "state.x"))
    assert found["xpb_violations_total", *labels] == 3


@run
async def test_refused_packets_are_bounded_and_say_what_is_left_out(host, box):
    await busy(host, box)
    found, _ = await scraped(box)
    assert sum(key[0] == "xpb_dropped_packets_total" for key in found) == MOST_DROPS
    agent = (("backend", "0"), ("name", "Domain-0"))
    assert found[
        "xpb_dropped_packets_total", agent[0], ("from", "web_a"), agent[1], ("to", "web_a")
    ]
    assert found["xpb_dropped_pairs_omitted", *agent] == 7


@run
async def test_an_agent_cannot_make_up_labels_or_break_a_scrape(host, box):
    await busy(host, box)
    said = "%FF>web_a=1/10 a1>web_a=2/20 web_a>%0A=4/40 web_a>web_b=8/80 web_a>web_b=16/160"
    box.engine.mirror.untrusted_drops[0] = f"at=8 omitted=0 {said} ->web_a=32/320".encode()
    found, text = await scraped(box)
    assert text.encode("utf-8")
    seen = {
        (dict(key[1:])["from"], dict(key[1:])["to"]): value
        for key, value in found.items()
        if key[0] == "xpb_dropped_packets_total"
    }
    assert seen == {
        (OTHER, "web_a"): 3, ("web_a", OTHER): 4, ("web_a", "web_b"): 24, ("-", "web_a"): 32
    }  # fmt: skip
    assert text.count("\nxpb_dropped_packets_total{") == 4


@run
async def test_a_domains_name_cannot_break_the_text(host, box):
    await busy(host, box)
    box.engine.mirror.domains[0].name = 'x"} 1\nxpb_health 0\n\x1b[2J'
    found, text = await scraped(box)
    assert sum(key[0] == "xpb_health" for key in found) == 1
    names = {dict(key[1:])["name"] for key in found if key[0] == "xpb_agent_channels"}
    assert names == {'x"} 1\nxpb_health 0\n\x1b[2J'}
    assert text.count("\nxpb_health ") == 1


def test_however_many_kinds_there_are_so_many_are_counted_apart():
    metrics = Metrics()
    for number in range(3 * MOST_PAIRS):
        labels = (f"l{number}", None)
        decision = Decision("deny", None, None, None, labels, None, None, None, "no")
        metrics.decided("vif", decision)
    assert len(metrics.decisions) == MOST_PAIRS + 1
    assert sum(metrics.decisions.values()) == 3 * MOST_PAIRS
    assert metrics.decisions[OTHER, "deny", OTHER, OTHER] == 2 * MOST_PAIRS
    assert metrics.decisions["vif", "deny", "l0", "-"] == 1


def asked(path, uri):
    """The whole answer to a GET on a unix socket."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(20)
        client.connect(str(path))
        client.sendall(f"GET {uri} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
        return b"".join(iter(lambda: client.recv(65536), b""))


@run
async def test_prometheus_gets_them_where_it_asks(host, box):
    await busy(host, box)
    answer = await deferToThread(asked, box.directory / "rpc.sock", "/metrics")
    head, _, text = answer.decode().partition("\r\n\r\n")
    assert head.split()[1] == "200"
    assert "text/plain; version=0.0.4" in head
    names = {family.name for family in text_string_to_metric_families(text)}
    assert {"xpb_health", "xpb_decisions", "xpb_stage_seconds"} <= names


def used(texts):
    return {name for text in texts for name in _METRIC.findall(text)}


@pytest.mark.parametrize("name", ["alerts.yaml", "grafana.json"])
@run
async def test_every_metric_that_is_alerted_on_or_drawn_is_there(host, box, name):
    await busy(host, box)
    _, text = await scraped(box)
    types = [line.split() for line in text.splitlines() if line.startswith("# TYPE ")]
    families = {words[2] for words in types}
    histograms = {words[2] for words in types if words[3] == "histogram"}
    there = families | {f"{it}_bucket" for it in histograms}
    named = used(expressions(name))
    assert named
    assert named <= there, f"no metrics: {named - there}"


def expressions(name):
    """The expressions of the file, which is what it should be otherwise."""
    data = (ETC / name).read_text()
    if name == "grafana.json":
        board = json.loads(data)
        assert len({it["id"] for it in board["panels"]}) == len(board["panels"])
        places = [tuple(it["gridPos"].values()) for it in board["panels"]]
        assert all(x + w <= 24 for x, _, w, _ in places)
        return [target["expr"] for it in board["panels"] for target in it.get("targets", ())]
    rules = [rule for group in yaml.safe_load(data)["groups"] for rule in group["rules"]]
    assert len({rule["alert"] for rule in rules}) == len(rules)
    for rule in rules:
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["description"]
    return [rule["expr"] for rule in rules]


def test_every_kind_of_finding_is_alerted_on():
    """Those that are amber are named; red is whatever is not."""
    rules = yaml.safe_load((ETC / "alerts.yaml").read_text())["groups"][0]["rules"]
    by_name = {rule["alert"]: rule["expr"] for rule in rules}
    amber = set(re.search(r'kind=~"([^"]+)"', by_name["XpbAmber"])[1].split("|"))
    spared = set(re.search(r'kind!~"([^"]+)"', by_name["XpbRed"])[1].split("|"))
    assert amber | {"reconciling"} == spared
    assert spared <= set(get_args(methods.FindingKind))
