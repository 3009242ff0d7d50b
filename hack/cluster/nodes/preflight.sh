#!/bin/bash
# preflight.sh DIR: can this machine run real nodes with their state in DIR?  prints one line a check; exit 1 when a "must" fails
DIR=${1:?}; r=0; must() { if eval "$2" >/dev/null 2>&1; then echo "ok    $1"; else echo "FAIL  $1"; r=1; fi; }; note() { echo "note  $1: $(eval "$2" 2>&1 | head -1)"; }
must "root" '[ $(id -u) = 0 ]'
must "new net+mount+pid namespaces" 'unshare -n -m -u -i -p -f --mount-proc true'
must "veth and bridge" 'unshare -n sh -c "ip link add rg0 type veth peer name rg1 && ip link add rg2 type bridge"'
must "overlayfs" 'd=$(mktemp -d -p $DIR) && mkdir $d/l $d/u $d/w $d/m && mount -t overlay -o lowerdir=$d/l,upperdir=$d/u,workdir=$d/w o $d/m && umount $d/m && rm -r $d'
must "iptables nat + conntrack + statistic + MASQUERADE --random-fully" 'unshare -n sh -c "iptables -t nat -A POSTROUTING -m conntrack --ctstate NEW -m statistic --mode random --probability 0.5 -j MASQUERADE --random-fully"'
must "bridge netfilter" '[ -e /proc/sys/net/bridge/bridge-nf-call-iptables ]'
must "/dev/kmsg readable" '[ -r /dev/kmsg ]'
must "cpu, cpuacct, cpuset, memory, devices, freezer, pids cgroups (v1) or cgroup v2" '[ -f /sys/fs/cgroup/cgroup.controllers ] || { for c in cpu cpuacct cpuset memory devices freezer pids; do [ -d /sys/fs/cgroup/$c ] || exit 1; done; }'
must "cfs quota" '[ -f /sys/fs/cgroup/cgroup.controllers ] || [ -f /sys/fs/cgroup/cpu/cpu.cfs_quota_us ]'
must "vm.overcommit_memory writable" 'v=$(cat /proc/sys/vm/overcommit_memory) && echo $v >/proc/sys/vm/overcommit_memory'
note "cgroup version (tmpfs = v1, cgroup2fs = v2)" 'stat -fc %T /sys/fs/cgroup'
note "CAP_SYS_RESOURCE (without it: restrict_oom_score_adj = true)" 'c=$(awk "/CapEff/{print \$2}" /proc/self/status); [ $(( (0x$c >> 24) & 1 )) = 1 ] && echo yes || echo no'
note "swap (must be off or failSwapOn: false)" 'tail -n +2 /proc/swaps | grep . || echo none'
note "nofile hard limit" 'ulimit -Hn'
note "inotify instances (raise to 4096)" 'cat /proc/sys/fs/inotify/max_user_instances'
note "nft (>= 1.0.1 for kube-proxy nftables mode)" 'nft --version'
for b in containerd runc iptables conntrack mount nsenter unshare; do must "command $b" "command -v $b"; done
must "CNI plugins bridge, host-local, portmap, loopback" 'for p in bridge host-local portmap loopback; do [ -x /usr/lib/cni/$p ] || [ -x /opt/cni/bin/$p ] || exit 1; done'
exit $r
