"""Facts of an installation that was never there: as many secrets as one likes, each with a past, the same at every call."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from random import Random

from rotation import journal
from rotation.incident.evidence import Difference, Evidence, Subject, Times
from rotation.incident.evidence import State as Drilled
from rotation.incident.record import Incident, KeyRecord, SecretRecord
from rotation.incident.record import State as Stage
from rotation.journal import Attempt, Backoff, Frozen, Why
from rotation.model import Consumer, Policy
from rotation.report import Facts, Known
from rotation.report.facts import Line

NOW = datetime(2026, 11, 22, 9, 30, tzinfo=UTC)
OWNERS = ("search", "billing", "support-platform", "identity", "data-science", "checkout", "mobile", "risk")
SERVICES = ("copilot", "ranker", "ledger", "gateway", "mailer", "worker", "export", "mirror", "audit", "etl")
PURPOSES = ("chat", "batch", "embed", "webhook", "database", "admin", "reader", "signer")
ISSUERS = (
    ("openai", "key_"),
    ("anthropic", "apikey_"),
    ("aws-iam", "AKIA"),
    ("postgresql", "role_"),
    ("generated", ""),
)
INCIDENT = "2026-10-03-0312-5eed"


def facts(count: int, *, past: timedelta = timedelta(days=365), trail: bool = True) -> Facts:
    """An installation of so many secrets that has run for so long.

    Parameters:
        trail: whether its audit trail can be read.
    """
    made = Made(count, past)
    return Facts(
        installation="acme",
        environment="prod",
        stack="Pulumi.prod.yaml",
        at=NOW,
        secrets=made.secrets,
        declared=[known.policy for known in made.secrets],
        trail="/var/lib/keyturn/audit/prod.jsonl" if trail else "",
        lines=made.lines if trail else (),
        incidents=[incident()],
        drills=[drill(number) for number in range(3)],
    )


class Made:
    """Secrets with their journals, and the lines of the trail that go with them."""

    def __init__(self, count: int, past: timedelta) -> None:
        self.chance = Random(count)
        self.secrets: list[Known] = []
        self.lines: list[Line] = []
        self.written = 0
        for number in range(count):
            self._secret(number, past)
        self._gone()

    def _secret(self, number: int, past: timedelta) -> None:
        chance = self.chance
        service, purpose = SERVICES[number % len(SERVICES)], PURPOSES[number // len(SERVICES) % len(PURPOSES)]
        name = f"{OWNERS[number % len(OWNERS)]}-{service}-{purpose}-{number:04d}"
        issuer, prefix = ISSUERS[number % len(ISSUERS)]
        every = timedelta(days=chance.choice((30, 30, 30, 60, 90)))
        policy = Policy(
            installation="acme",
            environment="prod",
            name=name,
            store="aws" if number % 3 else "vault",
            replicas=("azure",) if number % 7 == 0 else (),
            issuer=issuer,
            owner=OWNERS[number % len(OWNERS)],
            rotate_every=every,
            grace=timedelta(days=1),
            consumers=(Consumer(f"{service}-api"),) if number % 2 else (),
        )
        late = timedelta(days=6) if number % 97 == 5 else timedelta(0)
        current = NOW - late - every * chance.uniform(0.02, 0.97) - (every * 0.9 if late else timedelta(0))
        at, turns = current, 0
        while at > NOW - past:
            at -= every * chance.uniform(0.93, 0.985)
            turns += 1
        keeps: dict[str, str] = {}
        before: tuple[str, str, datetime] | None = None
        while at <= current + timedelta(seconds=1):
            token = f"{chance.getrandbits(128):032x}"
            key = f"{prefix}{chance.getrandbits(48):012x}"
            leaked = (
                INCIDENT if number == 3 and abs(at - datetime(2026, 10, 3, tzinfo=UTC)) < timedelta(days=20) else None
            )
            run = self._made(policy, token, key, at, leaked, first=before is None)
            if before:
                self._retired(policy, before, at + timedelta(hours=26), run, leaked)
            before = (token, key, at)
            keeps = Attempt(token, "1", policy.stores, at, Why.DUE).written()
            keeps |= journal.key_fact(token, key) | journal.promoted(token, at)
            if at >= current - timedelta(seconds=1):
                break
            at = min(at + every * 0.97, current)
        if number % 211 == 7:
            keeps |= Backoff(3, NOW - timedelta(hours=2), NOW + timedelta(hours=2), "limit").written()
            for hours in (2, 5, 9):
                self._line(policy, "mint.failed", NOW - timedelta(hours=hours), reason="openai: minting: HTTP 429")
        if number % 499 == 11:
            keeps |= journal.condemned("f" * 32, NOW - timedelta(hours=3), Why.RETIRED) | journal.revoked(
                "f" * 32, NOW - timedelta(hours=2)
            )
            keeps |= journal.key_fact("f" * 32, f"{prefix}unproven")
        if number % 600 == 13:
            keeps |= Frozen(NOW - timedelta(days=1), INCIDENT).written()
        self.secrets.append(Known(f"prod/{name}", policy, keeps))

    def _made(self, policy: Policy, token: str, key: str, at: datetime, incident: str | None, *, first: bool) -> str:
        run = f"{Random(at.date().toordinal()).getrandbits(64):016x}@runner-{at.month}"  # a daemon that is restarted daily
        why = (
            "the entry has no credential yet"
            if first
            else "the current credential is condemned or dead"
            if incident
            else f"due since {at:%Y-%m-%d %H:%M}Z"
        )
        steps: list[tuple[str, float, dict[str, object]]] = [
            ("intend", 0, {"reason": why}),
            ("mint.done", 1, {"key_id": key}),
            ("verify", 3, {"reason": "accepted (HTTP 200)", "detail": {"verdict": "valid"}}),
        ]
        steps += [("promote.done", 4 + n, {"store": store}) for n, store in enumerate(policy.stores)]
        for event, seconds, more in steps:
            self._line(
                policy, event, at + timedelta(seconds=seconds), token=token, writer=run, incident=incident, **more
            )
        return run

    def _retired(
        self, policy: Policy, old: tuple[str, str, datetime], at: datetime, run: str, incident: str | None
    ) -> None:
        if at > NOW:
            return
        token, key, _ = old
        took = self.chance.expovariate(1 / 4) + 2
        why = "emergency" if incident else "superseded, grace over, quiet"
        how = {"how": "refused", "revoked": at.isoformat()}
        steps: list[tuple[str, float, dict[str, object]]] = [
            ("condemn", 0.0, {"reason": why}),
            ("revoke.done", 1.0, {"key_id": key}),
            ("prove", took / 2, {"reason": "refused (HTTP 401)", "detail": {"verdict": "invalid"}}),
            ("proven", 1 + took, {"key_id": key, "detail": how}),
        ]
        for event, seconds, more in steps:
            self._line(
                policy, event, at + timedelta(seconds=seconds), token=token, writer=run, incident=incident, **more
            )

    def _gone(self) -> None:
        """One that was destroyed."""
        policy = Policy(
            "acme", "prod", "legacy-exporter-token", "aws", "openai", "billing", timedelta(days=30), timedelta(days=1)
        )
        at = NOW - timedelta(days=200)
        run = self._made(policy, "e" * 32, "key_legacy", at, None, first=True)
        self._retired(policy, ("e" * 32, "key_legacy", at), at + timedelta(days=9), run, None)

    def _line(self, policy: Policy, event: str, at: datetime, **more: object) -> None:
        self.written += 1
        line = {
            "at": at.isoformat(),
            "event": event,
            "secret": f"prod/{policy.name}",
            "outcome": "done",
            "seq": self.written,
        }
        who = {"who": {policy.store: "AppRole at auth/approle role_name=keyturn"}}
        self.lines.append(line | who | {key: value for key, value in more.items() if value is not None})


def incident() -> Incident:
    """One that is over."""
    at = datetime(2026, 10, 3, 3, 12, tzinfo=UTC)
    leaked = KeyRecord(
        "a" * 32, "key_leaked", "current", revoked_at=at + timedelta(seconds=2), proven_at=at + timedelta(seconds=4)
    )
    secret = SecretRecord(
        "identity-ledger-chat-0003", "identity", "vault", "prod/identity-ledger-chat-0003", [], "postgresql", 1, True, 300, [], [leaked]
    )  # fmt: skip
    secret.state, secret.replaced_at, secret.proven_at = (
        Stage.OVER,
        at + timedelta(seconds=2),
        at + timedelta(seconds=4),
    )
    return Incident(
        INCIDENT, "acme", "prod", "Pulumi.prod.yaml", "a finding of a scanner", at, ["oncall@laptop"], False, False, [secret],
        ended_at=at + timedelta(seconds=5),
    )  # fmt: skip


def drill(number: int) -> Evidence:
    """One of a row."""
    at = NOW - timedelta(days=30 * number + 4)
    times = Times(match=0.4, contain=1.9 + number, replace=1.8, prove=3.1 + number, total=4.2, outage=0.9)
    subject = Subject("drill-canary-aws-openai", ["aws"], "openai", "security", canary=True, enforced=True, times=times)
    return Evidence(
        f"{at:%Y-%m-%d-%H%M}-d00{number}", "acme", "prod", "Pulumi.prod.yaml", "security@laptop", at, {}, [subject],
        state=Drilled.PASSED, ended_at=at + timedelta(minutes=1), times=times,
        differences=[Difference("prove", 4.1, 3.1, "better")],
    )  # fmt: skip


def lines_of(found: Facts) -> Iterator[Line]:
    """The records of made facts, which may be read again."""
    return iter(found.lines)
