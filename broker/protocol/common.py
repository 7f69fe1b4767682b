"""The keys of every xenbus device, whatever its class (docs/misc/xenstore-paths.pandoc)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.protocol.form import KeyForm
from broker.text.marked_yaml import Text

if TYPE_CHECKING:
    from broker.protocol.form import SpecForm


def add_common_keys(form: SpecForm) -> None:
    """Give both ends the keys every device has, unless the description says otherwise."""
    front = {
        "backend": _by_toolstack("path", fixed=True),
        "backend-id": _by_toolstack("domid", fixed=True),
    }
    back = {
        "frontend": _by_toolstack("path", fixed=True),
        "frontend-id": _by_toolstack("domid", fixed=True),
        # 1: the device stays when it is closed, and may be connected again.
        "online": _by_toolstack("bool"),
        "hotplug-status": _key("text", "toolstack", "hotplug", "backend"),
        "hotplug-error": _key("bytes", "toolstack", "hotplug"),
    }
    for side, keys in ((form.frontend, front), (form.backend, back)):
        for name, key in keys.items():
            side.keys.setdefault(Text(name, side.line, side.column), key)


def _by_toolstack(type_name: str, *, fixed: bool = False) -> KeyForm:
    key = _key(type_name, "toolstack")
    key.fixed = Text("always") if fixed else None
    return key


def _key(type_name: str, *writers: str) -> KeyForm:
    return KeyForm(type=Text(type_name), writer=tuple(map(Text, writers)))
