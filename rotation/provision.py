"""Brings a declared secret into being, keeps its applied policy as declared, and ends it: create, read, update, delete.

Plain code over the ports and the engine. What is known of earlier runs comes in as arguments, what is
there is looked up: every operation can be repeated after a crash and goes on from where things are.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, fields, replace
from datetime import timedelta
from typing import Final, Literal

from rotation import native, orphans
from rotation import policy as policies
from rotation.actions import Done
from rotation.declared import ConfigError
from rotation.engine import Engine, Outcome, Places, Target
from rotation.errors import Code, Trouble
from rotation.model import Credential, Entry, KeyInfo, Model, Policy
from rotation.names import token_in
from rotation.policy import show_duration, written
from rotation.ports import Clock, Issuer, RotatesByItself, SecretStore
from rotation.situation import Evidence, Observation, Order, Situation

Bootstrap = Literal["apply", "function"]
"""Who mints the first credential: create() itself, or the rotation function that runs later."""

PLACE: Final = ("store", "environment", "name")
"""What says where a secret's entry is. A change of any of them is another entry."""
_BELONGING: Final = ("installation", "environment", "name", "store")
"""What must be equal in an entry's policy for the entry to be this secret's."""
_ROUNDS: Final = 3
"""How often delete() ends a secret anew that another run brought back meanwhile."""
_LOOK_LASTS: Final = timedelta(seconds=20)
"""So long after its last look at a secret delete() looks again: whoever was stopped in between knows nothing of now."""


class Refusal(Exception):  # noqa: N818 - what was asked is not done, and the text says why
    """What was not done, how things were left, and what to do next. Never holds a value."""


@dataclass(frozen=True, slots=True)
class Applied:
    """What the primary's metadata says of a secret."""

    policy: Policy
    fault: str = ""
    """What of it can not be read; `policy` is then what was last known."""


@dataclass(frozen=True, slots=True)
class Diff:
    """How two declarations of one secret differ, by names of fields of Policy."""

    changes: tuple[str, ...]
    replaces: tuple[str, ...]
    """Those of the changes that mean another entry: a new one is made, then the old one is deleted."""


def diff(old: Policy, new: Policy) -> Diff:
    """What would have to be done. Changes in place unless the entry itself is another one."""
    changes = tuple(field.name for field in fields(Policy) if getattr(old, field.name) != getattr(new, field.name))
    return Diff(changes, tuple(name for name in PLACE if name in changes))


def forbidden(old: Policy, new: Policy) -> dict[str, str]:
    """Changes that no order of steps makes safe: the field, and why."""
    if any(getattr(old, name) != getattr(new, name) for name in PLACE):
        shared = sorted(set(old.stores) & set(new.stores))
        if shared and (old.environment, old.name) == (new.environment, new.name):
            told = ", ".join(shared)
            return {
                "store": f"{told} would hold one entry for the old primary and the new one; let go of {told} as a replica "
                f"first, and delete the entry there, or give the secret another name"
            }
        return {}
    return {
        field: f"can not change from {getattr(old, field)} to {getattr(new, field)}, as the entry would stay the same "
        f"and its keys are {getattr(old, field)}'s; declare a secret of another name and take this one away"
        for field in ("issuer", "installation")
        if getattr(old, field) != getattr(new, field)
    }


@dataclass(frozen=True, slots=True)
class _End:
    """What has become of the keys of a secret that is to be deleted."""

    dead: set[str]
    """Ids of those that are dead."""
    seen: Observation
    """The look by which they are."""
    spared: bool
    """Another run has brought one that nobody has condemned."""


class Provisioner:
    """Carries declarations of secrets to stores.

    Parameters:
        engine: mints, revokes and proves.
        stores: by configured name.
        issuers: likewise.
        places: how names map to entries.
        clock: time.
        tell: called with a sentence about something that was done differently than a person may expect.

    Every operation raises Trouble where a store or an issuer fails, and Refusal.
    """

    def __init__(
        self,
        engine: Engine,
        stores: Mapping[str, SecretStore],
        issuers: Mapping[str, Issuer],
        places: Places,
        clock: Clock,
        tell: Callable[[str], None],
    ) -> None:
        self._engine = engine
        self._stores = stores
        self._issuers = issuers
        self._places = places
        self._clock = clock
        self._tell = tell

    def entry(self, store: str, policy: Policy) -> str:
        """The name of a secret's entry in one of its stores."""
        return self._places.entry_name(store, policy.environment, policy.name)

    # --- create ----------------------------------------------------------------------------------

    def create(
        self, policy: Policy, *, bootstrap: Bootstrap, adopt: bool = False, adopt_key_id: str | None = None
    ) -> None:
        """Makes the entries, replicas included, and with `apply` the first credential.

        An entry in its recovery window is restored. An entry with this very secret's policy is taken
        for that of a create that was interrupted. Any other is refused, and left alone.

        Parameters:
            adopt: an entry that nobody manages is taken under management instead of refused: its value is
                read, must not be refused by the issuer, and stays as it is, whatever the bootstrap. Nothing
                is minted; sweeps fill new replicas, and rotate when it is due. A replica's entry is taken
                only with the same value. Where there is no entry or no value, it is made like any other.
            adopt_key_id: the issuer's id of that value. With it the credential is revoked after the first
                rotation, without it never by Keyturn.
        """
        self._refuse_destroying(policy)
        same_as = self._adoptable(policy) if adopt else None
        found = [self._settle_entry(store, policy, same_as) for store in policy.replicas]
        # The primary last: the engine begins where it finds one.
        if adopt and self._adopt(policy, adopt_key_id):
            self._settle_rotation(policy)
            return
        found.append(self._settle_entry(policy.store, policy))
        if bootstrap == "apply":
            self._bring_current(policy, resumed=any(found))
        if policy.native or any(found):
            self._settle_rotation(policy)

    def _refuse_destroying(self, policy: Policy) -> None:
        """Where creating a credential destroys another, no entry of this name in another store may hand that out."""
        if self._issuers[policy.issuer].capabilities.model not in (Model.SLOTS, Model.REPLACE):
            return
        for name in self._stores:
            if name in policy.stores:
                continue
            try:
                seen = self._stores[name].observe(self.entry(name, policy))
            except (Trouble, ConfigError):
                continue  # not there, or nothing that could be told of it
            same = seen.policy.get("issuer", policy.issuer) == policy.issuer
            if same and seen.current is not None and seen.current.token is not None:
                raise Refusal(
                    f"{policy.store}: {self.entry(policy.store, policy)} is not made, as {name} hands out a credential of "
                    f"{policy.issuer} under this name, which making another one may destroy. There a secret can not move "
                    f"without a while in which nobody gets in: take it away first, with its entry in {name}."
                )

    def _settle_rotation(self, policy: Policy) -> None:
        """Has the store's own service rotate the entry where that is declared, and takes it off where it is not."""
        entry, client = self.entry(policy.store, policy), self._stores[policy.store]
        # Asked of the store itself: whoever applies may be let see no value, and so not observe.
        bare = getattr(client, "bare", client)
        if isinstance(bare, RotatesByItself) and isinstance(client, RotatesByItself):
            client.set_rotation(entry, native.interval(policy) if policy.native else None)
        elif policy.native:
            raise Refusal(f"{policy.store}: has no service that rotates {entry}; declare it with rotation: direct.")

    def _adoptable(self, policy: Policy) -> Credential | None:
        """What the primary's entry holds, brought back first where it is deleted; None when it holds nothing."""
        entry, client = self.entry(policy.store, policy), self._stores[policy.store]
        if client.restore(entry):
            self._tell(f"{policy.store}: {entry} was deleted and has been restored.")
        try:
            seen = client.observe(entry)
        except Trouble as trouble:
            if trouble.code is Code.NOT_FOUND:
                return None
            raise
        unmanaged = _unmanaged(seen.policy)
        ours = not unmanaged and _foreign(seen.policy, policy) is None
        if seen.current is None or not (unmanaged or (ours and _is_adopted(seen))):
            return None
        return self._engine.read(Observation(policy, seen, {}), seen, seen.current)

    def _adopt(self, policy: Policy, key_id: str | None) -> bool:
        """Whether the primary's value was there before Keyturn, and is managed now. Then nothing is left to do."""
        target, client = self._target(policy), self._stores[policy.store]
        try:
            seen = client.observe(target.entry)
        except Trouble as trouble:
            if trouble.code is not Code.NOT_FOUND:
                raise
            self._tell(f"{policy.store}: there is no {target.entry} to adopt; it is made.")
            return False
        if not _unmanaged(seen.policy):
            # An adoption that was cut off, or somebody else's, which is refused like any.
            self._settle_entry(policy.store, policy)
            return _is_adopted(seen)
        if seen.current is None:
            client.set_policy(target.entry, written(policy))
            return False
        self._engine.adopt(target, policy, key_id=key_id)
        known = "" if key_id else " It is never revoked by Keyturn, as adoptKeyId does not say which key it is."
        self._tell(f"{policy.store}: {target.entry} is adopted, with its value as it was.{known}")
        return True

    def _settle_entry(self, store: str, policy: Policy, same_as: Credential | None = None) -> bool:
        """Makes one entry exist with this policy. True when there was one already.

        Parameters:
            same_as: an entry that nobody manages is taken, too, when it holds this.
        """
        entry, client = self.entry(store, policy), self._stores[store]
        try:
            client.create(entry, written(policy))
        except Trouble as trouble:
            if trouble.code is not Code.CONFLICT and not trouble.maybe_applied:
                raise
            restored = client.restore(entry)
            try:
                applied = client.applied(entry)
            except Trouble as second:
                raise (trouble if second.code is Code.NOT_FOUND else second) from None
            if (fault := _foreign(applied, policy)) and not self._takes(store, policy, same_as):
                told = " It was in its recovery window, and has been restored to look at it." if restored else ""
                raise Refusal(f"{store}: {entry} {fault}.{told} It was left alone.") from None
            if restored:
                self._tell(f"{store}: {entry} was deleted and has been restored.")
            if dict(applied) != written(policy):
                client.set_policy(entry, written(policy))
            return True
        return False

    def _takes(self, store: str, policy: Policy, same_as: Credential | None) -> bool:
        """Whether a replica's entry that nobody manages may be taken: it holds what the primary does."""
        if same_as is None:
            return False
        seen = self._stores[store].observe(self.entry(store, policy))
        if not _unmanaged(seen.policy) or seen.current is None:
            return False
        if not self._engine.read(Observation(policy, seen, {}), seen, seen.current).same_as(same_as):
            raise Refusal(
                f"{store}: {seen.name} exists, was not made by Keyturn, and holds another value than {policy.store}. "
                f"It was left alone: make both the same, or take {store} out of the replicas."
            )
        self._tell(f"{store}: {seen.name} is adopted, with its value as it was.")
        return True

    def _bring_current(self, policy: Policy, *, resumed: bool) -> None:
        """Runs the engine until every store hands out a credential that is not to die."""
        target = self._target(policy)
        if resumed:
            # A person who applies again has changed something, or wants to see it fail: no back-off from the last time.
            self._stores[policy.store].forget(target.entry, ["backoff", "ending"])
        # An attempt that lies there is that of the create that was interrupted; the engine's rules hold if it is not.
        outcome = self._engine.run(target, Order(take_over=resumed))
        seen = self._engine.observe(target)
        if not self._serves(seen):
            raise Refusal(
                f"{policy.store}: {target.entry} exists, and not every store hands out a good credential yet: "
                f"{_why(outcome)}. The next `pulumi up` goes on from there."
            )

    def _serves(self, seen: Observation) -> bool:
        s = self._situation(seen)
        # What a store's service copies by itself comes without us: it holds up what is old, and no apply.
        lagging = [store for store in s.lagging if store in seen.policy.replicas]
        return s.current is not None and not s.urgent and not lagging

    # --- read and update -------------------------------------------------------------------------

    def read(self, policy: Policy) -> Applied | None:
        """The policy as applied, or None when the secret's entry is gone, or is not this secret's any more.

        Replicas that have no entry are left out of it. Where one enforces other networks, they are those of the policy.

        Parameters:
            policy: as last applied.
        """
        found = self._own(policy.store, policy)
        if found is None:
            return None
        try:
            applied = policies.read(found)
        except ValueError as error:
            return Applied(policy, str(error))
        copies = {store: self._own(store, applied) for store in applied.replicas if store in self._stores}
        there = tuple(store for store in applied.replicas if store not in copies or copies[store] is not None)
        # Networks are the one thing that each store enforces by itself, so that a copy can differ in them.
        walls = (
            tuple(tuple(copy.get(key, "").split()) for key in policies.NETWORKS)
            for copy in (found, *copies.values())
            if copy
        )
        if other := next((wall for wall in walls if wall != (policy.allowed_cidrs, policy.allowed_vpces)), None):
            applied = replace(applied, allowed_cidrs=other[0], allowed_vpces=other[1])
        return Applied(replace(applied, replicas=there))

    def update(self, old: Policy, new: Policy, *, bootstrap: Bootstrap) -> None:
        """Applies a changed policy of the same entry, or puts an entry right that was changed outside.

        A replica that is new gets an entry, and with `apply` the credential too. One that is not named
        any more is released: its entry stays as it is, and is not kept up from the next rotation on.
        """
        entry = self.entry(new.store, new)
        if self._own(new.store, new) is None:
            raise Refusal(f"{new.store}: {entry} is gone, or is not this secret's any more; run `pulumi refresh`")
        for replica in new.replicas:
            self._settle_entry(replica, new)
        # Before the primary's policy names it no more: a replica that is not released is found through that alone, and
        # what lags there could not be brought up any more.
        for replica in old.replicas:
            if replica not in new.stores:
                self._release_replica(replica, old)
                self._tell(
                    f"{replica}: {self.entry(replica, old)} is released. It keeps its value, which dies with the next "
                    f"rotation; delete it once nothing reads it."
                )
        self._stores[new.store].set_policy(entry, written(new))
        if bootstrap == "apply" and not self._serves(self._engine.observe(self._target(new))):
            self._bring_current(new, resumed=True)
        self._settle_rotation(new)

    def _release_replica(self, store: str, policy: Policy) -> None:
        """Takes the policy off a replica's entry: from then on retirement does not wait for it."""
        if store in self._stores and self._own(store, policy) is not None:
            self._stores[store].set_policy(self.entry(store, policy), {})

    def _own(self, store: str, policy: Policy) -> Mapping[str, str] | None:
        """What is applied to the entry, provided that it is there and this secret's."""
        try:
            applied = self._stores[store].applied(self.entry(store, policy))
        except Trouble as trouble:
            if trouble.code is Code.NOT_FOUND:
                return None
            raise
        wanted = written(policy)
        return applied if all(applied.get(key) == wanted[key] for key in _BELONGING) else None

    # --- delete ----------------------------------------------------------------------------------

    def delete(self, policy: Policy, *, force_revoke: bool) -> None:
        """Revokes every key of the secret, has each shown dead, and deletes its entries, recoverably where that goes.

        Parameters:
            policy: as last applied; what the entry itself says counts.
            force_revoke: also when a key is in use, or may be.
        """
        target, dead, alive = self._target(policy), set[str](), list[KeyInfo]()
        known: frozenset[str] | None = None
        looked = self._clock.monotonic()
        # Keys of theirs that nothing claims are found by sweeps only while there is an entry of their name.
        for turn in range(_ROUNDS):
            seen = self._find(target, policy)
            if seen is not None:
                if turn == 0:
                    self._refuse_in_use(seen, force_revoke=force_revoke)
                end = self._end(target, seen)
                dead |= end.dead
                policy = seen.policy
                known = self._unnamed(policy)
                alive, looked = self._alive(policy, dead), self._clock.monotonic()
                if alive or end.spared or self._has_moved(target, end.seen):
                    continue
            if not self._delete_entries(policy, looked):
                continue
            # A run that was under way may have minted, or promoted, which brings an entry back.
            alive = self._alive(policy, dead, known)
            if not alive and self._own(policy.store, policy) is None:
                return
            if seen is None:
                raise Refusal(
                    f"{policy.store}: {target.entry} is gone or released, and with it the journal that says which keys "
                    f"are its own; alive under its name at {policy.issuer}: {_listed(alive)}. If it was released, "
                    f"`pulumi refresh` takes it out of the state; else revoke them there and repeat this."
                )
        told = f"; alive at {policy.issuer}: {_listed(alive)}" if alive else ""
        raise Refusal(
            f"{policy.store}: {target.entry} is not deleted, as another run is at work on it{told}. Repeat this when no "
            f"sweep runs, or in a quarter of an hour: keys that nothing claims by then are revoked as orphans."
        )

    def _delete_entries(self, policy: Policy, looked: float) -> bool:
        """Deletes the entries of a secret; False when a later look at it has to come first.

        Parameters:
            looked: when the last one was, by the monotonic clock.
        """
        # The primary last: its journal is what a repetition goes on from.
        for store in (*policy.replicas, policy.store):
            if self._own(store, policy) is None:
                continue
            if self._clock.monotonic() - looked > _LOOK_LASTS.total_seconds():
                return False
            try:
                self._stores[store].delete(self.entry(store, policy))
            except Trouble as trouble:
                if trouble.code is not Code.CONFLICT:
                    raise
                return False  # something was promoted in that very moment
        return True

    def _find(self, target: Target, policy: Policy) -> Observation | None:
        """A look at a secret that is to be deleted, restored first if that has been done to it outside.

        None when it is not there, or is not this secret's.
        """
        if self._own(target.store, policy) is None:
            if not self._stores[target.store].restore(target.entry):
                return None
            if self._own(target.store, policy) is None:
                self._tell(f"{target.store}: {target.entry} is not this secret's; it was deleted, and is restored now.")
                return None
            self._tell(f"{target.store}: {target.entry} had been deleted; it is restored, to revoke its keys.")
        return self._engine.observe(target)

    def _refuse_in_use(self, seen: Observation, *, force_revoke: bool) -> None:
        """Deleting must not cut off anybody: refused where a key was used lately, or that can not be told."""
        policy, issuer = seen.policy, self._issuers[seen.policy.issuer]
        if not issuer.capabilities.registry:
            self._tell(f"{policy.name}: {issuer.name} keeps no keys: nothing is revoked, the entry is deleted.")
        if force_revoke or not issuer.capabilities.registry:
            return
        s = self._situation(seen)
        if s.current is not None and s.current_key is None:
            self._refuse(policy, "its value was put there by someone else, so its use is unknown")
        for key in s.keys:
            dying = key in seen.primary.journal.condemned or key in seen.primary.journal.revoked
            if not dying and (key == s.current_key or s.promoted_at(key)):
                self._refuse_key_in_use(policy, issuer, s.key_id(key))

    def _refuse_key_in_use(self, policy: Policy, issuer: Issuer, key_id: str | None) -> None:
        if key_id is None or not issuer.capabilities.tells_last_use:
            self._refuse(policy, f"{issuer.name} does not tell when its key was last used")
            return
        use, quiet = issuer.last_use(key_id), policy.drain.quiet_for
        if not use.known:
            self._refuse(policy, f"{issuer.name} does not know when its key {key_id} was last used")
        elif use.at is not None and self._clock.now() < use.at + use.granularity + quiet:
            lag = f", and {issuer.name} may lag by {show_duration(use.granularity)}" if use.granularity else ""
            told = f"its key {key_id} was used at {use.at:%Y-%m-%d %H:%M}Z (quietFor is {show_duration(quiet)}{lag})"
            self._refuse(policy, told)

    @staticmethod
    def _refuse(policy: Policy, why: str) -> None:
        raise Refusal(
            f"not deleted, as it may be in use: {why}. Nothing was changed. Take it out of use first, or revoke it all the "
            f"same: KEYTURN_FORCE_REVOKE={policy.name} in the environment of this command."
        )

    def _has_moved(self, target: Target, last: Observation) -> bool:
        """Whether another run has begun or promoted something since a look; a list of its issuer may be behind that."""
        now, then = self._engine.observe(target).primary, last.primary
        if now.journal.attempts.keys() - then.journal.attempts.keys():
            return True
        seen = {(version and version.id) for version in (then.current, then.pending)}
        return not {(version and version.id) for version in (now.current, now.pending)} <= seen

    def _end(self, target: Target, seen: Observation) -> _End:
        """Has every key that the secret's journal knows revoked and shown dead."""
        found = list(orphans.find(self._issuers, [(target, seen.policy)], self._engine, self._clock))
        elsewhere = self._claimed_elsewhere(seen.policy, [orphan.token for orphan, _ in found]) if found else None
        for orphan, look in found:
            if elsewhere is not None and not {orphan.token, orphan.key.key_id} & elsewhere:
                created = orphan.key.created_at or self._clock.now()
                self._engine.adopt_orphan(target, look, orphan.token, orphan.key.key_id, created)
        # First what interrupted runs left: a mint that never came about is forgotten; condemned, it could not be shown
        # dead.
        self._engine.run(target, Order(take_over=True, destroy=True))
        before = self._engine.observe(target)
        outcome = self._engine.destroy(target)
        if not isinstance(outcome.rest, Done) or outcome.seen is None:
            raise Refusal(
                f"{target.store}: {target.entry} is not deleted, as not every key of it is shown dead yet: "
                f"{_why(outcome)}. The next `pulumi up` or `pulumi destroy` goes on from there."
            )
        after, proven = self._situation(outcome.seen), outcome.seen.primary.journal.proven
        # By id alone: a token may be that of two keys, one of which nobody knows of.
        ended = {key_id for s in (self._situation(before), after) for key in s.keys if (key_id := s.key_id(key))}
        ended |= {record.key_id for record in outcome.records if record.event == "proven" and record.key_id}
        ended -= {key_id for key in after.keys if key not in proven and (key_id := after.key_id(key))}
        journal = outcome.seen.primary.journal
        spared = any(key not in journal.condemned and key not in journal.revoked for key in after.keys)
        return _End(ended, outcome.seen, spared)

    def _unnamed(self, policy: Policy) -> frozenset[str] | None:
        """Ids of an issuer's live keys where their names tell nothing; None where they do, or there is no list."""
        issuer = self._issuers[policy.issuer]
        able = issuer.capabilities
        if not able.registry or able.model is Model.REPLACE or (able.model is Model.MINT and able.names_keys):
            return None
        return frozenset(key.key_id for key in iter(issuer.keys()))

    def _alive(self, policy: Policy, dead: set[str], known: frozenset[str] | None = None) -> list[KeyInfo]:
        """Keys that the issuer still lists under this secret's name, and that are no other entry's.

        Parameters:
            dead: ids of keys that have been refused; a list may lag behind.
            known: of keys that have no names, those that were there before: others have come since, and are taken for its.

        Raises:
            Refusal: there are some, and whose they are can not be told.
        """
        issuer = self._issuers[policy.issuer]
        if not issuer.capabilities.registry:
            return []
        named = {"installation": policy.installation, "environment": policy.environment, "secret": policy.name}
        listed = list(iter(issuer.keys()))
        keys = [(token_in(key.name, **named), key) for key in listed]
        alive = [(token, key) for token, key in keys if token is not None and key.key_id not in dead]
        elsewhere = self._claimed_elsewhere(policy, [token for token, _ in alive]) if alive else set[str]()
        if elsewhere is None:
            raise Refusal(
                f"{policy.name}: not deleted, as it can not be told whose these keys are, alive under its name at "
                f"{policy.issuer}: {_listed([key for _, key in alive])}. Repeat this when every store answers."
            )
        came = [key for key in listed if known is not None and key.key_id not in known | dead]
        return [key for token, key in alive if not {token, key.key_id} & elsewhere] + came

    def _claimed_elsewhere(self, policy: Policy, names: Collection[str]) -> set[str] | None:
        """See orphans.elsewhere(). None when a store can not be asked, too: then nothing counts as an orphan."""
        try:
            return orphans.elsewhere(self._stores, self._places, [policy], names)
        except (Trouble, ConfigError) as error:
            self._tell(f"{error}: which keys are claimed there is not known.")
            return None

    # --- small parts -----------------------------------------------------------------------------

    def _target(self, policy: Policy) -> Target:
        return Target(policy.store, self.entry(policy.store, policy))

    def _situation(self, seen: Observation) -> Situation:
        capabilities = self._issuers[seen.policy.issuer].capabilities
        return Situation(seen, Evidence(), capabilities, Order(), self._clock.now())


def _unmanaged(applied: Mapping[str, str]) -> bool:
    return "installation" not in applied


def _is_adopted(seen: Entry) -> bool:
    """Whether what is current was there before Keyturn."""
    return seen.current is not None and seen.current.id in seen.journal.adopted.values()


def _foreign(found: Mapping[str, str], policy: Policy) -> str | None:
    """Why an existing entry with this applied policy is not this secret's to take up, or None."""
    wanted = written(policy)
    if _unmanaged(found):
        return "exists and was not made by Keyturn; `adopt: true` takes it under management with its value as it is"
    for key in (*_BELONGING, "issuer"):
        if found.get(key) != wanted[key]:
            return f"exists and belongs to a secret with {key} {found.get(key, '(none)')}, not {wanted[key]}"
    return None


def _why(outcome: Outcome) -> str:
    if outcome.trouble is not None:
        return str(outcome.trouble)
    return outcome.rest.reason if outcome.rest else "no reason is known"


def _listed(keys: list[KeyInfo]) -> str:
    return ", ".join(key.key_id for key in keys)
