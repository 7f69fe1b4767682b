"""A class's table says of the rules what their index says: in its rows, and in its short form."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from support.definitions import LABELS, RESOURCES, definitions

from broker.core.class_table import DENY_RULE, NO_ALLOW, ClassTable
from broker.core.masks import Numbering

COLOURS = Numbering(("c0", "c1"))


@settings(max_examples=100, deadline=None)
@given(definitions())
def test_no_verdict_by_rules_differs_from_what_the_rules_say(definition):
    types = Numbering(definition.ste_types)
    for device_class in definition.classes:
        table = ClassTable(definition, device_class, types, COLOURS)
        for frontend, backend, resource, mode in itertools.product(
            LABELS, LABELS, (None, *RESOURCES), "rw"
        ):
            asked = frontend, backend, resource, mode
            against = table.judge(*asked)
            denied = bool(table.rules.speaking("deny", *asked))
            allowed = bool(table.rules.speaking("allow", *asked))
            assert bool(against & DENY_RULE) == denied
            assert bool(against & NO_ALLOW) == (device_class.default == "deny" and not allowed)
