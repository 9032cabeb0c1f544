"""Names of secrets, of their entries, of keys at issuers: what is refused, and that no two things share one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rotation.names import KeyName, dashed, environment_fault, label_fault, name_fault, slashed, token_in

WORD = st.from_regex(r"[a-z0-9]{1,5}", fullmatch=True)
START = st.from_regex(r"[a-z][a-z0-9]{0,4}", fullmatch=True)
SECRETS = (
    st.tuples(START, st.lists(WORD, min_size=1, max_size=4))
    .map(lambda parts: "-".join((parts[0], *parts[1])))
    .filter(lambda name: name_fault(name) is None)
)
ENVIRONMENTS = st.from_regex(r"[a-z][a-z0-9]{0,8}", fullmatch=True)
INSTALLATIONS = (
    st.tuples(START, st.lists(WORD, max_size=3))
    .map(lambda parts: "-".join((parts[0], *parts[1])))
    .filter(lambda name: label_fault(name) is None)
)
TOKENS = st.from_regex(r"[0-9a-f-]{32,36}", fullmatch=True)

OWN = "must not contain '--' or end in '-pending', '-journal' or '-policy': those mark entries of Keyturn's own"
FORM = "must be <service>-<purpose> in lower case letters, digits and '-', as in support-copilot-chat"


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("support-copilot-chat", None),
        ("rag-worker-01", None),
        ("a-1", None),
        (f"a-{'b' * 62}", None),
        (f"a-{'b' * 63}", "must have at most 64 characters"),
        ("chat", FORM),
        ("", FORM),
        ("Support-chat", FORM),
        ("support_copilot-chat", FORM),
        ("support-chat\n", FORM),
        ("1st-chat", FORM),
        ("support-", FORM),
        ("-support-chat", FORM),
        ("support-chät", FORM),
        ("support-c٣", FORM),
        ("prod/support-chat", FORM),
        ("support--chat", OWN),
        ("support-chat-pending", OWN),
        ("support-chat-journal", OWN),
        ("support-chat-policy", OWN),
    ],
)
def test_names_of_secrets(name: str, fault: str | None) -> None:
    """`<service>-<purpose>` with an optional number; Keyturn's own marks are refused."""
    assert name_fault(name) == fault


LABEL = "must be lower case letters, digits and single '-', starting with a letter, not ending in '-pending'"
ENVIRONMENT = "must be lower case letters and digits, starting with a letter, without '-'"


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("prod", None),
        ("prod-eu", ENVIRONMENT),
        ("a" * 32, None),
        ("a" * 33, "must have at most 32 characters"),
        ("", LABEL),
        ("Prod", LABEL),
        ("prod.eu", LABEL),
        ("prod--eu", ENVIRONMENT),
        ("prod-", ENVIRONMENT),
        ("prod-pending", ENVIRONMENT),
        ("1prod", LABEL),
        ("prod\n", LABEL),
    ],
)
def test_names_of_environments(name: str, fault: str | None) -> None:
    """Nothing that could be mistaken for a separator of entry or key names."""
    assert environment_fault(name) == fault


def test_the_longest_names_fit_every_store() -> None:
    """Key Vault takes 127 characters, the sibling's suffix included; Secrets Manager 512."""
    environment, name = "e" * 32, f"s-{'n' * 62}"
    assert environment_fault(environment) is None
    assert name_fault(name) is None
    assert len(dashed(environment, name) + "-pending") <= 127
    assert len(slashed(environment, name) + "-pending") <= 512


@given(one=st.tuples(ENVIRONMENTS, SECRETS), other=st.tuples(ENVIRONMENTS, SECRETS))
def test_no_two_secrets_share_a_key_name(one: tuple[str, str], other: tuple[str, str]) -> None:
    """The orphan sweep of one never takes the other's keys for its own."""
    names = [str(KeyName("acme", *secret, "t")) for secret in (one, other)]
    assert (names[0] == names[1]) == (one == other)


@given(one=st.tuples(ENVIRONMENTS, SECRETS), other=st.tuples(ENVIRONMENTS, SECRETS))
def test_no_two_secrets_share_an_entry(one: tuple[str, str], other: tuple[str, str]) -> None:
    """Nor does one's entry ever stand where another's pending or journal entry would."""
    for entry in (slashed, dashed):
        assert (entry(*one) == entry(*other)) == (one == other)
        for sibling in ("-pending", "-journal", "-policy"):
            assert entry(*one) + sibling != entry(*other)


@given(installation=INSTALLATIONS, environment=ENVIRONMENTS, secret=SECRETS, token=TOKENS)
def test_a_keys_name_gives_its_token_back(installation: str, environment: str, secret: str, token: str) -> None:
    """What was minted in an attempt is found again by it."""
    name = str(KeyName(installation, environment, secret, token))
    assert KeyName.parse(name) == KeyName(installation, environment, secret, token)
    assert token_in(name, installation=installation, environment=environment, secret=secret) == token


@pytest.mark.parametrize(
    "name",
    [
        "acme.prod-support-chat.",
        "acme.prod-support-chat",
        "acme.prod-support-chat-2.t1",
        "acme.prod-support-chat.t1.more",
        "acme2.prod-support-chat.t1",
        "acme.staging-support-chat.t1",
        "my acme.prod-support-chat.t1",
        "ACME.prod-support-chat.t1",
        "",
    ],
)
def test_a_key_of_anything_else_is_not_ours(name: str) -> None:
    """Only what carries installation, environment, secret and a token, exactly."""
    assert token_in(name, installation="acme", environment="prod", secret="support-chat") is None
