"""The two accounts of a call that crosses them: their roles, and the words of S3's denials."""

from tests.simulator.aws.conftest import ACCOUNT, ISSUER, OTHER, statement

PROVIDER = f"oidc-provider/{ISSUER.removeprefix('https://')}"
OURS, THEIRS = f"arn:aws:iam::{ACCOUNT}:role/my-role", f"arn:aws:iam::{OTHER}:role/theirs"
OUR_SESSION = f"arn:aws:sts::{ACCOUNT}:assumed-role/my-role/my-pod"


def who(sts):
    answer = sts.get_caller_identity()
    return answer["Account"], answer["Arn"]


READ = "s3:GetObject"
NO_IDENTITY = "because no identity-based policy allows the s3:GetObject action"
NO_RESOURCE = "because no resource-based policy allows the s3:GetObject action"
THEIR_OBJECT = "arn:aws:s3:::theirs/hello.txt"
SAID = f'User: {OUR_SESSION} is not authorized to perform: s3:GetObject on resource: "{THEIR_OBJECT}" '


def admitting(principal, **more):
    return statement(READ, THEIR_OBJECT, Principal={"AWS": principal}, **more)
