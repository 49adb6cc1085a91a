# Outlives the lab's server until it has ended the processes that the server started.
# Standard input: lines "add GROUP", "drop GROUP", "remove PREFIX" (of control groups) and "delete FOLDER". It ends when the server ends, even if the server is killed.
# $1: the node's folder. Each process of a pod has its HOME in this folder.
trap '' HUP INT TERM
groups=' '
prefixes=
folder=
while read -r verb group; do
    case $verb in
        add) groups="$groups$group " ;;
        delete) folder=$group ;;
        remove) prefixes="$prefixes $group" ;;
        drop) groups="${groups%% "$group" *} ${groups#* "$group" }" ;;
    esac
done
for group in $groups; do
    kill -KILL -- "-$group" 2>/dev/null
    rm -f /dev/shm/*faketime_s*_"$group"
done
# A process that has left its group (a daemon) still has the environment of its start.
for round in 1 2; do
    for file in $(grep -lzsF "HOME=$1/" /proc/[0-9]*/environ); do
        process=${file#/proc/}
        kill -KILL "${process%/environ}" 2>/dev/null
    done
done
[ -z "$folder" ] || rm -rf -- "$folder"
for prefix in $prefixes; do
    for attempt in $(seq 100); do
        rmdir "$prefix"* 2>/dev/null
        set -- "$prefix"*
        [ -e "$1" ] || break
        sleep 0.1  # a process that was killed needs a moment to leave its group
    done
done
