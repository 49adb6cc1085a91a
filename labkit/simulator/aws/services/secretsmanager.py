"""Secrets Manager. moto answers the calls.

What differs from AWS:

- KMS: callers need no permission on the key that encrypts a secret.
- Secrets of another account: no call can reach them, whatever their policies allow.
- BatchGetSecretValue with filters: the lab can't derive the permissions, so only an administrator may use it.

https://docs.aws.amazon.com/service-authorization/latest/reference/list_awssecretsmanager.html
https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_RotateSecret.html
"""

import json
from typing import Any

from labkit.policy import resource_tags
from labkit.policy.reference import actions_on
from labkit.simulator.aws.backend import Backend
from labkit.simulator.aws.call import (
    Api,
    AwsRequest,
    CannotDerive,
    Context,
    ParsedRequest,
    Permission,
    Response,
    as_dict,
    as_text,
    pass_role,
    tag_keys,
)
from labkit.simulator.aws.service import Service
from labkit.simulator.aws.sessions import Caller

# Condition keys that have the value of a request's parameter, by the parameter's name.
FROM_PARAMETERS = {
    "BlockPublicPolicy": "secretsmanager:BlockPublicPolicy",
    "Description": "secretsmanager:Description",
    "ExternalSecretRotationRoleArn": "secretsmanager:ExternalSecretRotationRoleArn",
    "ForceDeleteWithoutRecovery": "secretsmanager:ForceDeleteWithoutRecovery",
    "ForceOverwriteReplicaSecret": "secretsmanager:ForceOverwriteReplicaSecret",
    "KmsKeyId": "secretsmanager:KmsKeyId",
    "Name": "secretsmanager:Name",
    "RecoveryWindowInDays": "secretsmanager:RecoveryWindowInDays",
    "RotateImmediately": "secretsmanager:RotateImmediately",
    "RotationLambdaARN": "secretsmanager:RotationLambdaARN",
    "Type": "secretsmanager:Type",
    "VersionId": "secretsmanager:VersionId",
    "VersionStage": "secretsmanager:VersionStage",
}
ROTATED_BY = "secretsmanager:resource/AllowRotationLambdaArn"
KEY_ARN = "secretsmanager:kmskeyarn"
KNOWN = frozenset(key.lower() for key in FROM_PARAMETERS.values()) | {
    KEY_ARN, "secretsmanager:addreplicaregions", "secretsmanager:modifyrotationrules", "secretsmanager:resource/",
    "secretsmanager:resourcetag/", "secretsmanager:secretid", "secretsmanager:secretprimaryregion",
}  # fmt: skip


class SecretsManager(Service):
    """Secrets Manager."""

    api = Api(
        "secretsmanager",
        target="secretsmanager",
        is_checked=True,
        reserved_tag="InvalidParameterException",
        reserved_tag_said="You can't modify system tags. Tag key: '{}'.",
    )
    stores = ("secretsmanager",)
    resource_types = {"name": "AWS::SecretsManager::Secret", "secretId": "AWS::SecretsManager::Secret"}

    def permissions(self, request: ParsedRequest) -> list[Permission]:
        """Return the permissions that an operation of Secrets Manager needs."""
        operation, parameters = request.operation, request.parameters
        if operation == "BatchGetSecretValue":
            if "SecretIdList" not in parameters or "Filters" in parameters:
                raise CannotDerive("secretsmanager:BatchGetSecretValue by filters")
            values = [_on_secret("GetSecretValue", each, request, self.backend) for each in parameters["SecretIdList"]]
            return [_permission(operation, "*", {}, shown=""), *values]
        if operation in actions_on("secretsmanager", ""):
            return [_permission(operation, "*", {}, shown="")]
        if operation == "CreateSecret":
            return _create(request)
        needed = [_on_secret(operation, parameters["SecretId"], request, self.backend)]
        return needed + _to_rotate(needed[0], parameters) if operation == "RotateSecret" else needed

    async def answer(self, request: AwsRequest, caller: Caller) -> Response:
        """Return moto's answer, with AWS's status and the dates of versions."""
        return await self.backend.run(self._answer, request)

    def _answer(self, request: AwsRequest) -> Response:
        response = self.backend.answer_in_thread(request)
        if response.status == 404:  # In AWS, each fault of the caller is a 400.
            response.status = 400
        if request.operation == "ListSecretVersionIds" and response.status == 200:
            answer = json.loads(response.body)
            secrets = self.backend.store("secretsmanager", request.region, request.account_id).secrets
            made = secrets[answer["ARN"]].versions
            # moto returns the current time for both dates.
            for version in answer["Versions"]:
                version["CreatedDate"] = made[version["VersionId"]]["createdate"]
                del version["LastAccessedDate"]
            response.body = json.dumps(answer).encode()
        return response


def _to_rotate(rotation: Permission, parameters: dict[str, Any]) -> list[Permission]:
    """Return the permissions that RotateSecret needs besides ``rotation``."""
    function = parameters.get("RotationLambdaARN") or rotation.context.get(ROTATED_BY)
    role = parameters.get("ExternalSecretRotationRoleArn")
    needed = [Permission("lambda:InvokeFunction", str(function), known=frozenset())] if function else []
    return needed + ([pass_role(role, "secretsmanager.amazonaws.com", rotation.resource)] if role else [])


def _create(request: ParsedRequest) -> list[Permission]:
    parameters = request.parameters
    # A new secret's ARN will end with six random characters. The wildcards stand for them.
    arn = f"arn:aws:secretsmanager:{request.region}:{request.account_id}:secret:{parameters['Name']}-??????"
    context = _from_parameters(request) | tag_keys(as_dict(parameters.get("Tags")))
    actions = ["CreateSecret"]
    actions += ["TagResource"] if parameters.get("Tags") else []
    actions += ["ReplicateSecretToRegions"] if parameters.get("AddReplicaRegions") else []
    doubted, name = _doubted(request), parameters["Name"]
    return [Permission(f"secretsmanager:{action}", arn, context, KNOWN, doubted, name) for action in actions]


def _on_secret(operation: str, secret_id: str, request: ParsedRequest, backend: Backend) -> Permission:
    secret: Any = backend.store("secretsmanager", request.region, request.account_id).secrets.get(secret_id)
    # A missing secret is identified by the id in the request.
    resource = secret.arn if secret else secret_id
    context = _from_parameters(request) | {"secretsmanager:SecretId": resource}
    context |= tag_keys(as_dict(request.parameters.get("Tags")), request.parameters.get("TagKeys"))
    if secret:
        context |= _of_secret(secret)
    policy = getattr(secret, "policy", None) or ""
    doubted = _doubted(request)
    return Permission(f"secretsmanager:{operation}", resource, context, KNOWN, doubted, resource_policy=policy)


def _of_secret(secret: Any) -> Context:
    # A replica has the condition keys of the original secret.
    source = getattr(secret, "source", secret)
    context = resource_tags(as_dict(source.tags) or {}, "secretsmanager")
    if source.rotation_lambda_arn:
        context[ROTATED_BY] = source.rotation_lambda_arn
    if source.replicas:
        context["secretsmanager:SecretPrimaryRegion"] = source.region
    return context


def _doubted(request: ParsedRequest) -> frozenset[str]:
    # Only KMS knows which key an alias stands for.
    return frozenset({KEY_ARN} if "alias/" in request.parameters.get("KmsKeyId", "") else ())


def _permission(action: str, resource: str, context: Context, *, shown: str) -> Permission:
    return Permission(f"secretsmanager:{action}", resource, context, KNOWN, shown=shown)


def _from_parameters(request: ParsedRequest) -> Context:
    given = request.parameters
    context: Context = {key: as_text(given[name]) for name, key in FROM_PARAMETERS.items() if name in given}
    if "AddReplicaRegions" in given:
        context["secretsmanager:AddReplicaRegions"] = [each["Region"] for each in given["AddReplicaRegions"]]
    if request.operation == "RotateSecret":
        context["secretsmanager:ModifyRotationRules"] = as_text("RotationRules" in given)
    if (key := given.get("KmsKeyId", "")) and "alias/" not in key:
        whole = key.startswith("arn:")
        context[KEY_ARN] = key if whole else f"arn:aws:kms:{request.region}:{request.account_id}:key/{key}"
    return context
