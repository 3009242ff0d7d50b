#!/bin/bash
# PID 1 of one node, inside its own net, mount, uts, ipc and pid namespaces.  env: ID NODE IDX S (state dir) B (programs) NNODES RESMEM (kept from pods)
set -eu
D=$S/nodes/$NODE
mount --make-rshared /
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/containerd /run/netns
mount --bind /run/netns /run/netns; mount --make-shared /run/netns      # before containerd: a mount made later blocks sandbox removal
for p in containerd:/var/lib/containerd kubelet:/var/lib/kubelet cni:/var/lib/cni pods:/var/log/pods containers:/var/log/containers cnicfg:/etc/cni/net.d; do
  mkdir -p "$D/${p%%:*}" "${p#*:}"; mount --bind "$D/${p%%:*}" "${p#*:}"; done
mount --make-rshared /
hostname "$NODE"
if [ -f /sys/fs/cgroup/cgroup.controllers ]; then                          # cgroup v2: one tree
  for k in cpuset cpu io memory pids; do echo +$k >/sys/fs/cgroup/cgroup.subtree_control 2>/dev/null || true; done
  mkdir -p /sys/fs/cgroup/$ID-$NODE /sys/fs/cgroup/$ID-$NODE-sys; echo 1 >/sys/fs/cgroup/$ID-$NODE-sys/cgroup.procs || true
else                                                                       # cgroup v1: one pair of cgroups per hierarchy
  for c in /sys/fs/cgroup/*/; do
    for g in $ID-$NODE $ID-$NODE-sys; do mkdir -p $c$g
      if [ -f $c/cpuset.cpus ]; then cat $c/cpuset.cpus >$c$g/cpuset.cpus; cat $c/cpuset.mems >$c$g/cpuset.mems; fi; done
    echo 1 >$c/$ID-$NODE-sys/cgroup.procs || true
  done
fi
ip link set lo up
until ip link show eth0 >/dev/null 2>&1; do sleep 0.05; done
ip addr add 172.30.0.$((10+IDX))/24 dev eth0; ip link set eth0 up; ip route add default via 172.30.0.1
for j in $(seq 1 $NNODES); do [ $j = $IDX ] || ip route add 10.244.$j.0/24 via 172.30.0.$((10+j)); done
echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/bridge/bridge-nf-call-iptables || true
cat > /etc/cni/net.d/10-rag.conflist <<J
{"cniVersion":"1.0.0","name":"rag","plugins":[
 {"type":"bridge","bridge":"cni0","isGateway":true,"ipMasq":false,"hairpinMode":true,
  "ipam":{"type":"host-local","ranges":[[{"subnet":"10.244.$IDX.0/24"}]],"routes":[{"dst":"0.0.0.0/0"}]}},
 {"type":"portmap","capabilities":{"portMappings":true},"snat":true}]}
J
sed -e "s|@NODE@|$NODE|g;s|@ID@|$ID|g;s|@STATE@|$S|g;s|@RESCPU@|200m|;s|@RESMEM@|$RESMEM|" "$S/kubelet-config.tmpl" >"$D/kubelet.yaml"
cat > "$D/proxy.yaml" <<J
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
clientConnection: {kubeconfig: $S/kubeconfig/proxy.conf}
hostnameOverride: $NODE
mode: iptables
clusterCIDR: 10.244.0.0/16
oomScoreAdj: 0
conntrack: {maxPerCore: 0}
J
containerd -c "$S/containerd.toml" >"$D/containerd.log" 2>&1 &
until ctr version >/dev/null 2>&1; do sleep 0.1; done
for i in "$S"/images/*.tar; do [ -e "$i" ] || continue
  m="$D/imported.$(basename "$i").$(stat -c %Y "$i")"; [ -e "$m" ] || { ctr -n k8s.io images import --no-unpack "$i" >/dev/null && touch "$m"; }; done
"$B/kubelet" --config="$D/kubelet.yaml" --kubeconfig="$S/kubeconfig/$NODE.conf" --hostname-override="$NODE" \
  --node-ip=172.30.0.$((10+IDX)) --node-labels="topology.kubernetes.io/zone=z$IDX" >"$D/kubelet.log" 2>&1 &
echo $! >"$D/kubelet.nspid"
"$B/kube-proxy" --config="$D/proxy.yaml" >"$D/kube-proxy.log" 2>&1 &
if [ -x "$B/kube-network-policies" ]; then      # its own nft rules need a kernel feature that may be missing: iptables feeds its queue
  iptables -t mangle -A POSTROUTING -m addrtype --src-type LOCAL -j RETURN                     # a node reaches its pods: probes
  iptables -t mangle -A POSTROUTING -d 10.244.0.0/16 -m conntrack --ctstate NEW -j NFQUEUE --queue-num 98 --queue-bypass
  "$B/kube-network-policies" --kubeconfig="$S/kubeconfig/admin.conf" --hostname-override="$NODE" --nfqueue-id=98 --strict-mode=false \
    >"$D/network-policies.log" 2>&1 &
fi
touch "$D/up"
while :; do wait -n || sleep 1; done
