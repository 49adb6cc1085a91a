"""Which actions on which resources a call needs, with one module for each service.

derive.py is the way in for all services but S3, whose calls s3.py reads. requests.py reads a call by botocore's model
of its service. permission.py has the types that all of them return.

https://docs.aws.amazon.com/service-authorization/latest/reference/reference_policies_actions-resources-contextkeys.html
"""
