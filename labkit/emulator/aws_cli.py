"""A plugin of the AWS CLI 1, named in the lab's own AWS config. It sends the calls of every service to the lab.

For SQS, RDS and a few others, the CLI uses old host names of the real AWS, whatever ``AWS_ENDPOINT_URL`` says.
https://docs.aws.amazon.com/cli/v1/userguide/cli-configure-endpoints.html
"""

import os
import re
from argparse import Namespace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # each command of labkit reads this module, and botocore takes 0.06 s to load
    from botocore.awsrequest import AWSRequest

CONFIG = "[plugins]\nlabkit = labkit.emulator.aws_cli\n"
S3_CONTROL = "request-created.s3-control"
OLD_NAMES = ("docdb", "emr", "health", "neptune", "rds", "sqs")


def awscli_initialize(events: Any) -> None:
    """Register for the CLI's events. The CLI calls this when it starts."""
    events.register_first("before-building-argument-table-parser", keep_endpoint)
    events.register_first(S3_CONTROL, keep_host)


def keep_endpoint(parsed_globals: Namespace, **_: object) -> None:
    """Use the environment's endpoint if the command line has none."""
    if parsed_globals.command in OLD_NAMES and parsed_globals.endpoint_url is None:
        parsed_globals.endpoint_url = os.environ.get("AWS_ENDPOINT_URL")


def keep_host(request: "AWSRequest", **_: object) -> None:
    """Remove the account id from the host of a request to S3 Control before it is signed: no such name resolves.

    https://docs.aws.amazon.com/AmazonS3/latest/API/API_control_GetPublicAccessBlock.html
    """
    request.url = re.sub(r"//\d{12}\.", "//", request.url, count=1)
