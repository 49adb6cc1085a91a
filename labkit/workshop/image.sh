#!/bin/sh
# What the image is made of, on a Debian with Python: kubectl, the lab with its AWS CLI in /opt/lab, the hub's part of a
# server, and a user. The folder of this file has the wheel and the lock.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
HUB=5.5.0 # of the chart: https://hub.jupyter.org/helm-chart/

python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || {
  echo "image.sh: the base image has no Python 3.11 or newer. Name another: --build-arg BASE=python:3.13-slim@sha256:…" >&2
  exit 1
}
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes --no-install-recommends kubernetes-client procps >/dev/null
rm -rf /var/lib/apt/lists/*
python3 -m venv /opt/lab
pip="/opt/lab/bin/python -m pip --disable-pip-version-check --no-cache-dir install --quiet"
$pip --require-hashes --requirement "$here/requirements.lock"
sed -n 's/^\([^ ]*==[^ ]*\).*/\1/p' "$here/requirements.lock" >/tmp/versions
$pip --no-deps "$here"/labkit-*.whl
$pip --constraint /tmp/versions "jupyterhub==$HUB" jupyterhub-idle-culler
rm -rf /tmp/versions "$here"
useradd --key SUB_UID_COUNT=0 --key SUB_GID_COUNT=0 --uid 1000 --user-group --create-home --shell /bin/bash jovyan
