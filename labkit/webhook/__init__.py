"""The pod identity webhook: step 5 of IRSA, as EKS runs it in the control plane.

In a lab it is one of the cluster's listeners. There it also injects EKS Pod Identity's variables if the service account
has an association. `labkit webhook serve` runs it for any other API server, without associations.
https://github.com/aws/amazon-eks-pod-identity-webhook
"""

from labkit.webhook.accounts import Account, Accounts
from labkit.webhook.review import review
from labkit.webhook.server import WebhookServer, mutating_webhook_configuration

__all__ = ["Account", "Accounts", "WebhookServer", "mutating_webhook_configuration", "review"]
