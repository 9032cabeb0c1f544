"""The store over AWS Secrets Manager, in one region.

Layout, for an entry `<environment>/<name>`, an optional prefix included:

    version id      the rotation token: it goes out as ClientRequestToken
    AWSCURRENT      on the current version: what consumers read
    AWSPENDING      on the pending version; on the current one it says nothing, and is left there
    tags            journal `keyturn:journal.<fact>`, policy `keyturn:policy.<key>`, `keyturn:tags`

A version holds one text. A credential with the single field `value` is stored as that text, any other
as one JSON object of its fields, and read() gives the stored text back in the field `value`.

A tag's value has at most 256 characters, so a longer one of the policy goes on in the tags
`keyturn:policy.<key>+2`, `+3`, … Keys of the policy that start with `tag.` are the user's own: they
stand as plain tags, without prefix, and `keyturn:tags` names them, so that nobody else's are touched.

The service puts AWSCURRENT on the first value of an entry, whatever was asked for. A value that is only
staged would be handed out, so the first stage of an entry puts a marker before it (`NO_CREDENTIAL`),
which holds AWSCURRENT until the first promotion. It is binary: who reads a string finds none.

A version is taken for one of ours, and has a token, when the journal names its id, or when the id has the
form of the engine's own tokens, 32 hexadecimal digits. Consoles, SDKs and RotateSecret make ids of 36
characters. The journal of a replica is in its primary: there the form alone decides.

Calls: observe, record, forget, promote, discard, find and stage take one each. One more: observe, of an
entry with a pending version of native rotation that this client has not put, or with a current version that is not
ours; stage, of an entry that this client has not seen with a value; whatever is refused, to find out why. Throttled calls are sent again, at most
three times; so are reads that got no answer. Nothing else is: a write whose answer was lost may have had its effect.

The service may rotate an entry by itself (RotateSecret): it registers a version without a value as AWSPENDING, and calls
a function of ours, which stages under that version's id.

A policy's `allowed-cidrs` and `allowed-vpces` are one statement of the entry's resource policy, which denies
GetSecretValue from elsewhere; other people's statements stay. It says nothing of other operations, so that whoever may
manage the entry can always put it right, and exempts the roles that rotate, and AWS's own services.

`CALLS` says what each operation calls. With a key of one's own, whoever reads or writes values needs kms:Decrypt and
kms:GenerateDataKey besides.

Facts from the API reference and the user guide of the service (2026, as botocore 1.44 ships them).
"""

from __future__ import annotations

import json
import re
import ssl
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final

from providers.stores import aws_rights
from rotation import policy as policies
from rotation.errors import Code, Trouble
from rotation.journal import Journal
from rotation.model import Credential, Entry, SecretValue, ServiceRotation, Version
from rotation.ports import Clock, Diagnosis, Glance, Grade, Listed, StoreFeatures
from rotation.skew import Skew
from rotation.telemetry import heard

Json = Mapping[str, Any]

NO_CREDENTIAL: Final = "keyturn-no-credential-promoted-yet"
"""Id of the version that holds AWSCURRENT from the first stage to the first promotion. It is no version."""
# Written twice under one id it must be the same, from every release.
_MARKER: Final = b"Keyturn: no credential was promoted yet"
_MARKER_LABEL: Final = "KEYTURN_NO_CREDENTIAL"
"""Names the marker in the console, and leaves AWSPENDING where it is."""

_CURRENT: Final = "AWSCURRENT"
_PENDING: Final = "AWSPENDING"
_TOKEN: Final = re.compile(r"[0-9a-f]{32}")

_JOURNAL: Final = "keyturn:journal."
_POLICY: Final = "keyturn:policy."
_USER: Final = "tag."
_USER_TAGS: Final = "keyturn:tags"
"""Names of the user's own tags, with spaces between."""
_PART: Final = re.compile(r"(.+)\+([0-9]+)")
_TAG_FORM: Final = re.compile(r"[\w .:/=+@-]*")
"""Letters, digits, spaces and these (General Reference, "Tagging your AWS resources")."""
_MOST_TAGS: Final = 50
_JOURNAL_TAGS: Final = 24
"""Kept free for the journal: more than the longest sequence of rotations writes at once."""
_TAG_KEY: Final = 128
_TAG_VALUE: Final = 256
_VALUE_BYTES: Final = 65_536
_PAGE: Final = 100

_SURROGATE: Final = re.compile("[\ud800-\udfff]")

CALLS: Final[Mapping[str, tuple[str, ...]]] = {
    "observe": ("DescribeSecret", "ListSecretVersionIds"),
    "read": ("GetSecretValue",),
    "read_many": ("BatchGetSecretValue", "GetSecretValue"),
    "current": ("GetSecretValue",),
    "applied": ("DescribeSecret",),
    "find": ("GetSecretValue", "DescribeSecret"),
    "stage": ("PutSecretValue", "DescribeSecret", "UpdateSecretVersionStage"),
    "promote": ("UpdateSecretVersionStage", "DescribeSecret"),
    "discard": ("UpdateSecretVersionStage", "DescribeSecret"),
    "record": ("TagResource", "DescribeSecret"),
    "forget": ("UntagResource", "DescribeSecret"),
    "listing": ("ListSecrets",),
    "create": ("CreateSecret", "TagResource"),
    "set_policy": ("DescribeSecret", "TagResource", "UntagResource"),
    "delete": ("DescribeSecret", "DeleteSecret"),
    "restore": ("DescribeSecret", "RestoreSecret"),
    "set_rotation": ("DescribeSecret",),
}
"""What each operation of the port may call, as IAM names it. Making an entry with tags takes TagResource, too."""
REPLICATED: Final[Mapping[str, tuple[str, ...]]] = {
    "create": ("ReplicateSecretToRegions",),
    "delete": ("RemoveRegionsFromReplication",),
    "restore": ("ReplicateSecretToRegions",),
}
"""What comes to that where the service replicates entries to other regions."""
RESTRICTED: Final[Mapping[str, tuple[str, ...]]] = {
    "create": ("PutResourcePolicy",),
    "applied": ("GetResourcePolicy",),
    "set_policy": ("GetResourcePolicy", "PutResourcePolicy", "DeleteResourcePolicy"),
}
"""What comes to that where the policy has `allowed-cidrs` or `allowed-vpces`."""
NATIVE: Final[Mapping[str, tuple[str, ...]]] = {
    "set_rotation": ("CancelRotateSecret", "RotateSecret"),
    "start_rotation": ("DescribeSecret", "RotateSecret"),
}
"""What comes to that where the service rotates the entry. RotateSecret takes lambda:InvokeFunction, too."""
ANYWHERE: Final = ("BatchGetSecretValue", "ListSecrets")
"""Calls that IAM can not limit to an entry (Service Authorization Reference). Each value of a batch takes GetSecretValue."""
JOURNAL_TAGS: Final = ("keyturn:journal.*",)
POLICY_TAGS: Final = ("keyturn:policy.*", "keyturn:tags*")
"""Patterns of the tags that the journal, or the policy, is made of; beside the user's own."""


@dataclass(frozen=True, slots=True)
class AwsLogin:
    """Whose credentials sign the calls: the SDK's usual chain, or a role assumed with them.

    A role's session is called `keyturn` and is renewed before it ends. STS is called in the store's region,
    or where AWS_ENDPOINT_URL_STS says.
    """

    profile: str | None = None
    """Of the AWS configuration files; None for the chain (environment, files, container, instance)."""
    role_arn: str | None = None
    external_id: str | None = None
    """What the role's trust policy asks for."""

    @property
    def how(self) -> str:
        """Names it in messages."""
        source = f"profile {self.profile}" if self.profile else "the default chain"
        return f"role {self.role_arn} from {source}" if self.role_arn else source


class SecretsManagerStore:
    """A client of Secrets Manager in one region. Threads may share it.

    Parameters:
        name: the store's configured name.
        region: as in `eu-west-1`.
        endpoint_url: of Secrets Manager, in place of the region's own; None for that, or what AWS_ENDPOINT_URL says.
        login: whose credentials to use.
        kms_key_id: id, ARN or alias of the key that new entries are encrypted with; None for the service's own.
        replica_regions: where new and restored entries are replicated to by the service itself, under the
            service's own key there.
        exempt_roles: ARNs of the roles that a policy's networks do not bind; none for the one that `login` assumes.
        recovery_window_days: 7 to 30; how long a deleted entry can be restored.
        rotation_function: ARN of the Lambda function that the service calls to rotate; None where it rotates nothing.
        clock: for the time of looking, and the pauses between repeated reads.
        timeout: seconds that one answer may take; connecting has 2 s more.
    """

    features: Final = StoreFeatures(
        compare_and_set=True,
        keeps_key_id=False,
        max_value_bytes=_VALUE_BYTES,
        recovers_deleted=True,
        text_only=True,
    )

    def __init__(
        self,
        name: str,
        *,
        region: str,
        endpoint_url: str | None = None,
        login: AwsLogin,
        kms_key_id: str | None = None,
        replica_regions: Iterable[str] = (),
        exempt_roles: Iterable[str] = (),
        recovery_window_days: int = 30,
        rotation_function: str | None = None,
        clock: Clock,
        timeout: float = 8.0,
    ) -> None:
        self.name: Final = name
        self._region = region
        self._how = login.how
        self._kms_key_id = kms_key_id
        self._replica_regions = tuple(replica_regions)
        self._recovery_window_days = recovery_window_days
        self._rotation_function = rotation_function
        self._rights: dict[tuple[str, str], SecretValue] = {}
        """RotationToken by entry and version id, while the service's rotation is worked on."""
        self._filled: dict[str, tuple[str, datetime]] = {}
        """By entry, the version that this client put last, and when: it has a value from then on. Saves observe() a list."""
        self._clock = clock
        self._exempt = sorted(exempt_roles) or ([login.role_arn] if login.role_arn else [])
        self._service = _Service(name, region, endpoint_url, login, clock, timeout)
        self._valued: set[str] = set()
        """Entries that were seen with AWSCURRENT, which is never taken off again. Saves stage() a look."""

    def observe(self, entry: str) -> Entry:
        seen = self._seen(entry, self._clock.now(), self._describe(entry), lambda: self._made(entry))
        assert seen is not None, "where versions can be listed, all can be told"
        return seen

    def _seen(
        self, entry: str, at: datetime, about: Json, made_when: Callable[[], dict[str, datetime]] | None
    ) -> Entry | None:
        """An entry by what was told about it.

        Parameters:
            made_when: lists its versions; None: they can not be listed, and without them it may not be all told.
        """
        tags, labels = _tags(about), _labels(about)
        try:
            journal = Journal(_under(_JOURNAL, tags))
        except ValueError as error:
            raise self._trouble(Code.INVALID, entry, f"{error}; correct or remove its tag {_JOURNAL}…") from None
        current = None if labels.get(_CURRENT) == NO_CREDENTIAL else labels.get(_CURRENT)
        pending = None if labels.get(_PENDING) == labels.get(_CURRENT) else labels.get(_PENDING)
        # RotateSecret registers a pending version before there is a value; only a list of versions tells.
        begun, native = None, pending is not None and "RotationEnabled" in about
        foreign = current is not None and _token(current, journal) is None
        token, since = self._filled.get(entry, (None, at))
        made = {pending: since} if pending is not None and pending == token else {}
        if foreign or (native and not made):
            if made_when is None:
                return None
            made |= made_when()
        if native and pending not in made:
            begun, pending = pending, None
        return Entry(
            store=self.name,
            name=entry,
            read_at=at,
            current=_version(current, journal, made),
            pending=_version(pending, journal, made),
            journal=journal,
            policy=_policy(tags),
            room=_MOST_TAGS - sum(not key.startswith(_JOURNAL) for key in tags),
            service=_service_rotation(about, begun),
            behind=_behind(about),
            copying=frozenset(one["Region"] for one in about.get("ReplicationStatus", ()) if _copying(one)),
        )

    def read(self, entry: str, version: Version) -> Credential:
        if version.credential is not None:
            return version.credential
        # A reader may be behind a writer for a moment, so that a version which was just put is asked for again.
        answer = self._ask(entry, "get_secret_value", again=_PATIENT, SecretId=entry, VersionId=version.id)
        return self._credential(entry, answer)

    def read_many(self, entries: Sequence[str]) -> dict[str, Version]:
        """The current versions of many entries with their values, 20 to a call (BatchGetSecretValue).

        An entry that can not be read is not among them; observe() and read() say why.
        """
        found: dict[str, Version] = {}
        for start in range(0, len(entries), _BATCH):
            some = list(entries[start : start + _BATCH])
            answer = self._ask(some[0], "batch_get_secret_value", SecretIdList=some)
            for held in answer.get("SecretValues", ()):
                if "SecretString" in held:
                    credential = self._credential(held["Name"], held)
                    found[held["Name"]] = Version(id=held["VersionId"], token=None, credential=credential)
        return found

    def current(self, entry: str) -> Credential:
        told = "has no value"
        try:
            # A refusal is not looked into: a consumer may do nothing but this.
            answer = self._service.ask(_Call(entry, "get_secret_value", {"SecretId": entry}, again=_READ))
            if answer["VersionId"] != NO_CREDENTIAL:
                return self._credential(entry, answer)
        except _Refusal as refusal:
            if refusal.error not in ("InvalidRequestException", "ResourceNotFoundException"):
                raise
            told = "the entry is deleted" if refusal.code is Code.INVALID else "no such entry, or it has no value"
        raise self._trouble(Code.NOT_FOUND, entry, told)

    def applied(self, entry: str) -> Mapping[str, str]:
        about = self._describe(entry)
        policy = _policy(_tags(about))
        if not _restricted(policy):
            return policy
        return {key: text for key, text in policy.items() if key not in _NETWORKS} | _enforced(
            self._statements(entry), self._exempt
        )

    def find(self, entry: str, token: str) -> Version | None:
        try:
            answer = self._ask(entry, "get_secret_value", SecretId=entry, VersionId=token)
        except _Refusal as refusal:
            if refusal.code is not Code.NOT_FOUND:
                raise
        else:
            return Version(
                id=token,
                token=token,
                created_at=_utc(answer["CreatedDate"]),
                credential=self._credential(entry, answer),
            )
        self._describe(entry)  # the entry or the version: one error says either
        return None

    def stage(self, entry: str, token: str, credential: Credential, *, key_id: str | None) -> None:  # noqa: ARG002 - the journal keeps it
        text = self._text(entry, credential)
        begun = self._clock.monotonic()
        if entry not in self._valued and _CURRENT not in _labels(self._describe(entry)):
            self._put(entry, NO_CREDENTIAL, _MARKER_LABEL, begun, again=_READ, SecretBinary=_MARKER)
        answer = self._put(entry, token, _PENDING, begun, again=_WRITE, SecretString=text)
        self._filled[entry] = token, self._clock.now()
        # The same token with the same value does nothing at all: a label that has gone elsewhere stays there.
        if not {_PENDING, _CURRENT} & set(answer["VersionStages"]):
            self._label_again(entry, token, begun)

    def start_rotation(self, entry: str, token: str) -> None:
        self._rotate(entry, ClientRequestToken=token)

    def set_rotation(self, entry: str, every: timedelta | None) -> None:
        about = self._describe(entry)
        now = _service_rotation(about, None)
        if every is None:
            if now and now.enabled:
                self._ask(entry, "cancel_rotate_secret", SecretId=entry)
            return
        if self._rotation_function is None:
            told = "its policy is native, and no rotationFunction is configured for this store"
            raise self._trouble(Code.INVALID, entry, told)
        schedule = _rate(every)
        if now and (now.enabled, now.function, now.schedule) == (True, self._rotation_function, schedule):
            return
        rules = {"ScheduleExpression": schedule}
        self._rotate(entry, RotationLambdaARN=self._rotation_function, RotationRules=rules, RotateImmediately=False)

    def _rotate(self, entry: str, **parameters: Any) -> None:
        try:
            self._ask(entry, "rotate_secret", SecretId=entry, **parameters)
        except _Refusal as refusal:
            if refusal.code is not Code.INVALID:
                raise
            labels = _labels(self._describe(entry))
            if labels.get(_PENDING) in (None, labels.get(_CURRENT)):
                raise
            raise self._trouble(Code.CONFLICT, entry, "the service counts a rotation of it as begun") from None

    @contextmanager
    def rotating(self, entry: str, token: str, right: SecretValue) -> Iterator[None]:
        self._rights[entry, token] = right
        try:
            yield
        finally:
            del self._rights[entry, token]

    def promote(self, entry: str, pending: Version, expected: str | None) -> None:
        begun = self._clock.monotonic()
        try:
            self._move(entry, _CURRENT, pending.id, expected or NO_CREDENTIAL, begun)
            return
        except _Refusal as refusal:
            refused = refusal
        labels = _labels(self._explained(entry, refused))
        if expected is None and _CURRENT not in labels:
            with self._conflict(entry, "something else became current at the same moment"):
                self._move(entry, _CURRENT, pending.id, None, begun)
            return
        if refused.code is Code.NOT_FOUND and labels.get(_CURRENT, NO_CREDENTIAL) == (expected or NO_CREDENTIAL):
            raise self._trouble(Code.NOT_FOUND, entry, f"version {pending.id} is gone")
        # Also when this look does not show it: looks may lag behind, refusals do not.
        told = f"version {expected} is not current any more" if expected else "there is a current version already"
        raise self._trouble(Code.CONFLICT, entry, f"{told}; nothing was changed")

    def discard(self, entry: str, pending: Version) -> None:
        try:
            self._move(entry, _PENDING, None, pending.id, self._clock.monotonic())
        except _Refusal as refusal:
            self._explained(entry, refusal)  # that it is not attached is no error

    def record(self, entry: str, facts: Mapping[str, str]) -> None:
        tags = {_JOURNAL + key: text for key, text in facts.items()}
        self._check_tags(entry, tags)
        if not tags:
            return
        try:
            self._ask(entry, "tag_resource", SecretId=entry, Tags=_tag_list(tags))
        except _Refusal as refusal:
            if refusal.code is not Code.INVALID:
                raise
            count = len(_tags(self._describe(entry)) | tags)
            if count <= _MOST_TAGS:
                raise
            told = f"with these facts it would have {count} tags, at most {_MOST_TAGS} are allowed; remove others' tags"
            raise self._trouble(Code.INVALID, entry, told) from None

    def forget(self, entry: str, facts: Iterable[str]) -> None:
        keys = [_JOURNAL + key for key in facts]
        if keys:
            self._ask(entry, "untag_resource", SecretId=entry, TagKeys=keys)

    def listing(self) -> Iterator[Listed]:
        """As the port says, up to five minutes old, without what the service replicates from another region."""
        for about in self._listed():
            tags = _tags(about)
            yield Listed(about["Name"], _policy(tags), _under(_JOURNAL, tags))

    def glances(self) -> Iterator[Glance]:
        """As listing(), with all that DescribeSecret would tell."""
        for about in self._listed():
            at = self._clock.now()
            try:
                # The two calls name the labels of versions differently.
                stages = {"VersionIdsToStages": about.get("SecretVersionsToStages", {})}
                seen = self._seen(about["Name"], at, {**about, **stages}, None)
            except Trouble:
                seen = None  # its own run says what is wrong with it
            yield Glance(about["Name"], _policy(_tags(about)), seen)

    def _listed(self) -> Iterator[Json]:
        wanted = [{"Key": "tag-key", "Values": [f"{_POLICY}name"]}]
        more: dict[str, str] = {}
        while True:
            page = self._ask("listing", "list_secrets", MaxResults=_PAGE, Filters=wanted, **more)
            for about in page["SecretList"]:
                if _policy(_tags(about)) and about.get("PrimaryRegion", self._region) == self._region:
                    yield about
            if not page.get("NextToken"):
                return
            more = {"NextToken": page["NextToken"]}

    def create(self, entry: str, policy: Mapping[str, str]) -> None:
        tags = self._policy_tags(entry, policy)
        self._check_room(entry, len(tags))
        options: dict[str, Any] = {"KmsKeyId": self._kms_key_id} if self._kms_key_id else {}
        if self._replica_regions:
            options["AddReplicaRegions"] = [{"Region": region} for region in self._replica_regions]
        self._valued.discard(entry)
        try:
            self._service.ask(_Call(entry, "create_secret", {"Name": entry, "Tags": _tag_list(tags), **options}))
        except _Refusal as refusal:
            # Of a name that is taken, the former is what a deleted entry answers.
            if refusal.error not in ("InvalidRequestException", "ResourceExistsException"):
                raise
            raise self._trouble(Code.CONFLICT, entry, "the entry exists already, perhaps deleted") from None
        if _restricted(policy):
            self._put_statements(entry, [self._wall(entry, policy)], half_done=True)

    def set_policy(self, entry: str, policy: Mapping[str, str]) -> None:
        """As the port says. One that failed half-way is completed by the next."""
        new = self._policy_tags(entry, policy)
        old = _tags(self._describe(entry))
        gone = [key for key in _owned(old) if key in old and key not in new]
        changed = {key: text for key, text in new.items() if old.get(key) != text}
        self._check_room(entry, len([key for key in old | new if key not in gone and not key.startswith(_JOURNAL)]))
        # The tags say that values are walled off from before they are until after they are: so applied() finds out.
        opened = _restricted(_policy(old)) and not _restricted(policy)
        done = opened and self._wall_off(entry, policy)
        if gone:
            self._ask(entry, "untag_resource", half_done=done, SecretId=entry, TagKeys=gone)
        if changed:
            self._ask(entry, "tag_resource", half_done=done or bool(gone), SecretId=entry, Tags=_tag_list(changed))
        if _restricted(policy):
            self._wall_off(entry, policy, half_done=bool(gone or changed))

    def delete(self, entry: str) -> None:
        """As the port says. The service's own replicas go first, for good; restore() makes them anew."""
        self._valued.discard(entry)
        about = self._look(entry)
        if about is None or "DeletedDate" in about:
            return
        regions = [replica["Region"] for replica in about.get("ReplicationStatus", ())]
        if regions:
            self._ask(entry, "remove_regions_from_replication", SecretId=entry, RemoveReplicaRegions=regions)
        days = self._recovery_window_days
        try:
            self._ask(entry, "delete_secret", half_done=bool(regions), SecretId=entry, RecoveryWindowInDays=days)
        except Trouble as trouble:
            if trouble.code is not Code.NOT_FOUND:
                raise

    def restore(self, entry: str) -> bool:
        about = self._look(entry)
        if about is None or "DeletedDate" not in about:
            return False
        self._ask(entry, "restore_secret", SecretId=entry)
        if self._replica_regions:
            regions = [{"Region": region} for region in self._replica_regions]
            self._ask(entry, "replicate_secret_to_regions", half_done=True, SecretId=entry, AddReplicaRegions=regions)
        return True

    # --- from where values may be read -------------------------------------------------------------

    def _wall(self, entry: str, policy: Mapping[str, str]) -> Json:
        if not self._exempt:
            told = "no role is configured that could be exempt from the policy's networks, so rotation might lock itself out"
            raise self._trouble(Code.INVALID, entry, told)
        return _wall(*(policy.get(key, "").split() for key in _NETWORKS), exempt=self._exempt)

    def _wall_off(self, entry: str, policy: Mapping[str, str], *, half_done: bool = False) -> bool:
        """Makes our statement of the resource policy what the policy says. Whether anything was written."""
        wanted = [self._wall(entry, policy)] if _restricted(policy) else []
        there = self._statements(entry)
        new = [statement for statement in there if not _is_ours(statement)] + wanted
        if new == there:
            return False
        self._put_statements(entry, new, half_done=half_done)
        return True

    def _statements(self, entry: str) -> list[Any]:
        """Of the entry's resource policy."""
        text = self._ask(entry, "get_resource_policy", SecretId=entry).get("ResourcePolicy")
        found = json.loads(text)["Statement"] if text else []
        return found if isinstance(found, list) else [found]

    def _put_statements(self, entry: str, statements: list[Any], *, half_done: bool) -> None:
        if not statements:
            self._ask(entry, "delete_resource_policy", half_done=half_done, SecretId=entry)
            return
        document = json.dumps({"Version": "2012-10-17", "Statement": statements})
        written = {"ResourcePolicy": document, "BlockPublicPolicy": True}
        self._ask(entry, "put_resource_policy", half_done=half_done, SecretId=entry, **written)

    # --- looking round: see rotation.ports.ExaminedStore, TellsReaders, TellsTime --------------------

    @property
    def skew(self) -> timedelta | None:
        return self._service.skew.last

    def caller(self) -> str:
        """The login's ARN (sts:GetCallerIdentity)."""
        return self._service.caller()

    def examine(self, work: Mapping[str, Collection[str]]) -> Iterator[Diagnosis]:
        """Who the login is (sts:GetCallerIdentity), what its policies allow where it may ask, and quotas."""
        yield _quota(len(work))
        try:
            caller = self._service.caller()
        except Trouble as trouble:
            yield Diagnosis("login", Grade.UNCHECKED, str(trouble))
            return
        yield Diagnosis("login", Grade.GOOD, f"{self._how}: {caller}")
        if not work:
            return
        try:
            yield from self._allowed(caller, work)
        except Trouble as trouble:
            yield Diagnosis("permissions", Grade.UNCHECKED, str(trouble))

    def readers(self, entries: Sequence[str]) -> dict[str, list[str]]:
        """Whom the entries' resource policies let read; what people's own policies let them is not told here."""
        found: dict[str, list[str]] = {}
        for entry in entries:
            try:
                answer = self._ask(entry, "get_resource_policy", SecretId=entry)
            except Trouble as trouble:
                if trouble.code is not Code.NOT_FOUND:
                    raise
                continue
            policy = answer.get("ResourcePolicy")
            found[entry] = aws_rights.readers(policy) if policy else []
        return found

    def _allowed(self, caller: str, work: Mapping[str, Collection[str]]) -> Iterator[Diagnosis]:
        """Raises Trouble where that can not be asked."""
        partition, account = caller.split(":")[1], caller.split(":")[4]
        made_up = f"arn:{partition}:secretsmanager:{self._region}:{account}:secret:"
        entries, wanted = dict[str, str](), dict[str, list[str]]()
        for entry, operations in work.items():
            arn = f"{made_up}{entry}-AAAAAA"
            with suppress(Trouble):
                arn = (self._look(entry) or {}).get("ARN", arn)
            each = ((*CALLS.get(operation, ()), *NATIVE.get(operation, ())) for operation in operations)
            calls = dict.fromkeys(call for called in each for call in called if call not in ANYWHERE)
            entries[arn], wanted[arn] = entry, [f"secretsmanager:{call}" for call in calls]
        found = self._service.simulated(caller, wanted, {"aws:TagKeys": [tag.replace("*", "") for tag in JOURNAL_TAGS]})
        for arn, actions in found.denied.items():
            told = f"{caller} is not allowed {', '.join(actions)} on {entries[arn]}"
            remedy = "AWS administrator: attach what `keyturn policy aws --for rotate` prints to it"
            yield Diagnosis("permissions", Grade.FAILING, told, remedy, entries[arn])
        unclear = {arn: keys for arn, keys in found.open.items() if arn not in found.denied}
        for arn, keys in unclear.items():
            told = f"what {caller} may do with {entries[arn]} depends on {', '.join(sorted(keys))}"
            yield Diagnosis("permissions", Grade.UNCHECKED, told, entry=entries[arn])
        if not found.denied and not unclear:
            told = f"the policies of {caller} allow all that a sweep does, entry by entry ({len(work)})"
            yield Diagnosis("permissions", Grade.GOOD, told)

    # --- the parts that operations are made of -----------------------------------------------------

    def _look(self, entry: str) -> Json | None:
        """What DescribeSecret says, of a deleted entry too; None when there is none."""
        try:
            about = self._service.ask(_Call(entry, "describe_secret", {"SecretId": entry}, again=_READ))
        except _Refusal as refusal:
            if refusal.code is not Code.NOT_FOUND:
                raise
            return None
        if _CURRENT in _labels(about):
            self._valued.add(entry)
        else:
            self._valued.discard(entry)
        return about

    def _describe(self, entry: str) -> Json:
        """What DescribeSecret says of an entry that is there and not deleted."""
        about = self._look(entry)
        if about is None:
            raise self._trouble(Code.NOT_FOUND, entry, f"no such entry in {self._region}")
        if "DeletedDate" in about:
            gone = _utc(about["DeletedDate"])
            raise self._trouble(
                Code.NOT_FOUND, entry, f"the entry is deleted; it can be restored until {gone:%Y-%m-%d}"
            )
        return about

    def _made(self, entry: str) -> dict[str, datetime]:
        """When the labelled versions that have a value were made. At most twenty, so one page has them all."""
        answer = self._ask(entry, "list_secret_version_ids", SecretId=entry, MaxResults=_PAGE)
        return {about["VersionId"]: _utc(about["CreatedDate"]) for about in answer["Versions"]}

    def _put(self, entry: str, token: str, label: str, begun: float, again: frozenset[Code], **value: Any) -> Json:
        """Without the label's name the service would move AWSCURRENT."""
        parameters = {"SecretId": entry, "ClientRequestToken": token, "VersionStages": [label], **value}
        if right := self._rights.get((entry, token)):
            parameters["RotationToken"] = right.reveal()
        try:
            return self._ask(entry, "put_secret_value", again=again, begun=begun, **parameters)
        except _Refusal as refusal:
            if refusal.code is not Code.CONFLICT:
                raise
        raise self._trouble(Code.CONFLICT, entry, f"token {token} already names another value")

    def _label_again(self, entry: str, token: str, begun: float) -> None:
        """Makes a version pending that exists and is not."""
        holder = _labels(self._describe(entry)).get(_PENDING)
        with self._conflict(entry, "something else was staged at the same moment"):
            self._move(entry, _PENDING, token, holder, begun)

    @contextmanager
    def _conflict(self, entry: str, told: str) -> Iterator[None]:
        """Of a move that was just looked for: a refusal means that somebody else was faster."""
        try:
            yield
        except _Refusal as refusal:
            if refusal.code is not Code.INVALID:
                raise
            raise self._trouble(Code.CONFLICT, entry, told) from None

    def _move(self, entry: str, label: str, to: str | None, away: str | None, begun: float) -> None:
        """Moves a label, provided that it is where it is expected. Raises _Refusal as the service says it."""
        ends = {"MoveToVersionId": to, "RemoveFromVersionId": away}
        parameters = {"SecretId": entry, "VersionStage": label} | {end: at for end, at in ends.items() if at}
        # A refusal has changed nothing. A version that was just put may not have spread yet.
        again = _WRITE | {Code.NOT_FOUND} if to else _WRITE
        self._service.ask(_Call(entry, "update_secret_version_stage", parameters, again=again, begun=begun))

    def _ask(self, entry: str, operation: str, **parameters: Any) -> Json:
        """One call, with a refusal explained that may be about the state of the entry."""
        again: frozenset[Code] = parameters.pop("again", _WRITE if _writes(operation) else _READ)
        begun, half_done = parameters.pop("begun", None), parameters.pop("half_done", False)
        call = _Call(entry, operation, parameters, again=again, begun=begun, half_done=half_done)
        try:
            return self._service.ask(call)
        except _Refusal as refusal:
            about_state = refusal.error in ("InvalidRequestException", "InvalidParameterException")
            if not about_state or "SecretId" not in parameters:
                raise
            refused = refusal
        self._explained(entry, refused)
        raise refused

    def _explained(self, entry: str, refused: _Refusal) -> Json:
        """What DescribeSecret says now.

        Raises:
            Trouble: the state of the entry is why a call was refused.
        """
        about = self._describe(entry)
        told = ""
        if about.get("PrimaryRegion", self._region) != self._region:
            told = f"is the service's replica of the entry in {about['PrimaryRegion']}, and can be changed there only"
        elif "OwningService" in about:
            told = f"belongs to {about['OwningService']}, which alone can change it"
        if told:
            raise self._trouble(Code.INVALID, entry, told, half_done=refused.maybe_applied)
        return about

    def _text(self, entry: str, credential: Credential) -> str:
        """What is written. Refuses what the service would refuse, or keep differently."""
        fields = {name: value.reveal() for name, value in sorted(credential.fields.items())}
        text = fields["value"] if fields.keys() == {"value"} else json.dumps(fields, ensure_ascii=False)
        if not fields or not text:
            raise self._trouble(Code.INVALID, entry, "the credential is empty")
        if _SURROGATE.search(text):
            raise self._trouble(Code.INVALID, entry, "the value is not valid Unicode text")
        if (size := len(text.encode())) > _VALUE_BYTES:
            raise self._trouble(Code.INVALID, entry, f"the value has {size} bytes, at most {_VALUE_BYTES} are allowed")
        return text

    def _credential(self, entry: str, answer: Json) -> Credential:
        text = answer.get("SecretString")
        if text is None:
            told = f"version {answer['VersionId']} is binary; Keyturn reads texts only"
            raise self._trouble(Code.INVALID, entry, told)
        return Credential({"value": SecretValue(text)})

    def _policy_tags(self, entry: str, policy: Mapping[str, str]) -> dict[str, str]:
        tags: dict[str, str] = {}
        own = {key.removeprefix(_USER): text for key, text in policy.items() if key.startswith(_USER)}
        for key in own:
            if not key or " " in key or key.lower().startswith(("aws:", "keyturn:")):
                told = f"{key!r} can not be a tag of your own: no spaces, and not aws: or keyturn: at its start"
                raise self._trouble(Code.INVALID, entry, told)
        for key, text in policy.items():
            if not key.startswith(_USER):
                tags |= _split(_POLICY + key, text)
        if own:
            tags |= _split(_USER_TAGS, " ".join(sorted(own)))
        self._check_tags(entry, tags | own)
        return tags | own

    def _check_tags(self, entry: str, tags: Mapping[str, str]) -> None:
        for key, text in tags.items():
            if not _TAG_FORM.fullmatch(key) or len(key) > _TAG_KEY:
                told = f"{key!r} can not be a tag's key: at most {_TAG_KEY} letters, digits, spaces and _.:/=+-@"
                raise self._trouble(Code.INVALID, entry, told)
            if not _TAG_FORM.fullmatch(text) or len(text) > _TAG_VALUE:
                told = f"the tag {key} can hold at most {_TAG_VALUE} letters, digits, spaces and _.:/=+-@"
                raise self._trouble(Code.INVALID, entry, told)

    def _check_room(self, entry: str, count: int) -> None:
        room = _MOST_TAGS - _JOURNAL_TAGS
        if count > room:
            told = f"it would have {count} tags, at most {room} leave room for the journal (of {_MOST_TAGS})"
            raise self._trouble(Code.INVALID, entry, told)

    def _trouble(self, code: Code, entry: str, message: str, *, half_done: bool = False) -> Trouble:
        return Trouble(code, self.name, f"{entry}: {message}", maybe_applied=half_done)


_WRITES: Final = 6
"""Calls of the busiest quota for one rotation, from its intent to the proof: those that tag and untag."""
_WRITES_A_SECOND: Final = 50
_MOST_ENTRIES: Final = 500_000
"""Of an account in a region, and calls of one kind a second, those that change tags or labels ("AWS Secrets Manager
quotas", 2026). Looking has a quota of 10,000 a second, which no sweep reaches."""
_LONGEST_SWEEP: Final = 60
"""Seconds that quotas alone may make a sweep last before that is worth a warning."""


def _quota(count: int) -> Diagnosis:
    rotating = count * _WRITES / _WRITES_A_SECOND
    told = f"by its quotas rotating all at once ({count}) takes {rotating:.0f} s at least"
    if rotating <= _LONGEST_SWEEP and count <= _MOST_ENTRIES:
        return Diagnosis("quota", Grade.GOOD, told)
    remedy = (
        "platform engineer: spread the secrets over several regions or accounts, or over the days of their interval"
    )
    return Diagnosis("quota", Grade.WARNING, told, remedy)


# --- labels and tags ---------------------------------------------------------------------------------


def _labels(about: Json) -> dict[str, str]:
    """Version id by label. Each label is on one version at most."""
    return {label: version for version, labels in about.get("VersionIdsToStages", {}).items() for label in labels}


def _copying(replica: Json) -> bool:
    return bool(replica.get("Status") == "InProgress")


def _behind(about: Json) -> dict[str, str]:
    """Regions to which the service has not copied what is current, by its own word (ReplicationStatusType)."""
    told = ((one["Region"], one.get("Status", "")) for one in about.get("ReplicationStatus", ()))
    return {region: f"replication is {status or 'unknown'}" for region, status in told if status != "InSync"}


def _service_rotation(about: Json, begun: str | None) -> ServiceRotation | None:
    """None where rotation was never configured."""
    if "RotationEnabled" not in about:
        return None
    rules = about.get("RotationRules", {})
    days = rules.get("AutomaticallyAfterDays")
    schedule = rules.get("ScheduleExpression") or (_rate(timedelta(days=days)) if days else "")
    changed = about.get("LastChangedDate")
    function = about.get("RotationLambdaARN", "")
    return ServiceRotation(about["RotationEnabled"], begun, function, schedule, _utc(changed) if changed else None)


def _rate(every: timedelta) -> str:
    """An interval of whole hours as a schedule expression (RotationRulesType, ScheduleExpression)."""
    hours = every // timedelta(hours=1)
    count, unit = (hours // 24, "day") if hours % 24 == 0 else (hours, "hour")
    return f"rate({count} {unit}{'' if count == 1 else 's'})"


def _token(version_id: str, journal: Journal) -> str | None:
    return version_id if _TOKEN.fullmatch(version_id) or version_id in journal.tokens() else None


def _version(version_id: str | None, journal: Journal, made: Mapping[str, datetime]) -> Version | None:
    if version_id is None:
        return None
    return Version(id=version_id, token=_token(version_id, journal), created_at=made.get(version_id))


def _tags(about: Json) -> dict[str, str]:
    return {tag["Key"]: tag.get("Value", "") for tag in about.get("Tags", ())}


def _tag_list(tags: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": text} for key, text in tags.items()]


def _under(prefix: str, tags: Mapping[str, str]) -> dict[str, str]:
    return {key.removeprefix(prefix): text for key, text in tags.items() if key.startswith(prefix)}


def _split(key: str, text: str) -> dict[str, str]:
    """A text over as many tags as it needs, cut beside no space if that goes: consoles take those at ends away."""
    parts: dict[str, str] = {}
    while text or not parts:
        cut = _TAG_VALUE
        if len(text) > cut:
            cut = next((at for at in range(cut, cut // 2, -1) if " " not in text[at - 1 : at + 1]), cut)
        parts[f"{key}+{len(parts) + 1}" if parts else key] = text[:cut]
        text = text[cut:]
    return parts


def _joined(tags: Mapping[str, str]) -> dict[str, str]:
    """Texts that were split, whole again."""
    whole = {}
    for key, text in tags.items():
        if not _PART.fullmatch(key):
            number, whole[key] = 2, text
            while (part := tags.get(f"{key}+{number}")) is not None:
                number, whole[key] = number + 1, whole[key] + part
    return whole


def _user_tags(tags: Mapping[str, str]) -> list[str]:
    """Names of the user's own tags."""
    return _joined({key: text for key, text in tags.items() if key.startswith(_USER_TAGS)}).get(_USER_TAGS, "").split()


def _owned(tags: Mapping[str, str]) -> set[str]:
    """Keys of the tags that the policy is made of."""
    return {*_user_tags(tags), *(key for key in tags if key.startswith((_POLICY, _USER_TAGS)))}


def _policy(tags: Mapping[str, str]) -> dict[str, str]:
    own = {_USER + key: tags[key] for key in _user_tags(tags) if key in tags}
    return _joined(_under(_POLICY, tags)) | own


_NETWORKS: Final = policies.NETWORKS
"""Of the policy: addresses, and ids of VPC endpoints, with spaces between."""
_OURS: Final = "KeyturnAllowedNetworks"
"""Names our statement among those of a resource policy."""


def _restricted(policy: Mapping[str, str]) -> bool:
    return any(policy.get(key) for key in _NETWORKS)


def _wall(cidrs: list[str], vpces: list[str], *, exempt: list[str]) -> dict[str, Any]:
    """Denies values to whoever comes from elsewhere.

    A condition with Not is met, too, where a request has no such key: one that comes through a VPC endpoint has no
    aws:SourceIp, one from elsewhere no aws:SourceVpce. All conditions must be met to deny, so either way in is enough.
    Source: IAM user guide, "IAM JSON policy elements: Condition operators", "AWS global condition context keys".
    """
    elsewhere: dict[str, Any] = {
        "ArnNotEquals": {"aws:PrincipalArn": exempt},
        "BoolIfExists": {"aws:PrincipalIsAWSService": "false", "aws:ViaAWSService": "false"},
    }
    elsewhere |= {"NotIpAddress": {"aws:SourceIp": cidrs}} if cidrs else {}
    elsewhere |= {"StringNotEquals": {"aws:SourceVpce": vpces}} if vpces else {}
    return {
        "Sid": _OURS,
        "Effect": "Deny",
        "Principal": "*",
        "Action": "secretsmanager:GetSecretValue",
        "Resource": "*",
        "Condition": elsewhere,
    }


def _is_ours(statement: Any) -> bool:
    return isinstance(statement, dict) and statement.get("Sid") == _OURS


def _enforced(statements: Iterable[Any], exempt: list[str]) -> dict[str, str]:
    """The networks that our statement lets in; nothing where it is gone, or was changed beyond those."""
    for statement in filter(_is_ours, statements):
        conditions = [
            statement.get("Condition", {}).get(operator, {}).get(key, [])
            for operator, key in (("NotIpAddress", "aws:SourceIp"), ("StringNotEquals", "aws:SourceVpce"))
        ]
        lists = [[found] if isinstance(found, str) else found for found in conditions]
        if statement == _wall(*lists, exempt=exempt):
            return {key: " ".join(found) for key, found in zip(_NETWORKS, lists, strict=True) if found}
    return {}


def _utc(at: datetime) -> datetime:
    """boto3 gives times in the machine's own zone."""
    return at.astimezone(UTC)


# --- talking to the service --------------------------------------------------------------------------

_CONNECT_SECONDS: Final = 2.0
_LATEST_SECONDS: Final = 40.0
"""A write goes out at most this long after its operation began, whatever logging in took."""
_PAUSES: Final = (0.2, 0.6, 1.8)
"""Seconds between the sends of a call that is sent again."""
_POOL: Final = 32
"""Connections kept for as many threads; more are opened when needed, and closed again."""
_WORDS: Final = 300
"""Characters of the service's own message that are passed on."""

_WRITE: Final = frozenset({Code.THROTTLED})
"""After these a call is sent again. One that was throttled was not carried out."""
_BATCH: Final = 20
"""Entries of one BatchGetSecretValue."""
_READ: Final = _WRITE | {Code.UNAVAILABLE}
"""Also for writes that can have no second effect."""
_PATIENT: Final = _READ | {Code.NOT_FOUND}

_THROTTLED: Final = ("ThrottlingException", "Throttling", "TooManyRequestsException", "RequestLimitExceeded")
_DENIED: Final = ("AccessDeniedException", "AccessDenied")
_BAD_LOGIN: Final = (
    "ExpiredToken",
    "ExpiredTokenException",
    "IncompleteSignature",
    "IncompleteSignatureException",
    "InvalidClientTokenId",
    "InvalidSignatureException",
    "MissingAuthenticationToken",
    "MissingAuthenticationTokenException",
    "NotAuthorized",
    "OptInRequired",
    "RequestExpired",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
)
"""What signed requests are refused with that no service has looked into ("Common error types")."""


def _writes(operation: str) -> bool:
    return not operation.startswith(("batch_get_", "describe_", "get_", "list_"))


class _Refusal(Trouble):
    """The service understood the call and did not do it. `error` is its own code."""

    def __init__(self, code: Code, service: str, message: str, *, maybe_applied: bool, error: str) -> None:
        super().__init__(code, service, message, maybe_applied=maybe_applied)
        self.error = error


@dataclass(frozen=True, slots=True)
class _Call:
    """One call."""

    entry: str
    operation: str
    """As boto3 names it."""
    parameters: Json = field(repr=False)
    again: frozenset[Code] = _WRITE
    begun: float | None = None
    """When its operation began, on the monotonic clock; None when it begins with this call."""
    half_done: bool = False
    """Earlier calls of the operation have had their effect."""

    @property
    def api(self) -> str:
        """As AWS names it."""
        return "".join(word.capitalize() for word in self.operation.split("_"))

    @property
    def writes(self) -> bool:
        return _writes(self.operation)

    @property
    def carries_value(self) -> bool:
        return self.operation == "put_secret_value"


class _Service:
    """Sends calls, logs in when that is needed, and says what an answer means. Threads may share it."""

    def __init__(
        self, name: str, region: str, endpoint_url: str | None, login: AwsLogin, clock: Clock, timeout: float
    ) -> None:
        self._name = name
        self._region = region
        self._endpoint_url = endpoint_url
        self._login = login
        self._clock = clock
        self._timeout = timeout
        self._where = endpoint_url or f"Secrets Manager in {region}"
        self.skew: Final = Skew(clock)
        self._lock = threading.Lock()
        self._session: Any = None
        self._client: Any = None
        self._credentials: Any = None

    def ask(self, call: _Call) -> Json:
        """The answer.

        Raises:
            _Refusal: the service said no to this call.
            Trouble: anything else but success.
        """
        begun = self._clock.monotonic() if call.begun is None else call.begun
        pauses = iter(_PAUSES)
        while isinstance(answer := self._send(call, begun), Trouble):
            pause = next(pauses, None)
            if pause is None or answer.code not in call.again:
                raise answer
            self._clock.sleep(pause)
        return answer

    def caller(self) -> str:
        """The ARN under which AWS knows this login; no policy can forbid to ask.

        Raises:
            Trouble: STS does not say.
        """
        return str(self._aside("sts", "GetCallerIdentity", lambda sts: sts.get_caller_identity()["Arn"]))

    def simulated(
        self, caller: str, wanted: Mapping[str, Sequence[str]], context: Mapping[str, Sequence[str]]
    ) -> aws_rights.Simulated:
        """See aws_rights.simulate(). Raises Trouble where IAM does not say."""
        who = aws_rights.principal(caller, self._login.role_arn)
        found: aws_rights.Simulated = self._aside(
            "iam", "SimulatePrincipalPolicy", lambda iam: aws_rights.simulate(iam, who, wanted, context)
        )
        return found

    def _aside(self, service: str, api: str, ask: Callable[[Any], Any]) -> Any:
        """What another service tells this login. Questions only."""
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 - as the client

        call = _Call(f"{service}:{api}", "get", {})
        self._ready(call)
        try:
            return ask(self._session.client(service, region_name=self._region, config=self._once()))
        except ClientError as error:
            code = error.response["Error"].get("Code", "")
            told = "which its policies do not allow" if code in _DENIED else f"and was refused ({code})"
        except BotoCoreError as error:
            told = f"and got no answer ({type(error).__name__})"
        # Not from inside the handler: what botocore raises holds the request.
        raise self._trouble(Code.UNAVAILABLE, call, f"{self._login.how} asked for it, {told}")

    def _send(self, call: _Call, begun: float) -> Json | Trouble:
        client = self._ready(call)
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 - loaded with the client

        if call.writes and self._clock.monotonic() > begun + _LATEST_SECONDS:
            return self._trouble(Code.UNAVAILABLE, call, "getting ready took too long; the write was not sent")
        try:
            answer: Json = getattr(client, call.operation)(**call.parameters)
        except ClientError as error:
            heard(error.response["ResponseMetadata"].get("RequestId"))
            # Credentials that end just now are renewed within the call.
            told = self._answered(call, error) if error.operation_name == call.api else self._no_login(call, error)
        except BotoCoreError as error:
            told = self._unanswered(call, error)
        else:
            self._heard(answer)
            if "RequestId" in answer["ResponseMetadata"]:
                heard(answer["ResponseMetadata"]["RequestId"])
                return answer
            why = f"the answer from {self._where} is not that of Secrets Manager"
            told = self._trouble(Code.UNAVAILABLE, call, why, maybe_applied=call.writes)
        # Not from inside the handler: what botocore raises holds the request, and that its body.
        return told

    def _heard(self, answer: Json) -> None:
        self.skew.heard(answer["ResponseMetadata"].get("HTTPHeaders", {}).get("date"))

    def _answered(self, call: _Call, error: Any) -> Trouble:
        """What a refusal means. The service's own words are passed on only where no value went out."""
        code: str = error.response["Error"].get("Code", "")
        words = " ".join(error.response["Error"].get("Message", "").split())[:_WORDS]
        status: int = error.response["ResponseMetadata"]["HTTPStatusCode"]
        told = "" if call.carries_value or not words else f": {words}"
        if code in _THROTTLED or status == 429:
            return self._trouble(Code.THROTTLED, call, f"too many requests to {self._where}")
        if status >= 500:
            why = f"{self._where} answers HTTP {status} ({code}){told}"
            return self._trouble(Code.UNAVAILABLE, call, why, maybe_applied=call.writes)
        if code in _DENIED:
            key = ", or its KMS key does not allow kms:Decrypt and kms:GenerateDataKey" if "KMS" in words else ""
            where = f"in {self._region}" if call.operation == "list_secrets" else f"on {call.entry} in {self._region}"
            lacks = f"{self._login.how} lacks secretsmanager:{call.api} {where}{key}"
            return self._trouble(Code.DENIED, call, f"permission denied: {lacks}")
        if code in _BAD_LOGIN:
            return self._trouble(Code.DENIED, call, f"the credentials of {self._login.how} were refused ({code})")
        if code in ("DecryptionFailure", "EncryptionFailure"):
            why = f"its KMS key can not be used ({code}): see that it exists, is enabled and allows this login{told}"
            return self._refusal(Code.INVALID, call, why, code)
        if code == "ResourceNotFoundException":
            version = call.parameters.get("VersionId")
            missing = f"version {version} can not be read any more" if version else f"no such entry in {self._region}"
            return self._refusal(Code.NOT_FOUND, call, missing, code)
        if code == "ResourceExistsException":
            return self._refusal(Code.CONFLICT, call, f"exists already{told}", code)
        return self._refusal(Code.INVALID, call, f"{call.api} was refused ({code}){told}", code)

    def _unanswered(self, call: _Call, error: Any) -> Trouble:
        """What it means that a call got no answer; above all, whether it can have had an effect."""
        from botocore import exceptions  # noqa: PLC0415 - loaded with the client

        sent = call.writes
        if isinstance(error, exceptions.ParamValidationError):
            return self._refusal(Code.INVALID, call, f"{call.api} can not be sent: a name or id has the wrong form", "")
        if isinstance(error, exceptions.SSLError) and _untrusted(error):
            why, sent = f"the certificate of {self._where} is not trusted; see AWS_CA_BUNDLE", False
        elif isinstance(error, exceptions.EndpointConnectionError | exceptions.ConnectTimeoutError):
            why, sent = f"{self._where} can not be reached", False
        elif isinstance(error, exceptions.ProxyConnectionError):
            why, sent = f"{self._where} can not be reached through the proxy", False
        elif isinstance(error, exceptions.ReadTimeoutError):
            why = f"{self._where} did not answer within {self._timeout:g} s"
        else:
            why = f"the connection to {self._where} broke before an answer came"
        return self._trouble(Code.UNAVAILABLE, call, why, maybe_applied=sent)

    def _ready(self, call: _Call) -> Any:
        """The client, with credentials that are good for a while: what fails here has sent nothing."""
        with self._lock:
            import botocore.exceptions as failures  # noqa: PLC0415 - 0.3 s; importing this module stays cheap

            try:
                if self._client is None:
                    self._connect()
                if self._credentials is not None:
                    self._credentials.get_frozen_credentials()
                    return self._client
                trouble = self._trouble(Code.DENIED, call, f"there are no AWS credentials in {self._login.how}")
            except (failures.ClientError, failures.BotoCoreError, ValueError, RuntimeError) as error:
                trouble = self._no_login(call, error)
        raise trouble

    def _once(self) -> Any:
        """What every client is made with."""
        from botocore.config import Config  # noqa: PLC0415 - loaded with the client

        return Config(
            connect_timeout=_CONNECT_SECONDS,
            read_timeout=self._timeout,
            # boto3 would send writes again whose answer was lost, and report a promotion that it did as refused.
            retries={"total_max_attempts": 1, "mode": "standard"},
            max_pool_connections=_POOL,
        )

    def _connect(self) -> None:
        import boto3  # noqa: PLC0415 - 0.3 s; importing this module stays cheap

        once = self._once()
        session = boto3.session.Session(profile_name=self._login.profile, region_name=self._region)
        credentials = session.get_credentials()
        if credentials is not None and self._login.role_arn is not None:
            session = self._with_role(session, credentials, self._login.role_arn, once)
            credentials = session.get_credentials()
        if credentials is not None:
            self._session = session
            self._client = session.client("secretsmanager", endpoint_url=self._endpoint_url, config=once)
        self._credentials = credentials

    def _with_role(self, base: Any, source: Any, role_arn: str, config: Any) -> Any:
        """A session whose credentials are a role's, renewed by botocore before they end."""
        import boto3  # noqa: PLC0415 - loaded already
        from botocore import credentials as parts  # noqa: PLC0415
        from botocore.session import Session  # noqa: PLC0415

        arguments = {"RoleSessionName": "keyturn"}
        if self._login.external_id is not None:
            arguments["ExternalId"] = self._login.external_id
        fetcher = parts.AssumeRoleCredentialFetcher(
            partial(base.client, region_name=self._region, config=config), source, role_arn, extra_args=arguments
        )
        role = parts.DeferredRefreshableCredentials(fetcher.fetch_credentials, _Role.METHOD)
        core = Session()
        core.register_component("credential_provider", parts.CredentialResolver([_Role(lambda: role)]))  # type: ignore[list-item]
        return boto3.session.Session(botocore_session=core, region_name=self._region)

    def _no_login(self, call: _Call, error: Exception) -> Trouble:
        """Why there are no credentials. Nothing was sent."""
        from botocore import exceptions  # noqa: PLC0415 - loaded with the client

        failed = f"login by {self._login.how}"
        if isinstance(error, exceptions.ClientError):
            code = error.response["Error"].get("Code", "")
            if code in _THROTTLED:
                return self._trouble(Code.THROTTLED, call, f"{failed}: too many requests")
            if error.response["ResponseMetadata"]["HTTPStatusCode"] >= 500:
                return self._trouble(Code.UNAVAILABLE, call, f"{failed}: STS has a fault ({code})")
            return self._trouble(Code.DENIED, call, f"{failed} was refused ({code}); the entry was not asked")
        if isinstance(
            error, exceptions.ConnectionError | exceptions.HTTPClientError | exceptions.MetadataRetrievalError
        ):
            return self._trouble(Code.UNAVAILABLE, call, f"{failed} got no answer")
        if isinstance(error, ValueError):
            return self._trouble(Code.INVALID, call, f"{self._where} is no address, or {self._region} no region")
        # Other errors may quote what a program that hands out credentials has printed.
        theirs = exceptions.PartialCredentialsError | exceptions.SSOError | exceptions.LoginError
        plain = isinstance(error, exceptions.ProfileNotFound | exceptions.ConfigParseError | theirs)
        why = str(error) if plain else type(error).__name__
        return self._trouble(Code.DENIED, call, f"{failed} failed: {why}")

    def _trouble(self, code: Code, call: _Call, message: str, *, maybe_applied: bool = False) -> Trouble:
        return Trouble(code, self._name, f"{call.entry}: {message}", maybe_applied=maybe_applied or call.half_done)

    def _refusal(self, code: Code, call: _Call, message: str, error: str) -> _Refusal:
        told = f"{call.entry}: {message}"
        return _Refusal(code, self._name, told, maybe_applied=call.half_done, error=error)


@dataclass(frozen=True, slots=True)
class _Role:
    """A provider of credentials as botocore has them."""

    load: Callable[[], Any]
    METHOD = "assume-role"


def _untrusted(error: Any) -> bool:
    reason = error.kwargs.get("error")
    return isinstance(reason, BaseException) and any(
        isinstance(part, ssl.SSLCertVerificationError) for part in (reason, *reason.args)
    )
