"""Secrets Manager: which action on which secret an operation needs.

What AWS does and this module does not:

- KMS: no permission on a secret's key is needed.
- Secrets of another account: a policy that names it is not enough.
- BatchGetSecretValue by filters: not derived, so that only an administrator may do it.

https://docs.aws.amazon.com/service-authorization/latest/reference/list_awssecretsmanager.html
"""

from labkit.emulator.aws.actions.permission import CannotDerive, Context, Permission, as_dict, resource_tags, tag_keys
from labkit.emulator.aws.backend import Backend
from labkit.emulator.aws.call import ApiRequest

ON_NOTHING = {"GetRandomPassword", "ListSecrets"}
# Condition keys that are parameters of the request, by the parameter's name.
FROM_PARAMETERS = {
    "Description": "secretsmanager:Description",
    "ForceDeleteWithoutRecovery": "secretsmanager:ForceDeleteWithoutRecovery",
    "ForceOverwriteReplicaSecret": "secretsmanager:ForceOverwriteReplicaSecret",
    "KmsKeyId": "secretsmanager:KmsKeyId",
    "Name": "secretsmanager:Name",
    "RecoveryWindowInDays": "secretsmanager:RecoveryWindowInDays",
    "RotationLambdaARN": "secretsmanager:RotationLambdaARN",
    "VersionId": "secretsmanager:VersionId",
    "VersionStage": "secretsmanager:VersionStage",
}
KNOWN = frozenset(
    {key.lower() for key in FROM_PARAMETERS.values()} | {"secretsmanager:secretid", "secretsmanager:resourcetag/"}
)


def permissions(request: ApiRequest, backend: Backend) -> list[Permission]:
    """What an operation of Secrets Manager needs."""
    operation, parameters = request.operation, request.parameters
    if operation in ON_NOTHING:
        return [_permission(operation, "*", {}, shown="")]
    if operation == "CreateSecret":
        return _create(request)
    if operation == "BatchGetSecretValue":
        if "SecretIdList" not in parameters or "Filters" in parameters:
            raise CannotDerive("secretsmanager:BatchGetSecretValue by filters")
        values = [_on_secret("GetSecretValue", secret, request, backend) for secret in parameters["SecretIdList"]]
        return [_permission(operation, "*", {}, shown=""), *values]
    return [_on_secret(operation, parameters["SecretId"], request, backend)]


def _create(request: ApiRequest) -> list[Permission]:
    parameters = request.parameters
    # The suffix is not known before the secret is made: six characters, whichever they are.
    arn = f"arn:aws:secretsmanager:{request.region}:{request.account_id}:secret:{parameters['Name']}-??????"
    context = _from_parameters(request) | tag_keys(as_dict(parameters.get("Tags")))
    actions = ["CreateSecret"]
    actions += ["TagResource"] if parameters.get("Tags") else []
    actions += ["ReplicateSecretToRegions"] if parameters.get("AddReplicaRegions") else []
    return [_permission(action, arn, context, shown=parameters["Name"]) for action in actions]


def _on_secret(operation: str, secret_id: str, request: ApiRequest, backend: Backend) -> Permission:
    secret = backend.store("secretsmanager", request.region, request.account_id).secrets.get(secret_id)
    # One that is not there is known by what it was asked for as.
    resource = secret.arn if secret else secret_id
    context = _from_parameters(request) | {"secretsmanager:SecretId": resource}
    context |= tag_keys(as_dict(request.parameters.get("Tags")), request.parameters.get("TagKeys"))
    known = KNOWN
    if operation == "GetSecretValue" and not {"VersionId", "VersionStage"} & request.parameters.keys():
        # Whether AWS fills in the stage that it answers with is not documented.
        known = KNOWN - {"secretsmanager:versionstage"}
    if secret:
        context |= resource_tags(as_dict(secret.tags) or {}, "secretsmanager")
    policy = getattr(secret, "policy", None) or ""
    return Permission(f"secretsmanager:{operation}", resource, context, known, resource_policy=policy)


def _permission(action: str, resource: str, context: Context, *, shown: str) -> Permission:
    return Permission(f"secretsmanager:{action}", resource, context, KNOWN, shown)


def _from_parameters(request: ApiRequest) -> Context:
    given = request.parameters
    return {key: _text(given[name]) for name, key in FROM_PARAMETERS.items() if name in given}


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
