#!/usr/bin/env bash
# Train the reader over your word vectors and score it with SQuAD's exact match and F1.
#   run_drqa.sh FOLDER --embeddings VECTORS [--nbit 2] [--preset smoke|cpu|full] [--seed 0] …
# FOLDER is made by prepare_drqa.sh. If it has the training set, the development set tests; otherwise the
# development set is split by article. The state is saved in FOLDER, so an interrupted run resumes.
set -euo pipefail

if [ $# -lt 1 ] || [ ! -r "$1/dev-v1.1.json" ]; then
    echo "usage: run_drqa.sh FOLDER --embeddings VECTORS [options]; make FOLDER with prepare_drqa.sh" >&2
    exit 2
fi
folder=$1
shift
data=(--data "$folder/dev-v1.1.json")
if [ -r "$folder/train-v1.1.json" ]; then
    data=(--data "$folder/train-v1.1.json" --test "$folder/dev-v1.1.json")
fi
run=$(printf '%s\0' "$@" | sha256sum | cut -c1-12)
export PYTHONPATH="$(dirname "$0")/../..${PYTHONPATH:+:$PYTHONPATH}"
exec "${PYTHON:-python}" -m examples.drqa.train "${data[@]}" --checkpoint "$folder/checkpoint-$run.pt" "$@"
