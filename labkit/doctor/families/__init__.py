"""The error messages that the doctor knows, in families: the messages of one family have the same meaning.

Since about June 2026, STS seems to answer most faults of a token with the same sentence. Older threads on the web show
the earlier messages, which name the cause.
"""

from labkit.doctor.families import aws, documents, programs
from labkit.doctor.families.family import Family

FAMILIES: tuple[Family, ...] = (*aws.FAMILIES, *programs.FAMILIES, *documents.FAMILIES)
"""If several general families match a text, the first one counts."""
