"""A fire drill: leaks credentials on purpose, deals with that as an emergency, and measures all of it.

    canaries ──► provision ──► first use ──► gitleaks report ──► match ─► plan ─► Runner ──► thaw ──► prove again ──► clean up
                                   └───────── an application uses each credential all the while ─────────┘

Everything between the report and the proof is what `keyturn emergency --leak` does, by the same functions. A drill that is
killed leaves canaries behind, which their tag tells: the next one removes them first.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final

from rotation import fleet, inventory
from rotation import policy as policies
from rotation.assembly import Assembly
from rotation.declared import ConfigError
from rotation.engine import Target
from rotation.errors import Code, Trouble
from rotation.incident import evidence as evidences
from rotation.incident import gather as gathering
from rotation.incident import intake
from rotation.incident import plan as plans
from rotation.incident import record as records
from rotation.incident.bystander import Bystander, Seen, at_work
from rotation.incident.evidence import Evidence, Subject, Told
from rotation.incident.record import Files as Incidents
from rotation.incident.record import Incident, SecretRecord
from rotation.incident.run import PATIENCE, Runner, Saver
from rotation.incident.selection import Selection
from rotation.leaks import reports
from rotation.leaks.fingerprint import telling
from rotation.leaks.match import Match, Standing, match
from rotation.model import Consumer, Credential, Drain, Model, Policy, Schedule, Verdict
from rotation.names import name_fault
from rotation.notify import runs
from rotation.notify.telling import Telling
from rotation.policy import show_duration
from rotation.ports import Clock, Issuer, Notice, Notifier, Record, SecretStore
from rotation.provision import Provisioner, Refusal
from rotation.situation import ATTEMPT_LIFE, Observation

CANARY: Final = "drill-canary"
"""What the names of canaries begin with."""
TAG: Final = "drill"
"""The tag of a canary: the id of its drill."""
LONGEST: Final = timedelta(hours=1)
"""A drill that began longer ago, and has left something, is over."""
_PRODUCTION: Final = "prod"
AGE: Final = ATTEMPT_LIFE + timedelta(seconds=30)
"""How old a credential has to be so that no delayed write may bring it back."""
_ROUNDS: Final = 2
"""How often the removal of a canary is tried."""

Listen = Callable[[str, Callable[[Record], None]], None]
"""Has an incident, by its id, hear the records of the audit trail from now on."""


# --- what is drilled -------------------------------------------------------------------------------


def production(environment: str) -> bool:
    """Whether a drill in this environment has to be asked for in so many words."""
    return environment == _PRODUCTION


def canaries(assembly: Assembly, identity: str, *, slow: bool = False) -> tuple[list[Policy], list[str]]:
    """A canary for each pair of store and issuer that the stack uses, and which pairs have none, with the reason.

    Only where another key beside the stack's own hurts nobody: an issuer with places, or with room for one key, would
    have to destroy a credential that somebody uses.

    Parameters:
        slow: also in stores without compare-and-set, where a young credential is not let go of for AGE.

    Raises:
        Trouble: an issuer that allows few keys does not say how many there are.
        ConfigError: a login is not set.
    """
    config, issuers = assembly.config, assembly.issuers
    found: list[Policy] = []
    notes: list[str] = []
    pairs: dict[tuple[str, str], Policy] = {}
    for policy in config.policies:
        for store in policy.stores:
            pairs.setdefault((store, policy.issuer), policy)
    for (store, issuer), like in pairs.items():
        capabilities = issuers[issuer].capabilities
        if capabilities.model is Model.MANUAL:
            notes.append(f"{store} with {issuer}: no canary, as a person creates its credentials")
        elif capabilities.model is not Model.MINT or (capabilities.registry and not capabilities.revokes):
            notes.append(f"{store} with {issuer}: no canary, as creating a credential there destroys one that is used")
        elif capabilities.max_keys is not None and _crowded(issuers[issuer], capabilities.max_keys):
            notes.append(f"{store} with {issuer}: no canary, as there is no room for two more keys")
        elif not (slow or _fenced(assembly, store)):
            notes.append(
                f"{store} with {issuer}: no canary, as {store} has no compare-and-set, so that what is younger than "
                f"{show_duration(ATTEMPT_LIFE)} is not revoked there once it is replaced; --slow waits for that, or name a secret"
            )
        else:
            found.append(_canary(store, like, identity))
    return found, notes


def _fenced(assembly: Assembly, store: str) -> bool:
    return assembly.stores[store].features.compare_and_set


def _crowded(issuer: Issuer, most: int) -> bool:
    return sum(1 for _ in issuer.keys()) + 2 > most  # noqa: SIM118 - not a mapping


def _canary(store: str, like: Policy, identity: str) -> Policy:
    """A secret like another one, that nobody but the drill uses."""
    return Policy(
        installation=like.installation,
        environment=like.environment,
        name=canary_name(store, like.issuer),
        store=store,
        issuer=like.issuer,
        owner=like.owner,
        rotate_every=like.rotate_every,
        grace=like.grace,
        contain_after=like.contain_after,
        drain=Drain(),
        consumers=(Consumer("drill", min(like.grace, timedelta(minutes=15))),),
        schedule=Schedule(),
        tags=((TAG, identity),),
    )


def canary_name(store: str, issuer: str) -> str:
    """One name for each pair: `drill-canary-STORE-ISSUER`, or with a digest in their place where that is no good name."""
    plain = f"{CANARY}-{store}-{issuer}"
    if name_fault(plain) is None and "-" not in store:  # a-b with c, and a with b-c, must not meet
        return plain
    return f"{CANARY}-{hashlib.sha256(f'{store}/{issuer}'.encode()).hexdigest()[:12]}"


def _drill_of(policy: Policy) -> str | None:
    """The drill that a canary was made for; None for any other secret."""
    return dict(policy.tags).get(TAG) if policy.name.startswith(f"{CANARY}-") else None


def began(identity: str) -> datetime:
    """When the drill of this id began. Raises ValueError for what is none."""
    return datetime.strptime(identity[:15], "%Y-%m-%d-%H%M").replace(tzinfo=UTC)


class Busy(Exception):  # noqa: N818 - what is asked is not done, and the text says why
    """Another drill of the same stack may be at work."""


def left_overs(assembly: Assembly) -> tuple[list[Policy], list[str]]:
    """Canaries that are there, and what stood in the way of looking: by the listings of stores, which may lag, and by name."""
    config, notes = assembly.config, list[str]()
    managed, troubles = inventory.managed(assembly)
    found = {target: policy for target, policy in managed if _drill_of(policy)}
    notes += [f"{trouble}: what may be left there of earlier drills is not known" for trouble in troubles]
    silent = {trouble.service for trouble in troubles}
    for store, issuer in dict.fromkeys((store, policy.issuer) for policy in config.policies for store in policy.stores):
        entry = assembly.places.entry_name(store, config.environment, canary_name(store, issuer))
        if store in silent or Target(store, entry) in found:
            continue
        try:
            policy = policies.read(assembly.stores[store].applied(entry))
        except (Trouble, ValueError):
            continue  # none, or none of ours
        if policy.installation == config.installation and _drill_of(policy):
            found[Target(store, entry)] = policy
    return [*found.values()], notes


# --- the drill -------------------------------------------------------------------------------------


class Marked:
    """Tells owners what a drill is about as what it is, and remembers what they were told.

    Parameters:
        notifier: brings it to them; None where nobody is to be told.
    """

    def __init__(self, notifier: Notifier | None, identity: str) -> None:
        self._notifier = notifier
        self._identity = identity
        self.told: list[Notice] = []

    def tell(self, notice: Notice) -> None:
        """See rotation.ports.Notifier."""
        marked = replace(
            notice,
            subject=f"DRILL: {notice.subject}",
            text=f"This is the drill {self._identity}: nothing has leaked. {notice.text}",
        )
        self.told.append(marked)
        if self._notifier is not None:
            self._notifier.tell(marked)


class Drill:
    """One drill of a stack.

    Parameters:
        assembly: of the stack.
        evidence: is brought up to date as things happen; its subjects are those of `chosen`, in the same order.
        chosen: the secrets that leak: canaries to be made, or secrets that are there.
        keep: keeps the evidence.
        incidents: where the record of the incident goes: an emergency that is cut off is resumed from there.
        listen: see Listen.
        say: is told how far it is, a sentence each.
        patience: how long one secret may take until it is shown dead.
    """

    def __init__(
        self,
        assembly: Assembly,
        evidence: Evidence,
        chosen: Sequence[Policy],
        *,
        keep: Callable[[], None],
        incidents: Incidents,
        listen: Listen,
        say: Callable[[str], None],
        patience: timedelta = PATIENCE,
    ) -> None:
        made = tuple(policy for policy in chosen if _drill_of(policy))
        self._plain = assembly
        self._marked = Marked(None if evidence.silent else assembly.notifier, evidence.id)
        config = replace(assembly.config, policies=(*assembly.config.policies, *made))
        self._assembly = replace(assembly, config=config, notifier=self._marked)
        self._evidence = evidence
        self._of = dict(zip(chosen, evidence.subjects, strict=True))
        self._keep = keep
        self._incidents = incidents
        self._listen = listen
        self._say = say
        self._patience = patience
        self._provisioner = provisioner(assembly)
        self._leaked: dict[Policy, Credential] = {}
        self._bystanders: dict[Policy, list[Bystander]] = {}

    @property
    def _clock(self) -> Clock:
        return self._plain.clock

    def run(self) -> None:
        """All of it. What goes wrong is in the evidence; what was made is removed, whatever went wrong."""
        self._keep()
        try:
            self._provision()
            ready = [policy for policy in self._of if self._first_use(policy)]
            if ready:
                with at_work([one for policy in ready for one in self._bystanders[policy]]):
                    self._emergency(ready)
                self._afterwards(ready)
        except (Trouble, Refusal, ConfigError, reports.ReportFault) as error:
            self._evidence.faults.append(str(error))
        self._keep()
        self._clean_up()
        self._evidence.ended_at = self._clock.now()
        self._evidence.judge()

    # --- before ------------------------------------------------------------------------------------

    def _provision(self) -> None:
        """Makes the canaries, as the Pulumi component makes secrets."""
        made = [policy for policy in self._of if self._of[policy].canary]

        def make(policy: Policy) -> str | None:
            began_at = self._clock.monotonic()
            try:
                self._provisioner.create(policy, bootstrap="apply")
            except (Trouble, Refusal, ConfigError) as error:
                return f"could not be made: {error}"
            self._of[policy].made_seconds = round(self._clock.monotonic() - began_at, 3)
            return None

        for policy, fault in fleet.each(made, make):
            if fault is not None:
                self._of[policy].faults.append(fault)
        if good := [self._of[policy] for policy in made if not self._of[policy].faults]:
            self._say(f"Made {len(good)} canaries: {', '.join(one.name for one in good)}.")
        self._keep()
        self._age("leaks")

    def _age(self, then: str) -> None:
        """Waits until what was minted is old enough, where a store needs that."""
        slow = [one for one in self._of if self._of[one].canary and not _fenced(self._plain, one.store)]
        if slow:
            self._say(
                f"Waiting {show_duration(AGE)} until what is in {slow[0].store} {then}: it has no compare-and-set."
            )
            self._clock.sleep(AGE.total_seconds())

    def _first_use(self, policy: Policy) -> bool:
        """Reads the credential, and has an application at each of its stores use it. Whether all of them are let in."""
        subject, issuer = self._of[policy], self._plain.issuers[policy.issuer]
        if subject.faults:
            return False
        try:
            seen = self._plain.engine.observe(self._target(policy))
            if seen.primary.current is None:
                subject.faults.append("has no credential to leak")
                return False
            self._leaked[policy] = self._plain.engine.read(seen, seen.primary, seen.primary.current)
        except Trouble as trouble:
            subject.faults.append(str(trouble))
            return False
        subject.leaked_key_id, made_at = seen.primary.current.key_id, seen.primary.current.created_at
        if seen.unfenced and made_at is not None and self._clock.now() < made_at + ATTEMPT_LIFE:
            subject.faults.append(
                f"is too young to be drilled: it may be revoked from {made_at + ATTEMPT_LIFE:%H:%M}Z on, as "
                f"{' and '.join(sorted(seen.unfenced))} has no compare-and-set. It was left as it is"
            )
            return False
        for store in policy.stores:
            used = Seen(policy.name, store)
            subject.consumers.append(used)
            read = partial(self._read, store, policy)
            self._bystanders.setdefault(policy, []).append(Bystander(used, read, issuer, self._clock))
        out = [one.seen.store for one in self._bystanders[policy] if not one.use()]
        if out:
            subject.faults.append(
                f"was not accepted before it leaked, as read from {', '.join(out)}; see `keyturn verify`"
            )
        return not out

    def _read(self, store: str, policy: Policy) -> Credential:
        """What a consumer of this store has. Raises Trouble."""
        entry = self._plain.places.entry_name(store, policy.environment, policy.name)
        client: SecretStore = self._plain.stores[store]
        seen = client.observe(entry)
        if seen.current is None:
            raise Trouble(Code.NOT_FOUND, store, f"{entry}: has no value")
        return self._plain.engine.read(Observation(policy, seen, {}), seen, seen.current)

    def _target(self, policy: Policy) -> Target:
        return self._plain.target(policy)

    # --- the emergency -----------------------------------------------------------------------------

    def _emergency(self, leaking: Sequence[Policy]) -> None:
        """What `keyturn emergency --leak` does, with a report that has all of them."""
        clock, evidence = self._clock, self._evidence
        report = leaked_report(evidence.id, clock.now(), [self._leaked[one] for one in leaking])
        reported_at, began_at = clock.now(), clock.monotonic()
        for policy in leaking:
            for one in self._bystanders[policy]:
                one.reported()
        matches = self._matched(report, leaking)
        known = list(
            dict.fromkeys(policy for policy in leaking if any(m.target == self._target(policy) for m in matches))
        )
        if not known:
            return
        selection = intake.narrowed(Selection(), matches)
        chosen = gathering.gather(self._assembly, selection, evidence.stack, known=known)
        plan = plans.make(self._assembly, selection, chosen, leaks=intake.by_secret(matches))
        found = round(clock.monotonic() - began_at, 3)
        incident = records.begin(
            plan,
            intake.recorded(matches),
            identity=evidence.id,
            installation=evidence.installation,
            environment=evidence.environment,
            stack=evidence.stack,
            began_at=clock.now(),
            ran_by=evidence.ran_by,
        )
        incident.selected = f"a drill: {incident.selected}"
        incident.notes.append("This was a drill: `keyturn drill` has put these values into a report on purpose")
        self._say(f"Leaked {len(leaking)}; found whose they are after {found:.1f} s. Replacing, revoking, proving.")
        self._carry_out(incident)
        for policy in leaking:
            secret = next((one for one in incident.secrets if one.name == policy.name), None)
            if secret is not None:
                self._note(self._of[policy], secret, reported_at, found)
                self._thaw(policy, secret, incident, reported_at)
        out = [one.seen for policy in known for one in self._bystanders[policy] if not one.settled()]
        for seen in out:
            where = f"what was read from {seen.store} was not accepted again, or is still what leaked"
            next(one for one in evidence.subjects if one.name == seen.secret).faults.append(where)
        for policy in known:
            self._note_use(self._of[policy], round(clock.monotonic() - began_at, 3))

    def _matched(self, report: bytes, leaking: Sequence[Policy]) -> list[Match]:
        """What the report comes to. What of it is none of the drill's is left alone, and a fault."""
        found = reports.read(io.BytesIO(report), name="the drill's report")
        managed, unseen = inventory.managed(self._assembly, self._evidence.stack)
        ours = {self._target(policy): policy for policy in leaking}
        there = {target for target, _ in managed}
        managed += [(target, policy) for target, policy in ours.items() if target not in there]  # listings may lag
        matches = match(self._assembly, found.findings, managed, unseen)
        for target, policy in ours.items():
            told = [one for one in matches if one.target == target]
            if not any(one.standing is Standing.CURRENT and one.alive for one in told):
                was = ", ".join(one.standing.value for one in told) or "nothing of ours"
                self._of[policy].faults.append(f"its leaked value was taken for {was}, not for its current credential")
        others = [
            one for one in matches if one.alive and one.target not in ours and one.standing is not Standing.STRANGER
        ]
        for one in others:
            whose = one.policy.name if one.policy else one.issuer
            self._evidence.faults.append(f"a value of the drill is also one of {whose}, which was left alone")
        return [one for one in matches if one.target in ours]

    def _carry_out(self, incident: Incident) -> None:
        def write() -> None:
            with runner.lock:
                self._incidents.save(incident)

        saver = Saver(write)
        runner = Runner(self._assembly, incident, save=saver.save, keep=saver.keep, patience=self._patience)
        self._listen(incident.id, runner.heard)
        with saver:
            runner.run()

    def _note(self, subject: Subject, secret: SecretRecord, reported_at: datetime, found: float) -> None:
        """Times and doubts of one secret."""

        def since(moment: datetime | None) -> float | None:
            return None if moment is None else round((moment - reported_at).total_seconds(), 3)

        ours = [key for key in secret.keys if key.ours]
        contained = [at for key in ours if (at := key.revoked_at or key.proven_at)]
        times, subject.key_id = subject.times, secret.minted_key_id
        subject.leaked_key_id = next(
            (key.key_id for key in secret.keys if key.role == "current"), subject.leaked_key_id
        )
        times.match, times.replace = found, since(secret.replaced_at)
        if subject.enforced:
            times.contain = since(max(contained)) if contained and len(contained) == len(ours) else None
            times.prove = since(secret.proven_at)
        subject.alive = secret.alive
        if secret.replaced_at is None:
            subject.faults.append("was not replaced everywhere")
        if secret.alive:
            subject.faults.append("what leaked is alive, or not shown dead")
        subject.faults += [told for told in (secret.trouble, secret.rest, secret.person) if told]

    def _thaw(self, policy: Policy, secret: SecretRecord, incident: Incident, reported_at: datetime) -> None:
        """Lets scheduled work go on, where the emergency has not done so by itself."""
        times = self._of[policy].times
        try:
            frozen = self._plain.engine.thaw(self._target(policy), incident.id)
        except Trouble as trouble:
            self._of[policy].faults.append(f"could not be thawed: {trouble}")
            return
        by_itself = [event.at for event in secret.events if event.event == "thaw"]
        if by_itself:
            times.thaw = round((by_itself[-1] - reported_at).total_seconds(), 3)
        elif frozen is not None:
            times.thaw = round((self._clock.now() - reported_at).total_seconds(), 3)

    @staticmethod
    def _note_use(subject: Subject, total: float) -> None:
        subject.times.total = total
        new = [seen.new_value_seconds for seen in subject.consumers]
        subject.times.new_value = max((seconds for seconds in new if seconds is not None), default=None)
        subject.times.outage = max((seen.longest_outage_seconds for seen in subject.consumers), default=None)

    # --- afterwards --------------------------------------------------------------------------------

    def _afterwards(self, leaking: Sequence[Policy]) -> None:
        """Shows each leaked credential to its issuer once more, and looks who was told."""
        for policy in leaking:
            subject = self._of[policy]
            if not subject.enforced:
                continue
            verdict = self._plain.issuers[policy.issuer].verify(self._leaked[policy]).verdict
            subject.verdict = verdict.value
            if verdict is not Verdict.INVALID:
                subject.alive = True
                told = "accepts what leaked" if verdict.live else "does not say whether it refuses what leaked"
                subject.faults.append(f"at the end {policy.issuer} {told}")
        self._evidence.times = evidences.summed_up(self._evidence.subjects)
        self._evidence.owners = self._heard()
        self._evidence.faults += runs.flush(self._plain)

    def _heard(self) -> list[Told]:
        told: list[Told] = []
        telling = self._plain.notifier if isinstance(self._plain.notifier, Telling) else None
        for owner in dict.fromkeys(subject.owner for subject in self._evidence.subjects):
            notices = [notice for notice in self._marked.told if notice.owner == owner]
            routes = telling.routes.get(owner, ()) if telling else ()
            channels = [route.channel for route in routes if any(route.wants(notice) for notice in notices)]
            kinds = dict.fromkeys(notice.kind for notice in notices)
            told.append(Told(owner, list(kinds), list(dict.fromkeys(channels))))
        return told

    def _clean_up(self) -> None:
        """Revokes what the canaries have, shows it dead, and deletes their entries."""
        self._age("is removed")
        for policy, subject in self._of.items():
            if not subject.canary:
                continue
            fault = removed(self._provisioner, policy)
            subject.cleaned = fault is None
            if fault is not None:
                subject.faults.append(f"could not be removed: {fault}")
                subject.alive = subject.alive or subject.enforced
        self._keep()


def subject_of(policy: Policy, issuer: Issuer) -> Subject:
    """What the evidence has of a secret before anything is done to it."""
    return Subject(
        policy.name,
        list(policy.stores),
        policy.issuer,
        policy.owner,
        canary=_drill_of(policy) is not None,
        enforced=issuer.capabilities.registry,
    )


def provisioner(assembly: Assembly) -> Provisioner:
    """Makes and deletes canaries. What a person might wonder at is no news there: nobody looks at one."""
    a = assembly
    return Provisioner(a.engine, a.stores, a.issuers, a.places, a.clock, lambda _: None)


def removed(provision: Provisioner, policy: Policy) -> str | None:
    """Has a canary's keys revoked and shown dead, and its entry deleted; why that is not so, else."""
    fault = None
    for _ in range(_ROUNDS):
        try:
            provision.delete(policy, force_revoke=True)
        except (Trouble, Refusal, ConfigError) as error:
            fault = str(error)
        else:
            return None
    return fault


def removed_left_overs(
    assembly: Assembly, known: Iterable[str], now: datetime, *, take_over: bool = False
) -> tuple[list[str], dict[str, str], list[str]]:
    """Removes canaries of drills that were killed.

    Parameters:
        known: ids of drills that ran from here, and so are over: only one does at a time.
        take_over: also what another machine's drill may still be using.

    Returns:
        Names of those that are gone; of those that are not, why; and what could not be looked at.

    Raises:
        Busy: some are of a drill that may be at work elsewhere. Nothing was changed.
    """
    found, notes = left_overs(assembly)
    over = set(known)
    for policy in found:
        identity = _drill_of(policy) or ""
        if not take_over and identity not in over and _young(identity, now):
            raise Busy(
                f"{policy.store} has a canary of the drill {identity}, which was not run from here and may be at work; wait for "
                f"it, or give --take-over if it was killed. Nothing was changed"
            )
    gone, left = list[str](), dict[str, str]()
    provision = provisioner(assembly)
    for policy in found:
        fault = removed(provision, policy)
        if fault is None:
            gone.append(policy.name)
        else:
            left[policy.name] = fault
    return gone, left, notes


def _young(identity: str, now: datetime) -> bool:
    try:
        return now < began(identity) + LONGEST
    except ValueError:
        return False


def leaked_report(identity: str, at: datetime, leaked: Sequence[Credential]) -> bytes:
    """What gitleaks would write, had it found these values in a file (rotation.leaks.reports.gitleaks has the source)."""
    found = []
    for line, credential in enumerate(leaked, 1):
        secret = [value for _, value in telling(credential)] or list(credential.fields.values())
        for value in secret:
            file = f"drill-{identity}.env"
            found.append(
                {
                    "RuleID": "generic-api-key",
                    "Description": f"put there on purpose by the drill {identity}",
                    "StartLine": line,
                    "EndLine": line,
                    "StartColumn": 1,
                    "EndColumn": 1 + len(value.reveal()),
                    "Match": value.reveal(),
                    "Secret": value.reveal(),
                    "File": file,
                    "SymlinkFile": "",
                    "Commit": "",
                    "Entropy": 4.0,
                    "Author": "",
                    "Email": "",
                    "Date": at.strftime("%Y-%m-%dT%H:%M:%SZ"),
                    "Message": "",
                    "Tags": [],
                    "Fingerprint": f"{file}:generic-api-key:{line}",
                }
            )
    return json.dumps(found).encode()
