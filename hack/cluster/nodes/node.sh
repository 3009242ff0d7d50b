#!/bin/bash
# node.sh up NAME IDX | kill NAME | freeze NAME | thaw NAME | cut NAME | join NAME | enter NAME CMD...     env: S (state dir), NNODES, ID (of the cluster; names its cgroups)
set -euo pipefail
C=$1 NODE=$2; S=${S:?} B=$S/bin D=$S/nodes/$NODE; export S B NODE NNODES=${NNODES:?} ID=${ID:?}
cg() { # cg FROZEN|THAWED: the node's own processes and all its pods (both freezers are hierarchical)
  for g in $ID-$NODE $ID-$NODE-sys; do
    if [ -d /sys/fs/cgroup/freezer ]; then echo $1 >/sys/fs/cgroup/freezer/$g/freezer.state
    else [ $1 = FROZEN ] && echo 1 >/sys/fs/cgroup/$g/cgroup.freeze || echo 0 >/sys/fs/cgroup/$g/cgroup.freeze; fi; done; }
case $C in
up) export IDX=$3; mkdir -p "$D"; rm -f "$D/up"
  # a real reboot leaves no cgroups; leftovers cost cAdvisor ~3 s each before the node turns Ready
  for c in /sys/fs/cgroup/*/$ID-$NODE /sys/fs/cgroup/$ID-$NODE; do [ -d $c ] && find $c -mindepth 1 -depth -type d -exec rmdir {} \; 2>/dev/null || true; done
  ip route replace 10.244.$IDX.0/24 via 172.30.0.$((10+IDX)) dev br-rag
  setsid unshare -n -m -u -i -p -f --propagation private --mount-proc --kill-child bash "$(dirname "$0")/node-init.sh" >"$D/init.log" 2>&1 </dev/null &
  U=$!; for i in $(seq 1 600); do                  # the child of unshare, once it is bash in its own net namespace
    P=$(pgrep -P $U -x bash | head -1 || true)
    [ -n "$P" ] && [ "$(readlink /proc/$P/ns/net)" != "$(readlink /proc/self/ns/net)" ] && break; P=; sleep 0.05; done
  [ -n "$P" ] || { cat "$D/init.log"; echo "$NODE: its namespaces did not come up within 30 s"; exit 1; }; echo $P >"$D/init.pid"
  until ip link add v$NODE type veth peer name eth0 netns $P 2>/dev/null; do   # a killed node's link goes a moment after its processes
    kill -0 $P || { cat "$D/init.log"; exit 1; }; sleep 0.1; done; ip link set v$NODE master br-rag up
  until [ -e "$D/up" ]; do kill -0 $P || { cat "$D/init.log"; exit 1; }; sleep 0.1; done ;;
kill)   kill -9 "$(cat $D/init.pid)" ;;             # power off: every process of the node dies at once
freeze) cg FROZEN ;;  thaw) cg THAWED ;;            # hung machine
cut)    ip link set v$NODE down ;; join) ip link set v$NODE up ;;   # network partition
enter)  shift 2; exec nsenter -t "$(cat $D/init.pid)" -a -- "$@" ;;
esac
