"""Secrets Manager as its documentation describes it: the operations behind the sandbox's AWS endpoint.

It takes the place of moto's backend instead of patching it: moto 5.2.5 keeps the staging labels with each version and
the current version in a field beside them, and the two drift apart, so that a read after a label moved answers with the
old value. Nearly every operation that writes was affected. ARNs, random passwords and the word search of filters are
still moto's.

Comments say where each behaviour comes from. "Documented" names a page of the API reference, a parameter on it, or the
user guide's quotas; "Recorded" is what the real service answered to LocalStack's public snapshot tests (localstack,
tests/aws/services/secretsmanager, 2022 to 2023), where the documentation is silent.

Not simulated: request rates, KMS permissions, managed and cross-account secrets.
"""

from __future__ import annotations

import copy
import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from botocore import xform_name
from moto.secretsmanager.utils import SecretsManagerSecretIdentifier, random_password

from sandbox.aws import listing, validation
from sandbox.aws.records import (
    CURRENT,
    PENDING,
    PREVIOUS,
    Entry,
    Replica,
    ReplicaStatus,
    Rotation,
    RotationRequest,
    Secret,
    Version,
    check_rules,
    midnight,
    next_rotation,
)
from sandbox.aws.wire import ServiceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime

Parameters = dict[str, Any]
Result = dict[str, Any]

MAX_LABELS = 20
KEPT_VERSIONS = 100
DEFAULT_KEY = "alias/aws/secretsmanager"


class SecretsManager:
    """The service in one account, all regions. Not thread-safe: the server calls it under its lock."""

    def __init__(self, account_id: str, now: Callable[[], datetime]) -> None:
        self.account_id = account_id
        self.regions: dict[str, Region] = {}
        self._now = now
        self._rotations: list[RotationRequest] = []

    def now(self) -> float:
        return round(self._now().timestamp(), 3)

    def region(self, name: str) -> Region:
        return self.regions.setdefault(name, Region(self, name))

    def invoke(self, operation: str, region: str, parameters: Parameters) -> Result:
        """Performs one API operation.

        Raises:
            ServiceError: as the service refuses.
        """
        validation.check_parameters(operation, parameters)
        method: Callable[[Parameters], Result] | None = getattr(self.region(region), xform_name(operation), None)
        if method is None:
            raise ServiceError("UnknownOperationException", f"the sandbox has no secretsmanager operation {operation}")
        return {name: value for name, value in method(parameters).items() if value is not None}

    def ask_rotation(self, request: RotationRequest) -> None:
        self._rotations.append(request)

    def take_rotations(self) -> list[RotationRequest]:
        """The rotations that operations have asked for since the last call."""
        taken, self._rotations = self._rotations, []
        return taken

    def end_test(self, request: RotationRequest) -> None:
        """Removes the pending version of a rotation that was to run testSecret only."""
        entry = self.region(request.region).lookup(request.secret_arn)
        if isinstance(entry, Secret) and entry.labels.get(PENDING) == request.client_request_token:
            entry.detach(PENDING)
            entry.versions.pop(request.client_request_token, None)

    def snapshot(self) -> dict[str, dict[str, Entry]]:
        return {name: region.secrets for name, region in self.regions.items()}

    def restore(self, snapshot: dict[str, dict[str, Entry]]) -> None:
        self.regions.clear()
        for name, secrets in snapshot.items():
            self.region(name).secrets = secrets

    def freeze_lists(self, frozen: bool) -> None:
        """Lets ListSecrets answer from how things are now, until thawed. Documented: it may lag by five minutes."""
        for region in self.regions.values():
            region.listed = copy.deepcopy(list(region.secrets.values())) if frozen else None


class Region:
    """The service in one region: one method for each operation, named as boto3 names them."""

    def __init__(self, service: SecretsManager, name: str) -> None:
        self.secrets: dict[str, Entry] = {}
        self.listed: list[Entry] | None = None
        self._service = service
        self._name = name

    # --- finding secrets

    def lookup(self, secret_id: str) -> Entry | None:
        """A secret by its name, its ARN, or its ARN without the six random characters at the end."""
        name = secret_id
        if secret_id.startswith("arn:"):
            parts = secret_id.split(":", 6)
            if len(parts) < 7 or parts[2:6] != ["secretsmanager", self._name, self._service.account_id, "secret"]:
                return None
            # Recorded: what ends like a complete ARN is taken for one.
            complete = re.fullmatch(r"(.+)-[A-Za-z0-9]{6}", parts[6])
            name = complete[1] if complete else parts[6]
            found = self._alive(name)
            return found if found and (not complete or found.arn == secret_id) else None
        return self._alive(name)

    def _alive(self, name: str) -> Entry | None:
        entry = self.secrets.get(name)
        # Documented (DeleteSecret): at the end of the recovery window the secret is deleted permanently.
        if entry and entry.deletion is not None and entry.deletion <= self._service.now():
            del self.secrets[name]
            return None
        return entry

    def _entry(self, parameters: Parameters) -> Entry:
        secret_id: str = parameters["SecretId"]
        if not secret_id.startswith("arn:"):
            validation.check_name(secret_id, new=False)
        entry = self.lookup(secret_id)
        if entry is None:
            # Documented (errors): HTTP 400, as all client errors of this service.
            raise ServiceError("ResourceNotFoundException", "Secrets Manager can't find the specified secret.")
        return entry

    def _undeleted(self, parameters: Parameters) -> Entry:
        entry = self._entry(parameters)
        if entry.deletion is not None:
            # Documented (InvalidRequestException): the secret is scheduled for deletion.
            raise ServiceError(
                "InvalidRequestException",
                "You can't perform this operation on the secret because it was marked for deletion.",
            )
        return entry

    def _writable(self, parameters: Parameters) -> Secret:
        return _primary_only(self._undeleted(parameters))

    # --- values and versions

    def create_secret(self, parameters: Parameters) -> Result:
        name, token = parameters["Name"], parameters.get("ClientRequestToken")
        string, binary = parameters.get("SecretString"), parameters.get("SecretBinary")
        validation.check_name(name, new=True)
        validation.check_value(string, binary, required=False)
        if string is not None or binary is not None:
            token = _token(parameters)
        existing = self._alive(name)
        if existing is not None:
            return self._created_before(existing, token, string, binary)
        tags = validation.merged_tags({}, parameters.get("Tags", []))
        arn = SecretsManagerSecretIdentifier(self._service.account_id, self._name, name).generate()
        now = self._service.now()
        secret = Secret(name, arn, self._name, now, now, tags=tags)
        secret.description = parameters.get("Description") or None
        secret.kms_key_id = _key(parameters.get("KmsKeyId"))
        self._check_replica_regions(parameters.get("AddReplicaRegions", []))
        if token and (string is not None or binary is not None):
            self._store(secret, token, string, binary, [CURRENT])
        self.secrets[name] = secret
        self._add_replicas(secret, parameters)
        result = _identity(secret) | {"VersionId": secret.labels.get(CURRENT)}
        return result | ({"ReplicationStatus": _starting(secret)} if secret.replicas else {})

    def _created_before(self, existing: Entry, token: str | None, string: str | None, binary: str | None) -> Result:
        if existing.deletion is not None:
            # Documented (DeleteSecret) and recorded: the name stays taken for the recovery window.
            raise ServiceError(
                "InvalidRequestException",
                "You can't create this secret because a secret with this name is already scheduled for deletion.",
            )
        secret = existing.primary
        version = secret.versions.get(token or "")
        if token and version and isinstance(existing, Secret):
            # Documented (CreateSecret, ClientRequestToken): the same token with the same value is ignored.
            _check_same(secret, token, version, string, binary)
            return _identity(secret) | {"VersionId": token}
        raise ServiceError(
            "ResourceExistsException", f"The operation failed because the secret {existing.name} already exists."
        )

    def put_secret_value(self, parameters: Parameters) -> Result:
        string, binary = parameters.get("SecretString"), parameters.get("SecretBinary")
        validation.check_value(string, binary, required=True)
        token = _token(parameters)
        secret = self._writable(parameters)
        # Documented (PutSecretValue, VersionStages): without them AWSCURRENT moves; with them those labels move,
        # wherever they are, and no other.
        self._store(secret, token, string, binary, parameters.get("VersionStages") or [CURRENT])
        return _identity(secret) | {"VersionId": token, "VersionStages": secret.stages(token)}

    def update_secret(self, parameters: Parameters) -> Result:
        string, binary = parameters.get("SecretString"), parameters.get("SecretBinary")
        validation.check_value(string, binary, required=False)
        secret = self._writable(parameters)
        result = _identity(secret)
        if string is not None or binary is not None:
            token = _token(parameters)
            if token in secret.versions:
                # Documented (UpdateSecret): a token that matches an existing version's id is an error.
                raise _token_in_use(secret, token)
            if "KmsKeyId" in parameters:
                secret.kms_key_id = _key(parameters["KmsKeyId"])
            self._store(secret, token, string, binary, [CURRENT])
            result["VersionId"] = token
        if "Description" in parameters:
            secret.description = parameters["Description"] or None
        if "KmsKeyId" in parameters:
            # Documented (UpdateSecret, KmsKeyId): the empty string means the service's own key; labelled versions
            # are encrypted anew.
            secret.kms_key_id = _key(parameters["KmsKeyId"])
            for version_id in {
                secret.labels[label] for label in (CURRENT, PENDING, PREVIOUS) if label in secret.labels
            }:
                secret.versions[version_id].kms_key_id = secret.kms_key_id
        secret.changed = self._service.now()
        return result

    def _store(self, secret: Secret, token: str, string: str | None, binary: str | None, stages: list[str]) -> None:
        now = self._service.now()
        version = secret.versions.get(token)
        if version and version.filled:
            # Documented (PutSecretValue): the same token with the same value succeeds and does nothing, labels
            # included; with another value it fails, also on a pending version.
            _check_same(secret, token, version, string, binary)
            return
        if not any(other.filled for other in secret.versions.values()):
            # Documented (PutSecretValue): the first version always gets AWSCURRENT.
            stages = [*stages, CURRENT]
        self._check_labels(secret, token, stages)
        secret.versions[token] = Version(now, string, binary, secret.kms_key_id)
        for label in stages:
            secret.attach(label, token, now)
        secret.changed = now
        self._trim(secret)

    def _check_labels(self, secret: Secret, version_id: str, added: Iterable[str]) -> None:
        labels = {*secret.labels, *added}
        if CURRENT in added and secret.labels.get(CURRENT, version_id) != version_id:
            labels.add(PREVIOUS)
        if len(labels) > MAX_LABELS:
            # Documented (quotas): 20 staging labels across all versions of a secret.
            raise ServiceError("LimitExceededException", f"A secret can have at most {MAX_LABELS} staging labels.")

    def _trim(self, secret: Secret) -> None:
        # Documented (quotas): unlabelled versions go when there are more than 100, save those of the last 24 hours.
        yesterday = self._service.now() - timedelta(days=1).total_seconds()
        surplus = len(secret.versions) - KEPT_VERSIONS
        unlabelled = [version for version in secret.versions if not secret.stages(version)] if surplus > 0 else []
        for version_id in unlabelled[:surplus]:
            if secret.versions[version_id].created < yesterday:
                del secret.versions[version_id]

    def get_secret_value(self, parameters: Parameters) -> Result:
        return self._value(self._undeleted(parameters), parameters.get("VersionId"), parameters.get("VersionStage"))

    def _value(self, entry: Entry, version_id: str | None, stage: str | None) -> Result:
        secret = entry.primary
        missing = f"VersionId: {version_id}"
        if version_id is None:
            # Documented (GetSecretValue): without version and stage it is the version that has AWSCURRENT.
            stage = stage or CURRENT
            missing = f"staging label: {stage}"
            version_id = secret.labels.get(stage, "")
        elif stage is not None and version_id in secret.versions and stage not in secret.stages(version_id):
            # Documented (GetSecretValue): VersionId and VersionStage must refer to the same version.
            raise ServiceError(
                "InvalidRequestException",
                "You provided a VersionStage that is not associated to the provided VersionId.",
            )
        version = secret.versions.get(version_id)
        if version is None or not version.filled:
            raise ServiceError(
                "ResourceNotFoundException", f"Secrets Manager can't find the specified secret value for {missing}"
            )
        secret.accessed = version.accessed = midnight(self._service.now())
        return _identity(entry) | {
            "VersionId": version_id,
            "SecretString": version.string,
            "SecretBinary": version.binary,
            "VersionStages": secret.stages(version_id) or None,
            "CreatedDate": version.created,
        }

    def batch_get_secret_value(self, parameters: Parameters) -> Result:
        ids, filters = parameters.get("SecretIdList"), parameters.get("Filters")
        if (ids is None) == (filters is None):
            # Documented (BatchGetSecretValue): Filters or SecretIdList, but not both.
            raise ServiceError("InvalidParameterException", "Include either SecretIdList or Filters, but not both.")
        if ids is not None and parameters.get("MaxResults"):
            # Documented (BatchGetSecretValue): MaxResults takes Filters.
            raise ServiceError("InvalidParameterException", "To use MaxResults, you must also use Filters.")
        next_token = None
        if filters is not None:
            matching = [entry for entry in self._listable() if listing.matches(entry, filters)]
            page, next_token = listing.page(
                matching, parameters.get("MaxResults", 20), parameters.get("NextToken"), listing.by_creation
            )
            ids = [entry.arn for entry in page]
        values, errors = [], []
        for secret_id in ids or []:
            try:
                values.append(_without_nulls(self._value(self._undeleted({"SecretId": secret_id}), None, None)))
            except ServiceError as error:
                errors.append({"SecretId": secret_id, "ErrorCode": error.code, "Message": error.message})
        return {"SecretValues": values, "Errors": errors, "NextToken": next_token}

    def update_secret_version_stage(self, parameters: Parameters) -> Result:
        secret = self._writable(parameters)
        label = parameters["VersionStage"]
        source, target = parameters.get("RemoveFromVersionId"), parameters.get("MoveToVersionId")
        holder = secret.labels.get(label)
        if source is None and target is None:
            raise ServiceError("InvalidParameterException", "Specify MoveToVersionId, RemoveFromVersionId or both.")
        if target is None and label == CURRENT:
            # Recorded: AWSCURRENT moves; it is never taken off.
            raise ServiceError(
                "InvalidParameterException",
                "You can only move staging label AWSCURRENT to a different secret version. "
                "It can't be completely removed.",
            )
        if target is not None and target not in secret.versions:
            raise ServiceError("ResourceNotFoundException", "Secrets Manager can't find the specified secret version.")
        # Documented (UpdateSecretVersionStage, RemoveFromVersionId): for every label, when it is attached to another
        # version and this is absent or does not match, the operation fails. This is the service's compare-and-set.
        if source is None and holder not in {None, target}:
            raise ServiceError(
                "InvalidParameterException",
                f"The parameter RemoveFromVersionId can't be empty. Staging label {label} is currently attached to "
                f"version {holder}, so you must explicitly reference that version in RemoveFromVersionId.",
            )
        if source is not None and source != holder:
            raise ServiceError(
                "InvalidParameterException",
                f"The parameter RemoveFromVersionId is not valid. Staging label {label} is currently attached to "
                f"{f'version {holder}' if holder else 'no version'}, not to version {source}.",
            )
        if target is None:
            secret.detach(label)
        else:
            self._check_labels(secret, target, [label])
            secret.attach(label, target, self._service.now())
        secret.changed = self._service.now()
        return _identity(secret)

    def list_secret_version_ids(self, parameters: Parameters) -> Result:
        entry = self._entry(parameters)
        secret = entry.primary
        listed = [
            (version_id, version)
            for version_id, version in secret.versions.items()
            # Documented (ListSecretVersionIds): only versions that hold a value, and by default only labelled ones.
            if version.filled and (parameters.get("IncludeDeprecated") or secret.stages(version_id))
        ]
        page, next_token = listing.page(
            listed,
            parameters.get("MaxResults", 100),
            parameters.get("NextToken"),
            lambda item: (item[1].created, item[0]),
        )
        versions = [
            _without_nulls(
                {
                    "VersionId": version_id,
                    "VersionStages": secret.stages(version_id) or None,
                    "CreatedDate": version.created,
                    "LastAccessedDate": version.accessed,
                    "KmsKeyIds": [version.kms_key_id or "DefaultEncryptionKey"],
                }
            )
            for version_id, version in page
        ]
        return _identity(entry) | {"Versions": versions, "NextToken": next_token}

    # --- secrets: description, lists, deletion, tags

    def describe_secret(self, parameters: Parameters) -> Result:
        entry = self._entry(parameters)
        secret = entry.primary
        replicas = [status.as_dict() for status in secret.replicas.values()] or None
        return _details(entry) | {
            "VersionIdsToStages": secret.stages_by_version() or None,
            "ReplicationStatus": replicas if isinstance(entry, Secret) else None,
        }

    def list_secrets(self, parameters: Parameters) -> Result:
        filters = parameters.get("Filters", [])
        if any("Key" not in item or not item.get("Values") for item in filters):
            raise ServiceError("InvalidParameterException", "A filter needs a key and values.")
        matching = [
            entry
            for entry in (self._listable() if self.listed is None else self.listed)
            # Documented (ListSecrets): without those scheduled for deletion unless asked for.
            if (entry.deletion is None or parameters.get("IncludePlannedDeletion")) and listing.matches(entry, filters)
        ]
        page, next_token = listing.page(
            matching,
            parameters.get("MaxResults", 100),
            parameters.get("NextToken"),
            listing.ORDERS[parameters.get("SortBy", "created-date")],
            descending=parameters.get("SortOrder") == "desc",
        )
        entries = [
            _without_nulls(
                _details(entry) | {"SecretVersionsToStages": entry.primary.stages_by_version() or None},
            )
            for entry in page
        ]
        return {"SecretList": entries, "NextToken": next_token}

    def _listable(self) -> list[Entry]:
        return [entry for name in list(self.secrets) if (entry := self._alive(name))]

    def delete_secret(self, parameters: Parameters) -> Result:
        days, force = parameters.get("RecoveryWindowInDays"), bool(parameters.get("ForceDeleteWithoutRecovery"))
        if days is not None and force:
            raise ServiceError(
                "InvalidParameterException",
                "You can't use ForceDeleteWithoutRecovery in conjunction with RecoveryWindowInDays.",
            )
        if days is not None and not 7 <= days <= 30:
            raise ServiceError(
                "InvalidParameterException",
                "The RecoveryWindowInDays value must be between 7 and 30 days (inclusive).",
            )
        now = self._service.now()
        if force and self.lookup(parameters["SecretId"]) is None:
            # Documented (DeleteSecret): forcing the deletion of what does not exist is no error.
            name = parameters["SecretId"].rpartition(":")[2]
            arn = SecretsManagerSecretIdentifier(self._service.account_id, self._name, name).generate()
            return {"ARN": arn, "Name": name, "DeletionDate": now}
        secret = _primary_only(self._entry(parameters) if force else self._undeleted(parameters))
        if secret.replicas:
            # Documented (DeleteSecret): first the replicas, then the primary.
            raise ServiceError(
                "InvalidParameterException",
                f"You can't delete secret {parameters['SecretId']} that still has replica regions "
                f"[{', '.join(secret.replicas)}].",
            )
        if force:
            del self.secrets[secret.name]
            return _identity(secret) | {"DeletionDate": now}
        secret.deletion = now + timedelta(days=days or 30).total_seconds()
        return _identity(secret) | {"DeletionDate": secret.deletion}

    def restore_secret(self, parameters: Parameters) -> Result:
        secret = _primary_only(self._entry(parameters))
        secret.deletion = None
        return _identity(secret)

    def tag_resource(self, parameters: Parameters) -> Result:
        secret = self._writable(parameters)
        secret.tags = validation.merged_tags(secret.tags, parameters["Tags"])
        secret.changed = self._service.now()
        return {}

    def untag_resource(self, parameters: Parameters) -> Result:
        secret = self._writable(parameters)
        secret.tags = {key: value for key, value in secret.tags.items() if key not in set(parameters["TagKeys"])}
        secret.changed = self._service.now()
        return {}

    def get_random_password(self, parameters: Parameters) -> Result:
        return {
            "RandomPassword": random_password(
                parameters.get("PasswordLength", 32),
                parameters.get("ExcludeCharacters", ""),
                parameters.get("ExcludeNumbers", False),
                parameters.get("ExcludePunctuation", False),
                parameters.get("ExcludeUppercase", False),
                parameters.get("ExcludeLowercase", False),
                parameters.get("IncludeSpace", False),
                parameters.get("RequireEachIncludedType", True),
            )
        }

    # --- resource policies: kept and checked; permissions.py enforces them where that is asked for

    def put_resource_policy(self, parameters: Parameters) -> Result:
        secret = self._writable(parameters)
        _default_policy_only(parameters)
        policy = validation.read_policy(parameters["ResourcePolicy"])
        if parameters.get("BlockPublicPolicy") and validation.is_public(policy):
            raise ServiceError("PublicPolicyException", "The resource policy grants broad access to the secret.")
        secret.policy = parameters["ResourcePolicy"]
        secret.changed = self._service.now()
        return _identity(secret) | {"PolicyName": "default"}

    def get_resource_policy(self, parameters: Parameters) -> Result:
        entry = self._undeleted(parameters)
        if parameters.get("PolicyName", "default") != "default":
            raise ServiceError("ResourceNotFoundException", "Secrets Manager can't find the specified resource policy.")
        return _identity(entry) | {"ResourcePolicy": entry.primary.policy, "PolicyName": "default"}

    def delete_resource_policy(self, parameters: Parameters) -> Result:
        secret = self._writable(parameters)
        _default_policy_only(parameters)
        secret.policy = None
        secret.changed = self._service.now()
        return _identity(secret) | {"PolicyName": "default"}

    def list_resource_policies(self, parameters: Parameters) -> Result:
        entry = self._undeleted(parameters)
        return _identity(entry) | {"ResourcePolicies": [{"PolicyName": "default"}] if entry.primary.policy else []}

    def validate_resource_policy(self, parameters: Parameters) -> Result:
        if parameters.get("SecretId"):
            self._entry(parameters)
        public = validation.is_public(validation.read_policy(parameters["ResourcePolicy"]))
        problem = {"CheckName": "BLOCK_PUBLIC_ACCESS", "ErrorMessage": "The policy grants access to every principal."}
        return {"PolicyValidationPassed": not public, "ValidationErrors": [problem] if public else []}

    # --- replicas in other regions

    def replicate_secret_to_regions(self, parameters: Parameters) -> Result:
        secret = self._writable(parameters)
        self._check_replica_regions(parameters["AddReplicaRegions"])
        self._add_replicas(secret, parameters)
        return {"ARN": secret.arn, "ReplicationStatus": _starting(secret)}

    def _check_replica_regions(self, added: list[dict[str, str]]) -> None:
        if any(item.get("Region", self._name) == self._name for item in added):
            raise ServiceError("InvalidParameterException", "Invalid replica region.")

    def _add_replicas(self, secret: Secret, parameters: Parameters) -> None:
        for item in parameters.get("AddReplicaRegions", []):
            region, key = item["Region"], item.get("KmsKeyId") or DEFAULT_KEY
            if region in secret.replicas and secret.replicas[region].status == "InSync":
                continue
            there = self._service.region(region)
            if secret.name in there.secrets and not parameters.get("ForceOverwriteReplicaSecret"):
                # Documented (ReplicationStatusType): the secret stays, the replica is Failed with this message.
                message = f"Replication failed: Secret name {secret.name} already exists in region {region}."
                secret.replicas[region] = ReplicaStatus(region, key, "Failed", message)
                continue
            arn = secret.arn.replace(f":{secret.region}:", f":{region}:", 1)
            there.secrets[secret.name] = Replica(secret, region, arn)
            secret.replicas[region] = ReplicaStatus(region, key, "InSync", "Replication succeeded")
        if parameters.get("AddReplicaRegions"):
            secret.changed = self._service.now()

    def remove_regions_from_replication(self, parameters: Parameters) -> Result:
        secret = self._writable(parameters)
        for region in parameters["RemoveReplicaRegions"]:
            status = secret.replicas.pop(region, None)
            if status and status.status == "InSync":
                del self._service.region(region).secrets[secret.name]
        secret.changed = self._service.now()
        return {"ARN": secret.arn, "ReplicationStatus": [status.as_dict() for status in secret.replicas.values()]}

    def stop_replication_to_replica(self, parameters: Parameters) -> Result:
        entry = self._entry(parameters)
        if isinstance(entry, Secret):
            raise ServiceError(
                "InvalidParameterException", "Operation not permitted on a secret that is not a replica."
            )
        # Documented (StopReplicationToReplica): the replica becomes a standalone secret in its region.
        del entry.primary.replicas[self._name]
        standalone = copy.deepcopy(entry.primary)
        standalone.arn, standalone.region, standalone.rotation = entry.arn, self._name, None
        standalone.replicas = {}
        self.secrets[entry.name] = standalone
        return {"ARN": entry.arn}

    # --- rotation

    def rotate_secret(self, parameters: Parameters) -> Result:
        secret = self._writable(parameters)
        token = _token(parameters, "InvalidParameterException")
        lambda_arn = parameters.get("RotationLambdaARN") or (secret.rotation.lambda_arn if secret.rotation else "")
        if not lambda_arn:
            # Documented (InvalidRequestException): no function is configured and none is given. Nothing changes.
            raise ServiceError(
                "InvalidRequestException", "No Lambda rotation function ARN is associated with this secret."
            )
        rules = parameters.get("RotationRules") or (secret.rotation.rules if secret.rotation else {})
        check_rules(rules)
        pending = secret.labels.get(PENDING)
        if pending is not None and pending != secret.labels.get(CURRENT):
            # Documented (RotateSecret): AWSPENDING on a version other than AWSCURRENT's means a rotation in progress.
            raise ServiceError(
                "InvalidRequestException",
                "A previous rotation isn't complete. That rotation will be reattempted.",
            )
        now = self._service.now()
        last = secret.rotation.last if secret.rotation else None
        secret.rotation = Rotation(lambda_arn, rules, last=last, next=next_rotation(rules, now))
        secret.changed = now
        if token not in secret.versions:
            self._register(secret, token, now, immediately=parameters.get("RotateImmediately", True))
        return _identity(secret) | {"VersionId": token}

    def _register(self, secret: Secret, token: str, now: float, *, immediately: bool) -> None:
        steps: tuple[str, ...] = ("createSecret", "setSecret", "testSecret", "finishSecret")
        version = Version(now)
        current = secret.versions.get(secret.labels.get(CURRENT, ""))
        if not immediately:
            # Documented (RotateImmediately): a test creates an AWSPENDING version and then removes it; it runs
            # testSecret only, so that the version must hold what the function is to test.
            steps = ("testSecret",)
            if current:
                version = Version(now, current.string, current.binary, current.kms_key_id)
        # Documented (DescribeSecret): AWSPENDING is on the new version's id before the version has a value.
        secret.versions[token] = version
        secret.attach(PENDING, token, now)
        assert secret.rotation
        self._service.ask_rotation(
            RotationRequest(secret.arn, self._name, secret.rotation.lambda_arn, token, str(uuid4()), steps)
        )

    def cancel_rotate_secret(self, parameters: Parameters) -> Result:
        secret = self._writable(parameters)
        if secret.rotation is None:
            raise ServiceError(
                "InvalidRequestException", "No Lambda rotation function ARN is associated with this secret."
            )
        # Documented (CancelRotateSecret): the labels stay as they are; a partial version is named, not removed.
        secret.rotation.enabled = False
        secret.rotation.next = None
        secret.changed = self._service.now()
        pending = secret.labels.get(PENDING)
        in_progress = pending if pending != secret.labels.get(CURRENT) else None
        return _identity(secret) | {"VersionId": in_progress}


def _token(parameters: Parameters, code: str = "InvalidRequestException") -> str:
    token: str | None = parameters.get("ClientRequestToken")
    if token is None:
        # Documented (ClientRequestToken): SDKs generate one; a raw request must bring it.
        raise ServiceError(code, "You must provide a ClientRequestToken value. We recommend a UUID-type value.")
    return token


def _token_in_use(secret: Secret, token: str) -> ServiceError:
    return ServiceError(
        "ResourceExistsException",
        f"You can't use ClientRequestToken {token} because that value is already in use for a version of secret "
        f"{secret.arn}.",
    )


def _check_same(secret: Secret, token: str, version: Version, string: str | None, binary: str | None) -> None:
    if (version.string, version.binary) != (string, binary):
        raise _token_in_use(secret, token)


def _primary_only(entry: Entry) -> Secret:
    if isinstance(entry, Replica):
        # Documented (multi-Region secrets): a replica cannot be updated independently of its primary.
        raise ServiceError(
            "InvalidParameterException",
            "Operation not permitted on a replica secret. Call must be made in primary secret's region.",
        )
    return entry


def _default_policy_only(parameters: Parameters) -> None:
    if parameters.get("PolicyName", "default") != "default":
        raise ServiceError("InvalidParameterException", "Only the default resource policy can be changed.")


def _key(kms_key_id: str | None) -> str | None:
    # Documented (DescribeSecret): the service's own key is not named.
    return None if kms_key_id in {None, "", DEFAULT_KEY} else kms_key_id


def _identity(entry: Entry) -> Result:
    return {"ARN": entry.arn, "Name": entry.name}


def _starting(secret: Secret) -> list[dict[str, str]]:
    # Documented (CreateSecret, ReplicateSecretToRegions): the answer comes while the replica is being made.
    return [status.as_dict("InProgress" if status.status == "InSync" else None) for status in secret.replicas.values()]


def _details(entry: Entry) -> Result:
    secret = entry.primary
    rotation = secret.rotation
    enabled = rotation is not None and rotation.enabled
    return _identity(entry) | {
        "Description": secret.description,
        "KmsKeyId": secret.kms_key_id,
        # Documented (DescribeSecret): null when rotation was never configured; its dates are null when it is off.
        "RotationEnabled": rotation.enabled if rotation else None,
        "RotationLambdaARN": rotation.lambda_arn if rotation else None,
        "RotationRules": rotation.rules if rotation else None,
        "LastRotatedDate": rotation.last if rotation and enabled else None,
        "NextRotationDate": rotation.next if rotation and enabled else None,
        "LastChangedDate": secret.changed,
        "LastAccessedDate": secret.accessed,
        "DeletedDate": entry.deletion,
        "Tags": [{"Key": key, "Value": value} for key, value in secret.tags.items()] or None,
        "CreatedDate": secret.created,
        "PrimaryRegion": secret.region if secret.replicas else None,
    }


def _without_nulls(result: Result) -> Result:
    return {name: value for name, value in result.items() if value is not None}
