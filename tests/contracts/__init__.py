"""The contract suites: one for every store, one for every issuer; each implementation passes its suite whole."""

import pytest

pytest.register_assert_rewrite("tests.contracts.store", "tests.contracts.issuer")
