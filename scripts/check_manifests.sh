#!/usr/bin/env bash
# Checkov over every manifest that the stacks render: 0 failed, but for the exceptions below, each with its reason.
#
#   make check-manifests          # brings Checkov by uv, in an environment of its own (about 200 packages)
set -euo pipefail
cd "$(dirname "$0")/.."
checkov=(checkov)
command -v checkov >/dev/null || checkov=("$(command -v uv || echo .uv/bin/uv)" tool run -q checkov)
# CKV_K8S_43 image by digest: a version tag is what exists before an image is built; a digest in images.digests wins.
everywhere=CKV_K8S_43
# NVIDIA's agents: root, because the kubelet's sockets are root's (23, 40); SYS_ADMIN for the profiling counters (25, 39);
# the device plugin has no port that a probe could ask (8, 9).
agents=$everywhere,CKV_K8S_8,CKV_K8S_9,CKV_K8S_23,CKV_K8S_25,CKV_K8S_39,CKV_K8S_40
folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT
code=0
for stack in stacks/Pulumi.*.yaml; do
  name=$(basename "$stack" .yaml)
  .venv/bin/ncdemo stack preview "$stack" --yaml "$folder/$name" >/dev/null 2>&1
  find "$folder/$name" ! -name '*.yaml' -type f -delete
  find "$folder/$name" -name '*cloud-init*' -delete
  mkdir -p "$folder/$name-agents"
  find "$folder/$name" -name '*-ncdemo-gpu-*' -exec mv {} "$folder/$name-agents" \;
  for part in "$name:$everywhere" "$name-agents:$agents"; do
    [ -n "$(ls "$folder/${part%%:*}")" ] || continue
    echo "${part%%:*}"
    # It asks its maker for guidelines at the start and goes on without; that is all of the noise on stderr.
    "${checkov[@]}" --framework kubernetes --quiet --compact --skip-download --skip-check "${part#*:}" -d "$folder/${part%%:*}" 2>/dev/null || code=1
  done
done
exit $code
