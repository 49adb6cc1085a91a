# Makes the mounts of one container, and then waits. The container's processes join the namespaces of this process.
# $1: the mounts, in fstab(5) form. $2: the folder that becomes the root. $3: the container's host name.
set -e
echo unshared
# The node maps the container's users before it answers.
read -r _
mount --no-mtab --all --fstab "$1"
[ -z "$3" ] || hostname "$3" || :
cd "$2"
pivot_root . .
umount --lazy --no-canonicalize .
cd /
echo ready
# Standard input is a pipe that the lab's server holds. It ends when the server ends, even if the server is killed.
exec cat
