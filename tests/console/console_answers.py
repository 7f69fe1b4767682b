"""Answers made up for the console: hosts larger than a test starts, labels no policy would take."""

from __future__ import annotations

import json

DIGEST = "sha256:" + "ab" * 32
STATUS = {
    "health": "green",
    "findings": [],
    "problems": [],
    "warnings": [],
    "version": "0.1.0",
    "state": "enforcing",
    "enforcing": True,
    "uptime": 10.0,
    "store": "unix:/run/xenstored/socket",
    "store_connected": True,
    "policy": {"name": "corp", "version": "1.4", "digest": DIGEST},
    "domains": {"labelled": 0, "unlabelled": 0, "refused": 0},
    "channels": {"grant": 0, "deny": 0, "pending": 0},
    "journal_seq": 1,
    "heartbeat": 1,
    "last_error": None,
    "last_error_time": None,
}
NOTHING = {
    "status": STATUS,
    "domain.list": [],
    "label.list": [],
    "channel.list": [],
    "channel.watch": ...,
    "agent.list": [],
    "net.drops": [],
    "filter.list": [],
    "filter.dump": {"name": "p", "digest": DIGEST, "shipped": True, "text": "profile: p\n"},
    "filter.attached": [],
    "filter.vifs": [],
    "filter.counts": [],
    "policy.pending": [],
    "policy.picture": {
        "title": "corp 1.4",
        "classes": ["vif"],
        "nodes": [],
        "edges": [],
        "walls": [],
    },
    "audit.list": {"records": [], "oldest": 1, "last": 0, "more": False, "unread": 0},
    "audit.tail": ...,
}
REFUSED = (403, {"error": {"code": "denied", "message": "role none may not", "problems": []}})
BROKEN = (
    500,
    {"error": {"code": "internal", "message": "the broker failed inside", "problems": []}},
)


def domain(domid, **changes):
    return {
        "domid": domid,
        "name": f"d{domid}",
        "uuid": f"00000000-0000-4000-8000-{domid:012d}",
        "label": "web_a",
        "status": "labelled",
        "reason": "",
        "ssidref": 131074,
        "running": True,
        "bound_by": "uuid",
        "set_by": "ann",
        "policy": "corp",
        "granted": 1,
        "denied": 0,
        **changes,
    }


def channel(frontend, device="0", **changes):
    return {
        "class": "vif",
        "frontend": frontend,
        "backend": 0,
        "device": device,
        "frontend_name": f"d{frontend}",
        "frontend_label": "web_a",
        "backend_label": "SystemManagement",
        "resource": None,
        "verdict": "grant",
        "reason": "class vif is granted where an STE type is shared",
        "seq": 9,
        "nonce_known": True,
        "enforced": {"state": "open", "seq": 9, "reason": ""},
        **changes,
    }


def answering(table=NOTHING, **more):
    """Answers by method; a function is called with the arguments; the rest is the broker's."""
    known = {**table, **{name.replace("_", "."): value for name, value in more.items()}}

    def answer(request):
        name = request["url"].rpartition("/v1/")[2]
        value = known.get(name)
        return value(json.loads(request.get("postData") or "{}")) if callable(value) else value

    answer.table = known
    return answer
