"""The agent's rule under any order of good, replayed and forged records, lives and restarts."""

from __future__ import annotations

import hypothesis.strategies as st
import msgspec
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from records import KEY, OTHER_KEY, record

from broker.core.consumer import NOTHING, Life, Memory, judge

PUBLIC = KEY.public_key()
NONCES = tuple(f"{number:032x}" for number in range(4))
DIGESTS = tuple(f"{number:064x}" for number in range(2))


class Channel(RuleBasedStateMachine):
    """One channel, its gate, and a model of what it is entitled to."""

    def __init__(self):
        super().__init__()
        self.life = Life(
            backend=0,
            device_class="vif",
            frontend=3,
            device="0",
            nonce=NONCES[0],
            inputs=DIGESTS[0],
        )
        self.memory = NOTHING
        self.gate = False
        self.fresh = True
        self.seq = 0
        self.published = []
        self.node = None
        self.entitled = False  # model: opened, or told to, and not denied since
        self.seen = -1

    def look(self):
        """The agent reads the node and acts; every step is checked against the model."""
        before = self.gate
        judgement = judge(
            self.node[0] if self.node else None,
            PUBLIC,
            self.life,
            self.memory,
            fresh=self.fresh,
            gate_open=before,
        )
        authentic = self.node is not None and self.node[1] is not None
        current = authentic and self.node[1]["seq"] >= self.seen
        if current:
            fields = self.node[1]
            self.seen = fields["seq"]
            if fields["verdict"] == "deny":
                self.entitled = False
            elif fields["verdict"] == "grant":
                good = fields["nonce"] == self.life.nonce and fields["inputs"] == self.life.inputs
                # What another opened is no better for a grant that finds it open.
                self.entitled = self.entitled or (good and self.fresh and not before)
        if judgement.action == "open":
            assert current
            assert self.fresh
            assert self.node[1]["verdict"] == "grant"
            assert self.node[1]["nonce"] == self.life.nonce
            assert self.node[1]["inputs"] == self.life.inputs
            self.gate = True
        elif judgement.action in {"suspend", "close"}:
            assert before
            assert not self.entitled
            self.gate = False
        self.memory = judgement.memory
        assert self.memory.seq == self.seen

    @rule(
        verdict=st.sampled_from(["grant", "deny", "pending"]),
        nonce=st.sampled_from(NONCES),
        inputs=st.sampled_from(DIGESTS),
        mine=st.booleans(),
    )
    def broker_decides(self, verdict, nonce, inputs, mine):
        if mine:
            nonce, inputs = self.life.nonce, self.life.inputs
        fields = {"verdict": verdict, "seq": self.seq, "nonce": nonce, "inputs": inputs}
        self.seq += 1
        self.node = (record(**fields), fields)
        self.published.append(self.node)
        self.look()

    @rule(data=st.data())
    def node_is_rolled_back(self, data):
        if self.published:
            self.node = data.draw(st.sampled_from(self.published))
        self.look()

    @rule(verdict=st.sampled_from(["grant", "deny"]), ahead=st.integers(0, 5))
    def node_is_forged(self, verdict, ahead):
        forged = record(
            verdict,
            key=OTHER_KEY,
            seq=self.seq + ahead,
            nonce=self.life.nonce,
            inputs=self.life.inputs,
        )
        self.node = (forged, None)
        self.look()

    @rule(text=st.sampled_from([None, b"", b"grant", b"\xff" * 4096]))
    def node_is_lost(self, text):
        self.node = None if text is None else (text, None)
        self.look()

    @rule(fresh=st.booleans())
    def heartbeat(self, fresh):
        self.fresh = fresh
        self.look()

    @rule(nonce=st.sampled_from(NONCES), inputs=st.sampled_from(DIGESTS))
    def device_is_replaced(self, nonce, inputs):
        if nonce != self.life.nonce:
            self.life = msgspec.structs.replace(self.life, nonce=nonce, inputs=inputs)
            self.gate = self.entitled = False
            # A nonce is drawn at random: no earlier life had it.
            if self.memory.granted == nonce:
                self.memory = msgspec.structs.replace(self.memory, granted=None)
            self.look()

    @rule()
    def somebody_else_opens_the_gate(self):
        if not self.gate:
            self.gate = True
            entitled = self.entitled
            self.look()
            assert self.gate == (entitled or self.entitled)

    @rule()
    def agent_restarts(self):
        raw = msgspec.json.encode(self.memory)
        self.memory = msgspec.json.decode(raw, type=Memory)
        self.look()

    @invariant()
    def what_is_open_is_entitled(self):
        assert not self.gate or self.entitled


TestChannel = Channel.TestCase
TestChannel.settings = settings(
    max_examples=60,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
