"""The permissions of the person who runs `irsa.ipynb` in an account, and cleans up after it, and nothing more."""

from typing import Any

from labkit.parameters import RUN_TAG, Parameters

LISTS = ("iam:ListRoles", "iam:ListPolicies", "iam:ListOpenIDConnectProviders", "s3:ListAllMyBuckets")
TAGS_OF_IAM = ("iam:ListRoleTags", "iam:ListPolicyTags", "iam:ListOpenIDConnectProviderTags")


def build(parameters: Parameters, account_id: str, partition: str = "aws") -> dict[str, Any]:
    """The identity-based policy, for the run of these parameters in the account (12 digits).

    A statement a purpose: where one is taken away, a step fails. It lets nobody give a role another policy than the
    run's, and changes and deletes what bears the run's tag alone. What the
    cluster itself allows, an access entry says, and no IAM policy.
    https://docs.aws.amazon.com/IAM/latest/UserGuide/access_iam-tags.html
    """
    iam = f"arn:{partition}:iam::{account_id}:"
    role = f"{iam}role/{parameters.role_name}"
    # EKS's issuers in the region. IAM names a provider that is being tagged by its host alone.
    providers = f"{iam}oidc-provider/oidc.eks.{parameters.region}.amazonaws.com*"
    bucket = f"arn:{partition}:s3:::{parameters.bucket}"
    cluster = f"arn:{partition}:eks:{parameters.region}:{account_id}:cluster/{parameters.cluster}"
    gives_tag = {f"aws:RequestTag/{RUN_TAG}": parameters.run}
    has_tag = {f"aws:ResourceTag/{RUN_TAG}": parameters.run}
    statements = [
        _allow("FindTheCluster", ["eks:DescribeCluster"], cluster),
        _allow("ListWhatIsThere", LISTS, "*"),
        _allow("ReadWhoseItIs", TAGS_OF_IAM, [f"{iam}role/*", f"{iam}policy/*", f"{iam}oidc-provider/*"]),
        _allow("ReadTheProvider", ["iam:GetOpenIDConnectProvider"], providers),
        _allow("ReadTheRole", ["iam:GetRole", "iam:ListAttachedRolePolicies", "iam:ListRolePolicies"], role),
        _allow(
            "RegisterTheIssuer",
            ["iam:CreateOpenIDConnectProvider", "iam:TagOpenIDConnectProvider"],
            providers,
            {"StringEquals": gives_tag},
        ),
        _allow("MakeTheRole", ["iam:CreateRole", "iam:TagRole"], role, {"StringEquals": gives_tag}),
        _allow(
            "GiveTheRoleItsPolicy",
            ["iam:AttachRolePolicy", "iam:DetachRolePolicy"],
            role,
            {"StringEquals": has_tag, "ArnEquals": {"iam:PolicyARN": parameters.policy_arn}},
        ),
        _allow(
            "RemoveByTheTag",
            ["iam:DeleteRole", "iam:DeleteOpenIDConnectProvider"],
            [role, providers],
            {"StringEquals": has_tag},
        ),
        _allow(
            "MakeAndRemoveTheBucket",
            ["s3:CreateBucket", "s3:PutBucketTagging", "s3:GetBucketTagging", "s3:ListBucket", "s3:DeleteBucket"],
            bucket,
        ),
        _allow("FillAndEmptyTheBucket", ["s3:PutObject", "s3:GetObject", "s3:DeleteObject"], f"{bucket}/*"),
    ]
    return {"Version": "2012-10-17", "Statement": statements}


def _allow(sid: str, actions: Any, resource: Any, condition: Any = None) -> dict[str, Any]:
    statement = {"Sid": sid, "Effect": "Allow", "Action": [*actions], "Resource": resource}
    return statement | ({"Condition": condition} if condition else {})
