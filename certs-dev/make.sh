#!/usr/bin/env bash
# make.sh [NAME...]: a CA and a serving certificate for localhost (and NAMEs) in this folder, for `revguard serve
# --tls-cert certs-dev/tls.crt --tls-key certs-dev/tls.key`. For development only; nothing of it is ever committed.
set -euo pipefail
cd "$(dirname "$0")"
command -v openssl >/dev/null || { echo "openssl is needed (Debian: openssl)" >&2; exit 1; }
umask 077
names="DNS:localhost,IP:127.0.0.1,IP:::1"
for n in "$@"; do names+=",DNS:$n"; done
if [ ! -f ca.key ]; then
  openssl ecparam -genkey -name prime256v1 -noout -out ca.key
  openssl req -x509 -new -key ca.key -days 365 -subj "/CN=revguard development CA" \
    -addext "basicConstraints=critical,CA:true,pathlen:0" -addext "keyUsage=critical,keyCertSign" -out ca.crt
fi
openssl ecparam -genkey -name prime256v1 -noout -out tls.key.new
openssl req -new -key tls.key.new -subj "/CN=revguard" -out tls.csr
openssl x509 -req -in tls.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 30 -out tls.crt.new \
  -extfile <(printf 'subjectAltName=%s\nextendedKeyUsage=serverAuth\nbasicConstraints=critical,CA:false\n' "$names") 2>/dev/null
# The server keeps the old pair until both halves of the new one fit.
mv tls.key.new tls.key && mv tls.crt.new tls.crt
rm -f tls.csr ca.srl
echo "wrote ca.crt, tls.crt, tls.key in $(pwd)"
