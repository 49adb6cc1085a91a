"""Validate names, label keys, and the keys of ConfigMaps and Secrets. Return errors in the API server's words.

https://kubernetes.io/docs/concepts/overview/working-with-objects/names/
"""

import re

from labkit.simulator.kubernetes.api.field_rules import matching, no_longer_than, optional, too_long
from labkit.simulator.kubernetes.objects.status import StatusCause, invalid_value

LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
SUBDOMAIN = rf"{LABEL}(\.{LABEL})*"
QUALIFIED = r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
LABEL_TEXT = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with"
    f" an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '{LABEL}')"
)
SUBDOMAIN_TEXT = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and"
    f" end with an alphanumeric character (e.g. 'example.com', regex used for validation is '{SUBDOMAIN}')"
)
KEY_TEXT = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric"
    f" character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '{QUALIFIED}')"
)
VALUE_TEXT = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and"
    " end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is"
    " '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
)
CONFIG_KEY = r"[-._a-zA-Z0-9]+"
CONFIG_KEY_TEXT = (
    "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME', "
    f" or 'key-name', regex used for validation is '{CONFIG_KEY}')"
)

IS_SUBDOMAIN, IS_QUALIFIED = re.compile(SUBDOMAIN).fullmatch, re.compile(QUALIFIED).fullmatch

label_name = no_longer_than(63, matching(LABEL, LABEL_TEXT))
label_value = optional(no_longer_than(63, matching(QUALIFIED, VALUE_TEXT)))
subdomain_name = no_longer_than(253, matching(SUBDOMAIN, SUBDOMAIN_TEXT))


def label_key(field: str, key: str) -> list[StatusCause]:
    prefix, slash, name = key.rpartition("/")
    if slash and not IS_SUBDOMAIN(prefix):
        return [invalid_value(field, key, f"prefix part {SUBDOMAIN_TEXT}")]
    if not name:
        return [invalid_value(field, key, "name part must be non-empty")]
    if len(name) > 63:
        return [invalid_value(field, key, "name part must be no more than 63 bytes")]
    return [] if IS_QUALIFIED(name) else [invalid_value(field, key, KEY_TEXT)]


def config_key(field: str, key: str) -> list[StatusCause]:
    """https://kubernetes.io/docs/concepts/configuration/configmap/#configmap-object"""
    causes = [too_long(field, key, 253)] if len(key) > 253 else []
    causes += matching(CONFIG_KEY, CONFIG_KEY_TEXT)(field, key)
    if key in (".", ".."):
        causes.append(invalid_value(field, key, f"must not be '{key}'"))
    elif key.startswith(".."):
        causes.append(invalid_value(field, key, "must not start with '..'"))
    return causes
