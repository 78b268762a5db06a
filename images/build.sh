#!/usr/bin/env bash
# images/build.sh [operator] [light] [models]: builds the images (all three where none is named) with docker or buildah.
#
#   IMAGE_REGISTRY   what the names begin with (diffugen): diffugen/operator, diffugen/generator-light, diffugen/generator
#   IMAGE_TAG        their tag (the version: python3 version.py)
#   BUILDER          docker or buildah (docker where it answers)
#   BASE             another base image: Python 3.11 to 3.13 with venv and pip, and certificates
#   MODELS           models, or models-yolo (AGPL-3.0)
#   TORCH_INDEX      https://download.pytorch.org/whl/cpu for a small image without CUDA
#   REBUILD          another text builds the layer of our own code again, and nothing before it
#   SOURCE_DATE_EPOCH  the time of the files; the same for every commit, so that a layer that did not change is not sent again
#
# What this machine says of package indexes and certificates (pip's and uv's settings, SSL_CERT_FILE) reaches the builds as
# secrets, and never the images.
set -euo pipefail
cd "$(dirname "$0")/.."

[ "${BUILDER:-buildah}" = docker ] || export STORAGE_DRIVER="${STORAGE_DRIVER:-overlay}"
version=$(python3 version.py)
registry=${IMAGE_REGISTRY:-diffugen} tag=${IMAGE_TAG:-$version}
epoch=${SOURCE_DATE_EPOCH:-1704067200}
if [ -z "${BUILDER:-}" ]; then
  if docker info >/dev/null 2>&1; then BUILDER=docker; else BUILDER=buildah; fi
fi
command -v "$BUILDER" >/dev/null || { echo "images/build.sh: neither docker nor buildah is here; install one of them" >&2; exit 1; }

revision=$(git rev-parse HEAD 2>/dev/null || echo unknown)
arguments=(--label "org.opencontainers.image.revision=$revision" --build-arg "VERSION=$version" --build-arg "SOURCE_DATE_EPOCH=$epoch")
for name in BASE MODELS TORCH_INDEX SOURCE REBUILD; do
  [ -z "${!name:-}" ] || arguments+=(--build-arg "$name=${!name}")
done
secret() { # secret ID FILE...: the first of the files that exists
  local id=$1 file
  shift
  for file in "$@"; do
    if [ -n "$file" ] && [ -s "$file" ]; then arguments+=(--secret "id=$id,src=$file"); return; fi
  done
}
secret certificates "${SSL_CERT_FILE:-}"
secret pip_config "${PIP_CONFIG_FILE:-}" "$HOME/.config/pip/pip.conf" "$HOME/.pip/pip.conf" /etc/pip.conf
secret uv_config "${UV_CONFIG_FILE:-}" "$HOME/.config/uv/uv.toml" /etc/uv/uv.toml

build() { # build NAME DOCKERFILE TARGET
  echo "building $registry/$1:$tag with $BUILDER"
  if [ "$BUILDER" = docker ]; then
    docker build "${arguments[@]}" --file "$2" --target "$3" --tag "$registry/$1:$tag" .
    return
  fi
  # --timestamp: all files of a layer have this time, so that equal contents have equal digests.
  local own=(--layers --format oci --timestamp "$epoch" --network host --ulimit nofile=1024:20000)
  [ "$(id -u)" != 0 ] || own+=(--runtime runc --isolation oci)
  local cache=${UV_CACHE_DIR:-$HOME/.cache/uv}
  [ ! -d "$cache" ] || own+=(--volume "$cache:/run/uv-cache")
  buildah build "${own[@]}" "${arguments[@]}" --file "$2" --target "$3" --tag "$registry/$1:$tag" .
}

[ $# -gt 0 ] || set -- operator light models
for image in "$@"; do
  case $image in
    operator) build operator images/operator/Dockerfile operator ;;
    light) build generator-light images/generator/Dockerfile light ;;
    models) build generator images/generator/Dockerfile models ;;
    *) echo "images/build.sh: no image is called $image; there are operator, light and models" >&2; exit 64 ;;
  esac
done
