#!/bin/sh
# The whole study of docs/fine-tuning-study.md; started again it goes on where it was. Many hours on two cores.
#   docs/run_fine_tuning_study.sh DATA OUTPUT [STEPS]
# DATA holds nuclei/, phase_cells/ and hippocampus/; OUTPUT gets one folder a protocol.
set -e
data=$1 output=$2 steps=${3:-100}
base="$output/fluo-base"
if [ ! -e "$base/fluo-base/model.json" ]; then
    mkdir -p "$output/fluorescence"
    head -n 1 "$data/nuclei/index.csv" > "$output/fluorescence/index.csv"
    grep ',fluo_' "$data/nuclei/index.csv" >> "$output/fluorescence/index.csv"
    for split in train val test; do
        cp "$data/nuclei/$split.zip" "$output/fluorescence/"
    done
    xlstm-unet train "$output/fluorescence" --name fluo-base --config "$(dirname "$0")/fluorescence-base.toml" \
        --output "$base"
fi
xlstm-unet evaluate-finetune hard --model "$base/fluo-base" --data "$data" --output "$output/hard" --steps "$steps"
for protocol in object mild same scanner thick; do
    xlstm-unet evaluate-finetune $protocol --data "$data" --output "$output/$protocol" --steps "$steps"
done
