# What the scripts of the example trainer share: sourced, it sets `root` and `build`, and installs what
# is missing where that is possible without asking (root on Debian or Ubuntu).
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
build=$root/build/examples

missing=()
command -v cmake >/dev/null || missing+=(cmake)
command -v ninja >/dev/null || missing+=(ninja-build)
command -v c++ >/dev/null || missing+=(g++)
include() {
  echo "#include <$1>" | c++ -x c++ -std=c++20 -DPCRE2_CODE_UNIT_WIDTH=8 -fsyntax-only - 2>/dev/null
}
include /usr/include/eigen3/Eigen/Core || include eigen3/Eigen/Core || include Eigen/Core ||
  missing+=(libeigen3-dev)
include nlohmann/json.hpp || missing+=(nlohmann-json3-dev)
include CLI/Version.hpp || missing+=(libcli11-dev)
include openssl/evp.h || missing+=(libssl-dev)
include pcre2.h || missing+=(libpcre2-dev)
include zlib.h || missing+=(zlib1g-dev)
if ((${#missing[@]})); then
  if [[ $EUID == 0 ]] && command -v apt-get >/dev/null; then
    echo "Installing ${missing[*]}" >&2
    { apt-get update && apt-get install -y --no-install-recommends "${missing[@]}"; } >/dev/null
  else
    echo "examples/${0##*/} needs: ${missing[*]} (on Debian: apt-get install ${missing[*]})" >&2
    exit 1
  fi
fi

build_example() {
  cmake -S "$root" -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DPROSPECT_BUILD_TESTS=OFF \
    -DPROSPECT_BUILD_BENCH=OFF -DPROSPECT_CUDA=OFF --log-level=WARNING >/dev/null
  cmake --build "$build" --target "$1" >&2
}

# Products are made on the trainer's threads; a BLAS with threads of its own would only fight them.
export OPENBLAS_NUM_THREADS=${OPENBLAS_NUM_THREADS:-1}
