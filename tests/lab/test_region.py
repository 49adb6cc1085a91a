"""Two clusters with the same name in two regions: each has its own API server and its own issuer."""

import labkit


def test_clusters_with_the_same_name_in_two_regions_are_separate(home):
    here = labkit.Lab.open(cluster="twin", role_name="twin")
    there = labkit.Lab.open(cluster="twin", region="eu-central-1", role_name="twin")
    for lab, region in ((here, "us-east-1"), (there, "eu-central-1")):
        cluster = lab.aws.client("eks").describe_cluster(name="twin")["cluster"]
        assert cluster["arn"] == f"arn:aws:eks:{region}:123456789012:cluster/twin"
        assert lab.issuer == cluster["identity"]["oidc"]["issuer"]
        assert lab.issuer.startswith(f"https://oidc.eks.{region}.amazonaws.com/id/")
        assert lab.kubernetes.configuration.host == cluster["endpoint"]
        assert lab.fetch(f"{lab.issuer}/.well-known/openid-configuration")["issuer"] == lab.issuer
    assert here.issuer != there.issuer
    assert here.kubernetes.configuration.host != there.kubernetes.configuration.host
    there.ready(through="pod")
    assert there.check("credentials"), there.check("credentials")
    here.aws.client("eks").delete_cluster(name="twin")
    assert there.aws.client("eks").list_clusters()["clusters"] == ["twin"]
    assert "twin" not in here.aws.client("eks").list_clusters()["clusters"]
