"""What the moto target runs on: one background process with an AWS and a Kubernetes half."""
