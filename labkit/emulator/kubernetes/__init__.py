"""The Kubernetes half of the lab: the API server, its controllers, the public issuer and the node."""
