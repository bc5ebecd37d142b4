"""Where the C++ library is that was installed with this package."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def include_dir() -> str:
    """The folder for a compiler's -I: it holds prospect/prospect.hpp and prospect/c/prospect.h."""
    return str(_PACKAGE / "include")


def cmake_prefix_path() -> str:
    """A prefix for CMAKE_PREFIX_PATH, where find_package(prospect) finds headers and archive."""
    return str(_PACKAGE)
