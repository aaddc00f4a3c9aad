#!/bin/sh
# Written by haversack render skypilot, of snapshot 2026-11 (sha256:15c803c6332c…), declaration sha256:e3b0c44298fc….
# Run it as the user of the API server:  sh seed.sh
set -eu
from="$(cd "$(dirname "$0")" && pwd)"
sky="$HOME/.sky"
mkdir -p "$sky"
last="$sky/config.haversack.yaml"
if [ -e "$sky/config.yaml" ] && ! cmp -s "$sky/config.yaml" "$from/config.yaml" \
    && ! cmp -s "$sky/config.yaml" "$last"; then
    diff -u "$sky/config.yaml" "$from/config.yaml" >&2 || true
    echo "$sky/config.yaml was edited, or is somebody else's, and stays: join them" >&2
    exit 1
fi
cp "$from/config.yaml" "$sky/config.yaml"
cp "$from/config.yaml" "$last"
mkdir -p "$sky/catalogs/v8/aws"
mkdir -p "$sky/catalogs/v8/common"
cp "$from/catalogs/v8/aws/images.csv" "$sky/catalogs/v8/aws/images.csv"
rm -f "$sky/catalogs/v8/.meta/aws/images.csv.md5"
cp "$from/catalogs/v8/aws/instance_quota_mapping.csv" "$sky/catalogs/v8/aws/instance_quota_mapping.csv"
rm -f "$sky/catalogs/v8/.meta/aws/instance_quota_mapping.csv.md5"
cp "$from/catalogs/v8/aws/vms.csv" "$sky/catalogs/v8/aws/vms.csv"
rm -f "$sky/catalogs/v8/.meta/aws/vms.csv.md5"
cp "$from/catalogs/v8/common/accelerators.csv" "$sky/catalogs/v8/common/accelerators.csv"
rm -f "$sky/catalogs/v8/.meta/common/accelerators.csv.md5"
