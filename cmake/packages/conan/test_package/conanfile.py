"""A stranger's project uses the package: the one that also tests an installation, tests/package/consumer."""

from pathlib import Path

from conan import ConanFile
from conan.tools.cmake import CMake, CMakeToolchain, cmake_layout


class Consumer(ConanFile):
    settings = "os", "arch", "compiler", "build_type"
    generators = "CMakeDeps"

    def requirements(self):
        self.requires(self.tested_reference_str)

    def layout(self):
        cmake_layout(self)

    def generate(self):
        options = self.dependencies["prospect"].options
        library = ""
        if not options.get_safe("header_only"):
            library = "shared" if options.shared else "kernels"
        toolchain = CMakeToolchain(self)
        version = self.dependencies["prospect"].ref.version
        for name, value in {
            "HOW": "find_package",
            "VERSION": f"{version.major}.{version.minor}",
            "LIBRARY": library,
            "LANGUAGES": "C;CXX" if library else "CXX",
        }.items():
            toolchain.cache_variables[name] = value
        toolchain.generate()

    def build(self):
        cmake = CMake(self)
        tree = Path(self.recipe_folder).parents[3]
        cmake.configure(build_script_folder=str(tree / "tests/package/consumer"))
        cmake.build()

    def test(self):
        CMake(self).ctest(cli_args=["--output-on-failure", "--no-tests=error"])
