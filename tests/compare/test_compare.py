"""The other balancers do what they are meant to do: a comparison with a broken one would say nothing."""

from hypothesis import given
from hypothesis import strategies as st

from tests.compare.__main__ import table
from tests.compare.balancers import BALANCERS
from tests.compare.updater import by_line, changes, ipvsadm_text, keepalived_text

VIRTUAL_SERVER = "10.1.0.100:80"
instances = st.dictionaries(st.sampled_from([f"10.2.0.{number}:80" for number in range(1, 6)]), st.integers(0, 9))


def applied(text: str, live: str) -> str:
    """Return the live table after ipvsadm has read these lines; AssertionError for one that it would refuse."""
    now = by_line(live)
    for line in text.splitlines():
        verb, rest = line[:2], line[2:]
        body, _, weight = rest.partition(" -w ")
        match verb:
            case "-A" | "-a":
                assert f"{verb}{body}" not in now
                now[f"{verb}{body}"] = weight
            case "-e":
                assert f"-a{body}" in now
                now[f"-a{body}"] = weight
            case _:
                assert verb == "-d"
                (key,) = (each for each in now if each.startswith(f"-a{body} "))
                del now[key]
    return "".join(f"{line} -w {weight}\n" if weight else f"{line}\n" for line, weight in sorted(now.items()))


@given(before=instances, after=instances, empty=st.booleans())
def test_the_changes_lead_from_any_table_to_the_wanted_one(
    before: dict[str, int], after: dict[str, int], *, empty: bool
) -> None:
    live = "" if empty else ipvsadm_text(VIRTUAL_SERVER, "masquerade", before)
    wanted = ipvsadm_text(VIRTUAL_SERVER, "masquerade", after)
    found = changes(wanted, live)
    assert applied(found, live) == wanted
    assert changes(wanted, wanted) == ""
    verbs = [line[:2] for line in found.splitlines()]
    assert verbs == sorted(verbs, key=lambda verb: verb == "-d"), "what goes comes last"


def test_keepalived_gets_every_instance_with_its_weight() -> None:
    assert keepalived_text(VIRTUAL_SERVER, "direct-route", {"10.2.0.2:80": 7, "10.2.0.1:80": 1}).splitlines() == [
        "virtual_server 10.1.0.100 80 {",
        "    lb_algo wrr",
        "    lb_kind DR",
        "    protocol TCP",
        "    real_server 10.2.0.1 80 {",
        "        weight 1",
        "    }",
        "    real_server 10.2.0.2 80 {",
        "        weight 7",
        "    }",
        "}",
    ]


def test_a_story_is_a_line_and_a_table_that_is_wrong_is_said() -> None:
    rows = [
        {
            "forwarding": "masquerade",
            "story": "a deploy",
            "balancer": each.name,
            "requests": 1000,
            "failed": number,
            "broken": number,
            "right": number < 2,
        }
        for number, each in enumerate(BALANCERS)
    ]
    assert list(table(rows)) == [
        "| forwarding | story | lvsctl | template updater | keepalived |",
        "|---|---|---|---|---|",
        "| masquerade | a deploy | 0 of 1000, 0 broken | 1 of 1000, 1 broken | 2 of 1000, 2 broken, table wrong |",
        "| | all | 0 of 1,000, 0 broken | 1 of 1,000, 1 broken | 2 of 1,000, 2 broken |",
    ]
