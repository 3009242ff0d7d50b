#!/bin/bash
# certs.sh STATE_DIR NODE...: PKI and kubeconfigs for the control plane, each node, and clients on the host
set -euo pipefail
S=$1 IP=172.30.0.1; shift; P=$S/pki; mkdir -p "$P" "$S/kubeconfig"; cd "$P"
ca() { [ -f $1.key ] || { openssl ecparam -name prime256v1 -genkey -noout -out $1.key
  openssl req -x509 -new -key $1.key -subj "/CN=$2" -days 30 -out $1.crt \
    -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign,digitalSignature; }; }
leaf() { # leaf NAME CA SUBJECT USAGE [SAN]
  openssl ecparam -name prime256v1 -genkey -noout -out $1.key
  openssl req -new -key $1.key -subj "$3" -out $1.csr
  openssl x509 -req -in $1.csr -CA $2.crt -CAkey $2.key -CAcreateserial -days 30 -out $1.crt \
    -extfile <(echo "keyUsage=critical,digitalSignature"; echo "extendedKeyUsage=$4"; [ -z "${5:-}" ] || echo "subjectAltName=$5") 2>/dev/null
  rm -f $1.csr; }
kcfg() { cat > "$S/kubeconfig/$1" <<J
apiVersion: v1
kind: Config
current-context: rag
clusters: [{name: rag, cluster: {server: "https://$IP:6443", certificate-authority-data: $(base64 -w0 ca.crt)}}]
contexts: [{name: rag, context: {cluster: rag, user: me}}]
users: [{name: me, user: {client-certificate-data: $(base64 -w0 $2.crt), client-key-data: $(base64 -w0 $2.key)}}]
J
chmod 600 "$S/kubeconfig/$1"; }
ca ca rag-ca; ca front-proxy-ca rag-front-proxy-ca
leaf apiserver ca /CN=kube-apiserver serverAuth "IP:127.0.0.1,IP:$IP,IP:10.96.0.1,DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local"
leaf apiserver-kubelet-client ca /O=rag:apiserver-kubelet/CN=kube-apiserver-kubelet-client clientAuth
leaf front-proxy-client front-proxy-ca /CN=front-proxy-client clientAuth
leaf admin ca /O=system:masters/CN=admin clientAuth;                          kcfg admin.conf admin
leaf kcm ca /CN=system:kube-controller-manager clientAuth;                    kcfg kcm.conf kcm
leaf scheduler ca /CN=system:kube-scheduler clientAuth;                       kcfg scheduler.conf scheduler
leaf proxy ca /CN=system:kube-proxy clientAuth;                               kcfg proxy.conf proxy
i=0; for n in "$@"; do i=$((i+1))
  leaf $n ca /O=system:nodes/CN=system:node:$n clientAuth;                    kcfg $n.conf $n
  leaf $n-serving ca /O=system:nodes/CN=system:node:$n serverAuth "DNS:$n,IP:172.30.0.$((10+i))"
done
[ -f sa.key ] || { openssl genrsa -out sa.key 2048 2>/dev/null; openssl rsa -in sa.key -pubout -out sa.pub 2>/dev/null; }
