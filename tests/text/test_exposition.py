"""Prometheus' text: read back by Prometheus' own parser."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from broker.text.exposition import Family, Sample, number, render


@given(st.text(), st.text(), st.floats(allow_nan=False))
def test_whatever_is_in_a_label_reads_as_it_was(one, other, value):
    labels = (("one", one), ("other", other))
    text = render([Family("x_value", "gauge", "What\\it\nis", (Sample(labels, value),))])
    (family,) = text_string_to_metric_families(text)
    (sample,) = family.samples
    assert sample.labels == dict(labels)
    assert sample.value == value
    assert family.documentation == "What\\it\nis"


def test_whole_numbers_have_no_fraction():
    assert number(3.0) == "3"
    assert number(0.25) == "0.25"
    assert number(math.inf) == "+Inf"
    assert number(-math.inf) == "-Inf"
    assert number(1e300) == "1e+300"


def test_samples_stand_below_their_family():
    text = render(
        [
            Family("a_total", "counter", "A.", (Sample((), 1), Sample((("k", "v"),), 2))),
            Family("b", "histogram", "B.", (Sample((("le", "+Inf"),), 3, "_bucket"),)),
        ]
    )
    assert text == (
        '# HELP a_total A.\n# TYPE a_total counter\na_total 1\na_total{k="v"} 2\n'
        '# HELP b B.\n# TYPE b histogram\nb_bucket{le="+Inf"} 3\n'
    )
