#!/usr/bin/env bash
# images/base.sh NAME: makes a base image from Debian's packages with debootstrap and buildah, as root, for machines that
# reach no image registry. Where one is reached, the Dockerfiles' default does.
set -euo pipefail
name=${1:?images/base.sh NAME: say what the image is called}
for program in debootstrap buildah; do
  command -v $program >/dev/null || { echo "images/base.sh: apt-get install $program" >&2; exit 1; }
done
[ "$(id -u)" = 0 ] || { echo "images/base.sh: debootstrap needs root" >&2; exit 1; }

export STORAGE_DRIVER="${STORAGE_DRIVER:-overlay}"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates bookworm "$folder/root" > "$folder/log" ||
  { tail -5 "$folder/log" >&2; exit 1; }
rm -rf "$folder"/root/var/cache/apt/archives/*.deb "$folder"/root/var/lib/apt/lists/* "$folder"/root/var/log/*
container=$(buildah from scratch)
buildah add --quiet "$container" "$folder/root" / > /dev/null
buildah config --env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin --cmd python3 "$container"
buildah commit --quiet --rm "$container" "$name" > /dev/null
echo "made $name"
