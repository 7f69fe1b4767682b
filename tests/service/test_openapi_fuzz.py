"""Every method against its own OpenAPI document, on a running broker: nothing fails inside.

schemathesis makes calls that the document allows, and calls that it does not; what knows the
host mixes in names that mean something there.
"""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime

import msgspec
import pytest
import pytest_twisted
import requests
import schemathesis
from broker_host import POLICY, until, uuid_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import (
    negative_data_rejection,
    not_a_server_error,
    response_schema_conformance,
    status_code_conformance,
)
from twisted.internet import reactor
from twisted.internet.threads import deferToThread

from broker.pki.authority import Authority
from broker.pki.names import Names
from broker.rpc import openapi
from broker.rpc.address import local, open_connection
from broker.rpc.catalogue import METHODS
from broker.rpc.certificates import TlsFiles
from broker.rpc.limits import Limits
from broker.rpc.methods import Nothing
from broker.rpc.server import TlsServer

run = pytest_twisted.ensureDeferred
DEADLINE = 30.0
pytestmark = pytest.mark.parametrize("store_daemon", ["embedded"], indirect=True)
SCHEMA = schemathesis.openapi.from_dict(openapi.document(METHODS))
OPERATIONS = {
    it.ok().label.removeprefix("POST /v1/"): it.ok() for it in SCHEMA.get_all_operations()
}
CALLS = [method.name for method in METHODS if not method.stream]
EXAMPLES = 12
ALL = f"roles: {{all: [{{verbs: [{', '.join(sorted({it.verb for it in METHODS}))}]}}]}}\n"


async def start(host, box):
    """A broker with two domains and a role that may do everything."""
    box.policy.write_text(POLICY + ALL)
    brokerd = await box.start()
    for domid in (3, 4):
        host.create(domid)
        box.label(uuid_of(domid), "plain")
        host.vif(domid)
        host.vbd(domid)
    await until(lambda: len(box.engine.state.ledger) == 4)
    return brokerd


@pytest.fixture
def pki(box):
    """An authority, and a certificate of the role that may do everything."""
    directory, now = box.directory / "pki", datetime.now(UTC)
    authority = Authority(directory)
    authority.init(("127.0.0.1",), now)
    authority.issue(Names("alice", "all"), now)
    return directory


@run
async def test_calls_as_the_document_allows_them_and_as_it_does_not(host, box, pki):
    brokerd = await start(host, box)
    files = TlsFiles(certificate=pki / "broker.crt", key=pki / "broker.key", ca=pki / "ca.crt")
    limits = Limits(person_burst=1e9, address_burst=1e9)
    listen = ["tcp:0:interface=127.0.0.1"]
    server = TlsServer(brokerd.admin, listen, files, reactor, limits=limits)
    server.start()
    session = requests.Session()
    tls = {
        "cert": (str(pki / "alice.crt"), str(pki / "alice.key")),
        "verify": str(pki / "ca.crt"),
        "timeout": DEADLINE,
    }
    made = Counter()
    url = f"https://127.0.0.1:{server.ports[0].getHost().port}"

    def drive(name, mode, checks):
        @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
        @given(case=OPERATIONS[name].as_strategy(generation_mode=mode))
        def one(case):
            made[name] += 1
            response = case.call(base_url=url, session=session, **tls)
            case.validate_response(response, checks=checks)

        one()

    good = [not_a_server_error, status_code_conformance, response_schema_conformance]
    bad = [not_a_server_error, status_code_conformance, negative_data_rejection]
    for name in CALLS:
        await deferToThread(drive, name, GenerationMode.POSITIVE, good)
        if METHODS[name].arguments is not Nothing:
            await deferToThread(drive, name, GenerationMode.NEGATIVE, bad)
    assert set(made) == set(CALLS)
    assert made["label.set"] > EXAMPLES
    assert brokerd.engine.phase == "enforcing"
    session.close()
    await server.stop()


KNOWN = {
    "domain": ["3", "d3", "d4", uuid_of(3), "name:d3", "domid:4", "0", "Domain-0", "9", "nosuch"],
    "label": ["plain", "web_a", "lonely", "SystemManagement", "nosuch"],
    "class": ["vif", "vbd", "vkbd", "nosuch"],
    "device": ["0", "51712", "7"],
    "backend": [0, 3, 9, "0", "d4"],
    "resource": ["lun_red", "nosuch"],
    "mode": ["r", "w"],
    "frames": [True, False],
    "verdict": ["grant", "deny", "pending"],
    "text": [POLICY, POLICY + ALL, POLICY + "protected: [plain]\n" + ALL, "policy: x"],
    "dry_run": [True, True, False],
    "id": ["5f0c9a12"],
    "last": [1, 1000],
    "before": [1, 3],
    "event": ["decided", "label_set"],
    "subject": ["test"],
}
KNOWN["frontend"] = KNOWN["domain"]


def arguments(name):
    """What a method takes, of values that mean something here and some that do not."""
    fields = msgspec.structs.fields(METHODS[name].arguments)
    known = {it.encode_name: st.sampled_from(KNOWN.get(it.encode_name, [None])) for it in fields}
    needed = {key: known[key] for key in (it.encode_name for it in fields if it.required)}
    rest = {key: value for key, value in known.items() if key not in needed}
    return st.fixed_dictionaries(needed, optional=rest)


@run
async def test_calls_with_names_that_mean_something(host, box):
    brokerd = await start(host, box)
    connection = open_connection(local(str(box.directory / "rpc.sock")), DEADLINE)

    def drive(name):
        @settings(max_examples=4 * EXAMPLES, deadline=None)
        @given(values=arguments(name))
        def one(values):
            body = json.dumps(values)
            headers = {"Content-Type": "application/json"}
            connection.request("POST", f"/v1/{name}", body, headers)
            response = connection.getresponse()
            answer = json.loads(response.read())
            assert response.status < 500 or answer["error"]["code"] == "unavailable", (body, answer)

        one()

    for name in CALLS:
        await deferToThread(drive, name)
    assert brokerd.engine.phase == "enforcing"
    connection.close()
