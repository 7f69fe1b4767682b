"""The audit log of a running broker, asked for through the RPC: pages, followers, roles."""

from __future__ import annotations

import json
import socket

import pytest
import pytest_twisted
from broker_host import POLICY, until, uuid_of
from twisted.internet.threads import deferToThread

from broker.audit.directory import read_key, verify_directory
from broker.rpc.catalogue import METHODS
from broker.rpc.client import Client
from broker.rpc.errors import RpcError
from broker.service.policies import MOST_PROBLEMS

pytestmark = pytest.mark.xenstored
run = pytest_twisted.ensureDeferred


def call(box, name, **arguments):
    """Through the socket, as brokerctl does."""
    kind = METHODS[name].arguments
    client = Client(str(box.settings().socket))
    return deferToThread(client.call, name, kind(**arguments))


async def granted(host, box, domid):
    host.create(domid)
    box.label(uuid_of(domid), "plain")
    vif = host.vif(domid)
    host.report(vif)
    await host.decided(vif, "grant")
    return vif


@run
async def test_what_was_decided_about_a_domain_is_found_by_its_name(host, box):
    await box.start()
    await granted(host, box, 3)
    await granted(host, box, 4)
    page = await call(box, "audit.list", domain="d3", event="decided")
    assert page.records
    in_file = (box.state / "audit.jsonl").read_text().splitlines()
    for record in page.records:
        assert in_file[record.n - 1] == record.line
        told = json.loads(record.line)
        assert f" fe=3 be=0 class=vif dev=0 uuid={uuid_of(3)} " in told["text"]
        assert f" id={told['id']} " in told["text"]
        assert f" policy={told['in_force']} " in told["text"]
    by_uuid = await call(box, "audit.list", domain=uuid_of(3), event="decided")
    assert by_uuid.records == page.records
    by_domid = await call(box, "audit.list", domain="3", verdict="grant")
    assert {it.n for it in by_domid.records} <= {it.n for it in page.records}
    assert not (await call(box, "audit.list", domain="nobody")).records


@run
async def test_whoever_acted_is_in_the_record_with_the_role(host, box):
    await box.start()
    host.create(3)
    await call(box, "label.set", domain="name:d9", label="plain")
    await call(box, "label.rm", domain="name:d9")
    with pytest.raises(RpcError):
        await call(box, "policy.load", text="policy: x")
    await call(box, "policy.load", text=POLICY.replace('"1.0"', '"1.1"'))
    page = await call(box, "audit.list", subject="local:uid=0", last=9)
    told = [json.loads(record.line) for record in page.records]
    kinds = ["label_set", "label_removed", "policy_refused", "policy_loaded"]
    assert [it["event"] for it in told] == kinds
    assert {it["role"] for it in told} == {"root"}
    before = box.engine.judge.policy.digest
    assert told[-1]["digest"] == before
    assert told[-1]["in_force"] == told[-1]["replaces"] != before


@run
async def test_a_refused_policy_is_audited_with_so_many_problems(host, box):
    await box.start()
    many = "".join(f"unknown{number}: x\n" for number in range(200))
    with pytest.raises(RpcError) as refused:
        await call(box, "policy.load", text=POLICY + many)
    assert len(refused.value.problems) >= 200
    (line,) = box.lines("policy_refused")
    assert len(line["problems"]) == MOST_PROBLEMS


@run
async def test_a_follower_that_never_reads_neither_holds_memory_nor_delays_decisions(host, box):
    await box.start()
    with socket.socket(socket.AF_UNIX) as silent:
        silent.connect(str(box.settings().socket))
        body = b'{"since":0}'
        silent.sendall(
            b"POST /v1/audit.tail HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
        )
        readers = box.brokerd.audit.readers
        await until(lambda: readers, "the follower")
        vif = await granted(host, box, 3)
        for _ in range(300):
            box.label("name", "plain", "name")
            box.label("name", "lonely", "name")
        stream = box.brokerd.admin._audit
        await until(lambda: stream._call is None, "the follower's place")
        host.report(vif)
        await host.decided(vif, "grant")
        assert not stream._waiting
    await until(lambda: not readers, "its end")


@run
async def test_the_log_of_a_running_broker_verifies_and_its_checkpoint_is_an_anchor(host, box):
    await box.start()
    await granted(host, box, 3)
    record = await call(box, "audit.checkpoint")
    assert '"role":"root"' in record.line
    anchor = box.directory / "anchor"
    anchor.write_text(record.line + "\n")
    keys = [read_key(box.state / "broker.pub")]
    report = verify_directory(box.state, keys)
    assert report.good
    assert report.last >= record.n
    assert report.checkpoints == 1


@run
async def test_a_beating_broker_signs_what_is_new_now_and_then(host, box):
    brokerd = await box.start()
    for _ in range(60):
        await brokerd.heartbeat.beat()
    assert box.lines("checkpoint")
    page = await call(box, "audit.list", last=1)
    assert page.last == brokerd.audit.lines
