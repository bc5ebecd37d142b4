"""What pip installed, as a C++ project finds it."""

import shutil
import subprocess

import pytest

import prospect

CMAKE = """cmake_minimum_required(VERSION 3.25)
project(consumer LANGUAGES CXX)
find_package(prospect CONFIG REQUIRED COMPONENTS headers kernels)
add_executable(consumer main.cpp)
target_link_libraries(consumer PRIVATE prospect::prospect prospect::kernels)
"""
MAIN = """#include <prospect/batch.hpp>
#include <prospect/c/prospect.h>
#include <cstdio>
int main() {
  prospect_loss loss;
  prospect_error error;
  if (prospect_loss_init(&loss, "kto", &error) != PROSPECT_OK) return 1;
  std::printf("%u %s\\n", prospect_version(), prospect_loss_parameter(&loss, 0));
}
"""


@pytest.mark.skipif(not shutil.which("cmake") or not shutil.which("c++"), reason="no cmake or no C++ compiler")
def test_found_by_cmake(tmp_path):
    (tmp_path / "CMakeLists.txt").write_text(CMAKE)
    (tmp_path / "main.cpp").write_text(MAIN)
    for command in (["cmake", "-S", tmp_path, "-B", tmp_path / "build",
                     f"-DCMAKE_PREFIX_PATH={prospect.cmake_prefix_path()}"], ["cmake", "--build", tmp_path / "build"]):
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    said = subprocess.run([tmp_path / "build" / "consumer"], capture_output=True, text=True, check=True).stdout
    number = sum(int(part) * unit for part, unit in zip(prospect.__version__.split("."), (10000, 100, 1)))
    assert said == f"{number} beta\n"


@pytest.mark.skipif(not shutil.which("c++"), reason="no C++ compiler")
def test_headers_alone(tmp_path):
    (tmp_path / "main.cpp").write_text("#include <prospect/losses/losses.hpp>\nint main() {}\n")
    done = subprocess.run(["c++", "-std=c++20", f"-I{prospect.include_dir()}", "-fsyntax-only", tmp_path / "main.cpp"],
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
