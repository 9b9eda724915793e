"""What overrides make of the weights of a virtual server: what was asked, never an empty pool, the same everywhere."""

from fractions import Fraction

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lvsctl.core.admission import Admitted
from lvsctl.core.desired import Wanted, desired
from lvsctl.core.instance import Answer, Instance
from lvsctl.core.override import (
    WHOLE,
    Fixed,
    Ignored,
    Override,
    Overrides,
    Percent,
    Share,
    matches,
    next_end,
    parse_share,
    standing,
)
from lvsctl.core.weighing import NO_SHARES, Effect, Outcome, override_words, unfit, weigh, why_weighed
from lvsctl.core.words import moment
from netlink.types import RealServerKey
from tests.values import NOW, answers_of, config_of, configured, failing, instance, limits, real_key

SCHEDULERS = ("wrr", "wlc", "sh", "mh", *NO_SHARES)

shares = st.one_of(
    st.builds(Percent, st.integers(0, WHOLE)),
    st.builds(Percent, st.sampled_from((0, 500, 1000, 5000, WHOLE))),
    st.builds(Fixed, st.integers(0, 65535)),
    st.builds(Fixed, st.integers(0, 3)),
)


@st.composite
def pools(draw: st.DrawFn) -> dict[RealServerKey, tuple[int, Instance]]:
    """Draw the instances that may serve: own weight and tags, none to eight of them."""
    number = draw(st.integers(0, 8))
    tags = st.sets(st.sampled_from(("v1", "v2", "v3"))).map(tuple)
    return {
        real_key(at): (draw(st.sampled_from((0, 1, 1, 5, 65535))), instance(at, tags=draw(tags)))
        for at in range(1, number + 1)
    }


@st.composite
def override_lists(draw: st.DrawFn) -> tuple[Override, ...]:
    """Draw overrides of reco for different selectors, in their order."""
    selectors = draw(st.lists(st.sampled_from(("v1", "v2", "v3")), max_size=3, unique=True))
    return tuple(
        Override(virtual_server="reco", selector=selector, share=draw(shares), created=at)
        for at, selector in enumerate(selectors)
    )


def own_of(pool: dict[RealServerKey, tuple[int, Instance]]) -> dict[RealServerKey, int]:
    return {key: weight for key, (weight, _) in pool.items()}


def instances_of(pool: dict[RealServerKey, tuple[int, Instance]]) -> dict[RealServerKey, Instance]:
    return {key: found for key, (_, found) in pool.items()}


@given(pool=pools(), overrides=override_lists(), scheduler=st.sampled_from(SCHEDULERS))
def test_a_pool_that_serves_is_never_emptied_and_weights_are_the_kernels(
    pool: dict[RealServerKey, tuple[int, Instance]], overrides: tuple[Override, ...], scheduler: str
) -> None:
    own = own_of(pool)
    weighed = weigh(own, instances_of(pool), overrides, scheduler)
    assert list(weighed.weights) == list(own)
    assert all(0 <= weight <= 65535 for weight in weighed.weights.values())
    assert any(weighed.weights.values()) == any(own.values())
    assert all(weighed.weights[key] == 0 for key, weight in own.items() if weight == 0), "its owner quiesced it"
    assert [effect.override for effect in weighed.effects] == list(overrides)


@given(pool=pools(), overrides=override_lists(), scheduler=st.sampled_from(SCHEDULERS), data=st.data())
def test_the_order_of_instances_does_not_matter(
    pool: dict[RealServerKey, tuple[int, Instance]],
    overrides: tuple[Override, ...],
    scheduler: str,
    data: st.DataObject,
) -> None:
    shuffled = dict(data.draw(st.permutations(list(pool.items()))))
    one = weigh(own_of(pool), instances_of(pool), overrides, scheduler)
    assert weigh(own_of(shuffled), instances_of(shuffled), overrides, scheduler) == one


@given(pool=pools(), overrides=override_lists(), scheduler=st.sampled_from(SCHEDULERS))
def test_nobody_is_quiesced_but_by_a_share_that_says_so(
    pool: dict[RealServerKey, tuple[int, Instance]], overrides: tuple[Override, ...], scheduler: str
) -> None:
    own = own_of(pool)
    weighed = weigh(own, instances_of(pool), overrides, scheduler)
    all_given = sum(
        each.override.share.hundredths
        for each in weighed.effects
        if isinstance(each.override.share, Percent) and each.matching and each.outcome is not Outcome.NOBODY
    )
    for key, weight in weighed.weights.items():
        if weight == 0 and own[key] > 0:
            override = weighed.by.get(key)
            zero = override is not None and override.share in (Percent(0), Fixed(0))
            nothing_left = (override is None or isinstance(override.share, Fixed)) and all_given >= WHOLE
            assert zero or nothing_left, (key, weighed)


@given(pool=pools(), hundredths=st.integers(1, WHOLE - 1), scheduler=st.sampled_from(("wrr", "wlc", "mh", "sh")))
def test_a_percentage_is_kept_to_a_rounding_for_each_instance(
    pool: dict[RealServerKey, tuple[int, Instance]], hundredths: int, scheduler: str
) -> None:
    override = Override(virtual_server="reco", selector="v2", share=Percent(hundredths))
    weights = weigh(own_of(pool), instances_of(pool), (override,), scheduler).weights
    total = sum(weights.values())
    its = [weights[key] for key, (own, found) in pool.items() if own and "v2" in found.tags]
    rest = [weights[key] for key, (own, found) in pool.items() if own and "v2" not in found.tags]
    if its and rest:
        assert abs(Fraction(sum(its), total) - Fraction(hundredths, WHOLE)) <= Fraction(2 * len(pool), total)
    else:
        assert weights == own_of(pool)


V1, V2, V3 = (instance(number, tags=(f"v{number}",)) for number in (1, 2, 3))
OLD = tuple(instance(number, tags=("v1",)) for number in (4, 5, 6))


def override(selector: str, share: str, **changes: object) -> Override:
    return attrs.evolve(
        Override(virtual_server="reco", selector=selector, share=parse_share(share)),
        **changes,  # type: ignore[arg-type]
    )


def wanted(*overrides: Override, instances: tuple[Instance, ...] = (V2, *OLD), scheduler: str = "wrr") -> Wanted:
    config = config_of(configured(scheduler=scheduler))
    return desired(config, answers_of(config, *instances), limits(config), None, {"reco": overrides})["reco"]


def weights(*overrides: Override, instances: tuple[Instance, ...] = (V2, *OLD), scheduler: str = "wrr") -> list[int]:
    """Return the weights in the order of `instances`."""
    found = wanted(*overrides, instances=instances, scheduler=scheduler).entry.real_servers
    return [found[key].weight for key in found]


def effect(*overrides: Override, instances: tuple[Instance, ...] = (V2, *OLD), scheduler: str = "wrr") -> Effect:
    """Return what became of the last override."""
    return wanted(*overrides, instances=instances, scheduler=scheduler).weighed.effects[-1]


def test_a_percentage_a_weight_and_nothing() -> None:
    assert weights() == [1, 1, 1, 1]
    assert weights(override("v2", "5%")) == [3, 19, 19, 19]
    assert weights(override("v2", "50%")) == [3, 1, 1, 1]
    assert weights(override("v2", "10")) == [10, 1, 1, 1]
    assert weights(override("v2", "0%")) == weights(override("v2", "0")) == [0, 1, 1, 1]
    assert weights(override("v2", "100%")) == [1, 0, 0, 0]


def test_metadata_selects_too() -> None:
    canary = instance(2, meta={"version": "2"})
    assert weights(override("version=2", "5%"), instances=(canary, *OLD)) == [3, 19, 19, 19]
    tagged = instance(2, tags=("version=2",))
    assert weights(override("version=2", "5%"), instances=(tagged, *OLD)) == [3, 19, 19, 19]
    assert not matches("version", canary)
    assert not matches("version=", canary)
    assert not matches("version=3", canary)


def test_two_percentages_leave_the_rest_to_the_others() -> None:
    pool = (V2, V3, *OLD)
    assert weights(override("v2", "5%"), override("v3", "10%"), instances=pool) == [3, 6, 17, 17, 17]


def test_a_fixed_weight_counts_as_if_it_were_registered() -> None:
    pool = (V2, V3, *OLD)
    assert weights(override("v3", "10"), override("v2", "50%"), instances=pool) == [13, 10, 1, 1, 1]


def test_where_nothing_matches_nothing_changes() -> None:
    assert weights(override("v9", "5%")) == [1, 1, 1, 1]
    assert effect(override("v9", "5%")).outcome is Outcome.NOBODY
    out = failing(2, tags=("v2",))
    assert weights(override("v2", "100%"), instances=(out, *OLD)) == [1, 1, 1]


def test_where_everything_matches_they_serve_alone_with_their_own_weights() -> None:
    heavy = attrs.evolve(V2, weight=7)
    assert weights(override("v2", "5%"), instances=(heavy,)) == [7]
    found = effect(override("v2", "5%"), instances=(heavy,))
    assert (found.outcome, found.why_not) == (Outcome.ALONE, "nobody else may serve, so they have it all")


def test_where_nothing_would_serve_no_override_counts() -> None:
    assert weights(override("v2", "0%"), instances=(V2,)) == [1]
    found = effect(override("v2", "0%"), instances=(V2,))
    assert (found.outcome, found.smallest) == (Outcome.EMPTYING, 1)


def test_more_than_all_leaves_out_the_younger() -> None:
    first, second = override("v1", "60%"), override("v2", "60%")
    assert weights(first, second) == weights(first)
    assert effect(first, second).why_not == "more than 100% with those before it, which leave 40%"


@pytest.mark.parametrize("share", ["5%", "100%", "10"])
def test_what_its_owner_quiesced_no_override_raises_and_it_says_so(share: str) -> None:
    quiesced = attrs.evolve(V2, weight=0)
    assert weights(override("v2", share), instances=(quiesced, *OLD)) == [0, 1, 1, 1]
    found = effect(override("v2", share), instances=(quiesced, *OLD))
    assert (found.outcome, found.matching) == (Outcome.QUIESCED, 1)
    assert found.why_not == "the instances' own weight is 0, which no override raises"
    for nothing in ("0", "0%"):
        assert not effect(override("v2", nothing), instances=(quiesced, *OLD)).why_not, "it does what it says"


def test_of_some_that_are_quiesced_a_fixed_weight_says_how_many() -> None:
    pool = (V2, attrs.evolve(instance(4), tags=("v2",), weight=0), *OLD[1:])
    found = effect(override("v2", "10"), instances=pool)
    assert (found.outcome, found.smallest, found.largest) == (Outcome.EFFECTIVE, 0, 10)
    assert found.why_not == "1 of them stay at 0, their own weight, which no override raises"
    assert not effect(override("v2", "5%"), instances=pool).why_not, "the others have the share"


def test_a_percentage_beside_one_that_nobody_has_is_all() -> None:
    v2, v3 = attrs.evolve(V2, weight=0), V3
    found = effect(override("v2", "50%"), override("v3", "50%"), instances=(v2, v3))
    assert found.outcome is Outcome.ALONE


def test_what_two_select_is_the_olders() -> None:
    both = instance(2, tags=("v2", "blue"))
    assert weights(override("blue", "0"), override("v2", "50%"), instances=(both, *OLD)) == [0, 1, 1, 1]
    assert weights(override("v2", "50%"), override("blue", "0"), instances=(both, *OLD)) == [3, 1, 1, 1]
    assert effect(override("v2", "50%"), override("blue", "0"), instances=(both, *OLD)).outcome is Outcome.NOBODY


@pytest.mark.parametrize("scheduler", NO_SHARES)
def test_a_scheduler_that_cannot_share_says_so_and_nothing_changes_but_by_all_or_nothing(scheduler: str) -> None:
    assert weights(override("v2", "5%"), scheduler=scheduler) == [1, 1, 1, 1]
    found = effect(override("v2", "5%"), scheduler=scheduler)
    assert (found.outcome, found.why_not) == (Outcome.UNFIT, f"scheduler {scheduler} {NO_SHARES[scheduler]}")
    assert weights(override("v2", "0%"), scheduler=scheduler) == [0, 1, 1, 1]
    assert weights(override("v2", "100%"), scheduler=scheduler) == [1, 0, 0, 0]


def test_a_fixed_weight_is_nothing_to_a_scheduler_without_weights() -> None:
    assert "ignores weights" in unfit(Fixed(10), "rr")
    assert not unfit(Fixed(10), "fo")
    assert not unfit(Fixed(0), "rr")


def test_words() -> None:
    said = override("v2", "5%", by="alice@admin1", until=1_700_000_000.0, reason="canary")
    assert override_words(said) == "override 'v2' 5% of 'alice@admin1' until 2023-11-14 22:13 UTC ('canary')"
    assert override_words(override("v2", "5%")) == "override 'v2' 5%"
    weighed = wanted(said).weighed
    assert why_weighed(weighed, real_key(2)) == why_weighed(weighed, real_key(4)) == override_words(said)
    assert why_weighed(wanted(override("v2", "10")).weighed, real_key(4)) == ""
    assert moment(0) == "1970-01-01 00:00 UTC"
    assert moment(951_782_399.9) == "2000-02-28 23:59 UTC"
    assert moment(951_782_400) == "2000-02-29 00:00 UTC"


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("5%", Percent(500)), ("0%", Percent(0)), ("100%", Percent(WHOLE)), ("0.5%", Percent(50)),
        ("12.34%", Percent(1234)), ("100.00%", Percent(WHOLE)), ("0", Fixed(0)), ("10", Fixed(10)),
        ("65535", Fixed(65535)),
    ],
)  # fmt: skip
def test_a_share(text: str, share: Share) -> None:
    assert parse_share(text) == share
    assert parse_share(str(share)) == share


@pytest.mark.parametrize(
    "text",
    ["", "%", "-1", "-1%", "101%", "100.01%", "5.123%", "65536", "1e3", "NaN", " 5", "5 ", "5\n", "05",
     "\N{ARABIC-INDIC DIGIT FIVE}%",     "\N{ARABIC-INDIC DIGIT FIVE}", "5%%",
     "0x10", "+5", "5.%", ".5%", "1000%", "9" * 400],
)  # fmt: skip
def test_no_share(text: str) -> None:
    with pytest.raises(ValueError, match="it is not a share"):
        parse_share(text)


def test_an_override_is_over_at_its_time() -> None:
    ends, stays = override("v2", "5%", until=NOW), override("v3", "5%")
    overrides = Overrides(entries=(ends, stays), ignored=(Ignored(key="x", why="y"),))
    assert standing(overrides, NOW - 1) == {"reco": (ends, stays)}
    assert standing(overrides, NOW) == {"reco": (stays,)}
    assert next_end(overrides, NOW - 1) == NOW
    assert next_end(overrides, NOW) is None


def test_the_same_again_is_not_made_again() -> None:
    config = config_of(configured(scheduler="wrr"))
    answers, bounds = answers_of(config, V2, *OLD), limits(config)
    first = desired(config, answers, bounds, None, {"reco": (override("v2", "5%"),)})
    known = {each.config.key: each for each in first.values()}
    again = desired(config, answers, bounds, known, {"reco": (override("v2", "5%"),)})
    assert again["reco"] is first["reco"]
    assert desired(config, answers, bounds, known, {})["reco"] is not first["reco"]


@pytest.mark.parametrize(("written", "weight"), [("5", 5), ("0", 0), ("65535", 1000), ("1000", 1000), ("1001", 1000)])
def test_a_weight_in_the_metadata_counts_where_it_is_opened(written: str, weight: int) -> None:
    config = config_of(configured(weight_meta="lvs-weight"))
    bounds = attrs.evolve(limits(config), max_weight=1000)
    found = desired(config, answers_of(config, instance(1, weight=9, meta={"lvs-weight": written})), bounds)["reco"]
    assert found.entry.real_servers[real_key(1)].weight == weight
    closed = config_of()
    shut = desired(closed, answers_of(closed, instance(1, weight=9, meta={"lvs-weight": written})), bounds)["reco"]
    assert shut.entry.real_servers[real_key(1)].weight == 9


@pytest.mark.parametrize(
    "written",
    [
        "-1",
        "2147483648",
        "65536",
        "NaN",
        "",
        " 5",
        "5 ",
        "1e3",
        "\N{ARABIC-INDIC DIGIT FIVE}",
        "5\n",
        "0x5",
        "5.0",
        "+5",
        "05",
        "9" * 4096,
    ],
)
def test_what_is_no_weight_in_the_metadata_is_not_used_and_said(written: str) -> None:
    config = config_of(configured(weight_meta="lvs-weight"))
    found = desired(config, answers_of(config, instance(1, weight=9, meta={"lvs-weight": written})), limits(config))[
        "reco"
    ]
    verdict = found.by_key[real_key(1)].verdict
    assert isinstance(verdict, Admitted)
    assert verdict.weight == found.entry.real_servers[real_key(1)].weight == 9
    assert verdict.note.startswith("meta 'lvs-weight' is ")
    assert len(verdict.note) < 150


def test_an_override_counts_before_the_metadata_and_that_before_the_weights() -> None:
    config = config_of(configured(weight_meta="w"))
    member = instance(1, weight=9, tags=("v2",), meta={"w": "5"})
    answers = {query: Answer(instances=(member, instance(2))) for query in answers_of(config)}
    own = desired(config, answers, limits(config))["reco"].entry.real_servers[real_key(1)]
    over = desired(config, answers, limits(config), None, {"reco": (override("v2", "7"),)})["reco"]
    assert own.weight == 5
    assert over.entry.real_servers[real_key(1)].weight == 7
