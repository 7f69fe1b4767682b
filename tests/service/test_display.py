"""When what is only for people gets its turn."""

from twisted.internet.task import Clock

from broker.service.display import DELAY, PATIENCE, Display


def shown_when_due(clock: Clock) -> tuple[Display, list[float]]:
    """A display, and the moments at which it was due while nothing was being decided."""
    due: list[float] = []

    def on_due() -> None:
        if display.due(idle=True):
            due.append(clock.seconds())
            display.begin()
        else:
            display.soon()

    display = Display(clock, on_due)
    return display, due


def test_what_is_for_people_is_shown_soon_when_all_is_quiet():
    clock = Clock()
    clock.advance(1000.0)
    display, due = shown_when_due(clock)
    display.soon()
    clock.pump([DELAY] * 3)
    assert due == [1000.0 + DELAY]


def test_between_two_requests_it_is_not_quiet_yet_but_people_do_not_wait_for_ever():
    clock = Clock()
    clock.advance(1000.0)
    display, due = shown_when_due(clock)
    display.soon()
    step = DELAY / 8
    while clock.seconds() < 1000.0 + 2 * PATIENCE:
        display.wait()
        clock.advance(step)
    assert len(due) == 1
    assert PATIENCE <= due[0] - 1000.0 <= PATIENCE + 4 * DELAY


def test_it_waits_while_something_is_being_decided():
    clock = Clock()
    display, _ = shown_when_due(clock)
    display._on_due = lambda: None
    display.soon()
    clock.advance(DELAY)
    assert not display.due(idle=False)
    clock.advance(PATIENCE)
    assert display.due(idle=False)
