#!/bin/sh
# Install the IRSA lab from this folder with the newest Python of this machine that the folder has wheels for.
here=${0%install.sh} known=
for version in 3.14 3.13 3.12 3.11; do
  # pyenv has a command also for a Python that doesn't run here.
  [ -f "${here}python-$version.txt" ] && "python$version" -c "" 2>/dev/null && exec "python$version" "${here}install.py" "$@"
done
command -v python3 >/dev/null && exec python3 "${here}install.py" "$@"
for file in "${here}"python-*.txt; do
  version=${file##*python-}
  known=${known:+$known or }${version%.txt}
done
echo "install.sh: this machine has no Python 3. Install Python $known, which this folder doesn't contain." >&2
exit 1
