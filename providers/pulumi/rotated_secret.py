"""`RotatedSecret`, a secret as a Pulumi resource: a thin dynamic provider over rotation.provision.

Inputs are flat and readable, because Pulumi's own `30d => 60d` is all that a preview of a dynamic
resource tells. Where stores and issuers are is no input: it comes with the stack's configuration
(`configure`), so that an address can change without a word in any diff. Credentials come from the
environment of the process that applies. No value and no credential is an input or an output.

Pulumi shows whatever a provider raises as a traceback with all of its causes. What can be decided
beforehand is therefore decided in `check`; the rest is one `ApplyError` with one sentence.

This module's path stands in the state of every stack. To move it is to replace every secret.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Literal

import pulumi
from pulumi.dynamic import (
    CheckFailure,
    CheckResult,
    ConfigureRequest,
    CreateResult,
    DiffResult,
    ReadResult,
    Resource,
    ResourceProvider,
    UpdateResult,
)

if TYPE_CHECKING:
    from rotation.config import Config
    from rotation.model import Policy
    from rotation.provision import Provisioner

Props = dict[str, Any]

_PARTS: Final = (
    "installation",
    "environment",
    "stores",
    "issuers",
    "channels",
    "notices",
    "owners",
    "fingerprints",
    "secrets",
)
_DRAIN: Final = {"drainQuietFor": "quietFor", "drainAtMost": "atMost", "drainThen": "then"}
_FORCE: Final = "KEYTURN_FORCE_REVOKE"
"""Names of secrets that this one run may revoke although they are in use, with commas or spaces between them."""


class ApplyError(Exception):
    """What was not done to a secret, how it was left, and what to do next. Never holds a value."""


def inputs(policy: Policy) -> Props:
    """A policy as a resource's inputs; policy_of() gives it back."""
    from rotation.policy import (  # noqa: PLC0415 - as in all of this module: imported where it is applied
        show_duration,
        written_schedule,
    )

    return {
        "installation": policy.installation,
        "environment": policy.environment,
        "name": policy.name,
        "store": policy.store,
        "replicas": list(policy.replicas),
        "issuer": policy.issuer,
        "owner": policy.owner,
        "rotateEvery": show_duration(policy.rotate_every),
        "schedule": written_schedule(policy.schedule),
        "grace": show_duration(policy.grace),
        "drainQuietFor": show_duration(policy.drain.quiet_for),
        "drainAtMost": show_duration(policy.drain.at_most),
        "drainThen": policy.drain.then.value,
        "containAfter": show_duration(policy.contain_after),
        "consumers": [f"{consumer.name}={show_duration(consumer.refresh_within)}" for consumer in policy.consumers],
        "pairedWith": policy.paired_with or "",
        "smokeTest": policy.smoke_test,
        "allowedCidrs": list(policy.allowed_cidrs),
        "allowedVpces": list(policy.allowed_vpces),
        "format": policy.form or "raw",
        "tags": [f"{name}={text}" for name, text in policy.tags],
    }


def policy_of(props: Mapping[str, Any]) -> Policy:
    """The policy that inputs or outputs say. Raises ValueError or KeyError where they say none."""
    from rotation.model import Consumer, Drain, Ending, Policy  # noqa: PLC0415
    from rotation.policy import read_duration, read_schedule  # noqa: PLC0415

    consumers = (text.rsplit("=", 1) for text in props["consumers"])
    form, tags = props.get("format", "raw"), (tag.partition("=") for tag in props.get("tags", ()))
    return Policy(
        installation=props["installation"],
        environment=props["environment"],
        name=props["name"],
        store=props["store"],
        replicas=tuple(props["replicas"]),
        issuer=props["issuer"],
        owner=props["owner"],
        rotate_every=read_duration(props["rotateEvery"]),
        schedule=read_schedule(props.get("schedule", "")),
        grace=read_duration(props["grace"]),
        drain=Drain(
            read_duration(props["drainQuietFor"]), read_duration(props["drainAtMost"]), Ending(props["drainThen"])
        ),
        contain_after=read_duration(props["containAfter"]),
        consumers=tuple(Consumer(name, read_duration(within)) for name, within in consumers),
        paired_with=props["pairedWith"] or None,
        smoke_test=props["smokeTest"],
        allowed_cidrs=tuple(props.get("allowedCidrs", ())),
        allowed_vpces=tuple(props.get("allowedVpces", ())),
        form="" if form == "raw" else form,
        tags=tuple((name, text) for name, _, text in tags),
    )


class RotatedSecretProvider(ResourceProvider):
    """Applies RotatedSecrets. Pickled by reference and empty; several threads use one."""

    serialize_as_secret_always = False
    _settings: Mapping[str, object] = {}

    def configure(self, req: ConfigureRequest) -> None:
        self._settings = {part: value for part in _PARTS if (value := req.config.get(f"keyturn:{part}")) is not None}

    def check(self, _olds: Props, news: Props) -> CheckResult:
        """The rules of the configuration, and changes that no order of steps makes safe."""
        from rotation.provision import forbidden  # noqa: PLC0415

        failures = [CheckFailure(name, reason) for name, reason in self._faults(news)]
        if not failures and _olds:
            old, new = policy_of(_olds), policy_of(news)
            failures = [CheckFailure(name, reason) for name, reason in forbidden(old, new).items()]
        return CheckResult(news, failures)

    def diff(self, _id: str, _olds: Props, _news: Props) -> DiffResult:
        from rotation.provision import diff  # noqa: PLC0415

        found = diff(policy_of(_olds), policy_of(_news))
        beside = any(_olds.get(name) != _news.get(name) for name in ("bootstrap", "forceRevoke"))
        return DiffResult(
            changes=bool(found.changes) or beside or bool(_olds.get("fault")),
            replaces=list(found.replaces),
            stables=["entry"],
            delete_before_replace=False,
        )

    def create(self, props: Props) -> CreateResult:
        policy = policy_of(props)
        with self._provisioner(policy) as provisioner:  # adopting is done once: a later word on it changes nothing
            provisioner.create(
                policy,
                bootstrap=props["bootstrap"],
                adopt=props.get("adopt", False),
                adopt_key_id=props.get("adoptKeyId") or None,
            )
            entry = provisioner.entry(policy.store, policy)
        return CreateResult(f"{policy.store}:{entry}", {**_own(props), "entry": entry})

    def read(self, id_: str, props: Props) -> ReadResult:
        last = policy_of(props)
        with self._provisioner(last) as provisioner:
            applied = provisioner.read(last)
        if applied is None:
            return ReadResult("", {})
        found = {**_own(props), **inputs(applied.policy)}
        # As inputs, so that the next preview tells what it puts right. The issuer as declared: check() compares it.
        seen = {**found, "issuer": props["issuer"], "entry": None}
        return ReadResult(id_, {**found, "fault": applied.fault} if applied.fault else found, seen)

    def update(self, _id: str, _olds: Props, _news: Props) -> UpdateResult:
        old, new = policy_of(_olds), policy_of(_news)
        with self._provisioner(new) as provisioner:
            provisioner.update(old, new, bootstrap=_news["bootstrap"])
        return UpdateResult({**_own(_news), "entry": _olds["entry"]})

    def delete(self, _id: str, _props: Props) -> None:
        import os  # noqa: PLC0415

        policy = policy_of(_props)
        forced = _props["forceRevoke"] or policy.name in os.environ.get(_FORCE, "").replace(",", " ").split()
        with self._provisioner(policy) as provisioner:
            provisioner.delete(policy, force_revoke=forced)

    # --- what all of them need ---------------------------------------------------------------------

    @contextmanager
    def _provisioner(self, policy: Policy) -> Iterator[Provisioner]:
        """Clients and an engine of one operation's own. Turns every failure into one sentence."""
        import os  # noqa: PLC0415
        import sys  # noqa: PLC0415
        import traceback  # noqa: PLC0415
        from pathlib import Path  # noqa: PLC0415

        from rotation.assembly import assemble  # noqa: PLC0415
        from rotation.audit import FileAuditor  # noqa: PLC0415
        from rotation.config import ConfigError  # noqa: PLC0415
        from rotation.errors import Trouble  # noqa: PLC0415
        from rotation.provision import Provisioner, Refusal  # noqa: PLC0415

        def tell(sentence: str) -> None:
            sys.stderr.write(f"{sentence}\n")

        try:
            config = self._config_for(policy)
            trail = os.environ.get("KEYTURN_AUDIT_FILE") or f".keyturn/audit/{policy.environment}.jsonl"
            made = assemble(config, os.environ, FileAuditor(Path(trail), policy.installation, policy.environment))
            yield Provisioner(made.engine, made.stores, made.issuers, made.places, made.clock, tell)
        except (Trouble, Refusal, ConfigError) as error:
            message = str(error)
        except Exception as error:  # noqa: BLE001 - its text and its causes may hold anything
            where = traceback.extract_tb(error.__traceback__)[-1]
            told = f"{type(error).__name__} at {Path(where.filename).name}:{where.lineno}"
            message = f"a fault in Keyturn itself, {told}; what was begun can be repeated"
        else:
            return
        raise ApplyError(message) from None

    def _config_for(self, policy: Policy) -> Config:
        """The stack's configuration; without its secrets where those have faults, as what is applied needs them not."""
        from rotation.config import ConfigError, parse  # noqa: PLC0415
        from rotation.provision import Refusal  # noqa: PLC0415

        try:
            config = parse(self._settings)
        except ConfigError:
            config = parse({**self._settings, "secrets": []})
        for store in policy.stores:
            if store not in config.stores:
                raise Refusal(f"keyturn:stores does not say any more where {store} is; keep it until this is applied")
        if policy.issuer not in config.issuers:
            raise Refusal(f"keyturn:issuers does not have {policy.issuer} any more; keep it until this is applied")
        return config

    def _faults(self, props: Props) -> Iterator[tuple[str, str]]:
        """Property and reason of everything that the configuration would refuse, too."""
        from rotation.config import ConfigError, parse  # noqa: PLC0415

        declared = {"installation": props["installation"], "environment": props["environment"]}
        try:
            parse({**self._settings, **declared, "secrets": [section(props)]})
        except ConfigError as error:
            for fault in error.faults:
                yield (
                    _property(fault.path),
                    f"{fault.message}; allowed: {fault.allowed}" if fault.allowed else fault.message,
                )


def section(props: Props) -> Props:
    """The inputs as the secret's section in a stack file. The pair is left out: only the whole file can judge it."""
    same = ("name", "store", "replicas", "issuer", "owner", "grace", "containAfter")
    consumers = (text.rsplit("=", 1) for text in props["consumers"])
    tags = (text.partition("=") for text in props.get("tags", ()))
    adoption = {"adopt": props.get("adopt", False), "adoptKeyId": props.get("adoptKeyId") or None}
    return (
        {name: props[name] for name in same}
        | adoption
        | _format(props.get("format", "raw"))
        | _schedule(props)
        | {
            "drain": {below: props[name] for name, below in _DRAIN.items()},
            **{name: list(props[name]) for name in ("allowedCidrs", "allowedVpces") if props.get(name)},
            "consumers": [{"name": name, "refreshWithin": within} for name, within in consumers],
            "tags": {name: text for name, _, text in tags},
        }
    )


def _schedule(props: Props) -> Props:
    """How often, and when, as a stack file says it."""
    from rotation.policy import read_duration, read_schedule, show_duration, show_moment, show_window  # noqa: PLC0415

    bound = props["rotateEvery"]
    if not (text := props.get("schedule", "")):
        return {"rotateEvery": bound}
    try:
        schedule, _ = read_schedule(text), read_duration(bound)
    except (ValueError, KeyError):
        return {"rotateEvery": bound, "schedule": text}  # which is refused, in the configuration's words
    often = {"cron": schedule.cron, "latest": bound} if schedule.cron else {"every": bound}
    if schedule.every:
        often = {"every": show_duration(schedule.every), "latest": bound}
    return {
        "schedule": often
        | {
            "timeZone": schedule.zone,
            "window": [show_window(window) for window in schedule.windows],
            "blackouts": [
                {"from": show_moment(held.start), "to": show_moment(held.end, end=True), "reason": held.reason}
                for held in schedule.blackouts
            ],
            "jitter": show_duration(schedule.jitter),
            "earliest": show_duration(schedule.earliest),
            "overrides": [restraint.value for restraint in schedule.overrides],
        }
    }


def _format(form: str) -> Props:
    """A form as a stack file says it. The raw form is left out, as it stands for the issuer's own fields, too."""
    kind, _, rest = form.partition(" ")
    if kind == "json":
        names = {name: field for name, _, field in (word.partition("=") for word in rest.split())}
        whole = form == "json " + " ".join(f"{name}={field}" for name, field in names.items())
        return {"format": {kind: names} if whole else form}
    return {} if form == "raw" else {"format": {kind: rest}}


def _property(path: str) -> str:
    """The input that a field of the configuration became."""
    field = path.removeprefix("keyturn:").removeprefix("secrets[0].")
    if field.startswith("consumers["):
        return field.partition(".")[0]
    if field.startswith("schedule."):
        return "schedule"
    return {f"drain.{below}": name for name, below in _DRAIN.items()}.get(field, field)


def _own(props: Props) -> Props:
    """Properties without Pulumi's own, and without what an earlier look found wrong."""
    return {name: value for name, value in props.items() if name != "fault" and not name.startswith("__")}


class RotatedSecret(Resource, module="keyturn", name="RotatedSecret"):
    """A secret whose credential Keyturn mints, rotates and revokes.

    To take over an entry that exists, declare it with `adopt`: nothing in it changes until its first rotation. To
    hand one back, run `keyturn release NAME` and then `pulumi refresh`, which takes it out of the state, and remove
    it from the program; entry, value and keys stay. Removing it with Pulumi's `retainOnDelete` takes it out of the
    state only: the entry keeps its policy, and whatever finds it in its store goes on rotating it. Without either,
    removing it deletes the entry and revokes its keys, adopted or made, unless they may be in use.
    """

    entry: pulumi.Output[str]
    """The entry's name in its store; rotation never changes it."""
    store: pulumi.Output[str]
    """The primary store's name under `keyturn:stores`."""
    name: pulumi.Output[str]

    def __init__(
        self,
        policy: Policy,
        *,
        bootstrap: Literal["apply", "function"],
        adopt: bool = False,
        adopt_key_id: str | None = None,
        force_revoke: bool = False,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        """A resource with the secret's own name.

        Parameters:
            policy: what is declared. A change is applied in place; another store, environment or name
                makes a new entry first, and deletes the old one when nothing uses it.
            bootstrap: `apply` mints the first credential now, `function` leaves that to whatever runs
                `keyturn sweep`, so that whoever applies needs no administrative credential.
            adopt: an entry that is there and that nobody manages is taken under management, with its value as
                it is; without this it is refused. Whoever applies must be able to read it, and hold what the issuer
                needs; who may not has `keyturn adopt NAME` run before, elsewhere, and applies with this all the
                same. Once it is done, changing or removing this does nothing.
            adopt_key_id: the issuer's id of the adopted value. Without it that value is never revoked by
                Keyturn, and deleting the secret waits until somebody has revoked it by hand.
            force_revoke: deleting revokes keys although they are in use, or may be.
            opts: Pulumi's own.
        """
        handling = {"adopt": adopt, "adoptKeyId": adopt_key_id or "", "forceRevoke": force_revoke}
        props = {**inputs(policy), "bootstrap": bootstrap, **handling, "entry": None}
        super().__init__(RotatedSecretProvider(), policy.name, props, opts)
