"""KMS. moto answers the calls.

https://docs.aws.amazon.com/kms/latest/APIReference/Welcome.html
"""

from labkit.simulator.aws.call import Api
from labkit.simulator.aws.service import Service


class Kms(Service):
    """KMS. Only administrators may make calls."""

    api = Api("kms", target="TrentService", is_checked=True, reserved_tag="TagException")
    stores = ("kms",)
