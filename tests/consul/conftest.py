"""How hard property tests try, without a deadline for one example, for the machine may be busy; and certificates."""

import pytest
from hypothesis import settings

from tests.consul.certificates import Certificates

settings.register_profile("lvsctl", deadline=None, max_examples=60)
settings.load_profile("lvsctl")


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Return an authority and what it signed."""
    return Certificates.make(tmp_path_factory.mktemp("tls"))
