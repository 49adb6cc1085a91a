"""The fields of AWS's answers that the doctor reads."""

from typing import Any, TypedDict


class Tag(TypedDict):
    """https://docs.aws.amazon.com/IAM/latest/APIReference/API_Tag.html"""

    Key: str
    Value: str


class PermissionsBoundary(TypedDict):
    """https://docs.aws.amazon.com/IAM/latest/APIReference/API_AttachedPermissionsBoundary.html"""

    PermissionsBoundaryArn: str


class Role(TypedDict, total=False):
    """The fields of AWS's Role that the doctor reads.

    https://docs.aws.amazon.com/IAM/latest/APIReference/API_Role.html
    """

    Arn: str
    RoleName: str
    Path: str
    CreateDate: str
    MaxSessionDuration: int
    AssumeRolePolicyDocument: dict[str, Any]
    """The trust policy as IAM returns it. It may have any form that IAM accepts."""
    PermissionsBoundary: PermissionsBoundary
    Tags: list[Tag]


class Provider(TypedDict, total=False):
    """The fields of AWS's GetOpenIDConnectProvider that the doctor reads.

    https://docs.aws.amazon.com/IAM/latest/APIReference/API_GetOpenIDConnectProvider.html
    """

    Url: str
    ClientIDList: list[str]
    ThumbprintList: list[str]
    Tags: list[Tag]


class PastCall(TypedDict, total=False):
    """The fields of a CloudTrail record that the doctor keeps. It keeps no credentials.

    https://docs.aws.amazon.com/awscloudtrail/latest/userguide/cloudtrail-event-reference-record-contents.html
    """

    eventTime: str
    eventName: str
    errorCode: str | None
    errorMessage: str | None
    requestParameters: dict[str, Any] | None
    caller: str
    """The ARN of the user or role, without its session."""


class Cluster(TypedDict, total=False):
    """The fields of AWS's Cluster that the doctor reads.

    https://docs.aws.amazon.com/eks/latest/APIReference/API_Cluster.html
    """

    name: str
    arn: str
    status: str
    version: str
    endpoint: str
    identity: dict[str, dict[str, str]]
    certificateAuthority: dict[str, str]
    accessConfig: dict[str, Any]
    computeConfig: dict[str, Any]
    resourcesVpcConfig: dict[str, Any]
    tags: dict[str, str]


class PodIdentityAssociation(TypedDict, total=False):
    """The fields of AWS's PodIdentityAssociationSummary that the doctor reads.

    https://docs.aws.amazon.com/eks/latest/APIReference/API_PodIdentityAssociationSummary.html
    """

    associationId: str
    clusterName: str
    namespace: str
    serviceAccount: str


class IdentityProviderConfig(TypedDict, total=False):
    """The fields of AWS's OidcIdentityProviderConfig that the doctor reads.

    https://docs.aws.amazon.com/eks/latest/APIReference/API_OidcIdentityProviderConfig.html
    """

    identityProviderConfigName: str
    issuerUrl: str
    clientId: str
    status: str


class Organization(TypedDict, total=False):
    """The fields of AWS's Organization that the doctor reads.

    https://docs.aws.amazon.com/organizations/latest/APIReference/API_Organization.html
    """

    Id: str
    MasterAccountId: str


class ControlPolicy(TypedDict, total=False):
    """The fields of AWS's PolicySummary that the doctor reads.

    https://docs.aws.amazon.com/organizations/latest/APIReference/API_PolicySummary.html
    """

    Id: str
    Name: str
    AwsManaged: bool


class Simulated(TypedDict, total=False):
    """The fields of AWS's EvaluationResult that the doctor reads.

    https://docs.aws.amazon.com/IAM/latest/APIReference/API_EvaluationResult.html
    """

    EvalDecision: str
    PermissionsBoundaryDecisionDetail: dict[str, bool]
    OrganizationsDecisionDetail: dict[str, bool]
