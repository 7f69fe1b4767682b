"""The console by keyboard, by screen reader, on a phone, in the dark: axe-core finds nothing."""

from __future__ import annotations

import json

import pytest
from pytest_twisted import ensureDeferred

PAGES = ("", "live", "between?a=1&b=0", "reach", "domains", "domains?show=labels", "domain/1",
         "channels", "channel/vbd/1/51712/0", "channel/vif/1/0/0", "violations", "agents",
         "network", "filters", "filter/clean-traffic", "policy", "audit")  # fmt: skip
RULES = json.dumps({
    "runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
    "resultTypes": ["violations"],
})  # fmt: skip
FOCUSED = (
    "(document.activeElement.getAttribute('aria-label') ?? document.activeElement.textContent)"
)


@pytest.mark.parametrize(("size", "theme"), [((1280, 900), "light"), ((390, 844), "dark")])
@ensureDeferred
async def test_axe_finds_nothing_wide_and_narrow_light_and_dark(size, theme, visit, axe):
    page = await visit("", size=size)
    await page.theme(theme)
    await page.run(axe)
    problems = {}
    for fragment in PAGES:
        await page.go(fragment)
        await page.settled()
        assert await page.run("document.documentElement.scrollWidth") <= size[0], fragment
        found = await page.run(
            f"axe.run(document, {RULES}).then((it) => it.violations.map((one) =>"
            " `${one.id}: ${one.nodes.slice(0, 3).map((node) => node.html.slice(0, 160) + ' ' +"
            " node.any.map((any) => any.message).join(';')).join(' | ')}`))"
        )
        if found:
            problems[fragment] = found
    assert problems == {}


@ensureDeferred
async def test_everything_is_reached_by_keyboard_and_the_focus_is_seen(visit):
    page = await visit("")
    await page.settled()
    await page.press("Tab")
    assert await page.run(FOCUSED) == "Skip to the page"
    await page.press("Enter")
    assert await page.run("document.activeElement.tagName") == "H1"
    await page.run("document.activeElement.blur()")
    reached = set()
    for _ in range(40):
        await page.press("Tab")
        reached.add(await page.run(FOCUSED))
        assert await page.run(
            "document.activeElement === document.body ||"
            " getComputedStyle(document.activeElement).outlineStyle !== 'none'"
        )
    assert {"Overview", "Channels", "Audit", "Light or dark", "Show"} <= reached


@ensureDeferred
async def test_a_page_is_turned_by_keyboard_and_its_title_takes_the_focus(visit):
    page = await visit("")
    await page.run("document.querySelector('nav a[href=\"#/channels\"]').focus()")
    await page.press("Enter")
    await page.until("document.activeElement.tagName === 'H1'")
    assert await page.run("document.activeElement.textContent") == "Channels"
    assert await page.run("document.querySelector('[aria-current=page]').textContent") == "Channels"
    await page.until("document.querySelector('tbody tr')")
    await page.press("/")
    await page.write("red-thief")
    await page.until("document.querySelectorAll('tbody tr').length === 2")
    for _ in range(20):
        await page.press("Tab")
        if await page.run("document.activeElement.matches('tbody a')"):
            break
    await page.press("Enter")
    await page.says("What would grant it")


@ensureDeferred
async def test_the_focus_stays_in_a_table_that_changes(visit, stage):
    page = await visit("channels")
    await page.until("document.querySelector('tbody a')")
    await page.run("document.querySelector('tbody a').focus()")
    held = await page.run("document.activeElement.textContent")
    await stage.console.label("red-web1d", "db_red")
    row = "[...document.querySelectorAll('tbody tr')].find((it) => /red-web1d/.test(it.innerText))"
    await page.until(f"/db_red/.test({row}.innerText)")
    assert await page.run("document.activeElement.textContent") == held
    await stage.console.label("red-web1d", "web_red")


@ensureDeferred
async def test_on_a_phone_the_menu_opens_and_closes_by_key_and_by_touch(visit):
    page = await visit("", size=(390, 844))
    shown = "getComputedStyle(document.querySelector('.side')).visibility === 'visible'"
    assert not await page.run(shown)
    await page.run("document.querySelector('.menu').focus()")
    await page.press("Enter")
    await page.until(shown)
    assert await page.run("document.querySelector('.menu').getAttribute('aria-expanded')") == "true"
    await page.press("Escape")
    await page.until(f"!({shown})")
    assert await page.run("document.activeElement.matches('.menu')")
    await page.press("Enter")
    await page.click("Channels", "nav a")
    await page.until(f"!({shown})")
    await page.until("document.querySelector('tbody tr')")


@ensureDeferred
async def test_light_or_dark_follows_the_system_until_it_is_chosen(visit):
    page = await visit("")
    ground = "getComputedStyle(document.documentElement).backgroundColor"
    await page.theme("light")
    light = await page.run(ground)
    await page.theme("dark")
    dark = await page.run(ground)
    assert light != dark
    await page.run("document.querySelector('[aria-label=\"Light or dark\"]').click()")
    assert await page.run(ground) == light
    await page.run("document.querySelector('[aria-label=\"Light or dark\"]').click()")
    assert await page.run(ground) == dark
    await page.run("localStorage.removeItem('theme')")
