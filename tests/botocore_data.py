"""botocore's descriptions of services, parsed once for this process and for the processes that it forks.

By itself, each session would parse them again, which takes 0.1 s or more. Here, all sessions share a loader.
"""

import functools

import botocore.loaders
import botocore.session

SERVICES = ("eks", "iam", "s3", "sts")
_loader = functools.cache(botocore.loaders.create_loader)


def create_loader(search_path_string: str | None = None) -> botocore.loaders.Loader:
    return _loader(search_path_string)


botocore.loaders.create_loader = botocore.session.create_loader = create_loader
for service in SERVICES:
    session = botocore.session.Session()
    session.create_client(service, "us-east-1", aws_access_key_id="none", aws_secret_access_key="none")
