"""Tickets of labels: one text for one ticket, signed under a context of its own."""

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from broker.core.record import RecordError, sign_line
from broker.core.ticket import Ticket, Use, parse_use, sign_ticket, verify_ticket

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
TICKET = Ticket(
    uuid="56b8d9d0-f417-45de-ab20-17715a9d5aab",
    label="web_a",
    policy="corp",
    version="1.4",
    digest="sha256:" + "1" * 64,
    expires=1_800_000_000,
    uses=(Use("vif", None, "w", "dom0"), Use("vbd", "lun(1)", "r", "dom0")),
)


@pytest.mark.parametrize(
    ("uses", "filters"), [((), ()), (TICKET.uses, (f"a/{'1' * 16}", f"b-c/{'2' * 16}"))]
)
def test_a_ticket_is_read_back_by_who_trusts_its_key_alone(uses, filters):
    ticket = msgspec.structs.replace(TICKET, uses=uses, filters=filters)
    text = sign_ticket(ticket, KEY)
    assert verify_ticket(text, [OTHER.public_key(), KEY.public_key()]) == ticket
    assert verify_ticket(text, [OTHER.public_key()]) is None
    assert verify_ticket(text, []) is None


def test_a_signature_of_another_kind_of_line_is_none():
    unsigned = sign_ticket(TICKET, KEY).decode().rpartition(" sig=")[0]
    text = sign_line(unsigned, b"xpb-decision-v1\n", KEY)
    assert verify_ticket(text, [KEY.public_key()]) is None


def test_no_bit_of_a_ticket_can_be_changed():
    text = sign_ticket(TICKET, KEY)
    for at in range(len(text)):
        changed = bytearray(text)
        changed[at] ^= 1
        try:
            assert verify_ticket(bytes(changed), [KEY.public_key()]) is None
        except RecordError:
            continue


@pytest.mark.parametrize(
    "text",
    [b"", b"label", b"label uuid=x", b"\xff", b"grant " + sign_ticket(TICKET, KEY)[6:]],
)
def test_what_is_no_ticket_is_refused(text):
    with pytest.raises(RecordError):
        verify_ticket(text, [KEY.public_key()])


@pytest.mark.parametrize("name", ["a", "A/" + "1" * 16, "a/" + "1" * 15, "a/" + "G" * 16])
def test_what_is_no_filter_profile_is_refused(name):
    text = sign_ticket(msgspec.structs.replace(TICKET, filters=(name,)), KEY)
    with pytest.raises(RecordError, match="filters is malformed"):
        verify_ticket(text, [KEY.public_key()])


@pytest.mark.parametrize("text", ["", "vif", "vif/-/w", "vif/-/x/dom0", "vif/-/w/a,b", "v/-/w/a/b"])
def test_what_is_no_use_is_refused(text):
    with pytest.raises(RecordError, match="not CLASS/RESOURCE/MODE"):
        parse_use(text)


def test_too_many_channels_do_not_fit():
    uses = tuple(Use("vbd", f"lun_{number}", "w", "dom0") for number in range(200))
    with pytest.raises(RecordError, match="too long"):
        sign_ticket(msgspec.structs.replace(TICKET, uses=uses), KEY)
