"""Which tests are nearest to a file: those that have to notice a defect in it. The first that finds
it ends the search, so the likeliest and the quickest come first."""

import fnmatch

# (files, tests), patterns of paths; the first that fits. {stem} is the name of the file.
NEAREST = [
    ("include/prospect/core/*_view.hpp", "core/{stem}_test.cpp"),
    ("include/prospect/core/*_span.hpp", "core/{stem}_test.cpp"),
    ("include/prospect/core/dtype*.hpp", "core/dtype*_test.cpp"),
    ("include/prospect/core/extent.hpp",
     "core/extent*_test.cpp cpu/*arguments_test.cpp cpu/sizes*_test.cpp "
     "cpu/token_options*_test.cpp"),
    ("include/prospect/core/*", "core/{stem}*_test.cpp core/*_test.cpp losses/*_test.cpp"),
    ("include/prospect/losses/*", "losses/*_test.cpp cpu/sequences*_test.cpp"),
    ("include/prospect/batch*.hpp",
     "batch/batch*_test.cpp cpu/sequences*_test.cpp cpu/nonfinite_test.cpp"),
    ("include/prospect/tokens*.hpp", "batch/tokens*_test.cpp cpu/token*_test.cpp"),
    ("include/prospect/layout*.hpp", "batch/layout*_test.cpp cpu/token_sequences*_test.cpp"),
    ("include/prospect/executor*.hpp", "batch/executor*_test.cpp"),
    ("include/prospect/vocabulary.hpp",
     "batch/vocabulary*_test.cpp cpu/vocabulary*_test.cpp cpu/tokens*_test.cpp"),
    ("include/prospect/reference_point.hpp",
     "batch/reference_point*_test.cpp cpu/sequences*_test.cpp cpu/nonfinite_test.cpp"),
    ("include/prospect/adapters/*", "adapters/{stem}*_test.cpp"),
    ("include/prospect/cpu/head*", "cpu/head*_test.cpp"),
    ("include/prospect/cpu/gemm.hpp", "cpu/gemm*_test.cpp cpu/head*_test.cpp"),
    ("include/prospect/cpu/*/head*", "cpu/head*_test.cpp"),
    ("include/prospect/cpu/checks.hpp",
     "cpu/*arguments*_test.cpp cpu/token*_test.cpp cpu/*_test.cpp"),
    ("include/prospect/cpu/sequences*",
     "cpu/sequences*_test.cpp cpu/cross_class*_test.cpp cpu/nonfinite*_test.cpp"),
    ("include/prospect/cpu/detail/blocks.hpp",
     "cpu/sequences*_test.cpp cpu/cross_class*_test.cpp cpu/vectorised_sequences*_test.cpp"),
    ("include/prospect/cpu/detail/rows.hpp",
     "cpu/mixed_rows_test.cpp cpu/sequences*_test.cpp cpu/indexed_pairs_test.cpp"),
    ("include/prospect/cpu/detail/pair_indices.hpp", "cpu/indexed_pairs_test.cpp"),
    ("include/prospect/cpu/detail/paired*",
     "cpu/sequences*_test.cpp cpu/indexed_pairs_test.cpp cpu/nonfinite*_test.cpp "
     "cpu/vectorised_sequences*_test.cpp"),
    ("include/prospect/cpu/detail/[su]*",
     "cpu/sequences*_test.cpp cpu/cross_class*_test.cpp cpu/nonfinite*_test.cpp "
     "cpu/vectorised_sequences*_test.cpp"),
    ("include/prospect/cpu/*",
     "cpu/tokens*_test.cpp cpu/token_*_test.cpp cpu/vocabulary*_test.cpp "
     "cpu/vectorised*_test.cpp"),
    ("include/prospect/cuda/detail/paired_job.cuh",
     "cuda/indexed_pairs_test.cu cuda/sequence_rows_test.cu cuda/sequences_test.cu"),
    ("include/prospect/cuda/detail/[su]*",
     "cuda/sequence*_test.cu cuda/losses_test.cu"),
    ("include/prospect/cuda/detail/*",
     "cuda/tokens*_test.cu cuda/token_*_test.cu cuda/vocabulary*_test.cu"),
    ("include/prospect/cuda/token*", "cuda/token_*_test.cu cuda/tokens*_test.cu"),
    ("include/prospect/cuda/*",
     "cuda/sequence*_test.cu cuda/indexed_pairs_test.cu cuda/token_*_test.cu"),
    ("include/prospect/*", "batch/{stem}*_test.cpp"),
    ("kernels/cuda/absent.cpp", "c/*_test.cpp"),
    ("kernels/cuda/*", "cuda/c_*_test.cu"),
    ("kernels/isa*", "kernels/*_test.cpp c/*_test.cpp"),
    ("kernels/loops*", "kernels/loops*_test.cpp c/*_test.cpp"),
    ("kernels/rows*", "kernels/rows*_test.cpp c/*_test.cpp"),
    ("kernels/*", "c/*_test.c c/*_test.cpp kernels/*_test.cpp"),
    ("examples/align/*_json.cpp", "examples/align/report*_test.cpp examples/align/*_test.cpp"),
    ("examples/align/*_html.cpp", "examples/align/report*_test.cpp examples/align/*_test.cpp"),
    ("examples/align/model*", "examples/align/model*_test.cpp examples/align/*_test.cpp"),
    ("examples/align/*", "examples/align/{stem}*_test.cpp examples/align/*_test.cpp"),
]

# Parts of the tree, and how many of forty defects each is given.
AREAS = {
    "cpu": (13, ["include/prospect/*"],
            ["include/prospect/cuda/*", "include/prospect/c/*", "include/prospect/adapters/*",
             "include/prospect/config.hpp", "include/prospect/prospect.hpp"]),
    "device": (10, ["include/prospect/cuda/*", "kernels/cuda/*"], ["kernels/cuda/absent.cpp"]),
    "c": (7, ["kernels/*"], ["kernels/cuda/*"]),
    "example": (8, ["examples/align/*"], ["examples/align/main.cpp"]),
    "adapters": (2, ["include/prospect/adapters/*"], []),
}
ENDINGS = (".hpp", ".cpp", ".cuh", ".cu")


def files_of(area, files):
    _, inside, outside = AREAS[area]
    fits = lambda file, patterns: any(fnmatch.fnmatch(file, p) for p in patterns)
    return [f for f in files if f.endswith(ENDINGS) and fits(f, inside) and not fits(f, outside)]


def nearest(file, files):
    """Paths of tests, nearest first."""
    for pattern, tests in NEAREST:
        if not fnmatch.fnmatch(file, pattern):
            continue
        stem = file.rsplit("/", 1)[1].rsplit(".", 1)[0]
        found = []
        for wanted in tests.format(stem=stem).split():
            depth = wanted.count("/") + 1  # a * stays within a folder here
            found += [f for f in sorted(files) if f.count("/") == depth and f not in found and
                      fnmatch.fnmatch(f, f"tests/{wanted}")]
        return found
    return []
