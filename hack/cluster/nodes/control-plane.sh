#!/bin/bash
# control-plane.sh STATE_DIR: etcd on loopback, kube-apiserver on the bridge address, controller-manager and scheduler on
# loopback. Runs inside the cluster's namespaces and ends with them.
set -euo pipefail
S=$1 B=$1/bin IP=172.30.0.1 P=$1/pki L=$1/log R=$1/run
start() { local n=$1; shift; setsid "$@" >"$L/$n.log" 2>&1 </dev/null & echo $! >"$R/$n.pid"; }
mkdir -p "$L" "$R" "$S/etcd"
ip link show br-rag >/dev/null 2>&1 || { ip link add br-rag type bridge; ip addr add $IP/24 dev br-rag; ip link set br-rag up; }
echo 1 >/proc/sys/net/ipv4/ip_forward
start etcd "$B/etcd" --name=rag --data-dir="$S/etcd" --unsafe-no-fsync=true \
  --listen-client-urls=http://127.0.0.1:2379 --advertise-client-urls=http://127.0.0.1:2379 \
  --listen-peer-urls=http://127.0.0.1:2380 --initial-advertise-peer-urls=http://127.0.0.1:2380 \
  --initial-cluster=rag=http://127.0.0.1:2380
start kube-apiserver "$B/kube-apiserver" --etcd-servers=http://127.0.0.1:2379 \
  --bind-address=$IP --advertise-address=$IP --secure-port=6443 --cert-dir="$S/apiserver-certs" \
  --tls-cert-file=$P/apiserver.crt --tls-private-key-file=$P/apiserver.key \
  --client-ca-file=$P/ca.crt --authorization-mode=Node,RBAC --anonymous-auth=true --allow-privileged=true \
  --enable-admission-plugins=NodeRestriction \
  --service-cluster-ip-range=10.96.0.0/16 --service-node-port-range=30000-32767 \
  --service-account-issuer=https://kubernetes.default.svc --service-account-key-file=$P/sa.pub --service-account-signing-key-file=$P/sa.key \
  --kubelet-certificate-authority=$P/ca.crt --kubelet-client-certificate=$P/apiserver-kubelet-client.crt \
  --kubelet-client-key=$P/apiserver-kubelet-client.key --kubelet-preferred-address-types=InternalIP \
  --requestheader-client-ca-file=$P/front-proxy-ca.crt --requestheader-allowed-names=front-proxy-client \
  --requestheader-username-headers=X-Remote-User --requestheader-group-headers=X-Remote-Group \
  --requestheader-extra-headers-prefix=X-Remote-Extra- \
  --proxy-client-cert-file=$P/front-proxy-client.crt --proxy-client-key-file=$P/front-proxy-client.key \
  --enable-aggregator-routing=true \
  --default-not-ready-toleration-seconds=15 --default-unreachable-toleration-seconds=15 \
  --event-ttl=1h --max-requests-inflight=400 --max-mutating-requests-inflight=200
t0=$(date +%s%N)
until curl -fs --cacert $P/ca.crt --cert $P/admin.crt --key $P/admin.key https://$IP:6443/readyz >/dev/null 2>&1; do
  kill -0 "$(cat $R/kube-apiserver.pid)" || { tail -20 $L/kube-apiserver.log; exit 1; }; sleep 0.2; done
echo "apiserver ready after $(( ($(date +%s%N)-t0)/1000000 )) ms"
start kube-controller-manager "$B/kube-controller-manager" --kubeconfig=$S/kubeconfig/kcm.conf \
  --authentication-kubeconfig=$S/kubeconfig/kcm.conf --authorization-kubeconfig=$S/kubeconfig/kcm.conf \
  --bind-address=127.0.0.1 --cert-dir="$S/kcm-certs" --leader-elect=false --controllers='*' \
  --use-service-account-credentials=true --root-ca-file=$P/ca.crt --service-account-private-key-file=$P/sa.key \
  --cluster-signing-cert-file=$P/ca.crt --cluster-signing-key-file=$P/ca.key --client-ca-file=$P/ca.crt \
  --requestheader-client-ca-file=$P/front-proxy-ca.crt \
  --cluster-cidr=10.244.0.0/16 --allocate-node-cidrs=false \
  --node-monitor-period=2s --node-monitor-grace-period=16s \
  --horizontal-pod-autoscaler-sync-period=5s --horizontal-pod-autoscaler-downscale-stabilization=20s \
  --horizontal-pod-autoscaler-cpu-initialization-period=10s --horizontal-pod-autoscaler-initial-readiness-delay=5s
start kube-scheduler "$B/kube-scheduler" --kubeconfig=$S/kubeconfig/scheduler.conf \
  --authentication-kubeconfig=$S/kubeconfig/scheduler.conf --authorization-kubeconfig=$S/kubeconfig/scheduler.conf \
  --bind-address=127.0.0.1 --cert-dir="$S/scheduler-certs" --leader-elect=false
# what kubeadm would have made: the apiserver may reach kubelets (logs, exec, port-forward, metrics)
"$B/kubectl" --kubeconfig=$S/kubeconfig/admin.conf create clusterrolebinding rag:apiserver-kubelet \
  --clusterrole=system:kubelet-api-admin --user=kube-apiserver-kubelet-client --dry-run=client -o yaml | "$B/kubectl" --kubeconfig=$S/kubeconfig/admin.conf apply -f - >/dev/null
