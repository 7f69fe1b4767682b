"""A store in this process at the end of wires that a test delivers by hand, with faults between.

Requests wait in a wire until they are carried out, answers and events until they are read, so that
every order in which a real store and its clients could run can be had, again and again. The store
is the product's own (broker/xenstore/store), and so is the client at the other end.
"""

from __future__ import annotations

from collections import deque

from twisted.internet import error
from twisted.python.failure import Failure

from broker.xenstore import wire
from broker.xenstore.store.store import EmbeddedStore


class Wire:
    """One connection: a transport to its protocol, a peer to its store."""

    def __init__(self, store, process, protocol):
        self.process = process
        self.requests = deque()
        """Messages that were sent and not carried out yet."""
        self.answers = deque()
        """Frames that were not read yet: whether it is an event, and the bytes."""
        self.disconnecting = False
        self.lossy = False
        """Whether events were lost: whoever lost them has to read everything anew."""
        self._store = store
        self._protocol = protocol
        self._decoder = wire.Decoder()
        self.connection = store.embedded.open(process.domid, self.wake, self._refused)

    def join(self):
        """Have the protocol begin."""
        self._protocol.makeConnection(self)

    # the transport

    def writeSequence(self, frames):
        if self.disconnecting:
            return
        for message in self._decoder.receive_data(b"".join(frames)):
            self._store.on_sent(self.process, message)
            self.requests.append(message)

    def abortConnection(self):
        if not self.disconnecting:
            self.disconnecting = True
            self.process.clock.callLater(0, self.cut)

    # the world

    def cut(self):
        """The connection is lost, with all that is under way."""
        if self not in self._store.wires:
            return
        self.disconnecting = True
        self._store.wires.remove(self)
        self._store.embedded.close(self.connection)
        self.requests.clear()
        self.answers.clear()
        self._protocol.connectionLost(Failure(error.ConnectionLost("the wire was cut")))

    def carry_out(self):
        """The store answers the oldest request, and tells everybody what that changed."""
        operation, request_id, tx, payload = self.requests.popleft()
        answer = self._store.perform(self, operation, tx, payload)
        self.answers.append((False, wire.encode(answer[0], request_id, tx, answer[1])))
        self._store.embedded.wake()
        self._store.on_answer(self.process, (operation, tx, payload), answer)

    def deliver(self):
        """The client reads the oldest answer or event."""
        _, frame = self.answers.popleft()
        if not self.disconnecting:
            self._protocol.dataReceived(frame)

    def wake(self):
        """The store has events for this connection."""
        for path, token in self.connection.take_events():
            payload = path.encode("latin-1") + b"\0" + token + b"\0"
            self.answers.append((True, wire.encode(wire.WATCH_EVENT, 0, 0, payload)))

    def _refused(self, _reason):
        self.abortConnection()

    # faults

    def lose_events(self):
        """Every event that was not read yet is lost."""
        kept = [it for it in self.answers if not it[0]]
        self.lossy = self.lossy or len(kept) < len(self.answers)
        self.answers = deque(kept)

    def shuffle_events(self, dice):
        """Events come in another order, and later than they might: answers keep theirs."""
        events = [it for it in self.answers if it[0]]
        answers = [it for it in self.answers if not it[0]]
        dice.shuffle(events)
        places = sorted(dice.sample(range(len(self.answers)), len(answers)))
        late = dict(zip(places, answers, strict=True))
        rest = iter(events)
        self.answers = deque(
            late[place] if place in late else next(rest) for place in range(len(self.answers))
        )


class Store:
    """The embedded store, its wires, and what it refuses.

    `refusing[name]` is what that process is yet to be refused, and how often: `EAGAIN` the end of
    a transaction, anything else a value.
    `on_sent(process, message)` hears what is sent, `on_answer(process, request, answer)` what was
    answered.
    """

    def __init__(self, on_sent, on_answer):
        self.on_sent = on_sent
        self.on_answer = on_answer
        self.wires = []
        self.refusing = {}
        self.refused = 0
        self.embedded = EmbeddedStore()
        self.dom0 = self.embedded.connect()

    def connect(self, process, protocol):
        """Join a protocol of this process."""
        joined = Wire(self, process, protocol)
        self.wires.append(joined)
        joined.join()

    def wires_of(self, process):
        return [it for it in self.wires if it.process is process]

    def lose(self):
        """Killed and started anew: it is empty, and every connection ended."""
        wires, former = list(self.wires), self.embedded
        self.embedded = EmbeddedStore()
        self.dom0 = self.embedded.connect()
        for it in wires:
            it.cut()
        former.close_all("lost")

    def perform(self, of, operation, tx, payload):
        error_name, left = self.refusing.get(of.process.name, ("", 0))
        if left and self._meant(error_name, operation, payload):
            self.refusing[of.process.name] = (error_name, left - 1)
            self.refused += 1
            if operation == wire.TRANSACTION_END:
                self.embedded.answer(of.connection, operation, tx, b"F\0")
            return wire.ERROR, error_name.encode() + b"\0"
        return self.embedded.answer(of.connection, operation, tx, payload)

    def _meant(self, error_name, operation, payload):
        if error_name == "EAGAIN":
            return operation == wire.TRANSACTION_END and payload == b"T\0"
        return operation == wire.WRITE
