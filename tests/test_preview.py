"""A look at what another configuration would do writes nothing and is forgotten, whatever it was of."""

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from lvsctl.config import Config
from lvsctl.core.override import NO_OVERRIDES
from lvsctl.core.part import concerned
from tests import strategies
from tests.test_part import World
from tests.values import KEY, answers_of, config_of, configured, entry, instance, real, table_of


@given(data=st.data(), config=strategies.configs(), other=strategies.configs())
@settings(deadline=None, max_examples=40)
def test_with_and_without_it_everything_ends_the_same(data: st.DataObject, config: Config, other: Config) -> None:
    with tempfile.TemporaryDirectory() as directory:
        plain, looking = World.fresh(Path(directory, "plain")), World.fresh(Path(directory, "looking"))
        keys_of = concerned(config)
        for number in range(data.draw(st.integers(1, 3))):
            answers = data.draw(strategies.answers_for(config))
            only = frozenset().union(*keys_of.values()) if number else None
            ended = plain.reconciler.cycle(config, answers, only)
            looking.kernel.writes.clear()
            before = looking.outcome()
            looking.reconciler.preview(
                other, data.draw(strategies.answers_for(other)), overrides=NO_OVERRIDES, candidates=frozenset()
            )
            assert looking.kernel.writes == []
            assert looking.outcome() == before
            seen = looking.reconciler.cycle(config, answers, only)
            assert seen.only == ended.only  # and it costs no look at everything
            assert looking.outcome() == plain.outcome()


def test_it_is_what_would_be_done(tmp_path: Path) -> None:
    world, config = World.fresh(tmp_path / "state"), config_of()
    world.reconciler.cycle(config, answers_of(config, instance(1)))
    other = config_of(configured(scheduler="rr"))
    look = world.reconciler.preview(
        other, answers_of(other, instance(1), instance(2)), overrides=NO_OVERRIDES, candidates=frozenset()
    )
    assert look.decision.virtual_servers[KEY].intended == entry(real(1), real(2), scheduler="rr")
    assert world.kernel.observe().table == table_of(entry(real(1)))
