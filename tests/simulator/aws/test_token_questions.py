"""A review question about a token has the answer that the emulated STS gives to a signed token."""

import time

import pytest
from botocore.exceptions import ClientError

from labkit.course import lessons, review
from tests.simulator.aws.conftest import AUDIENCE, ISSUER, trust_policy

QUESTIONS = [each for number in lessons.FILES for each in lessons.for_review(number).tokens]


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question.id)
def test_the_lab_s_answer_to_a_token_is_that_of_sts(question, aws, irsa):
    host = ISSUER.removeprefix("https://")
    condition = {
        operator: {f"{host}:{claim}": value if isinstance(value, str) else [*value] for claim, value in keys.items()}
        for operator, keys in question.condition.items()
    }
    irsa.trust(trust_policy(Action=question.action, Condition=condition))
    iam = aws.client("iam")
    for change, id in [("remove", AUDIENCE), *(("add", id) for id in question.client_ids)]:
        write = getattr(iam, f"{change}_client_id_{'to' if change == 'add' else 'from'}_open_id_connect_provider")
        write(OpenIDConnectProviderArn=irsa.provider_arn, ClientID=id)
    expires = int(time.time()) + question.minutes * 60
    claims = {"sub": question.sub, "aud": [question.aud], "exp": expires, "iat": expires - 3600, "nbf": expires - 3600}
    if question.another_cluster:
        claims["iss"] = ISSUER[:-1] + ("0" if ISSUER[-1] != "0" else "1")
    try:
        irsa.assume(WebIdentityToken=aws.issuer.token(**claims))
        answer = review.CREDENTIALS
    except ClientError as error:
        answer = error.response["Error"]["Code"]
    question_shown = next(each for number in lessons.FILES for each in review.bank(number) if each.id == question.id)
    assert answer == next(each.text for each in question_shown.answers if each.right)
