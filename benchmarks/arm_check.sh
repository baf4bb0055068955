#!/usr/bin/env bash
# edge_kp on an emulated 64-bit ARM processor: bash benchmarks/arm_check.sh [FOLDER]
# Every shipped network is held against the stored results there, and the shipped clip is followed; the figures
# are written to benchmarks/results/arm.json. DATA=ibug:helen_val measures the error on labelled photos as well.
# Needs Debian 12 on x86, root, and the project's environment.
# CPU=cortex-a57 has no 16-bit arithmetic. ONNX Runtime beyond 1.23 does not start in Debian's QEMU.
set -euo pipefail
cd "$(dirname "$0")/.."
python=$PWD/.venv/bin/python folder=$(realpath -m "${1:-/tmp/edge_kp_arm}") cpu=${CPU:-cortex-a76}
root=$folder/root site=$folder/site
mkdir -p "$root" "$folder/debs" "$site"
if ! [ -x "$root/usr/bin/python3.11" ]; then
  dpkg --add-architecture arm64
  apt-get -qq update
  apt-get -qq install -y --no-install-recommends qemu-user-static
  packages="libc6 libgcc-s1 libstdc++6 zlib1g libexpat1 libffi8 libssl3 libbz2-1.0 liblzma5 libuuid1 libcrypt1 libgomp1
    python3.11 python3.11-minimal libpython3.11-minimal libpython3.11-stdlib"
  (cd "$folder/debs" && apt-get -qq download $(printf '%s:arm64 ' $packages) && for file in *.deb; do dpkg -x "$file" "$root"; done)
fi
if ! [ -d "$site/onnxruntime" ]; then
  "$python" -m pip install -q --target "$site" --python-version 3.11 --only-binary :all: \
    --platform manylinux2014_aarch64 --platform manylinux_2_27_aarch64 --platform manylinux_2_28_aarch64 \
    "numpy<2.4" "opencv-python-headless>=4.10,<5" "onnxruntime==1.23.*" tqdm
fi
arm() {
  qemu-aarch64-static -cpu "$cpu" -L "$root" -E PYTHONPATH="$PWD:$site" "$root/usr/bin/python3.11" "$@" \
    2> >(grep -v cpuid_info >&2)
}
arm -m benchmarks.arm hold "$folder/held.json"
for precision in fp32 fp16 int8; do
  arm -m benchmarks.arm follow "$folder/$precision.arm.npy" --precision $precision
  "$python" -m benchmarks.arm follow "$folder/$precision.here.npy" --precision $precision
  if [ -n "${DATA:-}" ]; then
    arm -m edge_kp.evaluate --data "$DATA" --precision $precision --threads 1 --json "$folder/$precision.error.json"
  fi
done
"$python" -m benchmarks.arm write "$folder" --processor "$cpu" --emulator "$(qemu-aarch64-static --version | head -1)"
