"""Scenes and daemons that tests share: one scene for each forwarding method and session, cleaned after every test."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.kernel.director import Director
from tests.lab.scene import Forwarding, scene

REAL_SERVERS = 4


@pytest.fixture(scope="session")
def directors() -> Iterator[Callable[[Forwarding], Director]]:
    """Return the director of a forwarding method's scene, made when it is first asked for."""
    made: dict[Forwarding, Director] = {}
    with ExitStack() as stack:

        def director_of(forwarding: Forwarding) -> Director:
            if forwarding not in made:
                made[forwarding] = Director(stack.enter_context(scene(forwarding, real_servers=REAL_SERVERS)))
            return made[forwarding]

        yield director_of


@pytest.fixture
def forwarding() -> Forwarding:
    """Return the forwarding method of `director`'s scene; a test parametrizes it for another."""
    return "masquerade"


@pytest.fixture
def director(forwarding: Forwarding, directors: Callable[[Forwarding], Director]) -> Iterator[Director]:
    """Return a director with an empty table and an empty Consul; its daemon may run, with nothing to do."""
    found = directors(forwarding)
    yield found
    found.clean()
