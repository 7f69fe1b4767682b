"""A store that goes while it is read fails the reading, and nothing of that goes unheard."""

import gc

from twisted.internet import task
from twisted.internet.defer import Deferred
from twisted.internet.testing import StringTransportWithDisconnection
from twisted.logger import globalLogPublisher

from broker.service.mirror import Mirror
from broker.service.survey import Changes, Survey
from broker.xenstore.client import StoreConnection
from broker.xenstore.errors import ConnectionLostError
from broker.xenstore.together import together


class Transport(StringTransportWithDisconnection):
    def abortConnection(self):
        self.loseConnection()


def connected():
    connection = StoreConnection(lambda *_: None, task.Clock())
    transport = Transport()
    transport.protocol = connection
    connection.makeConnection(transport)
    return connection


def unheard(act):
    """The errors that Twisted logs, at the latest once what `act` leaves behind is collected."""
    logged = []

    def observer(event):
        if "log_failure" in event:
            logged.append(event["log_failure"])

    globalLogPublisher.addObserver(observer)
    try:
        act()
        gc.collect()
    finally:
        globalLogPublisher.removeObserver(observer)
    return logged


def test_domains_being_read_when_the_store_goes():
    def act():
        connection = connected()
        survey = Survey(connection, Mirror())
        outcome = []
        Deferred.fromCoroutine(survey.read_domains([1, 2, 3], Changes())).addErrback(outcome.append)
        connection.transport.loseConnection()
        assert [it.type for it in outcome] == [ConnectionLostError]

    assert unheard(act) == []


def test_together_answers_in_order_and_raises_what_the_first_failed_with():
    first, second = Deferred(), Deferred()
    answer, failure = [], []
    Deferred.fromCoroutine(together(first, second)).addCallback(answer.append)
    second.callback(2)
    first.callback(1)
    assert answer == [[1, 2]]

    def act():
        first, second = Deferred(), Deferred()
        Deferred.fromCoroutine(together(first, second)).addErrback(failure.append)
        second.errback(KeyError("second"))
        first.errback(ValueError("first"))

    assert unheard(act) == []
    assert [it.type for it in failure] == [KeyError]
