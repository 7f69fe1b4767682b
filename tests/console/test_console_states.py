"""Empty, loading, failed, refused, stale and crowded: how the console shows each."""

from __future__ import annotations

import pytest
from console_answers import BROKEN, NOTHING, REFUSED, STATUS, answering, channel, domain
from pytest_twisted import ensureDeferred

EMPTY = {
    "": "Everything decided is enforced: all 0 channels",
    "live": "Nothing has been decided since",
    "domains": "No domain runs that your role shows you",
    "domains?show=labels": "No label is stored",
    "channels": "There are no channels that your role shows you",
    "reach": "Nobody may",
    "violations": "Nobody broke a rule",
    "agents": "No domain has backends",
    "network": "There are no ports that your role shows you",
    "filters": "No vif has profiles that your role shows you",
    "filter/p": "None of its rules decided anything yet",
    "policy": "Nothing waits",
    "audit": "No record is shown",
    "domain/99": "No such domain runs",
}
LOADED = [it for it in EMPTY if it not in ("live", "domain/99", "policy", "")]
REQUESTS = "performance.getEntriesByType('resource').map((it) => it.name)"
ASKED_LISTS = f"{REQUESTS}.filter((it) => it.endsWith('channel.list')).length"
ASKED = ("domains", "domains?show=labels", "channels", "reach", "violations", "agents", "network",
         "filters", "filter/p", "audit", "channel/vif/1/0/0")  # fmt: skip


@ensureDeferred
async def test_where_there_is_nothing_it_says_so(visit):
    page = await visit("", answers=answering())
    for fragment, words in EMPTY.items():
        await page.go(fragment)
        await page.says(words)


@ensureDeferred
async def test_what_loads_is_shown_to_load(visit):
    silent = dict.fromkeys(NOTHING, ...)
    page = await visit("", answers=answering({**silent, "status": STATUS}))
    for fragment in LOADED:
        await page.go(fragment)
        await page.until("document.querySelector('main .skeleton[role=status]')", fragment)


@pytest.mark.parametrize(
    ("answer", "words"),
    [(REFUSED, "Your role does not show you this"), (BROKEN, "This cannot be shown now")],
)
@ensureDeferred
async def test_what_is_refused_or_fails_says_why(answer, words, visit):
    table = {**dict.fromkeys(NOTHING, answer), "channel.explain": answer, "status": STATUS}
    page = await visit("", answers=answering(table))
    page.expected += ["403", "500"]
    for fragment in ASKED:
        await page.go(fragment)
        await page.says(words, answer[1]["error"]["message"])


@ensureDeferred
async def test_problems_are_told_with_what_to_do(visit):
    finding = {
        "kind": "agent_missing",
        "level": "red",
        "text": "domain 7 has no agent",
        "action": "start broker-agent there",
    }
    status = {**STATUS, "health": "red", "findings": [finding], "problems": ["one"]}
    late = channel(3, verdict="deny", enforced={"state": "open", "seq": 8, "reason": ""})
    page = await visit("", answers=answering(status=status, channel_list=[late]))
    await page.says("One problem needs you.", "1 of 1 decisions are not confirmed", "1 problem")
    await page.says("domain 7 has no agent", "start broker-agent there", "Still open")


@ensureDeferred
async def test_a_broker_that_does_not_enforce_is_said_first(visit):
    status = {**STATUS, "health": "red", "enforcing": False, "state": "reconciling"}
    page = await visit("", answers=answering(status=status))
    await page.says("Not enforcing: the broker is reconciling.")


@ensureDeferred
async def test_events_that_were_lost_are_counted_and_the_list_is_asked_for_again(visit):
    asked = []

    def listed(_):
        asked.append(1)
        return [channel(3)]

    def watched(_):
        return (200, 'event: lagged\ndata: {"lost":5}\n\n') if len(asked) < 2 else ...

    page = await visit("live", answers=answering(channel_list=listed, channel_watch=watched))
    await page.says("5 events were dropped")
    assert len(asked) >= 2


@ensureDeferred
async def test_one_call_that_is_lost_beside_a_stream_that_goes_on_is_said_until_the_next(visit):
    answers = answering(channel_list=[channel(3)], channel_watch=None)
    page = await visit("channels", answers=answers)
    page.expected.append("ERR_")
    await page.says("Live", "d3")
    answers.table.update({"status": "lost", "channel.list": "lost"})
    await page.says("Connection lost at ", "Not connected")
    answers.table["status"] = STATUS
    await page.run("document.dispatchEvent(new Event('visibilitychange'))")
    await page.until(f"{ASKED_LISTS} > 1")
    assert not await page.run("document.querySelector('.banner').hidden")
    answers.table["channel.list"] = [channel(4)]
    await page.says("Live", "d4")
    await page.until("document.querySelector('.banner').hidden")


@ensureDeferred
async def test_a_page_that_was_opened_while_the_broker_was_lost_opens_when_it_is_found(visit):
    answers = answering(channel_list=[channel(3)], channel_watch=None)
    page = await visit("channels", answers=answers)
    page.expected.append("ERR_")
    await page.says("Live", "d3")
    answers.table.update({"status": "lost", "policy.show": "lost"})
    await page.go("policy")
    await page.says("Connection lost at ", "This cannot be shown now")
    answers.table.update({"status": STATUS, "policy.show": None})
    await page.says("Live", "Text", "byte for byte", "ste_types")
    assert not await page.run("document.querySelector('.state.error')")


@ensureDeferred
async def test_a_channel_whose_explanation_was_lost_is_explained_with_the_next_news(visit):
    page = await visit("channel/vbd/1/51712/0")
    page.expected.append("ERR_")
    await page.says("Granted: ")
    answers = answering({"status": STATUS, "channel.explain": "lost"})
    await page.answer(answers)
    await page.until(f"{REQUESTS}.filter((it) => it.endsWith('channel.explain')).length > 1")
    answers.table["channel.explain"] = None
    await page.run("document.querySelector('main .headline').remove()")
    await page.says("Granted: ")


@ensureDeferred
async def test_a_role_that_may_not_watch_is_shown_what_it_asks_for(visit):
    answers = answering(channel_watch=REFUSED, channel_list=[channel(3)])
    page = await visit("channels", answers=answers)
    page.expected.append("403")
    await page.says("Every 10 s", "d3")


@ensureDeferred
async def test_a_thousand_domains_are_paged_filtered_and_quick(visit):
    domains = [domain(number, name=f"tenant-{number:04d}") for number in range(1000)]
    channels = [
        channel(number, str(device), frontend_name=f"tenant-{number:04d}")
        for number in range(1000)
        for device in range(5)
    ]
    answers = answering(domain_list=domains, channel_list=channels)
    page = await visit("domains", answers=answers)
    await page.says("1,000", "1\u2013100 of 1,000", "tenant-0099")
    assert await page.run("document.querySelectorAll('tbody tr').length") == 100
    await page.click("Next", "button")
    await page.says("101\u2013200 of 1,000", "tenant-0199")
    await page.run("document.querySelector('input[type=search]').focus()")
    await page.write("tenant-0777")
    await page.says("1 of 1,000")
    await page.go("channels?filter=tenant-0777")
    await page.says("5 of 5,000", "tenant-0777")
    took = await page.run(
        "(async () => { const began = performance.now(); location.hash = '#/channels';"
        " while (document.querySelectorAll('tbody tr').length !== 100)"
        " await new Promise((next) => requestAnimationFrame(next));"
        " return performance.now() - began; })()"
    )
    assert took < 20_000
    await page.go("network")
    await page.says("5,000", "Ports open")
    await page.go("between")
    assert await page.run("document.querySelectorAll('datalist option').length") == 1000


@ensureDeferred
async def test_a_lost_broker_is_said_with_the_time_and_found_again(visit, stage):
    page = await visit("audit")
    page.expected += ["ERR_", "Failed to load"]
    await page.says("Following")
    await page.until("document.querySelectorAll('tbody tr').length > 5")
    seen = await page.run("document.querySelector('tbody tr').dataset.key")
    stage.host.kill("brokerd")
    await page.says("Connection lost at ", "What is shown is from before", "Not connected")
    assert await page.run("document.querySelectorAll('tbody tr').length") > 5
    await stage.host.start_brokerd()
    await page.says("Following", "Live")
    await page.until("document.querySelector('.banner').hidden")
    # Resumed by number: every record since the last one seen is there.
    numbers = "[...document.querySelectorAll('tbody tr')].map((it) => Number(it.dataset.key))"
    await page.until(f"{numbers}[0] > {seen}")
    rows = await page.run(numbers)
    assert rows == list(range(rows[0], rows[-1] - 1, -1))
    await page.go("")
    await page.says("Everything decided is enforced")
