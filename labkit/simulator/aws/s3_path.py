"""Read the bucket, the key and the version from S3's paths and copy sources."""

import re
from urllib.parse import parse_qsl, unquote

# The paths of S3 Control, whose calls are also signed for S3, start with its API version.
CONTROL = "/v20180820/"
BUCKET = re.compile(r"[A-Za-z0-9._-]{3,255}")


def split(path: str) -> tuple[str, str]:
    """Return the bucket and the key in a decoded path of the form ``/BUCKET/KEY``."""
    bucket, _, key = path.removeprefix("/").partition("/")
    return bucket, key


def copy_source(header: str) -> tuple[str, str, str | None] | None:
    """Return the bucket, the key and the version id in an ``x-amz-copy-source``; None if it has another form."""
    path, _, query = header.partition("?")
    bucket, key = split(unquote(path))
    if not BUCKET.fullmatch(bucket) or not key:
        return None
    return bucket, key, dict(parse_qsl(query)).get("versionId")
