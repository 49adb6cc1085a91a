"""The services of the emulated AWS. Each is one object: a subclass of `Service`, in one module.

The service's module has its API and errors, the permissions that calls need, answers that aren't moto's, the facts that
CloudTrail records, and the state that the lab keeps. Its docstring lists the differences from AWS.
"""

from labkit.simulator.aws.call import Api, AwsRequest
from labkit.simulator.aws.service import Service
from labkit.simulator.aws.services.account import AccountManagement
from labkit.simulator.aws.services.cloudtrail import CloudTrail
from labkit.simulator.aws.services.dynamodb import DynamoDb
from labkit.simulator.aws.services.ec2 import Ec2
from labkit.simulator.aws.services.eks import Eks
from labkit.simulator.aws.services.eks_auth import EksAuth
from labkit.simulator.aws.services.iam import Iam
from labkit.simulator.aws.services.kms import Kms
from labkit.simulator.aws.services.organizations import Organizations
from labkit.simulator.aws.services.others import CloudFront, Lambda, Route53, Tagging
from labkit.simulator.aws.services.s3 import S3
from labkit.simulator.aws.services.secretsmanager import SecretsManager
from labkit.simulator.aws.services.sns import Sns
from labkit.simulator.aws.services.sqs import Sqs
from labkit.simulator.aws.services.ssm import Ssm
from labkit.simulator.aws.services.sts import Sts

SERVICES: dict[str, type[Service]] = {
    service.api.name: service
    for service in (
        AccountManagement, CloudFront, CloudTrail, DynamoDb, Ec2, Eks, EksAuth, Iam, Kms, Lambda, Organizations,
        Route53, S3, SecretsManager, Sns, Sqs, Ssm, Sts, Tagging,
    )
}  # fmt: skip


def service_of(request: AwsRequest) -> type[Service]:
    """Return the service of a request; `Service` itself for a service that isn't in `SERVICES`."""
    return SERVICES.get(request.service, Service)


def api_of(name: str) -> Api:
    """Return the API of the service with this name in a signature."""
    return SERVICES[name].api if name in SERVICES else Api(name)
