"""What every test gets."""

from __future__ import annotations

import os
from collections.abc import Iterator

import hypothesis
import pytest

# A slow machine is no failure, and a failure anywhere must be reproducible everywhere.
hypothesis.settings.register_profile("default", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "default")


@pytest.fixture(autouse=True, scope="session")
def no_settings_from_outside() -> Iterator[None]:
    """Keep the settings that the person running the tests has in the environment out of them."""
    from common.settings import TABLE

    with pytest.MonkeyPatch.context() as patch:
        for row in TABLE:
            patch.delenv(row.env, raising=False)
        yield
