#!/bin/sh
# Written by haversack render clearml, of snapshot 2026-11 (sha256:222222222222…), declaration sha256:333333333333….
# Makes the secret site-registry in a namespace; every namespace that pulls images needs it:
#   NAMESPACE=clearml REGISTRY_USER=NAME PASSWORD_FILE=FILE sh pull-secret.sh
# Other users of this machine see the words of kubectl; this shows them no password, and makes the same:
#   haversack render pull-secret site-registry --server mirror.example.org --username NAME --password-file FILE -n NAMESPACE \
#       | kubectl apply -f -
set -eu
password="$(cat "${PASSWORD_FILE:?}")"
secret="$(kubectl create secret docker-registry site-registry \
    --namespace "${NAMESPACE:?}" \
    --docker-server mirror.example.org \
    --docker-username "${REGISTRY_USER:?}" \
    --docker-password "$password" \
    --dry-run=client -o yaml)"
printf '%s\n' "$secret" | kubectl apply -f -
