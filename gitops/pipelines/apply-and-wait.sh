#!/bin/sh
# Apply a LabeledDataset, and wait until it is published (exit 0) or cannot go on (exit 1).
#
#   apply-and-wait.sh MANIFEST RESULTS [REQUEST]
#
# Writes the dataset's place and revision into the files RESULTS/uri and RESULTS/revision. REQUEST is a word of this
# run: a dataset that failed before begins once more when it is new, and its former failure does not count.
set -eu
manifest=$1 results=$2 request=${3:-$(date +%s)-$(hostname)}

applied=$(kubectl apply --server-side --field-manager=pipeline -f "$manifest" -o 'jsonpath={.metadata.namespace}/{.metadata.name}')
namespace=${applied%/*} dataset=labeleddatasets.diffugen.dev/${applied#*/}

read_field() {
  kubectl get "$dataset" --namespace "$namespace" -o "jsonpath=$1"
}

kubectl annotate "$dataset" --namespace "$namespace" --overwrite "diffugen.dev/retry-requested-at=$request" >/dev/null
wanted=$(read_field '{.metadata.generation}')

fields='{.status.summary.observedGeneration} {.status.lastHandledRetryAt} {.status.summary.state} {.status.summary.stage} {.status.summary.progress}'
last=
while :; do
  now=$(read_field "$fields")
  if [ "$now" != "$last" ]; then
    echo "$now"
    last=$now
  fi
  # shellcheck disable=SC2086 # the fields are words
  set -- $now
  if [ "${1:-}" = "$wanted" ] && [ "${2:-}" = "$request" ]; then
    case ${3:-} in
      Succeeded) break ;;
      Failed)
        read_field '{range .status.conditions[?(@.type=="Stalled")]}{.reason}: {.message}{"\n"}{end}' >&2
        exit 1
        ;;
    esac
  fi
  sleep "${POLL_SECONDS:-10}"
done

mkdir -p "$results"
for field in uri revision; do
  read_field "{.status.dataset.$field}" >"$results/$field"
done
