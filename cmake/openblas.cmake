# BLAS::BLAS, where one is found that is worth it. Not just any: the reference implementation is slower
# than Eigen.
if(NOT BLA_VENDOR)
  set(BLA_VENDOR OpenBLAS)
endif()
find_package(BLAS QUIET)
