"""Random policies for properties: small enough that everything can be asked of them."""

from hypothesis import strategies as st

from broker.core import definition as core

LABELS = ("l0", "l1", "l2", "l3")
TYPES = ("t0", "t1", "t2")
WALLS = ("w0", "w1", "w2")
COLOURS = ("c0", "c1")
RESOURCES = ("r0", "r1", "r2")
CLASSES = ("vif", "vbd", "vkbd")
GROUPS = {"g0": ("l0", "l1"), "g1": ("l1", "l2", "l3"), "g2": ()}
WORDS = (*LABELS, *(f"group:{group}" for group in GROUPS))


def subset(names, least=0):
    return st.lists(st.sampled_from(names), unique=True, min_size=least).map(tuple)


@st.composite
def rules(draw, number):
    return core.Rule(
        name=f"channels[{number}]",
        verb=draw(st.sampled_from(("allow", "deny"))),
        classes=draw(subset(CLASSES, 1)),
        frontends=draw(st.none() | subset(WORDS, 1)),
        backends=draw(st.none() | subset(WORDS, 1)),
        resources=draw(st.none() | subset(RESOURCES, 1)),
        mode=draw(st.sampled_from("rw")),
        reason="",
        where=f"f:{number}:1",
    )


@st.composite
def betweens(draw, number):
    pair = draw(st.tuples(st.sampled_from(LABELS), st.sampled_from(LABELS)))
    verb = draw(st.sampled_from(("allow", "deny")))
    return core.Between(f"channels[{number}]", verb, pair, "", f"f:{number}:1")


@st.composite
def definitions(draw, *, renames=False):
    """A policy; with `renames`, labels may be called otherwise than before."""
    named = list(LABELS)
    former = dict.fromkeys(LABELS)
    if renames and draw(st.booleans()):
        named[1] = "n1"
        former["n1"] = "l1"
        if draw(st.booleans()):
            # A name of before, for what was another label then.
            named[1], named[2] = "l2", "n2"
            former = {**dict.fromkeys(named), "l2": "l1"}
    word_of = dict(zip(LABELS, named, strict=True))
    labels = tuple(
        core.Label(
            name,
            draw(subset(TYPES)),
            draw(st.just(()) | st.sampled_from(WALLS).map(lambda it: (it,))),
            draw(subset(COLOURS)),
            former.get(name),
            f"f:{number}:3",
        )
        for number, name in enumerate(named)
    )
    resources = tuple(
        core.Resource(
            name, draw(st.sampled_from(TYPES)), draw(subset(COLOURS)), kind, {}, f"f:{number}:3"
        )
        for number, (name, kind) in enumerate(zip(RESOURCES, (None, "vbd", "vkbd"), strict=True))
    )
    classes = tuple(
        core.DeviceClass(name, name, draw(st.sampled_from(("ste", "deny"))), "")
        for name in draw(st.sampled_from((CLASSES, CLASSES[:2])))
    )
    known = {entry.name for entry in classes}
    made = [draw(rules(number)) for number in range(draw(st.integers(0, 6)))]
    kept = tuple(_renamed(rule, word_of) for rule in made if set(rule.classes) <= known)
    pairs = [draw(betweens(number)) for number in range(10, 10 + draw(st.integers(0, 3)))]
    return core.Definition(
        name="p",
        version=(1, 0),
        replaces=None,
        digest="",
        ste_types=TYPES,
        chinese_wall_types=WALLS,
        conflict_sets=draw(st.sampled_from(({}, {"s": ("w0", "w1")}, {"s": WALLS}))),
        bootstrap="l0",
        labels=labels,
        groups={
            group: tuple(word_of[member] for member in members) for group, members in GROUPS.items()
        },
        resources=resources,
        classes=classes,
        rules=kept,
        betweens=tuple(
            core.Between(it.name, it.verb, tuple(word_of[name] for name in it.pair), "", it.where)
            for it in pairs
        ),
        on_violation={"default": "close"},
        host_authorization=draw(st.booleans()),
        protected=(),
        roles={},
    )


def _renamed(rule, word_of):
    def words(side):
        return None if side is None else tuple(word_of.get(word, word) for word in side)

    return core.Rule(
        rule.name,
        rule.verb,
        rule.classes,
        words(rule.frontends),
        words(rule.backends),
        rule.resources,
        rule.mode,
        rule.reason,
        rule.where,
    )


def possible_requests(definition):
    """Every request that can occur: no resource that is matched by another class."""
    for entry in definition.classes:
        for frontend in definition.labels:
            for backend in definition.labels:
                for resource in (None, *definition.resources):
                    if resource is None or resource.device_class in (None, entry.name):
                        name = None if resource is None else resource.name
                        for mode in "rw":
                            yield entry.name, frontend.name, backend.name, name, mode
