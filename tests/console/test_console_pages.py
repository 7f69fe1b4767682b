"""What each page of the console shows of a real broker, to whom; and the questions it answers."""

from __future__ import annotations

import json

import pytest
from pytest_twisted import ensureDeferred

from broker.sim.console import devices
from tools.console.chromium import ChromiumError

HOST = "Domain-0"
THIEF, FIRST = "red-thief", "red-web1a"


async def domid(page, name):
    """The domid of a domain by its name, out of the table of domains."""
    await page.until("document.querySelector('tbody tr')")
    return int(
        await page.run(
            "[...document.querySelectorAll('tbody tr')].find((row) => row.cells[0].innerText === "
            f"'{name}').dataset.key"
        )
    )


@ensureDeferred
async def test_the_overview_says_whether_everything_decided_is_enforced(visit):
    page = await visit()
    await page.says("Everything decided is enforced: all ")
    await page.says("waits for a second person", "brokerctl policy review")
    await page.says("ann", "role officer", "Live")


@ensureDeferred
async def test_the_overview_and_the_policy_say_who_changed_the_policy_last(visit):
    page = await visit()
    await page.says("Last changed by", "ann as officer")
    await page.go("policy")
    await page.says("Changed by", "ann as officer", "example 1.1", "the first start as root")


@ensureDeferred
async def test_between_two_domains_it_says_which_channels_are_open_and_why_one_is_not(visit):
    page = await visit("domains")
    thief = await domid(page, THIEF)
    await page.go("between")
    for field, name in (("a", THIEF), ("b", HOST)):
        await page.run(f"document.querySelector('input[name={field}]').focus()")
        await page.write(name)
    await page.press("Enter")
    await page.says(f"1 open channel between {THIEF} and {HOST}; 1 not open")
    await page.says("web_red lacks STE type storage_blue of resource disks_blue")
    await page.says("What the policy says", "Frames, vif to vif", "to Domain-0 0")
    await page.says("Over a bridge, the policy lets no frame pass between them.")
    assert await page.run("location.hash") == f"#/between?a={thief}&b=0"
    await page.click("vbd 51712")
    await page.says("Denied: web_red lacks STE type storage_blue", "What would grant it")
    await page.says("give label web_red the STE type storage_blue", "yaml:")
    await page.click("example-1.1.yaml:...")
    await page.until("document.querySelector('.text li.at')?.textContent.includes('disks_blue')")


@ensureDeferred
async def test_between_two_guests_it_says_whether_frames_pass_where_there_is_no_channel(visit):
    page = await visit("domains")
    first, blue, red = [await domid(page, it) for it in (FIRST, "blue-web1b", "red-db1c")]
    await page.go(f"between?a={first}&b={red}")
    await page.says("Over a bridge, the policy lets frames pass between them.")
    await page.go(f"between?a={first}&b={blue}")
    await page.says(f"No open channel between {FIRST} and blue-web1b", "No channel is between them")
    await page.says("Over a bridge, the policy lets no frame pass between them.")
    bars = "[...document.querySelectorAll('.bar-top')]"
    assert not await page.run(f"{bars}.some((it) => getComputedStyle(it).display !== 'none')")


@ensureDeferred
async def test_between_says_so_where_a_name_stands_for_no_domain(visit):
    page = await visit("between?a=nosuch&b=0")
    await page.says("nosuch is not one domain that runs")


@ensureDeferred
async def test_domains_are_listed_with_their_labels_and_standing(visit):
    page = await visit("domains")
    await page.says(FIRST, "web_red", "Labelled", "stray", "Unlabelled", "bank-b", "Refused")
    await page.says("conflict set rivals", "local:uid=0")
    number = await domid(page, "stray")
    await page.go(f"domain/{number}")
    await page.says("stray", "no label", "Ask about this and another", "vif 0", "vbd 51712")
    await page.go("domains?show=labels")
    await page.says("Stored for", "its name", "its uuid", FIRST)


@ensureDeferred
async def test_channels_are_filtered_by_words_and_by_choice_and_sorted(visit):
    page = await visit("channels?Decision=deny")
    await page.says(THIEF, "Denied", "Closed")
    assert await page.run(
        "[...document.querySelectorAll('tbody')].every((it) => !/Granted/.test(it.innerText))"
    )
    await page.press("/")
    await page.write("stray vbd")
    await page.until("document.querySelectorAll('tbody tr').length === 1")
    await page.says("1 of ")
    await page.run(
        "document.querySelector('input[type=search]').value = 'nothing at all'; "
        "document.querySelector('input[type=search]').dispatchEvent(new Event('input'))"
    )
    await page.says("None of ", " match")
    await page.go("channels")
    await page.until("document.querySelectorAll('tbody tr').length > 5")
    await page.click("Frontend", "th button")
    await page.until("document.querySelector('th[aria-sort=ascending]')")
    first = "Number(document.querySelector('tbody tr').dataset.key.split('/')[1])"
    assert await page.run(first) == 1
    await page.run("document.querySelector('th[aria-sort] button').click()")
    await page.until("document.querySelector('th[aria-sort=descending]')")
    assert await page.run(first) > 10


@ensureDeferred
async def test_who_may_talk_to_whom_is_a_graph_and_the_same_as_a_table(visit):
    page = await visit("reach")
    await page.says("By policy example 1.1", "SystemManagement", "never run together")
    await page.until("document.querySelectorAll('.graph rect').length === 7")
    await page.until("document.querySelectorAll('.graph .edge.does').length >= 5")
    assert await page.run("document.querySelectorAll('.graph .wall').length") == 1
    # web_red to SystemManagement: as many as are open.
    cell = "document.querySelector('table.matrix tbody tr:nth-child(2) td').innerText"
    await page.until(f"/^may, [0-9]+$/.test({cell})")
    await page.click("frames", ".tabs button")
    await page.until("document.querySelectorAll('.graph .edge.does').length === 0")


@ensureDeferred
async def test_decisions_appear_as_they_fall_and_can_be_held(visit, stage):
    page = await visit("live")
    await page.says("Live", "Since this page was opened")
    domain = await stage.console.create("comer", "web_red", devices(400, "red"))
    await page.says("comer", "Granted", "agent's report", "Open")
    await page.click("Pause", "button")
    await stage.console.destroy(domain)
    await page.says("Go on (")
    gone = "document.querySelector('tbody').innerText.includes('Gone')"
    assert not await page.run(gone)
    await page.click("Go on (...")
    await page.until(gone)


@ensureDeferred
async def test_violations_name_the_party_the_evidence_and_what_it_led_to(visit):
    page = await visit("violations")
    await page.says("Violation", "Sanction: close", FIRST, "backend-id", "frontend")
    await page.click("vif 0 of domain...", "td a")
    await page.says("Denied: closed: frontend broke")


@ensureDeferred
async def test_agents_say_what_they_confirmed_last(visit):
    page = await visit("agents")
    await page.says(HOST, "All confirmed", "record ", " ago")


@ensureDeferred
async def test_the_network_has_ports_classes_and_who_exchanges_frames(visit):
    page = await visit("network")
    await page.says("Ports", "vif1.0", "Classes", "Exchanges frames with", "Nothing was refused")
    row = "[...document.querySelectorAll('tbody tr')].find((it) => it.dataset.key === 'web_red')"
    await page.until(f"/db_red/.test({row}?.innerText)")
    assert not await page.run(f"/blue/.test({row}.innerText)")


@ensureDeferred
async def test_filters_have_profiles_vifs_attachments_and_what_rules_decided(visit):
    page = await visit("filters")
    await page.says("Vifs with profiles", "clean-traffic", "IP 10.0.0.10", "until", "nothing yet")
    await page.says("a guest sends as itself alone", "the package", "Attached by administrators")
    await page.says("What rules decided", "clean-traffic/6", "1,440")
    assert not await page.run("/Closed/.test(document.querySelector('tbody').innerText)")
    await page.click("clean-traffic", "tbody td .main a")
    await page.says("Filter profile clean-traffic", "include: no-mac-spoofing", "Digest", FIRST)
    await page.says("What its rules decided", "clean-traffic/1")
    await page.click("vif1.0")
    await page.says(
        "all of its profiles must accept a frame", "by an administrator", "00:16:3e:00:00:00"
    )


@ensureDeferred
async def test_a_channel_without_filter_profiles_says_nothing_of_filters(visit):
    for fragment in ("channel/vif/13/0/0", "channel/vbd/1/51712/0"):
        page = await visit(fragment)
        await page.says("Record")
        await page.settled()
        assert not await page.run("/must accept a frame/.test(document.body.innerText)")


@ensureDeferred
async def test_the_pending_policy_is_shown_with_its_difference_and_effect(visit):
    page = await visit("policy")
    await page.says("Waiting for a second person", "dan as deployer", "brokerctl policy approve")
    await page.says("Closes")
    changed = (
        "[...document.querySelectorAll('.diff li.add, .diff li.del')].map((it) => it.textContent)"
    )
    await page.until(f"{changed}.length === 4")
    lines = await page.run(changed)
    assert [it.split(":")[0] for it in lines] == ["removed", "added", "removed", "added"]
    assert "default: deny" in lines[3]


@ensureDeferred
async def test_the_log_is_followed_and_its_chain_checked_with_the_brokers_key(visit, stage):
    page = await visit("audit")
    await page.says("Following", "decided")
    await stage.console.label("late-in-the-log", "web_red")
    await page.says("label set", "late-in-the-log")
    key = (stage.host.directory / "state" / "broker.pub").read_text()
    await page.attach("input[type=file]", "broker.pub", key)
    await page.click("Check the log", "button")
    await page.says("The log is whole: records 1 to ", "are signed by this key")


@ensureDeferred
async def test_a_log_that_is_not_the_one_seen_before_is_told(visit):
    page = await visit("audit")
    await page.says("Following")
    for seen in ({"n": 3, "hash": "0" * 64}, {"n": 10**9, "hash": "0" * 64}):
        await page.run(f"localStorage.setItem('audit-head', '{json.dumps(seen)}')")
        await page.click("Check the log", "button")
        await page.says("The log is not the one that this browser saw before.")
        await page.click("Forget what was seen", "button")
    await page.click("Check the log", "button")
    await page.says("The log is whole")
    head = await page.run("JSON.parse(localStorage.getItem('audit-head'))")
    assert head["n"] > 3
    await page.run("localStorage.removeItem('audit-head')")


FORGED = """(() => {
    const real = Response.prototype.json;
    Response.prototype.json = async function () {
        const it = await real.call(this);
        for (const record of it.result?.records ?? []) {
            if (record.n === 3) record.line = record.line.replace('"t":1', '"t":2');
        }
        return it;
    };
})()"""


@ensureDeferred
async def test_a_record_that_was_changed_breaks_the_chain(visit):
    page = await visit("audit")
    await page.says("Following")
    await page.run(FORGED)
    await page.click("Check the log", "button")
    await page.says("The log is not whole.", "Record 3 is not as it was written")


SEEN = ("", "live", "between?a=1&b=2", "reach", "domains", "domains?show=labels", "channels",
        "violations", "agents", "network", "filters", "policy", "audit")  # fmt: skip
REFUSED = ("", "reach", "agents", "violations", "filters", "policy", "audit")
OWN = ("domains", "channels", "network", "filters")


@ensureDeferred
async def test_a_role_sees_its_own_objects_alone_and_is_told_what_it_may_not(visit):
    page = await visit("", "rita")
    page.expected.append("403")
    await page.says("rita", "role red_team")
    for fragment in SEEN:
        await page.go(fragment)
        await page.settled()
        text = await page.text()
        for others in ("blue-", "db_blue", "web_blue", "bank-", "stray"):
            assert others not in text, fragment
        assert ("Your role does not show you this" in text) >= (fragment in REFUSED), fragment
        assert (FIRST in text) >= (fragment in OWN), fragment


@ensureDeferred
async def test_whoever_shows_no_certificate_sees_nothing(stage):
    page = await (await stage.browser(None)).page()
    with pytest.raises(ChromiumError, match=r"net::ERR_(BAD_SSL|SSL|CONNECTION|SOCKET)"):
        await page.open()
    await page.close()
