"""The HTTP side in memory: no socket, a clock that the test turns."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rpc_fake_admin import DENIED, EVENT, STATUS
from rpc_memory import CALLER, CONNECTIONS, LIMITS, Memory, refused
from twisted.logger import capturedLogs

from broker.rpc.catalogue import METHODS
from broker.rpc.errors import RpcError


def test_a_call_is_answered_and_the_handler_is_told_who_calls():
    memory = Memory()
    status, body = memory.post("status")
    assert status == 200
    assert body["result"]["journal_seq"] == STATUS.journal_seq
    assert memory.admin.calls[0][:2] == ("status", CALLER)


def test_one_connection_takes_many_calls():
    memory = Memory()
    for _ in range(3):
        assert memory.post("status")[0] == 200


def test_an_unknown_method_is_not_found_and_the_known_ones_are_named():
    for name in ("nosuch", "_called", "__init__", "status?x=1", "status/", "label_set", ""):
        refused(Memory().post(name), 404, "not_found", "label.set")


def test_only_posts_of_json_are_taken():
    memory = Memory()
    memory.send(b"GET /v1/status HTTP/1.1\r\n\r\n")
    refused(memory.answer(), 400, "bad_request", "POST")
    form = b"POST /v1/status HTTP/1.1\r\nContent-Length: 0\r\n\r\n"
    memory.send(form)
    refused(memory.answer(), 400, "bad_request", "application/json")
    assert not memory.admin.calls


def test_a_refusal_carries_code_message_and_problems():
    memory = Memory()
    memory.admin.fail = RpcError("bad_input", "no", ("a.yaml:1:2: what",))
    assert memory.post("status") == (
        422,
        {"error": {"code": "bad_input", "message": "no", "problems": ["a.yaml:1:2: what"]}},
    )


def test_what_fails_inside_is_logged_and_shows_nothing():
    memory = Memory()
    memory.admin.fail = KeyError("the secret path")
    with capturedLogs() as logs:
        status, body = memory.post("status")
    assert status == 500
    assert body["error"]["code"] == "internal"
    assert "secret" not in json.dumps(body)
    assert "KeyError" not in json.dumps(body)
    [logged] = [event for event in logs if "log_failure" in event]
    assert logged["log_failure"].check(KeyError)
    assert memory.post("status")[0] == 500


def test_a_result_that_is_no_unicode_is_an_internal_error():
    memory = Memory()
    memory.admin.status_answer = "\udc80"
    with capturedLogs() as logs:
        refused(memory.post("status"), 500, "internal", "log")
    assert any("log_failure" in event for event in logs)


def test_a_caller_that_is_not_identified_gets_nothing_before_its_body_is_read():
    def nobody(_):
        raise RpcError("denied", "uid 7 may not")

    memory = Memory(identify=nobody)
    memory.send(
        b"POST /v1/status HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n"
    )
    refused(memory.answer(), 403, "denied", "uid 7")
    assert memory.transport.disconnecting
    memory = Memory(identify=nobody)
    refused(memory.post("status", b""), 403, "denied", "uid 7")
    assert not memory.admin.calls


def test_an_announced_body_over_the_cap_is_refused_before_it_comes():
    memory = Memory()
    memory.send(
        b"POST /v1/status HTTP/1.1\r\nContent-Type: application/json\r\n"
        b"Content-Length: 1000000000\r\n\r\n"
    )
    refused(memory.answer(), 413, "too_large", "2000")
    assert memory.transport.disconnecting


def test_a_chunked_body_is_refused_at_the_cap():
    memory = Memory()
    memory.send(
        b"POST /v1/status HTTP/1.1\r\nContent-Type: application/json\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n"
    )
    for _ in range(30):
        memory.send(b"64\r\n" + b" " * 100 + b"\r\n")
    refused(memory.answer(), 413, "too_large", "2000")
    assert memory.transport.disconnecting
    assert not memory.admin.calls


def test_a_body_at_the_cap_is_read():
    body = b"{" + b" " * (LIMITS.body - 2) + b"}"
    assert Memory().post("status", body)[0] == 200
    refused(Memory().post("status", body + b" "), 413, "too_large", "2000")


@pytest.mark.parametrize(
    "headers", [b"X-A: 1\r\n" * 9, b"X-A: %b\r\n" % (b"a" * 1000), b"A" * 1100, b"a b\r\n\r\n"]
)
def test_headers_are_bounded_and_malformed_ones_refused(headers):
    memory = Memory()
    memory.send(b"POST /v1/status HTTP/1.1\r\n" + headers + b"\r\n\r\n")
    assert memory.transport.value().startswith(b"HTTP/1.1 400 ")
    assert memory.transport.disconnecting


def test_a_client_that_sends_a_byte_now_and_then_is_cut_off():
    memory = Memory()
    for byte in b"POST /v1"[: LIMITS.request_time - 2]:
        memory.send(bytes([byte]))
        memory.clock.advance(1)
        assert not memory.transport.disconnecting
    memory.clock.advance(2)
    assert memory.transport.disconnecting


def test_a_body_that_does_not_come_is_waited_for_no_longer_than_a_request():
    memory = Memory()
    memory.clock.advance(LIMITS.request_time - 1)
    memory.send(
        b"POST /v1/label.set HTTP/1.1\r\nContent-Type: application/json\r\n"
        b"Content-Length: 9\r\n\r\n{"
    )
    memory.clock.advance(1)
    assert memory.transport.disconnecting


def test_each_call_of_a_connection_has_its_own_time():
    memory = Memory()
    for _ in range(3):
        memory.clock.advance(LIMITS.request_time - 1)
        assert memory.post("status")[0] == 200
    memory.clock.advance(LIMITS.request_time)
    assert memory.transport.disconnecting


def test_connections_over_the_limit_are_closed_and_places_come_free():
    first = Memory()
    others = [Memory(factory=first.factory) for _ in range(CONNECTIONS - 1)]
    assert Memory(factory=first.factory).channel is None
    others[0].hang_up()
    assert Memory(factory=first.factory).channel is not None


def test_a_client_that_hangs_up_before_the_answer_harms_nobody():
    memory = Memory()
    memory.transport.loseConnection = lambda: None
    memory.admin.status = lambda *_: memory.admin.subscribed
    memory.send(
        b"POST /v1/status HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
    )
    memory.hang_up()
    with capturedLogs() as logs:
        memory.admin.subscribed.callback(STATUS)
    assert not logs
    assert memory.transport.value() == b""


def test_a_watcher_gets_events_and_is_unsubscribed_when_it_hangs_up():
    memory = Memory()
    memory.send(
        b"POST /v1/channel.watch HTTP/1.1\r\nContent-Type: application/json\r\n"
        b"Content-Length: 15\r\n\r\n" + b'{"class":"vbd"}'
    )
    head, _, _ = memory.transport.value().partition(b"\r\n\r\n")
    assert b"text/event-stream" in head
    memory.transport.clear()
    [send] = memory.admin.subscribers
    send(EVENT)
    assert DENIED.reason.encode() in memory.transport.value()
    memory.hang_up()
    assert memory.admin.unsubscribed.called
    memory.transport.clear()
    send(EVENT)
    assert memory.transport.value() == b""


def test_a_watcher_may_wait_longer_than_a_request_may_take():
    memory = Memory()
    memory.send(
        b"POST /v1/channel.watch HTTP/1.1\r\nContent-Type: application/json\r\n"
        b"Content-Length: 2\r\n\r\n{}"
    )
    memory.clock.pump([LIMITS.request_time] * 20)
    assert not memory.transport.disconnecting
    memory.hang_up()
    assert not memory.clock.getDelayedCalls()


def test_a_client_that_does_not_read_its_answer_is_hung_up_on():
    memory = Memory()
    memory.post("status")
    memory.channel.pauseProducing()
    memory.clock.advance(LIMITS.request_time)
    assert memory.transport.disconnecting
    memory.clock.advance(15)
    assert memory.transport.disconnected


def test_a_watcher_that_hung_up_while_it_was_subscribed_is_unsubscribed():
    memory = Memory()
    subscribe = memory.admin.channel_watch

    async def slow(*arguments):
        unsubscribe = await subscribe(*arguments)
        memory.hang_up()
        return unsubscribe

    memory.admin.channel_watch = slow
    memory.send(
        b"POST /v1/channel.watch HTTP/1.1\r\nContent-Type: application/json\r\n"
        b"Content-Length: 2\r\n\r\n{}"
    )
    assert memory.admin.unsubscribed.called
    assert b"event-stream" not in memory.transport.value()


def test_a_stream_that_is_refused_answers_as_any_call():
    memory = Memory()
    memory.admin.fail = RpcError("unavailable", "no store")
    refused(memory.post("channel.watch"), 503, "unavailable", "no store")


CALLS = [method.name for method in METHODS if not method.stream]


@given(name=st.sampled_from(CALLS), body=st.binary(max_size=300))
@example(name="label.set", body=b'{"domain":"a","label":"b","label":"c"}')
def test_random_bodies_are_refused_and_never_reach_a_handler(name, body):
    memory = Memory()
    status, answer = memory.post(name, body)
    if body.strip() in (b"", b"{}"):
        assert status == 200 or answer["error"]["code"] == "bad_request"
    else:
        assert 400 <= status < 500, answer
        assert not memory.admin.calls


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)
_FIELDS = st.sampled_from(["domain", "label", "class", "device", "frontend", "text", "verdict"])


@given(
    name=st.sampled_from(CALLS),
    value=st.dictionaries(_FIELDS, _JSON | st.sampled_from(["vif", "0", "web1"]), max_size=4),
)
def test_json_bodies_are_answered_or_refused_and_nothing_fails_inside(name, value):
    memory = Memory()
    memory.admin.channel_explain = memory.admin.status
    status, answer = memory.post(name, json.dumps(value).encode()[: LIMITS.body])
    assert status == 200 or 400 <= status < 500, answer


@given(st.binary(max_size=400))
@example(b"POST /v1/status HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n")
@example(b"POST /v1/status HTTP/1.1\r\nContent-Length: -1\r\n\r\n")
@example(b"POST /v1/status HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")
def test_random_bytes_harm_nothing_and_reach_no_handler(data):
    memory = Memory()
    with capturedLogs() as logs:
        memory.send(data)
    assert not memory.admin.calls
    assert not [event for event in logs if "log_failure" in event]


@pytest.mark.parametrize("name", [method.name for method in METHODS])
def test_what_is_denied_reaches_no_handler(name):
    memory = Memory()
    memory.admin.deny = RpcError("denied", "role nobody may not")
    refused(memory.post(name), 403, "denied", "role nobody")
    assert not memory.admin.calls


def test_a_denial_comes_before_the_body_is_looked_at():
    memory = Memory()
    memory.admin.deny = RpcError("denied", "role nobody may not")
    refused(memory.post("label.set", b"{not json"), 403, "denied", "role nobody")


def test_who_goes_on_sending_after_a_refusal_is_dropped():
    memory = Memory()
    memory.send(
        b"POST /v1/status HTTP/1.1\r\nContent-Type: application/json\r\n"
        b"Content-Length: 1000000000\r\n\r\n"
    )
    refused(memory.answer(), 413, "too_large", "2000")
    for _ in range(2):
        memory.channel.dataReceived(b"x" * (LIMITS.body // 2))
        assert not memory.transport.disconnected
    memory.channel.dataReceived(b"x")
    assert memory.transport.disconnected


@pytest.mark.parametrize(("length", "goes_on"), [(2, True), (1_000_000_000, False)])
def test_only_who_is_not_refused_is_told_to_go_on(length, goes_on):
    memory = Memory()
    memory.send(
        b"POST /v1/status HTTP/1.1\r\nContent-Type: application/json\r\n"
        b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % length
    )
    assert (b"100 Continue" in memory.transport.value()) is goes_on
