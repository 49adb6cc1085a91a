#!/bin/sh
# Install the IRSA lab from this folder with the newest Python of this machine that it works with.
for python in python3.14 python3.13 python3.12 python3.11 python3; do
  command -v "$python" >/dev/null && exec "$python" "$(dirname "$0")/install.py" "$@"
done
echo "install.sh: this machine has no Python 3. Install Python 3.11 or newer, which this folder doesn't contain." >&2
exit 1
