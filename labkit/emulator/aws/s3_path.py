"""What S3's paths and copy sources name: a bucket, a key and a version."""

import re
from urllib.parse import parse_qsl, unquote

# S3 Control's calls are signed for S3 too; they go under its API version.
CONTROL = "/v20180820/"
BUCKET = re.compile(r"[A-Za-z0-9._-]{3,255}")


def split(path: str) -> tuple[str, str]:
    """The bucket and the key in a decoded path-style path."""
    bucket, _, key = path.removeprefix("/").partition("/")
    return bucket, key


def copy_source(header: str) -> tuple[str, str, str | None] | None:
    """Bucket, key and version id in an ``x-amz-copy-source``; None if it is of another form."""
    path, _, query = header.partition("?")
    bucket, key = split(unquote(path))
    if not BUCKET.fullmatch(bucket) or not key:
        return None
    return bucket, key, dict(parse_qsl(query)).get("versionId")
