"""Find the permissions that a call needs: the actions, and the resources of each action.

derive.py calls the module of the call's service, such as iam.py. S3's calls don't pass through derive.py:
aws/s3.py calls actions/s3.py directly.
requests.py reads a call's operation and parameters, using botocore's model of the service.
call.py has the types that these modules return.

https://docs.aws.amazon.com/service-authorization/latest/reference/reference_policies_actions-resources-contextkeys.html
"""
