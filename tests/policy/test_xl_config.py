"""xl configurations: domain and label are read, nothing is executed, all else is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.policy.xl_config import read_xl_config
from broker.text.problems import ProblemsError

UUID = "56b8d9d0-f417-45de-ab20-17715a9d5aab"
SEED = """\
# of the first years
kernel = "/boot/vmlinuz-2.6-xenU"
memory = 64; name = 'ttylinux'
vif = [ '' ]
disk = ['file:/home/user/ttylinux,hda1,w',
        'phy:/dev/vg/x,xvdb,r', ]   # a comment
disk += [ "phy:/dev/vg/y,xvdc,w" ]
extra = "a \\"quoted\\" word"
acm_label = ['labelname=dom_Fun,policyname=corp']
ssidref = 196611
"""


def read(text):
    return read_xl_config(text.encode(), "f.cfg")


def test_the_seeds_label_name_and_number_are_read():
    config = read(SEED)
    assert (config.name, config.uuid) == ("ttylinux", None)
    assert (config.label.label, config.label.policy) == ("dom_Fun", "corp")
    assert (config.label.ssidref, config.label.where) == (196611, (9, 14))


@pytest.mark.parametrize(
    "setting",
    [
        "access_control = ['policy=corp,label=dom_Fun']",
        'access_control=["label=dom_Fun , policy=corp"]',
        "access_control = 'ACM:corp:dom_Fun'",
        "acm_label = [ 'ACM:corp:dom_Fun' ]",
        "access_control = [\n 'policy=corp,label=dom_Fun',\n]",
    ],
)
def test_every_way_a_label_was_written_is_read(setting):
    config = read(f'name="x"\nuuid = "{UUID.upper()}"\n{setting}\n')
    assert config.uuid == UUID
    assert (config.label.label, config.label.policy) == ("dom_Fun", "corp")


def test_a_number_alone_is_read_in_either_base():
    assert read("name='x'\nssidref=0x00030003").label.ssidref == 196611
    assert read("name='x'\nssidref=196611").label.label is None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("import os\nname = 'x'", "f.cfg:1:1: expected NAME = value, not import"),
        ("name = os.getenv('x')", "f.cfg:1:10: not NAME = value, of strings"),
        ("name = True", "f.cfg:1:8: name is no string, number or list of such"),
        ("name = 'x' + 'y'", "f.cfg:1:12: not NAME = value, of strings"),
        ("name = 'x' 'y'", "f.cfg:1:12: unexpected 'y'"),
        ("name = ['x'", "f.cfg:1:8: the list has no end"),
        ("vif = ['a' 'b']", "f.cfg:1:12: unexpected 'b' in a list"),
        ("name = 3", "f.cfg:1:8: name is no string"),
        ("name = 'a\\'b'\nssidref=1", "f.cfg:1:8: backslashes are not read here"),
        ("name = 'x'\nname = 'y'", "f.cfg:2:1: name is set twice"),
        ("name = 'x'\nssidref += 3", "f.cfg:2:1: ssidref is set twice"),
        ("memory = 3\nssidref = 3", "f.cfg:1:1: names no domain"),
        ("name = 'x'", "f.cfg:1:1: has no label"),
        ("name = 'x'\nuuid = 'y'", "f.cfg:2:8: 'y' is no uuid"),
        ("name = 'x'\nssidref = '3'", "f.cfg:2:11: ssidref is no number"),
        ("name = 'x'\nssidref = 0", "f.cfg:2:11: ssidref 0 is no label's"),
        ("name = 'x'\nacm_label = ['a', 'b']", "f.cfg:2:13: acm_label holds one label"),
        (
            "name = 'x'\nacm_label = ['labelname=a']",
            "f.cfg:2:14: acm_label does not say policyname=",
        ),
        ("name = 'x'\nacm_label = ['label=a,policy=b']", "f.cfg:2:14: acm_label is 'labelname="),
        ("name = 'x'\nacm_label = ['ACM:a']", "f.cfg:2:14: label 'ACM:a' has 2 parts"),
        ("name = 'x'\nacm_label = ['INV_ACM:a:b']", "f.cfg:2:14: label b was made void"),
        (
            "name = 'x'\nacm_label = ['ACM:a:b']\naccess_control = ['ACM:a:c']",
            "f.cfg:3:19: acm_label and access_control say two things",
        ),
    ],
)
def test_whatever_is_not_a_plain_configuration_is_refused_with_its_place(text, problem):
    with pytest.raises(ProblemsError) as caught:
        read(text)
    assert str(caught.value).startswith(problem)


def test_bytes_that_are_no_text_and_what_is_too_long_are_refused():
    with pytest.raises(ProblemsError, match="f:2:1: not UTF-8"):
        read_xl_config(b"name='x'\n\xff", "f")
    with pytest.raises(ProblemsError, match="longer than"):
        read_xl_config(b"#" * (1 << 20) + b"#", "f")


@given(st.binary(max_size=200) | st.text("na me='\"[],\n;#\\+=0x_", max_size=80).map(str.encode))
def test_any_bytes_are_read_or_refused(data):
    try:
        read_xl_config(data, "f")
    except ProblemsError as error:
        assert all(it.line >= 1 and it.column >= 1 for it in error.problems)
