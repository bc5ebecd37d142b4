"""Prospect for Conan 2, from the tree that this file stands in: the headers, or the archive or the shared
library beside them. They come as the CMake package that an installation has, prospect_cuda_std and all.

usage: conan create cmake/packages/conan [-o "prospect/*:header_only=False" [-o "prospect/*:shared=True"]]
"""

import re
from pathlib import Path

from conan import ConanFile
from conan.errors import ConanInvalidConfiguration
from conan.tools.build import check_min_cppstd
from conan.tools.cmake import CMake, CMakeDeps, CMakeToolchain, cmake_layout
from conan.tools.files import copy

required_conan_version = ">=2.1"


class Prospect(ConanFile):
    name = "prospect"
    description = "Preference-alignment losses for native language-model trainers"
    license = "MIT"
    topics = ("llm", "alignment", "kto", "dpo", "grpo", "header-only")
    package_type = "library"
    settings = "os", "arch", "compiler", "build_type"
    options = {"header_only": [True, False], "shared": [True, False]}
    default_options = {"header_only": True, "shared": False}
    implements = ["auto_header_only"]

    @property
    def tree(self):
        return Path(self.recipe_folder).parents[2]

    def set_version(self):
        config = (self.tree / "include/prospect/config.hpp").read_text(encoding="utf-8")
        self.version = ".".join(re.findall(r"^#define PROSPECT_VERSION_[A-Z]+ (\d+)$", config, re.MULTILINE))

    def export_sources(self):
        for pattern in ("CMakeLists.txt", "LICENSE", "cmake/*", "include/*", "kernels/*"):
            copy(self, pattern, src=self.tree, dst=self.export_sources_folder)

    def configure(self):
        if self.options.header_only:
            self.options.rm_safe("shared")

    def layout(self):
        cmake_layout(self)

    def requirements(self):
        if not self.options.header_only:
            self.requires("eigen/3.4.0", visible=False)  # the C API's head path is compiled with it

    def validate(self):
        check_min_cppstd(self, 20)
        if not self.options.header_only and self.settings.os != "Linux":
            raise ConanInvalidConfiguration("the archive is built on Linux")

    def generate(self):
        archive = not self.options.header_only
        toolchain = CMakeToolchain(self)
        for switch, value in {
            "PROSPECT_KERNELS": archive,
            "PROSPECT_SHARED": self.options.get_safe("shared", False),
            "PROSPECT_C_HEAD": archive,
            "PROSPECT_CUDA": False,
            "PROSPECT_BUILD_TESTS": False,
            "PROSPECT_BUILD_EXAMPLES": False,
            "PROSPECT_BUILD_BENCH": False,
        }.items():
            toolchain.cache_variables[switch] = bool(value)
        toolchain.generate()
        CMakeDeps(self).generate()

    def build(self):
        cmake = CMake(self)
        cmake.configure()
        cmake.build()

    def package(self):
        CMake(self).install()
        copy(self, "LICENSE", src=self.source_folder, dst=Path(self.package_folder) / "licenses")

    def package_info(self):
        self.cpp_info.set_property("cmake_find_mode", "none")  # there is one: lib/cmake/prospect
        self.cpp_info.builddirs = ["lib/cmake/prospect"]
        self.cpp_info.set_property("pkg_config_name", "prospect-headers")
        self.cpp_info.bindirs = []
        if self.options.header_only:
            self.cpp_info.libdirs = []
        else:
            self.cpp_info.set_property("pkg_config_name", "prospect")
            self.cpp_info.libs = ["prospect" if self.options.shared else "prospect_kernels"]
            self.cpp_info.system_libs = [] if self.options.shared else ["stdc++", "m", "pthread"]
