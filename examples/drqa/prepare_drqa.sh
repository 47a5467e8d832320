#!/usr/bin/env bash
# Copy the data of run_drqa.sh into a folder and verify it.
#   prepare_drqa.sh FOLDER SQUAD_DEV [SQUAD_TRAIN]
set -euo pipefail

if [ $# -lt 2 ]; then
    cat >&2 <<'USAGE'
usage: prepare_drqa.sh FOLDER SQUAD_DEV [SQUAD_TRAIN]

SQUAD_DEV    dev-v1.1.json or dev-v1.1.json.gz    SQUAD_TRAIN  train-v1.1.json or .gz (for --preset full)

Both are published at https://rajpurkar.github.io/SQuAD-explorer/ (dataset/dev-v1.1.json, 4.9 MB, and
dataset/train-v1.1.json, 30 MB; CC BY-SA 4.0). The word vectors are yours to choose; the published setting
is glove.840B.300d or glove.6B.300d, from https://nlp.stanford.edu/projects/glove/.
USAGE
    exit 2
fi

# Digests of the published files, and of the development set with first-occurrence answer offsets.
declare -A known=(
    [95aa6a52d5d6a735563366753ca50492a658031da74f301ac5238b03966972c9]="dev-v1.1.json, as published"
    [3527663986b8295af4f7fcdff1ba1ff3f72d07d61a20f487cb238a6ef92fd955]="train-v1.1.json, as published"
    [4982c0b006f18e7f683fe919c64eb4a5e60b20b46dbb2527c547cd9b3bc4119a]="dev-v1.1.json, each answer at its first occurrence"
)

folder=$1
mkdir -p "$folder"
take() {
    local source=$1 target="$folder/$2" digest
    if [ ! -r "$source" ]; then
        echo "$source cannot be read; run prepare_drqa.sh without arguments to see where to get it." >&2
        exit 1
    fi
    case $source in
    *.gz) gzip -dc "$source" ;;
    *) cat "$source" ;;
    esac >"$target.partial" || {
        rm "$target.partial"
        echo "$source could not be read to its end; $folder is unchanged. Download it again." >&2
        exit 1
    }
    digest=$(sha256sum "$target.partial" | cut -d' ' -f1)
    if [ -z "${known[$digest]:-}" ]; then
        rm "$target.partial"
        echo "$source has the SHA-256 $digest, which is not a known SQuAD 1.1 file. Download it again." >&2
        exit 1
    fi
    mv "$target.partial" "$target"
    echo "$target: ${known[$digest]}"
}

take "$2" dev-v1.1.json
if [ $# -ge 3 ]; then take "$3" train-v1.1.json; fi
