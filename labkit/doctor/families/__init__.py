"""The families of errors that the doctor knows. Each family has its texts, its meaning and the findings behind it.

Since about June 2026, STS seems to answer most faults of a token with the same sentence. Older threads on the web show
the earlier messages, which name the cause.
"""

from labkit.doctor.families import aws, documents, programs
from labkit.doctor.families.family import Family

FAMILIES: tuple[Family, ...] = (*aws.FAMILIES, *programs.FAMILIES, *documents.FAMILIES)
"""If several general families match a text, the first one counts."""
