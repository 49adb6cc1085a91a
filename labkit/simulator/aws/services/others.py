"""Services that the lab leaves to moto. Only administrators may make calls."""

import re

from labkit.simulator.aws.call import Api
from labkit.simulator.aws.service import Service


class CloudFront(Service):
    """CloudFront."""

    api = Api("cloudfront", protocol="rest-xml", is_rest=True)


class Lambda(Service):
    """Lambda."""

    api = Api("lambda", is_rest=True)
    data_events = re.compile("Invoke")


class Route53(Service):
    """Route 53."""

    api = Api("route53", protocol="rest-xml", is_rest=True)


class Tagging(Service):
    """The Resource Groups Tagging API. It has no state of its own."""

    api = Api("tagging")
    stores = ()
