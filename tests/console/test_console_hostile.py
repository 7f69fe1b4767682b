"""Names, labels and answers that attack who looks at them: shown to the byte, and nothing more."""

from __future__ import annotations

import json

import pytest
from console_answers import NOTHING, STATUS, answering, channel, domain
from hostile_names import HOSTILE
from pytest_twisted import ensureDeferred

NAMES = [*HOSTILE, "\u2066\u2067hidden\u2069", "</title><svg onload=window.pwned=1>", "a" * 4096]
PAGES = ("", "domains", "domains?show=labels", "channels", "domain/1", "between?a=1&b=2", "reach",
         "violations", "agents", "network", "filters", "filter/clean-traffic", "policy", "audit",
         "channel/vif/1/0/0")  # fmt: skip
INTRUDERS = (
    "document.querySelectorAll('main img, main script, main svg[onload], iframe, object').length"
    " + (window.pwned ? 1 : 0)"
)


WIDEST = "document.documentElement.scrollWidth"
OVERFLOWING = (
    "[...document.querySelectorAll('main *')].filter((it) => !it.closest('.scroll, .text, .graph')"
    " && it.getBoundingClientRect().right > innerWidth).map((it) => it.outerHTML.slice(0, 120))"
)


async def harmless(page):
    await page.settled()
    assert await page.run(INTRUDERS) == 0
    # No letter that hides others, or turns their order, is in the page as itself.
    assert not await page.run(
        r"/[\u202a-\u202e\u2066-\u2069\u200b-\u200f]/.test(document.body.innerText)"
    )
    assert all(it.startswith(("https://localhost:", "about:")) for it in page.requests)


@ensureDeferred
async def test_hostile_names_of_real_domains_are_shown_to_the_byte(visit):
    page = await visit("domains")
    await page.says(HOSTILE[0], HOSTILE[1], r"red-\u{202e}gnp.exe", "more letters")
    for fragment in ("domains", "channels", "live", "network", "between", "", "audit"):
        await page.go(fragment)
        await harmless(page)
    assert await page.run(WIDEST) <= 1280


def hostile_answers():
    """A broker all of whose answers are hostile."""
    domains = [
        domain(number + 1, name=name, label=name, reason=name, set_by=name, policy=name)
        for number, name in enumerate(NAMES)
    ]
    channels = [
        channel(
            number + 1,
            **{"class": "vif" if number == 0 else name[:30]},
            frontend_name=name,
            frontend_label=name,
            backend_label=name,
            resource=name,
            reason=name,
            verdict="deny",
            enforced={"state": "failed", "seq": 9, "reason": name},
        )
        for number, name in enumerate(NAMES)
    ]
    policy = {"name": NAMES[0], "version": NAMES[1], "digest": NAMES[2]}
    node = {"ste": NAMES, "chinese_wall": NAMES, "colours": [], "bootstrap": False}
    vif = {"vif": NAMES[0], "profiles": NAMES, "from_where": NAMES, "variables": {NAMES[0]: NAMES},
           "learned": NAMES, "problem": NAMES[0]}  # fmt: skip
    lines = [
        json.dumps({"n": n, "event": "violation", "t": 1.0, "domid": 1, "uuid": None,
                    "channel": name, "rule": name, "detail": f"frontend: {name}", "subject": name,
                    "role": name, "problems": [name], "name": name})
        for n, name in enumerate(NAMES, 1)
    ]  # fmt: skip
    proposal = {"id": "5f0c9a12", "policy": policy, "replaces": None, "source": NAMES[0],
                "governs": NAMES, "subject": NAMES[0], "role": NAMES[1], "proposed": 1.0,
                "expires": 2.0}  # fmt: skip
    return answering(
        {
            **NOTHING,
            "status": {**STATUS, "policy": policy, "store": NAMES[0], "version": NAMES[1],
                       "findings": [{"kind": "alarm", "level": "red", "text": name, "action": name}
                                    for name in NAMES]},
            "domain.list": domains,
            "label.list": [{"bound_by": "name", "uuid": name, "name": name, "label": name,
                            "policy": name, "ssidref": 1, "domids": [1], "status": "labelled",
                            "reason": name, "set_by": name, "set_at": 1.0} for name in NAMES],
            "channel.list": channels,
            "channel.explain": {"channel": channels[0], "inputs": {name: name for name in NAMES},
                                "reasons": [{"rule": name, "text": name, "where": f"{name}:1:2"}
                                            for name in NAMES],
                                "policy": policy, "spec": None, "published": NAMES[0],
                                "changes": [NAMES]},
            "decision.query": {"verdict": "deny", "frontend": 1, "backend": 2,
                               "frontend_label": NAMES[0], "backend_label": NAMES[1],
                               "reasons": [{"rule": name, "text": name, "where": name}
                                           for name in NAMES], "policy": policy},
            "agent.list": [{"backend": n, "name": name, "age": 1.0, "version": name, "policy": name,
                            "hears": True, "open": 0, "closed": 0, "suspended": 0, "failed": 1,
                            "channels": 1, "unconfirmed": 1, "confirmed": 1}
                           for n, name in enumerate(NAMES)],
            "net.drops": [{"backend": 0, "backend_name": name, "at": 1.0, "omitted": 1, "drops": [
                {"sender": name, "receiver": name, "packets": 1, "bytes": 1}]} for name in NAMES],
            "filter.list": [{"name": name, "description": name, "digest": name, "shipped": False,
                             "variables": NAMES, "users": NAMES} for name in NAMES],
            "filter.dump": {"name": NAMES[0], "digest": NAMES[1], "shipped": False,
                            "text": "\n".join(NAMES)},
            "filter.attached": [{"bound_by": "name", "key": name, "device": name, "name": name,
                                 "given": {name: NAMES}, "set_by": name, "set_at": 1.0}
                                for name in NAMES],
            "filter.vifs": [{**vif, "frontend": n, "frontend_name": name, "device": "0",
                             "backend": 0, "problem": name} for n, name in enumerate(NAMES)],
            "filter.counts": [{"backend": 0, "backend_name": name, "at": 1.0, "omitted_rules": 1,
                               "omitted_learned": 1,
                               "rules": [{"rule": name, "packets": 1, "bytes": 1}],
                               "learned": [{"frontend": n, "frontend_name": name, "device": "0",
                                            "address": name, "until": 1.0}]}
                              for n, name in enumerate(NAMES)],
            "filter.show": vif,
            "policy.picture": {"title": NAMES[0], "classes": ["vif", NAMES[0]],
                               "nodes": [{**node, "labels": [name]} for name in NAMES],
                               "edges": [{"class": "vif", "frontend": 0, "backend": n,
                                          "both": True, "reading": False, "resources": NAMES}
                                         for n in range(len(NAMES))],
                               "walls": [{"one": 0, "other": 1, "names": NAMES}]},
            "policy.show": {**policy, "text": "\n".join(NAMES), "changed": {
                "time": 1.0, "subject": NAMES[0], "role": NAMES[1], "approver": NAMES[2],
                "approver_role": NAMES[3], "signer": NAMES[4], "replaces": NAMES[5]}},
            "policy.pending": [proposal],
            "policy.review": {"proposal": proposal, "text": "\n".join([*NAMES, "x"]), "change": {
                "opens": NAMES, "closes": NAMES, "unlabels": NAMES, "refuses": NAMES,
                "warnings": NAMES}},
            "audit.list": {"records": [{"n": n, "event": "violation", "line": line}
                                       for n, line in enumerate(lines, 1)],
                           "oldest": 1, "last": 9, "more": False, "unread": 0},
        }
    )  # fmt: skip


@ensureDeferred
async def test_hostile_answers_are_text_on_every_page(visit):
    page = await visit("", answers=hostile_answers())
    for size in ((1280, 900), (390, 844)):
        await page.size(*size)
        for fragment in PAGES:
            await page.go(fragment)
            await page.until("document.querySelector('main .value, main .graph text')", fragment)
            await harmless(page)
            wide = await page.run(WIDEST) > size[0] and await page.run(OVERFLOWING)
            assert not wide, fragment


@ensureDeferred
async def test_the_policy_of_the_page_stops_what_it_is_there_to_stop(visit):
    page = await visit("")
    page.expected += ["Content Security Policy", "Trusted", "violates"]
    with pytest.raises(Exception, match="TrustedHTML"):
        await page.run("document.body.innerHTML = '<img src=x onerror=window.pwned=1>'")
    await page.run(
        "(() => { const script = document.createElement('script');"
        " script.append('window.pwned = 1'); document.body.append(script); })()"
    )
    assert not await page.run("window.pwned")
    stopped = await page.run(
        "new Promise((done) => { document.addEventListener('securitypolicyviolation',"
        " (event) => done(event.effectiveDirective));"
        " fetch('https://127.0.0.1:1/').catch(() => 0); })"
    )
    assert stopped == "connect-src"


NONSENSE = ("nosuch", "%", "channel/%3Cimg%3E/x/y", "__proto__", "domain/x", "constructor",
            "channels?Decision=%00", "between?a=%F0&b=", "policy?line=-1")  # fmt: skip


@ensureDeferred
async def test_an_address_that_makes_no_sense_harms_nothing(visit):
    page = await visit("")
    page.expected += ["422", "400", "404"]
    for fragment in NONSENSE:
        await page.go(fragment)
        await page.until(
            "document.querySelector('main .panel, main .headline, main .state')", fragment
        )
        await harmless(page)
