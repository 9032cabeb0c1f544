"""From what an alert has found to an incident: matched, planned, recorded, owners told; carried out where that is declared."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from rotation import inventory, sweep
from rotation.assembly import Assembly
from rotation.errors import Code, Trouble
from rotation.incident import gather, intake
from rotation.incident import plan as plans
from rotation.incident import record as records
from rotation.incident.record import Files, Incident, SecretRecord
from rotation.incident.run import Runner, Saver
from rotation.incident.selection import Selection
from rotation.leaks.finding import Finding
from rotation.leaks.match import Match, Standing, match
from rotation.ports import Notice, Severity
from rotation.webhook.delivery import Alert

_log = logging.getLogger(__name__)

RAN_BY = "keyturn serve"
"""Who opened an incident, in its record."""


class Unclear(Trouble):
    """Whose a value is can not be told now.

    Parameters:
        alive: its issuer accepts it.
    """

    def __init__(self, message: str, *, alive: bool) -> None:
        super().__init__(Code.UNAVAILABLE, "webhook", message)
        self.alive = alive


@dataclass(frozen=True, slots=True, eq=False)
class Opening:
    """Makes incidents of what is reported. One at a time.

    Parameters:
        assembly: engine, stores, issuers, notifier.
        stack: the stack file's name, for records and messages.
        files: where records are kept.
        hearing: has a runner hear the audit trail of its incident, for as long as the context is open.
        act: carry it out; otherwise only the plan is recorded.
        owner: who is told of what is no secret's; None for the log alone.
    """

    assembly: Assembly
    stack: str
    files: Files
    hearing: Callable[[Runner, Incident], AbstractContextManager[None]]
    act: bool
    owner: str | None

    def open(self, alert: Alert, findings: Sequence[Finding]) -> str:
        """Does what is to be done about an alert, and says what that was, without a value.

        Raises:
            Unclear: whether it is ours can not be told, as something did not answer, or too little is known of it.
            Trouble: the record can not be written. Either may be repeated.
        """
        managed, unseen = inventory.managed(self.assembly, self.stack)
        matches = match(self.assembly, findings, managed, unseen)
        ours = [one for one in matches if one.alive and one.standing not in (Standing.STRANGER, Standing.UNKNOWN)]
        unsure = [one for one in matches if one.standing is Standing.UNKNOWN]
        if unsure and not ours:
            raise Unclear(f"{alert} can not be told: {unsure[0].how}; {unsure[0].next_step}", alive=unsure[0].alive)
        if not ours:
            told = "; ".join(dict.fromkeys(f"{one.standing.value}: {one.how}" for one in matches))
            return f"nothing of ours that is alive ({told or 'no value is open in it any more'})"
        if (known := self._known(ours)) is not None:
            return self._again(known, alert)
        return self._begin(alert, matches, ours)

    def _begin(self, alert: Alert, matches: Sequence[Match], ours: Sequence[Match]) -> str:
        a = self.assembly
        selection = intake.narrowed(Selection(), matches)
        plan = None
        if selection.leaked or selection.leaked_admins:
            chosen = gather.gather(a, selection, self.stack)
            plan = plans.make(a, selection, chosen, leaks=intake.by_secret(matches))
        if plan is None or not (plan.steps or plan.admin):
            first = ours[0]
            self.tell(
                alert,
                f"a key of {first.issuer or 'an issuer'} has leaked that is of no secret",
                f"{first.how}. Keyturn changes nothing about it. Next, by you: {first.next_step}.",
                Severity.CRITICAL,
            )
            return f"alive, and of no secret: {first.next_step}"
        now = a.clock.now()
        incident = records.begin(
            plan,
            intake.recorded(matches),
            identity=records.identity(now, secrets.token_hex(2)),
            installation=a.config.installation,
            environment=a.config.environment,
            stack=self.stack,
            began_at=now,
            ran_by=RAN_BY,
        )
        self.files.save(incident)
        if self.act and plan.admin is None and plan.steps:
            return self._run(incident)
        self._told(incident, alert)
        why = "the administrative credential comes first, by hand" if plan.admin else "nothing was changed"
        return f"incident {incident.id} planned for {_names(incident.secrets) or 'no secret'}; {why}"

    # --- what is known already -------------------------------------------------------------------

    def _known(self, ours: Sequence[Match]) -> Incident | None:
        """An incident that is not over and is about each of these: several places of one leak are one incident."""
        wanted = {(one.policy.name, one.token) for one in ours if one.policy and one.token}
        if not wanted or len(wanted) < len(ours):
            return None
        here = (self.assembly.config.installation, self.assembly.config.environment)
        for incident in self.files.all():
            if (incident.installation, incident.environment) != here or incident.over:
                continue
            if wanted <= {(secret.name, key.token) for secret in incident.secrets for key in secret.keys}:
                return incident
        return None

    def _again(self, incident: Incident, alert: Alert) -> str:
        if self.act and incident.ran_by == [RAN_BY] and incident.admin is None:
            incident.resumed_at.append(self.assembly.clock.now())
            return self._run(incident)
        if alert.action == "publicly_leaked":
            self._told(incident, alert)
        return f"belongs to incident {incident.id}, which is open"

    # --- carrying it out -------------------------------------------------------------------------

    def _run(self, incident: Incident) -> str:
        def write() -> None:
            with runner.lock:
                self.files.save(incident)

        saver = Saver(write)
        runner = Runner(self.assembly, incident, save=saver.save, keep=saver.keep)
        sweep.opened(
            self.assembly,
            (one for one in self.assembly.config.policies if one.name in {secret.name for secret in incident.secrets}),
        )
        with self.hearing(runner, incident), saver:
            runner.run()
        if incident.alive:
            return f"incident {incident.id}: alive or not shown dead: {', '.join(incident.alive)}"
        return f"incident {incident.id} carried out for {_names(incident.secrets)}"

    # --- telling ---------------------------------------------------------------------------------

    def _told(self, incident: Incident, alert: Alert) -> None:
        """Owners of the secrets of a plan that waits for a person."""
        by_owner: dict[str, list[SecretRecord]] = {}
        for secret in incident.secrets:
            by_owner.setdefault(secret.owner, []).append(secret)
        first = f"First of all: {incident.admin}. " if incident.admin else ""
        for owner, group in (by_owner or {self.owner or "": []}).items():
            names = _names(group) or "an administrative credential"
            places = ", ".join(dict.fromkeys(leak.where for leak in incident.leaks if leak.where))
            text = (
                f"GitHub has found a credential of {names} ({incident.environment}): {alert}{f', {places}' if places else ''}. "
                f"It is alive. Nothing was changed. {first}`keyturn incident show {incident.id}` has the plan, and "
                f"`keyturn emergency --resume {incident.id}` carries it out: replaces, revokes, and shows dead."
            )
            public = " in public" if alert.action == "publicly_leaked" else ""
            subject = f"incident {incident.id}: {names} has leaked{public}"
            self._notice(owner, names, subject, text, Severity.CRITICAL, incident.id)

    def tell(self, alert: Alert, subject: str, text: str, severity: Severity) -> None:
        """Whoever is told of what is no secret's."""
        _log.warning("%s: %s. %s", alert, subject, text)
        if self.owner is not None:
            self._notice(self.owner, str(alert), f"{alert}: {subject}", text, severity)

    def _notice(
        self, owner: str, secret: str, subject: str, text: str, severity: Severity, incident: str | None = None
    ) -> None:
        a = self.assembly
        facts = {"incident": incident} if incident else {}
        a.notifier.tell(
            Notice(
                "incident.reported",
                severity,
                a.clock.now(),
                a.config.environment,
                secret,
                owner,
                subject,
                text,
                facts,
            )
        )


def _names(found: Sequence[SecretRecord]) -> str:
    return ", ".join(secret.name for secret in found)
