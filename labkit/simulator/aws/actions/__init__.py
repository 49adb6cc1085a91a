"""Read a call's parameters, and find the permissions that a call of EKS, IAM or S3 needs.

requests.py reads a call's operation and parameters, using botocore's model of the service. The permissions of the other
services are in services/.

https://docs.aws.amazon.com/service-authorization/latest/reference/reference_policies_actions-resources-contextkeys.html
"""
