// The version, and the one macro that lets a formula run on host and device.
#pragma once

#if (defined(_MSVC_LANG) ? _MSVC_LANG : __cplusplus) < 202002L
#error \
    "prospect needs C++20: pass -std=c++20 (CMake: link prospect::prospect; .cu files: see prospect_cuda_std)"
#endif

#define PROSPECT_VERSION_MAJOR 0
#define PROSPECT_VERSION_MINOR 1
#define PROSPECT_VERSION_PATCH 0

#if defined(__CUDACC__)
#define PROSPECT_HD __host__ __device__
#else
#define PROSPECT_HD
#endif

/// Everything lives in an inline namespace that carries the ABI version, so that two versions
/// linked into one program cannot be taken for each other.
namespace prospect::inline v0 {}
