"""A plugin for the AWS CLI 1. With the plugin, the CLI calls the lab for every service, and otherwise works as on AWS.

Without the plugin, the CLI calls the real AWS for SQS, RDS and a few other services.
https://docs.aws.amazon.com/cli/v1/userguide/cli-configure-endpoints.html
"""

import os
import re
from argparse import Namespace
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # each labkit command loads this module, and botocore takes 0.06 s to load
    from botocore.awsrequest import AWSRequest
    from botocore.session import Session

CONFIG = "[plugins]\nlabkit = labkit.simulator.aws_cli\n"
S3_CONTROL = "request-created.s3-control"
OLD_NAMES = ("docdb", "emr", "health", "neptune", "rds", "sqs")


def awscli_initialize(events: Any) -> None:
    """Register `keep_endpoint`, `keep_region` and `keep_host` for two of the CLI's events.

    The CLI calls this function when it starts.
    """
    events.register_first("before-building-argument-table-parser", keep_endpoint)
    events.register_first("before-building-argument-table-parser", keep_region)
    events.register_first(S3_CONTROL, keep_host)


def keep_endpoint(parsed_globals: Namespace, **_: object) -> None:
    """Use the endpoint in ``AWS_ENDPOINT_URL`` for a service in ``OLD_NAMES``, such as SQS.

    An endpoint on the command line overrides the variable.
    """
    if parsed_globals.command in OLD_NAMES and parsed_globals.endpoint_url is None:
        parsed_globals.endpoint_url = os.environ.get("AWS_ENDPOINT_URL")


def keep_region(parsed_globals: Namespace, session: "Session", **_: object) -> None:
    """Without a region, use the one of the service's global endpoint, as the CLI does without ``AWS_ENDPOINT_URL``.

    https://docs.aws.amazon.com/sdkref/latest/guide/feature-sts-regionalized-endpoints.html
    """
    if parsed_globals.region or session.get_config_variable("region"):
        return
    resolver = session.get_component("endpoint_resolver")
    with suppress(Exception):  # the CLI says that it needs a region
        scope = resolver.construct_endpoint(parsed_globals.command)["credentialScope"]
        session.set_config_variable("region", scope["region"])


def keep_host(request: "AWSRequest", **_: object) -> None:
    """Remove the account id from the host name of a request to S3 Control: a name with the id doesn't resolve.

    https://docs.aws.amazon.com/AmazonS3/latest/API/API_control_GetPublicAccessBlock.html
    """
    request.url = re.sub(r"//\d{12}\.", "//", request.url, count=1)
